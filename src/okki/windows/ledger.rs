//! The ledger: which windows of creation time were read, and what each held. Pure.
//!
//! A window that lies in the past can lose rows, and nothing can enter it. So the number of rows that it held at its
//! last read, against the total that the source gives now, tells whether a row of it was deleted.
//!
//! Every row of the products' table carries the **number** of the read that it was last found by. Numbers ascend in the
//! order of reads, which gives one rule for everything that disappears:
//!
//! > A row goes when all windows that could hold it were read, complete, after the row was last seen.
//!
//! ```text
//! windows    [ #7  412 rows ][ #8  530 rows ][ #21  498 rows ]          (never overlapping)
//! waiting                     #8 is read again: its rows wait, under #8, until new windows cover its range
//!            #22  rows that a delta brought: created lately, or not known to any window. They wait for the whole axis
//! ```
//!
//! Deliberately absent: the creation time of a single row. The source's rows have none.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::times::{OLDEST, Seconds, TimeRange};
use crate::testing::Mutant;

/// The source's clock counts seconds, and a row may become visible later than its time says: windows end, and changes
/// are asked for, this long before what is known.
const OVERLAP_SECONDS: i64 = 60;

/// A closed range of creation time that was read complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Window {
    /// Of the read that found its rows.
    pub number: u32,
    pub from: Seconds,
    pub to: Seconds,
    /// Rows that it held, repeated ids and rows without one included.
    pub rows: u64,
    /// When it was read, wall-clock milliseconds of our clock.
    pub read_at_ms: u64,
    /// Whether nothing was missed for sure. If not, its read takes no row away.
    pub sure: bool,
}

/// Rows that no window accounts for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiting {
    /// The number that its rows carry.
    pub number: u32,
    /// Where they can be: they go when newer windows cover this.
    pub from: Seconds,
    pub to: Seconds,
    /// When the window that they come from was read; `None` if a delta brought them.
    pub read_at_ms: Option<u64>,
    /// How many rows the window held that they come from, if nothing was missed for sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Since when the delta asked that brought them, unless it was looked for already whether they are still there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_since: Option<Seconds>,
}

/// What is known about the source and the ranges that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ledger {
    /// The number of the next read.
    next_number: u32,
    /// By time, never overlapping.
    pub(super) windows: Vec<Window>,
    pub(super) waiting: Vec<Waiting>,
    /// Where the closed part ends: what was created later is the tail, which only deltas bring.
    end: Option<Seconds>,
    /// The source's own time when the read of everything began.
    pub began: Option<Seconds>,
    /// Whether all windows up to `end` have been read once: only then are all rows known.
    pub complete: bool,
    /// Whether the read of everything has come to its end, with its delta and its comparison of totals. Until then even
    /// a read that trusts nothing older goes on from here.
    pub finished: bool,
    /// From when on changes are asked for, by the clock of the source's filter. `None`: since the oldest.
    pub changes_from: Option<Seconds>,
    /// How far the filter's clock is behind the `now` of the answers at most, in seconds; `None` if nothing is known.
    pub filter_lag_seconds: Option<i64>,
    /// Seconds by which a filter's start has to be earlier than meant: 0 where both ends are included, as documented.
    pub start_shift_seconds: i64,
    /// By how much each of the source's totals is too large; no total here holds it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub surplus: u64,
    /// The total that the source gave last.
    pub source_total: u64,
    /// By how much that total is above the rows held, where that is the source's own doing.
    pub known_difference: i64,
    /// Runs in a row that ended with another difference.
    pub unsettled_runs: u32,
    /// When rows were last read again, wall-clock milliseconds; see [`Ledger::take_due`].
    pub rolled_at_ms: u64,
    /// Why this source cannot be read in windows; `None` if it can.
    pub whole_because: Option<String>,
    /// When the whole catalogue was last read the old way, wall-clock milliseconds.
    pub whole_read_at_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far a delta reaches back before the end of the last one.
pub(crate) fn overlap_seconds() -> i64 {
    if Mutant::NoOverlap.is_active() { 0 } else { OVERLAP_SECONDS }
}

impl Ledger {
    /// Of a read that is over, and whose rows nobody goes on from.
    pub(crate) fn closed() -> Self {
        Self { complete: true, finished: true, ..Self::default() }
    }

    /// Of products that were all read until `cursor`, but not in windows: all wait under the number that is returned.
    pub(crate) fn without_windows(cursor: Seconds, read_at_ms: u64) -> (Self, u32) {
        let mut ledger = Self {
            complete: true,
            finished: true,
            changes_from: Some(cursor.saturating_sub(overlap_seconds())),
            whole_read_at_ms: read_at_ms,
            rolled_at_ms: read_at_ms,
            ..Self::default()
        };
        let number = ledger.number();
        let read_at_ms = Some(read_at_ms);
        ledger.waiting.push(Waiting {
            number,
            from: OLDEST,
            to: cursor,
            read_at_ms,
            rows: None,
            changed_since: None,
        });
        (ledger, number)
    }

    /// The number of the read that begins now.
    pub(crate) fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn last_number(&self) -> u32 {
        self.next_number
    }

    /// Whether everything was read after the read of this number.
    pub(crate) fn all_newer_than(&self, number: u32) -> bool {
        !self.windows.is_empty() && self.windows.iter().all(|window| window.number > number)
    }

    /// Whether a catalogue that was read the old way is to be read anew.
    pub(crate) fn is_whole_due(&self, every: Duration, now_ms: u64) -> bool {
        let every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        // A time in the future means that the clock was set back.
        self.whole_read_at_ms > now_ms || now_ms - self.whole_read_at_ms >= every_ms
    }

    pub(crate) fn windows(&self) -> &[Window] {
        &self.windows
    }

    pub(crate) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    /// Where each window begins, by its number.
    pub(crate) fn starts(&self) -> HashMap<u32, Seconds> {
        self.windows.iter().map(|window| (window.number, window.from)).collect()
    }

    pub(crate) fn end(&self) -> Option<Seconds> {
        self.end
    }

    /// Lets the closed part reach further; it never becomes shorter.
    pub(crate) fn extend_to(&mut self, end: Seconds) {
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
    }

    /// Where the tail begins: after the closed part.
    pub(crate) fn tail(&self) -> TimeRange {
        TimeRange::since(self.end.map_or(OLDEST, |end| end + 1))
    }

    /// The ranges of the closed part that no window covers.
    pub(crate) fn gaps(&self) -> Vec<TimeRange> {
        self.uncovered(OLDEST, self.end, |_| true)
    }

    fn uncovered(
        &self,
        from: Seconds,
        to: Option<Seconds>,
        counts: impl Fn(&Window) -> bool,
    ) -> Vec<TimeRange> {
        let (mut gaps, mut next) = (Vec::new(), from);
        let Some(to) = to else { return gaps };
        for window in self.windows.iter().filter(|window| counts(window) && window.to >= from) {
            if window.from > to {
                break;
            }
            if window.from > next {
                gaps.push(TimeRange::new(next, window.from - 1));
            }
            next = next.max(window.to + 1);
        }
        if next <= to {
            gaps.push(TimeRange::new(next, to));
        }
        gaps
    }

    /// Takes the result of a window's read. Its range was a gap.
    pub(crate) fn insert(&mut self, window: Window) {
        let at = self.windows.partition_point(|known| known.from < window.from);
        self.windows.insert(at, window);
    }

    /// Rows that were created between these seconds wait under this number.
    pub(crate) fn expect(&mut self, number: u32, from: Seconds, to: Seconds) {
        self.waiting.push(Waiting { number, from, to, read_at_ms: None, rows: None, changed_since: None });
    }

    /// These windows are to be read again: their rows wait, and their ranges become gaps.
    pub(crate) fn retire(&mut self, is_due: impl Fn(&Window) -> bool) {
        let (due, kept) = std::mem::take(&mut self.windows).into_iter().partition(is_due);
        self.windows = kept;
        let due: Vec<Window> = due;
        self.waiting.extend(due.into_iter().map(|Window { number, from, to, rows, read_at_ms, sure }| {
            Waiting {
                number,
                from,
                to,
                read_at_ms: Some(read_at_ms),
                rows: Some(rows).filter(|_| sure),
                changed_since: None,
            }
        }));
    }

    /// The numbers whose rows are gone: newer reads cover every place where the rows could be. They wait no longer.
    /// `tail`: the number of a read that held the whole tail.
    pub(crate) fn take_gone(&mut self, tail: Option<u32>) -> Vec<u32> {
        let is_gone = |waiting: &Waiting| {
            let newer = |window: &Window| window.sure && window.number > waiting.number;
            let to = match (tail, self.end) {
                (Some(tail), Some(end)) if tail > waiting.number => waiting.to.min(end),
                _ => waiting.to,
            };
            self.uncovered(waiting.from, Some(to), newer).is_empty()
        };
        let gone: Vec<u32> =
            self.waiting.iter().filter(|waiting| is_gone(waiting)).map(|waiting| waiting.number).collect();
        self.waiting.retain(|waiting| !gone.contains(&waiting.number));
        gone
    }

    /// Forgets numbers that no row carries.
    pub(crate) fn keep_waiting(&mut self, is_used: impl Fn(u32) -> bool) {
        self.waiting.retain(|waiting| is_used(waiting.number));
    }

    /// Rows of all windows.
    pub(crate) fn rows_in_windows(&self) -> u64 {
        self.windows.iter().map(|window| window.rows).sum()
    }

    /// When the part was read that was read longest ago; `None` if nothing was.
    pub(crate) fn oldest_read_at_ms(&self) -> Option<u64> {
        let in_windows = self.windows.iter().map(|window| window.read_at_ms);
        in_windows.chain(self.waiting.iter().filter_map(|waiting| waiting.read_at_ms)).min()
    }

    /// Retires the windows that a run reads again: those read longest ago, as many rows as the time since the last
    /// time demands, so that within `cycle_ms` each window comes once and no run has a peak. `held`: rows of the whole
    /// catalogue, which may not be in windows; `page`: fewer rows are not worth a call. Returns how many rows are due.
    pub(crate) fn take_due(&mut self, held: u64, now_ms: u64, cycle_ms: u64, page: u64) -> u64 {
        // An empty window costs a call too.
        let cost = |window: &Window| window.rows.max(page / 10);
        let all = self.windows.iter().map(cost).sum::<u64>().max(held);
        let elapsed_ms = now_ms.saturating_sub(self.rolled_at_ms).min(cycle_ms);
        let owed = u128::from(all) * u128::from(elapsed_ms) / u128::from(cycle_ms.max(1));
        let owed = u64::try_from(owed).unwrap_or(all);
        // The debt grows until it is worth a call.
        if owed < page.min(held).max(1) {
            return 0;
        }
        let mut by_age: Vec<&Window> = self.windows.iter().collect();
        by_age.sort_by_key(|window| (window.read_at_ms, window.from));
        let (mut due, mut taken) = (HashSet::new(), 0);
        for window in by_age {
            if taken >= owed {
                break;
            }
            taken += cost(window);
            due.insert(window.number);
        }
        self.add_small_neighbours(&mut due, page);
        self.retire(|window| due.contains(&window.number));
        self.rolled_at_ms = now_ms;
        owed
    }

    /// Windows of less than half a page beside a window that is read again are read with it, and become one with it: what
    /// doubts have cut to pieces grows together.
    fn add_small_neighbours(&self, due: &mut HashSet<u32>, page: u64) {
        let small = page.div_ceil(2);
        let forward: Vec<&Window> = self.windows.iter().collect();
        let backward: Vec<&Window> = self.windows.iter().rev().collect();
        for windows in [forward, backward] {
            let (mut follows, mut added) = (false, 0);
            for window in windows {
                if due.contains(&window.number) {
                    (follows, added) = (true, 0);
                } else if follows && window.rows < small && added < small {
                    added += window.rows;
                    due.insert(window.number);
                } else {
                    follows = false;
                }
            }
        }
    }

    /// The filter turned out to leave out `shift` seconds at the start of each range: so no window read so far has
    /// its first seconds.
    pub(crate) fn shift_starts(&mut self, shift: i64) {
        let more = shift - self.start_shift_seconds;
        self.start_shift_seconds = shift;
        self.retire(|window| window.from + more > window.to);
        for window in &mut self.windows {
            window.from += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_read_is_due_again_in_time_or_when_the_clock_was_set_back() {
        let ledger = Ledger { whole_read_at_ms: 10_000, ..Ledger::default() };
        let is_due = |now_ms| ledger.is_whole_due(Duration::from_secs(5), now_ms);
        assert_eq!([9_999, 10_000, 14_999, 15_000].map(is_due), [true, false, false, true]);
    }

    #[test]
    fn a_filter_that_leaves_out_starts_has_read_less_of_each_window() {
        let window = |number, from, to| Window { number, from, to, rows: 1, read_at_ms: 0, sure: true };
        let mut ledger = Ledger { start_shift_seconds: 1, ..Ledger::default() };
        ledger.extend_to(2);
        ledger.insert(window(1, 0, 0));
        ledger.insert(window(2, 1, 2));
        ledger.shift_starts(2);
        assert_eq!((ledger.windows.as_slice(), ledger.start_shift_seconds), (&[window(2, 2, 2)][..], 2));
        assert_eq!(ledger.gaps(), [TimeRange::new(0, 1)]);
    }
}
