//! One read of the products: goes on where the last one ended, in windows, until nothing is missing or the time is over.
//!
//! ```text
//! first run(s)   windows ─▶ windows ─▶ …   each kept in the store, whatever ends the run
//! when complete  delta ─▶ total = rows held?   no: the ledger finds the windows that differ, and reads them again
//! every run      the windows read longest ago, a share ─▶ delta ─▶ total
//! ```
//!
//! Goal: every row was true at a moment of the read, none that existed throughout is missing, and nothing counts as
//! deleted that was there throughout. Why each step keeps that:
//!
//! - **Windows** lie in the past: nothing enters them, and each proves itself (`windows/window.rs`).
//! - **The delta** comes after the windows and wins over them: it holds what was created or edited since they began.
//! - **A row goes** only when every window that could hold it was read after the row was last seen (`windows/ledger.rs`).
//!   A total that differs never takes a row away; it only says where to read again.
//!
//! What can still be late: a row that becomes visible long after its time says (a transaction that took more than a
//! minute), or a change without a new update time. The overlap of a minute meets short delays; the windows that each run
//! reads again meet the rest, within `guard.full_read_every`.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Unfinished;
use super::snapshot::SnapshotBuilder;
use super::windows::times::YEAR_SECONDS;
use super::windows::{
    Asker, Found, Ledger, Sizing, SourceClock, TimeAxis, TimeRange, Walk, Window, WindowRows,
};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Progress, Watch};
use crate::testing::Mutant;
use crate::words::say;

/// Few catalogues hold products that are older.
const EMPTY_BEFORE_SECONDS: i64 = 12 * YEAR_SECONDS;
/// A checkpoint is at most this old when a run is killed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(120);
/// Bytes a second that a store takes at least: how early a large read ends for its last checkpoint.
const STORE_BYTES_PER_SECOND: usize = 20_000_000;
/// A range is read at most this often in a row, if each look brings an unknown row.
pub(super) const MOST_LOOKS: u32 = 6;
/// The windows of a cycle are read again in this share of the time allowed, so that none comes late.
const CYCLE_PERCENT: u64 = 80;

/// Keeps what a read has come to.
pub(crate) trait Keep {
    /// Whether a complete read is kept as well, for the next one to go on from.
    fn keeps_complete(&self) -> bool;

    /// Keeps these pieces as one file. A read goes on without it, so it returns nothing.
    fn keep(&self, pieces: Vec<Bytes>) -> impl Future<Output = ()>;
}

/// What ends a read in windows early.
pub(super) enum Stop {
    Error(Error),
    /// The source's filters cannot be believed, for this reason.
    ReadWhole(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::NotSupported(_) => Self::ReadWhole(error.to_string()),
            _ => Self::Error(error),
        }
    }
}

pub(super) type Step<T> = std::result::Result<T, Stop>;

/// A read that goes on.
pub(super) struct Reading<'a, 'g, K> {
    pub asker: Asker<'a>,
    pub builder: SnapshotBuilder<'g>,
    pub ledger: Ledger,
    pub source_clock: SourceClock,
    pub clock: Clock,
    pub key: String,
    pub keep: &'a K,
    pub watch: &'a Watch,
    pub sizing: Sizing,
    /// Rows that were held when this read began.
    pub held_at_start: u64,
    pub kept_at: Instant,
    /// Whether something differs from what is kept.
    pub is_dirty: bool,
    /// Whether an incomplete read is kept.
    pub is_checkpoint_there: bool,
    /// Rows that differ from what was known.
    pub fresh_rows: u64,
    /// The number of this run's last read of the whole tail that missed nothing.
    pub tail: Option<u32>,
    /// Whether a delta brought rows whose place nobody has looked for.
    pub has_unplaced: bool,
    /// Whether there was time to compare totals.
    pub is_compared: bool,
}

impl<K: Keep> Reading<'_, '_, K> {
    /// Reads what is missing, and what changed. `full_read_every`: every part is read again within this time.
    pub(super) async fn run(&mut self, full_read_every: Option<Duration>) -> Step<()> {
        let is_first = !self.ledger.complete;
        // A source that was empty has shown nothing of its filters.
        let is_checked = self.ledger.filter_lag_seconds.is_some() || self.ledger.whole_because.is_some();
        if !is_checked {
            self.check_filters().await?;
        } else if self.ledger.surplus > 0 {
            self.find_surplus().await?;
        }
        if is_first {
            let end = self.closed_end().await?;
            self.ledger.extend_to(end);
            // Also a run that ends before its first window spares the next one these questions.
            self.is_dirty = true;
            self.cover(None).await?;
            self.ledger.complete = self.ledger.gaps().is_empty();
            self.ledger.rolled_at_ms = self.clock.now_ms();
            self.is_dirty = true;
        } else if let Some(every) = full_read_every {
            self.roll(every).await?;
        }
        if !Mutant::SkipDelta.is_active() {
            self.read_changes().await?;
        }
        self.settle_in_time().await?;
        self.remove_gone();
        self.is_dirty |= !self.ledger.finished;
        self.ledger.finished = true;
        Ok(())
    }

    /// Few catalogues are older than this: what is before is most likely empty, and takes one call.
    fn split_at_the_empty_years(&self, gap: TimeRange) -> (TimeRange, Option<TimeRange>) {
        if self.ledger.complete || gap.from > super::windows::times::OLDEST {
            return (gap, None);
        }
        gap.cut(self.source_clock.began.saturating_sub(EMPTY_BEFORE_SECONDS), self.source_clock.began)
    }

    /// Reads all gaps. With a `limit`, no window begins once it has passed.
    ///
    /// Nothing enters a window, unless people bring a product back. Where one comes back and another one goes between two
    /// pages, the total stays, and a third one may be hidden. So the range of a window that brings an unknown row stays a
    /// gap, which is read again.
    pub(super) async fn cover(&mut self, limit: Option<Instant>) -> Step<()> {
        for _ in 0..MOST_LOOKS {
            self.cover_gaps(limit).await?;
            if self.ledger.gaps().is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn cover_gaps(&mut self, limit: Option<Instant>) -> Step<()> {
        let by_number = self.builder.rows_by_number();
        let expected = |gap: &TimeRange| {
            let waiting = self.ledger.waiting().iter();
            let in_gap = waiting.filter(|w| w.from >= gap.from && gap.to.is_some_and(|to| w.to <= to));
            let rows: u64 = in_gap.filter_map(|waiting| by_number.get(&waiting.number)).sum();
            match rows {
                0 if !self.ledger.complete => {
                    Some(self.ledger.source_total.saturating_sub(self.ledger.rows_in_windows()))
                }
                0 => None,
                rows => Some(rows),
            }
        };
        let mut gaps: Vec<(TimeRange, Option<u64>)> = Vec::new();
        for gap in self.ledger.gaps() {
            let (first, rest) = self.split_at_the_empty_years(gap);
            gaps.push((first, expected(&gap).filter(|_| rest.is_none())));
            gaps.extend(rest.map(|rest| (rest, expected(&gap))));
        }
        if gaps.is_empty() {
            return Ok(());
        }
        let mut walk = Walk::new(self.asker, TimeAxis::Creation, self.source_clock, &gaps);
        let (started, before) = (Instant::now(), self.ledger.rows_in_windows());
        loop {
            let may_begin = self.has_time_to_keep() && limit.is_none_or(|limit| Instant::now() < limit);
            let rows = self.ledger.rows_in_windows().saturating_sub(before);
            self.sizing.fit(rows, started.elapsed(), self.asker.budget.left(), walk.side_by_side());
            let Some(found) = walk.next(&mut self.sizing, may_begin).await? else { break };
            self.take_window(found)?;
            if self.kept_at.elapsed() >= CHECKPOINT_EVERY {
                self.checkpoint().await;
            }
        }
        if walk.first_unread().is_some() && limit.is_none() {
            return Err(crate::budget::interrupted(say!("the run's time is over")).into());
        }
        self.remove_gone();
        Ok(())
    }

    fn take_window(&mut self, found: Found) -> Result<()> {
        let Found { range, rows } = found;
        let (number, to) = (self.ledger.number(), range.to.unwrap_or(range.from));
        if let Some(first) = rows.pages.first() {
            self.builder.reserve_for(first, self.ledger.source_total);
        }
        if self.may_hide(&rows) {
            self.ledger.expect(number, range.from, to);
        } else {
            self.ledger.insert(Window {
                number,
                from: range.from,
                to,
                rows: rows.total,
                read_at_ms: self.clock.now_ms(),
                sure: rows.sure,
            });
        }
        self.builder.add_window(&rows, number, &self.ledger)?;
        self.is_dirty = true;
        let read = self.ledger.rows_in_windows();
        (self.watch)(Progress::Reading { read, total: self.ledger.source_total.max(read) });
        Ok(())
    }

    /// Whether a row of several pages is not known, although all were read before: perhaps it came back between two pages.
    pub(super) fn may_hide(&mut self, rows: &WindowRows) -> bool {
        self.ledger.complete && rows.pages.len() > 1 && self.builder.is_any_unknown(rows)
    }

    /// Reads a share of the windows again: those that were read longest ago. It takes at most half of the time that is
    /// left, and its failure stops nothing: changes flow on, and the next run tries again.
    async fn roll(&mut self, every: Duration) -> Step<()> {
        if self.ledger.whole_because.is_some() {
            return Ok(());
        }
        let cycle_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX) / 100 * CYCLE_PERCENT;
        let (now_ms, page) = (self.clock.now_ms(), u64::from(self.asker.okki.settings.page_size));
        let rolled_at_ms = self.ledger.rolled_at_ms;
        let rows = self.ledger.take_due(self.held(), now_ms, cycle_ms, page);
        if rows > 0 && self.ledger.windows().is_empty() {
            let end = self.closed_end().await?;
            self.ledger.extend_to(end);
        }
        if self.ledger.gaps().is_empty() {
            return Ok(());
        }
        tracing::debug!(rows, "reading the oldest windows again");
        self.is_dirty = true;
        let left = self.asker.budget.left();
        let limit = if left < Duration::MAX / 4 { left / 2 } else { every };
        let covered = self.cover(Instant::now().checked_add(limit)).await;
        // What was not read again is as it was, so that its total can still be compared.
        if !self.ledger.gaps().is_empty() {
            let by_number = self.builder.rows_by_number();
            self.ledger.reinstate(|number| by_number.get(&number).copied().unwrap_or(0), rolled_at_ms);
        }
        match covered {
            Err(Stop::Error(error)) if !self.asker.budget.is_over() && may_pass(&error) => {
                tracing::warn!(error = %error.line(), "old windows could not be read again; changes flow on");
                Ok(())
            }
            done => done,
        }
    }

    /// Removes rows that no place holds any more where they could be.
    pub(super) fn remove_gone(&mut self) {
        if self.ledger.waiting().is_empty() {
            return;
        }
        let mut gone = self.ledger.take_gone(self.tail);
        if Mutant::DeleteBeforeFullCoverage.is_active() {
            gone.extend(self.ledger.waiting().iter().filter(|w| w.number % 2 == 0).map(|w| w.number));
        }
        self.builder.remove(&gone);
        self.forget_found();
    }

    /// Nothing waits under a number that no row carries.
    pub(super) fn forget_found(&mut self) {
        if !self.ledger.waiting().is_empty() {
            let used = self.builder.rows_by_number();
            self.ledger.keep_waiting(|number| used.contains_key(&number));
        }
    }

    /// Rows that the source should hold if nothing was missed.
    pub(super) fn held(&self) -> u64 {
        if self.ledger.waiting().is_empty() {
            // Counting them takes a look at every row.
            return self.ledger.rows_in_windows();
        }
        let by_number = self.builder.rows_by_number();
        let waiting = self.ledger.waiting().iter().filter_map(|waiting| by_number.get(&waiting.number));
        self.ledger.rows_in_windows() + waiting.sum::<u64>()
    }

    pub(super) fn unfinished(&self, error: Error) -> Unfinished {
        let read = self.held();
        let unread = self.ledger.source_total.saturating_sub(read).max(1);
        Unfinished { error, read, newly_read: read.saturating_sub(self.held_at_start), unread: Some(unread) }
    }

    /// Keeps what was read so far, whatever ends the run.
    pub(super) async fn checkpoint(&mut self) {
        if Mutant::KeepNoCheckpoint.is_active() && !self.ledger.finished {
            return;
        }
        let pieces = self.builder.to_pieces(&self.key, &self.ledger);
        self.keep.keep(pieces).await;
        (self.kept_at, self.is_dirty, self.is_checkpoint_there) = (Instant::now(), false, true);
    }

    /// The read is complete.
    pub(super) async fn keep_complete(&mut self) {
        if self.keep.keeps_complete() {
            if self.is_dirty {
                self.checkpoint().await;
            }
        } else if self.is_checkpoint_there {
            self.keep.keep(self.builder.no_pieces(&self.key, &Ledger::closed())).await;
        }
    }

    /// The last checkpoint has the time after the deadline to itself, and a large one needs more.
    fn has_time_to_keep(&self) -> bool {
        let bytes = self.builder.products.table().parts().0.len();
        let seconds = u64::try_from(bytes / STORE_BYTES_PER_SECOND).unwrap_or(u64::MAX);
        self.asker.budget.left() > Duration::from_secs(seconds)
    }
}

pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Unavailable(_) | ErrorKind::BadAnswer(_) | ErrorKind::InconsistentSource)
}
