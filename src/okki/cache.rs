//! The products that were read so far in compact form: the checkpoint of a read that goes on, and what the next read
//! adds changes to. Pure; `sync` stores it.
//!
//! The file is the catalogue's table of cells, with two more columns ([`RowStatus`]), written as it is in memory: saving
//! and loading make no second copy of it. The ledger of windows is in its header. A cache that is damaged, or that belongs
//! to another pipeline, is set aside: the source is read anew, and nothing worse.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::products::ProductTable;
use super::windows::{Ledger, times};
use crate::catalogue::{PRODUCT_EXTRA_COLUMNS, Table};
use crate::state::header;
use crate::testing::Mutant;

const FORMAT_NAME: &str = "okki-sync products";
const FORMAT_VERSION: u32 = 3;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Status cell of a row that the source marks as deleted.
const DELETED: &str = "-";
/// Start of the status cell of a rejected row; its raw JSON follows.
const REJECTED: &str = "!";

/// What a read keeps for the next one: the products, and the ledger of their windows.
#[derive(Debug)]
pub(crate) struct Cache {
    pub ledger: Ledger,
    /// As in [`Catalogue::product_cells`](crate::catalogue::Catalogue::product_cells).
    pub table: Table,
    /// The number of the read that found each row.
    pub numbers: Vec<u32>,
    pub offenders: Vec<Offender>,
}

/// A row that takes part in the total and in nothing else: it has no id, or another row has its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Offender {
    /// Of the read that found it.
    pub number: u32,
    /// `None` if it has no id.
    pub id: Option<String>,
    pub raw: String,
}

// An unknown key would be a damaged one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    /// Fingerprint of what the cells depend on: the pipeline's fields and the source.
    key: String,
    width: usize,
    rows: usize,
    text_bytes: usize,
    lengths_bytes: usize,
    ledger: Ledger,
    offenders: Vec<Offender>,
    checksum: String,
}

/// What an older version of the program wrote: products without windows.
#[derive(Deserialize)]
struct HeaderV2 {
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

/// Writes a cache in pieces: a header line, the cells' text, the length of each cell, and the number of each row (both
/// LEB128). Rows that no longer count are left out.
pub(super) fn to_pieces(
    key: &str,
    ledger: &Ledger,
    offenders: &[Offender],
    products: &ProductTable,
) -> Vec<Bytes> {
    let table = products.table();
    let mut lengths = Vec::with_capacity(table.len() * table.width());
    let mut numbers = Vec::with_capacity(table.len());
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut rows = 0;
    for row in (0..table.len()).filter(|row| products.counts(*row)) {
        rows += 1;
        table.lengths(row).for_each(|length| write_length(length, &mut lengths));
        write_length(products.number(row), &mut numbers);
        let place = table.text_range(row);
        match runs.last_mut().filter(|run| run.end == place.start) {
            Some(run) => run.end = place.end,
            None => runs.push(place),
        }
    }
    let text = Bytes::from_owner(TableText(Arc::clone(table)));
    let mut body: Vec<Bytes> = runs.into_iter().map(|run| text.slice(run)).collect();
    let text_bytes = body.iter().map(Bytes::len).sum();
    let lengths_bytes = lengths.len();
    body.extend([Bytes::from(lengths), Bytes::from(numbers)]);
    let mut header = Header {
        format: FORMAT_NAME.to_owned(),
        version: FORMAT_VERSION,
        key: key.to_owned(),
        width: table.width(),
        rows,
        text_bytes,
        lengths_bytes,
        ledger: ledger.clone(),
        offenders: offenders.to_vec(),
        checksum: String::new(),
    };
    header.checksum = checksum(&header, body.iter().map(Bytes::as_ref));
    let mut line = serde_json::to_vec(&header).unwrap_or_default();
    line.push(b'\n');
    body.insert(0, line.into());
    body
}

/// Over the header without its checksum, and the body.
fn checksum<'a>(header: &Header, body: impl Iterator<Item = &'a [u8]>) -> String {
    let head = serde_json::to_string(&(
        (&header.key, header.width, header.rows, header.text_bytes, header.lengths_bytes),
        (&header.ledger, &header.offenders),
    ));
    header::checksum(&head.unwrap_or_default(), body)
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

/// This many numbers and nothing more.
fn read_all(mut bytes: &[u8], count: usize) -> Option<Vec<u32>> {
    // A number takes at least a byte: a damaged header cannot make this reserve more than the file's size.
    let mut numbers = Vec::with_capacity(count.min(bytes.len()));
    while !bytes.is_empty() {
        numbers.push(read_length(&mut bytes)?);
    }
    (numbers.len() == count).then_some(numbers)
}

fn read_ends(lengths: &[u8], cells: usize) -> Option<Vec<u32>> {
    let (mut ends, mut end) = (read_all(lengths, cells)?, 0_u32);
    for length in &mut ends {
        end = end.checked_add(*length)?;
        *length = end;
    }
    Some(ends)
}

const DAMAGED: &str = "it is damaged";

impl Cache {
    /// Reads a cache; the error says why it cannot be used.
    pub(crate) fn from_bytes(bytes: Bytes, key: &str) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Version {
            format: String,
            version: u32,
        }
        let (line, body) = header::split(&bytes).ok_or(DAMAGED)?;
        let version: Version = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        match (version.format.as_str(), version.version) {
            (FORMAT_NAME, 2) => return Self::from_version_2(&bytes, key),
            (FORMAT_NAME, FORMAT_VERSION) => {}
            _ => return Err("another version of the program wrote it"),
        }
        let header: Header = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        if header.key != key && !Mutant::CheckpointOfOtherFields.is_active() {
            return Err("it was made for other fields or another source");
        }
        if checksum(&header, std::iter::once(body)) != header.checksum {
            return Err(DAMAGED);
        }
        let (_, lengths) = body.split_at_checked(header.text_bytes).ok_or(DAMAGED)?;
        let (lengths, numbers) = lengths.split_at_checked(header.lengths_bytes).ok_or(DAMAGED)?;
        let ends = read_ends(lengths, header.rows.saturating_mul(header.width)).ok_or(DAMAGED)?;
        let numbers = read_all(numbers, header.rows).ok_or(DAMAGED)?;
        let place = line.len() + 1..line.len() + 1 + header.text_bytes;
        let table = table_of(bytes, place, header.width, ends).ok_or(DAMAGED)?;
        Ok(Self { ledger: header.ledger, table, numbers, offenders: header.offenders })
    }

    /// Whether even a read that trusts nothing read before goes on from it: it was interrupted, not long ago; or it only
    /// says that this source cannot be read in windows.
    pub(crate) fn goes_on_anyway(&self, now_ms: u64) -> bool {
        let oldest = self.ledger.oldest_read_at_ms().unwrap_or(now_ms);
        let is_fresh = now_ms.saturating_sub(oldest) < DAY_MS;
        (!self.ledger.finished && is_fresh) || self.ledger.whole_because.is_some()
    }

    /// All its rows wait for windows, and its changes go on from where it ended.
    fn from_version_2(bytes: &Bytes, key: &str) -> Result<Self, &'static str> {
        let (line, body) = header::split(bytes).ok_or(DAMAGED)?;
        let old: HeaderV2 = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        if old.key != key {
            return Err("it was made for other fields or another source");
        }
        let HeaderV2 { key, cursor, full_read_at_ms, width, rows, text_bytes, .. } = &old;
        let head = format!("{key} {cursor} {full_read_at_ms} {width} {rows} {text_bytes}");
        if header::checksum(&head, std::iter::once(body)) != old.checksum {
            return Err(DAMAGED);
        }
        let (_, lengths) = body.split_at_checked(old.text_bytes).ok_or(DAMAGED)?;
        let ends = read_ends(lengths, old.rows.saturating_mul(old.width)).ok_or(DAMAGED)?;
        let cursor = times::from_text(&old.cursor).ok_or(DAMAGED)?;
        let place = line.len() + 1..line.len() + 1 + old.text_bytes;
        let table = table_of(bytes.clone(), place, old.width, ends).ok_or(DAMAGED)?;
        let (ledger, number) = Ledger::without_windows(cursor, old.full_read_at_ms);
        Ok(Self { ledger, numbers: vec![number; table.len()], table, offenders: Vec::new() })
    }
}

/// The bytes that were loaded become the table's text.
fn table_of(bytes: Bytes, place: Range<usize>, width: usize, ends: Vec<u32>) -> Option<Table> {
    let mut text = Vec::from(bytes);
    text.truncate(place.end);
    text.drain(..place.start);
    Table::from_parts(width, String::from_utf8(text).ok()?, ends)
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
    use super::super::windows::Window;
    use super::*;
    use crate::catalogue::GroupRef;

    fn products(rows: &[GroupRef]) -> ProductTable {
        let mut products = ProductTable::new(4);
        for (group, (number, id)) in rows.iter().zip([(1, "7"), (300, "8")]) {
            let status = if id == "7" { RowStatus::InGroup("1") } else { RowStatus::Deleted };
            products.push(id, *group, number, [id, "\"手机\""].into_iter(), status).unwrap();
        }
        products
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        (ledger.complete, ledger.changes_from) = (true, Some(1_000));
        let number = ledger.number();
        ledger.insert(Window { number, from: 0, to: 9, rows: 2, read_at_ms: 5, sure: true });
        ledger
    }

    fn offender() -> Offender {
        Offender { number: 1, id: Some("7".to_owned()), raw: "{\"product_id\":7}".to_owned() }
    }

    fn saved(rows: &[GroupRef]) -> Vec<u8> {
        to_pieces("k", &ledger(), &[offender()], &products(rows)).concat()
    }

    fn loaded(bytes: &[u8]) -> Result<Cache, &'static str> {
        Cache::from_bytes(Bytes::copy_from_slice(bytes), "k")
    }

    #[test]
    fn a_cache_is_loaded_as_it_was_saved_and_every_changed_byte_is_noticed() {
        let bytes = saved(&[GroupRef::new(0), GroupRef::DELETED]);
        let cache = loaded(&bytes).unwrap();
        assert_eq!((&cache.ledger, &cache.offenders), (&ledger(), &vec![offender()]));
        assert_eq!(cache.numbers, [1, 300]);
        assert_eq!(cache.table.row(0).collect::<Vec<_>>(), ["7", "\"手机\"", "1", ""]);
        assert_eq!(RowStatus::from_table(&cache.table, 0), RowStatus::InGroup("1"));
        assert_eq!(RowStatus::from_table(&cache.table, 1), RowStatus::Deleted);
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
        let cache = loaded(&saved(&[GroupRef::REPLACED, GroupRef::DELETED])).unwrap();
        assert_eq!(cache.table.cell(0, 0), "8");
        assert_eq!((cache.table.len(), cache.numbers.as_slice()), (1, &[300][..]));
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
        assert_eq!(read_ends(&[1, 2, 3], 3), Some(vec![1, 3, 6]));
    }
}
