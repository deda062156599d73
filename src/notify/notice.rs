//! The notices, in the language of a connection. They start with the program's name: it can be the keyword that a robot
//! asks for.

use serde::{Deserialize, Serialize};

use super::known::Day;
use super::{Seen, Settings};
use crate::catalogue::Rejected;
use crate::report::Status;
use crate::words::{Message, Words as _, say};

/// Rows that a notice names; of the others it says how many there are.
const ROWS_NAMED: usize = 5;
/// Characters of a row's line.
const ROW_CHARS: usize = 160;
/// Fields that people know a row by, where it has one of them.
const NAMES: [&str; 5] = ["name", "cn_name", "product_name", "product_no", "model"];

/// What a notice is about. At most one of each waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Topic {
    /// The connection fails.
    Failed,
    /// It has not completed a run for long.
    Stalled,
    /// It works again.
    Recovered,
    /// Rows are newly in the quarantine.
    SetAside,
    /// No row is in the quarantine any more.
    NoneSetAside,
    /// The daily digest.
    Digest,
}

impl Topic {
    pub(super) fn is_trouble(self) -> bool {
        matches!(self, Self::Failed | Self::Stalled)
    }
}

/// One change of state, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    pub(super) topic: Topic,
    /// Whether it is told in quiet hours too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) urgent: bool,
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    /// The run's report, where one can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    /// The marks of the rows that it tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rows: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Writes the notices of one run.
pub(super) struct Writer<'a> {
    pub(super) seen: &'a Seen<'a>,
    pub(super) settings: &'a Settings,
    pub(super) now_ms: u64,
}

impl Writer<'_> {
    /// `is_first`: the group knows of no trouble yet.
    pub(super) fn failed(&self, is_first: bool, since: &str) -> Notice {
        let title = if is_first {
            say!("the sync fails")
        } else {
            say!("the sync still fails, now with another error")
        };
        let mut lines = vec![say!("since: {at}", at = since)];
        lines.extend(self.seen.completed_at_ms.map(|at| say!("last completed run: {at}", at = time(at))));
        lines.extend(self.error());
        self.notice(Topic::Failed, true, &title, lines)
    }

    pub(super) fn stalled(&self, since_ms: u64) -> Notice {
        let age = age(self.now_ms.saturating_sub(since_ms));
        let title = say!("no sync has completed for {age}", age);
        let last = match self.seen.completed_at_ms {
            Some(at) => say!("last completed run: {at}", at = time(at)),
            None => say!("last completed run: none yet; watched since {at}", at = time(since_ms)),
        };
        let report = self.seen.report;
        let mut lines = vec![last];
        if report.status == Status::Paused {
            lines.push(say!("it only pauses; rows left by this run: {rows}", rows = report.remaining));
        }
        let read = report.source.newly_read.filter(|read| *read > 0);
        lines.extend(read.map(|rows| say!("it makes progress; rows newly read by this run: {rows}", rows)));
        lines.extend(self.error());
        self.notice(Topic::Stalled, false, &title, lines)
    }

    /// `since`: when the trouble began.
    pub(super) fn recovered(&self, urgent: bool, since: &str) -> Notice {
        let lines = vec![say!("in trouble since: {at}", at = since)];
        self.notice(Topic::Recovered, urgent, &say!("the sync works again"), lines)
    }

    /// `marks`: those of the rows that are to be told.
    pub(super) fn set_aside(&self, rows: &[&Rejected], marks: Vec<String>) -> Notice {
        let title = say!("rows newly in the quarantine: {rows}", rows = rows.len());
        let mut lines = vec![say!("in the quarantine now: {rows}", rows = self.seen.report.quarantined)];
        lines.extend(rows.iter().take(ROWS_NAMED).map(|row| self.row(row)));
        if rows.len() > ROWS_NAMED {
            lines.push(say!("and {rows} more", rows = rows.len() - ROWS_NAMED));
        }
        Notice { rows: marks, ..self.notice(Topic::SetAside, false, &title, lines) }
    }

    pub(super) fn none_set_aside(&self) -> Notice {
        let title = say!("no row is in the quarantine any more");
        self.notice(Topic::NoneSetAside, false, &title, Vec::new())
    }

    pub(super) fn digest(&self, day: &Day) -> Notice {
        let Day { completed, paused, failed, written, deleted, .. } = *day;
        let mut lines = vec![
            say!("since: {at}", at = time(day.since_ms)),
            say!("runs: {completed} completed, {paused} paused, {failed} failed", completed, paused, failed),
            say!("rows: {written} written, {deleted} deleted", written, deleted),
        ];
        match self.seen.report.status {
            Status::Succeeded | Status::Partial => {
                lines.push(say!("in the quarantine now: {rows}", rows = self.seen.report.quarantined));
            }
            Status::Paused | Status::Failed => {
                lines.extend(
                    self.seen.completed_at_ms.map(|at| say!("last completed run: {at}", at = time(at))),
                );
            }
        }
        self.notice(Topic::Digest, false, &say!("daily digest"), lines)
    }

    fn notice(&self, topic: Topic, urgent: bool, title: &Message, lines: Vec<Message>) -> Notice {
        let lang = self.settings.lang;
        let connection = say!("connection: {name}", name = self.seen.name);
        let run = say!("run: {run}", run = self.seen.report.run_id);
        let lines = std::iter::once(connection).chain(lines).chain([run]);
        Notice {
            topic,
            urgent,
            title: format!("okki-sync {}", title.in_language(lang)),
            lines: lines.map(|line| harmless(&line.in_language(lang))).collect(),
            link: self.settings.report_url.as_ref().map(|url| {
                url.replace("{connection}", self.seen.name).replace("{run_id}", &self.seen.report.run_id)
            }),
            rows: Vec::new(),
        }
    }

    fn error(&self) -> Option<Message> {
        self.seen.error.map(|error| Message::from(error.line_in(self.settings.lang)))
    }

    fn row(&self, row: &Rejected) -> Message {
        let lang = self.settings.lang;
        let mut who = row.kind.words().in_language(lang);
        if let Some(id) = &row.id {
            who.push(' ');
            who.push_str(id);
        }
        if let Some(name) = name_of(row) {
            who.push(' ');
            who.push_str(&crate::catalogue::short(&name));
        }
        let line =
            say!("{who}: {reason}", who, reason = Message::from(row.reason.as_str())).in_language(lang);
        let mut cut: String = line.chars().take(ROW_CHARS).collect();
        if cut.len() < line.len() {
            cut.push('…');
        }
        Message::from(cut)
    }
}

fn name_of(row: &Rejected) -> Option<String> {
    let fields: serde_json::Value = serde_json::from_str(row.raw.get()).ok()?;
    let name = NAMES.iter().find_map(|name| fields.get(name)?.as_str())?.trim();
    (!name.is_empty() && row.id.as_deref() != Some(name)).then(|| name.to_owned())
}

/// Servers and people wrote parts of it: the robots read `<@…>` and `<at …>` as a call to somebody.
fn harmless(line: &str) -> String {
    line.chars()
        .map(|c| match c {
            '<' => '‹',
            '>' => '›',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

/// A wall-clock time, RFC 3339 in UTC, as run ids and reports have it.
pub(super) fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |at| format!("{at:.0}"))
}

fn age(ms: u64) -> Message {
    let minutes = ms / 60_000;
    match minutes {
        0..60 => say!("{minutes} min", minutes),
        60..2_880 => say!("{hours}h {minutes}m", hours = minutes / 60, minutes = minutes % 60),
        _ => say!("{days} days", days = minutes / 1_440),
    }
}
