//! Rows become blocks, as they come.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::Compressor;

use super::segment::{Block, Segment};
use super::{BLOCK_BYTES, LEVEL, Place, place_hash};

/// An id is looked for in so many first bytes of its row.
const ID_WITHIN: usize = 64;

/// Collects rows for a segment. It holds them packed, but for the last block.
#[derive(Default)]
pub(crate) struct Builder {
    raw: Vec<u8>,
    rows: u32,
    blocks: Vec<Block>,
    places: Vec<Place>,
    /// Where the last row had its id.
    id_at: usize,
    packer: Option<Compressor<'static>>,
    room: Vec<u8>,
}

impl Builder {
    /// Adds a row; of an id that comes twice the later one counts.
    pub(crate) fn add(&mut self, id: &str, content: &[u8]) {
        let bytes = id.len() + content.len();
        if !self.raw.is_empty() && self.raw.len() + bytes > BLOCK_BYTES {
            self.end_block();
        }
        let place = self.place_of_id(id, content);
        write_length(id.len(), &mut self.raw);
        write_length(place.map_or(0, |place| place + 1), &mut self.raw);
        write_length(content.len(), &mut self.raw);
        if place.is_none() {
            self.raw.extend_from_slice(id.as_bytes());
        }
        self.raw.extend_from_slice(content);
        self.rows += 1;
        self.places.push(Place::new(place_hash(id), self.blocks.len()));
    }

    /// Where a row has its id, so that it is not packed twice: that takes an eighth of the time. Mostly it is where the
    /// row before had its own.
    fn place_of_id(&mut self, id: &str, content: &[u8]) -> Option<usize> {
        let is_at = |place: usize| content.get(place..place + id.len()) == Some(id.as_bytes());
        if !is_at(self.id_at) {
            self.id_at = (0..=ID_WITHIN).find(|place| is_at(*place))?;
        }
        Some(self.id_at)
    }

    /// Notes that a row is gone.
    pub(crate) fn forget(&mut self, id: &str) {
        self.places.push(Place::gone(place_hash(id)));
    }

    /// Takes over a place that is gone, or one whose block was taken over by [`Self::take_block`].
    pub(super) fn place(&mut self, hash: u64, block: Option<usize>) {
        self.places.push(block.map_or(Place::gone(hash), |block| Place::new(hash, block)));
    }

    /// Takes over a block as it is, and returns its number.
    pub(super) fn take_block(&mut self, block: Block) -> usize {
        self.end_block();
        self.blocks.push(block);
        self.blocks.len() - 1
    }

    fn end_block(&mut self) {
        if self.raw.is_empty() {
            return;
        }
        let packed = self.pack().unwrap_or_default();
        self.blocks.push(Block {
            raw_bytes: u32::try_from(self.raw.len()).unwrap_or(u32::MAX),
            rows: std::mem::take(&mut self.rows),
            sum: xxh3_64(&packed),
            packed,
        });
        self.raw.clear();
    }

    /// An exact copy: the packer's room is as large as the worst case.
    fn pack(&mut self) -> std::io::Result<Bytes> {
        let packer = match &mut self.packer {
            Some(packer) => packer,
            none => none.insert(Compressor::new(LEVEL)?),
        };
        self.room.clear();
        self.room.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        let bytes = packer.compress_to_buffer(&self.raw, &mut self.room)?;
        Ok(Bytes::copy_from_slice(self.room.get(..bytes).unwrap_or_default()))
    }

    /// The segment of all rows so far; the builder is empty afterwards.
    pub(crate) fn finish(&mut self) -> Segment {
        self.end_block();
        self.packer = None;
        let mut places = std::mem::take(&mut self.places);
        // The last block of a hash is the newest; a row that is gone is newer than all.
        places.sort_unstable();
        places.dedup_by(|newer, kept| {
            let is_same = newer.hash() == kept.hash();
            if is_same {
                *kept = *newer;
            }
            is_same
        });
        Segment::new(std::mem::take(&mut self.blocks), places)
    }
}

/// LEB128: seven bits a byte, the lowest first.
fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}
