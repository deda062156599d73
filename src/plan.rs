//! The plan: what would have to change at the target, decided before anything is written. Pure.

use std::collections::HashSet;

use crate::error::{Error, Kind, Result};
use crate::model::{
    Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, PRODUCT_NAME_COLUMN, RecordId, Rejected, RowKind,
};
use crate::report::PlanCounts;
use crate::state::{Fingerprint, Refusal, State};
use crate::transform::{Misfit, Renderer, RowMap};

/// Deleting this many rows or fewer is never refused: small catalogues change by large ratios.
pub const GUARD_MIN_DELETES: u64 = 10;

/// One line of the plan or of a verification, for people; groups are in tree order, products under their group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Depth in the tree, 0 = top.
    pub depth: usize,
    /// Plan: `+` create, `*` update, `-` delete, `=` unchanged. Verify: `=` same, `+` missing at the target, `-` extra, `*` differs, `!` could not be read.
    pub mark: char,
    /// Name for people; empty if it is not known (a row that only the target has).
    pub name: String,
    /// The row's id.
    pub id: String,
    /// Why, in a few words.
    pub why: &'static str,
}

/// What is to be done with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The target does not have it.
    Create,
    /// The target has it with other content.
    Update,
    /// The source no longer has it.
    Delete,
    /// Nothing.
    Keep,
}

/// Which row of the catalogue a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A group, by index.
    Group(usize),
    /// A product, by its group's index and its row.
    Product(usize, u32),
    /// The source no longer has it.
    Gone,
}

/// One row of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The row's id.
    pub id: RecordId,
    /// What to do.
    pub action: Action,
    /// Where its content comes from.
    pub origin: Origin,
    /// Fingerprint of its content.
    pub fingerprint: Fingerprint,
}

/// What to do with rows that the source no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// Leave them.
    Ignore,
    /// Send the id with `"deleted": true`.
    Tombstone,
}

/// The guard against a source that lost its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// A plan that deletes a larger share of the known rows is refused.
    pub max_delete_ratio: f64,
    /// Lifted for this run.
    pub lifted: bool,
}

/// The plan of one run.
#[derive(Debug, Default)]
pub struct Plan {
    /// All rows, in the order in which they are written: groups as in the tree, deletions last.
    pub changes: Vec<Change>,
    /// Counts.
    pub counts: PlanCounts,
    /// Rows (or items of rows) that do not fit the field map, and those that are held back.
    pub rejected: Vec<Rejected>,
    /// Rows that the target refused in an earlier run and whose turn has not come.
    pub held_back: HashSet<RecordId>,
}

/// What a read found, for the guard.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Whether it found no row at all of the kind that the target holds.
    pub nothing: bool,
    /// Whether it found rows that cannot go through.
    pub offenders: bool,
    /// Number of products, where they are items inside the target's rows.
    pub items: Option<u64>,
}

impl Found {
    /// Of this catalogue.
    pub fn of(catalogue: &Catalogue, map: &RowMap) -> Self {
        let products = catalogue.product_count() as u64;
        let rows = if map.per_product() { products } else { catalogue.groups.len() as u64 };
        Self {
            nothing: rows == 0,
            offenders: !catalogue.rejected.is_empty(),
            items: (map.uses_products() && !map.per_product()).then_some(products),
        }
    }
}

impl Plan {
    /// Compares the catalogue with what the target has acknowledged.
    ///
    /// Rows are written once to fingerprint them, and once more into their batch if they changed: most runs
    /// change little, and a fingerprint takes 16 bytes where the row takes hundreds.
    pub fn new(map: &RowMap, catalogue: &Catalogue, state: &State, on_delete: OnDelete) -> Self {
        let mut plan = Self::default();
        let renderer = Renderer::new(map, catalogue);
        let mut kept: HashSet<RecordId> = catalogue.held.iter().cloned().collect();
        let mut row = Vec::new();
        for (group, of) in catalogue.groups.iter().enumerate() {
            if !map.per_product() {
                row.clear();
                match renderer.group(group, &mut row) {
                    Ok(misfits) => {
                        plan.reject(catalogue, group, misfits);
                        plan.compare(state, of.id.clone(), Origin::Group(group), &row);
                    }
                    Err(misfit) => plan.reject(catalogue, group, vec![misfit]),
                }
                kept.insert(of.id.clone());
                continue;
            }
            for &product in catalogue.products_of.get(group).into_iter().flatten() {
                row.clear();
                let id = RecordId::from(catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN));
                match renderer.product(group, product, &mut row) {
                    Ok(()) => plan.compare(state, id.clone(), Origin::Product(group, product), &row),
                    Err(misfit) => plan.reject(catalogue, group, vec![misfit]),
                }
                kept.insert(id);
            }
        }
        if on_delete == OnDelete::Tombstone {
            plan.delete_absent(state, &kept);
        }
        plan
    }

    fn compare(&mut self, state: &State, id: RecordId, origin: Origin, row: &[u8]) {
        let fingerprint = Fingerprint::of(row);
        if let Some(refusal) = state.holds_back(&id, fingerprint) {
            self.hold_back(id, refusal, state.runs, row);
            return;
        }
        let (action, count) = match state.rows.get(&id) {
            None | Some(&Fingerprint::UNKNOWN) => (Action::Create, &mut self.counts.create),
            Some(known) if *known == fingerprint => (Action::Keep, &mut self.counts.unchanged),
            Some(_) => (Action::Update, &mut self.counts.update),
        };
        *count += 1;
        self.changes.push(Change { id, action, origin, fingerprint });
    }

    fn delete_absent(&mut self, state: &State, kept: &HashSet<RecordId>) {
        let mut gone: Vec<&RecordId> = state.rows.keys().filter(|id| !kept.contains(*id)).collect();
        gone.sort_unstable_by(|a, b| crate::model::id_order(a, b));
        gone.retain(|id| match state.holds_back(id, Fingerprint::UNKNOWN) {
            Some(refusal) => {
                self.hold_back((*id).clone(), refusal, state.runs, b"null");
                false
            }
            None => true,
        });
        self.counts.delete = gone.len() as u64;
        self.changes.extend(gone.into_iter().map(|id| Change {
            id: id.clone(),
            action: Action::Delete,
            origin: Origin::Gone,
            fingerprint: Fingerprint(0),
        }));
    }

    fn hold_back(&mut self, id: RecordId, refusal: &Refusal, runs: u64, row: &[u8]) {
        let reason = format!(
            "refused by the target {} times, tried again in {} runs or when it changes: {}",
            refusal.times,
            refusal.not_before_run.saturating_sub(runs),
            refusal.said
        );
        let row = String::from_utf8_lossy(row);
        self.rejected.push(Rejected::new(RowKind::Record, Some(id.to_string()), reason, &row));
        self.held_back.insert(id);
    }

    fn reject(&mut self, catalogue: &Catalogue, group: usize, misfits: Vec<Misfit>) {
        for misfit in misfits {
            let (kind, id, raw) = match misfit.product {
                Some(product) => product_raw(catalogue, group, product),
                None => group_raw(catalogue, group),
            };
            self.rejected.push(Rejected::new(kind, Some(id), misfit.reason, &raw));
        }
    }

    /// Rows that need a call.
    pub fn pending(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.action != Action::Keep)
    }

    /// Number of rows that need a call.
    pub fn pending_count(&self) -> u64 {
        self.counts.create + self.counts.update + self.counts.delete
    }

    /// Refuses a plan that takes away too much: a source that answers with little is more often broken than emptied.
    pub fn check(&self, state: &State, found: &Found, guard: Guard) -> Result<()> {
        if guard.lifted {
            return Ok(());
        }
        let known = state.rows.len() as u64;
        let refuse = |what: String| {
            let message = format!(
                "{what}; nothing was written; if that is right, allow it once with --allow-mass-delete (event: \"allow_mass_delete\": true)"
            );
            Err(Error::new(Kind::GuardRefused, message))
        };
        // Rows that only lost their ids or names are offenders, and would be deleted as if they were gone.
        if found.nothing && known > 0 && (!found.offenders || self.counts.delete > 0) {
            return refuse(format!(
                "the source answered no row that can go through, the target holds {known}"
            ));
        }
        let allowed = guard.max_delete_ratio;
        if let (Some(before), Some(now)) = (state.source_products, found.items) {
            let lost = before.saturating_sub(now);
            if (now == 0 && before > 0) || is_too_much(lost, before, allowed) {
                return refuse(format!(
                    "the source answered {now} products, the last complete run saw {before} ({:.0} % fewer), guard.max_delete_ratio allows {:.0} %",
                    ratio(lost, before) * 100.0,
                    allowed * 100.0
                ));
            }
        }
        let deletes = self.counts.delete;
        if is_too_much(deletes, known, allowed) {
            return refuse(format!(
                "the plan deletes {deletes} of {known} rows ({:.0} %), guard.max_delete_ratio allows {:.0} %",
                ratio(deletes, known) * 100.0,
                allowed * 100.0
            ));
        }
        Ok(())
    }

    /// The plan as a tree, for people: rows under their group, deletions at the end.
    pub fn lines(&self, map: &RowMap, catalogue: &Catalogue) -> Vec<Line> {
        let mut lines = Vec::with_capacity(self.changes.len());
        let mut last_group = None;
        for change in &self.changes {
            if let Origin::Product(group, _) = change.origin
                && map.per_product()
                && last_group != Some(group)
            {
                last_group = Some(group);
                lines.extend(catalogue.groups.get(group).map(heading));
            }
            lines.push(line(change, catalogue));
        }
        lines
    }
}

fn is_too_much(gone: u64, of: u64, allowed: f64) -> bool {
    gone > GUARD_MIN_DELETES && ratio(gone, of) > allowed
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52, where f64 is exact")]
fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn heading(group: &crate::model::Group) -> Line {
    Line {
        depth: group.layer.saturating_sub(1) as usize,
        mark: ' ',
        name: group.name.clone(),
        id: group.id.to_string(),
        why: "",
    }
}

/// Name and depth of a change, for people.
pub fn describe(origin: Origin, catalogue: &Catalogue) -> (String, usize) {
    let depth =
        |group: usize| catalogue.groups.get(group).map_or(0, |of| of.layer.saturating_sub(1) as usize);
    match origin {
        Origin::Group(group) => {
            (catalogue.groups.get(group).map(|of| of.name.clone()).unwrap_or_default(), depth(group))
        }
        Origin::Product(group, product) => {
            let raw = catalogue.product_cells.cell(product as usize, PRODUCT_NAME_COLUMN);
            (serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()), depth(group) + 1)
        }
        Origin::Gone => (String::new(), 0),
    }
}

fn line(change: &Change, catalogue: &Catalogue) -> Line {
    let (mark, why) = match change.action {
        Action::Create => ('+', "not at the target yet"),
        Action::Update => ('*', "differs from what the target acknowledged"),
        Action::Delete => ('-', "no longer in the source"),
        Action::Keep => ('=', ""),
    };
    let (name, depth) = describe(change.origin, catalogue);
    Line { depth, mark, name, id: change.id.to_string(), why }
}

fn product_raw(catalogue: &Catalogue, group: usize, product: u32) -> (RowKind, String, String) {
    let id = catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN).to_owned();
    let of = catalogue.groups.get(group).map(|g| g.id.to_string()).unwrap_or_default();
    let named = catalogue.product_cells.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
    let cells: Vec<&str> = (1..named).map(|c| catalogue.product_cells.cell(product as usize, c)).collect();
    (RowKind::Product, id.clone(), kept_fields(&[("product_id", &id), ("group_id", &of)], &cells))
}

fn group_raw(catalogue: &Catalogue, group: usize) -> (RowKind, String, String) {
    let (id, name) =
        catalogue.groups.get(group).map(|of| (of.id.to_string(), of.name.clone())).unwrap_or_default();
    let cells: Vec<&str> =
        (0..catalogue.group_cells.width()).map(|c| catalogue.group_cells.cell(group, c)).collect();
    (RowKind::Group, id.clone(), kept_fields(&[("id", &id), ("name", &name)], &cells))
}

/// A row for the quarantine whose raw JSON is no longer in memory: what the pipeline keeps of it is.
pub fn kept_fields(named: &[(&str, &str)], cells: &[&str]) -> String {
    let named = named.iter().map(|(key, value)| format!("\"{key}\":{}", serde_json::Value::from(*value)));
    let kept: Vec<&str> = cells.iter().copied().filter(|cell| !cell.is_empty()).collect();
    let kept = format!("\"kept_values\":[{}]", kept.join(","));
    format!("{{{}}}", named.chain(std::iter::once(kept)).collect::<Vec<_>>().join(","))
}
