//! The products of the last read in compact form, to which the next read adds what changed. Pure; `sync` stores it.
//!
//! The file is the catalogue's table of cells, with two more columns ([`RowStatus`]), written as it is in memory: saving
//! and loading make no second copy of it. It is only a shortcut: a cache that is damaged, or that belongs to another
//! pipeline, means a full read and nothing worse.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Table};
use crate::state::header;

const FORMAT_NAME: &str = "okki-sync products";
const FORMAT_VERSION: u32 = 2;
/// The source's clock counts seconds, and a row may become visible later than its time says: changes are read from this
/// long before the last read on.
const OVERLAP: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Status cell of a row that the source marks as deleted.
const DELETED: &str = "-";
/// Start of the status cell of a rejected row; its raw JSON follows.
const REJECTED: &str = "!";

#[derive(Debug)]
pub(crate) struct Cache {
    /// The source's own time when that read began.
    pub cursor: String,
    /// When products were last read in full, wall-clock milliseconds.
    pub full_read_at_ms: u64,
    /// As in [`Catalogue::product_cells`].
    pub table: Table,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    /// Fingerprint of what the cells depend on: the pipeline's fields and the source.
    key: String,
    cursor: String,
    full_read_at_ms: u64,
    width: usize,
    rows: usize,
    text_bytes: usize,
    checksum: String,
}

/// The text of a shared table.
struct TableText(Arc<Table>);

impl AsRef<[u8]> for TableText {
    fn as_ref(&self) -> &[u8] {
        self.0.parts().0.as_bytes()
    }
}

/// Writes a cache in pieces: a header line, the cells' text, and the length of each cell (LEB128).
pub(crate) fn to_pieces(key: &str, cursor: &str, full_read_at_ms: u64, catalogue: &Catalogue) -> Vec<Bytes> {
    let table = &catalogue.product_cells;
    let mut lengths = Vec::with_capacity(table.len() * table.width());
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut rows = 0;
    let is_there = |row: &usize| catalogue.product_groups.get(*row) != Some(&GroupRef::REPLACED);
    for row in (0..table.len()).filter(is_there) {
        rows += 1;
        table.lengths(row).for_each(|length| write_length(length, &mut lengths));
        let place = table.text_range(row);
        match runs.last_mut().filter(|run| run.end == place.start) {
            Some(run) => run.end = place.end,
            None => runs.push(place),
        }
    }
    let text = Bytes::from_owner(TableText(Arc::clone(table)));
    let mut body: Vec<Bytes> = runs.into_iter().map(|run| text.slice(run)).collect();
    let text_bytes = body.iter().map(Bytes::len).sum();
    body.push(lengths.into());
    let mut header = Header {
        format: FORMAT_NAME.to_owned(),
        version: FORMAT_VERSION,
        key: key.to_owned(),
        cursor: cursor.to_owned(),
        full_read_at_ms,
        width: table.width(),
        rows,
        text_bytes,
        checksum: String::new(),
    };
    header.checksum = checksum(&header, body.iter().map(Bytes::as_ref));
    let mut line = serde_json::to_vec(&header).unwrap_or_default();
    line.push(b'\n');
    body.insert(0, line.into());
    body
}

fn checksum<'a>(header: &Header, body: impl Iterator<Item = &'a [u8]>) -> String {
    let Header { key, cursor, full_read_at_ms, width, rows, text_bytes, .. } = header;
    let head = format!("{key} {cursor} {full_read_at_ms} {width} {rows} {text_bytes}");
    header::checksum(&head, body)
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits are cut out on purpose")]
fn write_length(mut length: u32, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn read_length(bytes: &mut &[u8]) -> Option<u32> {
    let mut length = 0_u32;
    for shift in (0..32).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(length);
        }
    }
    None
}

fn read_ends(mut lengths: &[u8], cells: usize) -> Option<Vec<u32>> {
    // A cell's length takes at least a byte: a damaged header cannot make this reserve more than the file's size.
    let mut ends = Vec::with_capacity(cells.min(lengths.len()));
    let mut end = 0_u32;
    while !lengths.is_empty() {
        end = end.checked_add(read_length(&mut lengths)?)?;
        ends.push(end);
    }
    (ends.len() == cells).then_some(ends)
}

impl Cache {
    /// Reads a cache; the error says why it cannot be used.
    pub(crate) fn from_bytes(bytes: Bytes, key: &str) -> Result<Self, &'static str> {
        const DAMAGED: &str = "it is damaged";
        let (line, body) = header::split(&bytes).ok_or(DAMAGED)?;
        let header: Header = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        if (header.format.as_str(), header.version) != (FORMAT_NAME, FORMAT_VERSION) {
            return Err("another version of the program wrote it");
        }
        if header.key != key {
            return Err("it was made for other fields or another source");
        }
        if checksum(&header, std::iter::once(body)) != header.checksum {
            return Err(DAMAGED);
        }
        let (_, lengths) = body.split_at_checked(header.text_bytes).ok_or(DAMAGED)?;
        let ends = read_ends(lengths, header.rows.saturating_mul(header.width)).ok_or(DAMAGED)?;
        // The bytes that were loaded become the table's text.
        let body_at = line.len() + 1;
        let mut text = Vec::from(bytes);
        text.truncate(body_at + header.text_bytes);
        text.drain(..body_at);
        let text = String::from_utf8(text).map_err(|_| DAMAGED)?;
        let table = Table::from_parts(header.width, text, ends).ok_or(DAMAGED)?;
        Ok(Self { cursor: header.cursor, full_read_at_ms: header.full_read_at_ms, table })
    }

    /// Whether it is time for a full read.
    pub(crate) fn is_older_than(&self, age: Duration, now_ms: u64) -> bool {
        // A cache from the future means that the clock was set back.
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.full_read_at_ms > now_ms || now_ms - self.full_read_at_ms >= age_ms
    }

    /// From when on changes are asked for, in the source's own time; `None` if the cursor is not in its time format.
    pub(crate) fn changes_since(&self) -> Option<String> {
        let began = jiff::civil::DateTime::strptime(TIME_FORMAT, &self.cursor).ok()?;
        Some(began.checked_sub(OVERLAP).ok()?.strftime(TIME_FORMAT).to_string())
    }

    /// The rows whose ids are among these, in ascending order.
    pub(super) fn rows_with(&self, ids: &HashSet<CompactString>) -> Vec<usize> {
        if ids.is_empty() {
            return Vec::new();
        }
        let id = |row| self.table.cell(row, PRODUCT_ID_COLUMN);
        (0..self.table.len()).filter(|row| ids.contains(id(*row))).collect()
    }
}

/// What the last two columns of the products' table say: where the row went at the last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowStatus<'a> {
    /// The group that the row names.
    InGroup(&'a str),
    /// The source marks the row as deleted.
    Deleted,
    /// The row's raw JSON: a later read may find what is missing, for example its group.
    Rejected(&'a str),
}

impl<'a> RowStatus<'a> {
    pub(super) fn from_table(table: &'a Table, row: usize) -> Self {
        let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
        let (group, status) = (table.cell(row, named), table.cell(row, named + 1));
        match status.strip_prefix(REJECTED) {
            Some(raw) => Self::Rejected(raw),
            None if status == DELETED => Self::Deleted,
            None => Self::InGroup(group),
        }
    }

    /// The cells of the last two columns.
    pub(super) fn to_cells(self) -> (&'a str, Cow<'a, str>) {
        match self {
            Self::InGroup(group) => (group, Cow::Borrowed("")),
            Self::Deleted => ("", Cow::Borrowed(DELETED)),
            Self::Rejected(raw) => ("", Cow::Owned(format!("{REJECTED}{raw}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(4);
        table.push(["7", "\"手机\"", "1", ""]).unwrap();
        table.push(["8", "", "", DELETED]).unwrap();
        table
    }

    fn catalogue(product_groups: Vec<GroupRef>) -> Catalogue {
        Catalogue { product_cells: table().into(), product_groups, ..Catalogue::default() }
    }

    fn saved(catalogue: &Catalogue) -> Vec<u8> {
        to_pieces("k", "2026-11-23 10:00:00", 5, catalogue).concat()
    }

    fn loaded(bytes: &[u8]) -> Result<Cache, &'static str> {
        Cache::from_bytes(Bytes::copy_from_slice(bytes), "k")
    }

    #[test]
    fn a_cache_is_loaded_as_it_was_saved_and_every_changed_byte_is_noticed() {
        let bytes = saved(&catalogue(vec![GroupRef::new(0), GroupRef::DELETED]));
        let cache = loaded(&bytes).unwrap();
        assert_eq!((cache.cursor.as_str(), cache.full_read_at_ms), ("2026-11-23 10:00:00", 5));
        assert_eq!(cache.table.parts(), table().parts());
        assert_eq!(RowStatus::from_table(&cache.table, 0), RowStatus::InGroup("1"));
        assert_eq!(RowStatus::from_table(&cache.table, 1), RowStatus::Deleted);
        assert_eq!(cache.rows_with(&["7".into()].into()), [0]);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(loaded(&damaged).is_err(), "byte {at} changed");
            assert!(loaded(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(Cache::from_bytes(bytes.into(), "other").is_err());
    }

    #[test]
    fn a_replaced_row_is_not_saved() {
        let cache = loaded(&saved(&catalogue(vec![GroupRef::REPLACED, GroupRef::DELETED]))).unwrap();
        assert_eq!(cache.table.row(0).collect::<Vec<_>>(), ["8", "", "", DELETED]);
        assert_eq!(cache.table.len(), 1);
    }

    #[test]
    fn each_status_is_read_as_it_was_written() {
        for status in [RowStatus::InGroup("1"), RowStatus::Deleted, RowStatus::Rejected("{}")] {
            let mut table = Table::new(PRODUCT_EXTRA_COLUMNS);
            let (group, text) = status.to_cells();
            table.push([group, &text]).unwrap();
            assert_eq!(RowStatus::from_table(&table, 0), status);
        }
    }

    #[test]
    fn lengths_of_every_size_are_read_as_written() {
        let (sizes, mut bytes) = ([0, 1, 127, 128, 16_383, 16_384, u32::MAX], Vec::new());
        sizes.into_iter().for_each(|length| write_length(length, &mut bytes));
        let mut rest = bytes.as_slice();
        assert_eq!(sizes.map(|_| read_length(&mut rest).unwrap()), sizes);
        assert_eq!(read_length(&mut &[0x80_u8, 0x80][..]), None);
        assert_eq!(read_ends(&[1, 2, 3], 2), None);
    }

    #[test]
    fn changes_are_asked_for_from_a_minute_before_the_last_read() {
        let cache = |cursor: &str| Cache { cursor: cursor.to_owned(), full_read_at_ms: 0, table: table() };
        assert_eq!(cache("2026-11-23 00:00:30").changes_since().unwrap(), "2026-11-22 23:59:30");
        assert_eq!(cache("yesterday").changes_since(), None);
        assert!(!cache("").is_older_than(Duration::from_secs(9), 8_999));
        assert!(cache("").is_older_than(Duration::from_secs(9), 9_000));
    }
}
