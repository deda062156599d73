//! The digest of a plan: the same for the same pending rows, on every machine and in whatever order they were read.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::{Action, Plan, RowWriter};
use crate::catalogue::Catalogue;
use crate::state::{Fingerprint, State};
use crate::transform::{Former, RowMap};
use crate::words::{Message, Words, say};

/// Digits of the hash.
const HASH_DIGITS: usize = 32;

/// What a plan would do, in a few characters: `3-5-1-` and a hash of the rows.
///
/// The hash covers each pending row: its id, what is done with it, its new content, and what the target had acknowledged.
/// The counts stand before it, so that a refusal can say what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    create: u64,
    update: u64,
    delete: u64,
    hash: u128,
}

impl Digest {
    /// Reads a digest as `plan` prints it.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// How another plan differs from the one of this digest, in words.
    pub(crate) fn difference(&self, now: &Self) -> Message {
        let counts = |digest: &Self| {
            let Self { create, update, delete, .. } = digest;
            say!("{create} to create, {update} to update, {delete} to delete", create, update, delete)
        };
        let (then, now) = (counts(self), counts(now));
        if then == now {
            say!("{now}, as approved, but other rows or other content", now)
        } else {
            say!("approved: {then}; now: {now}", then, now)
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { create, update, delete, hash } = self;
        write!(f, "{create}-{update}-{delete}-{hash:032x}")
    }
}

/// A text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoDigest;

impl Words for NoDigest {
    fn words(&self) -> Message {
        say!(
            "is not the digest of a plan; copy it from okki-sync plan, for example \
             3-5-1-0123456789abcdef0123456789abcdef"
        )
    }
}

impl fmt::Display for NoDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())
    }
}

impl std::error::Error for NoDigest {}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let parts: Vec<&str> = text.split('-').collect();
        let [create, update, delete, hash] = parts.as_slice() else { return Err(NoDigest) };
        let count = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_number).ok_or(NoDigest)
        };
        let is_hash =
            hash.len() == HASH_DIGITS && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = u128::from_str_radix(hash, 16).ok().filter(|_| is_hash).ok_or(NoDigest)?;
        Ok(Self { create: count(create)?, update: count(update)?, delete: count(delete)?, hash })
    }
}

impl Plan {
    /// The digest of the pending rows. `state` and `former` are what the plan was made against.
    pub(crate) fn digest(
        &self,
        map: &RowMap,
        catalogue: &Catalogue,
        (state, former): (&State, Option<&dyn Former>),
    ) -> Digest {
        let mut writer = RowWriter::new(map, catalogue, former);
        let mut hash = 0_u128;
        let (mut row, mut text) = (Vec::new(), Vec::new());
        for change in self.pending(catalogue) {
            row.clear();
            // A row that cannot be written after all is left out by the sync too.
            if writer.write(change.row, change.id, &mut row).is_err() {
                continue;
            }
            text.clear();
            text.extend_from_slice(match change.action {
                Action::Create => b"+",
                Action::Delete => b"-",
                _ => b"*",
            });
            text.extend_from_slice(Fingerprint::of(&row).text().as_bytes());
            text.extend_from_slice(format!(" {:?} ", state.rows.get(change.id)).as_bytes());
            text.extend_from_slice(change.id.as_bytes());
            // A sum does not know an order; each part is a hash, so no two sums are alike by accident.
            hash = hash.wrapping_add(xxh3_128_with_seed(&text, xxh3_64(change.id.as_bytes())));
        }
        let counts = &self.counts;
        Digest { create: counts.create, update: counts.update, delete: counts.delete, hash }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written_and_nothing_else_is_one() {
        let digest = Digest { create: 3, update: 5, delete: 1, hash: 0xabc };
        assert_eq!(digest.to_string(), "3-5-1-00000000000000000000000000000abc");
        assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
        for wrong in [
            "",
            "abc",
            "3-5-1-abc",
            "3-5-1-00000000000000000000000000000aBc",
            "+3-5-1-00000000000000000000000000000abc",
            "3-5-1-00000000000000000000000000000abc-",
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
        let other = Digest { delete: 2, ..digest.clone() };
        insta::assert_snapshot!(digest.difference(&other), @"approved: 3 to create, 5 to update, 1 to delete; now: 3 to create, 5 to update, 2 to delete");
    }
}
