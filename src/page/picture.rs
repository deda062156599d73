//! The pictures: calls of both sides, and the last runs. SVG whose numbers stand beside it as text too.

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, text, timeline, tone};
use crate::report::{Report, Status};
use crate::words::recognise_line;

/// Width of a full bar, in the picture's own units.
const BAR_WIDTH: u64 = 600;
/// Runs in the strip.
const MOST_RUNS: usize = 30;

/// The calls of one side: repeats are among them, and answers that asked for a slower pace.
struct Calls {
    label: &'static str,
    first: u64,
    repeats: u64,
    throttled: u64,
}

pub(super) fn calls(words: &Words, report: &Report) -> Markup {
    let (source, target) = (&report.source, &report.target);
    let side = |label, requests: u64, repeats: u64, throttled| Calls {
        label,
        first: requests.saturating_sub(repeats),
        repeats,
        throttled,
    };
    let sides = [
        side(words.source, source.requests, source.retries, source.throttled),
        side(words.target, target.requests, target.retries, target.throttled),
    ];
    let headings = [("first", words.first_calls), ("repeat", words.repeats), ("throttled", words.throttled)];
    html! {
        section aria-labelledby="calls" {
            h2 #calls { (words.calls) }
            @match &report.timeline {
                Some(times) => (timeline::picture(words, report, times)),
                None => (bars(words, &sides)),
            }
            table {
                thead { tr { th scope="col" { (words.side) } @for (class, heading) in headings {
                    // The picture over time has other colours, and their key beside it.
                    th scope="col" { @if report.timeline.is_none() { span.key.(class) {} } (heading) }
                } } }
                tbody { @for side in &sides { tr {
                    th scope="row" { (side.label) }
                    @for n in [side.first, side.repeats, side.throttled] { td { (numbers::count(n)) } }
                } } }
            }
            p.muted { (words.took) " " (numbers::duration(words.lang, report.duration_ms)) }
        }
    }
}

/// How many calls, where nobody knows when.
fn bars(words: &Words, sides: &[Calls]) -> Markup {
    let most = sides.iter().map(|side| side.first.saturating_add(side.repeats)).max().unwrap_or(0).max(1);
    html! {
        p.muted { (words.calls_shown) }
        svg.calls viewBox="0 0 760 130" role="img" aria-label=(words.calls) {
            @for (side, y) in sides.iter().zip([10_u64, 70]) {
                @let first = width(side.first, most);
                text.label x="0" y=(y + 25) { (side.label) }
                rect.first x="110" y=(y) width=(first) height="24" {}
                rect.repeat x=(110 + first) y=(y) width=(width(side.repeats, most)) height="24" {}
                rect.throttled x="110" y=(y + 28) width=(width(side.throttled, most)) height="8" {}
                text.label x=(120 + first + width(side.repeats, most)) y=(y + 17) { (numbers::count(side.first.saturating_add(side.repeats))) }
            }
        }
    }
}

/// A bar's width; something is visible wherever there is something.
fn width(n: u64, most: u64) -> u64 {
    if n == 0 { 0 } else { (n.saturating_mul(BAR_WIDTH) / most.max(1)).clamp(2, BAR_WIDTH) }
}

pub(super) fn last_runs(words: &Words, report: &Report, recent: &[Report]) -> Markup {
    let mut runs: Vec<&Report> = recent.iter().take(MOST_RUNS).collect();
    runs.reverse();
    let longest = runs.iter().map(|run| run.duration_ms).max().unwrap_or(0).max(1);
    html! {
        section aria-labelledby="last" {
            h2 #last { (words.last_runs) }
            @if runs.is_empty() { p.muted { (words.no_last_runs) } } @else {
                p.muted { (words.last_runs_shown) }
                svg.strip viewBox="0 0 760 100" role="img" aria-label=(words.last_runs) {
                    @for (at, run) in (0_u64..).zip(&runs) {
                        @let height = (run.duration_ms.saturating_mul(66) / longest).max(3);
                        @let (x, is_this) = (at * 25, run.run_id == report.run_id);
                        g {
                            title { (numbers::time(&run.started_at)) " · " (words.status(run.status)) }
                            rect.(tone(run.status)) x=(x) y=(70 - height) width="20" height=(height) {}
                            text.sign x=(x + 10) y="86" { (sign(run.status)) }
                            @if is_this { rect.this x=(x) y="92" width="20" height="4" {} }
                        }
                    }
                }
                details {
                    summary { (words.as_table) }
                    table {
                        thead { tr { @for heading in [words.started, words.status, words.took, words.written, words.set_aside] { th scope="col" { (heading) } } } }
                        tbody { @for run in runs.iter().rev() { (table_row(words, run)) } }
                    }
                }
            }
        }
    }
}

/// A status without its colour.
fn sign(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "✓",
        Status::Partial => "!",
        Status::Paused => "‖",
        Status::Failed => "✗",
    }
}

fn table_row(words: &Words, run: &Report) -> Markup {
    html! {
        tr {
            th scope="row" { (numbers::time(&run.started_at)) }
            td.(tone(run.status)) title=(text::visible(&recognise_line(run.error.as_deref().unwrap_or_default(), words.lang))) { (sign(run.status)) " " (words.status(run.status)) }
            td { (numbers::duration(words.lang, run.duration_ms)) }
            td { (numbers::count(run.target.written)) }
            td { (numbers::count(run.quarantined)) }
        }
    }
}
