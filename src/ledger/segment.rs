//! A segment: its file, and the way to one row of it.
//!
//! ```text
//! {"format":"okki-sync ledger","version":1,"connection":"acme","rows":3,"blocks":1,"checksum":"68d4…"}
//! table    for each block: bytes packed (4), bytes unpacked (4), rows (4), XXH3 of the packed bytes (8); little endian
//! index    for each row 8 bytes, sorted: 40 bits of XXH3 of its id, 24 of its block's number
//! blocks   zstd; unpacked, for each row: length of its id, place of the id in the content and 1, or 0, length of its
//!          content (LEB128); the id, if its place is 0; content
//! ```
//!
//! The checksum covers header, table and index; each block has its own in the table.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{MOST_BLOCK_BYTES, Place, place_hash};
use crate::state::{Fingerprint, header};
use crate::testing::Mutant;

const FORMAT_NAME: &str = "okki-sync ledger";
const FORMAT_VERSION: u32 = 1;
/// Bytes of a block in the table.
const TABLE_BYTES: usize = 20;
/// Bytes of a row in the index.
const PLACE_BYTES: usize = 8;
/// No header line is longer; a file without one is damaged.
const MOST_HEADER_BYTES: usize = 1_024;
const DAMAGED: &str = "it is damaged";

/// A block of packed rows.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub packed: Bytes,
    pub raw_bytes: u32,
    pub rows: u32,
    /// XXH3 of the packed bytes.
    pub sum: u64,
}

/// Rows in blocks, with their index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    pub(super) blocks: Vec<Block>,
    pub(super) places: Vec<Place>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    connection: String,
    rows: usize,
    blocks: usize,
    checksum: String,
}

impl Header {
    fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn checksum(&self, table_and_index: &[u8]) -> String {
        let unsigned = Self {
            checksum: String::new(),
            format: self.format.clone(),
            connection: self.connection.clone(),
            ..*self
        };
        header::checksum(&unsigned.line(), [table_and_index])
    }

    /// Bytes of table and index.
    fn head_bytes(&self) -> Option<usize> {
        self.blocks.checked_mul(TABLE_BYTES)?.checked_add(self.rows.checked_mul(PLACE_BYTES)?)
    }
}

impl Segment {
    pub(super) fn new(blocks: Vec<Block>, places: Vec<Place>) -> Self {
        Self { blocks, places }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of its file, but for the header line.
    pub(crate) fn bytes(&self) -> usize {
        let packed: usize = self.blocks.iter().map(|block| block.packed.len()).sum();
        packed + self.blocks.len() * TABLE_BYTES + self.places.len() * PLACE_BYTES
    }

    /// The file, in pieces that share the blocks with this segment.
    pub(crate) fn to_pieces(&self, connection: &str) -> Vec<Bytes> {
        let mut head = Vec::with_capacity(self.blocks.len() * TABLE_BYTES + self.places.len() * PLACE_BYTES);
        for block in &self.blocks {
            let packed = u32::try_from(block.packed.len()).unwrap_or(u32::MAX);
            for number in [packed, block.raw_bytes, block.rows] {
                head.extend_from_slice(&number.to_le_bytes());
            }
            head.extend_from_slice(&block.sum.to_le_bytes());
        }
        for place in &self.places {
            head.extend_from_slice(&place.0.to_le_bytes());
        }
        let mut header = Header {
            format: FORMAT_NAME.to_owned(),
            version: FORMAT_VERSION,
            connection: connection.to_owned(),
            rows: self.places.len(),
            blocks: self.blocks.len(),
            checksum: String::new(),
        };
        header.checksum = header.checksum(&head);
        let line = header.line() + "\n";
        let blocks = self.blocks.iter().map(|block| block.packed.clone());
        [Bytes::from(line), Bytes::from(head)].into_iter().chain(blocks).collect()
    }

    /// Reads a whole file. The error says why it cannot be used.
    pub(crate) fn from_bytes(file: &Bytes, connection: &str) -> Result<Self, &'static str> {
        let head = match Head::read(file, connection)? {
            Needs::Nothing(head) => head,
            Needs::Bytes(_) => return Err(DAMAGED),
        };
        let mut blocks = Vec::with_capacity(head.blocks.len());
        for number in 0..head.blocks.len() {
            let range = head.range(number).ok_or(DAMAGED)?;
            if range.end > file.len() {
                return Err(DAMAGED);
            }
            let packed = file.slice(range);
            let known = head.blocks.get(number).ok_or(DAMAGED)?;
            if xxh3_64(&packed) != known.sum {
                return Err(DAMAGED);
            }
            blocks.push(Block { packed, raw_bytes: known.raw_bytes, rows: known.rows, sum: known.sum });
        }
        Ok(Self { blocks, places: head.places })
    }

    /// The acknowledged content of a row, if the segment has it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn find(&self, id: &str, acknowledged: Fingerprint) -> Option<Bytes> {
        let number = block_of(&self.places, id)?;
        let block = self.blocks.get(number)?;
        let mut found = None;
        let _ = rows_of(&block.packed, block.raw_bytes, |row_id, content| {
            if row_id == id && counts(content, acknowledged) {
                found = Some(Bytes::copy_from_slice(content));
            }
        });
        found
    }

    /// Unpacks all rows, for the fuzz targets.
    #[cfg(feature = "testing")]
    pub(crate) fn unpack(&self) {
        for block in &self.blocks {
            let _ = rows_of(&block.packed, block.raw_bytes, |_, _| {});
        }
    }

    pub(super) fn has(&self, hash: u64) -> bool {
        self.places.binary_search_by_key(&hash, |place| place.hash()).is_ok()
    }
}

/// Whether content is what the target acknowledged.
pub(crate) fn counts(content: &[u8], acknowledged: Fingerprint) -> bool {
    Mutant::BelieveTheLedger.is_active() || Fingerprint::of(content) == acknowledged
}

fn block_of(places: &[Place], id: &str) -> Option<usize> {
    let hash = place_hash(id);
    let at = places.binary_search_by_key(&hash, |place| place.hash()).ok()?;
    places.get(at)?.block()
}

/// Unpacks a block, row by row.
pub(crate) fn rows_of(
    packed: &[u8],
    raw_bytes: u32,
    mut take: impl FnMut(&str, &[u8]),
) -> Result<(), &'static str> {
    let raw_bytes = raw_bytes as usize;
    if raw_bytes > MOST_BLOCK_BYTES {
        return Err(DAMAGED);
    }
    let raw = zstd::bulk::decompress(packed, raw_bytes).map_err(|_| DAMAGED)?;
    let mut rest = raw.as_slice();
    while !rest.is_empty() {
        let id_bytes = read_length(&mut rest).ok_or(DAMAGED)?;
        let place = read_length(&mut rest).ok_or(DAMAGED)?.checked_sub(1);
        let content_bytes = read_length(&mut rest).ok_or(DAMAGED)?;
        let before = if place.is_some() { 0 } else { id_bytes };
        let (id_before, after) = rest.split_at_checked(before).ok_or(DAMAGED)?;
        let (content, after) = after.split_at_checked(content_bytes).ok_or(DAMAGED)?;
        let id = match place {
            // Lengths are below 2^28.
            Some(place) => content.get(place..place + id_bytes).ok_or(DAMAGED)?,
            None => id_before,
        };
        take(std::str::from_utf8(id).map_err(|_| DAMAGED)?, content);
        rest = after;
    }
    Ok(())
}

fn read_length(from: &mut &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for shift in (0..28).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

/// What a file's beginning says: where each row is. The blocks may still be in the store.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) blocks: Vec<BlockPlace>,
    places: Vec<Place>,
}

/// Where a block is.
#[derive(Debug)]
pub(crate) struct BlockPlace {
    /// Its first byte in the file.
    at: usize,
    bytes: usize,
    pub(crate) raw_bytes: u32,
    rows: u32,
    sum: u64,
}

/// What reading a file's beginning came to.
pub(crate) enum Needs {
    Nothing(Head),
    /// This many bytes from the start of the file are needed.
    Bytes(usize),
}

impl Head {
    /// Reads the beginning of a file.
    pub(crate) fn read(start: &[u8], connection: &str) -> Result<Needs, &'static str> {
        let line = start.get(..start.len().min(MOST_HEADER_BYTES)).unwrap_or_default();
        let (line, _) = header::split(line).ok_or(DAMAGED)?;
        let header: Header = serde_json::from_slice(line).map_err(|_| DAMAGED)?;
        if (header.format.as_str(), header.version) != (FORMAT_NAME, FORMAT_VERSION) {
            return Err("another version of the program wrote it");
        }
        if header.connection != connection {
            return Err("it is of another connection");
        }
        let head_at = line.len() + 1;
        let head_end = header.head_bytes().and_then(|bytes| bytes.checked_add(head_at)).ok_or(DAMAGED)?;
        let Some(head) = start.get(head_at..head_end) else { return Ok(Needs::Bytes(head_end)) };
        if header.checksum(head) != header.checksum {
            return Err(DAMAGED);
        }
        let (table, index) = head.split_at(header.blocks * TABLE_BYTES);
        let mut at = head_end;
        let mut blocks = Vec::with_capacity(header.blocks);
        for row in table.chunks_exact(TABLE_BYTES) {
            let block = BlockPlace::read(row, at).ok_or(DAMAGED)?;
            at = at.checked_add(block.bytes).ok_or(DAMAGED)?;
            blocks.push(block);
        }
        let places = index.as_chunks::<PLACE_BYTES>().0.iter().map(|bytes| Place(u64::from_le_bytes(*bytes)));
        let places: Vec<_> = places.collect();
        if !places.is_sorted() {
            return Err(DAMAGED);
        }
        Ok(Needs::Nothing(Self { blocks, places }))
    }

    /// The block that may hold a row, and whether the segment says that the row is gone.
    pub(crate) fn block_of(&self, id: &str) -> Option<usize> {
        block_of(&self.places, id)
    }

    /// The bytes of a block in the file.
    pub(crate) fn range(&self, block: usize) -> Option<Range<usize>> {
        let place = self.blocks.get(block)?;
        Some(place.at..place.at.checked_add(place.bytes)?)
    }

    /// The rows of a block that was read, one by one.
    pub(crate) fn rows(
        &self,
        block: usize,
        packed: &[u8],
        take: impl FnMut(&str, &[u8]),
    ) -> Result<(), &'static str> {
        let place = self.blocks.get(block).filter(|place| place.sum == xxh3_64(packed)).ok_or(DAMAGED)?;
        rows_of(packed, place.raw_bytes, take)
    }
}

impl BlockPlace {
    fn read(row: &[u8], at: usize) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*row.get(at..at + 4)?.first_chunk()?));
        Some(Self {
            at,
            bytes: number(0)? as usize,
            raw_bytes: number(4)?,
            rows: number(8)?,
            sum: u64::from_le_bytes(*row.get(12..20)?.first_chunk()?),
        })
    }
}
