//! How large the windows to come are: what doubts, calm, density and the time left have taught. Pure.

use std::time::Duration;

use super::super::SourceSettings;
use super::times::{Seconds, TimeRange};
use super::window::First;

/// Pages of a window where nothing is in doubt.
const PAGES_OF_A_WINDOW: u64 = 10;
/// A doubt that comes sooner after the last one than this many windows makes the next ones smaller. A rarer one costs
/// less than smaller windows would.
const CALM_BETWEEN_DOUBTS: u32 = 4;
/// Windows in a row without a doubt that let the next ones grow by a page.
const CALM_TO_GROW: u32 = 2;

/// Calls that a run has time for, for each page that a window of it has.
const CALLS_FOR_A_PAGE: f64 = 12.0;

/// A range that is still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub range: TimeRange,
    /// Rows that it should hold, if that is known.
    pub expected: Option<u64>,
    pub doubts: u32,
    /// Pages of a window of it at most, because a doubt was about it.
    pub pages: Option<u64>,
}

impl Piece {
    pub(super) fn new(range: TimeRange, expected: Option<u64>) -> Self {
        Self { range, expected, doubts: 0, pages: None }
    }

    /// Both as one; `None` if something is special about one of them, or if they do not touch.
    pub(super) fn joined(&self, next: &Self) -> Option<Self> {
        let (end, to) = (self.range.to?, next.range.to?);
        let expected = self.expected? + next.expected?;
        let is_calm = |piece: &Self| piece.doubts == 0 && piece.pages.is_none();
        (next.range.from == end + 1 && is_calm(self) && is_calm(next))
            .then(|| Self::new(TimeRange::new(self.range.from, to), Some(expected)))
    }
}

/// How many rows a window should hold, and how long it should be for that.
#[derive(Debug)]
pub(in crate::okki) struct Sizing {
    pub(super) page_size: u64,
    /// Pages of a window, at most and now.
    most_pages: u64,
    pages: u64,
    /// Rows per second of the last window; `None` if it was empty, or nothing is known.
    density: Option<f64>,
    last_was_empty: bool,
    /// Windows in a row without a doubt.
    calm: u32,
    /// No window holds more rows: there is no time to read them.
    limit: u64,
}

impl Sizing {
    /// For a run with this time left: a window is small enough to read a few of them, however short the run is.
    pub(in crate::okki) fn for_run(settings: &SourceSettings, left: Duration) -> Self {
        let SourceSettings { page_size, max_requests_per_second, .. } = *settings;
        // A cast saturates.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of pages")]
        let pages = (left.as_secs_f64() * max_requests_per_second / CALLS_FOR_A_PAGE) as u64;
        Self::new(page_size, pages.clamp(1, PAGES_OF_A_WINDOW))
    }

    fn new(page_size: u32, pages: u64) -> Self {
        Self {
            page_size: u64::from(page_size).max(1),
            most_pages: pages,
            pages,
            density: None,
            // The oldest seconds hold nothing, most likely.
            last_was_empty: true,
            calm: CALM_BETWEEN_DOUBTS,
            limit: u64::MAX,
        }
    }

    /// A window that the run cannot end is read in vain: towards the deadline windows become small. `rows` took `took`,
    /// with so many windows side by side; so much time is left.
    pub(in crate::okki) fn fit(&mut self, rows: u64, took: Duration, left: Duration, side_by_side: u64) {
        if rows < self.page_size || took.is_zero() || left > 2 * took {
            return;
        }
        let pages_left =
            u128::from(rows.div_ceil(self.page_size)) * left.as_millis() / took.as_millis().max(1);
        let pages = u64::try_from(pages_left).unwrap_or(u64::MAX) / side_by_side.max(1) / 2;
        self.limit_to(pages);
    }

    /// Only this many pages can still be read.
    fn limit_to(&mut self, pages: u64) {
        self.limit =
            pages.saturating_mul(self.page_size).saturating_sub(self.page_size / 5).max(self.least());
    }

    /// How many rows a window of this piece should hold.
    pub(super) fn rows(&self, piece: &Piece) -> u64 {
        let pages = piece.pages.unwrap_or(self.pages).min(self.pages);
        self.rows_of(pages).min(self.limit)
    }

    /// A little less than whole pages: most windows then end within their last page.
    fn rows_of(&self, pages: u64) -> u64 {
        self.page_size.saturating_mul(pages).saturating_sub(self.page_size * 3 / 10).max(self.least())
    }

    fn least(&self) -> u64 {
        (self.page_size * 9 / 10).max(1)
    }

    /// More rows than this are not read as one window.
    pub(super) fn at_most(&self, piece: &Piece) -> u64 {
        let rows = self.rows(piece);
        if rows <= self.page_size { self.page_size } else { rows * 4 / 3 }
    }

    /// A piece of so many rows was doubtful. It is read again in windows half as large; if that happens often, so is what
    /// follows.
    pub(super) fn on_doubt(&mut self, total: u64) -> u64 {
        if self.calm < CALM_BETWEEN_DOUBTS {
            self.pages = (self.pages / 2).max(1);
        }
        self.calm = 0;
        (total.div_ceil(self.page_size) / 2).clamp(1, self.most_pages)
    }

    pub(super) fn on_calm(&mut self) {
        self.calm += 1;
        if self.calm.is_multiple_of(CALM_TO_GROW) {
            self.pages = (self.pages + 1).min(self.most_pages);
        }
    }

    /// A server may cap the page size: then its first page holds fewer rows than asked for, and more are there.
    pub(super) fn learn_page_size(&mut self, first: First, asked: u32) {
        let cap = first.rows.max(1);
        if first.rows < first.total && cap < u64::from(asked) && cap < self.page_size {
            self.page_size = cap;
        }
    }

    /// For another walk: what is known about the server stays.
    pub(in crate::okki) fn anew(&self) -> Self {
        Self {
            density: None,
            last_was_empty: false,
            pages: self.most_pages,
            calm: CALM_BETWEEN_DOUBTS,
            ..*self
        }
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
        let Some(expected) = piece.expected.filter(|expected| *expected > self.at_most(piece)) else {
            return seconds;
        };
        // Shorter than the piece: the same question again would have the same answer.
        let most = (seconds - 1).max(1);
        let by = |density: f64| (self.rows(piece) as f64 / density).round().clamp(1.0, most as f64) as i64;
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
        Piece::new(TimeRange::new(from, to), Some(expected))
    }

    #[test]
    fn frequent_doubts_halve_the_windows_to_come_and_calm_lets_them_grow() {
        let (mut sizing, piece) = (Sizing::new(100, 10), piece(0, 999, 100_000));
        assert_eq!((sizing.rows(&piece), sizing.at_most(&piece)), (970, 1293));
        assert_eq!(
            (sizing.on_doubt(1_050), sizing.rows(&piece)),
            (5, 970),
            "a rare doubt is about one piece"
        );
        for rows in [470, 170, 90, 90] {
            sizing.on_doubt(rows);
            assert_eq!(sizing.rows(&piece), rows);
        }
        assert_eq!(sizing.at_most(&piece), 100, "one page, whose rows and total are of one moment");
        for _ in 0..9 * CALM_TO_GROW {
            sizing.on_calm();
        }
        assert_eq!(sizing.rows(&piece), 970);
        let doubtful = Piece { pages: Some(sizing.on_doubt(240)), ..piece };
        assert_eq!((sizing.rows(&doubtful), sizing.at_most(&doubtful)), (90, 100));
        sizing.limit_to(3);
        assert_eq!(sizing.at_most(&piece), 373, "no more than can still be read");
    }

    #[test]
    fn a_doubt_leads_to_windows_of_one_page_whatever_its_size() {
        for page_size in 1..=100 {
            let mut sizing = Sizing::new(page_size, PAGES_OF_A_WINDOW);
            let (rows, page_size) = (u64::from(page_size) + 1, u64::from(page_size));
            let doubtful = Piece { pages: Some(sizing.on_doubt(rows)), ..piece(0, 999, rows) };
            assert_eq!(sizing.at_most(&doubtful), page_size, "else it is read again as it is, for ever");
        }
    }

    #[test]
    fn the_size_of_a_full_page_is_learned_and_that_of_a_last_one_is_not() {
        let mut sizing = Sizing::new(100, PAGES_OF_A_WINDOW);
        for (total, rows, page_size) in
            [(30, 30, 100), (0, 0, 100), (300, 100, 100), (300, 50, 50), (300, 20, 20), (300, 50, 20)]
        {
            sizing.learn_page_size(First { total, rows }, 100);
            assert_eq!(sizing.page_size, page_size, "{rows} of {total}");
        }
    }

    #[test]
    fn two_pieces_are_joined_where_they_touch_and_nothing_is_special_about_them() {
        let (first, second) = (piece(0, 9, 20), piece(10, 19, 30));
        let both = first.joined(&second);
        assert_eq!(both.map(|both| (both.range, both.expected)), Some((TimeRange::new(0, 19), Some(50))));
        for next in [
            piece(11, 19, 30),
            piece(9, 19, 30),
            Piece { doubts: 1, ..second },
            Piece { pages: Some(1), ..second },
            Piece { expected: None, ..second },
            Piece { range: TimeRange::since(10), ..second },
        ] {
            assert!(first.joined(&next).is_none(), "{next:?}");
        }
        assert!(Piece { doubts: 1, ..first }.joined(&second).is_none());
        assert!(Piece { range: TimeRange::since(0), ..first }.joined(&second).is_none());
    }

    #[test]
    fn towards_the_deadline_windows_become_small() {
        let rows = |rows, took_s, left_s, side_by_side| {
            let mut sizing = Sizing::new(100, 10);
            let [took, left] = [took_s, left_s].map(Duration::from_secs);
            sizing.fit(rows, took, left, side_by_side);
            sizing.rows(&piece(0, 999, 100_000))
        };
        assert_eq!(rows(1_000, 100, 201, 1), 970, "time enough");
        assert_eq!(rows(99, 100, 20, 1), 970, "too few rows to judge by");
        assert_eq!(rows(1_000, 0, 0, 1), 970, "no time to judge by");
        // Ten pages took 100 s: half of what the same pace still brings, for each of the windows.
        assert_eq!((rows(1_000, 100, 120, 1), rows(100, 10, 20, 1)), (580, 90));
        assert_eq!((rows(1_000, 100, 120, 2), rows(1_000, 100, 120, 3)), (280, 180));
        assert_eq!(rows(1_000, 100, 1, 1), 90, "a window is a page at least");
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
        let two_seconds = Sizing::new(9, 1);
        assert_eq!(
            two_seconds.seconds_for(&piece(0, 1, 10), 0),
            1,
            "ten rows are more than a page: split them"
        );
        sizing.learn_density(9_700, 1_000);
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 9_700), 0), 100);
    }
}
