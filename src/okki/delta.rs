//! The delta: products that the source says were created or edited since a moment, in windows of update time.
//!
//! **The clock.** Rows have no times, and nothing says that `now` in an answer and the filter speak of one time zone. So
//! `now` is never trusted as a cursor by itself. What is trusted is what the filter has shown: if it finds a product
//! updated `since now − x`, then its clock is behind `now` by `x` at most. The smallest such `x` ever seen is kept
//! ([`Ledger::filter_lag_seconds`](super::windows::Ledger)), and changes are asked for from that much before `now`.
//! A filter whose clock is ahead only brings rows again.
//!
//! **Late rows.** A row may become visible after its time says: changes are asked for from a minute earlier still. What
//! is later than that comes with the windows that are read again.
//!
//! **Rows on the move.** A row that is edited leaves a closed window of update time for the open one, which is read last.

use super::merge::{Fresh, Numbers};
use super::reading::{Keep, Reading, Step, Stop};
use super::windows::ledger::overlap_seconds;
use super::windows::times::OLDEST;
use super::windows::{Seconds, TimeAxis, TimeRange, Walk};
use crate::testing::Mutant;

/// The first guess of how far the filter's clock is behind: this, then eight times as much, and so on.
const FIRST_LAG_SECONDS: i64 = 480;
const LAG_GROWS_BY: i64 = 8;
/// The lag of a source that shows nothing: no time zone is farther behind.
const UNKNOWN_LAG_SECONDS: i64 = 86_400;
/// People may edit or delete the rows that a search looks for: then it begins again.
const MAX_SEARCHES: u32 = 4;
/// Halvings between a lag that shows too many rows and one that shows none.
const LAG_HALVINGS: u32 = 6;

impl<K: Keep> Reading<'_, '_, K> {
    /// Reads what changed since the last delta (or since the read began), and lets it win over what is held.
    pub(super) async fn read_changes(&mut self) -> Step<()> {
        for _ in 0..2 {
            let now = self.source_clock.now();
            let Some(from) = self.changes_from(now).await? else { return Ok(()) };
            let new = self.ledger.number();
            self.ledger.expect_changes(new, from);
            let fresh = self.read_changes_since(from, Numbers { new, again: new, tail: None }).await?;
            self.fresh_rows += fresh.rows;
            self.is_dirty |= fresh.rows > 0;
            self.forget_found();
            self.has_unplaced |= fresh.created > 0;
            self.learn_lag(from, fresh.rows).await?;
            if !fresh.is_unsure {
                self.move_cursor(now);
            }
            if fresh.ambiguous.is_empty() {
                return Ok(());
            }
            // Which of two rows with one id has changed, only their windows tell.
            self.ledger.retire(|window| fresh.ambiguous.contains(&window.number));
            self.cover(None).await?;
        }
        Ok(())
    }

    /// Rows that deltas brought, and that neither windows nor the tail have shown since: they were brought back, and belong
    /// to a window that was read before; or they are gone again. A row that has changed since a moment is among the changes
    /// since then for as long as it exists. So one more delta tells. Where no row waits, it asks for what has changed since
    /// the last one.
    ///
    /// Returns the numbers of that delta; `None` if nothing is known to ask for.
    pub(super) async fn find_vanished(&mut self) -> Step<Option<Numbers>> {
        self.forget_found();
        let since = self.ledger.unplaced_since().or(self.ledger.changes_from);
        let Some(since) = since else { return Ok(None) };
        let numbers = Numbers { new: self.ledger.number(), again: self.ledger.number(), tail: self.tail };
        self.ledger.expect_changes(numbers.new, since);
        self.ledger.expect_changes(numbers.again, since);
        let fresh = self.read_changes_since(since, numbers).await?;
        self.fresh_rows += fresh.rows;
        if !fresh.is_unsure && fresh.ambiguous.is_empty() {
            let gone = self.ledger.take_vanished(numbers.new, since);
            self.builder.remove(&gone);
        }
        self.forget_found();
        self.is_dirty = true;
        Ok(Some(numbers))
    }

    async fn read_changes_since(&mut self, from: Seconds, numbers: Numbers) -> Step<Fresh> {
        let (mut fresh, mut sizing) = (Fresh::default(), self.sizing.anew());
        let ranges = [(TimeRange::since(from), None)];
        let (mut walk, mut pages) = (Walk::new(self.asker, TimeAxis::Update, self.source_clock, &ranges), 0);
        loop {
            match walk.next(&mut sizing, true).await {
                Ok(Some(found)) => {
                    pages += found.rows.pages.len();
                    fresh.is_unsure |= !found.rows.sure;
                    self.builder.add_changes(&found.rows.pages, numbers, &self.ledger, &mut fresh)?
                }
                Ok(None) => break,
                Err(error) => {
                    // What was read is read: the next delta begins where this one ended.
                    if let Some(unread) = walk.first_unread() {
                        let from = self.ledger.changes_from.unwrap_or(OLDEST);
                        self.ledger.changes_from = Some(from.max(unread.saturating_sub(overlap_seconds())));
                    }
                    self.is_dirty = true;
                    return Err(error.into());
                }
            }
        }
        // The next delta would read them again.
        self.is_dirty |= pages > 1;
        Ok(fresh)
    }

    /// `None` if there is nothing to ask for: the source is empty.
    async fn changes_from(&mut self, now: Seconds) -> Step<Option<Seconds>> {
        let Some(lag) = self.filter_lag().await? else { return Ok(None) };
        if let Some(from) = self.ledger.changes_from {
            return Ok(Some(from));
        }
        let began = self.ledger.began.unwrap_or(now).min(now);
        let from = began.saturating_sub(lag).saturating_sub(overlap_seconds());
        self.ledger.changes_from = Some(from);
        Ok(Some(from))
    }

    /// Where creation times end that nothing enters any more: before what the filter's clock has passed for sure.
    pub(super) async fn closed_end(&mut self) -> Step<Seconds> {
        let now = self.source_clock.now();
        let lag = self.filter_lag().await?.unwrap_or(UNKNOWN_LAG_SECONDS);
        Ok(now.saturating_sub(lag).saturating_sub(overlap_seconds()))
    }

    /// How far the filter's clock is behind at most; `None` if the source is empty.
    async fn filter_lag(&mut self) -> Step<Option<i64>> {
        if self.ledger.filter_lag_seconds.is_none() {
            if self.ledger.source_total.max(self.held()) == 0 {
                return Ok(None);
            }
            let lag = self.find_lag_and_bounds().await?;
            // Changes that an older version of the program asked for by `now` are asked for again.
            if let Some(from) = self.ledger.changes_from {
                self.ledger.changes_from = Some(from.saturating_sub(lag));
            }
            self.ledger.filter_lag_seconds = Some(lag);
        }
        Ok(self.ledger.filter_lag_seconds)
    }

    async fn find_lag_and_bounds(&mut self) -> Step<i64> {
        let mut lag = UNKNOWN_LAG_SECONDS;
        for _ in 0..MAX_SEARCHES {
            let Some((rows, found)) = self.find_lag().await? else {
                return Err(Stop::ReadWhole("the source does not filter by update time".to_owned()));
            };
            lag = if Mutant::TrustTheClock.is_active() { 0 } else { found };
            if self.find_bounds(lag, rows).await? {
                break;
            }
        }
        Ok(lag)
    }

    /// The smallest lag of a few at which the filter shows a row, and not much more than a page; and how many it shows.
    async fn find_lag(&self) -> Step<Option<(u64, i64)>> {
        let (mut shows_none, mut asked) = (0, FIRST_LAG_SECONDS);
        let most = self.source_clock.now() - OLDEST;
        let (mut total, mut lag) = self.updated_within(asked).await?;
        while total == 0 {
            if asked >= most {
                return Ok(None);
            }
            shows_none = asked;
            asked = asked.saturating_mul(LAG_GROWS_BY).min(most);
            (total, lag) = self.updated_within(asked).await?;
        }
        Ok(Some(self.shorten_lag(shows_none, asked, total, lag).await?))
    }

    /// A lag that shows more than a page of rows would bring them all again in the runs that follow: looks for a shorter
    /// one between it and one that shows none.
    async fn shorten_lag(
        &self,
        mut shows_none: i64,
        mut asked: i64,
        mut total: u64,
        mut lag: i64,
    ) -> Step<(u64, i64)> {
        let page = u64::from(self.asker.okki.settings.page_size);
        for _ in 0..LAG_HALVINGS {
            if total <= page {
                break;
            }
            let middle = shows_none + (asked - shows_none) / 2;
            match self.updated_within(middle).await? {
                (0, _) => shows_none = middle,
                (rows, shown) => (asked, total, lag) = (middle, rows, shown),
            }
        }
        Ok((total, lag))
    }

    /// How many rows the filter shows, and by how much its clock is behind at most if it shows any. Time goes by until
    /// the answer is there.
    async fn updated_within(&self, lag: i64) -> Step<(u64, i64)> {
        let now = self.source_clock.now();
        let since = TimeRange::since(now.saturating_sub(lag));
        let rows = self.asker.total(TimeAxis::Update, since).await?;
        Ok((rows, lag + (self.source_clock.now() - now) + 1))
    }

    /// Something has changed since the last delta: if the filter shows a row since then, its clock is not further behind.
    async fn learn_lag(&mut self, from: Seconds, fresh: u64) -> Step<()> {
        let Some(known) = self.ledger.filter_lag_seconds else { return Ok(()) };
        let last_delta = from + known + overlap_seconds();
        let shorter = self.source_clock.now() - last_delta + overlap_seconds();
        if fresh > 0 && (0..known / 2).contains(&shorter) {
            let (rows, lag) = self.updated_within(shorter).await?;
            if rows > 0 {
                self.ledger.filter_lag_seconds = Some(self.shorten_lag(0, shorter, rows, lag).await?.1);
            }
        }
        Ok(())
    }

    fn move_cursor(&mut self, now: Seconds) {
        let lag = self.ledger.filter_lag_seconds.unwrap_or(0);
        let from = now.saturating_sub(lag).saturating_sub(overlap_seconds());
        self.ledger.changes_from = Some(self.ledger.changes_from.map_or(from, |before| before.max(from)));
    }
}
