//! Builds the catalogue of one read: groups into a tree, products into columns, offenders apart.
//!
//! Rows come from a cache, from windows and deltas (`merge.rs`), or page by page from a read of everything. Each keeps the
//! number of the read that found it (`accounts.rs`). Judging what goes into the quarantine is for the end of the read
//! (`clean.rs`).

use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::SourceSettings;
use super::cache::{self, Cache, Offender, RowStatus};
use super::merge::Incoming;
use super::page::ProductPage;
use super::placing::Placer;
use super::products::ProductTable;
use super::protocol::GroupList;
use super::row::RowReader;
use super::seen::Duplicates;
use super::tree::GroupTree;
use super::windows::Ledger;
use crate::catalogue::{GroupRef, PRODUCT_EXTRA_COLUMNS, RecordId};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::transform::RowMap;
use crate::words::{Message, say};

/// A total is only a server's claim: memory is reserved in advance for no more rows than this.
const MAX_RESERVED_ROWS: usize = 300_000;
/// The same for their text.
const MAX_RESERVED_BYTES: usize = 64 << 20;

/// Collects one read.
pub(super) struct SnapshotBuilder<'a> {
    pub placer: Placer<'a>,
    pub products: ProductTable,
    pub offenders: Vec<Offender>,
    pub duplicates: Duplicates,
    /// Rows of a read of everything, repeated ones included.
    pub rows: u64,
    pub cleaned_in: Duration,
    /// Whether a row of this read names a group that is not there.
    pub met_unknown_group: bool,
}

impl<'a> SnapshotBuilder<'a> {
    pub(super) fn new(settings: &SourceSettings, map: &'a RowMap, groups: &'a GroupList) -> Self {
        let started = Instant::now();
        let reader = RowReader::groups(&map.group_columns, &settings.id, &settings.number);
        let duplicates = settings.duplicates();
        Self {
            placer: Placer::new(map, GroupTree::from_rows(groups.rows(), reader, duplicates)),
            products: ProductTable::new(map.product_columns.len() + PRODUCT_EXTRA_COLUMNS),
            offenders: Vec::new(),
            duplicates,
            rows: 0,
            cleaned_in: started.elapsed(),
            met_unknown_group: false,
        }
    }

    /// The same rows under the groups of a later answer.
    pub(super) fn with_groups<'b>(
        self,
        settings: &SourceSettings,
        groups: &'b GroupList,
    ) -> SnapshotBuilder<'b>
    where
        'a: 'b,
    {
        let mut builder = SnapshotBuilder::new(settings, self.placer.map, groups);
        (builder.products, builder.offenders) = (self.products, self.offenders);
        (builder.rows, builder.cleaned_in) = (self.rows, self.cleaned_in + builder.cleaned_in);
        for row in 0..builder.products.len() {
            if builder.products.counts(row) {
                let group = builder.group_of(row);
                builder.products.set_group(row, group);
            }
        }
        builder
    }

    /// The group of a row of the table.
    fn group_of(&self, row: usize) -> GroupRef {
        match RowStatus::from_table(self.products.table(), row) {
            RowStatus::Deleted => GroupRef::DELETED,
            RowStatus::Rejected(_) => GroupRef::REJECTED,
            RowStatus::InGroup(group) => self.placer.tree.find(group).unwrap_or(GroupRef::REJECTED),
        }
    }

    /// Whether groups bring their own products (the document's sample does; OKKI does not).
    pub(super) fn has_embedded_products(&self) -> bool {
        !self.placer.tree.embedded.is_empty()
    }

    pub(super) fn reader(&self) -> RowReader<'a> {
        RowReader::products(&self.placer.map.product_columns)
    }

    /// The first page tells how much room `total` rows will take.
    pub(super) fn reserve_for(&mut self, first: &ProductPage, total: u64) {
        if self.products.len() > 0 || first.rows.is_empty() {
            return;
        }
        let total = usize::try_from(total).unwrap_or(0).min(MAX_RESERVED_ROWS);
        let group_id_bytes = 12;
        let row_bytes = first.bytes().div_ceil(first.rows.len()) + group_id_bytes;
        let bytes = total.saturating_mul(row_bytes).saturating_mul(21) / 20;
        self.products.reserve(total, bytes.min(MAX_RESERVED_BYTES));
    }

    /// Starts from the rows of a cache.
    pub(super) fn add_cached(&mut self, cache: Cache) -> Ledger {
        let started = Instant::now();
        let Cache { ledger, table, numbers, offenders } = cache;
        let groups = vec![GroupRef::REJECTED; table.len()];
        self.products = ProductTable::from_cache(table, groups, numbers);
        for row in 0..self.products.len() {
            let group = self.group_of(row);
            self.products.set_group(row, group);
        }
        self.offenders = offenders;
        self.cleaned_in += started.elapsed();
        ledger
    }

    /// Adds a page of a read of everything.
    pub(super) fn add_page(&mut self, page: &ProductPage) -> Result<()> {
        self.add_page_of(page, None)
    }

    /// Adds the products that groups bring themselves.
    pub(super) fn add_embedded(&mut self) -> Result<()> {
        for (group, list) in std::mem::take(&mut self.placer.tree.embedded) {
            let rows: Vec<&RawValue> = serde_json::from_str(list)
                .map_err(|_| bad_answer(say!("source: products of group {group} are not a list", group)))?;
            self.add_page_of(&ProductPage::from_rows(0, &rows, self.reader()), Some(&group))?;
        }
        Ok(())
    }

    fn add_page_of(&mut self, page: &ProductPage, embedded_in: Option<&RecordId>) -> Result<()> {
        let started = Instant::now();
        for (at, row) in page.rows.iter().enumerate() {
            self.rows += 1;
            let Some(id) = &row.id else {
                self.add_offender(0, None, page.raw(at), |_| false);
                continue;
            };
            match self.products.find(id) {
                Some(_) if self.duplicates == Duplicates::KeepFirst => {
                    self.add_offender(0, Some(id), page.raw(at), |_| false);
                }
                _ => self.push(Incoming { page, at, row, id }, 0, embedded_in)?,
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// Takes a row under this number. `embedded_in`: the group that brought it, if it did not come in a page.
    pub(super) fn push(
        &mut self,
        incoming: Incoming<'_>,
        number: u32,
        embedded_in: Option<&RecordId>,
    ) -> Result<()> {
        let Incoming { row, id, .. } = incoming;
        let (group, raw) = match (self.placer.place(incoming, embedded_in), embedded_in) {
            (Ok(group), _) => (group, String::new()),
            // Its group is known now only: it is judged at once, and has no raw JSON to be judged by again.
            (Err(reason), Some(_)) => {
                self.placer.quarantine(id, reason, &incoming.raw());
                (GroupRef::REJECTED, String::new())
            }
            (Err(_), None) => (GroupRef::REJECTED, incoming.raw()),
        };
        let names_unknown_group = |group: &RecordId| self.placer.tree.find(group).is_none();
        self.met_unknown_group |= !row.deleted && row.group.as_ref().is_some_and(names_unknown_group);
        let status = incoming.status(group, &raw);
        let pushed = self.products.push(id, group, number, incoming.cells(group), status);
        pushed.map_err(|full| bad_answer(say!("source: {full}", full)))
    }

    /// The same row as one that `waits` is that row, found again.
    pub(super) fn add_offender(
        &mut self,
        number: u32,
        id: Option<&RecordId>,
        raw: String,
        waits: impl Fn(u32) -> bool,
    ) {
        match self.offenders.iter_mut().find(|known| waits(known.number) && known.raw == raw) {
            Some(known) => known.number = number,
            None => self.offenders.push(Offender { number, id: id.map(RecordId::to_string), raw }),
        }
    }

    /// The same without a row.
    pub(super) fn no_pieces(&self, key: &str, ledger: &Ledger) -> Vec<Bytes> {
        cache::to_pieces(key, ledger, &[], &ProductTable::new(self.products.table().width()))
    }

    /// What the next read goes on from.
    pub(super) fn to_pieces(&self, key: &str, ledger: &Ledger) -> Vec<Bytes> {
        cache::to_pieces(key, ledger, &self.offenders, &self.products)
    }
}

pub(super) fn bad_answer(message: impl Into<Message>) -> Error {
    Error::new(ErrorKind::BadAnswer(Side::Source), message)
}
