//! The state: what the target has acknowledged, as a fingerprint per row. Pure; `store.rs` saves it.

mod rows;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::catalogue::RecordId;
use crate::error::{Error, ErrorKind, Result};
pub(crate) use rows::Rows;

/// Written into each state; a higher one is refused, since an older program would forget what it cannot read.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// A refused row is tried again at the latest after so many runs.
pub const LONGEST_DISTANCE_RUNS: u64 = 32;
const FORMAT_NAME: &str = "okki-sync state";

/// A row's line but for its id.
const ROW_BYTES: usize = FINGERPRINT_BYTES + " \"\"\n".len();
/// A fingerprint in base64.
const FINGERPRINT_BYTES: usize = 22;

/// Where a connection's state stands in the store.
pub(crate) fn path(connection: &str) -> String {
    format!("state/{connection}.state")
}

/// Where the version before it stands.
pub(crate) fn previous_path(connection: &str) -> String {
    format!("state/{connection}.state.previous")
}

/// Identifies the content of a row: XXH3, 128 bits, of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Fingerprint {
    /// Of a row that is about to be sent for the first time: whether the target holds it is not known until it is
    /// acknowledged. Noted before the sending, so that a row whose run was killed, and which the source then
    /// removes, is still deleted at the target.
    pub const UNKNOWN: Self = Self(0);
    /// Of a row that the target holds and that is about to be sent with other content, or deleted: what it holds is
    /// not known until that is acknowledged. Noted before the sending, so that a change whose run was killed, and
    /// which people then take back, is still taken back at the target.
    pub const UNSURE: Self = Self(1);

    /// Whether the target has acknowledged this content.
    pub fn is_acknowledged(self) -> bool {
        self != Self::UNKNOWN && self != Self::UNSURE
    }

    /// The fingerprint of a row's bytes.
    pub fn of(row: &[u8]) -> Self {
        // Those at the ends of the range stand for something else.
        Self(xxhash_rust::xxh3::xxh3_128(row).clamp(Self::UNSURE.0 + 1, u128::MAX - 1))
    }

    fn write(self, out: &mut Vec<u8>) {
        let mut digits = [0; FINGERPRINT_BYTES];
        match self {
            Self::UNKNOWN => out.push(b'0'),
            Self::UNSURE => out.push(b'1'),
            Self(fingerprint) => {
                // 16 bytes always are 22 digits.
                let _ = BASE64.encode_slice(fingerprint.to_be_bytes(), &mut digits);
                out.extend_from_slice(&digits);
            }
        }
    }

    fn read(digits: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        match digits {
            "0" => Some(Self::UNKNOWN),
            "1" => Some(Self::UNSURE),
            // The decoder asks for more room than it needs, and gives back how much it used.
            _ if digits.len() == FINGERPRINT_BYTES => {
                let mut room = [0; 18];
                let used = BASE64.decode_slice(digits, &mut room).ok()?;
                bytes.copy_from_slice(room.get(..used)?.first_chunk::<16>()?);
                Some(Self(u128::from_be_bytes(bytes)))
            }
            _ => None,
        }
    }
}

/// What the target has acknowledged, and what the next run must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Acknowledged rows, and with [`Fingerprint::UNKNOWN`] or [`Fingerprint::UNSURE`] those that may have been sent.
    pub rows: Rows,
    /// Rows that the target refused, and when they are tried again.
    pub refused: BTreeMap<RecordId, Refusal>,
    /// Runs that came to a plan: what the distance of refused rows is counted in.
    pub runs: u64,
    /// Products that the source had when the last run came to its end; the guard compares with it.
    pub source_products: Option<u64>,
}

/// A row that the target refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Fingerprint of the content that was refused (32 hexadecimal digits; all zero for a deletion).
    #[serde(with = "hexadecimal")]
    pub fingerprint: Fingerprint,
    /// How often.
    pub times: u32,
    /// Not before this run, unless its content changes.
    pub not_before_run: u64,
    /// The target's words.
    pub said: String,
}

impl State {
    /// Notes that the target refused a row: it is tried again in the next run, then after 2, 4, 8 … runs.
    pub fn refuse(&mut self, id: RecordId, fingerprint: Fingerprint, said: String) {
        let before = self.refused.get(&id).filter(|refusal| refusal.fingerprint == fingerprint);
        let times = before.map_or(1, |refusal| refusal.times.saturating_add(1));
        let distance = (1_u64 << (times - 1).min(63)).min(LONGEST_DISTANCE_RUNS);
        let not_before_run = self.runs.saturating_add(distance);
        self.refused.insert(id, Refusal { fingerprint, times, not_before_run, said });
    }

    /// The refusal because of which a row of this content is not sent in this run.
    pub fn deferral(&self, id: &str, fingerprint: Fingerprint) -> Option<&Refusal> {
        self.refused
            .get(id)
            .filter(|refusal| refusal.fingerprint == fingerprint && self.runs < refusal.not_before_run)
    }
}

/// First line of the file; the acknowledged rows follow, one a line: the fingerprint in base64 (`0` or `1` for
/// those that are announced only), a space, the id as JSON.
/// Refused rows come last, one a line: `!`, a space, and the refusal as JSON with its `id`.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    connection: String,
    target: String,
    rows: usize,
    refused: usize,
    runs: u64,
    source_products: Option<u64>,
    /// Of the header with an empty checksum, and of all lines below it.
    checksum: String,
}

#[derive(Serialize, Deserialize)]
struct RefusedLine {
    id: RecordId,
    #[serde(flatten)]
    refusal: Refusal,
}

mod hexadecimal {
    use super::Fingerprint;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(fingerprint: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:032x}", fingerprint.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fingerprint, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16).map(Fingerprint).map_err(serde::de::Error::custom)
    }
}

fn checksum(header_without_it: &str, body: &[u8]) -> String {
    let seed = xxhash_rust::xxh3::xxh3_64(header_without_it.as_bytes());
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128_with_seed(body, seed))
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Texts and numbers are written into memory: that cannot fail.
    let _ = serde_json::to_writer(out, value);
}

impl Header {
    /// The header's line; without its checksum it is what the checksum covers.
    fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl State {
    /// Writes the state of a connection. `target` says which target it speaks of (no secrets): a state is not
    /// taken for another target's.
    pub fn to_text(&self, connection: &str, target: &str) -> Vec<u8> {
        let mut header = Header {
            format: FORMAT_NAME.to_owned(),
            version: FORMAT_VERSION,
            connection: connection.to_owned(),
            target: target.to_owned(),
            rows: self.rows.len(),
            refused: self.refused.len(),
            runs: self.runs,
            source_products: self.source_products,
            checksum: String::new(),
        };
        let unsigned = header.line();
        // The checksum is known last and stands first: its place is kept, so that the text is never in memory twice.
        header.checksum = format!("{:032x}", 0);
        let ids_bytes: usize = self.rows.iter().map(|(_, id, _)| id.len()).sum();
        let mut text = Vec::with_capacity(unsigned.len() + ids_bytes + (self.rows.len() + 1) * ROW_BYTES);
        text.extend_from_slice(header.line().as_bytes());
        text.push(b'\n');
        let body_at = text.len();
        for (_, id, fingerprint) in self.rows.iter() {
            fingerprint.write(&mut text);
            text.push(b' ');
            write_json(&mut text, id);
            text.push(b'\n');
        }
        for (id, refusal) in &self.refused {
            text.extend_from_slice(b"! ");
            write_json(&mut text, &RefusedLine { id: id.clone(), refusal: refusal.clone() });
            text.push(b'\n');
        }
        let sum = checksum(&unsigned, text.get(body_at..).unwrap_or_default());
        // The header ends with the checksum's digits, a quote, a brace and the line's end.
        let digits_at = body_at - sum.len() - 3;
        if let Some(place) = text.get_mut(digits_at..digits_at + sum.len()) {
            place.copy_from_slice(sum.as_bytes());
        }
        text
    }

    /// Reads a state; one that is damaged, of another version, or another connection's or target's is refused by name.
    pub fn from_bytes(bytes: &[u8], connection: &str, target: &str) -> Result<Self> {
        let (state, of) = Self::with_target(bytes, connection)?;
        if of == target {
            return Ok(state);
        }
        Err(Error::new(
            ErrorKind::BadState,
            format!(
                "state of connection \"{connection}\": speaks of another target ({of}, now {target}); give the new target its own connection name, or make the state anew with okki-sync state rebuild"
            ),
        ))
    }

    /// Reads a state and the target that it speaks of.
    pub fn with_target(bytes: &[u8], connection: &str) -> Result<(Self, String)> {
        let bad = |what: String| {
            Error::new(ErrorKind::BadState, format!("state of connection \"{connection}\": {what}"))
        };
        let damaged = |what: &str| {
            bad(format!(
                "is damaged ({what}); nothing was written; put {} in its place, or make it anew with okki-sync state rebuild",
                previous_path(connection)
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
        if version < u64::from(FORMAT_VERSION) {
            return Err(bad(format!(
                "has format version {version} of an early program, this one knows {FORMAT_VERSION}; make it anew with okki-sync state rebuild"
            )));
        }
        let mut header: Header =
            serde_json::from_value(plain).map_err(|_| damaged("its header lacks a field"))?;
        let said = std::mem::take(&mut header.checksum);
        if checksum(&header.line(), body.as_bytes()) != said {
            return Err(damaged("its checksum does not match"));
        }
        if header.connection != connection {
            return Err(bad(format!("belongs to connection \"{}\"", header.connection)));
        }
        let mut state =
            Self { runs: header.runs, source_products: header.source_products, ..Self::default() };
        state.rows.reserve(header.rows);
        for line in body.lines() {
            state.take_line(line).ok_or_else(|| damaged("a row"))?;
        }
        if (state.rows.len(), state.refused.len()) != (header.rows, header.refused) {
            return Err(damaged("rows are missing"));
        }
        Ok((state, header.target))
    }

    fn take_line(&mut self, line: &str) -> Option<()> {
        if let Some(json) = line.strip_prefix("! ") {
            let line: RefusedLine = serde_json::from_str(json).ok()?;
            self.refused.insert(line.id, line.refusal);
        } else {
            let (id, fingerprint) = row(line)?;
            self.rows.insert(&id, fingerprint);
        }
        Some(())
    }
}

fn row(line: &str) -> Option<(RecordId, Fingerprint)> {
    let (digits, id) = line.split_once(' ')?;
    let id: RecordId = serde_json::from_str(id).ok()?;
    Some((id, Fingerprint::read(digits)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sample() -> State {
        let mut rows = Rows::default();
        rows.extend([("1", Fingerprint::of(b"a")), ("2\n\"x\"", Fingerprint::of(b"b"))]);
        State {
            rows,
            refused: [("3".into(), refusal("必填字段缺失", 2))].into(),
            runs: 7,
            source_products: Some(9),
        }
    }

    fn refusal(said: &str, times: u32) -> Refusal {
        Refusal { fingerprint: Fingerprint::of(b"c"), times, not_before_run: 9, said: said.to_owned() }
    }

    #[test]
    fn a_refused_row_is_tried_less_and_less_often_and_at_once_when_it_changes() {
        let (mut state, id) = (State::default(), RecordId::from("1"));
        let content = Fingerprint::of(b"x");
        let mut tried = Vec::new();
        for run in 1..200 {
            state.runs = run;
            if state.deferral(&id, content).is_none() {
                tried.push(run);
                state.refuse(id.clone(), content, "no".to_owned());
            }
        }
        assert_eq!(tried, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192]);
        assert!(state.deferral(&id, Fingerprint::of(b"y")).is_none());
    }

    #[test]
    fn a_state_comes_back_as_it_was_saved() {
        let mut state = sample();
        state.rows.extend([("4", Fingerprint::UNKNOWN), ("5", Fingerprint::UNSURE)]);
        let text = state.to_text("acme", "qeasy x");
        assert_eq!(State::from_bytes(&text, "acme", "qeasy x").unwrap(), state);
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let text = sample().to_text("acme", "t");
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            assert!(State::from_bytes(&damaged, "acme", "t").is_err(), "byte {at} changed");
            assert!(State::from_bytes(&text[..at], "acme", "t").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_state_and_another_target_s_are_refused_by_name() {
        let text = String::from_utf8(sample().to_text("acme", "t")).unwrap();
        let newer = text.replacen("\"version\":3", "\"version\":4", 1);
        let error = State::from_bytes(newer.as_bytes(), "acme", "t").unwrap_err();
        assert!(error.message.contains("format version 4"), "{error}");
        let error = State::from_bytes(text.as_bytes(), "acme", "u").unwrap_err();
        assert!(error.message.contains("another target"), "{error}");
        let error = State::from_bytes(text.as_bytes(), "other", "t").unwrap_err();
        assert!(error.message.contains("belongs to connection \"acme\""), "{error}");
    }
}
