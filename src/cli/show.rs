//! What people read: the tree of a plan or a verification, and the summary that they forward.

use std::fmt::Write as _;
use std::time::Duration;

use owo_colors::{OwoColorize as _, Style};

use crate::catalogue::Rejected;
use crate::report::{Mode, Report, Status};
use crate::sync::{DiffKind, DiffLine, Outcome};

/// Lines of a tree that are shown unless all were asked for.
pub(crate) const TREE_LINES: usize = 200;
/// Reasons for the quarantine that a summary names; the file has them all.
const REASONS: usize = 5;
/// Characters of a name or a reason that are shown.
const TEXT_CHARS: usize = 80;
/// Levels that are drawn; whatever lies deeper stands at the last one.
const LEVELS: usize = 16;

/// Paints, or leaves text plain: decided once, for the stream that is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    /// Whether ANSI codes are wanted.
    pub(crate) colour: bool,
}

impl Paint {
    fn with(self, style: Style, text: &str) -> String {
        if self.colour { text.style(style).to_string() } else { text.to_owned() }
    }

    fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    /// A heading.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn mark(self, kind: DiffKind) -> String {
        let style = match kind {
            DiffKind::Same => Style::new().dimmed(),
            // In a plan it is what goes; in a verification it is what is too much. Either wants a look.
            DiffKind::OnlyTarget => Style::new().red(),
            DiffKind::Differs => Style::new().yellow(),
            DiffKind::NotComparable => Style::new().red().bold(),
            DiffKind::OnlySource => Style::new().green(),
            DiffKind::Heading => Style::new(),
        };
        self.with(style, &kind.mark().to_string())
    }

    fn status(self, status: Status) -> String {
        let style = match status {
            Status::Succeeded => Style::new().green(),
            Status::Partial | Status::Paused => Style::new().yellow(),
            Status::Failed => Style::new().red(),
        };
        self.with(style.bold(), status.as_str())
    }
}

/// Text from outside, made fit for a terminal: one line, no escape sequences, no control characters, not too long.
pub(crate) fn clean(text: &str, longest: usize) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            c if c.is_whitespace() => clean.push(' '),
            c if c.is_control() || is_direction(c) => {}
            c => clean.push(c),
        }
    }
    let clean = clean.trim();
    match clean.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", clean.get(..end).unwrap_or_default()),
        None => clean.to_owned(),
    }
}

/// Characters that reorder a line, or that are not seen at all: they could make one name look like another.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Skips the rest of an escape sequence; without its escape character it would be harmless, but in the way.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    let mut ahead = chars.clone();
    let end: fn(char) -> bool = match ahead.next() {
        Some('[') => |c| ('\u{40}'..='\u{7e}').contains(&c),
        Some(']' | 'P' | 'X' | '^' | '_') => |c| c == '\u{7}' || c == '\\',
        _ => return,
    };
    // A sequence that never ends is no sequence: its text is kept then.
    if ahead.any(end) {
        *chars = ahead;
    }
}

/// A count with its digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A duration in the two units that matter: `4h 2m`, `12m 5s`, `3.2s`, `80ms`.
pub(crate) fn duration(time: Duration) -> String {
    let (seconds, ms) = (time.as_secs(), time.subsec_millis());
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The tree of a plan or a verification, with a legend. Unchanged rows are left out, except those above a change.
pub(crate) fn tree(mode: Mode, lines: &[DiffLine], all: bool, paint: Paint) -> String {
    let shown = changed_and_above(lines);
    if shown.is_empty() {
        return String::new();
    }
    let cap = if all { usize::MAX } else { TREE_LINES };
    let mut text = format!("{}\n", paint.dim(legend(mode)));
    for (line, guide) in shown.iter().zip(guides(&shown)).take(cap) {
        row(line, &guide, paint, &mut text);
    }
    let more = shown.iter().skip(cap).filter(|line| line.kind != DiffKind::Same).count();
    if more > 0 {
        let more = format!("… and {} more; --all shows them", count(more as u64));
        let _ = writeln!(text, "{}", paint.dim(&more));
    }
    text
}

fn legend(mode: Mode) -> &'static str {
    match mode {
        Mode::Verify => {
            "= same   + missing at the target   - extra at the target   * differs   ! could not be read"
        }
        Mode::Sync | Mode::Plan => "+ create   * update   - delete   = unchanged",
    }
}

fn row(line: &DiffLine, guide: &str, paint: Paint, text: &mut String) {
    let name = clean(&line.name, TEXT_CHARS);
    let id = clean(&line.id, TEXT_CHARS);
    let _ = write!(text, "{} {}", paint.mark(line.kind), paint.dim(guide));
    let _ = match (name.is_empty(), line.kind) {
        (true, _) => write!(text, "{id}"),
        (false, DiffKind::Same) => write!(text, "{} {}", paint.dim(&name), paint.dim(&id)),
        (false, _) => write!(text, "{name} {}", paint.dim(&id)),
    };
    // An unchanged row only shows where the others are: it needs no reason.
    if line.kind != DiffKind::Same && !line.why.is_empty() {
        let _ = write!(text, "  {}", paint.dim(&format!("({})", line.why)));
    }
    text.push('\n');
}

/// The changed lines and the unchanged ones above them in the tree.
fn changed_and_above(lines: &[DiffLine]) -> Vec<&DiffLine> {
    let mut shown = Vec::new();
    // From the end: a line that is not as deep as the next shown one, and the first such, is its parent.
    let mut below = 0;
    for line in lines.iter().rev() {
        if line.kind != DiffKind::Same || line.depth < below {
            below = line.depth;
            shown.push(line);
        }
    }
    shown.reverse();
    shown
}

/// What connects each line with those above it. Only levels count here, never the width of a name:
/// Chinese names are twice as wide as their characters, and terminals disagree about it.
fn guides(lines: &[&DiffLine]) -> Vec<String> {
    let mut guides = Vec::with_capacity(lines.len());
    // Whether a line at that level follows below, before the tree goes up past it.
    let mut follows = [false; LEVELS];
    for line in lines.iter().rev() {
        let depth = line.depth.min(LEVELS - 1);
        let mut guide = String::new();
        for (level, &follows) in follows.iter().enumerate().take(depth + 1).skip(1) {
            guide.push_str(match (level == depth, follows) {
                (true, true) => "├─ ",
                (true, false) => "└─ ",
                (false, true) => "│  ",
                (false, false) => "   ",
            });
        }
        for (level, follows) in follows.iter_mut().enumerate().skip(depth) {
            *follows = level == depth;
        }
        guides.push(guide);
    }
    guides.reverse();
    guides
}

/// A few short lines that say how a run ended.
pub(crate) fn summary(outcome: &Outcome, paint: Paint) -> String {
    let report = &outcome.report;
    let mut text = headline(report, paint);
    // A run that never called anybody has only its error to tell.
    let began = report.source.requests > 0 || report.status != Status::Failed;
    if began {
        field(&mut text, paint, "source", &source(report));
        field(&mut text, paint, if report.mode == Mode::Verify { "result" } else { "plan" }, &plan(report));
    }
    if began && (report.mode == Mode::Sync || report.target.requests > 0) {
        field(&mut text, paint, "target", &target(report));
    }
    if report.quarantined > 0 {
        field(&mut text, paint, "aside", &quarantine(report));
        for reason in reasons(&outcome.rejected) {
            field(&mut text, paint, "", &format!("- {reason}"));
        }
    }
    if let Some(left) = left(report) {
        field(&mut text, paint, "left", &left);
    }
    if let Some(stopped) = error_line(outcome) {
        let label = if report.status == Status::Failed { "error" } else { "stopped" };
        field(&mut text, paint, label, &stopped);
    }
    text
}

/// What stopped a run, `ErrorKind: message`, in one line.
pub(crate) fn error_line(outcome: &Outcome) -> Option<String> {
    let line = outcome.error.as_ref().map(crate::error::Error::line).or_else(|| outcome.report.error.clone());
    line.map(|line| clean(&line, usize::MAX))
}

fn headline(report: &Report, paint: Paint) -> String {
    format!(
        "{} {} · connection {} · started {} · took {} · run {}\n",
        paint.bold(report.mode.as_str()),
        paint.status(report.status),
        clean(&report.connection, TEXT_CHARS),
        report.started_at,
        duration(Duration::from_millis(report.duration_ms)),
        report.run_id,
    )
}

fn field(text: &mut String, paint: Paint, label: &str, value: &str) {
    // The labels are ours and ASCII, so that padding them is safe.
    let _ = writeln!(text, "  {} {value}", paint.dim(&format!("{label:<7}")));
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
        Mode::Sync | Mode::Plan => ["to create", "to update", "to delete", "unchanged"],
    };
    let counts = [plan.create, plan.update, plan.delete, plan.unchanged];
    counts.iter().zip(words).map(|(&n, word)| format!("{} {word}", count(n))).collect::<Vec<_>>().join(", ")
}

fn target(report: &Report) -> String {
    let target = &report.target;
    let calls = calls(target.requests, target.retries, target.throttled);
    if report.mode != Mode::Sync {
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
        Mode::Sync => format!(
            "{rows} in quarantine, with reasons in {} of the store",
            crate::store::paths::quarantine(&clean(&report.connection, TEXT_CHARS), &report.run_id)
        ),
        // Nothing is written in these modes, so that there is no file to point at.
        Mode::Plan | Mode::Verify => format!("{rows} cannot go through; a sync puts them into quarantine"),
    }
}

/// The first reasons, each once, with how many rows it holds for and an example.
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
    let example = example.map(|id| clean(id, TEXT_CHARS)).unwrap_or_default();
    let who = match (rows, example.is_empty()) {
        (1, true) => kind.clone(),
        (1, false) => format!("{kind} {example}"),
        (_, true) => counted(rows, kind, &format!("{kind}s")),
        (_, false) => format!("{} such as {example}", counted(rows, kind, &format!("{kind}s"))),
    };
    format!("{who}: {}", clean(reason, 2 * TEXT_CHARS))
}

fn left(report: &Report) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RowKind;
    use crate::error::{Error, ErrorKind};
    use crate::report::{PlanCounts, SourceCounts, TargetCounts};

    const PLAIN: Paint = Paint { colour: false };

    fn line(depth: usize, mark: char, name: &str, id: &str, why: &'static str) -> DiffLine {
        let kind = match mark {
            '+' => DiffKind::OnlySource,
            '*' => DiffKind::Differs,
            '-' => DiffKind::OnlyTarget,
            '!' => DiffKind::NotComparable,
            _ => DiffKind::Same,
        };
        DiffLine { depth, kind, name: name.to_owned(), id: id.to_owned(), why }
    }

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
            },
            plan: PlanCounts { create: 3, update: 5, delete: 1, unchanged: 1_234_567 },
            target: TargetCounts::default(),
            quarantined: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: None,
        };
        Outcome { report, error: None, lines: Vec::new(), rejected: Vec::new() }
    }

    #[test]
    fn a_tree_shows_changes_and_what_is_above_them() {
        let lines = [
            line(0, '=', "电子产品", "1", ""),
            line(1, '=', "没变", "2", ""),
            line(1, '=', "手机", "3", ""),
            line(2, '+', "新款", "4", "new"),
            line(2, '*', "旧款\u{1b}[31m\n红", "5", "name differs"),
            line(1, '*', "电脑", "6", "items differ"),
            line(0, '=', "家具", "7", ""),
            line(0, '-', "", "8", "gone at the source"),
        ];
        insta::assert_snapshot!(tree(Mode::Plan, &lines, false, PLAIN), @r"
        + create   * update   - delete   = unchanged
        = 电子产品 1
        = ├─ 手机 3
        + │  ├─ 新款 4  (new)
        * │  └─ 旧款 红 5  (name differs)
        * └─ 电脑 6  (items differ)
        - 8  (gone at the source)
        ");
    }

    #[test]
    fn a_tree_without_changes_is_empty() {
        assert_eq!(tree(Mode::Verify, &[line(0, '=', "a", "1", "")], true, PLAIN), "");
    }

    #[test]
    fn a_long_tree_is_cut_unless_all_is_asked_for() {
        let lines: Vec<DiffLine> = (0..1_500).map(|n| line(0, '+', "a", &n.to_string(), "new")).collect();
        let cut = tree(Mode::Verify, &lines, false, PLAIN);
        assert!(cut.ends_with("… and 1,300 more; --all shows them\n"), "{cut}");
        assert_eq!(tree(Mode::Verify, &lines, true, PLAIN).lines().count(), 1_501);
    }

    #[test]
    fn depth_is_bounded_and_may_jump() {
        let lines = [line(9_999, '+', "a", "1", ""), line(3, '+', "b", "2", ""), line(0, '+', "c", "3", "")];
        let text = tree(Mode::Plan, &lines, false, PLAIN);
        assert!(text.lines().all(|line| line.chars().count() < 3 * LEVELS + 10), "{text}");
    }

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\u{1b}]0;title\u{7}c\u{1b}]8;;x\u{1b}\\d", 80), "abcd");
        assert_eq!(clean(" a\r\n\tb\u{9b}31m\u{202e}\u{7f} ", 80), "a   b31m");
        assert_eq!(clean("a\u{1b}]never ends\u{1b}", 80), "a]never ends");
        assert_eq!(clean("手机手机", 3), "手机手…");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let lines = [line(0, '+', "a", "1", "new")];
        assert!(tree(Mode::Plan, &lines, false, Paint { colour: true }).contains("\u{1b}[32m+"));
        assert!(!tree(Mode::Plan, &lines, false, PLAIN).contains('\u{1b}'));
        assert!(!summary(&outcome(Mode::Sync, Status::Failed), PLAIN).contains('\u{1b}'));
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
        insta::assert_snapshot!(summary(&outcome, PLAIN), @r"
        sync paused · connection acme · started 2026-01-02T03:04:05Z · took 3.2s · run r1
          source  1 group, 3,000 products (everything read) · 45 calls, 2 repeats, 1 slowed down
          plan    3 to create, 5 to update, 1 to delete, 1,234,567 unchanged
          target  8 written, 1 deleted in 1 batch · 12 calls
          aside   3 rows in quarantine, with reasons in quarantine/acme/r1.jsonl of the store
                  - 2 products such as 12: its id is a repeat
                  - product: no id
          left    24 rows for the next run; come back in 5m 0s
          stopped Interrupted: asked to stop
        ");
    }

    #[test]
    fn a_summary_of_a_plan_is_short() {
        insta::assert_snapshot!(summary(&outcome(Mode::Plan, Status::Succeeded), PLAIN), @r"
        plan succeeded · connection acme · started 2026-01-02T03:04:05Z · took 3.2s · run r1
          source  1 group, 3,000 products (everything read) · 45 calls, 2 repeats, 1 slowed down
          plan    3 to create, 5 to update, 1 to delete, 1,234,567 unchanged
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
    fn durations_are_short() {
        let shown = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [shown(80), shown(3_290), shown(725_000), shown(14_520_000)],
            ["80ms", "3.2s", "12m 5s", "4h 2m"]
        );
    }
}
