//! Which ends of a range the source's filter includes: both, as documented, or not.
//!
//! It is found out once, before anything is read: a range of update times that holds a row is halved until it is one second.
//! A filter that leaves out an end loses the row at a border on the way: the range shows it, neither half does. Then each
//! start is asked for a second earlier, and the search goes on. Without this, windows would miss the rows at their borders,
//! and no total of a delta would tell.

use super::reading::{Keep, Reading, Step};
use super::windows::{Asker, Seconds, TimeAxis, TimeRange};

/// Rows that were edited during the search leave the range that is searched: then it begins again.
const MAX_SEARCHES: u32 = 4;
/// A start is asked for at most this much earlier: both ends left out.
const MOST_SHIFT_SECONDS: i64 = 2;
/// No time zone is farther ahead.
const FARTHEST_ZONE_SECONDS: i64 = 54_000;

impl<K: Keep> Reading<'_, '_, K> {
    /// `lag`: the filter shows a row that was updated so much before now.
    pub(super) async fn find_bounds(&mut self, lag: i64) -> Step<()> {
        for _ in 0..MAX_SEARCHES {
            let now = self.source_clock.now();
            let (mut from, mut to) = (now.saturating_sub(lag), now);
            if self.shows(from, to).await? || self.shows(from, now + FARTHEST_ZONE_SECONDS).await? {
                if !self.shows(from, to).await? {
                    to = now + FARTHEST_ZONE_SECONDS;
                }
                while from < to {
                    let middle = from + (to - from) / 2;
                    if self.shows(from, middle).await? {
                        to = middle;
                    } else if self.shows(middle + 1, to).await? {
                        from = middle + 1;
                    } else if self.shows(from, to).await?
                        && self.asker.start_shift_seconds < MOST_SHIFT_SECONDS
                    {
                        let shift = self.asker.start_shift_seconds + 1;
                        tracing::info!(
                            shift,
                            "the source's filter leaves out an end of its range; asking for more"
                        );
                        self.ledger.start_shift_seconds = shift;
                        self.asker = Asker { start_shift_seconds: shift, ..self.asker };
                    } else {
                        break;
                    }
                }
                if from == to && self.shows(from, to).await? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn shows(&self, from: Seconds, to: Seconds) -> Step<bool> {
        Ok(self.asker.total(TimeAxis::Update, TimeRange::new(from, to)).await? > 0)
    }
}
