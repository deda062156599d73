//! The state's file: a header line, a line for each acknowledged row, each refused one, each tombstone, and each row of
//! the quarantine that was dismissed.
//!
//! ```text
//! {"format":"okki-sync state","version":3,"connection":"acme","target":"qeasy …","rows":3,…,"checksum":"68d4…"}
//! /QKwGGGjk3ek7FeF7X5UxQ "37004000100"
//! 0 "37004000107"
//! 1 "37004000114"
//! ! {"id":"37004000107","fingerprint":"d7e9…","times":2,"not_before_run":4,"said":"…"}
//! - "37004000121"
//! ~ {"kind":"product","id":"37004000128","content":"91c0…"}
//! ```
//!
//! A fingerprint is base64 without padding; `0` marks a row that the target may not have, `1` one whose content is not
//! known. Lines keep the order in which rows first came, so two versions differ where rows do.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::header::{self, CHECKSUM_DIGITS};
use super::{Acknowledged, Dismissed, Fingerprint, Refusal, State};
use crate::catalogue::RecordId;
use crate::error::{Error, ErrorKind, Result};
use crate::words::{Message, say};

/// A higher version than the next one is refused: an older program would forget what it cannot read.
const FORMAT_VERSION: u32 = 3;
/// A state with tombstones. One without them is of the version before, which older programs read too.
const VERSION_WITH_TOMBSTONES: u32 = 4;
/// A state with dismissed rows.
const VERSION_WITH_DISMISSED: u32 = 5;
/// What this program reads.
const NEWEST_VERSION: u32 = VERSION_WITH_DISMISSED;
const FORMAT_NAME: &str = "okki-sync state";

/// Begins the line of a dismissed row.
const DISMISSED: &str = "~ ";
/// A row's line but for its id.
const ROW_BYTES: usize = FINGERPRINT_BYTES + " \"\"\n".len();
/// A fingerprint in base64.
const FINGERPRINT_BYTES: usize = 22;

#[derive(Debug, Serialize, Deserialize)]
struct StateHeader {
    format: String,
    version: u32,
    connection: String,
    target: String,
    rows: usize,
    refused: usize,
    #[serde(default, skip_serializing_if = "is_none")]
    tombstones: usize,
    #[serde(default, skip_serializing_if = "is_none")]
    dismissed: usize,
    runs: u64,
    source_products: Option<u64>,
    /// Covers the header with an empty checksum, and all lines below it.
    checksum: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

impl StateHeader {
    fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize)]
struct RefusedLine {
    id: RecordId,
    #[serde(flatten)]
    refusal: Refusal,
}

/// 32 digits; all zero for `None`.
pub(super) mod hexadecimal {
    use super::Fingerprint;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        fingerprint: &Option<Fingerprint>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:032x}", fingerprint.map_or(0, Fingerprint::bits)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Fingerprint>, D::Error> {
        let text = String::deserialize(from)?;
        match u128::from_str_radix(&text, 16).map_err(D::Error::custom)? {
            0 => Ok(None),
            bits => {
                let fingerprint = Fingerprint::from_bits(bits);
                fingerprint.map(Some).ok_or_else(|| D::Error::custom("not a fingerprint"))
            }
        }
    }
}

impl Acknowledged {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Unknown => out.push(b'0'),
            Self::Unsure => out.push(b'1'),
            Self::Known(fingerprint) => {
                let mut digits = [0; FINGERPRINT_BYTES];
                // 16 bytes always are 22 digits.
                let _ = BASE64.encode_slice(fingerprint.bits().to_be_bytes(), &mut digits);
                out.extend_from_slice(&digits);
            }
        }
    }

    pub(super) fn read(digits: &str) -> Option<Self> {
        match digits {
            "0" => Some(Self::Unknown),
            "1" => Some(Self::Unsure),
            _ if digits.len() == FINGERPRINT_BYTES => {
                // The decoder asks for more room than it needs, and returns how much it used.
                let mut room = [0; 18];
                let used = BASE64.decode_slice(digits, &mut room).ok()?;
                let bytes = room.get(..used)?.first_chunk::<16>()?;
                Fingerprint::from_bits(u128::from_be_bytes(*bytes)).map(Self::Known)
            }
            _ => None,
        }
    }
}

fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Texts and numbers are written into memory: that cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn bad(connection: &str, what: Message) -> Error {
    Error::new(ErrorKind::BadState, say!("state of connection \"{connection}\": {what}", connection, what))
}

/// An older state does not know the rows that were created since: one that the source removes later would stay at the
/// target. So only a rebuild is advised, and not the copy under `.previous`.
fn damaged(connection: &str, what: Message) -> Error {
    bad(connection, say!("is damaged ({what}); nothing was written", what))
        .help(say!("rebuild it with okki-sync state rebuild"))
}

/// A file whose header and checksum are right, with its rows not read yet.
struct CheckedFile<'a> {
    header: StateHeader,
    body: &'a str,
}

impl<'a> CheckedFile<'a> {
    fn read(bytes: &'a [u8], connection: &str) -> Result<Self> {
        let damaged = |what: Message| damaged(connection, what);
        let text = std::str::from_utf8(bytes).map_err(|_| damaged(say!("not UTF-8")))?;
        let (first, body) = text.split_once('\n').ok_or_else(|| damaged(say!("no header line")))?;
        let plain: serde_json::Value =
            serde_json::from_str(first).map_err(|_| damaged(say!("its header is not JSON")))?;
        if plain.get("format").and_then(serde_json::Value::as_str) != Some(FORMAT_NAME) {
            return Err(damaged(say!("its header is not one of this program")));
        }
        let version = plain.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version > u64::from(NEWEST_VERSION) {
            let what = say!(
                "has format version {version}, this program knows up to {newest}",
                version,
                newest = NEWEST_VERSION
            );
            return Err(bad(connection, what).help(say!("use the newer program")));
        }
        if version < u64::from(FORMAT_VERSION) {
            let what = say!(
                "has format version {version} of an early program, this one knows {known}",
                version,
                known = FORMAT_VERSION
            );
            return Err(bad(connection, what).help(say!("rebuild it with okki-sync state rebuild")));
        }
        let mut header: StateHeader =
            serde_json::from_value(plain).map_err(|_| damaged(say!("its header lacks a field")))?;
        let stored = std::mem::take(&mut header.checksum);
        if header::checksum(&header.line(), [body.as_bytes()]) != stored {
            return Err(damaged(say!("its checksum does not match")));
        }
        if header.connection != connection {
            return Err(bad(
                connection,
                say!("belongs to connection \"{connection}\"", connection = header.connection),
            ));
        }
        Ok(Self { header, body })
    }

    fn ensure_target(&self, connection: &str, target: &str) -> Result<()> {
        let stored = &self.header.target;
        if stored == target {
            return Ok(());
        }
        Err(bad(connection, say!("belongs to another target ({stored}, now {target})", stored, target)).help(
            say!("give the new target a connection name of its own, or rebuild the state with okki-sync state rebuild"),
        ))
    }

    fn state(&self, connection: &str) -> Result<State> {
        let Self { header, body } = self;
        let mut state =
            State { runs: header.runs, source_products: header.source_products, ..State::default() };
        state.rows.reserve(header.rows);
        for line in body.lines() {
            state.add_line(line).ok_or_else(|| damaged(connection, say!("a row")))?;
        }
        let found = (state.rows.len(), state.refused.len(), state.tombstones.len(), state.dismissed.len());
        if found != (header.rows, header.refused, header.tombstones, header.dismissed) {
            return Err(damaged(connection, say!("rows are missing")));
        }
        Ok(state)
    }
}

impl State {
    /// Refuses what [`State::from_bytes`] would refuse, without reading the rows.
    pub fn ensure_is_for(bytes: &[u8], connection: &str, target: &str) -> Result<()> {
        CheckedFile::read(bytes, connection)?.ensure_target(connection, target)
    }

    /// The rows that were dismissed, without reading the others.
    pub fn dismissed_in(bytes: &[u8], connection: &str) -> Result<BTreeSet<Dismissed>> {
        let CheckedFile { header, body } = CheckedFile::read(bytes, connection)?;
        let mut state = Self::default();
        if header.dismissed > 0 {
            for line in body.lines().filter(|line| line.starts_with(DISMISSED)) {
                state.add_line(line).ok_or_else(|| damaged(connection, say!("a dismissed row")))?;
            }
        }
        Ok(state.dismissed)
    }

    /// Reads a state; one that is damaged, of another version, or another connection's or target's is refused by name.
    pub fn from_bytes(bytes: &[u8], connection: &str, target: &str) -> Result<Self> {
        let checked = CheckedFile::read(bytes, connection)?;
        let state = checked.state(connection)?;
        checked.ensure_target(connection, target).map(|()| state)
    }

    /// Reads a state and the target that it speaks of.
    pub fn with_target(bytes: &[u8], connection: &str) -> Result<(Self, String)> {
        let checked = CheckedFile::read(bytes, connection)?;
        let state = checked.state(connection)?;
        Ok((state, checked.header.target))
    }

    /// Writes the state of a connection. `target` names the target that it speaks of, without secrets.
    pub fn to_text(&self, connection: &str, target: &str) -> Vec<u8> {
        let mut header = StateHeader {
            format: FORMAT_NAME.to_owned(),
            version: self.version(),
            connection: connection.to_owned(),
            target: target.to_owned(),
            rows: self.rows.len(),
            refused: self.refused.len(),
            tombstones: self.tombstones.len(),
            dismissed: self.dismissed.len(),
            runs: self.runs,
            source_products: self.source_products,
            checksum: String::new(),
        };
        let unsigned = header.line();
        // The checksum is known last and comes first: its place is reserved, so that the text is never in memory twice.
        header.checksum = "0".repeat(CHECKSUM_DIGITS);
        let ids_bytes: usize = self.rows.iter().map(|(_, id, _)| id.len()).sum();
        let mut text = Vec::with_capacity(unsigned.len() + ids_bytes + (self.rows.len() + 1) * ROW_BYTES);
        text.extend_from_slice(header.line().as_bytes());
        text.push(b'\n');
        let body_at = text.len();
        for (_, id, acknowledged) in self.rows.iter() {
            acknowledged.write(&mut text);
            text.push(b' ');
            write_json(&mut text, id);
            text.push(b'\n');
        }
        for (id, refusal) in &self.refused {
            text.extend_from_slice(b"! ");
            write_json(&mut text, &RefusedLine { id: id.clone(), refusal: refusal.clone() });
            text.push(b'\n');
        }
        for id in &self.tombstones {
            text.extend_from_slice(b"- ");
            write_json(&mut text, id);
            text.push(b'\n');
        }
        for row in &self.dismissed {
            text.extend_from_slice(DISMISSED.as_bytes());
            write_json(&mut text, row);
            text.push(b'\n');
        }
        let sum = header::checksum(&unsigned, text.get(body_at..));
        // The header ends with the checksum's digits, a quote, a brace and the line's end.
        let digits_at = body_at - sum.len() - 3;
        if let Some(place) = text.get_mut(digits_at..digits_at + sum.len()) {
            place.copy_from_slice(sum.as_bytes());
        }
        text
    }

    /// The oldest version that holds all of it: older programs read what they can.
    fn version(&self) -> u32 {
        match (self.dismissed.is_empty(), self.tombstones.is_empty()) {
            (false, _) => VERSION_WITH_DISMISSED,
            (true, false) => VERSION_WITH_TOMBSTONES,
            (true, true) => FORMAT_VERSION,
        }
    }

    fn add_line(&mut self, line: &str) -> Option<()> {
        if let Some(json) = line.strip_prefix("! ") {
            let line: RefusedLine = serde_json::from_str(json).ok()?;
            self.refused.insert(line.id, line.refusal);
        } else if let Some(json) = line.strip_prefix(DISMISSED) {
            self.dismissed.insert(serde_json::from_str(json).ok()?);
        } else if let Some(id) = line.strip_prefix("- ") {
            self.tombstones.insert(serde_json::from_str(id).ok()?);
        } else {
            let (digits, id) = line.split_once(' ')?;
            let id: RecordId = serde_json::from_str(id).ok()?;
            self.rows.insert(&id, Acknowledged::read(digits)?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::catalogue::RowKind;
    use crate::state::Rows;

    fn known(row: &[u8]) -> Acknowledged {
        Acknowledged::Known(Fingerprint::of(row))
    }

    fn sample() -> State {
        let mut rows = Rows::default();
        rows.extend([("1", known(b"a")), ("2\n\"x\"", known(b"b"))]);
        let deletion = Refusal { fingerprint: None, ..refusal("no", 1) };
        State {
            rows,
            refused: [("3".into(), refusal("必填字段缺失", 2)), ("6".into(), deletion)].into(),
            tombstones: ["8".into(), "9".into()].into(),
            dismissed: BTreeSet::new(),
            runs: 7,
            source_products: Some(9),
        }
    }

    fn refusal(said: &str, times: u32) -> Refusal {
        Refusal { fingerprint: Some(Fingerprint::of(b"c")), times, not_before_run: 9, said: said.to_owned() }
    }

    #[test]
    fn what_was_acknowledged_is_read_from_exactly_its_digits() {
        let mut digits = Vec::new();
        known(b"a").write(&mut digits);
        let digits = String::from_utf8(digits).unwrap();
        assert_eq!(Acknowledged::read(&digits), Some(known(b"a")));
        let longer = format!("{digits}AA");
        for digits in ["", "2", &digits[1..], longer.as_str()] {
            assert_eq!(Acknowledged::read(digits), None, "{digits}");
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was_saved() {
        let mut state = sample();
        state.rows.extend([("4", Acknowledged::Unknown), ("5", Acknowledged::Unsure)]);
        let text = state.to_text("acme", "qeasy x");
        assert_eq!(State::from_bytes(&text, "acme", "qeasy x").unwrap(), state);
    }

    #[test]
    fn a_state_without_tombstones_is_one_that_version_0_1_0_reads() {
        let text = |state: &State| String::from_utf8(state.to_text("acme", "t")).unwrap();
        assert!(text(&sample()).contains(r#""version":4,"#));
        let plain = text(&State { tombstones: BTreeSet::new(), ..sample() });
        assert!(plain.contains(r#""version":3,"#) && !plain.contains("tombstones"), "{plain}");
    }

    fn dismissed(id: Option<&str>) -> Dismissed {
        let content = format!("{:032x}", 7);
        Dismissed { kind: RowKind::Product, id: id.map(str::to_owned), content }
    }

    #[test]
    fn dismissed_rows_come_back_and_raise_the_version_only_where_there_are_some() {
        let state = State { dismissed: [dismissed(Some("1")), dismissed(None)].into(), ..sample() };
        let text = state.to_text("acme", "t");
        assert!(String::from_utf8_lossy(&text).contains(r#""version":5,"#));
        assert_eq!(State::from_bytes(&text, "acme", "t").unwrap(), state);
        assert_eq!(State::dismissed_in(&text, "acme").unwrap(), state.dismissed);
        assert!(State::dismissed_in(&sample().to_text("acme", "t"), "acme").unwrap().is_empty());
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
        let newer = text.replacen("\"version\":4", "\"version\":6", 1);
        let error = State::from_bytes(newer.as_bytes(), "acme", "t").unwrap_err();
        assert!(error.to_string().contains("format version 6"), "{error}");
        let error = State::from_bytes(text.as_bytes(), "acme", "u").unwrap_err();
        assert!(error.to_string().contains("another target"), "{error}");
        let error = State::ensure_is_for(text.as_bytes(), "acme", "u").unwrap_err();
        assert!(error.to_string().contains("another target"), "{error}");
        State::ensure_is_for(text.as_bytes(), "acme", "t").unwrap();
        let error = State::from_bytes(text.as_bytes(), "other", "t").unwrap_err();
        assert!(error.to_string().contains("belongs to connection \"acme\""), "{error}");
    }
}
