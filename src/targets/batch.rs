//! Batches: rows cut by count and by bytes, each row written once, straight into the request's body.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::catalogue::RecordId;
use crate::state::Fingerprint;
use crate::testing::Mutant;

/// How the rows of a batch are wrapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wrap {
    /// Nothing: `[…]`.
    #[default]
    #[serde(rename = "")]
    Array,
    /// `{"groups": […]}`.
    Groups,
    /// `{"content": […]}`.
    Content,
}

impl Wrap {
    fn open(self) -> &'static [u8] {
        match self {
            Self::Array => b"[",
            Self::Groups => b"{\"groups\":[",
            Self::Content => b"{\"content\":[",
        }
    }

    fn close(self) -> &'static [u8] {
        match self {
            Self::Array => b"]",
            Self::Groups | Self::Content => b"]}",
        }
    }
}

/// The end of a row that is there again.
const REVIVAL: &[u8] = b",\"deleted\":false}";

/// What a row tells the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// How it is now.
    Row,
    /// That it is gone.
    Tombstone,
    /// How it is now, and that it is there again: the row with `"deleted": false`.
    Revived,
}

/// A row in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub id: RecordId,
    /// What the state will know of it once it is acknowledged; `None` for a tombstone. `"deleted": false` is no part of it:
    /// a row that is there again is not sent once more without it.
    pub fingerprint: Option<Fingerprint>,
    /// Its place in the body.
    pub at: Range<usize>,
    /// Its place among the rows of the batch as it was cut, however the batch was split since.
    pub order: u32,
    /// Whether `"deleted": false` was added to it.
    pub is_revived: bool,
}

/// A body that is ready to be sent, and what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub body: Bytes,
    pub entries: Vec<Entry>,
    /// Whether its answer was lost before, and the target was asked for its rows (or could not be): it is sent again without
    /// asking.
    pub was_read_back: bool,
    wrap: Wrap,
}

impl Batch {
    /// The bytes of one of its rows.
    pub(crate) fn row(&self, entry: &Entry) -> &[u8] {
        self.body.get(entry.at.clone()).unwrap_or(&[])
    }

    /// One of its rows as the pipeline makes it: what the entry's fingerprint is of.
    pub(crate) fn made(&self, entry: &Entry) -> Cow<'_, [u8]> {
        let row = self.row(entry);
        match row.strip_suffix(REVIVAL).filter(|_| entry.is_revived) {
            Some(row) => Cow::Owned([row, b"}"].concat()),
            None => Cow::Borrowed(row),
        }
    }

    /// The same body with some of its rows.
    pub(crate) fn with(&self, entries: Vec<Entry>) -> Self {
        Self { body: self.body.clone(), entries, ..*self }
    }

    /// Two halves; `None` for a single row.
    pub(crate) fn halves(&self) -> Option<(Self, Self)> {
        let middle = self.entries.len() / 2;
        if middle == 0 {
            return None;
        }
        let (left, right) = self.entries.split_at(middle);
        Some((self.only(left), self.only(right)))
    }

    /// A batch of some of its rows.
    pub(crate) fn only(&self, entries: &[Entry]) -> Self {
        let mut builder = Builder::new(self.wrap, usize::MAX, usize::MAX);
        entries.iter().for_each(|entry| builder.copy(entry, self.row(entry)));
        builder.finish().unwrap_or_else(|| Self {
            body: Bytes::new(),
            entries: Vec::new(),
            was_read_back: false,
            wrap: self.wrap,
        })
    }
}

/// Whether a batch had room for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Some,
    /// The row is the first one of the next batch.
    None,
}

/// Cuts rows into batches.
#[derive(Debug)]
pub(crate) struct Builder {
    wrap: Wrap,
    max_rows: usize,
    max_bytes: usize,
    body: Vec<u8>,
    entries: Vec<Entry>,
}

impl Builder {
    /// Batches of at most `max_rows` rows and `max_bytes` bytes (a single larger row still goes, alone).
    pub(crate) fn new(wrap: Wrap, max_rows: usize, max_bytes: usize) -> Self {
        Self { wrap, max_rows, max_bytes, body: Vec::new(), entries: Vec::new() }
    }

    /// Writes a row straight into the body. A row for which there is no room is taken out again, and so is one that fails
    /// while it is written: no body ever holds a part of a row.
    pub(crate) fn push<E>(
        &mut self,
        id: RecordId,
        kind: EntryKind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Room, E> {
        if self.entries.len() >= self.max_rows && !self.entries.is_empty() {
            return Ok(Room::None);
        }
        let before = self.body.len();
        let start = self.open_row();
        if let Err(error) = write(&mut self.body) {
            self.body.truncate(before);
            return Err(error);
        }
        let row = self.body.get(start..).unwrap_or_default();
        let fingerprint = (kind != EntryKind::Tombstone).then(|| Fingerprint::of(row));
        let is_revived = kind == EntryKind::Revived
            && !Mutant::LeaveTheTombstone.is_active()
            && !has_deleted_field(row)
            && self.body.pop_if(|end| *end == b'}').is_some();
        if is_revived {
            self.body.extend_from_slice(REVIVAL);
        }
        if self.body.len() + self.wrap.close().len() > self.max_bytes && !self.entries.is_empty() {
            self.body.truncate(before);
            return Ok(Room::None);
        }
        let order = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(Entry { id, fingerprint, at: start..self.body.len(), order, is_revived });
        Ok(Room::Some)
    }

    /// A row of another batch, as it is there.
    fn copy(&mut self, entry: &Entry, row: &[u8]) {
        let start = self.open_row();
        self.body.extend_from_slice(row);
        self.entries.push(Entry { at: start..self.body.len(), ..entry.clone() });
    }

    /// Begins a row, and returns its place.
    fn open_row(&mut self) -> usize {
        self.body.extend_from_slice(if self.entries.is_empty() { self.wrap.open() } else { b"," });
        self.body.len()
    }

    /// The batch of what was written, if there is any.
    pub(crate) fn finish(&mut self) -> Option<Batch> {
        if self.entries.is_empty() {
            return None;
        }
        self.body.extend_from_slice(self.wrap.close());
        // The next one will be about as long.
        let next = Vec::with_capacity(self.body.len());
        Some(Batch {
            body: std::mem::replace(&mut self.body, next).into(),
            entries: std::mem::take(&mut self.entries),
            was_read_back: false,
            wrap: self.wrap,
        })
    }
}

/// Whether the pipeline itself gives the row such a field.
fn has_deleted_field(row: &[u8]) -> bool {
    let fields: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(row);
    fields.is_ok_and(|fields| fields.contains_key("deleted"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::convert::Infallible;

    use super::*;

    fn copy(row: &[u8], out: &mut Vec<u8>) -> Result<(), Infallible> {
        out.extend_from_slice(row);
        Ok(())
    }

    #[test]
    fn a_row_that_is_there_again_says_so_and_is_known_without_it() {
        for (row, sent) in [
            (r#"{"id":"7"}"#, r#"{"id":"7","deleted":false}"#),
            (r#"{"id":"7","deleted":0}"#, r#"{"id":"7","deleted":0}"#),
        ] {
            let mut builder = Builder::new(Wrap::Array, 9, 1000);
            for id in ["7", "8"] {
                builder.push(id.into(), EntryKind::Revived, |out| copy(row.as_bytes(), out)).unwrap();
            }
            let (left, right) = builder.finish().unwrap().halves().unwrap();
            for half in [left, right] {
                assert_eq!(half.body, format!("[{sent}]"));
                assert_eq!(half.entries[0].fingerprint, Some(Fingerprint::of(row.as_bytes())));
                assert_eq!(half.made(&half.entries[0]), row.as_bytes());
            }
        }
    }

    /// Returns the batch that had no room for the row.
    fn push(builder: &mut Builder, row: &str) -> Option<Batch> {
        let write = |builder: &mut Builder| {
            builder.push(row.into(), EntryKind::Row, |out| copy(row.as_bytes(), out)).unwrap()
        };
        if write(builder) == Room::Some {
            return None;
        }
        let full = builder.finish();
        assert_eq!(write(builder), Room::Some);
        full
    }

    /// Fails after it has written a part of a row. Returns the batch that had no room for it.
    fn fail(builder: &mut Builder) -> Option<Batch> {
        let write = |builder: &mut Builder| {
            builder.push("bad".into(), EntryKind::Row, |out| {
                out.extend_from_slice(b"{\"id\":\"bad\",\"cost\":");
                Err("not a number")
            })
        };
        let full = if write(builder) == Ok(Room::None) { builder.finish() } else { None };
        assert_eq!(write(builder), Err("not a number"));
        full
    }

    fn cut(rows: &[&str], max_rows: usize, max_bytes: usize) -> Vec<String> {
        let mut builder = Builder::new(Wrap::Content, max_rows, max_bytes);
        let mut batches = Vec::new();
        for row in rows {
            batches.extend(push(&mut builder, row));
        }
        batches.extend(builder.finish());
        batches.iter().map(|batch| String::from_utf8(batch.body.to_vec()).unwrap()).collect()
    }

    #[test]
    fn batches_are_cut_by_rows_and_by_bytes_and_lose_no_row() {
        assert_eq!(cut(&["1", "2", "3"], 2, 1000), [r#"{"content":[1,2]}"#, r#"{"content":[3]}"#]);
        assert_eq!(cut(&["11", "22", "33"], 9, 19), [r#"{"content":[11,22]}"#, r#"{"content":[33]}"#]);
        assert_eq!(cut(&["1111111111", "2"], 9, 5), [r#"{"content":[1111111111]}"#, r#"{"content":[2]}"#]);
        assert!(cut(&[], 9, 9).is_empty());
    }

    #[test]
    fn halves_hold_the_same_rows() {
        let mut builder = Builder::new(Wrap::Array, 9, 1000);
        for row in ["1", "2", "3"] {
            push(&mut builder, row);
        }
        let (left, right) = builder.finish().unwrap().halves().unwrap();
        assert_eq!((left.body.as_ref(), right.body.as_ref()), (&b"[1]"[..], &b"[2,3]"[..]));
        assert!(left.halves().is_none());
        assert_eq!(right.row(&right.entries[1]), b"3");
    }

    #[test]
    fn a_row_that_fails_while_it_is_written_leaves_nothing_in_any_batch() {
        // First, in the middle, where a batch is full, and last.
        let mut builder = Builder::new(Wrap::Content, 2, 1000);
        let mut batches = Vec::new();
        batches.extend(fail(&mut builder));
        batches.extend(push(&mut builder, "1"));
        batches.extend(fail(&mut builder));
        batches.extend(push(&mut builder, "2"));
        batches.extend(fail(&mut builder));
        batches.extend(push(&mut builder, "3"));
        batches.extend(fail(&mut builder));
        batches.extend(builder.finish());
        let bodies: Vec<&[u8]> = batches.iter().map(|batch| batch.body.as_ref()).collect();
        assert_eq!(bodies, [&br#"{"content":[1,2]}"#[..], br#"{"content":[3]}"#]);
        let rows = |batch: &Batch| -> Vec<String> {
            batch.entries.iter().map(|e| String::from_utf8_lossy(batch.row(e)).into_owned()).collect()
        };
        assert_eq!([rows(&batches[0]), rows(&batches[1])], [vec!["1", "2"], vec!["3"]]);
    }

    #[test]
    fn rows_that_all_fail_make_no_batch() {
        let mut builder = Builder::new(Wrap::Array, 2, 1000);
        assert!(fail(&mut builder).is_none());
        assert!(fail(&mut builder).is_none());
        assert!(builder.finish().is_none());
    }
}
