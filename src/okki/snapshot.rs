//! Builds the catalogue of one read: groups into a tree, products into columns, offenders into the quarantine.
//!
//! Pages overlap while people edit the catalogue, so a snapshot tells whether its parts agree
//! ([`Snapshot::inconsistency`]). Deliberately absent: reading again, which [`super::Okki::read`] decides.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::SourceSettings;
use super::cache::RowStatus;
use super::dedup::Duplicates;
use super::page::{ProductPage, ProductRow};
use super::placing::Placer;
use super::products::ProductTable;
use super::protocol::GroupList;
use super::row::RowReader;
use super::tree::GroupTree;
use crate::catalogue::{
    Catalogue, GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Placement, RecordId, Table, id_hash,
};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::transform::{RowMap, RowUnit};

/// A total is only a server's claim: memory is reserved in advance for no more rows than this.
const MAX_RESERVED_ROWS: usize = 300_000;
/// The same for their text.
const MAX_RESERVED_BYTES: usize = 64 << 20;

/// How a catalogue was read.
#[derive(Debug)]
pub(crate) struct ReadInfo {
    /// The source's own time when the read began (`YYYY-MM-DD HH:mm:ss`, as the source writes it). `None` unless all
    /// products were read in more than one page: only then can rows have been missed between pages.
    pub read_began: Option<String>,
    /// The total of products that the source gave.
    pub source_total: u64,
    /// Whether all products were read, rather than those that changed.
    pub full_read: bool,
    /// The source's own time from which the next read may go on; `None` where the products cannot serve as a cache.
    pub cursor: Option<String>,
    /// Products that differ from the cache (all of them where there was none).
    pub fresh_products: u64,
    /// Whether the cache should be written again: something changed, or the next read would repeat pages.
    pub worth_keeping: bool,
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted_products: u64,
    /// Time spent on cleaning.
    pub cleaned_in: Duration,
}

/// What a read asked the source for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadScope {
    Everything,
    /// The products that changed, of which this many differ from the cache.
    Changes(u64),
}

/// The result of one attempt at reading.
pub(super) struct Snapshot {
    pub catalogue: Catalogue,
    pub info: ReadInfo,
    /// `None` where the products came without pages.
    pub total: Option<u64>,
    /// Distinct ids, and rows without one.
    pub distinct: u64,
    /// Rows, repeated ones included.
    pub rows: u64,
    /// Equal for two reads that saw the same ids and total.
    pub signature: (u64, u64),
    /// How the parts of this read contradict each other; `None` if it is consistent.
    pub inconsistency: Option<String>,
}

/// Collects one read.
pub(super) struct SnapshotBuilder<'a> {
    placer: Placer<'a>,
    products: ProductTable,
    duplicates: Duplicates,
    rows: u64,
    distinct: u64,
    /// The sum of the ids' hashes, which does not depend on their order.
    signature: u64,
    /// Whether each row has an id of its own: only then can changes be merged into the table.
    unique: bool,
    total: Option<u64>,
    total_moved: Option<(u64, u64)>,
    cleaned_in: Duration,
}

impl<'a> SnapshotBuilder<'a> {
    pub(super) fn new(settings: &SourceSettings, map: &'a RowMap, groups: &'a GroupList) -> Self {
        let started = Instant::now();
        let reader = RowReader::groups(&map.group_columns, &settings.id, &settings.number);
        let duplicates = settings.duplicates();
        Self {
            placer: Placer::new(map, GroupTree::from_rows(groups.rows(), reader, duplicates)),
            products: ProductTable::new(map.product_columns.len() + PRODUCT_EXTRA_COLUMNS),
            duplicates,
            rows: 0,
            distinct: 0,
            signature: 0,
            unique: true,
            total: None,
            total_moved: None,
            cleaned_in: started.elapsed(),
        }
    }

    /// Whether groups bring their own products (the document's sample does; OKKI does not).
    pub(super) fn has_embedded_products(&self) -> bool {
        !self.placer.tree.embedded.is_empty()
    }

    /// Rows so far, repeated ones included.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn products(&self) -> &Table {
        self.products.table()
    }

    /// The pages of one read should all give the same total.
    pub(super) fn note_total(&mut self, total: u64) {
        match self.total {
            Some(before) if before != total => self.total_moved = Some((before, total)),
            _ => self.total = Some(total),
        }
    }

    /// Adds a page of a read of everything.
    pub(super) fn add_page(&mut self, page: &ProductPage) -> Result<()> {
        self.note_total(page.total);
        if self.products().is_empty() {
            self.reserve_for(page);
        }
        self.add_rows(page)
    }

    /// The first page tells how much room all of them will take.
    fn reserve_for(&mut self, first: &ProductPage) {
        let total = usize::try_from(first.total).unwrap_or(0).min(MAX_RESERVED_ROWS);
        let group_id_bytes = 12;
        let row_bytes = first.bytes().div_ceil(first.rows.len().max(1)) + group_id_bytes;
        let bytes = total.saturating_mul(row_bytes).saturating_mul(21) / 20;
        self.products.reserve(total, bytes.min(MAX_RESERVED_BYTES));
    }

    pub(super) fn add_rows(&mut self, page: &ProductPage) -> Result<()> {
        self.add_rows_of(page, None)
    }

    /// Adds the products that groups bring themselves.
    pub(super) fn add_embedded(&mut self) -> Result<()> {
        for (group, list) in std::mem::take(&mut self.placer.tree.embedded) {
            let rows: Vec<&RawValue> = serde_json::from_str(list)
                .map_err(|_| bad_answer(format!("source: products of group {group} are not a list")))?;
            self.add_rows_of(&ProductPage::from_rows(0, &rows, self.reader()), Some(&group))?;
        }
        Ok(())
    }

    fn reader(&self) -> RowReader<'a> {
        RowReader::products(&self.placer.map.product_columns)
    }

    fn add_rows_of(&mut self, page: &ProductPage, embedded_in: Option<&RecordId>) -> Result<()> {
        let started = Instant::now();
        for (at, row) in page.rows.iter().enumerate() {
            self.add_product(page, at, row, embedded_in)?;
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    fn add_product(
        &mut self,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        embedded_in: Option<&RecordId>,
    ) -> Result<()> {
        self.rows += 1;
        let Some(id) = &row.id else {
            self.distinct += 1;
            self.unique = false;
            self.placer.reject_without_id(row, &page.raw(at));
            return Ok(());
        };
        let hash = id_hash(id);
        if self.products.is_repeated(id, hash, self.duplicates) {
            self.unique = false;
            if self.duplicates == Duplicates::KeepFirst {
                self.placer.reject_repeated(id, row, &page.raw(at));
                return Ok(());
            }
        } else {
            self.distinct += 1;
            self.signature = self.signature.wrapping_add(hash);
        }
        let group = self.placer.place(page, at, row, id, embedded_in);
        self.push(group, page, at, row, id)
    }

    fn push(
        &mut self,
        group: GroupRef,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        id: &str,
    ) -> Result<()> {
        let columns = page.cells.width();
        let raw;
        // A row without a group keeps its id in the table, and of its content what the cache must know.
        let (kept, status) = match group.placement() {
            Placement::Deleted => (1, RowStatus::Deleted),
            Placement::Rejected => {
                raw = page.raw(at);
                (1, RowStatus::Rejected(&raw))
            }
            _ => (columns, RowStatus::InGroup(row.group.as_deref().unwrap_or(""))),
        };
        let cells = (0..columns).map(|column| match column {
            PRODUCT_ID_COLUMN => id,
            _ if column < kept => page.cells.cell(at, column),
            _ => "",
        });
        self.products.push(group, cells, status).map_err(|full| bad_answer(format!("source: {full}")))
    }

    /// Starts from the table of a cache. The `outdated` rows (in ascending order) stay in it but no longer count.
    pub(super) fn add_cached(&mut self, table: Table, outdated: &[usize]) -> Result<()> {
        let started = Instant::now();
        let mut outdated = outdated.iter().peekable();
        let mut groups = Vec::with_capacity(table.len());
        let mut rejected = Vec::new();
        for row in 0..table.len() {
            let group = match RowStatus::from_table(&table, row) {
                _ if outdated.next_if_eq(&&row).is_some() => GroupRef::REPLACED,
                RowStatus::Rejected(raw) => {
                    rejected.push(raw.to_owned());
                    GroupRef::REPLACED
                }
                RowStatus::Deleted => self.placer.count_deleted(),
                RowStatus::InGroup(group) => self.placer.place_cached(&table, row, group),
            };
            let counts = u64::from(group != GroupRef::REPLACED);
            self.rows += counts;
            self.distinct += counts;
            groups.push(group);
        }
        self.products = ProductTable::from_cache(table, groups);
        self.cleaned_in += started.elapsed();
        self.judge_again(&rejected)
    }

    /// What was wrong with these rows of the cache may be repaired, for example by a new group.
    fn judge_again(&mut self, rows: &[String]) -> Result<()> {
        for raw in rows {
            let Ok(raw) = serde_json::from_str::<&RawValue>(raw) else { continue };
            self.add_rows(&ProductPage::from_rows(0, &[raw], self.reader()))?;
        }
        Ok(())
    }

    fn inconsistency(&self) -> Option<String> {
        match (self.total, self.total_moved) {
            (_, Some((before, after))) => {
                Some(format!("the total moved from {before} to {after} while reading"))
            }
            (Some(total), None) if total != self.distinct => {
                let distinct = self.distinct;
                Some(format!("the total says {total} products, the pages held {distinct} different ones"))
            }
            _ => None,
        }
    }

    /// `began`: the source's own time before the first page.
    pub(super) fn finish(self, scope: ReadScope, began: Option<String>, pages: u64) -> Snapshot {
        let inconsistency = self.inconsistency();
        let total = self.total_moved.map(|(_, after)| after).or(self.total);
        let (full_read, fresh) = match scope {
            ReadScope::Everything => (true, self.rows),
            ReadScope::Changes(fresh) => (false, fresh),
        };
        let Placer { map, tree, rejected, quarantined, deleted } = self.placer;
        let info = ReadInfo {
            cursor: began.clone().filter(|_| self.unique),
            read_began: began.filter(|_| full_read && pages > 1),
            full_read,
            fresh_products: fresh,
            worth_keeping: fresh > 0 || pages > 1,
            deleted_products: deleted,
            source_total: total.unwrap_or(0),
            cleaned_in: self.cleaned_in,
        };
        let (products_of, quarantined_ids) = match map.unit() {
            RowUnit::Product => (Vec::new(), quarantined),
            RowUnit::Group => (self.products.by_group(tree.groups.len()), tree.quarantined_ids),
        };
        let (table, product_groups) = self.products.into_parts();
        let catalogue = Catalogue {
            groups: tree.groups,
            group_cells: tree.cells,
            product_cells: table.into(),
            product_groups,
            products_of,
            rejected,
            quarantined_ids,
        };
        let signature = (self.signature, total.unwrap_or(0));
        Snapshot {
            catalogue,
            info,
            total,
            distinct: self.distinct,
            rows: self.rows,
            signature,
            inconsistency,
        }
    }
}

fn bad_answer(message: String) -> Error {
    Error::new(ErrorKind::BadAnswer(Side::Source), message)
}
