//! What the group knows of a connection, and what it is still to be told: a small file, `notices/<connection>.json`.
//!
//! A change of state goes into the file together with its notice, before anything is sent: a run that is killed loses
//! none. Whoever finds a notice there tells it, until it has reached the group, or was on its way [`MOST_TRIES`] times
//! without an answer.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::decide::MARKS_KEPT;
use super::notice::{Notice, Topic};
use super::times::TimeOfDay;
use crate::report::{Report, Status};

/// Attempts whose fate is unknown. After so many the group has probably read the notice more than once.
pub(super) const MOST_TRIES: u32 = 3;

/// Whether a connection works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    #[default]
    Well,
    Failed,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    #[serde(rename = "health")]
    pub(super) condition: Condition,
    /// The name of the error that was told last.
    pub(super) kind: Option<String>,
    /// The names of all errors that were told since it began to fail.
    #[serde(default)]
    pub(super) told: Vec<String>,
    /// When this condition began: the start of the run that found it.
    pub(super) since: String,
    pub(super) run_id: String,
    /// Neither the failure nor the standstill has been on its way to the group yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) unheard: bool,
    /// The connection stands still, since its last completed run, or since [`Self::watched_since_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stale_since_ms: Option<u64>,
    /// The end of the first run that was seen, of a connection that has never completed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) watched_since_ms: Option<u64>,
    /// The marks of the rows in the quarantine that the group was told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rows: Vec<String>,
    /// What has happened since the last digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) day: Option<Day>,
    /// What is still to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) waiting: Vec<Notice>,
    /// Somebody has sent what is waiting, and has not said what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<Attempt>,
}

/// An attempt at telling what is waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub(super) at_ms: u64,
    /// Attempts in a row without an answer, this one included.
    pub(super) tries: u32,
}

/// The numbers of a daily digest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    pub(super) since_ms: u64,
    /// When the digest is due.
    pub(super) due_ms: u64,
    pub(super) completed: u64,
    pub(super) paused: u64,
    pub(super) failed: u64,
    pub(super) written: u64,
    pub(super) deleted: u64,
}

impl Day {
    pub(super) fn starting(now_ms: u64, at: TimeOfDay) -> Self {
        Self { since_ms: now_ms, due_ms: at.next_after(now_ms), ..Self::default() }
    }

    pub(super) fn count(&mut self, report: &Report) {
        let runs = match report.status {
            Status::Succeeded | Status::Partial => &mut self.completed,
            Status::Paused => &mut self.paused,
            Status::Failed => &mut self.failed,
        };
        *runs += 1;
        self.written += report.target.written;
        self.deleted += report.target.deleted;
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Known {
    /// A file that cannot be read says nothing; it is replaced.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    pub(super) fn is_in_trouble(&self) -> bool {
        self.condition == Condition::Failed || self.stale_since_ms.is_some()
    }

    /// Takes a notice of this topic off what is waiting; whether there was one.
    pub(super) fn take(&mut self, topic: Topic) -> Option<Notice> {
        let at = self.waiting.iter().position(|notice| notice.topic == topic)?;
        Some(self.waiting.remove(at))
    }

    /// Lets a notice wait, in place of an older one of its topic.
    pub(super) fn put(&mut self, notice: Notice) {
        self.take(notice.topic);
        self.waiting.push(notice);
    }

    /// The same once these topics are on their way: from here on the group may have read them.
    pub(super) fn sending(&self, topics: &[Topic], attempt: Attempt) -> Self {
        let mut next = Self { attempt: Some(attempt), ..self.clone() };
        next.unheard &= !topics.iter().any(|topic| topic.is_trouble());
        for notice in self.waiting.iter().filter(|notice| topics.contains(&notice.topic)) {
            next.rows.extend(notice.rows.iter().filter(|row| self.rows.binary_search(row).is_err()).cloned());
        }
        next.rows.sort_unstable();
        next.rows.truncate(MARKS_KEPT);
        next
    }

    /// The same once these notices have reached the group, or have been tried often enough.
    pub(super) fn told(&self, notices: &[Notice]) -> Self {
        let mut next = Self { attempt: None, ..self.clone() };
        next.waiting.retain(|waiting| !notices.contains(waiting));
        next
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_file_of_version_0_1_0_is_read_and_keeps_its_bytes() {
        let old = r#"{"health":"failed","kind":"GuardRefused","told":["StoreUnavailable","GuardRefused"],"since":"2026-01-01T00:00:00.000Z","run_id":"run-2"}"#;
        let known = Known::from_bytes(old.as_bytes());
        assert!(known.is_in_trouble() && !known.unheard);
        assert_eq!(String::from_utf8(known.bytes().to_vec()).unwrap(), old);
        let older = Known::from_bytes(br#"{"health":"failed","kind":null,"since":"s","run_id":"r"}"#);
        assert_eq!((older.condition, older.told.len()), (Condition::Failed, 0));
        assert_eq!(Known::from_bytes(b"nonsense"), Known::default());
    }

    #[test]
    fn the_file_holds_what_waits_with_its_words() {
        let mut known = Known { stale_since_ms: Some(5), unheard: true, ..Known::default() };
        known.put(Notice {
            topic: Topic::Stalled,
            urgent: false,
            title: "okki-sync".to_owned(),
            lines: vec!["one".to_owned()],
            link: None,
            rows: Vec::new(),
        });
        let known = known.sending(&[], Attempt { at_ms: 7, tries: 1 });
        assert_snapshot!(String::from_utf8(known.bytes().to_vec()).unwrap(), @r#"{"health":"well","kind":null,"told":[],"since":"","run_id":"","unheard":true,"stale_since_ms":5,"waiting":[{"topic":"stalled","title":"okki-sync","lines":["one"]}],"attempt":{"at_ms":7,"tries":1}}"#);
        assert_eq!(Known::from_bytes(&known.bytes()), known);
    }
}
