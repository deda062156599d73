//! The end of a read: which rows are clean, and which go into the quarantine, with the groups of now.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::cache::RowStatus;
use super::merge::Incoming;
use super::page::ProductPage;
use super::placing::Placer;
use super::snapshot::SnapshotBuilder;
use crate::catalogue::{Catalogue, GroupRef, PRODUCT_ID_COLUMN, RecordId};
use crate::error::Result;
use crate::transform::RowUnit;

/// What cleaning has counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleaned {
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted: u64,
    /// Time spent.
    pub took: Duration,
}

impl SnapshotBuilder<'_> {
    /// Judges all rows by the groups of this read, and hands over the catalogue.
    pub(super) fn finish(mut self) -> Result<(Catalogue, Cleaned)> {
        let started = Instant::now();
        let deleted = self.judge_rows()?;
        self.judge_offenders()?;
        let Placer { map, tree, rejected, quarantined } = self.placer;
        let (products_of, quarantined_ids) = match map.unit() {
            RowUnit::Product => (Vec::new(), quarantined),
            RowUnit::Group => (self.products.by_group(tree.groups.len()), tree.quarantined_ids),
        };
        let (product_cells, product_groups) = self.products.into_parts();
        let catalogue = Catalogue {
            groups: tree.groups,
            group_cells: tree.cells,
            product_cells,
            product_groups,
            products_of,
            rejected,
            quarantined_ids,
        };
        Ok((catalogue, Cleaned { deleted, took: self.cleaned_in + started.elapsed() }))
    }

    /// What was wrong with a row may be repaired, for example by a new group. Returns how many rows are marked as
    /// deleted.
    fn judge_rows(&mut self) -> Result<u64> {
        let mut deleted = 0;
        for row in 0..self.products.len() {
            match self.products.groups().get(row) {
                Some(&GroupRef::DELETED) => deleted += 1,
                Some(&GroupRef::REJECTED) => self.judge_again(row)?,
                _ => {}
            }
        }
        Ok(deleted)
    }

    fn judge_again(&mut self, row: usize) -> Result<()> {
        let table = std::sync::Arc::clone(self.products.table());
        match RowStatus::from_table(&table, row) {
            RowStatus::InGroup(group) => self.placer.reject_groupless(&table, row, group),
            RowStatus::Rejected(raw) => {
                let (id, raw) = (RecordId::from(table.cell(row, PRODUCT_ID_COLUMN)), raw.to_owned());
                let number = self.products.number(row);
                // The table grows where the row has a place now: nothing else may hold it.
                drop(table);
                self.judge_raw(&id, &raw, number, true)?;
            }
            RowStatus::Deleted => {}
        }
        Ok(())
    }

    /// Judges a row by its raw JSON. `is_known`: whether the table has it already, without a place.
    fn judge_raw(&mut self, id: &RecordId, raw: &str, number: u32, is_known: bool) -> Result<()> {
        let Ok(value) = serde_json::from_str::<&RawValue>(raw) else { return Ok(()) };
        let page = ProductPage::from_rows(1, &[value], self.reader());
        let Some(row) = page.rows.first() else { return Ok(()) };
        let incoming = Incoming { page: &page, at: 0, row, id };
        match self.placer.place(incoming, None) {
            Ok(_) => self.push(incoming, number, None)?,
            Err(reason) => {
                if !is_known {
                    self.push(incoming, number, None)?;
                }
                self.placer.quarantine(id, reason, raw);
            }
        }
        Ok(())
    }

    /// Rows without an id, and rows whose id another row has.
    fn judge_offenders(&mut self) -> Result<()> {
        for offender in std::mem::take(&mut self.offenders) {
            let Ok(value) = serde_json::from_str::<&RawValue>(&offender.raw) else { continue };
            let page = ProductPage::from_rows(1, &[value], self.reader());
            let Some(row) = page.rows.first() else { continue };
            match &offender.id {
                None => self.placer.reject_without_id(row, &offender.raw),
                Some(id) => {
                    let id = RecordId::from(id.as_str());
                    if self.products.find(&id).is_some() {
                        self.placer.reject_repeated(&id, row.deleted, &offender.raw);
                    } else {
                        // The row that had its id is gone.
                        self.judge_raw(&id, &offender.raw, offender.number, false)?;
                    }
                }
            }
        }
        Ok(())
    }
}
