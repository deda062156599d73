//! The plan: what would have to change at the target, decided before anything is written. Pure.
//!
//! A value that can be printed, refused by the guard, and thrown away: nothing has happened yet. It holds a byte for each
//! row of the catalogue and not the rows, since most runs change few of them. Deliberately absent: what happened at the
//! target behind our back. `verify` finds that; a plan compares with what the target has acknowledged.

pub(crate) mod diff;
mod digest;
mod display;
mod guard;
mod held;
mod nearest;
mod rows;
mod select;

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Reason, ReasonKind, RecordId, Rejected, RowKind};
use crate::report::PlanCounts;
use crate::state::{Acknowledged, Fingerprint, Refusal, State};
use crate::transform::{Former, RowMap, RowUnit};
use crate::words::written;
pub use digest::Digest;
pub(crate) use digest::NoDigest;
pub(crate) use display::{DiffKind, DiffLine, name_of};
pub(crate) use guard::{DeleteGuard, SourceSummary};
pub(crate) use held::HeldGuard;
pub(crate) use nearest::nearest_ids;
pub(crate) use rows::{RowRef, RowWriter, Unfit, in_tree, rows, rows_in_tree};
pub(crate) use select::{NEAREST, Selection, unknown_id};

/// What is to be done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The target does not have it.
    Create,
    /// The target has it with other content.
    Update,
    /// The source no longer has it.
    Delete,
    /// The target has it with this content.
    Unchanged,
    /// Nothing: it does not fit the field map, the target refused it and its turn has not come, or nobody named it.
    Skip,
}

/// One row of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub id: &'a str,
    pub action: Action,
    /// Where its content comes from.
    pub row: RowRef,
}

/// What happens to a row that is gone at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// Nothing: it stays at the target.
    Ignore,
    /// The row's id is sent with `"deleted": true`.
    Tombstone,
}

/// The plan of one run over a catalogue.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    unit: RowUnit,
    /// What is to be done with each row, in the order of [`rows()`].
    actions: Vec<Action>,
    /// Rows that the source no longer has, to be deleted.
    gone: Vec<RecordId>,
    /// Rows by their action.
    pub counts: PlanCounts,
    /// Rows (or items of rows) that do not fit the field map, and deferred rows.
    pub rejected: Vec<Rejected>,
    /// Rows that the target refused in an earlier run and whose turn has not come.
    pub deferred: HashSet<RecordId>,
}

impl Plan {
    /// Compares the catalogue with what the target has acknowledged.
    ///
    /// A row that the target may hold is written here to compare its fingerprint, and once more into its batch if it
    /// changed. A product that the target does not hold needs no comparison: it is written once, into its batch.
    /// With value guards every row is written, since any may be held back.
    pub(crate) fn new(
        map: &RowMap,
        catalogue: &Catalogue,
        (state, former): (&State, Option<&dyn Former>),
        on_delete: OnDelete,
    ) -> Self {
        let mut plan = Self { unit: map.unit(), ..Self::default() };
        let mut comparison = Comparison::new(map, catalogue, state, former);
        for row in rows(catalogue, plan.unit) {
            let action = plan.compare(&mut comparison, row);
            plan.count(action);
            plan.actions.push(action);
        }
        if on_delete == OnDelete::Tombstone {
            plan.delete_absent(comparison);
        }
        plan
    }

    /// The plan that sends these rows, whether they changed or were refused, and nothing else.
    pub(crate) fn only(
        map: &RowMap,
        catalogue: &Catalogue,
        (state, former): (&State, Option<&dyn Former>),
        selection: &Selection,
    ) -> Self {
        let mut plan = Self { unit: map.unit(), ..Self::default() };
        let mut comparison = Comparison::new(map, catalogue, state, former);
        for row in rows(catalogue, plan.unit) {
            let is_meant = selection.rows.contains(&row);
            let action = if is_meant { plan.send_again(&mut comparison, row) } else { Action::Skip };
            plan.count(action);
            plan.actions.push(action);
        }
        plan
    }

    fn send_again(&mut self, with: &mut Comparison<'_>, row: RowRef) -> Action {
        let id = row.id(with.catalogue);
        with.row.clear();
        let written = with.rows.write(row, id, &mut with.row);
        self.rejected.append(&mut with.rows.rejected);
        match (written, with.known(id)) {
            (Err(Unfit), _) => Action::Skip,
            (Ok(()), None) => Action::Create,
            (Ok(()), Some(_)) => Action::Update,
        }
    }

    fn compare(&mut self, with: &mut Comparison<'_>, row: RowRef) -> Action {
        let id = row.id(with.catalogue);
        let known = with.known(id);
        let is_new = known.is_none() && !with.state.refused.contains_key(id);
        with.row.clear();
        let written = match row {
            RowRef::Product(group, product) if is_new && !with.is_guarded => {
                with.rows.check_group_of(group, product)
            }
            _ => with.rows.write(row, id, &mut with.row),
        };
        self.rejected.append(&mut with.rows.rejected);
        match (written, row) {
            (Err(Unfit), _) => Action::Skip,
            (Ok(()), RowRef::Product(..)) if is_new => Action::Create,
            (Ok(()), _) => self.compare_content(with, id, known),
        }
    }

    fn compare_content(&mut self, with: &Comparison<'_>, id: &str, known: Option<Acknowledged>) -> Action {
        let fingerprint = Fingerprint::of(&with.row);
        if let Some(refusal) = with.state.deferral(id, Some(fingerprint)) {
            self.defer(id.into(), refusal, with.state.runs, &with.row);
            return Action::Skip;
        }
        match known {
            None => Action::Create,
            Some(Acknowledged::Known(known)) if known == fingerprint => Action::Unchanged,
            Some(_) => Action::Update,
        }
    }

    fn count(&mut self, action: Action) {
        match action {
            Action::Create => self.counts.create += 1,
            Action::Update => self.counts.update += 1,
            Action::Delete => self.counts.delete += 1,
            Action::Unchanged => self.counts.unchanged += 1,
            Action::Skip => {}
        }
    }

    fn delete_absent(&mut self, mut with: Comparison<'_>) {
        let state = with.state;
        for id in &with.catalogue.quarantined_ids {
            with.known(id);
        }
        let is_absent = |place: usize| with.still_there.get(place) == Some(&false);
        let absent = state.rows.iter().filter(|(place, ..)| is_absent(*place));
        let mut gone: Vec<&str> = absent.map(|(_, id, _)| id).collect();
        gone.sort_unstable_by(|a, b| crate::catalogue::id_order(a, b));
        for id in gone {
            match state.deferral(id, None) {
                Some(refusal) => {
                    with.row.clear();
                    // A tombstone fits every field map.
                    let _ = with.rows.write(RowRef::Gone, id, &mut with.row);
                    self.defer(id.into(), refusal, state.runs, &with.row);
                }
                None => self.gone.push(id.into()),
            }
        }
        self.counts.delete = self.gone.len() as u64;
    }

    fn defer(&mut self, id: RecordId, refusal: &Refusal, runs: u64, row: &[u8]) {
        let reason = written!(
            "refused by the target {times} times, tried again in {runs} runs or when it changes: {said}",
            times = refusal.times,
            runs = refusal.not_before_run.saturating_sub(runs),
            said = refusal.said
        );
        let (row, reason) = (String::from_utf8_lossy(row), Reason::new(ReasonKind::Refused, reason));
        self.rejected.push(Rejected::new(RowKind::Record, Some(id.to_string()), reason, &row));
        self.deferred.insert(id);
    }

    /// All rows, in the order in which they are written; deletions last.
    pub(crate) fn changes<'a>(&'a self, catalogue: &'a Catalogue) -> impl Iterator<Item = Change<'a>> {
        let there = rows(catalogue, self.unit).zip(&self.actions).map(|(row, &action)| Change {
            id: row.id(catalogue),
            action,
            row,
        });
        let gone = self.gone.iter().map(|id| Change { id, action: Action::Delete, row: RowRef::Gone });
        there.filter(|change| change.action != Action::Skip).chain(gone)
    }

    /// The source's rows that are updated or left out, and whether they are updated.
    pub(crate) fn judged(&self, catalogue: &Catalogue) -> impl Iterator<Item = (RowRef, bool)> {
        rows(catalogue, self.unit).zip(&self.actions).filter_map(|(row, action)| match action {
            Action::Update => Some((row, true)),
            Action::Skip => Some((row, false)),
            Action::Create | Action::Delete | Action::Unchanged => None,
        })
    }

    /// Rows that need a call.
    pub(crate) fn pending<'a>(&'a self, catalogue: &'a Catalogue) -> impl Iterator<Item = Change<'a>> {
        self.changes(catalogue).filter(|change| change.action != Action::Unchanged)
    }

    /// Number of rows that need a call.
    pub(crate) fn pending_count(&self) -> u64 {
        self.counts.create + self.counts.update + self.counts.delete
    }
}

/// A catalogue, what the target has acknowledged of it, and which of those rows the source still has.
struct Comparison<'a> {
    catalogue: &'a Catalogue,
    state: &'a State,
    rows: RowWriter<'a>,
    /// Whether rows can be held back.
    is_guarded: bool,
    /// The row that is compared, as it would be sent.
    row: Vec<u8>,
    /// By the row's place in the state.
    still_there: Vec<bool>,
    /// Place in the state of the row that is probably looked for next.
    expected: usize,
}

impl<'a> Comparison<'a> {
    fn new(
        map: &'a RowMap,
        catalogue: &'a Catalogue,
        state: &'a State,
        former: Option<&'a dyn Former>,
    ) -> Self {
        Self {
            catalogue,
            state,
            rows: RowWriter::new(map, catalogue, former),
            is_guarded: map.has_guards(),
            row: Vec::new(),
            still_there: vec![false; state.rows.places()],
            expected: 0,
        }
    }

    /// What the target may hold of a row that the source has; `None` if it never acknowledged the row.
    fn known(&mut self, id: &str) -> Option<Acknowledged> {
        let place = self.state.rows.place_near(self.expected, id)?;
        self.expected = place + 1;
        if let Some(mark) = self.still_there.get_mut(place) {
            *mark = true;
        }
        self.state.rows.at(place).filter(|acknowledged| *acknowledged != Acknowledged::Unknown)
    }
}
