//! The summary of a run, which people read and forward.

use std::fmt::Write as _;
use std::time::Duration;

use super::term::{Style, count, counted, duration, pad, sanitize};
use crate::catalogue::{Rejected, RowKind};
use crate::report::{Mode, Report, Status};
use crate::store::paths;
use crate::sync::Outcome;
use crate::words::{Lang, Message, Words as _, recognise_line, say};

/// Reasons for the quarantine that a summary names; the file has them all.
const REASONS: usize = 5;
/// Characters of a name or an id that are shown, and half as many as of a reason.
const TEXT_CHARS: usize = 80;
/// Columns of a label; one follows it.
const LABEL_COLUMNS: usize = 10;

/// How a run ended, in a few short lines.
pub(super) fn summary(outcome: &Outcome, style: Style) -> String {
    let report = &outcome.report;
    let mut text = headline(report, style);
    // A run that failed before its first call has nothing but its error to show.
    let began = report.source.requests > 0 || report.status != Status::Failed;
    if began {
        let label = if report.mode == Mode::Verify { say!("result") } else { say!("plan") };
        field(&mut text, style, &say!("source"), &source(report));
        field(&mut text, style, &label, &plan(report));
    }
    if let Some(digest) = report.digest.as_ref().filter(|_| report.mode == Mode::Plan) {
        let approve = say!("{digest} (sync --approve does this plan and no other)", digest);
        field(&mut text, style, &say!("digest"), &approve);
    }
    if began && (report.mode == Mode::Sync || report.target.requests > 0) {
        field(&mut text, style, &say!("target"), &target(report));
    }
    if report.quarantined > 0 {
        field(&mut text, style, &say!("quarantine"), &quarantine(report));
        for reason in reasons(&outcome.rejected) {
            field(&mut text, style, &Message::plain(""), &say!("- {reason}", reason));
        }
    }
    if let Some(remaining) = remaining(report) {
        field(&mut text, style, &say!("remaining"), &remaining);
    }
    if let Some(stopped) = error_line(outcome, style.lang) {
        let label = if report.status == Status::Failed { say!("error") } else { say!("stopped") };
        // The line is in its language already.
        let _ = writeln!(text, "  {} {stopped}", style.dim(&pad(&style.say(&label), LABEL_COLUMNS)));
    }
    text
}

/// How a stored run ended. Its reasons for the quarantine are in the file that the summary names.
pub(super) fn of_report(report: Report, style: Style) -> String {
    let nothing_else = Outcome {
        report,
        error: None,
        lines: Vec::new(),
        rejected: Vec::new(),
        changes: Vec::new(),
        more_changes: 0,
    };
    summary(&nothing_else, style)
}

/// What stopped the run: `ErrorKind: message`, in one line.
pub(super) fn error_line(outcome: &Outcome, lang: Lang) -> Option<String> {
    let line = match (&outcome.error, &outcome.report.error) {
        (Some(error), _) => error.line_in(lang),
        (None, Some(line)) => recognise_line(line, lang),
        (None, None) => return None,
    };
    Some(sanitize(&line, usize::MAX))
}

fn headline(report: &Report, style: Style) -> String {
    let line = say!(
        "{mode} {status} · connection {connection} · started {at} · took {time} · run {run}",
        mode = style.bold(&style.say(&report.mode.words())),
        status = style.status(report.status),
        connection = sanitize(&report.connection, TEXT_CHARS),
        at = report.started_at,
        time = duration(Duration::from_millis(report.duration_ms)),
        run = report.run_id,
    );
    style.say(&line) + "\n"
}

fn field(text: &mut String, style: Style, label: &Message, value: &Message) {
    let label = style.dim(&pad(&style.say(label), LABEL_COLUMNS));
    let _ = writeln!(text, "  {label} {}", style.say(value));
}

fn source(report: &Report) -> Message {
    let source = &report.source;
    say!(
        "{groups}, {products} ({read}) · {calls}",
        groups = counted!(source.groups, "{n} group", "{n} groups"),
        products = counted!(source.products, "{n} product", "{n} products"),
        read = if source.full_read { say!("everything read") } else { say!("changes read") },
        calls = calls(source.requests, source.retries, source.throttled),
    )
}

fn calls(requests: u64, retries: u64, throttled: u64) -> Message {
    let mut text = counted!(requests, "{n} call", "{n} calls");
    if retries > 0 {
        text = and(text, counted!(retries, "{n} repeat", "{n} repeats"));
    }
    if throttled > 0 {
        text = and(text, say!("{n} slowed down", n = count(throttled)));
    }
    text
}

fn and(one: Message, other: Message) -> Message {
    say!("{one}, {other}", one, other)
}

fn plan(report: &Report) -> Message {
    let plan = &report.plan;
    let [create, update, delete, same] = [plan.create, plan.update, plan.delete, plan.unchanged].map(count);
    match report.mode {
        Mode::Verify => say!(
            "{create} missing at the target, {update} differ, {delete} extra at the target, {same} the same",
            create,
            update,
            delete,
            same,
        ),
        Mode::Sync | Mode::Plan | Mode::Undo => say!(
            "{create} to create, {update} to update, {delete} to delete, {same} unchanged",
            create,
            update,
            delete,
            same,
        ),
    }
}

fn target(report: &Report) -> Message {
    let target = &report.target;
    let calls = calls(target.requests, target.retries, target.throttled);
    if !matches!(report.mode, Mode::Sync | Mode::Undo) {
        return say!("read only · {calls}", calls);
    }
    say!(
        "{written} written, {deleted} deleted in {batches} · {calls}",
        written = count(target.written),
        deleted = count(target.deleted),
        batches = counted!(target.batches, "{n} batch", "{n} batches"),
        calls,
    )
}

fn quarantine(report: &Report) -> Message {
    let rows = counted!(report.quarantined, "{n} row", "{n} rows");
    match report.mode {
        Mode::Sync | Mode::Undo => {
            let path = paths::quarantine(&sanitize(&report.connection, TEXT_CHARS), &report.run_id);
            say!("{rows} in quarantine, with reasons in {path} of the store", rows, path)
        }
        // These modes write nothing, so there is no file to point at.
        Mode::Plan | Mode::Verify => {
            say!("{rows} cannot go through; a sync puts them into quarantine", rows)
        }
    }
}

/// The first reasons, each once, with its number of rows and an example.
fn reasons(rejected: &[Rejected]) -> Vec<Message> {
    let mut reasons: indexmap::IndexMap<(RowKind, &str), (u64, Option<&str>)> = indexmap::IndexMap::new();
    for row in rejected.iter().filter(|row| !row.dismissed) {
        let found = reasons.entry((row.kind, row.reason.as_str())).or_default();
        found.0 += 1;
        found.1 = found.1.or(row.id.as_deref());
    }
    let mut lines: Vec<Message> =
        reasons.iter().take(REASONS).map(|(key, found)| reason(*key, *found)).collect();
    if reasons.len() > REASONS {
        lines.push(say!("and {more} more reasons", more = count((reasons.len() - REASONS) as u64)));
    }
    lines
}

fn reason((kind, reason): (RowKind, &str), (rows, example): (u64, Option<&str>)) -> Message {
    let example = example.map(|id| sanitize(id, TEXT_CHARS)).unwrap_or_default();
    let kinds = match kind {
        RowKind::Group => counted!(rows, "{n} group", "{n} groups"),
        RowKind::Product => counted!(rows, "{n} product", "{n} products"),
        RowKind::Record => counted!(rows, "{n} record", "{n} records"),
    };
    let who = match (rows, example.is_empty()) {
        (1, true) => kind.words(),
        (1, false) => say!("{kind} {example}", kind, example),
        (_, true) => kinds,
        (_, false) => say!("{kinds} such as {example}", kinds, example),
    };
    say!("{who}: {reason}", who, reason = Message::from(sanitize(reason, 2 * TEXT_CHARS)))
}

fn remaining(report: &Report) -> Option<Message> {
    let when = match report.resume_after_seconds {
        Some(seconds) => say!("come back in {time}", time = duration(Duration::from_secs(seconds))),
        None => say!("run again to go on"),
    };
    match (report.remaining, report.status, report.resume_after_seconds) {
        (0, Status::Paused, _) | (0, _, Some(_)) => Some(when),
        (0, _, None) => None,
        (n, ..) => {
            let rows = counted!(n, "{n} row", "{n} rows");
            Some(say!("{rows} for the next run; {when}", rows, when))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{Reason, ReasonKind};
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
            quarantined_by_kind: Default::default(),
            dismissed: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: None,
            only: Vec::new(),
            digest: None,
            changes: None,
            more_changes: None,
            timeline: None,
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
        let reject = |id: Option<&str>, why: &str| {
            Rejected::new(RowKind::Product, id.map(str::to_owned), Reason::new(ReasonKind::Other, why), "{}")
        };
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
        let rejected: Vec<Rejected> = (0..9)
            .map(|n| Rejected::new(RowKind::Group, None, Reason::misfit(format!("reason {n}")), "{}"))
            .collect();
        let lines = reasons(&rejected);
        assert_eq!(lines.len(), REASONS + 1);
        assert_eq!(lines.last().map(ToString::to_string).as_deref(), Some("and 4 more reasons"));
    }

    #[test]
    fn a_summary_has_colours_only_where_they_are_wanted() {
        let failed = outcome(Mode::Sync, Status::Failed);
        assert!(summary(&failed, Style { colour: true, ..Style::PLAIN }).contains('\u{1b}'));
        assert!(!summary(&failed, Style::PLAIN).contains('\u{1b}'));
    }
}
