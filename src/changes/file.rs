//! The file of what a run changed: JSON lines with zstd, so that `zstd -dc FILE | jq` shows them.
//!
//! ```text
//! (a frame that decompressors skip: {"format":"okki-sync changes","version":1,"connection":"acme","run_id":"…"})
//! {"id":"7","name":"灯","action":"update","at":"…Z","fields":[…],"answer":"accepted","was":{…},"sent":"/QKw…"}
//! {"action":"create","at":"…Z","answer":"accepted","ids":["8","9",…]}
//! ```
//!
//! `was` is the former row as a whole, for an undo. Creations have no content here: the ledger has it until the row
//! changes, and the line of that change has it then. A run that creates more than [`LISTED_CREATIONS`] rows names the
//! others by their ids alone: 200,000 lines would take longer than all the rest of such a run does for them.

use std::io::{Cursor, Read as _, Write as _};

use serde::{Deserialize, Serialize};
use zstd::stream::raw::CParameter;
use zstd::stream::{Decoder, Encoder};

use super::{ChangeAction, FieldChange, Json};
use crate::words::{phrase, written};

const FORMAT_NAME: &str = "okki-sync changes";
const FORMAT_VERSION: u32 = 1;
/// Most of a file are numbers, which no level packs well.
const LEVEL: i32 = -3;
/// Bytes that the packer looks back, as a power of two: it holds them in memory while the run lasts.
const WINDOW_LOG: u32 = 17;
/// Starts a frame that decompressors skip.
const SKIPPED: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Creations that have a line each.
const LISTED_CREATIONS: u64 = 1_000;
/// Ids in one line.
const IDS_IN_A_LINE: usize = 500;
/// A file that unpacks to more is damaged: a run that changes a million rows writes a third of it.
const MOST_BYTES: u64 = 2 << 30;
/// The same of a small file, which unpacks to this at most, and for each of its bytes to so many: rows pack to a twentieth.
const SMALL_FILE_BYTES: u64 = 16 << 20;
const MOST_UNPACKED: u64 = 100;
/// The same of a line: its row once was one that a target took.
const MOST_LINE_BYTES: usize = 64 << 20;
/// A file that asks for a larger window, as a power of two, is damaged: level 1, which earlier builds wrote, takes 19.
const MOST_WINDOW_LOG: u32 = 23;

/// The answer of a target that took a row.
pub(crate) const ACCEPTED: &str = phrase!("accepted");

/// One line: what happened to a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeLine {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub action: ChangeAction,
    /// When the target answered, RFC 3339 in UTC.
    pub at: String,
    #[serde(default)]
    pub fields: Vec<FieldChange>,
    /// [`ACCEPTED`], or `refused: ` and what the target said.
    pub answer: String,
    /// The row before, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Json>,
    /// Fingerprint of the row as the target took it; `None` for a tombstone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// Many rows at once, in the place of `id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

impl ChangeLine {
    /// Whether the target took it.
    pub(crate) fn is_accepted(&self) -> bool {
        self.answer == ACCEPTED
    }
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    format: &'a str,
    version: u32,
    connection: &'a str,
    run_id: &'a str,
}

/// Writes the file of one run.
pub(crate) struct ChangesWriter {
    packed: Encoder<'static, Vec<u8>>,
    line: Vec<u8>,
    created: u64,
    /// Ids that wait for their line, as JSON with commas between them, and how many they are.
    ids: Vec<u8>,
    waiting: usize,
    lines: u64,
}

impl ChangesWriter {
    pub(crate) fn new(connection: &str, run_id: &str) -> std::io::Result<Self> {
        let header = Header { format: FORMAT_NAME, version: FORMAT_VERSION, connection, run_id };
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut file = SKIPPED.to_vec();
        file.extend_from_slice(&u32::try_from(header.len()).unwrap_or(0).to_le_bytes());
        file.extend_from_slice(&header);
        let mut packed = Encoder::new(file, LEVEL)?;
        packed.include_checksum(true)?;
        packed.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Self { packed, line: Vec::new(), created: 0, ids: Vec::new(), waiting: 0, lines: 0 })
    }

    /// Whether the next creation has a line of its own.
    pub(crate) fn lists_creations(&self) -> bool {
        self.created < LISTED_CREATIONS
    }

    pub(crate) fn add(&mut self, line: &ChangeLine) {
        self.created += u64::from(line.action == ChangeAction::Create);
        self.write(line);
    }

    /// Adds a row that was created, by its id.
    pub(crate) fn add_created(&mut self, id: &str, at: &str) {
        if self.waiting > 0 {
            self.ids.push(b',');
        }
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.ids, id);
        self.waiting += 1;
        if self.waiting >= IDS_IN_A_LINE {
            self.end_ids(at);
        }
    }

    fn end_ids(&mut self, at: &str) {
        if self.waiting == 0 {
            return;
        }
        let line = ChangeLine {
            id: String::new(),
            name: String::new(),
            action: ChangeAction::Create,
            at: at.to_owned(),
            fields: Vec::new(),
            answer: ACCEPTED.to_owned(),
            was: None,
            sent: None,
            ids: Vec::new(),
        };
        self.line.clear();
        let _ = serde_json::to_writer(&mut self.line, &line);
        // The ids are JSON already: 200,000 texts of their own would take longer than all the rest of the line.
        self.line.pop();
        self.line.extend_from_slice(b",\"ids\":[");
        self.line.append(&mut self.ids);
        self.line.extend_from_slice(b"]}");
        self.waiting = 0;
        self.end_line();
    }

    fn write(&mut self, line: &ChangeLine) {
        self.line.clear();
        let _ = serde_json::to_writer(&mut self.line, line);
        self.end_line();
    }

    fn end_line(&mut self) {
        self.lines += 1;
        self.line.push(b'\n');
        let _ = self.packed.write_all(&self.line);
    }

    /// The file as it is now; `None` if nothing changed. What comes later follows in another frame.
    pub(crate) fn file(&mut self, at: &str) -> Option<Vec<u8>> {
        self.end_ids(at);
        if self.lines == 0 {
            return None;
        }
        // A file whose last frame is open can be read up to its end all the same.
        let _ = self.packed.flush();
        Some(self.packed.get_ref().clone())
    }

    /// The whole file; `None` if nothing changed.
    pub(crate) fn finish(mut self, at: &str) -> Option<Vec<u8>> {
        self.end_ids(at);
        if self.lines == 0 {
            return None;
        }
        self.packed.finish().ok()
    }
}

/// Reads a file, line by line. The error says why it cannot be read; lines before it were taken.
pub(crate) fn read(file: &[u8], mut take: impl FnMut(&str)) -> Result<(), String> {
    check_header(file)?;
    let damaged = |error: std::io::Error| written!("it is damaged ({error})", error);
    let too_large = || Err(written!("it is damaged (it unpacks to more than such a file can hold)"));
    let most =
        SMALL_FILE_BYTES.saturating_add(MOST_UNPACKED.saturating_mul(file.len() as u64)).min(MOST_BYTES);
    let mut unpacked = Decoder::with_buffer(Cursor::new(file)).map_err(damaged)?;
    unpacked.window_log_max(MOST_WINDOW_LOG).map_err(damaged)?;
    let (mut text, mut room, mut all) = (Vec::new(), vec![0; 64 * 1024], 0_u64);
    loop {
        let read = match unpacked.read(&mut room) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            // A run that was killed left its last frame open.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(damaged(error)),
        };
        all += read as u64;
        let new = room.get(..read).unwrap_or_default();
        if all > most || text.len() + read > MOST_LINE_BYTES {
            return too_large();
        }
        let end = new.iter().rposition(|byte| *byte == b'\n').map(|end| text.len() + end);
        text.extend_from_slice(new);
        let Some(end) = end else { continue };
        let whole = text.get(..end).unwrap_or_default();
        let lines = std::str::from_utf8(whole).map_err(|_| written!("it is damaged (not UTF-8)"))?;
        lines.lines().filter(|line| !line.is_empty()).for_each(&mut take);
        text.drain(..=end);
    }
}

fn check_header(file: &[u8]) -> Result<(), String> {
    let header = file.strip_prefix(&SKIPPED).and_then(|rest| {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        rest.get(..u32::from_le_bytes(*length) as usize)
    });
    let header = header.and_then(|header| serde_json::from_slice::<Header<'_>>(header).ok());
    let Some(header) = header.filter(|header| header.format == FORMAT_NAME) else {
        return Err(written!("it is not a file of changes"));
    };
    if header.version > FORMAT_VERSION {
        let (version, known) = (header.version, FORMAT_VERSION);
        return Err(written!("it has format version {version}, this program knows {known}", version, known));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn line(id: &str) -> ChangeLine {
        ChangeLine {
            id: id.to_owned(),
            name: "灯".to_owned(),
            action: ChangeAction::Update,
            at: "2026-11-24T18:43:16.080Z".to_owned(),
            fields: Vec::new(),
            answer: ACCEPTED.to_owned(),
            was: Json::parse(r#"{"id":"7","cost":2999.10}"#),
            sent: Some("x".to_owned()),
            ids: Vec::new(),
        }
    }

    fn lines(file: &[u8]) -> Vec<ChangeLine> {
        let mut lines = Vec::new();
        read(file, |line| lines.push(serde_json::from_str(line).unwrap())).unwrap();
        lines
    }

    #[test]
    fn what_was_written_is_read_again_also_while_more_follows() {
        let mut writer = ChangesWriter::new("acme", "r1").unwrap();
        assert_eq!(writer.file("now"), None);
        writer.add(&line("7"));
        assert_eq!(lines(&writer.file("now").unwrap()), [line("7")]);
        writer.add(&line("8"));
        writer.add_created("9", "now");
        let all = lines(&writer.finish("now").unwrap());
        assert_eq!(all.len(), 3);
        assert_eq!((&all[1], all[2].ids.as_slice()), (&line("8"), &["9".to_owned()][..]));
    }

    #[test]
    fn a_damaged_file_and_one_of_a_newer_program_are_named() {
        let mut writer = ChangesWriter::new("acme", "r1").unwrap();
        (0..2_000).for_each(|id| writer.add(&line(&id.to_string())));
        let file = writer.finish("now").unwrap();
        let mut broken = file.clone();
        let middle = broken.len() / 2;
        broken[middle] ^= 0xff;
        assert!(read(&broken, |_| {}).unwrap_err().starts_with("it is damaged"));
        let at = file.windows(11).position(|bytes| bytes == b"\"version\":1").unwrap();
        let mut newer = file;
        newer[at + 10] = b'2';
        assert!(read(&newer, |_| {}).unwrap_err().contains("format version 2"));
        assert_eq!(read(b"{}", |_| {}).unwrap_err(), "it is not a file of changes");
    }

    /// A small file of a stranger, whatever it unpacks to.
    fn bomb(level: i32, bytes: &[u8], times: usize) -> Vec<u8> {
        let header = br#"{"format":"okki-sync changes","version":1,"connection":"acme","run_id":"r1"}"#;
        let mut file = [&SKIPPED[..], &(header.len() as u32).to_le_bytes(), header].concat();
        let mut packed = Encoder::new(&mut file, level).unwrap();
        (0..times).for_each(|_| packed.write_all(bytes).unwrap());
        packed.finish().unwrap();
        file
    }

    #[test]
    fn a_file_that_unpacks_to_more_than_it_could_hold_is_damaged() {
        let piece = vec![b'x'; 1 << 20];
        let one_line = bomb(1, &piece, 64);
        assert!(one_line.len() < 100_000);
        assert!(read(&one_line, |_| {}).unwrap_err().contains("unpacks to more"));
        let mut line = vec![b' '; (1 << 20) - 1];
        line.push(b'\n');
        let mut bytes = 0;
        let error = read(&bomb(1, &line, 64), |line| bytes += line.len()).unwrap_err();
        assert!(error.contains("unpacks to more") && bytes < 32 << 20);
        // A window of 128 MiB is not reserved for it.
        let mut wide = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 17 << 3];
        wide.extend_from_slice(&[1, 0, 0]);
        let header = br#"{"format":"okki-sync changes","version":1,"connection":"acme","run_id":"r1"}"#;
        let file = [&SKIPPED[..], &(header.len() as u32).to_le_bytes(), header, wide.as_slice()].concat();
        assert!(read(&file, |_| {}).unwrap_err().starts_with("it is damaged"));
    }
}
