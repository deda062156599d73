//! Collects one read: rows into columns, products to their groups, offenders into the quarantine.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use compact_str::CompactString;
use hashbrown::DefaultHashBuilder;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::cache::{self, Cache};
use super::dedup::SeenIds;
use super::page::{ProductPage, ProductRow};
use super::row::{Row, RowReader};
use super::tree::{self, SourceGroup};
use super::{SourceSettings, product_reader};
use crate::catalogue::{
    Catalogue, GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Placement, RecordId, Rejected, RowKind,
    Table, TableFull, id_hash, id_order, kept_fields,
};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::transform::{RowMap, RowUnit};

/// A total is only what a server says: no more room than for this is made in advance.
const MOST_ROWS_EXPECTED: usize = 300_000;
/// The same for their text.
const MOST_BYTES_EXPECTED: usize = 64 << 20;

/// How a catalogue was read.
#[derive(Debug)]
pub(crate) struct ReadInfo {
    /// The source's own time when the read began (`YYYY-MM-DD HH:mm:ss`, as it says it); `None` unless all products were
    /// read, in more than one page.
    pub read_began: Option<String>,
    /// The total of products that the source gave.
    pub source_total: u64,
    /// Whether all products were read, rather than those that changed.
    pub full_read: bool,
    /// The source's own time from which the next read may go on; `None` where the products are of no use as a cache.
    pub cursor: Option<String>,
    /// Products that differ from the cache (all of them where there was none).
    pub fresh_products: u64,
    /// Whether the cache should be written again: something changed, or the next read would repeat pages.
    pub worth_keeping: bool,
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted_products: u64,
    /// Time spent on parsing and cleaning.
    pub cleaned_in: Duration,
}

/// One attempt at reading everything.
pub(super) struct Snapshot {
    pub catalogue: Catalogue,
    pub info: ReadInfo,
    pub total: Option<u64>,
    /// Distinct ids, and rows without one.
    pub distinct: u64,
    /// Rows, repeated ones included.
    pub rows: u64,
    /// The same for two reads that saw the same ids.
    pub signature: (u64, u64),
    /// Why it does not count, if so.
    pub doubt: Option<String>,
}
/// The pages of products that changed.
#[derive(Default)]
pub(super) struct Changes {
    pub pages: Vec<ProductPage>,
    pub ids: HashSet<CompactString>,
    pub total: u64,
    pub rows: u64,
    pub moved: bool,
}

impl Changes {
    pub(super) fn take(&mut self, page: ProductPage) {
        self.moved |= !self.pages.is_empty() && self.total != page.total;
        self.total = page.total;
        self.rows += page.rows.len() as u64;
        self.ids.extend(page.rows.iter().filter_map(|row| row.id.clone()));
        self.pages.push(page);
    }

    /// As many different ids as rows as the total says.
    pub(super) fn is_consistent(&self) -> bool {
        !self.moved && self.rows == self.total && self.ids.len() as u64 == self.total
    }
}
/// Collects one read.
pub(super) struct SnapshotBuilder<'a> {
    pub map: &'a RowMap,
    pub id_check: bool,
    pub groups: Vec<crate::catalogue::Group>,
    pub group_of: HashMap<RecordId, GroupRef, DefaultHashBuilder>,
    pub quarantined_groups: Vec<RecordId>,
    pub group_cells: Table,
    pub product_cells: Table,
    /// The group of each product row.
    pub product_groups: Vec<GroupRef>,
    pub seen: SeenIds,
    pub rejected: Vec<Rejected>,
    pub held_products: Vec<RecordId>,
    pub deleted: u64,
    pub rows_seen: u64,
    pub signature: u64,
    /// The first so many rows stand in the order of their ids; none: all of them.
    pub ordered_rows: Option<usize>,
    pub total: Option<u64>,
    pub total_moved: Option<(u64, u64)>,
    pub began: Option<String>,
    pub several_pages: bool,
    pub full_read: bool,
    /// Distinct ids, and rows without one.
    pub distinct: u64,
    /// Rows that the cache does not hold as they are now.
    pub fresh: u64,
    /// Whether each row has an id of its own: only then can changes be merged into the table.
    pub unique: bool,
    pub embedded: Vec<(RecordId, &'a str)>,
    pub cleaned_in: Duration,
}

fn full_table(full: TableFull) -> Error {
    Error::new(ErrorKind::BadAnswer(Side::Source), format!("source: {full}"))
}

impl<'a> SnapshotBuilder<'a> {
    pub(super) fn new(settings: &'a SourceSettings, map: &'a RowMap, rows: &[&'a str]) -> Self {
        let started = Instant::now();
        let id = crate::transform::canonical_group_key(&settings.id);
        let name = crate::transform::canonical_group_key(&settings.number);
        let reader = RowReader { columns: &map.group_columns, id, name, parent: "parent_id", product: false };
        let mut rejected = Vec::new();
        let mut source = Vec::with_capacity(rows.len());
        let mut cells = Vec::with_capacity(rows.len());
        let mut embedded = Vec::new();
        for raw in rows {
            match reader.read(raw) {
                Ok(row) => {
                    if let (Some(id), Some(products)) = (&row.id, row.products) {
                        embedded.push((RecordId::from(id.as_ref()), products));
                    }
                    let Row { id, name, parent, .. } = row;
                    source.push(SourceGroup { id, name, parent, raw });
                    cells.push(row.cells);
                }
                Err(why) => rejected.push(Rejected::new(RowKind::Group, None, why, raw)),
            }
        }
        let tree = tree::tree(&source, settings.id_check);
        rejected.extend(tree.rejected);
        let mut group_cells = Table::new(map.group_columns.len());
        let mut groups = Vec::with_capacity(tree.groups.len());
        for (at, group) in tree.groups {
            // 5,000 groups are far below the table's 4 GiB; a full table shows itself with the products.
            let row = cells.get(at).map_or(&[][..], Vec::as_slice);
            let _ = group_cells.push(row.iter().copied());
            groups.push(group);
        }
        let group_of = groups
            .iter()
            .zip(0..)
            .map(|(group, at)| (group.id.clone(), GroupRef::new(at)))
            .collect::<HashMap<_, _, _>>();
        let quarantined_groups = rejected
            .iter()
            .filter_map(|r| r.id.as_deref().map(RecordId::from))
            .filter(|id| !group_of.contains_key(id))
            .collect();
        Self {
            map,
            id_check: settings.id_check,
            groups,
            group_of,
            quarantined_groups,
            group_cells,
            product_cells: Table::new(map.product_columns.len() + PRODUCT_EXTRA_COLUMNS),
            product_groups: Vec::new(),
            seen: SeenIds::default(),
            rejected,
            held_products: Vec::new(),
            deleted: 0,
            rows_seen: 0,
            signature: 0,
            ordered_rows: None,
            total: None,
            total_moved: None,
            began: None,
            several_pages: false,
            full_read: true,
            distinct: 0,
            fresh: 0,
            unique: true,
            embedded,
            cleaned_in: started.elapsed(),
        }
    }

    pub(super) fn take_page(&mut self, page: &ProductPage) -> Result<()> {
        let started = Instant::now();
        match self.total {
            Some(total) if total != page.total => self.total_moved = Some((total, page.total)),
            _ => self.total = Some(page.total),
        }
        if self.product_cells.is_empty() {
            self.expect(page);
        }
        self.take_rows(page, None)?;
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// The first page tells how much room all of them will take.
    fn expect(&mut self, first: &ProductPage) {
        let total = usize::try_from(first.total).unwrap_or(0).min(MOST_ROWS_EXPECTED);
        let group_id_bytes = 12;
        let row_bytes = first.bytes().div_ceil(first.rows.len().max(1)) + group_id_bytes;
        let bytes = total.saturating_mul(row_bytes).saturating_mul(21) / 20;
        self.product_cells.reserve(total, bytes.min(MOST_BYTES_EXPECTED));
        self.product_groups.reserve(total);
    }

    /// The document's sample: each group brings its own products.
    pub(super) fn take_embedded(&mut self) -> Result<()> {
        for (group, list) in std::mem::take(&mut self.embedded) {
            let rows: Vec<&RawValue> = serde_json::from_str(list).map_err(|_| {
                Error::new(
                    ErrorKind::BadAnswer(Side::Source),
                    format!("source: products of group {group} are not a list"),
                )
            })?;
            let reader = product_reader(&self.map.product_columns);
            self.take_rows(&ProductPage::from_rows(0, &rows, reader), Some(&group))?;
        }
        Ok(())
    }

    fn take_rows(&mut self, page: &ProductPage, group: Option<&RecordId>) -> Result<()> {
        for (at, row) in page.rows.iter().enumerate() {
            self.take_product(page, at, row, group)?;
        }
        Ok(())
    }

    fn take_product(
        &mut self,
        page: &ProductPage,
        at: usize,
        row: &ProductRow,
        group: Option<&RecordId>,
    ) -> Result<()> {
        self.rows_seen += 1;
        self.fresh += 1;
        let Some(id) = &row.id else {
            self.distinct += 1;
            self.unique = false;
            let why = row.unreadable.clone().unwrap_or_else(|| "product_id is missing or blank".to_owned());
            self.rejected.push(Rejected::new(RowKind::Product, None, why, &page.raw(at)));
            return Ok(());
        };
        if self.is_repeated(id) {
            self.unique = false;
            if self.id_check {
                // Should the first one be marked as deleted: this one is there all the same.
                if !row.deleted {
                    self.held_products.push(id.clone());
                }
                let reason = format!("product_id {id} is repeated; the first row stays");
                let raw = page.raw(at);
                self.rejected.push(Rejected::new(RowKind::Product, Some(id.to_string()), reason, &raw));
                return Ok(());
            }
        }
        let cell = |column: usize| if column == 0 { id.as_str() } else { page.cells.cell(at, column) };
        let of = match self.map.product_misfit(id, cell) {
            _ if row.deleted => self.count_deleted(),
            Some(reason) => self.quarantine_product(id, reason, page.raw(at)),
            None => self.group_for(row, id, group, page, at),
        };
        let named = self.map.product_columns.len();
        // A row that goes nowhere keeps its place in the table and of its bytes what the cache must know.
        let status = match of {
            GroupRef::DELETED => cache::DELETED.to_owned(),
            GroupRef::REJECTED => format!("{}{}", cache::REJECTED, page.raw(at)),
            _ => String::new(),
        };
        let is_placed = matches!(of.placement(), Placement::InGroup(_));
        let cells = (0..named).map(|column| if !is_placed && column > 0 { "" } else { cell(column) });
        let group = if is_placed { row.group.as_deref().unwrap_or("") } else { "" };
        self.push(of, cells.chain([group, &status]))
    }

    /// Whether a row of this id was taken before. If not, or if the last one is to stay, the next row is the one.
    fn is_repeated(&mut self, id: &str) -> bool {
        let Some(before) = self.seen.replace(id, &self.product_cells, self.id_check) else {
            self.signature = self.signature.wrapping_add(id_hash(id));
            self.distinct += 1;
            return false;
        };
        if !self.id_check
            && let Some(group) = self.product_groups.get_mut(before as usize)
        {
            *group = GroupRef::REPLACED;
        }
        true
    }

    /// Takes the cache's table, marks the rows in it that changed as replaced, and adds these as they are now.
    pub(super) fn take_cached(&mut self, cache: Cache, changed: &Changes) -> Result<()> {
        let started = Instant::now();
        self.product_cells = cache.table;
        let cached_rows = self.product_cells.len();
        let mut replaced: HashMap<CompactString, usize> = HashMap::new();
        let mut judged_anew = Vec::new();
        for at in 0..cached_rows {
            let id = self.product_cells.cell(at, PRODUCT_ID_COLUMN);
            let raw = cache::group_and_status(&self.product_cells, at).1.strip_prefix(cache::REJECTED);
            let of = if changed.ids.contains(id) {
                replaced.insert(id.into(), at);
                GroupRef::REPLACED
            } else if let Some(raw) = raw {
                // What stood in its way may be gone.
                judged_anew.push(raw.to_owned());
                GroupRef::REPLACED
            } else {
                self.take_cached_row(at)
            };
            self.product_groups.push(of);
            self.note_order(at);
        }
        // Whatever comes now has another id than those that stayed.
        self.seen = SeenIds::from(cached_rows);
        for raw in judged_anew {
            let Ok(raw) = serde_json::from_str::<&RawValue>(&raw) else { continue };
            let page = ProductPage::from_rows(0, &[raw], product_reader(&self.map.product_columns));
            self.take_rows(&page, None)?;
            self.fresh -= 1;
        }
        for page in &changed.pages {
            let before = self.product_cells.len();
            self.take_rows(page, None)?;
            // Read once more because of the overlap, and as it was.
            let cells = &self.product_cells;
            let same = (before..cells.len())
                .filter(|at| {
                    let was = replaced.get(cells.cell(*at, PRODUCT_ID_COLUMN));
                    was.is_some_and(|was| cells.row(*was).eq(cells.row(*at)))
                })
                .count();
            self.fresh -= same as u64;
        }
        self.cleaned_in += started.elapsed();
        Ok(())
    }

    /// The group of a row of the cache, which stays where it is.
    fn take_cached_row(&mut self, at: usize) -> GroupRef {
        self.rows_seen += 1;
        self.distinct += 1;
        let (group, status) = cache::group_and_status(&self.product_cells, at);
        if status == cache::DELETED {
            return self.count_deleted();
        }
        if let Some(&group) = self.group_of.get(group) {
            return group;
        }
        let id = RecordId::from(self.product_cells.cell(at, PRODUCT_ID_COLUMN));
        let named = self.map.product_columns.len() - 1;
        let cells: Vec<&str> = self.product_cells.row(at).skip(1).take(named).collect();
        let raw = kept_fields(&[("product_id", &id), ("group_id", group)], &cells);
        let reason = self.no_group(&id, group);
        self.quarantine_product(&id, reason, raw)
    }

    fn quarantine_product(&mut self, id: &RecordId, reason: String, raw: String) -> GroupRef {
        self.held_products.push(id.clone());
        self.rejected.push(Rejected::new(RowKind::Product, Some(id.to_string()), reason, &raw));
        GroupRef::REJECTED
    }

    fn count_deleted(&mut self) -> GroupRef {
        self.deleted += 1;
        GroupRef::DELETED
    }

    /// The index of a product's group, or the product is rejected.
    fn group_for(
        &mut self,
        row: &ProductRow,
        id: &RecordId,
        embedded_in: Option<&RecordId>,
        page: &ProductPage,
        at: usize,
    ) -> GroupRef {
        let reason = match (row.named, embedded_in.or(row.group.as_ref())) {
            (false, _) => format!("name of product {id} is missing or blank"),
            (_, None) => format!("product {id} names no group"),
            (_, Some(group)) => match self.group_of.get(group) {
                Some(&at) => return at,
                None => self.no_group(id, group),
            },
        };
        self.quarantine_product(id, reason, page.raw(at))
    }

    fn no_group(&self, id: &str, group: &str) -> String {
        if self.quarantined_groups.iter().any(|quarantined| quarantined == group) {
            format!("group {group} of product {id} is in the quarantine")
        } else {
            format!("group {group} of product {id} is unknown")
        }
    }

    fn products_of_groups(&self) -> Vec<Vec<u32>> {
        let mut products_of = vec![Vec::new(); self.groups.len()];
        for (group, product) in self.product_groups.iter().zip(0_u32..) {
            if let Placement::InGroup(group) = group.placement()
                && let Some(products) = products_of.get_mut(group)
            {
                products.push(product);
            }
        }
        // By id, so that the same content gives the same row in whatever order the pages came. To compare ids means to
        // jump to and fro in the table, and most rows come in this order.
        let id = |row: u32| self.product_cells.cell(row as usize, PRODUCT_ID_COLUMN);
        let is_ordered = |products: &Vec<u32>| {
            self.ordered_rows.is_none_or(|rows| products.last().is_none_or(|last| (*last as usize) < rows))
        };
        for products in products_of.iter_mut().filter(|products| !is_ordered(products)) {
            products.sort_unstable_by(|&a, &b| id_order(id(a), id(b)));
        }
        products_of
    }

    /// Puts a row into the table, with its group.
    fn push<'c>(&mut self, group: GroupRef, cells: impl IntoIterator<Item = &'c str>) -> Result<()> {
        self.product_groups.push(group);
        self.product_cells.push(cells).map_err(full_table)?;
        self.note_order(self.product_cells.len() - 1);
        Ok(())
    }

    fn note_order(&mut self, at: usize) {
        let id = |row: usize| self.product_cells.cell(row, PRODUCT_ID_COLUMN);
        let follows = at.checked_sub(1).is_none_or(|before| id_order(id(before), id(at)).is_le());
        if !follows && self.ordered_rows.is_none() {
            self.ordered_rows = Some(at);
        }
    }

    pub(super) fn finish(self) -> Result<Snapshot> {
        let (distinct, rows) = (self.distinct, self.rows_seen);
        let doubt = match (self.total, self.total_moved) {
            (_, Some((before, after))) => {
                Some(format!("the total moved from {before} to {after} while reading"))
            }
            (Some(total), None) if total != distinct => {
                Some(format!("the total says {total} products, the pages held {distinct} different ones"))
            }
            _ => None,
        };
        let total = self.total_moved.map(|(_, after)| after).or(self.total);
        let products_of =
            if self.map.unit() == RowUnit::Product { Vec::new() } else { self.products_of_groups() };
        let quarantined_ids =
            if self.map.unit() == RowUnit::Product { self.held_products } else { self.quarantined_groups };
        let catalogue = Catalogue {
            groups: self.groups,
            group_cells: self.group_cells,
            product_cells: self.product_cells.into(),
            product_groups: self.product_groups,
            products_of,
            rejected: self.rejected,
            quarantined_ids,
        };
        let info = ReadInfo {
            deleted_products: self.deleted,
            cursor: self.began.clone().filter(|_| self.unique),
            read_began: self.began.filter(|_| self.several_pages && self.full_read),
            full_read: self.full_read,
            fresh_products: self.fresh,
            worth_keeping: self.fresh > 0 || self.several_pages,
            source_total: total.unwrap_or(0),
            cleaned_in: self.cleaned_in,
        };
        Ok(Snapshot {
            catalogue,
            info,
            total,
            distinct,
            rows,
            signature: (self.signature, total.unwrap_or(0)),
            doubt,
        })
    }
}
