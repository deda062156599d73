//! The row ledger: what the target has acknowledged, as content, packed. Pure; `sync` stores it.
//!
//! The state has a fingerprint for each row; the ledger has the bytes that the fingerprint is of. It proves itself:
//! content counts only if its fingerprint is the state's (`segment::counts` asks for it). So the ledger is never ahead
//! of the target, the order in which the two are saved does not matter, and whatever is lost, damaged or left over from
//! another time makes a former value unknown, never wrong.
//!
//! - **A change of one row does not rewrite 200,000.** What a run acknowledged is a segment. Segments lie in three
//!   [`Slot`]s, and move on into the next one when they grow: see `sync/ledger.rs`.
//! - **One row does not unpack 200,000.** Rows are packed in blocks of 64 KiB; an index of 8 bytes a row says which
//!   block may have it. Header, table and index come first, so that the rest is read block by block.
//! - **A first sync does not pay for order.** Blocks hold rows as they came: sorting would pack every row twice. A merge
//!   takes blocks over as they are, and repacks only small ones and those of which less than half counts.
//!
//! Deliberately absent: fingerprints (the state has them) and the history of a row (the files of changes have it).

mod build;
mod merge;
mod segment;

pub(crate) use build::Builder;
pub(crate) use merge::merge;
#[cfg(feature = "testing")]
pub(crate) use segment::rows_of;
pub(crate) use segment::{Head, Needs, Segment, counts};

use crate::catalogue::id_hash;

/// Rows of a block before they are packed; a larger row has a block of its own.
const BLOCK_BYTES: usize = 64 * 1024;
/// Packs 200,000 products of 174 bytes to 38 each in 47 ms; level 1 packs them to 27, and takes 61.
const LEVEL: i32 = -3;
/// A block that unpacks to more is damaged: no target takes such a row, and a function has little more memory than that.
const MOST_BLOCK_BYTES: usize = 64 << 20;

/// Where a segment lies, from the newest rows to the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// What the last runs changed; every run that changes rows writes it anew.
    Latest,
    /// What did not fit there any more.
    Recent,
    /// All the rest.
    Main,
}

impl Slot {
    /// From the newest rows to the oldest.
    pub(crate) const ALL: [Self; 3] = [Self::Latest, Self::Recent, Self::Main];

    /// A larger segment moves on into the next slot.
    pub(crate) fn most_bytes(self) -> usize {
        match self {
            Self::Latest => 256 * 1024,
            Self::Recent => 2 * 1024 * 1024,
            Self::Main => usize::MAX,
        }
    }
}

/// A row's place: 40 bits of its id's hash, then 24 of its block's number. Sorted, they are the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    const BLOCK_BITS: u32 = 24;
    /// The row is gone: it has no block, and hides those of older segments.
    const GONE: u64 = (1 << Self::BLOCK_BITS) - 1;

    fn new(hash: u64, block: usize) -> Self {
        Self(hash << Self::BLOCK_BITS | (block as u64).min(Self::GONE))
    }

    fn gone(hash: u64) -> Self {
        Self(hash << Self::BLOCK_BITS | Self::GONE)
    }

    fn hash(self) -> u64 {
        self.0 >> Self::BLOCK_BITS
    }

    /// `None` if the row is gone.
    fn block(self) -> Option<usize> {
        let block = self.0 & Self::GONE;
        (block != Self::GONE).then_some(usize::try_from(block).unwrap_or(usize::MAX))
    }
}

/// Two ids with one hash share a place: at 200,000 rows once in fifty ledgers, and then one of them is not known.
fn place_hash(id: &str) -> u64 {
    id_hash(id) >> Place::BLOCK_BITS
}
