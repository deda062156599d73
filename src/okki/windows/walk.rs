//! Walks over ranges of time in windows, several side by side, and lets doubts decide how large they are.
//!
//! ```text
//! todo      [=================== 200,000 rows expected ===================]
//! window 1  [~880 rows]                       whole: taken
//! window 2             [~880 rows]            doubtful: an edit moved its pages. Back to todo, half the size
//! window 3                        [... ]      read side by side with window 2
//! ```
//!
//! A window is cut so that it holds about [`Sizing::target`] rows, by how dense the rows were lately. It is small, nine
//! pages, for two reasons: a doubt costs one window, and so does a deletion that is only known by a total. Nine pages
//! cost about 4 % more calls than one long list, because the last page of each is not full.
//!
//! Race: a row that is edited leaves a closed window of update times for the open one at the end. So the open one is
//! read after all others have ended, and only as one answer (a single page).

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::front::front;
use super::question::{Asker, Question};
use super::times::{Seconds, TimeAxis, TimeRange};
use super::window::{self, First, WindowRead, WindowRows};
use crate::error::{Error, ErrorKind, Result};

/// Pages of a window where nothing is in doubt.
pub(in crate::okki) const PAGES_OF_A_WINDOW: u64 = 9;
/// Doubts about one page that no other page can have moved.
const MAX_DOUBTS: u32 = 5;

/// The source's own time, as it goes on.
#[derive(Debug, Clone, Copy)]
pub(in crate::okki) struct SourceClock {
    pub began: Seconds,
    pub at: Instant,
}

impl SourceClock {
    pub(in crate::okki) fn now(&self) -> Seconds {
        self.began.saturating_add(i64::try_from(self.at.elapsed().as_secs()).unwrap_or(i64::MAX))
    }
}

/// A range that is still to be read.
#[derive(Debug, Clone, Copy)]
struct Piece {
    range: TimeRange,
    /// Rows that it should hold, if that is known.
    expected: Option<u64>,
    doubts: u32,
}

/// A window that was read whole.
#[derive(Debug)]
pub(in crate::okki) struct Found {
    pub range: TimeRange,
    pub rows: WindowRows,
}

/// How many rows a window should hold, and how long it should be for that.
#[derive(Debug)]
pub(in crate::okki) struct Sizing {
    page_size: u64,
    /// Pages of a window, at most.
    pages: u64,
    target: u64,
    /// Rows per second of the last window; `None` if it was empty, or nothing is known.
    density: Option<f64>,
    last_was_empty: bool,
}

impl Sizing {
    pub(in crate::okki) fn new(page_size: u32, pages: u64) -> Self {
        let page_size = u64::from(page_size).max(1);
        let mut sizing = Self { page_size, pages, target: 0, density: None, last_was_empty: false };
        sizing.target = sizing.most();
        sizing
    }

    /// A little less than whole pages: most windows then end within their last page.
    fn most(&self) -> u64 {
        (self.page_size * self.pages - self.page_size / 5).max(1)
    }

    fn least(&self) -> u64 {
        (self.page_size * 9 / 10).max(1)
    }

    /// More rows than this are not read as one window.
    fn at_most(&self) -> u64 {
        if self.target <= self.least() { self.page_size } else { (self.target * 4 / 3).max(self.page_size) }
    }

    fn on_doubt(&mut self) {
        self.target = (self.target / 2).max(self.least());
    }

    fn on_calm(&mut self) {
        self.target = (self.target + self.target.div_ceil(4)).min(self.most());
    }

    /// A server may cap the page size: then its first page holds fewer rows than asked for, and more are there.
    fn learn_page_size(&mut self, first: First, asked: u32) {
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
    fn learn_density(&mut self, rows: u64, seconds: i64) {
        self.last_was_empty = rows == 0;
        self.density = (rows > 0).then(|| rows as f64 / seconds as f64);
    }

    /// How many seconds of a piece to read as one window.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
    fn seconds_for(&self, piece: &Piece, now: Seconds) -> i64 {
        let seconds = piece.range.seconds(now);
        let Some(expected) = piece.expected.filter(|expected| *expected > self.at_most()) else {
            return seconds;
        };
        // Shorter than the piece: the same question again would have the same answer.
        let most = (seconds - 1).max(1);
        let by = |density: f64| (self.target as f64 / density).round().clamp(1.0, most as f64) as i64;
        let average = by(expected as f64 / seconds as f64);
        match self.density {
            Some(density) => by(density),
            // Rows are not where the average says: halve instead.
            None if self.last_was_empty => average.max(seconds / 2).min(most),
            None => average,
        }
    }
}

/// A window that is being read.
struct Reading {
    piece: Piece,
    /// Of the piece that it was cut from.
    end: Option<Seconds>,
    result: Result<WindowRead>,
}

/// Reads pieces window by window.
pub(in crate::okki) struct Walk<'a> {
    asker: Asker<'a>,
    axis: TimeAxis,
    clock: SourceClock,
    page_size: u32,
    /// The next one last.
    todo: Vec<Piece>,
    reading: FuturesUnordered<BoxFuture<'a, Reading>>,
    /// The pieces that are being read.
    open: Vec<Piece>,
    side_by_side: usize,
}

impl<'a> Walk<'a> {
    /// Each range with the rows that it should hold, if that is known.
    pub(in crate::okki) fn new(
        asker: Asker<'a>,
        axis: TimeAxis,
        clock: SourceClock,
        ranges: &[(TimeRange, Option<u64>)],
    ) -> Self {
        let piece = |&(range, expected): &(TimeRange, Option<u64>)| Piece { range, expected, doubts: 0 };
        Self {
            asker,
            axis,
            clock,
            page_size: asker.okki.settings.page_size,
            todo: ranges.iter().rev().map(piece).collect(),
            reading: FuturesUnordered::new(),
            open: Vec::new(),
            side_by_side: 1 + asker.okki.settings.max_concurrency / 4,
        }
    }

    /// The next window that was read whole; `None` at the end. While `may_begin` is false no further window begins.
    pub(in crate::okki) async fn next(
        &mut self,
        sizing: &mut Sizing,
        may_begin: bool,
    ) -> Result<Option<Found>> {
        loop {
            while may_begin && self.reading.len() < self.side_by_side {
                let Some(piece) = self.take_piece(sizing).await? else { break };
                self.begin(piece, sizing);
            }
            let Some(Reading { piece, end, result }) = self.reading.next().await else { return Ok(None) };
            self.open.retain(|open| open.range != piece.range);
            let seconds = piece.range.seconds(self.clock.now());
            let read = match result {
                Ok(read) => read,
                Err(error) => {
                    // It is not read: whoever goes on begins here.
                    self.todo.push(piece);
                    return Err(error);
                }
            };
            match read {
                WindowRead::Whole(rows) => {
                    sizing.learn_density(rows.total, seconds);
                    sizing.on_calm();
                    self.subtract(end, rows.total);
                    return Ok(Some(Found { range: piece.range, rows }));
                }
                WindowRead::TooMany(first) => {
                    let total = first.total;
                    sizing.learn_page_size(first, self.page_size);
                    sizing.learn_density(total, seconds);
                    self.subtract(end, total);
                    self.todo.push(Piece { expected: Some(total), ..piece });
                }
                WindowRead::Doubtful(first) => {
                    let total = first.total;
                    sizing.learn_page_size(first, self.page_size);
                    tracing::debug!(total, from = piece.range.from, "the pages of a window do not agree");
                    sizing.learn_density(total, seconds);
                    sizing.on_doubt();
                    self.subtract(end, total);
                    let is_one_page = total <= sizing.page_size;
                    let doubts = piece.doubts + u32::from(is_one_page);
                    if doubts == MAX_DOUBTS {
                        return Err(contradiction(total));
                    }
                    self.todo.push(Piece { expected: Some(total), doubts, ..piece });
                }
            }
        }
    }

    /// From when on something is not read yet; `None` if everything is.
    pub(in crate::okki) fn first_unread(&self) -> Option<Seconds> {
        self.todo.iter().chain(&self.open).map(|piece| piece.range.from).min()
    }

    /// An open range comes last and alone. One that holds more than a page is closed as far as it can be first.
    async fn take_piece(&mut self, sizing: &Sizing) -> Result<Option<Piece>> {
        let Some(piece) = self.todo.last().copied() else { return Ok(None) };
        if piece.range.to.is_some() {
            return Ok(self.todo.pop());
        }
        if piece.expected.is_some() {
            let front =
                front(self.asker, self.axis, self.clock.now(), piece.range.from, sizing.page_size).await?;
            self.todo.pop();
            self.todo.push(Piece { range: TimeRange::since(front), expected: None, doubts: 0 });
            if front > piece.range.from {
                self.todo.push(Piece { range: TimeRange::new(piece.range.from, front - 1), ..piece });
                return Ok(self.todo.pop());
            }
        }
        Ok(if self.reading.is_empty() { self.todo.pop() } else { None })
    }

    fn begin(&mut self, piece: Piece, sizing: &Sizing) {
        let now = self.clock.now();
        let is_open = piece.range.to.is_none();
        let seconds = if is_open { i64::MAX } else { sizing.seconds_for(&piece, now) };
        let (range, rest) = piece.range.cut(seconds, now);
        self.todo.extend(rest.map(|range| Piece { range, ..piece }));
        let window = Piece { range, ..piece };
        // Rows enter an open range at any time: only a single answer proves its read.
        let at_most = if is_open { 0 } else { sizing.at_most() };
        self.open.push(window);
        self.reading.push(Box::pin(read(
            self.asker,
            self.axis,
            window,
            piece.range.to,
            self.page_size,
            at_most,
        )));
    }

    /// Rows that a window took from the piece that it was cut from.
    fn subtract(&mut self, end: Option<Seconds>, rows: u64) {
        for piece in self.todo.iter_mut().filter(|piece| piece.range.to == end) {
            piece.expected = piece.expected.map(|expected| expected.saturating_sub(rows));
        }
    }
}

async fn read(
    asker: Asker<'_>,
    axis: TimeAxis,
    piece: Piece,
    end: Option<Seconds>,
    page_size: u32,
    at_most: u64,
) -> Reading {
    let question = Question { axis, range: piece.range, product_type: None };
    let is_one_second = piece.range.is_one_second();
    let at_most = if is_one_second { u64::MAX } else { at_most };
    let result = match window::read(&asker, &question, page_size, at_most).await {
        Ok(WindowRead::Doubtful(first)) if is_one_second && first.total > first.rows => {
            window::read_second(&asker, &question, page_size).await.map(WindowRead::Whole)
        }
        result => result,
    };
    Reading { piece, end, result }
}

fn contradiction(total: u64) -> Error {
    let message = format!(
        "source: {MAX_DOUBTS} times a page that should hold all {total} products of its time did not; nothing was deleted"
    );
    Error::new(ErrorKind::InconsistentSource, message)
        .help("compare count (or totalItem) with the rows of GET /v1/product/list, and ask OKKI's support")
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
        assert_eq!((sizing.target, sizing.at_most()), (880, 1173));
        for target in [440, 220, 110, 90, 90] {
            sizing.on_doubt();
            assert_eq!(sizing.target, target);
        }
        assert_eq!(sizing.at_most(), 100, "one page, whose rows and total are of one moment");
        for _ in 0..20 {
            sizing.on_calm();
        }
        assert_eq!(sizing.target, 880);
    }

    #[test]
    fn a_window_is_as_long_as_the_rows_are_dense() {
        let mut sizing = Sizing::new(100, PAGES_OF_A_WINDOW);
        assert_eq!(sizing.seconds_for(&piece(0, 999, 1_000), 0), 1_000, "few enough rows");
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 8_800), 0), 10_000);
        sizing.learn_density(0, 10_000);
        assert_eq!(sizing.seconds_for(&piece(10_000, 99_999, 8_800), 0), 45_000, "an empty part: halve");
        let two_seconds = Sizing { target: 8, page_size: 9, ..Sizing::new(9, 1) };
        assert_eq!(
            two_seconds.seconds_for(&piece(0, 1, 10), 0),
            1,
            "ten rows are more than a page: split them"
        );
        sizing.learn_density(8_800, 1_000);
        assert_eq!(sizing.seconds_for(&piece(0, 99_999, 8_800), 0), 100);
    }
}
