//! Builds the catalogue of one read: groups into a tree, products into columns, offenders apart.
//!
//! Rows come from a cache, from windows, from deltas, or page by page from a read of everything. Each keeps the number of
//! the read that found it (`windows::ledger`), which says what it can still lose its place to:
//!
//! | the row that comes | an earlier row with its id | what happens |
//! |---|---|---|
//! | of a window | waits | it is found: it gets the window's number, and the content of now |
//! | of a window | belongs to another window | the source holds the id twice: [`Duplicates`] decides, one is an offender |
//! | of a delta | belongs to a window | new content, the same number |
//! | of a delta | waits, or there is none | the delta's number: it waits for windows that are read later |
//!
//! Judging what goes into the quarantine is for the end of the read (`clean.rs`).

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::SourceSettings;
use super::cache::{self, Cache, Offender, RowStatus};
use super::page::{ProductPage, ProductRow};
use super::placing::Placer;
use super::products::ProductTable;
use super::protocol::GroupList;
use super::row::RowReader;
use super::seen::Duplicates;
use super::tree::GroupTree;
use super::windows::{Ledger, Seconds, WindowRows};
use crate::catalogue::{GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, RecordId, kept_fields};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::testing::Mutant;
use crate::transform::RowMap;

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

/// What a delta brought.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Rows that differ from what was known.
    pub rows: u64,
    /// Rows that were not known at all.
    pub created: u64,
    /// Numbers of the reads that found two rows with an id that came again: which of them changed, only reading tells.
    pub ambiguous: Vec<u32>,
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
                .map_err(|_| bad_answer(format!("source: products of group {group} are not a list")))?;
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
                _ => self.push(page, at, row, id, 0, embedded_in)?,
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// Adds the rows of a window that was read under this number.
    pub(super) fn add_window(&mut self, window: &WindowRows, number: u32, ledger: &Ledger) -> Result<()> {
        let started = Instant::now();
        let starts = ledger.starts();
        for page in &window.pages {
            for (at, row) in page.rows.iter().enumerate() {
                let Some(id) = &row.id else {
                    let waits = |known| known != number && !starts.contains_key(&known);
                    self.add_offender(number, None, page.raw(at), waits);
                    continue;
                };
                match self.products.find(id) {
                    None => self.push(page, at, row, id, number, None)?,
                    Some(known) => self.meet(known, page, at, row, id, number, window.in_rounds, &starts)?,
                }
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// A window brings an id that is known.
    #[expect(clippy::too_many_arguments, reason = "a row of a page, and what it meets")]
    fn meet(
        &mut self,
        known: usize,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        id: &RecordId,
        number: u32,
        in_rounds: bool,
        starts: &HashMap<u32, Seconds>,
    ) -> Result<()> {
        let before = self.products.number(known);
        let is_twin = before == number || starts.contains_key(&before);
        if before == number && in_rounds {
            return Ok(());
        }
        if !is_twin {
            self.renew(known, page, at, row, id, number)?;
            return Ok(());
        }
        // The same decision at each read, whichever of the two windows is read later.
        let is_earlier = match (starts.get(&number), starts.get(&before)) {
            (Some(here), Some(there)) => here < there,
            _ => false,
        };
        match (self.duplicates, is_earlier) {
            (Duplicates::KeepFirst, false) => {
                let waits = |known| known != number && !starts.contains_key(&known);
                self.add_offender(number, Some(id), page.raw(at), waits);
            }
            (Duplicates::KeepLast, true) => {}
            (Duplicates::KeepLast, false) => self.push(page, at, row, id, number, None)?,
            (Duplicates::KeepFirst, true) => {
                let raw = self.kept(known, id);
                self.add_offender(before, Some(id), raw, |_| false);
                self.push(page, at, row, id, number, None)?;
            }
        }
        Ok(())
    }

    /// Adds the rows that a delta brought under this number.
    pub(super) fn add_changes(
        &mut self,
        pages: &[ProductPage],
        number: u32,
        ledger: &Ledger,
        fresh: &mut Fresh,
    ) -> Result<()> {
        let started = Instant::now();
        let starts = ledger.starts();
        for page in pages {
            for (at, row) in page.rows.iter().enumerate() {
                let Some(id) = &row.id else {
                    let raw = page.raw(at);
                    // The overlap brings it again.
                    if !self.offenders.iter().any(|known| known.raw == raw) {
                        self.add_offender(number, None, raw, |_| false);
                        fresh.created += 1;
                    }
                    continue;
                };
                let known = self.products.find(id);
                let twins = self.offenders.iter().filter(|offender| offender.id.as_deref() == Some(id));
                let twins: Vec<u32> = twins.map(|offender| offender.number).collect();
                if let (false, Some(known)) = (twins.is_empty(), known) {
                    fresh.ambiguous.extend(twins);
                    fresh.ambiguous.push(self.products.number(known));
                    continue;
                }
                let before = known.map(|known| self.products.number(known));
                let kept = before.filter(|before| starts.contains_key(before));
                fresh.created += u64::from(known.is_none());
                let number = kept.unwrap_or(number);
                let is_fresh = match known {
                    Some(known) => self.renew(known, page, at, row, id, number)?,
                    None => {
                        self.push(page, at, row, id, number, None)?;
                        true
                    }
                };
                fresh.rows += u64::from(is_fresh);
            }
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// A row is found again: returns whether its content differs.
    fn renew(
        &mut self,
        known: usize,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        id: &RecordId,
        number: u32,
    ) -> Result<bool> {
        let (group, raw) = match self.placer.place(page, at, row, id, None) {
            Ok(group) => (group, String::new()),
            Err(_) => (GroupRef::REJECTED, page.raw(at)),
        };
        let status = status_of(group, row, &raw);
        if self.products.is_same(known, cells(page, at, group, id), status) {
            if !Mutant::ForgetTheWindow.is_active() {
                self.products.set_number(known, number);
            }
            return Ok(false);
        }
        self.push(page, at, row, id, number, None)?;
        Ok(true)
    }

    pub(super) fn push(
        &mut self,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        id: &str,
        number: u32,
        embedded_in: Option<&RecordId>,
    ) -> Result<()> {
        let (group, raw) = match (self.placer.place(page, at, row, id, embedded_in), embedded_in) {
            (Ok(group), _) => (group, String::new()),
            // Its group is known now only: it is judged at once, and has no raw JSON to be judged by again.
            (Err(reason), Some(_)) => {
                self.placer.quarantine(&RecordId::from(id), reason, &page.raw(at));
                (GroupRef::REJECTED, String::new())
            }
            (Err(_), None) => (GroupRef::REJECTED, page.raw(at)),
        };
        let names_unknown_group = |group: &RecordId| self.placer.tree.find(group).is_none();
        self.met_unknown_group |= !row.deleted && row.group.as_ref().is_some_and(names_unknown_group);
        let status = status_of(group, row, &raw);
        let pushed = self.products.push(id, group, number, cells(page, at, group, id), status);
        pushed.map_err(|full| bad_answer(format!("source: {full}")))
    }

    /// The same row as one that `waits` is that row, found again.
    fn add_offender(&mut self, number: u32, id: Option<&RecordId>, raw: String, waits: impl Fn(u32) -> bool) {
        match self.offenders.iter_mut().find(|known| waits(known.number) && known.raw == raw) {
            Some(known) => known.number = number,
            None => self.offenders.push(Offender { number, id: id.map(RecordId::to_string), raw }),
        }
    }

    fn kept(&self, row: usize, id: &str) -> String {
        let table = self.products.table();
        let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS + 1);
        let group = table.cell(row, named + 1);
        let cells: Vec<&str> = table.row(row).skip(1).take(named).collect();
        kept_fields(&[("product_id", id), ("group_id", group)], &cells)
    }

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

    /// The same without a row.
    pub(super) fn no_pieces(&self, key: &str, ledger: &Ledger) -> Vec<Bytes> {
        cache::to_pieces(key, ledger, &[], &ProductTable::new(self.products.table().width()))
    }

    /// What the next read goes on from.
    pub(super) fn to_pieces(&self, key: &str, ledger: &Ledger) -> Vec<Bytes> {
        cache::to_pieces(key, ledger, &self.offenders, &self.products)
    }
}

/// A row without a group keeps its id in the table, and of its content what the cache must know.
fn cells<'p>(
    page: &'p ProductPage,
    at: usize,
    group: GroupRef,
    id: &'p str,
) -> impl Iterator<Item = &'p str> {
    let columns = page.cells.width();
    let is_kept = !matches!(group, GroupRef::DELETED | GroupRef::REJECTED);
    (0..columns).map(move |column| match column {
        PRODUCT_ID_COLUMN => id,
        _ if is_kept => page.cells.cell(at, column),
        _ => "",
    })
}

fn status_of<'r>(group: GroupRef, row: &'r ProductRow, raw: &'r str) -> RowStatus<'r> {
    match group {
        GroupRef::DELETED => RowStatus::Deleted,
        GroupRef::REJECTED => RowStatus::Rejected(raw),
        _ => RowStatus::InGroup(row.group.as_deref().unwrap_or("")),
    }
}

pub(super) fn bad_answer(message: String) -> Error {
    Error::new(ErrorKind::BadAnswer(Side::Source), message)
}
