//! What the source holds, in the compact form that a run keeps in memory.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The id of a row at the target. Ids are strings inside, whatever the source sends, so that ids over 2^53 stay exact.
pub(crate) type RecordId = CompactString;

/// What a rejected row was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// A product group of the source.
    Group,
    /// A product of the source.
    Product,
    /// A finished row that the target refused.
    Record,
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Product => "product",
            Self::Record => "record",
        })
    }
}

/// A row that cannot go through: one line of the quarantine file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rejected {
    /// What it was.
    pub kind: RowKind,
    /// Its id, where it has one.
    pub id: Option<String>,
    /// Why it cannot go through.
    pub reason: String,
    /// The row as the source sent it (or, for a record, as it was sent to the target).
    pub raw: Box<RawValue>,
}

impl Rejected {
    /// A rejected row; raw text that is not JSON is kept as a JSON string.
    pub fn new(kind: RowKind, id: Option<String>, reason: impl Into<String>, raw: &str) -> Self {
        let raw = RawValue::from_string(raw.to_owned())
            .or_else(|_| serde_json::value::to_raw_value(raw))
            .unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { kind, id, reason: reason.into(), raw }
    }
}

/// Rows of equal width, side by side in one text: 200,000 products then cost their bytes and no allocations of their own.
///
/// A cell holds raw JSON, an id, or nothing (the source did not send the field).
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    width: usize,
    text: String,
    ends: Vec<u32>,
}

/// The table's text would pass 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than 4 GiB of source data in one run")]
pub(crate) struct TableFull;

impl Table {
    /// An empty table with that many cells a row.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, text: String::new(), ends: Vec::new() }
    }

    /// Its text, and where each cell ends in it.
    pub(crate) fn parts(&self) -> (&str, &[u32]) {
        (&self.text, &self.ends)
    }

    /// A table of these parts; none if they do not fit together.
    pub(crate) fn from_parts(width: usize, text: String, ends: Vec<u32>) -> Option<Self> {
        let whole = width > 0 && ends.len().is_multiple_of(width);
        let ordered = ends.is_sorted() && ends.last().is_none_or(|end| *end as usize == text.len());
        (whole && ordered).then_some(Self { width, text, ends })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.ends.len().checked_div(self.width).unwrap_or(0)
    }

    /// Number of cells in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Makes room for so many rows of so many bytes together, so that the text need not grow by doubling.
    pub(crate) fn reserve(&mut self, rows: usize, bytes: usize) {
        self.text.reserve(bytes);
        self.ends.reserve(rows.saturating_mul(self.width));
    }

    /// Adds a row; missing cells are empty, surplus ones are left out.
    pub(crate) fn push<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> Result<(), TableFull> {
        let mut cells = cells.into_iter();
        for _ in 0..self.width {
            self.text.push_str(cells.next().unwrap_or(""));
            self.ends.push(u32::try_from(self.text.len()).map_err(|_| TableFull)?);
        }
        Ok(())
    }

    /// The cells of a row.
    pub(crate) fn row(&self, row: usize) -> impl Iterator<Item = &str> {
        (0..self.width).map(move |column| self.cell(row, column))
    }

    /// One cell; empty if there is none.
    pub(crate) fn cell(&self, row: usize, column: usize) -> &str {
        let at = row * self.width + column;
        let Some(&end) = self.ends.get(at) else { return "" };
        self.text.get(self.start(at)..end as usize).unwrap_or("")
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize)
    }

    /// Where the text of a row stands.
    pub(crate) fn place(&self, row: usize) -> Range<usize> {
        self.start(row * self.width)..self.start((row + 1) * self.width)
    }

    /// The length of each cell of a row.
    pub(crate) fn lengths(&self, row: usize) -> impl Iterator<Item = u32> {
        self.row(row).map(|cell| u32::try_from(cell.len()).unwrap_or(u32::MAX))
    }
}

/// A product group that passed cleaning, with its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its id.
    pub id: RecordId,
    /// Its display name (the source's `number` field).
    pub name: String,
    /// Index of its parent in [`Catalogue::groups`]; none for a root.
    pub parent: Option<usize>,
    /// Depth in the tree, 1 = top.
    pub layer: u32,
    /// The names from the root down to this group, joined by `/`.
    pub path: String,
}

/// Everything that one consistent read found, cleaned.
///
/// Groups stand in tree order (a parent before its children, siblings as the source lists them).
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// The groups.
    pub groups: Vec<Group>,
    /// The groups' fields that the pipeline names, one row per group.
    pub group_cells: Table,
    /// The products' fields that the pipeline names; column 0 is the product's id, column 1 its name as raw JSON. Two
    /// more columns, [`PRODUCT_EXTRA_COLUMNS`], are for the cache: the group's id, and the row's status.
    pub product_cells: Arc<Table>,
    /// The group of each row of `product_cells`, or [`NO_GROUP`], or [`REPLACED`].
    pub product_group: Vec<u32>,
    /// The products of each group, as row numbers of `product_cells` in the order of their ids; empty where each product
    /// is a row of its own, which takes them as they stand in the table.
    pub products_of: Vec<Vec<u32>>,
    /// Rows that cannot go through.
    pub rejected: Vec<Rejected>,
    /// Ids of groups (or products) that exist at the source but are in the quarantine: they are not deleted at the target.
    pub held: Vec<RecordId>,
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted_products: u64,
    /// The source's own time when the read began (`YYYY-MM-DD HH:mm:ss`, as it says it), if products came in more than one page.
    pub read_began: Option<String>,
    /// The total of products that the source gave.
    pub source_total: u64,
    /// Whether all products were read, rather than those that changed.
    pub full_read: bool,
    /// The source's own time from which the next read may go on; none where `product_cells` is no use as a cache.
    pub cursor: Option<String>,
    /// Products that differ from the cache (all of them where there was none).
    pub fresh_products: u64,
    /// Whether the cache should be kept anew: something changed, or the next read would repeat pages.
    pub worth_keeping: bool,
    /// Time spent on parsing and cleaning.
    pub cleaned_in: std::time::Duration,
}

impl Catalogue {
    /// Number of products that passed cleaning.
    pub(crate) fn product_count(&self) -> usize {
        self.product_group.iter().filter(|group| is_group(**group)).count()
    }
}

/// The group of a row that is no product: marked as deleted, or rejected.
pub(crate) const NO_GROUP: u32 = u32::MAX;
/// The group of a row that is no longer there: a later one has its id.
pub(crate) const REPLACED: u32 = u32::MAX - 1;

/// Whether it is the place of a group, and not a mark.
pub(crate) fn is_group(group: u32) -> bool {
    group < REPLACED
}

/// Product column: the id, decoded.
pub(crate) const PRODUCT_ID_COLUMN: usize = 0;
/// Product column: the name, raw JSON.
pub(crate) const PRODUCT_NAME_COLUMN: usize = 1;

/// Columns at the end of a product's row that the pipeline does not name.
pub(crate) const PRODUCT_EXTRA_COLUMNS: usize = 2;

/// Orders ids as people do: shorter numbers first, then by text.
pub(crate) fn id_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The hash of an id, the same in every process.
pub(crate) fn id_hash(id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes())
}

/// A value for a message: cut at 60 characters, on one line, in quotes.
pub(crate) fn short(text: &str) -> String {
    let mut cut: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("\"{cut}\"")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_gives_back_what_was_put_in_and_nothing_for_what_was_not() {
        let mut table = Table::new(3);
        table.push(["7", "\"手机\"", "2999.10"]).unwrap();
        table.push(["8"]).unwrap();
        assert_eq!(table.len(), 2);
        assert_eq!(table.cell(0, 1), "\"手机\"");
        assert_eq!(table.cell(0, 2), "2999.10");
        assert_eq!((table.cell(1, 0), table.cell(1, 2)), ("8", ""));
        assert_eq!(table.cell(9, 9), "");
    }

    #[test]
    fn ids_are_ordered_as_numbers_without_being_numbers() {
        let mut ids = vec!["10", "9", "001", "9007199254740993"];
        ids.sort_by(|a, b| id_order(a, b));
        assert_eq!(ids, ["9", "10", "001", "9007199254740993"]);
    }
}
