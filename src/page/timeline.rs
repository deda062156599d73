//! The picture of calls and waits over time: for each side its calls, those among them that went wrong, and when it waited.
//! SVG whose numbers stand below it as a table too.
//!
//! What is drawn comes from a file: lists may be longer than any run makes them, and numbers of any size.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, words};
use crate::report::{Report, SideTimes, Timeline};

/// Stretches that are drawn, at most; a run records no more.
const MOST_BUCKETS: usize = 60;
/// The picture's own units: where its panels begin, and how large they are.
const LEFT: f64 = 56.0;
const WIDTH: f64 = 436.0;
const HEIGHT: f64 = 64.0;
/// The band of waits below a panel.
const BAND: f64 = 8.0;
/// From one panel to the next.
const PANEL: f64 = 116.0;
/// Marks of the time axis, at most.
const MOST_MARKS: u64 = 6;

/// One stretch of one side.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    calls: u64,
    throttled: u64,
    failed: u64,
    waited_ms: u64,
}

impl Bucket {
    fn is_empty(&self) -> bool {
        [self.calls, self.throttled, self.failed, self.waited_ms].iter().all(|n| *n == 0)
    }
}

/// One side: its stretches, as many as the other's.
struct Side {
    label: &'static str,
    buckets: Vec<Bucket>,
}

impl Side {
    fn of(label: &'static str, times: &SideTimes, count: usize, bucket_ms: u64) -> Self {
        let at = |column: &[u64], place: usize| column.get(place).copied().unwrap_or_default();
        let bucket = |place| Bucket {
            calls: at(&times.calls, place),
            throttled: at(&times.throttled, place),
            failed: at(&times.failed, place),
            waited_ms: at(&times.waited_ms, place).min(bucket_ms),
        };
        Self { label, buckets: (0..count).map(bucket).collect() }
    }

    fn sum(&self, of: fn(&Bucket) -> u64) -> u64 {
        self.buckets.iter().map(of).fold(0, u64::saturating_add)
    }

    fn most_calls(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.calls).max().unwrap_or_default()
    }
}

/// The picture of a run, with its table.
pub(super) fn picture(words: &Words, report: &Report, timeline: &Timeline) -> Markup {
    let bucket_ms = timeline.bucket_ms.max(1);
    let count = buckets(report, timeline, bucket_ms);
    let total_ms = bucket_ms.saturating_mul(count as u64);
    let sides = [
        Side::of(words.source, &timeline.source, count, bucket_ms),
        Side::of(words.target, &timeline.target, count, bucket_ms),
    ];
    let stretch = numbers::stretch(words.lang, bucket_ms);
    let shown = words::fill(words.timeline_shown, &[("stretch", &stretch)]);
    html! {
        p.muted { (shown) }
        svg.timeline viewBox="0 0 520 256" role="img" aria-labelledby="timeline-title timeline-told" {
            title #timeline-title { (words.calls) }
            desc #timeline-told { (told(words, &sides)) }
            @for (side, top) in sides.iter().zip([22.0, 22.0 + PANEL]) { (panel(words, side, &stretch, top, bucket_ms)) }
            (axis(words, total_ms))
        }
        ul.keys {
            @for (class, label) in [("first", words.answered), ("repeat", words.failed_calls), ("throttled", words.throttled), ("wait", words.waited)] {
                li { span.key.(class) {} (label) }
            }
        }
        details {
            summary { (words.as_table) }
            (table(words, &sides, bucket_ms))
        }
    }
}

/// Stretches of the whole run, those at its end without a call included.
fn buckets(report: &Report, timeline: &Timeline, bucket_ms: u64) -> usize {
    let columns = |side: &SideTimes| {
        [&side.calls, &side.throttled, &side.failed, &side.waited_ms].map(Vec::len).into_iter().max()
    };
    let recorded = columns(&timeline.source).max(columns(&timeline.target)).unwrap_or_default();
    let lasted = usize::try_from(report.duration_ms.div_ceil(bucket_ms)).unwrap_or(usize::MAX);
    recorded.max(lasted).clamp(1, MOST_BUCKETS)
}

/// The picture in a sentence for each side.
fn told(words: &Words, sides: &[Side]) -> String {
    let side = |side: &Side| {
        let waited = numbers::duration(words.lang, side.sum(|bucket| bucket.waited_ms));
        let values = [
            ("side", side.label.to_owned()),
            ("calls", numbers::count(side.sum(|bucket| bucket.calls))),
            ("failed", numbers::count(side.sum(|bucket| bucket.failed))),
            ("throttled", numbers::count(side.sum(|bucket| bucket.throttled))),
            ("waited", waited),
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        words::fill(words.timeline_told, &values)
    };
    sides.iter().map(side).collect::<Vec<_>>().join(" ")
}

fn panel(words: &Words, side: &Side, stretch: &str, top: f64, bucket_ms: u64) -> Markup {
    let most = side.most_calls();
    let bottom = top + HEIGHT;
    let label = words::fill(words.calls_in, &[("side", side.label), ("stretch", stretch)]);
    html! {
        text x="0" y=(format!("{:.0}", top - 8.0)) { (label) }
        line.axis x1=(LEFT) y1=(top) x2=(LEFT) y2=(bottom) {}
        line.axis x1=(LEFT) y1=(bottom) x2=(LEFT + WIDTH) y2=(bottom) {}
        @if most > 0 { text.scale x=(LEFT - 6.0) y=(top + 10.0) { (numbers::count(most)) } }
        text.scale x=(LEFT - 6.0) y=(bottom) { "0" }
        @for (class, d) in bars(side, bottom, most) { @if !d.is_empty() { path.(class) d=(d) {} } }
        @let waits = waits(side, bottom + 4.0, bucket_ms);
        @if !waits.is_empty() { path.wait d=(waits) {} }
    }
}

/// The bars of a side, each kind in one path: calls that went well stand on those that failed and were throttled.
fn bars(side: &Side, bottom: f64, most: u64) -> [(&'static str, String); 3] {
    let width = WIDTH / side.buckets.len().max(1) as f64;
    let height = |n: u64| if n == 0 { 0.0 } else { (n as f64 / most.max(1) as f64 * HEIGHT).max(1.0) };
    let mut paths = [("throttled", String::new()), ("repeat", String::new()), ("first", String::new())];
    for (place, bucket) in side.buckets.iter().enumerate() {
        // An answer may come in a later stretch than its call.
        let throttled = bucket.throttled.min(bucket.calls);
        let failed = bucket.failed.min(bucket.calls - throttled);
        let mut y = bottom;
        for ((_, path), n) in paths.iter_mut().zip([throttled, failed, bucket.calls - throttled - failed]) {
            let height = height(n).min(y - bottom + HEIGHT);
            y -= height;
            rectangle(path, LEFT + place as f64 * width, y, (width - 1.0).max(width * 0.8), height);
        }
    }
    paths
}

/// The waits of a side, as wide as they took of their stretches.
fn waits(side: &Side, top: f64, bucket_ms: u64) -> String {
    let width = WIDTH / side.buckets.len().max(1) as f64;
    let mut path = String::new();
    for (place, bucket) in side.buckets.iter().enumerate() {
        let share = bucket.waited_ms as f64 / bucket_ms as f64;
        rectangle(&mut path, LEFT + place as f64 * width, top, width * share, BAND);
    }
    path
}

/// Adds a rectangle to a path, unless it has no area.
fn rectangle(path: &mut String, x: f64, y: f64, width: f64, height: f64) {
    if width > 0.0 && height > 0.0 {
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x:.1} {y:.1}h{width:.1}v{height:.1}h-{width:.1}z");
    }
}

/// The time below both panels.
fn axis(words: &Words, total_ms: u64) -> Markup {
    let step_ms = numbers::step(total_ms, MOST_MARKS);
    let y = 22.0 + PANEL + HEIGHT + 4.0 + BAND;
    html! {
        @for at_ms in (0..=total_ms / step_ms).map(|n| n * step_ms) {
            @let x = LEFT + WIDTH * (at_ms as f64 / total_ms.max(1) as f64);
            line.axis x1=(format!("{x:.1}")) y1=(y) x2=(format!("{x:.1}")) y2=(y + 5.0) {}
            text.mark-at x=(format!("{x:.1}")) y=(y + 20.0) { (numbers::mark(words.lang, at_ms, step_ms)) }
        }
    }
}

fn table(words: &Words, sides: &[Side], bucket_ms: u64) -> Markup {
    let count = sides.iter().map(|side| side.buckets.len()).max().unwrap_or_default();
    let at = |side: &Side, place: usize| side.buckets.get(place).copied().unwrap_or_default();
    html! {
        table {
            thead { tr { @for heading in [words.from_start, words.side, words.calls_made, words.failed_calls, words.throttled, words.waited] { th scope="col" { (heading) } } } }
            tbody {
                @for place in 0..count {
                    @for side in sides {
                        @let bucket = at(side, place);
                        @if !bucket.is_empty() {
                            tr {
                                th scope="row" { (numbers::duration(words.lang, bucket_ms.saturating_mul(place as u64))) }
                                td { (side.label) }
                                @for n in [bucket.calls, bucket.failed, bucket.throttled] { td { (numbers::count(n)) } }
                                td { (numbers::duration(words.lang, bucket.waited_ms)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
