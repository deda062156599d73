//! The plan: what would have to change at the target, decided before anything is written. Pure.

use std::collections::HashSet;

use crate::catalogue::{
    Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, PRODUCT_NAME_COLUMN, RecordId, Rejected, RowKind,
    is_group,
};
use crate::error::{Error, ErrorKind, Result};
use crate::report::PlanCounts;
use crate::state::{Fingerprint, Refusal, State};
use crate::transform::{Misfit, Renderer, RowMap};

/// Deleting this many rows or fewer is never refused: small catalogues change by large ratios.
pub(crate) const GUARD_MIN_DELETES: u64 = 10;

/// One line of the plan or of a verification, for people; groups are in tree order, products under their group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
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
pub(crate) enum Action {
    /// The target does not have it.
    Create,
    /// The target has it with other content.
    Update,
    /// The source no longer has it.
    Delete,
    /// Nothing.
    Unchanged,
    /// Nothing, since it does not fit the field map or is held back.
    Skip,
}

/// Which row of the catalogue a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowRef {
    /// A group, by index.
    Group(usize),
    /// A product, by its group's index and its row.
    Product(usize, u32),
    /// The source no longer has it.
    Gone,
}

/// One row of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    /// The row's id.
    pub id: &'a str,
    /// What to do.
    pub action: Action,
    /// Where its content comes from.
    pub origin: RowRef,
}

/// What to do with rows that the source no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDelete {
    /// Skip them.
    Ignore,
    /// Send the id with `"deleted": true`.
    Tombstone,
}

/// The guard against a source that lost its rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DeleteGuard {
    /// A plan that deletes a larger share of the known rows is refused.
    pub max_delete_ratio: f64,
    /// Lifted for this run.
    pub lifted: bool,
}

/// The plan of one run over a catalogue: a byte for each of its rows, since most runs keep nearly all of them.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    per_product: bool,
    /// What is to be done with each row, in the order of [`origins`].
    actions: Vec<Action>,
    /// Rows that the source no longer has, to be deleted.
    gone: Vec<RecordId>,
    /// Counts.
    pub counts: PlanCounts,
    /// Rows (or items of rows) that do not fit the field map, and those that are held back.
    pub rejected: Vec<Rejected>,
    /// Rows that the target refused in an earlier run and whose turn has not come.
    pub deferred: HashSet<RecordId>,
}

/// What a read found, for the guard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceSummary {
    /// Whether it found no row at all of the kind that the target holds.
    pub nothing: bool,
    /// Whether it found rows that cannot go through.
    pub offenders: bool,
    /// Number of products, where they are items inside the target's rows.
    pub items: Option<u64>,
}

impl SourceSummary {
    /// Of this catalogue.
    pub(crate) fn of(catalogue: &Catalogue, map: &RowMap) -> Self {
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
    /// A row that the target may hold is written here to compare its fingerprint, and once more into its batch if it
    /// changed. A product that the target does not hold needs no comparison: it is written once, into its batch.
    pub(crate) fn new(map: &RowMap, catalogue: &Catalogue, state: &State, on_delete: OnDelete) -> Self {
        let mut plan = Self { per_product: map.per_product(), ..Self::default() };
        let mut comparison = Comparison {
            catalogue,
            state,
            renderer: Renderer::new(map, catalogue),
            row: Vec::new(),
            still_there: vec![false; state.rows.places()],
            expected: 0,
        };
        if plan.per_product {
            plan.compare_products(&mut comparison);
        } else {
            (0..catalogue.groups.len()).for_each(|group| plan.compare_group(&mut comparison, group));
        }
        if on_delete == OnDelete::Tombstone {
            plan.delete_absent(comparison);
        }
        plan
    }

    fn compare_group(&mut self, with: &mut Comparison<'_>, group: usize) {
        let id = id_of(RowRef::Group(group), with.catalogue);
        let known = with.known(id);
        with.row.clear();
        let action = match with.renderer.group(group, &mut with.row) {
            Ok(misfits) => {
                self.reject(with.catalogue, group, misfits);
                self.compare(with, id, known)
            }
            Err(misfit) => {
                self.reject(with.catalogue, group, vec![misfit]);
                Action::Skip
            }
        };
        self.actions.push(action);
    }

    fn compare_products(&mut self, with: &mut Comparison<'_>) {
        let catalogue = with.catalogue;
        // What a product's own fields hold was checked when it was read.
        for origin in origins(catalogue, true) {
            let RowRef::Product(group, product) = origin else { continue };
            let id = id_of(origin, catalogue);
            let known = with.known(id);
            let action = if let Some(reason) = with.renderer.misfit_of_group(group) {
                let reason = reason.to_owned();
                self.reject(catalogue, group, vec![Misfit { product: Some(product), reason }]);
                Action::Skip
            } else if known.is_none() && !with.state.refused.contains_key(id) {
                self.count(Action::Create)
            } else {
                self.compare_product(with, group, product, known)
            };
            self.actions.push(action);
        }
    }

    fn compare_product(
        &mut self,
        with: &mut Comparison<'_>,
        group: usize,
        product: u32,
        known: Option<Fingerprint>,
    ) -> Action {
        with.row.clear();
        match with.renderer.product(group, product, &mut with.row) {
            Ok(()) => self.compare(with, id_of(RowRef::Product(group, product), with.catalogue), known),
            Err(misfit) => {
                self.reject(with.catalogue, group, vec![misfit]);
                Action::Skip
            }
        }
    }

    fn compare(&mut self, with: &Comparison<'_>, id: &str, known: Option<Fingerprint>) -> Action {
        let fingerprint = Fingerprint::of(&with.row);
        if let Some(refusal) = with.state.deferral(id, fingerprint) {
            self.defer(id.into(), refusal, with.state.runs, &with.row);
            return Action::Skip;
        }
        self.count(match known {
            None => Action::Create,
            Some(known) if known == fingerprint => Action::Unchanged,
            Some(_) => Action::Update,
        })
    }

    fn count(&mut self, action: Action) -> Action {
        match action {
            Action::Create => self.counts.create += 1,
            Action::Update => self.counts.update += 1,
            Action::Delete => self.counts.delete += 1,
            Action::Unchanged => self.counts.unchanged += 1,
            Action::Skip => {}
        }
        action
    }

    fn delete_absent(&mut self, mut with: Comparison<'_>) {
        let state = with.state;
        for held in &with.catalogue.held {
            with.known(held);
        }
        let is_absent = |place: usize| with.still_there.get(place) == Some(&false);
        let absent = state.rows.iter().filter(|(place, ..)| is_absent(*place));
        let mut gone: Vec<&str> = absent.map(|(_, id, _)| id).collect();
        gone.sort_unstable_by(|a, b| crate::catalogue::id_order(a, b));
        for id in gone {
            match state.deferral(id, Fingerprint::UNKNOWN) {
                Some(refusal) => self.defer(id.into(), refusal, state.runs, b"null"),
                None => self.gone.push(id.into()),
            }
        }
        self.counts.delete = self.gone.len() as u64;
    }

    fn defer(&mut self, id: RecordId, refusal: &Refusal, runs: u64, row: &[u8]) {
        let reason = format!(
            "refused by the target {} times, tried again in {} runs or when it changes: {}",
            refusal.times,
            refusal.not_before_run.saturating_sub(runs),
            refusal.said
        );
        let row = String::from_utf8_lossy(row);
        self.rejected.push(Rejected::new(RowKind::Record, Some(id.to_string()), reason, &row));
        self.deferred.insert(id);
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

    /// All rows, in the order in which they are written; deletions last.
    pub(crate) fn changes<'a>(&'a self, catalogue: &'a Catalogue) -> impl Iterator<Item = Change<'a>> {
        let there = origins(catalogue, self.per_product).zip(&self.actions).map(|(origin, &action)| Change {
            id: id_of(origin, catalogue),
            action,
            origin,
        });
        let gone = self.gone.iter().map(|id| Change { id, action: Action::Delete, origin: RowRef::Gone });
        there.filter(|change| change.action != Action::Skip).chain(gone)
    }

    /// Rows that need a call.
    pub(crate) fn pending<'a>(&'a self, catalogue: &'a Catalogue) -> impl Iterator<Item = Change<'a>> {
        self.changes(catalogue).filter(|change| change.action != Action::Unchanged)
    }

    /// Number of rows that need a call.
    pub(crate) fn pending_count(&self) -> u64 {
        self.counts.create + self.counts.update + self.counts.delete
    }

    /// Refuses a plan that takes away too much: a source that answers with little is more often broken than emptied.
    pub(crate) fn check(&self, state: &State, found: &SourceSummary, guard: DeleteGuard) -> Result<()> {
        if guard.lifted {
            return Ok(());
        }
        let known = state.rows.len() as u64;
        let refuse = |what: String| {
            let message = format!(
                "{what}; nothing was written; if that is right, allow it once with --allow-mass-delete (event: \"allow_mass_delete\": true)"
            );
            Err(Error::new(ErrorKind::GuardRefused, message))
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

    /// All rows as people look for them: products under their group, by their ids.
    pub(crate) fn changes_in_tree<'a>(&'a self, catalogue: &'a Catalogue) -> Vec<Change<'a>> {
        let mut changes: Vec<_> = self.changes(catalogue).collect();
        // Groups and deletions stand in their order already.
        changes.sort_by(|a, b| {
            let within_group = || match a.origin {
                RowRef::Product(..) => crate::catalogue::id_order(a.id, b.id),
                RowRef::Group(_) | RowRef::Gone => std::cmp::Ordering::Equal,
            };
            group_of(a.origin).cmp(&group_of(b.origin)).then_with(within_group)
        });
        changes
    }

    /// The plan as a tree, for people: rows under their group, deletions at the end.
    pub(crate) fn lines(&self, catalogue: &Catalogue) -> Vec<DiffLine> {
        let mut lines = Vec::with_capacity(self.actions.len() + self.gone.len());
        let mut last_group = None;
        for change in self.changes_in_tree(catalogue) {
            if let RowRef::Product(group, _) = change.origin
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

/// A catalogue, what the target has acknowledged of it, and which of those rows the source still has.
struct Comparison<'a> {
    catalogue: &'a Catalogue,
    state: &'a State,
    renderer: Renderer<'a>,
    row: Vec<u8>,
    /// By the row's place in the state.
    still_there: Vec<bool>,
    /// Where the row that is looked for next probably stands in the state.
    expected: usize,
}

impl Comparison<'_> {
    /// What the target may hold of a row that the source has; none if it holds nothing that we know of.
    fn known(&mut self, id: &str) -> Option<Fingerprint> {
        let place = self.state.rows.place_near(self.expected, id)?;
        self.expected = place + 1;
        if let Some(mark) = self.still_there.get_mut(place) {
            *mark = true;
        }
        self.state.rows.at(place).filter(|fingerprint| *fingerprint != Fingerprint::UNKNOWN)
    }
}

/// The rows that a catalogue makes, in the order in which they are written: groups as in the tree, or products as they
/// stand in the table, since to jump to and fro in it costs more than all that is done with them.
fn origins(catalogue: &Catalogue, per_product: bool) -> impl Iterator<Item = RowRef> {
    let (groups, product_group) = match per_product {
        true => (0, catalogue.product_group.as_slice()),
        false => (catalogue.groups.len(), &[][..]),
    };
    let products = product_group.iter().zip(0_u32..).filter(|(group, _)| is_group(**group));
    let products = products.map(|(&group, product)| RowRef::Product(group as usize, product));
    (0..groups).map(RowRef::Group).chain(products)
}

/// The group that a row stands under; deletions stand under none, at the end.
fn group_of(origin: RowRef) -> usize {
    match origin {
        RowRef::Group(group) | RowRef::Product(group, _) => group,
        RowRef::Gone => usize::MAX,
    }
}

fn id_of(origin: RowRef, catalogue: &Catalogue) -> &str {
    match origin {
        RowRef::Group(group) => catalogue.groups.get(group).map_or("", |of| of.id.as_str()),
        RowRef::Product(_, product) => catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN),
        // It has no place in the catalogue; the plan knows its id.
        RowRef::Gone => "",
    }
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52, where f64 is exact")]
fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn heading(group: &crate::catalogue::Group) -> DiffLine {
    DiffLine {
        depth: group.layer.saturating_sub(1) as usize,
        mark: ' ',
        name: group.name.clone(),
        id: group.id.to_string(),
        why: "",
    }
}

/// Name and depth of a change, for people.
pub(crate) fn describe(origin: RowRef, catalogue: &Catalogue) -> (String, usize) {
    let depth =
        |group: usize| catalogue.groups.get(group).map_or(0, |of| of.layer.saturating_sub(1) as usize);
    match origin {
        RowRef::Group(group) => {
            (catalogue.groups.get(group).map(|of| of.name.clone()).unwrap_or_default(), depth(group))
        }
        RowRef::Product(group, product) => {
            let raw = catalogue.product_cells.cell(product as usize, PRODUCT_NAME_COLUMN);
            (serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()), depth(group) + 1)
        }
        RowRef::Gone => (String::new(), 0),
    }
}

fn line(change: Change<'_>, catalogue: &Catalogue) -> DiffLine {
    let (mark, why) = match change.action {
        Action::Create => ('+', "not at the target yet"),
        Action::Update => ('*', "differs from what the target acknowledged"),
        Action::Delete => ('-', "no longer in the source"),
        Action::Unchanged | Action::Skip => ('=', ""),
    };
    let (name, depth) = describe(change.origin, catalogue);
    DiffLine { depth, mark, name, id: change.id.to_string(), why }
}

/// A row for the quarantine, with what the pipeline keeps of it.
pub(crate) fn rejected(origin: RowRef, id: &str, reason: String, catalogue: &Catalogue) -> Rejected {
    let (kind, id, raw) = match origin {
        RowRef::Group(group) => group_raw(catalogue, group),
        RowRef::Product(group, product) => product_raw(catalogue, group, product),
        RowRef::Gone => (RowKind::Record, id.to_owned(), "null".to_owned()),
    };
    Rejected::new(kind, Some(id), reason, &raw)
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
pub(crate) fn kept_fields(named: &[(&str, &str)], cells: &[&str]) -> String {
    let named = named.iter().map(|(key, value)| format!("\"{key}\":{}", serde_json::Value::from(*value)));
    let kept: Vec<&str> = cells.iter().copied().filter(|cell| !cell.is_empty()).collect();
    let kept = format!("\"kept_values\":[{}]", kept.join(","));
    format!("{{{}}}", named.chain(std::iter::once(kept)).collect::<Vec<_>>().join(","))
}
