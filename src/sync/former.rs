//! What value guards look at: the rows as the target has acknowledged them, from the row ledger.
//!
//! `max_change` asks for every row. The other rules ask for none, but an item that one of them holds back stays in its
//! row as it was acknowledged: then the rows of such groups are loaded, and those alone.

use std::collections::HashSet;
use std::sync::Arc;

use super::ledger::{RowLedger, Wanted};
use super::{NO_FORMER, Run, RunContext};
use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN, ReasonKind, Rejected, RowKind};
use crate::plan::{self, RowWriter};
use crate::state::{Acknowledged, State};
use crate::transform::Former;

impl Run<'_> {
    /// What was loaded.
    pub(super) fn former(&self) -> Option<&dyn Former> {
        self.former.as_deref().map(|former| former as &dyn Former)
    }

    /// Loads every row, if a guard compares with it.
    pub(super) async fn load_former(&mut self, state: &State) {
        if !self.context.rows.asks_former() {
            return;
        }
        let rows: Vec<Wanted<'_>> =
            state.rows.iter().filter_map(|(_, id, acknowledged)| wanted(id, acknowledged)).collect();
        self.former = Some(Arc::new(RowLedger::new(self.context).last_contents(&rows).await));
    }

    /// Loads the rows of which items are held back, unless every row is loaded anyway. Returns whether rows are written
    /// another way now.
    pub(super) async fn load_former_of_held(
        &mut self,
        catalogue: &Catalogue,
        (state, held): (&State, &HashSet<String>),
    ) -> bool {
        if held.is_empty() || self.context.rows.asks_former() {
            return false;
        }
        let is_held =
            |product: &u32| held.contains(catalogue.product_cells.cell(*product as usize, PRODUCT_ID_COLUMN));
        let rows = catalogue.groups.iter().zip(&catalogue.products_of).filter_map(|(group, products)| {
            let id = products.iter().any(is_held).then_some(group.id.as_str())?;
            wanted(id, state.rows.get(id)?)
        });
        let rows: Vec<Wanted<'_>> = rows.collect();
        let contents = RowLedger::new(self.context).last_contents(&rows).await;
        let has_some = !contents.is_empty();
        self.former = Some(Arc::new(contents));
        has_some
    }
}

/// A row whose run was killed before the answer counts as it was acknowledged last: a guard that took it as new would let
/// through what it has held back so far.
fn wanted(id: &str, acknowledged: Acknowledged) -> Option<Wanted<'_>> {
    match acknowledged {
        Acknowledged::Known(fingerprint) => Some((id, Some(fingerprint))),
        Acknowledged::Unsure => Some((id, None)),
        Acknowledged::Unknown => None,
    }
}

/// The items that value guards hold back, among these rows of the quarantine.
pub(super) fn held_items(context: &RunContext<'_>, rejected: &[Rejected]) -> HashSet<String> {
    if !context.rows.has_item_guards() {
        return HashSet::new();
    }
    let is_held = |row: &&Rejected| row.kind == RowKind::Product && row.reason_kind == ReasonKind::Held;
    rejected.iter().filter(is_held).filter_map(|row| row.id.clone()).collect()
}

/// The same of the whole catalogue, where no plan has said it.
pub(super) fn held_items_of(context: &RunContext<'_>, catalogue: &Catalogue) -> HashSet<String> {
    if !context.rows.has_item_guards() {
        return HashSet::new();
    }
    let (mut writer, mut out) = (RowWriter::new(context.rows, catalogue, NO_FORMER), Vec::new());
    for row in plan::rows(catalogue, context.rows.unit()) {
        out.clear();
        let _ = writer.write(row, row.id(catalogue), &mut out);
    }
    held_items(context, &writer.rejected)
}
