//! Walks over ranges of time in windows, several side by side, and lets doubts decide how large they are.
//!
//! ```text
//! todo      [=================== 200,000 rows expected ===================]
//! window 1  [~970 rows]                       whole: taken
//! window 2             [~970 rows]            doubtful: an edit moved its pages. Back to todo, in halves
//! window 3                        [... ]      read side by side with window 2
//! ```
//!
//! A window is cut so that it holds about [`Sizing::rows`] rows, by how dense the rows were lately. It is small, ten
//! pages, for two reasons: a doubt costs one window, and so does a deletion that is only known by a total. Ten pages
//! cost some 6 % more calls than one long list, because the last page of each is not full.
//!
//! Race: a row that is edited leaves a closed window of update times for the open one at the end. So the open one is
//! read after all others have ended, and only as one answer (a single page).

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::front::front;
use super::question::{Asker, Question};
use super::second;
use super::sizing::{Piece, Sizing};
use super::times::{Seconds, TimeAxis, TimeRange};
use super::window::{self, WindowRead, WindowRows};
use crate::error::{Error, ErrorKind, Result};
use crate::words::say;

/// Doubts about one page that no other page can have moved.
const MAX_DOUBTS: u32 = 5;

/// A window of fewer seconds is cut by itself: of a longer piece, its density could round to the same window again, for ever.
const SHORTEST_TO_JOIN_SECONDS: i64 = 10;

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

/// A window that was read whole.
#[derive(Debug)]
pub(in crate::okki) struct Found {
    pub range: TimeRange,
    pub rows: WindowRows,
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
        let piece = |&(range, expected): &(TimeRange, Option<u64>)| Piece::new(range, expected);
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
                    let piece = Piece { expected: Some(total), ..piece };
                    let piece = self.with_the_rest(piece);
                    self.todo.push(piece);
                }
                WindowRead::Doubtful(first) => {
                    let total = first.total;
                    sizing.learn_page_size(first, self.page_size);
                    tracing::debug!(total, from = piece.range.from, "the pages of a window do not agree");
                    sizing.learn_density(total, seconds);
                    let pages = Some(sizing.on_doubt(total));
                    self.subtract(end, total);
                    let is_one_page = total <= sizing.page_size;
                    let doubts = piece.doubts + u32::from(is_one_page);
                    if doubts == MAX_DOUBTS {
                        return Err(contradiction(total));
                    }
                    self.todo.push(Piece { expected: Some(total), doubts, pages, ..piece });
                }
            }
        }
    }

    pub(in crate::okki) fn side_by_side(&self) -> u64 {
        self.side_by_side as u64
    }

    /// From when on something is not read yet; `None` if everything is.
    pub(in crate::okki) fn first_unread(&self) -> Option<Seconds> {
        self.todo.iter().chain(&self.open).map(|piece| piece.range.from).min()
    }

    /// An open range comes last and alone. One that holds more than a page is closed as far as it can be first.
    async fn take_piece(&mut self, sizing: &Sizing) -> Result<Option<Piece>> {
        let Some(piece) = self.todo.last().copied() else { return Ok(None) };
        if piece.range.to.is_some() {
            self.todo.pop();
            return Ok(Some(self.with_the_next(piece, sizing.rows(&piece))));
        }
        if piece.expected.is_some() {
            let front =
                front(self.asker, self.axis, self.clock.now(), piece.range.from, sizing.page_size).await?;
            self.todo.pop();
            self.todo.push(Piece::new(TimeRange::since(front), None));
            if front > piece.range.from {
                self.todo.push(Piece { range: TimeRange::new(piece.range.from, front - 1), ..piece });
                return Ok(self.todo.pop());
            }
        }
        Ok(if self.reading.is_empty() { self.todo.pop() } else { None })
    }

    /// A window that held too many rows, together with what follows it: the end of it would be a window of few rows.
    fn with_the_rest(&mut self, piece: Piece) -> Piece {
        let is_long = piece.range.to.is_some_and(|end| end - piece.range.from >= SHORTEST_TO_JOIN_SECONDS);
        let joined = self.todo.last().and_then(|rest| piece.joined(rest)).filter(|_| is_long);
        if joined.is_some() {
            self.todo.pop();
        }
        joined.unwrap_or(piece)
    }

    /// What is left of a piece and holds less than a window, together with the piece that follows it.
    fn with_the_next(&mut self, mut piece: Piece, rows: u64) -> Piece {
        while piece.expected.is_some_and(|expected| expected < rows)
            && let Some(joined) = self.todo.last().and_then(|next| piece.joined(next))
        {
            self.todo.pop();
            piece = joined;
        }
        piece
    }

    fn begin(&mut self, piece: Piece, sizing: &Sizing) {
        let now = self.clock.now();
        let is_open = piece.range.to.is_none();
        let seconds = if is_open { i64::MAX } else { sizing.seconds_for(&piece, now) };
        let (range, rest) = piece.range.cut(seconds, now);
        self.todo.extend(rest.map(|range| Piece { range, ..piece }));
        let window = Piece { range, ..piece };
        // Rows enter an open range at any time: only a single answer proves its read.
        let at_most = if is_open { 0 } else { sizing.at_most(&window) };
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
            second::read_second(&asker, &question, page_size).await.map(WindowRead::Whole)
        }
        result => result,
    };
    Reading { piece, end, result }
}

fn contradiction(total: u64) -> Error {
    let message = say!(
        "source: {times} times a page that should hold all {total} products of its time did not; nothing was deleted",
        times = MAX_DOUBTS,
        total
    );
    Error::new(ErrorKind::InconsistentSource, message).help(say!(
        "compare count (or totalItem) with the rows of GET /v1/product/list, and ask OKKI's support"
    ))
}
