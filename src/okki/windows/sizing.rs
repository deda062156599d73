//! How large the windows to come are: what doubts, calm, density and the time left have taught. Pure.

use std::time::Duration;

use super::times::{Seconds, TimeRange};
use super::window::First;

/// Pages of a window where nothing is in doubt.
const PAGES_OF_A_WINDOW: u64 = 10;
/// Windows without a doubt, after many doubts, that let the next ones grow.
const MOST_CALM_NEEDED: u32 = 16;

/// Calls that a run has time for, for each page that a window of it has.
const CALLS_FOR_A_PAGE: f64 = 12.0;

/// A range that is still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub range: TimeRange,
    /// Rows that it should hold, if that is known.
    pub expected: Option<u64>,
    pub doubts: u32,
}

/// How many rows a window should hold, and how long it should be for that.
#[derive(Debug)]
pub(in crate::okki) struct Sizing {
    pub(super) page_size: u64,
    /// Pages of a window, at most.
    pages: u64,
    target: u64,
    /// Rows per second of the last window; `None` if it was empty, or nothing is known.
    density: Option<f64>,
    last_was_empty: bool,
    /// Windows in a row without a doubt, and how many let them grow.
    calm: u32,
    calm_needed: u32,
    /// No window holds more rows: there is no time to read them.
    limit: u64,
}

impl Sizing {
    /// For a run with this time left: a window is small enough to read a few of them, however short the run is.
    pub(in crate::okki) fn for_run(page_size: u32, left: Duration, calls_per_second: f64) -> Self {
        // A cast saturates.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pages")]
        let pages = (left.as_secs_f64() * calls_per_second / CALLS_FOR_A_PAGE) as u64;
        Self::new(page_size, pages.clamp(1, PAGES_OF_A_WINDOW))
    }

    fn new(page_size: u32, pages: u64) -> Self {
        let page_size = u64::from(page_size).max(1);
        let mut sizing = Self {
            page_size,
            pages,
            target: 0,
            density: None,
            // The oldest seconds hold nothing, most likely.
            last_was_empty: true,
            calm: 0,
            calm_needed: 1,
            limit: u64::MAX,
        };
        sizing.target = sizing.most();
        sizing
    }

    /// Only this many pages can still be read.
    pub(in crate::okki) fn limit_to(&mut self, pages: u64) {
        self.limit =
            pages.saturating_mul(self.page_size).saturating_sub(self.page_size / 5).max(self.least());
    }

    pub(super) fn rows(&self) -> u64 {
        self.target.min(self.limit)
    }

    /// A little less than whole pages: most windows then end within their last page.
    fn most(&self) -> u64 {
        (self.page_size * self.pages).saturating_sub(self.page_size * 3 / 10).max(1)
    }

    fn least(&self) -> u64 {
        (self.page_size * 9 / 10).max(1)
    }

    /// More rows than this are not read as one window.
    pub(super) fn at_most(&self) -> u64 {
        if self.rows() <= self.least() { self.page_size } else { (self.rows() * 4 / 3).max(self.page_size) }
    }

    /// Windows become half as large; the more often that happens, the longer they take to grow again.
    pub(super) fn on_doubt(&mut self) {
        self.target = (self.target / 2).max(self.least());
        (self.calm, self.calm_needed) = (0, (self.calm_needed * 2).min(MOST_CALM_NEEDED));
    }

    pub(super) fn on_calm(&mut self) {
        self.calm += 1;
        if self.calm < self.calm_needed {
            return;
        }
        self.calm = 0;
        self.target = (self.target + self.target.div_ceil(4)).min(self.most());
        if self.target == self.most() {
            self.calm_needed = 1;
        }
    }

    /// A server may cap the page size: then its first page holds fewer rows than asked for, and more are there.
    pub(super) fn learn_page_size(&mut self, first: First, asked: u32) {
        let cap = first.rows.max(1);
        if first.rows < first.total && cap < u64::from(asked) && cap < self.page_size {
            self.page_size = cap;
            self.target = self.target.min(self.most());
        }
    }

    /// For another walk: what is known about the server stays.
    pub(in crate::okki) fn anew(&self) -> Self {
        let mut sizing = Self { density: None, last_was_empty: false, ..*self };
        sizing.target = sizing.most();
        sizing
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub(super) fn learn_density(&mut self, rows: u64, seconds: i64) {
        self.last_was_empty = rows == 0;
        let here = (rows > 0).then(|| rows as f64 / seconds as f64);
        self.density = match (self.density, here) {
            // A steady density is known better from several windows.
            (Some(before), Some(here)) if (0.5..2.0).contains(&(here / before)) => {
                Some(f64::midpoint(before, here))
            }
            _ => here,
        };
    }

    /// How many seconds of a piece to read as one window.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
    pub(super) fn seconds_for(&self, piece: &Piece, now: Seconds) -> i64 {
        let seconds = piece.range.seconds(now);
        let Some(expected) = piece.expected.filter(|expected| *expected > self.at_most()) else {
            return seconds;
        };
        // Shorter than the piece: the same question again would have the same answer.
        let most = (seconds - 1).max(1);
        let by = |density: f64| (self.rows() as f64 / density).round().clamp(1.0, most as f64) as i64;
        let average = by(expected as f64 / seconds as f64);
        match self.density {
            Some(density) => by(density),
            // Rows are not where the average says: halve instead.
            None if self.last_was_empty => average.max(seconds / 2).min(most),
            None => average,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(from: Seconds, to: Seconds, expected: u64) -> Piece {
        Piece { range: TimeRange::new(from, to), expected: Some(expected), doubts: 0 }
    }

    #[test]
    fn a_doubt_halves_the_windows_to_come_and_calm_lets_them_grow() {
        let mut sizing = Sizing::new(100, PAGES_OF_A_WINDOW);
        assert_eq!((sizing.target, sizing.at_most()), (970, 1293));
        for target in [485, 242, 121, 90, 90] {
            sizing.on_doubt();
            assert_eq!(sizing.target, target);
        }
        assert_eq!(sizing.at_most(), 100, "one page, whose rows and total are of one moment");
        for _ in 0..20 * MOST_CALM_NEEDED {
            sizing.on_calm();
        }
        assert_eq!(sizing.target, 970);
        sizing.limit_to(3);
        assert_eq!(sizing.at_most(), 373, "no more than can still be read");
    }

    #[test]
    fn a_window_is_as_long_as_the_rows_are_dense() {
        let mut sizing = Sizing::new(100, PAGES_OF_A_WINDOW);
        assert_eq!(sizing.seconds_for(&piece(0, 999, 1_000), 0), 1_000, "few enough rows");
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 9_700), 0), 50_000, "nothing is known: halve");
        sizing.learn_density(9_700, 100_000);
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 9_700), 0), 10_000);
        sizing.learn_density(0, 10_000);
        assert_eq!(sizing.seconds_for(&piece(10_000, 99_999, 9_700), 0), 45_000, "an empty part: halve");
        let two_seconds = Sizing { target: 8, page_size: 9, ..Sizing::new(9, 1) };
        assert_eq!(
            two_seconds.seconds_for(&piece(0, 1, 10), 0),
            1,
            "ten rows are more than a page: split them"
        );
        sizing.learn_density(9_700, 1_000);
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 9_700), 0), 100);
    }
}
