//! Compares what the source holds with what the target was read to hold, and says which rows have to be asked for again.
//!
//! A target is read page by page, perhaps over several runs, while syncs write to it and rows come and go. So a row that
//! looks different is a doubt first, and is asked for by its id before it is called so:
//!
//! | the row | is believed if |
//! |---|---|
//! | is the same | no sync has written since, or this content is what the target acknowledged last |
//! | differs, or only the target has it | no sync has written since |
//! | is missing | the target was asked for its id, or answered all rows at once: a deletion shifts the pages |
//!
//! A sync that writes changes the state's file, which is how it is noticed. Deliberately absent: one that was killed before
//! an answer and sent only rows that a killed run before it had noted already. It leaves the file as it was; the next sync
//! that comes to its end changes it.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use crate::catalogue::{Catalogue, Rejected, id_order};
use crate::changes::FieldChange;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::diff;
use crate::plan::{RowRef, RowWriter};
use crate::state::{Acknowledged, Fingerprint, State};
use crate::targets::{HeldRow, HeldRows, contains};
use crate::transform::{Former, RowMap};
use crate::words::say;

/// How the target holds a row of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum Held {
    Missing,
    Same,
    Differs,
}

#[derive(Debug, Clone, Copy)]
struct Finding {
    held: Held,
    is_believed: bool,
}

/// The source's rows against the target's.
pub(in crate::sync) struct Comparison<'a> {
    catalogue: &'a Catalogue,
    writer: RowWriter<'a>,
    /// Rows, and items of rows, that the pipeline cannot write.
    pub(in crate::sync) rejected: Vec<Rejected>,
    /// What the target acknowledged, where rows are older than it.
    state: Option<&'a State>,
    rows: Vec<RowRef>,
    places: HashMap<&'a str, usize>,
    /// Ids of rows that the pipeline cannot write: the source has them, and there is nothing to compare.
    unfit: HashSet<&'a str>,
    /// One for each of `rows`.
    findings: Vec<Finding>,
    /// Ids that only the target has, and whether that is believed.
    extras: HashMap<String, bool>,
    /// Ids of which the target has a tombstone.
    pub(in crate::sync) tombstones: BTreeSet<String>,
    /// The fields in which the first rows differ, by their ids.
    pub(in crate::sync) differing: HashMap<String, Vec<FieldChange>>,
    ours: Vec<u8>,
}

/// Rows whose fields are kept in memory: a verification of another target differs in all of them.
const MOST_DIFFERING: usize = 10_000;

impl<'a> Comparison<'a> {
    /// Compares these rows, without those that the pipeline cannot write, with a complete read-back.
    pub(super) fn new(
        map: &'a RowMap,
        catalogue: &'a Catalogue,
        mut rows: Vec<RowRef>,
        held: &HeldRows,
        (state, former): (Option<&'a State>, Option<&'a dyn Former>),
    ) -> Result<Self> {
        let (mut writer, mut ours, mut unfit) =
            (RowWriter::new(map, catalogue, former), Vec::new(), HashSet::new());
        rows.retain(|row| {
            let id = row.id(catalogue);
            ours.clear();
            let fits = writer.write(*row, id, &mut ours).is_ok();
            if !fits {
                unfit.insert(id);
            }
            fits
        });
        let rejected = std::mem::take(&mut writer.rejected);
        let places = rows.iter().enumerate().map(|(place, row)| (row.id(catalogue), place)).collect();
        let unseen = Finding { held: Held::Missing, is_believed: held.is_one_answer() };
        let findings = vec![unseen; rows.len()];
        let extras = HashMap::new();
        let mut comparison = Self {
            catalogue,
            writer,
            rejected,
            state,
            rows,
            places,
            unfit,
            findings,
            extras,
            tombstones: BTreeSet::new(),
            differing: HashMap::new(),
            ours,
        };
        let unpacked = held.for_each(|row| comparison.take(row));
        unpacked.map_err(|error| {
            Error::new(
                ErrorKind::BadState,
                say!("the rows that were read back cannot be unpacked: {error}", error),
            )
        })?;
        Ok(comparison)
    }

    /// Takes in a row of the target; it replaces an earlier one of the same id.
    pub(super) fn take(&mut self, row: HeldRow) {
        let HeldRow { id, content, is_tombstone, is_fresh } = row;
        if is_tombstone {
            self.tombstones.insert(id.clone());
        } else {
            self.tombstones.remove(&id);
        }
        let place = self.places.get(id.as_str()).copied();
        match (place, content) {
            (Some(place), content) => {
                let finding = self.judge(place, &id, content.as_ref(), is_fresh);
                if let Some(there) = self.findings.get_mut(place) {
                    *there = finding;
                }
            }
            (None, Some(_)) => drop(self.extras.insert(id, is_fresh)),
            (None, None) => drop(self.extras.remove(&id)),
        }
    }

    fn judge(&mut self, place: usize, id: &str, content: Option<&Value>, is_fresh: bool) -> Finding {
        let (Some(content), Some(row)) = (content, self.rows.get(place)) else {
            return Finding { held: Held::Missing, is_believed: is_fresh };
        };
        self.write(*row, id);
        self.differing.remove(id);
        if !contains(content, &self.ours) {
            if self.differing.len() < MOST_DIFFERING {
                let ours = std::str::from_utf8(&self.ours).unwrap_or_default();
                let fields = diff::bounded(diff::diff_with_target(&content.to_string(), ours));
                self.differing.insert(id.to_owned(), fields);
            }
            return Finding { held: Held::Differs, is_believed: is_fresh };
        }
        let is_acknowledged = || {
            let known = Acknowledged::Known(Fingerprint::of(&self.ours));
            self.state.is_some_and(|state| state.rows.get(id) == Some(known))
        };
        Finding { held: Held::Same, is_believed: is_fresh || is_acknowledged() }
    }

    /// The row as the pipeline writes it. Whether it fits was seen before.
    fn write(&mut self, row: RowRef, id: &str) {
        self.ours.clear();
        let _ = self.writer.write(row, id, &mut self.ours);
        self.writer.rejected.clear();
    }

    /// Ids that the target has to be asked for before their findings are believed.
    pub(super) fn doubts(&self) -> Vec<String> {
        let ours = self.rows.iter().zip(&self.findings).filter(|(_, finding)| !finding.is_believed);
        let ours = ours.map(|(row, _)| row.id(self.catalogue).to_owned());
        let theirs = self.extras.iter().filter(|(_, is_believed)| !**is_believed);
        let mut theirs: Vec<String> = theirs.map(|(id, _)| id.clone()).collect();
        theirs.sort_unstable();
        ours.chain(theirs).collect()
    }

    /// The rows of the source in their order, each with its id and how the target holds it.
    pub(in crate::sync) fn rows(&self) -> impl Iterator<Item = (RowRef, &'a str, Held)> {
        let id = |row: RowRef| row.id(self.catalogue);
        self.rows.iter().zip(&self.findings).map(move |(row, finding)| (*row, id(*row), finding.held))
    }

    /// The content of a row of the source.
    pub(in crate::sync) fn content(&mut self, row: RowRef, id: &str) -> &[u8] {
        self.write(row, id);
        &self.ours
    }

    /// Ids that only the target has: those of rows in the quarantine, which the source has too, and the others, in order.
    pub(in crate::sync) fn into_extras(self) -> (Vec<String>, Vec<String>) {
        let mut quarantined = self.unfit;
        quarantined.extend(self.catalogue.quarantined_ids.iter().map(|id| id.as_str()));
        let mut extras: Vec<String> = self.extras.into_keys().collect();
        extras.sort_unstable_by(|a, b| id_order(a, b));
        extras.into_iter().partition(|id| quarantined.contains(id.as_str()))
    }
}
