//! What value guards look at: rows as the target has acknowledged them, from the row ledger.
//!
//! Only a row that is not as it was acknowledged is looked up. `max_change` holds back what differs from the acknowledged
//! value, so a row without a difference needs none; and an item that a rule holds back stays in its row as it was
//! acknowledged, which is a difference too as long as nobody knows it. So a plan is made without former rows; where it
//! changes or leaves out known rows, those are loaded, and it is made once more. A run without a change loads nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::ledger::{RowLedger, Wanted};
use super::{NO_FORMER, Run};
use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN, ReasonKind, Rejected, RowKind};
use crate::plan::{OnDelete, Plan, RowRef};
use crate::state::{Acknowledged, State};
use crate::transform::Former;

impl Run<'_> {
    /// What was loaded.
    pub(super) fn former(&self) -> Option<&dyn Former> {
        self.former.as_deref().map(|former| former as &dyn Former)
    }

    /// Loads the rows that the guards look at. `plan` is of the same catalogue, without former rows; `rejected` is what it
    /// and the catalogue have rejected. Returns whether rows may be written another way now.
    pub(super) async fn load_former(
        &mut self,
        (catalogue, state): (&Catalogue, &State),
        plan: &Plan,
        rejected: &[Rejected],
    ) -> bool {
        let (rows, asks_former) = (self.context.rows, self.context.rows.asks_former());
        let looks_at: HashSet<&str> = match (asks_former, rows.has_item_guards()) {
            (false, false) => return false,
            (true, _) => rejected.iter().filter_map(|row| row.id.as_deref()).collect(),
            (false, true) => {
                rejected.iter().filter(is_held_item).filter_map(|row| row.id.as_deref()).collect()
            }
        };
        let is_wanted = |row: RowRef, id: &str| {
            let has_item = |group: usize| {
                let mut products = catalogue.products_of.get(group).into_iter().flatten();
                products.any(|product| {
                    looks_at.contains(catalogue.product_cells.cell(*product as usize, PRODUCT_ID_COLUMN))
                })
            };
            !looks_at.is_empty()
                && (looks_at.contains(id) || matches!(row, RowRef::Group(group) if has_item(group)))
        };
        let rows = plan.judged(catalogue).filter_map(|(row, is_update)| {
            let id = row.id(catalogue);
            let is_meant = (asks_former && is_update) || is_wanted(row, id);
            is_meant.then(|| wanted(id, state.rows.get(id)?)).flatten()
        });
        let rows: Vec<Wanted<'_>> = rows.collect();
        let contents = RowLedger::new(self.context).last_contents(&rows).await;
        let has_some = !contents.is_empty();
        self.former = has_some.then(|| Arc::new(contents));
        has_some
    }

    /// The same where nobody plans.
    pub(super) async fn load_former_of(&mut self, catalogue: &Catalogue, state: &State) {
        let plan = Plan::new(self.context.rows, catalogue, (state, NO_FORMER), OnDelete::Ignore);
        self.load_former((catalogue, state), &plan, &plan.rejected).await;
    }
}

fn is_held_item(row: &&Rejected) -> bool {
    row.kind == RowKind::Product && row.reason_kind == ReasonKind::Held
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
