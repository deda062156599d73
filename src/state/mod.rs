//! The state: what the target has acknowledged, as a fingerprint per row. Pure; `sync` saves it.
//!
//! It is a claim about the target that is never too bold: a row is known here only after the target acknowledged it, and
//! one that may have been sent is marked before it goes out. Deliberately absent: the rows' content. A fingerprint is
//! enough to see a change, and what the target really holds is for `verify` to ask.

mod dismissed;
mod format;
pub(crate) mod header;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::catalogue::RecordId;
pub use dismissed::Dismissed;
pub use rows::Acknowledged;
pub(crate) use rows::Rows;

/// A refused row is tried again after at most this many runs.
pub const LONGEST_DISTANCE_RUNS: u64 = 32;

/// Identifies the content of a row: XXH3, 128 bits, of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The values at both ends are no fingerprints: [`Rows`] marks rows with them, and the file format writes 0 and 1 for
    /// what is not known.
    const SMALLEST: u128 = 2;
    const LARGEST: u128 = u128::MAX - 1;

    /// The fingerprint of a row's bytes.
    pub fn of(row: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(row).clamp(Self::SMALLEST, Self::LARGEST))
    }

    fn from_bits(bits: u128) -> Option<Self> {
        (Self::SMALLEST..=Self::LARGEST).contains(&bits).then_some(Self(bits))
    }

    fn bits(self) -> u128 {
        self.0
    }

    /// As the state's file writes it: 22 characters of base64.
    pub fn text(self) -> String {
        let mut text = Vec::new();
        Acknowledged::Known(self).write(&mut text);
        String::from_utf8(text).unwrap_or_default()
    }

    /// Reads what [`Self::text`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        match Acknowledged::read(text)? {
            Acknowledged::Known(fingerprint) => Some(fingerprint),
            Acknowledged::Unknown | Acknowledged::Unsure => None,
        }
    }
}

/// What the target has acknowledged, and what the next run must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Acknowledged rows, and those that may have been sent.
    pub rows: Rows,
    /// Rows that the target refused, and when they are tried again.
    pub refused: BTreeMap<RecordId, Refusal>,
    /// Rows of which a tombstone may have been sent, and nothing since that the target has acknowledged. A target that
    /// merges fields still calls them deleted: one that comes back has to say that it is not.
    pub tombstones: BTreeSet<RecordId>,
    /// Rows of the quarantine that somebody has silenced until their content changes.
    pub dismissed: BTreeSet<Dismissed>,
    /// Runs that came to a plan: what the distance of refused rows is counted in.
    pub runs: u64,
    /// Products that the source had when the last run completed; the guard compares with it.
    pub source_products: Option<u64>,
}

/// A row that the target refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The content that was refused; `None` for a deletion.
    #[serde(with = "format::hexadecimal")]
    pub fingerprint: Option<Fingerprint>,
    /// How often.
    pub times: u32,
    /// Not before this run, unless its content changes.
    pub not_before_run: u64,
    /// What the target said.
    pub said: String,
}

impl State {
    /// Notes that the target refused a row: it is tried again in the next run, then after 2, 4, 8 … runs.
    pub fn refuse(&mut self, id: RecordId, fingerprint: Option<Fingerprint>, said: String) {
        let before = self.refused.get(&id).filter(|refusal| refusal.fingerprint == fingerprint);
        let times = before.map_or(1, |refusal| refusal.times.saturating_add(1));
        let distance = (1_u64 << (times - 1).min(63)).min(LONGEST_DISTANCE_RUNS);
        let not_before_run = self.runs.saturating_add(distance);
        self.refused.insert(id, Refusal { fingerprint, times, not_before_run, said });
    }

    /// The next run sends a refused row, whatever its distance. `false` if the row was not refused.
    pub fn retry(&mut self, id: &str) -> bool {
        let Some(refusal) = self.refused.get_mut(id) else { return false };
        refusal.not_before_run = refusal.not_before_run.min(self.runs);
        true
    }

    /// The refusal because of which a row of this content (`None`: its deletion) is not sent in this run.
    pub fn deferral(&self, id: &str, fingerprint: Option<Fingerprint>) -> Option<&Refusal> {
        self.refused
            .get(id)
            .filter(|refusal| refusal.fingerprint == fingerprint && self.runs < refusal.not_before_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_is_tried_less_and_less_often_and_at_once_when_it_changes() {
        let (mut state, id) = (State::default(), RecordId::from("1"));
        let content = Some(Fingerprint::of(b"x"));
        let mut tried = Vec::new();
        for run in 1..200 {
            state.runs = run;
            if state.deferral(&id, content).is_none() {
                tried.push(run);
                state.refuse(id.clone(), content, "no".to_owned());
            }
        }
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192]);
        assert!(state.deferral(&id, Some(Fingerprint::of(b"y"))).is_none());
    }
}
