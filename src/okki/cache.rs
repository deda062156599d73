//! The products of the last read in compact form, to which the next one adds what changed. Pure; `sync` stores it.
//!
//! It is the catalogue's own table of cells with two columns more, written as it stands in memory. It is only ever a
//! shortcut: one that cannot be read, or that another pipeline made, means a full read and nothing worse.

use std::collections::HashSet;
use std::time::Duration;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use crate::model::{PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Table};

const FORMAT_NAME: &str = "okki-sync products";
const FORMAT_VERSION: u32 = 1;
/// The source's clock counts seconds and its rows become visible when they like: so much is read twice.
const OVERLAP: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Status of a row that the source marks as deleted.
pub const DELETED: &str = "-";
/// Start of the status of a row that was rejected; its raw JSON follows.
pub const REJECTED: &str = "!";

/// Where the cache of a connection stands in the store.
pub fn path(connection: &str) -> String {
    format!("state/{connection}.products")
}

/// The products of an earlier read.
#[derive(Debug)]
pub struct Cache {
    /// The source's own time when that read began.
    pub cursor: String,
    /// When products were last read in full, wall-clock milliseconds.
    pub full_read_at_ms: u64,
    /// Cells as in [`crate::model::Catalogue::product_cells`].
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
    text_bytes: usize,
    checksum: String,
}

/// Writes a cache: a header line, the cells' text, and where each ends (32 bits, little endian).
pub fn to_bytes(key: &str, cursor: &str, full_read_at_ms: u64, table: &Table) -> Vec<u8> {
    let (text, ends) = table.parts();
    let mut header = Header {
        format: FORMAT_NAME.to_owned(),
        version: FORMAT_VERSION,
        key: key.to_owned(),
        cursor: cursor.to_owned(),
        full_read_at_ms,
        width: table.width(),
        text_bytes: text.len(),
        checksum: String::new(),
    };
    let mut body = Vec::with_capacity(text.len() + ends.len() * 4);
    body.extend_from_slice(text.as_bytes());
    body.extend(ends.iter().flat_map(|end| end.to_le_bytes()));
    header.checksum = checksum(&header, &body);
    let mut bytes = serde_json::to_vec(&header).unwrap_or_default();
    bytes.push(b'\n');
    bytes.append(&mut body);
    bytes
}

fn checksum(header: &Header, body: &[u8]) -> String {
    let seed = xxhash_rust::xxh3::xxh3_64(
        format!("{} {} {} {}", header.key, header.cursor, header.full_read_at_ms, header.width).as_bytes(),
    );
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128_with_seed(body, seed))
}

impl Cache {
    /// Reads a cache; an error says why it is of no use.
    pub fn from_bytes(bytes: &[u8], key: &str) -> Result<Self, &'static str> {
        let line = bytes.iter().position(|byte| *byte == b'\n').ok_or("it is damaged")?;
        let (first, body) = bytes.split_at(line);
        let header: Header = serde_json::from_slice(first).map_err(|_| "it is damaged")?;
        if (header.format.as_str(), header.version) != (FORMAT_NAME, FORMAT_VERSION) {
            return Err("another version of the program wrote it");
        }
        if header.key != key {
            return Err("it was made for other fields or another source");
        }
        let body = body.get(1..).unwrap_or_default();
        if checksum(&header, body) != header.checksum {
            return Err("it is damaged");
        }
        let (text, ends) = body.split_at_checked(header.text_bytes).ok_or("it is damaged")?;
        let text = String::from_utf8(text.to_vec()).map_err(|_| "it is damaged")?;
        let ends = ends.chunks_exact(4).map(|end| end.try_into().map_or(0, u32::from_le_bytes)).collect();
        let table = Table::of_parts(header.width, text, ends).ok_or("it is damaged")?;
        Ok(Self { cursor: header.cursor, full_read_at_ms: header.full_read_at_ms, table })
    }

    /// Whether it is time for a full read.
    pub fn is_older_than(&self, age: Duration, now_ms: u64) -> bool {
        // A cache from the future is a clock that was set back.
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.full_read_at_ms > now_ms || now_ms - self.full_read_at_ms >= age_ms
    }

    /// From when on changes are asked for, in the source's own time; none if its clock speaks otherwise than documented.
    pub fn changes_since(&self) -> Option<String> {
        let began = jiff::civil::DateTime::strptime(TIME_FORMAT, &self.cursor).ok()?;
        Some(began.checked_sub(OVERLAP).ok()?.strftime(TIME_FORMAT).to_string())
    }

    /// The rows whose ids are among these.
    pub fn rows_only<'a>(&'a self, ids: &'a HashSet<CompactString>) -> impl Iterator<Item = CachedRow<'a>> {
        (0..self.table.len())
            .map(|at| CachedRow { table: &self.table, at })
            .filter(|row| ids.contains(row.cell(PRODUCT_ID_COLUMN)))
    }

    /// The rows whose ids are not among these.
    pub fn rows_except<'a>(&'a self, ids: &'a HashSet<CompactString>) -> impl Iterator<Item = CachedRow<'a>> {
        (0..self.table.len())
            .map(|at| CachedRow { table: &self.table, at })
            .filter(|row| !ids.contains(row.cell(PRODUCT_ID_COLUMN)))
    }
}

/// One row of a cache.
#[derive(Clone, Copy)]
pub struct CachedRow<'a> {
    table: &'a Table,
    at: usize,
}

impl<'a> CachedRow<'a> {
    /// One of its cells.
    pub fn cell(self, column: usize) -> &'a str {
        self.table.cell(self.at, column)
    }

    /// All of its cells, the two extra ones included.
    pub fn cells(self) -> impl Iterator<Item = &'a str> {
        self.table.row(self.at)
    }

    /// The group that it names, and its status.
    pub fn group_and_status(self) -> (&'a str, &'a str) {
        let own = self.table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
        (self.cell(own), self.cell(own + 1))
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

    #[test]
    fn a_cache_comes_back_as_it_was_saved_and_every_changed_or_missing_byte_is_noticed() {
        let bytes = to_bytes("k", "2026-11-23 10:00:00", 5, &table());
        let cache = Cache::from_bytes(&bytes, "k").unwrap();
        assert_eq!(
            (cache.cursor.as_str(), cache.full_read_at_ms, cache.table.len()),
            ("2026-11-23 10:00:00", 5, 2)
        );
        let left: Vec<_> =
            cache.rows_except(&["7".into()].into()).map(|row| row.cell(0).to_owned()).collect();
        assert_eq!(left, ["8"]);
        assert_eq!(cache.rows_except(&HashSet::new()).next().unwrap().group_and_status(), ("1", ""));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Cache::from_bytes(&damaged, "k").is_err(), "byte {at} changed");
            assert!(Cache::from_bytes(&bytes[..at], "k").is_err(), "cut at {at}");
        }
        assert!(Cache::from_bytes(&bytes, "other").is_err());
    }

    #[test]
    fn changes_are_asked_for_from_a_minute_before_the_last_read_on() {
        let cache = |cursor: &str| Cache { cursor: cursor.to_owned(), full_read_at_ms: 0, table: table() };
        assert_eq!(cache("2026-11-23 00:00:30").changes_since().unwrap(), "2026-11-22 23:59:30");
        assert_eq!(cache("yesterday").changes_since(), None);
        assert!(!cache("").is_older_than(Duration::from_secs(9), 8_999));
        assert!(cache("").is_older_than(Duration::from_secs(9), 9_000));
    }
}
