//! `runs`: the last runs of a connection, as a table for people or as their reports.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::args::RunsArgs;
use super::term::{Screen, Style, count, duration, pad, print, print_error, sanitize};
use super::{EXIT_OK, failed, pipeline};
use crate::app::{App, Runs, RunsAsked, StoredReport};
use crate::clock::Clock;
use crate::config::Env;
use crate::report::Report;
use crate::words::{Message, Words as _, phrase, recognise_line, say};

/// Characters of what stopped a run that the table shows.
const ERROR_CHARS: usize = 160;

/// The table's columns: heading, width, and where its cells stand.
type Columns = [(Message, usize, Align); 8];

/// Durations are longer in some languages: their column is as wide as the widest one.
fn columns(reports: &[StoredReport], style: Style) -> Columns {
    let widths = reports.iter().map(|found| took(&found.report, style).width());
    [
        (say!("started (UTC)"), 19, Align::Left),
        (say!("status"), 9, Align::Left),
        (say!("took"), widths.max().unwrap_or_default().max(8), Align::Right),
        (say!("written"), 9, Align::Right),
        (say!("deleted"), 9, Align::Right),
        (say!("set aside"), 9, Align::Right),
        (say!("left"), 9, Align::Right),
        (say!("run"), 0, Align::Left),
    ]
}

/// Text stands to the left, numbers to the right.
#[derive(Clone, Copy)]
enum Align {
    Left,
    Right,
}

/// `runs`.
pub(super) async fn runs(env: &Env, screen: Screen, args: &RunsArgs) -> u8 {
    let app = App::new(env.clone());
    let since = args.since.map(|since| since.before(Clock::system().now()));
    let asked = RunsAsked { since, failed: args.failed, limit: args.limit };
    let runs = match app.runs(pipeline(&app, args.pipeline.as_ref()), &asked).await {
        Ok(runs) => runs,
        Err(error) => return failed(screen, &error),
    };
    match args.json {
        true => print(&as_json(&runs)),
        false => screen.print(&as_table(&runs, args.failed, screen.style())),
    }
    for why in &runs.unreadable {
        let why = Message::from(sanitize(why, usize::MAX));
        print_error(&screen.say(&say!("warning: {why}; left out", why)));
    }
    if runs.cut {
        let cut = say!("warning: only the newest 2,000 runs were looked at; --since asks for a later time");
        print_error(&screen.say(&cut));
    }
    EXIT_OK
}

fn as_json(runs: &Runs) -> String {
    let reports: Vec<_> = runs.reports.iter().map(|found| &found.raw).collect();
    // Values that were read always have a JSON form.
    serde_json::to_string(&reports).map(|text| text + "\n").unwrap_or_default()
}

fn as_table(runs: &Runs, failed: bool, style: Style) -> String {
    let connection = sanitize(&runs.connection, ERROR_CHARS);
    if runs.reports.is_empty() {
        let at = sanitize(&runs.at, usize::MAX);
        let none = match failed {
            true => say!("no run that failed of connection {connection} in {at}", connection, at),
            false => say!("no run of connection {connection} in {at}", connection, at),
        };
        return style.say(&none) + "\n";
    }
    let mut text = style.say(&say!("connection {connection}, newest first", connection)) + "\n";
    let columns = columns(&runs.reports, style);
    let headings: Vec<String> =
        columns.iter().map(|(heading, width, align)| cell(&style.say(heading), *width, *align)).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", style.dim(headings.join("  ").trim_end()));
    for found in &runs.reports {
        row(&found.report, &columns, style, &mut text);
    }
    text
}

fn cell(text: &str, width: usize, align: Align) -> String {
    match align {
        Align::Left => pad(text, width),
        Align::Right => {
            let missing = width.saturating_sub(text.width());
            format!("{}{text}", " ".repeat(missing))
        }
    }
}

fn took(report: &Report, style: Style) -> String {
    style.say(&duration(Duration::from_millis(report.duration_ms)))
}

fn row(report: &Report, columns: &Columns, style: Style, text: &mut String) {
    let numbers = [report.target.written, report.target.deleted, report.quarantined, report.remaining];
    let values: Vec<String> = std::iter::once(took(report, style)).chain(numbers.map(count)).collect();
    let values: Vec<String> = values
        .iter()
        .zip(columns.iter().skip(2))
        .map(|(value, (_, width, align))| cell(value, *width, *align))
        .collect();
    // Colours have no width: the padding is that of the word alone.
    let status = style.say(&report.status.words());
    let padding = " ".repeat(9_usize.saturating_sub(status.width()));
    let _ = writeln!(
        text,
        "{:<19}  {}{padding}  {}  {}",
        started(&report.started_at),
        style.status(report.status),
        values.join("  "),
        style.dim(&sanitize(&report.run_id, ERROR_CHARS)),
    );
    if let Some(error) = &report.error {
        let _ = writeln!(text, "{:21}{}", "", sanitize(&recognise_line(error, style.lang), ERROR_CHARS));
    }
}

/// `2026-11-24T18:43:16.080Z` as `2026-11-24 18:43:16`.
fn started(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => sanitize(at, 19),
    }
}

/// What `--since` says: a time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    Ago(Duration),
    At(Timestamp),
}

impl Since {
    /// Reads `24h`, `7 days`, `2026-11-24` (its first moment in UTC) or an RFC 3339 time.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let at = text.parse::<Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse());
        at.map(Self::At).map_err(|_| {
            phrase!("expected how long ago, as in 24h or 7days, or a time, as in 2026-11-24 or 2026-11-24T18:00:00Z")
        })
    }

    fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::words::Lang;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let since = |text: &str| Since::parse(text).unwrap().before(now).to_string();
        assert_eq!(since("36h"), "2026-11-24T00:00:00Z");
        assert_eq!(since("2026-11-24"), "2026-11-24T00:00:00Z");
        assert_eq!(since("2026-11-24T18:00:00+08:00"), "2026-11-24T10:00:00Z");
        assert_eq!(since("9000000y"), Timestamp::MIN.to_string());
        for wrong in ["yesterday", "", "2026-13-01", "-1h"] {
            assert!(Since::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_shows_each_run_and_what_stopped_it() {
        let raw = serde_json::json!({
            "run_id": "20261124T184316080Z-0dd1ac67", "connection": "acme", "mode": "sync", "status": "failed",
            "started_at": "2026-11-24T18:43:16.080Z", "duration_ms": 62_403,
            "source": {"groups": 3, "products": 5, "requests": 3, "retries": 0, "throttled": 0, "full_read": true},
            "plan": {"create": 3, "update": 0, "delete": 0, "unchanged": 0},
            "target": {"written": 12_345, "deleted": 0, "batches": 1, "requests": 2, "retries": 0, "throttled": 0},
            "quarantined": 1, "remaining": 0, "resume_after_seconds": null,
            "error": "TargetUnavailable: host\u{1b}[2J: no answer",
        });
        let report: Report = serde_json::from_value(raw.clone()).unwrap();
        let runs = Runs {
            connection: "acme".to_owned(),
            at: "memory:/reports/acme".to_owned(),
            reports: vec![StoredReport { report, raw }],
            unreadable: Vec::new(),
            cut: false,
        };
        insta::assert_snapshot!(as_table(&runs, false, Style::PLAIN), @r"
        connection acme, newest first
        started (UTC)        status         took    written    deleted  set aside       left  run
        2026-11-24 18:43:16  failed        1m 2s     12,345          0          1          0  20261124T184316080Z-0dd1ac67
                             TargetUnavailable: host: no answer
        ");
        let table = as_table(&runs, false, Style { lang: Lang::Zh, ..Style::PLAIN });
        let end = |word: &str| {
            let line = table.lines().find(|line| line.contains(word)).unwrap();
            line.split_once(word).unwrap().0.width() + word.width()
        };
        assert_eq!(end("用时"), end("1 分 2 秒"), "{table}");
        assert_eq!(end("写入"), end("12,345"), "{table}");
        let none = Runs { reports: Vec::new(), ..runs };
        assert_eq!(
            as_table(&none, true, Style::PLAIN),
            "no run that failed of connection acme in memory:/reports/acme\n"
        );
    }
}
