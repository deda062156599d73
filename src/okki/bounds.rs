//! Which ends of a range the source's filter includes: both, as documented, or not.
//!
//! It is found out once, before anything is read: a range of update times that holds a row is halved until it is one second.
//! If that second shows the row, both ends are included. A filter that leaves out an end loses the row at a border on the
//! way: the range shows it, neither half does. Then each start is asked for a second earlier, and the search goes on.
//! Without this, windows would miss the rows at their borders, and no total of a delta would tell.

use super::reading::{Keep, Reading, Step};
use super::windows::times::FARTHEST_ZONE_SECONDS;
use super::windows::{Asker, Seconds, TimeAxis, TimeRange};

/// A start is asked for at most this much earlier: both ends left out.
const MOST_SHIFT_SECONDS: i64 = 2;

impl<K: Keep> Reading<'_, '_, K> {
    /// `lag`: the filter shows so many `rows` that were updated since so much before now. Returns `false` if that is over:
    /// rows that are edited or deleted during the search leave the range that is searched.
    pub(super) async fn find_bounds(&mut self, lag: i64, rows: u64) -> Step<bool> {
        let Some((from, to)) = self.range_with_a_row(lag).await? else { return Ok(false) };
        match self.lost_at_a_border(from, to, rows).await? {
            None => Ok(true),
            Some((from, to)) => self.shift_starts(from, to).await,
        }
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

    /// One question a step: what the first half does not show, the second half must. It leads to a second that shows its
    /// row (`None`), but never where an end is left out: then it returns the last range that showed the row. Of many
    /// `rows`, one is near.
    async fn lost_at_a_border(
        &self,
        mut from: Seconds,
        mut to: Seconds,
        rows: u64,
    ) -> Step<Option<(Seconds, Seconds)>> {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX).max(4);
        let mut last_shown = (from, to);
        let mut middle = from + (to - from) / (rows / 2);
        while from < to {
            if self.shows(from, middle).await? {
                last_shown = (from, middle);
                to = middle;
            } else {
                from = middle + 1;
            }
            middle = from + (to - from) / 2;
        }
        let is_shown = last_shown == (from, to) || self.shows(from, to).await?;
        Ok((!is_shown).then_some(last_shown))
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
