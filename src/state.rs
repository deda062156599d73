//! The state: what the target has acknowledged, as a fingerprint per row. Pure; `store.rs` saves it.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::model::RecordId;

/// Written into each state; a higher one is refused, since an older program would forget what it cannot read.
pub const FORMAT_VERSION: u32 = 1;
const FORMAT_NAME: &str = "okki-sync state";

/// Where a connection's state stands in the store.
pub fn path(connection: &str) -> String {
    format!("state/{connection}.state")
}

/// Identifies the content of a row: XXH3, 128 bits, of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// Of a row that is about to be sent for the first time: whether the target holds it is not known until it is
    /// acknowledged. Noted before the sending, so that a row whose run was killed, and which the source then
    /// removes, is still deleted at the target.
    pub const UNKNOWN: Self = Self(0);

    /// The fingerprint of a row's bytes.
    pub fn of(row: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(row))
    }
}

/// What the target has acknowledged, and what the next run must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Acknowledged rows, and with [`Fingerprint::UNKNOWN`] those that may have been sent.
    pub rows: HashMap<RecordId, Fingerprint>,
    /// Calls to the target in the last minute, wall-clock milliseconds.
    pub target_calls_ms: Vec<u64>,
    /// The target wants no call before this, wall-clock milliseconds.
    pub target_blocked_until_ms: Option<u64>,
}

/// First line of the file; the rows follow, one a line: 32 hexadecimal digits, a space, the id as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    connection: String,
    target: String,
    rows: usize,
    checksum: String,
    #[serde(default)]
    target_calls_ms: Vec<u64>,
    #[serde(default)]
    target_blocked_until_ms: Option<u64>,
}

fn checksum(header_without_it: &str, body: &str) -> String {
    let sum = xxhash_rust::xxh3::xxh3_128_with_seed(
        body.as_bytes(),
        xxhash_rust::xxh3::xxh3_64(header_without_it.as_bytes()),
    );
    format!("{sum:032x}")
}

impl Header {
    /// What the checksum covers of the header: all of it but the checksum itself.
    fn covered(&self) -> String {
        format!(
            "{} {} {} {} {} {:?} {:?}",
            self.format,
            self.version,
            self.connection,
            self.target,
            self.rows,
            self.target_calls_ms,
            self.target_blocked_until_ms
        )
    }
}

impl State {
    /// Writes the state of a connection. `target` says which target it speaks of (no secrets): a state is not
    /// taken for another target's.
    pub fn to_text(&self, connection: &str, target: &str) -> String {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut body = String::with_capacity(rows.len() * 48);
        for (id, fingerprint) in rows {
            let id = serde_json::Value::from(id.as_str());
            // Writing into a string cannot fail.
            let _ = writeln!(body, "{:032x} {id}", fingerprint.0);
        }
        let mut header = Header {
            format: FORMAT_NAME.to_owned(),
            version: FORMAT_VERSION,
            connection: connection.to_owned(),
            target: target.to_owned(),
            rows: self.rows.len(),
            checksum: String::new(),
            target_calls_ms: self.target_calls_ms.clone(),
            target_blocked_until_ms: self.target_blocked_until_ms,
        };
        header.checksum = checksum(&header.covered(), &body);
        let header = serde_json::to_string(&header).unwrap_or_default();
        format!("{header}\n{body}")
    }

    /// Reads a state; one that is damaged, newer, or another connection's or target's is refused by name.
    pub fn from_bytes(bytes: &[u8], connection: &str, target: &str) -> Result<Self> {
        let bad = |what: String| {
            Error::new(Kind::BadState, format!("state of connection \"{connection}\": {what}"))
        };
        let damaged = |what: &str| {
            bad(format!(
                "is damaged ({what}); nothing was written; restore an earlier version, or remove it to send every row again"
            ))
        };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("not UTF-8"))?;
        let (first, body) = text.split_once('\n').ok_or_else(|| damaged("no header line"))?;
        let plain: serde_json::Value =
            serde_json::from_str(first).map_err(|_| damaged("its header is not JSON"))?;
        if plain.get("format").and_then(serde_json::Value::as_str) != Some(FORMAT_NAME) {
            return Err(damaged("its header is not one of this program"));
        }
        let version = plain.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version > u64::from(FORMAT_VERSION) {
            return Err(bad(format!(
                "has format version {version}, this program knows up to {FORMAT_VERSION}; use the newer program"
            )));
        }
        let header: Header =
            serde_json::from_value(plain).map_err(|_| damaged("its header lacks a field"))?;
        if checksum(&header.covered(), body) != header.checksum {
            return Err(damaged("its checksum does not match"));
        }
        if header.connection != connection {
            return Err(bad(format!("belongs to connection \"{}\"", header.connection)));
        }
        if header.target != target {
            return Err(bad(format!(
                "speaks of another target ({}, now {target}); give the new target its own connection name, or remove the state to send every row there",
                header.target
            )));
        }
        let rows =
            body.lines().map(row).collect::<Option<HashMap<_, _>>>().ok_or_else(|| damaged("a row"))?;
        if rows.len() != header.rows {
            return Err(damaged("rows are missing"));
        }
        Ok(Self {
            rows,
            target_calls_ms: header.target_calls_ms,
            target_blocked_until_ms: header.target_blocked_until_ms,
        })
    }
}

fn row(line: &str) -> Option<(RecordId, Fingerprint)> {
    let (hex, id) = line.split_once(' ')?;
    let fingerprint = u128::from_str_radix(hex, 16).ok()?;
    let id: String = serde_json::from_str(id).ok()?;
    Some((RecordId::from(id), Fingerprint(fingerprint)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sample() -> State {
        State {
            rows: [("1", b"a"), ("2\n\"x\"", b"b")].map(|(id, row)| (id.into(), Fingerprint::of(row))).into(),
            target_calls_ms: vec![5, 6],
            target_blocked_until_ms: Some(9),
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was_saved() {
        let text = sample().to_text("acme", "qeasy x");
        assert_eq!(State::from_bytes(text.as_bytes(), "acme", "qeasy x").unwrap(), sample());
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let text = sample().to_text("acme", "t").into_bytes();
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert!(State::from_bytes(&damaged, "acme", "t").is_err(), "byte {at} changed");
            assert!(State::from_bytes(&text[..at], "acme", "t").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_state_and_another_target_s_are_refused_by_name() {
        let newer = sample().to_text("acme", "t").replacen("\"version\":1", "\"version\":2", 1);
        let error = State::from_bytes(newer.as_bytes(), "acme", "t").unwrap_err();
        assert!(error.message.contains("format version 2"), "{error}");
        let text = sample().to_text("acme", "t");
        let error = State::from_bytes(text.as_bytes(), "acme", "u").unwrap_err();
        assert!(error.message.contains("another target"), "{error}");
        let error = State::from_bytes(text.as_bytes(), "other", "t").unwrap_err();
        assert!(error.message.contains("belongs to connection \"acme\""), "{error}");
    }
}
