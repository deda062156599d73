//! Which read accounts for which rows of a snapshot; see `windows::ledger`.

use std::collections::HashMap;

use super::snapshot::SnapshotBuilder;
use crate::catalogue::GroupRef;

impl SnapshotBuilder<'_> {
    /// Rows of these reads are gone.
    pub(super) fn remove(&mut self, gone: &[u32]) {
        if gone.is_empty() {
            return;
        }
        for row in 0..self.products.len() {
            if gone.contains(&self.products.number(row)) {
                self.products.set_group(row, GroupRef::REPLACED);
            }
        }
        self.offenders.retain(|offender| !gone.contains(&offender.number));
    }

    /// How many rows each read accounts for.
    pub(super) fn rows_by_number(&self) -> HashMap<u32, u64> {
        let mut rows = HashMap::new();
        for row in (0..self.products.len()).filter(|row| self.products.counts(*row)) {
            *rows.entry(self.products.number(row)).or_default() += 1;
        }
        for offender in &self.offenders {
            *rows.entry(offender.number).or_default() += 1;
        }
        rows
    }
}
