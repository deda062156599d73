//! The summary of a run, which people read and forward.

use std::fmt::Write as _;
use std::time::Duration;

use super::term::{Style, count, duration, sanitize};
use crate::catalogue::Rejected;
use crate::report::{Mode, Report, Status};
use crate::store::paths;
use crate::sync::Outcome;

/// Reasons for the quarantine that a summary names; the file has them all.
const REASONS: usize = 5;
/// Characters of a name or an id that are shown, and half as many as of a reason.
const TEXT_CHARS: usize = 80;

/// How a run ended, in a few short lines.
pub(super) fn summary(outcome: &Outcome, style: Style) -> String {
    let report = &outcome.report;
    let mut text = headline(report, style);
    // A run that failed before its first call has nothing but its error to show.
    let began = report.source.requests > 0 || report.status != Status::Failed;
    if began {
        field(&mut text, style, "source", &source(report));
        field(&mut text, style, if report.mode == Mode::Verify { "result" } else { "plan" }, &plan(report));
    }
    if let Some(digest) = report.digest.as_ref().filter(|_| report.mode == Mode::Plan) {
        field(&mut text, style, "digest", &format!("{digest} (sync --approve does this plan and no other)"));
    }
    if began && (report.mode == Mode::Sync || report.target.requests > 0) {
        field(&mut text, style, "target", &target(report));
    }
    if report.quarantined > 0 {
        field(&mut text, style, "quarantine", &quarantine(report));
        for reason in reasons(&outcome.rejected) {
            field(&mut text, style, "", &format!("- {reason}"));
        }
    }
    if let Some(remaining) = remaining(report) {
        field(&mut text, style, "remaining", &remaining);
    }
    if let Some(stopped) = error_line(outcome) {
        let label = if report.status == Status::Failed { "error" } else { "stopped" };
        field(&mut text, style, label, &stopped);
    }
    text
}

/// What stopped the run: `ErrorKind: message`, in one line.
pub(super) fn error_line(outcome: &Outcome) -> Option<String> {
    let line = outcome.error.as_ref().map(crate::error::Error::line).or_else(|| outcome.report.error.clone());
    line.map(|line| sanitize(&line, usize::MAX))
}

fn headline(report: &Report, style: Style) -> String {
    format!(
        "{} {} · connection {} · started {} · took {} · run {}\n",
        style.bold(report.mode.as_str()),
        style.status(report.status),
        sanitize(&report.connection, TEXT_CHARS),
        report.started_at,
        duration(Duration::from_millis(report.duration_ms)),
        report.run_id,
    )
}

fn field(text: &mut String, style: Style, label: &str, value: &str) {
    // Padding counts characters; the labels are ASCII.
    let _ = writeln!(text, "  {} {value}", style.dim(&format!("{label:<10}")));
}

fn source(report: &Report) -> String {
    let source = &report.source;
    let read = if source.full_read { "everything read" } else { "changes read" };
    format!(
        "{}, {} ({read}) · {}",
        counted(source.groups, "group", "groups"),
        counted(source.products, "product", "products"),
        calls(source.requests, source.retries, source.throttled),
    )
}

fn calls(requests: u64, retries: u64, throttled: u64) -> String {
    let mut text = counted(requests, "call", "calls");
    if retries > 0 {
        let _ = write!(text, ", {}", counted(retries, "repeat", "repeats"));
    }
    if throttled > 0 {
        let _ = write!(text, ", {} slowed down", count(throttled));
    }
    text
}

fn plan(report: &Report) -> String {
    let plan = &report.plan;
    let words = match report.mode {
        Mode::Verify => ["missing at the target", "differ", "extra at the target", "the same"],
        Mode::Sync | Mode::Plan | Mode::Undo => ["to create", "to update", "to delete", "unchanged"],
    };
    let counts = [plan.create, plan.update, plan.delete, plan.unchanged];
    counts.iter().zip(words).map(|(&n, word)| format!("{} {word}", count(n))).collect::<Vec<_>>().join(", ")
}

fn target(report: &Report) -> String {
    let target = &report.target;
    let calls = calls(target.requests, target.retries, target.throttled);
    if !matches!(report.mode, Mode::Sync | Mode::Undo) {
        return format!("read only · {calls}");
    }
    format!(
        "{} written, {} deleted in {} · {calls}",
        count(target.written),
        count(target.deleted),
        counted(target.batches, "batch", "batches"),
    )
}

fn quarantine(report: &Report) -> String {
    let rows = counted(report.quarantined, "row", "rows");
    match report.mode {
        Mode::Sync | Mode::Undo => format!(
            "{rows} in quarantine, with reasons in {} of the store",
            paths::quarantine(&sanitize(&report.connection, TEXT_CHARS), &report.run_id)
        ),
        // These modes write nothing, so there is no file to point at.
        Mode::Plan | Mode::Verify => format!("{rows} cannot go through; a sync puts them into quarantine"),
    }
}

/// The first reasons, each once, with its number of rows and an example.
fn reasons(rejected: &[Rejected]) -> Vec<String> {
    let mut reasons: indexmap::IndexMap<(String, &str), (u64, Option<&str>)> = indexmap::IndexMap::new();
    for row in rejected {
        let found = reasons.entry((row.kind.to_string(), row.reason.as_str())).or_default();
        found.0 += 1;
        found.1 = found.1.or(row.id.as_deref());
    }
    let mut lines: Vec<String> =
        reasons.iter().take(REASONS).map(|(key, found)| reason(key, *found)).collect();
    if reasons.len() > REASONS {
        lines.push(format!("and {} more reasons", count((reasons.len() - REASONS) as u64)));
    }
    lines
}

fn reason((kind, reason): &(String, &str), (rows, example): (u64, Option<&str>)) -> String {
    let example = example.map(|id| sanitize(id, TEXT_CHARS)).unwrap_or_default();
    let who = match (rows, example.is_empty()) {
        (1, true) => kind.clone(),
        (1, false) => format!("{kind} {example}"),
        (_, true) => counted(rows, kind, &format!("{kind}s")),
        (_, false) => format!("{} such as {example}", counted(rows, kind, &format!("{kind}s"))),
    };
    format!("{who}: {}", sanitize(reason, 2 * TEXT_CHARS))
}

fn remaining(report: &Report) -> Option<String> {
    let when = match report.resume_after_seconds {
        Some(seconds) => format!("come back in {}", duration(Duration::from_secs(seconds))),
        None => "run again to go on".to_owned(),
    };
    match (report.remaining, report.status, report.resume_after_seconds) {
        (0, Status::Paused, _) | (0, _, Some(_)) => Some(when),
        (0, _, None) => None,
        (rows, ..) => Some(format!("{} for the next run; {when}", counted(rows, "row", "rows"))),
    }
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RowKind;
    use crate::error::{Error, ErrorKind};
    use crate::report::{PlanCounts, SourceCounts, TargetCounts};

    fn outcome(mode: Mode, status: Status) -> Outcome {
        let report = Report {
            run_id: "r1".to_owned(),
            connection: "acme".to_owned(),
            mode,
            status,
            started_at: "2026-01-02T03:04:05Z".to_owned(),
            duration_ms: 3_210,
            source: SourceCounts {
                groups: 1,
                products: 3_000,
                requests: 45,
                retries: 2,
                throttled: 1,
                full_read: true,
                oldest_read_age_seconds: None,
                newly_read: None,
            },
            plan: PlanCounts { create: 3, update: 5, delete: 1, unchanged: 1_234_567 },
            target: TargetCounts::default(),
            quarantined: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: None,
            digest: None,
            changes: None,
            more_changes: None,
        };
        Outcome {
            report,
            error: None,
            lines: Vec::new(),
            rejected: Vec::new(),
            changes: Vec::new(),
            more_changes: 0,
        }
    }

    #[test]
    fn a_summary_of_a_paused_sync_says_what_is_left() {
        let mut outcome = outcome(Mode::Sync, Status::Paused);
        outcome.report.target =
            TargetCounts { written: 8, deleted: 1, batches: 1, requests: 12, ..TargetCounts::default() };
        outcome.report.quarantined = 3;
        outcome.report.remaining = 24;
        outcome.report.resume_after_seconds = Some(300);
        outcome.error = Some(Error::new(ErrorKind::Interrupted, "asked to stop"));
        let reject =
            |id: Option<&str>, why: &str| Rejected::new(RowKind::Product, id.map(str::to_owned), why, "{}");
        outcome.rejected = vec![
            reject(Some("12"), "its id is a repeat"),
            reject(Some("13"), "its id is a repeat"),
            reject(None, "no id"),
        ];
        insta::assert_snapshot!(summary(&outcome, Style::PLAIN), @r"
        sync paused · connection acme · started 2026-01-02T03:04:05Z · took 3.2s · run r1
          source     1 group, 3,000 products (everything read) · 45 calls, 2 repeats, 1 slowed down
          plan       3 to create, 5 to update, 1 to delete, 1,234,567 unchanged
          target     8 written, 1 deleted in 1 batch · 12 calls
          quarantine 3 rows in quarantine, with reasons in quarantine/acme/r1.jsonl of the store
                     - 2 products such as 12: its id is a repeat
                     - product: no id
          remaining  24 rows for the next run; come back in 5m 0s
          stopped    Interrupted: asked to stop
        ");
    }

    #[test]
    fn a_summary_of_a_plan_is_short() {
        insta::assert_snapshot!(summary(&outcome(Mode::Plan, Status::Succeeded), Style::PLAIN), @r"
        plan succeeded · connection acme · started 2026-01-02T03:04:05Z · took 3.2s · run r1
          source     1 group, 3,000 products (everything read) · 45 calls, 2 repeats, 1 slowed down
          plan       3 to create, 5 to update, 1 to delete, 1,234,567 unchanged
        ");
    }

    #[test]
    fn many_reasons_are_counted() {
        let rejected: Vec<Rejected> =
            (0..9).map(|n| Rejected::new(RowKind::Group, None, format!("reason {n}"), "{}")).collect();
        let lines = reasons(&rejected);
        assert_eq!(lines.len(), REASONS + 1);
        assert_eq!(lines.last().map(String::as_str), Some("and 4 more reasons"));
    }

    #[test]
    fn a_summary_has_colours_only_where_they_are_wanted() {
        let failed = outcome(Mode::Sync, Status::Failed);
        assert!(summary(&failed, Style { colour: true }).contains('\u{1b}'));
        assert!(!summary(&failed, Style::PLAIN).contains('\u{1b}'));
    }
}
