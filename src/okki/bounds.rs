//! Which ends of a range the source's filter includes: both, as documented, or not.
//!
//! It is found out once, before anything is read: a range of update times that holds a row is halved until it is one second.
//! If that second shows the row, both ends are included. A filter that leaves out an end loses the row at a border on the
//! way: the range shows it, neither half does. Then each start is asked for a second earlier, and the search goes on.
//! Without this, windows would miss the rows at their borders, and no total of a delta would tell.

use super::reading::{Keep, Reading, Step};
use super::windows::times::FARTHEST_ZONE_SECONDS;
use super::windows::{Asker, Seconds, TimeAxis, TimeRange};

/// Rows that were edited during the search leave the range that is searched: then it begins again.
const MAX_SEARCHES: u32 = 4;
/// A start is asked for at most this much earlier: both ends left out.
const MOST_SHIFT_SECONDS: i64 = 2;

impl<K: Keep> Reading<'_, '_, K> {
    /// `lag`: the filter shows so many `rows` that were updated since so much before now.
    pub(super) async fn find_bounds(&mut self, lag: i64, rows: u64) -> Step<()> {
        for _ in 0..MAX_SEARCHES {
            let Some((from, to)) = self.range_with_a_row(lag).await? else { continue };
            if self.shows_a_second(from, to, rows).await? || self.shift_starts(from, to).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn range_with_a_row(&self, lag: i64) -> Step<Option<(Seconds, Seconds)>> {
        let now = self.source_clock.now();
        let from = now.saturating_sub(lag);
        for to in [now, now + FARTHEST_ZONE_SECONDS] {
            if self.shows(from, to).await? {
                return Ok(Some((from, to)));
            }
        }
        Ok(None)
    }

    /// Whether one question a step leads to a second that shows its row: what the first half does not show, the second
    /// half must. It never does where an end is left out. Of many `rows`, one is near.
    async fn shows_a_second(&self, mut from: Seconds, mut to: Seconds, rows: u64) -> Step<bool> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX).max(4);
        let mut middle = from + (to - from) / (rows / 2);
        let mut is_shown = false;
        while from < to {
            is_shown = self.shows(from, middle).await?;
            (from, to) = if is_shown { (from, middle) } else { (middle + 1, to) };
            middle = from + (to - from) / 2;
        }
        Ok(is_shown || self.shows(from, to).await?)
    }

    /// Asks for both halves, and asks for starts a second earlier where neither has the row. Returns whether a second
    /// shows its row then.
    async fn shift_starts(&mut self, mut from: Seconds, mut to: Seconds) -> Step<bool> {
        while from < to {
            let middle = from + (to - from) / 2;
            if self.shows(from, middle).await? {
                to = middle;
            } else if self.shows(middle + 1, to).await? {
                from = middle + 1;
            } else if self.shows(from, to).await? && self.asker.start_shift_seconds < MOST_SHIFT_SECONDS {
                let shift = self.asker.start_shift_seconds + 1;
                tracing::info!(shift, "the source's filter leaves out an end of its range; asking for more");
                self.ledger.start_shift_seconds = shift;
                self.asker = Asker { start_shift_seconds: shift, ..self.asker };
            } else {
                return Ok(false);
            }
        }
        self.shows(from, to).await
    }

    async fn shows(&self, from: Seconds, to: Seconds) -> Step<bool> {
        Ok(self.asker.total(TimeAxis::Update, TimeRange::new(from, to)).await? > 0)
    }
}
