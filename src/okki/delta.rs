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

use super::merge::Fresh;
use super::reading::{Keep, Reading, Step, Stop};
use super::windows::ledger::OVERLAP_SECONDS;
use super::windows::times::OLDEST;
use super::windows::{Seconds, Sizing, TimeAxis, TimeRange, Walk};

/// The first guess of how far the filter's clock is behind: this, then eight times as much, and so on.
const FIRST_LAG_SECONDS: i64 = 480;
const LAG_GROWS_BY: i64 = 8;
/// Halvings between a lag that shows too many rows and one that shows none.
const LAG_HALVINGS: u32 = 6;

impl<K: Keep> Reading<'_, '_, K> {
    /// Reads what changed since the last delta (or since the read began), and lets it win over what is held.
    pub(super) async fn read_changes(&mut self) -> Step<()> {
        for _ in 0..2 {
            let now = self.source_clock.now();
            let Some(from) = self.changes_from(now).await? else { return Ok(()) };
            let fresh = self.read_changes_since(from).await?;
            self.fresh_rows += fresh.rows;
            self.is_dirty |= fresh.rows > 0;
            self.has_unplaced |= fresh.created > 0;
            self.learn_lag(now, from, fresh.rows).await?;
            self.move_cursor(now);
            if fresh.ambiguous.is_empty() {
                return Ok(());
            }
            // Which of two rows with one id has changed, only their windows tell.
            self.ledger.retire(|window| fresh.ambiguous.contains(&window.number));
            self.cover(None).await?;
        }
        Ok(())
    }

    async fn read_changes_since(&mut self, from: Seconds) -> Step<Fresh> {
        let number = self.ledger.number();
        // Created rows are older than the end of the delta, and the rows of a range that waits may be older than that.
        self.ledger.expect(number, OLDEST, self.source_clock.now().saturating_add(1));
        let page_size = self.asker.okki.settings.page_size;
        let (mut fresh, mut sizing) = (Fresh::default(), Sizing::new(page_size));
        let ranges = [(TimeRange::since(from), None)];
        let (mut walk, mut pages) = (Walk::new(self.asker, TimeAxis::Update, self.source_clock, &ranges), 0);
        loop {
            match walk.next(&mut sizing, true).await {
                Ok(Some(found)) => {
                    pages += found.rows.pages.len();
                    self.builder.add_changes(&found.rows.pages, number, &self.ledger, &mut fresh)?
                }
                Ok(None) => break,
                Err(error) => {
                    // What was read is read: the next delta begins where this one ended.
                    if let Some(unread) = walk.first_unread() {
                        let from = self.ledger.changes_from.unwrap_or(OLDEST);
                        self.ledger.changes_from = Some(from.max(unread.saturating_sub(OVERLAP_SECONDS)));
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
        if let Some(from) = self.ledger.changes_from.filter(|_| self.ledger.filter_lag_seconds.is_some()) {
            return Ok(Some(from));
        }
        let Some(lag) = self.find_lag(now).await? else {
            return match self.held() {
                0 => Ok(None),
                _ => Err(Stop::ReadWhole("the source does not filter by update time".to_owned())),
            };
        };
        self.ledger.filter_lag_seconds = Some(lag);
        let began = self.ledger.began.unwrap_or(now).min(now);
        let from = began.saturating_sub(lag).saturating_sub(OVERLAP_SECONDS);
        let from = self.ledger.changes_from.map_or(from, |known| known.min(from));
        self.ledger.changes_from = Some(from);
        Ok(Some(from))
    }

    /// The smallest lag of a few at which the filter shows a row, and not much more than a page.
    async fn find_lag(&self, now: Seconds) -> Step<Option<i64>> {
        let (mut shows_none, mut lag) = (0, FIRST_LAG_SECONDS);
        let mut total = self.updated_within(now, lag).await?;
        while total == 0 {
            if lag >= now - OLDEST {
                return Ok(None);
            }
            shows_none = lag;
            lag = lag.saturating_mul(LAG_GROWS_BY).min(now - OLDEST);
            total = self.updated_within(now, lag).await?;
        }
        Ok(Some(self.shorten_lag(now, shows_none, lag, total).await?))
    }

    /// A lag that shows more than a page of rows would bring them all again in the runs that follow: looks for a shorter
    /// one between it and a lag that shows none.
    async fn shorten_lag(
        &self,
        now: Seconds,
        mut shows_none: i64,
        mut lag: i64,
        mut total: u64,
    ) -> Step<i64> {
        let page = u64::from(self.asker.okki.settings.page_size);
        for _ in 0..LAG_HALVINGS {
            if total <= page {
                break;
            }
            let middle = shows_none + (lag - shows_none) / 2;
            match self.updated_within(now, middle).await? {
                0 => shows_none = middle,
                some => (lag, total) = (middle, some),
            }
        }
        Ok(lag)
    }

    async fn updated_within(&self, now: Seconds, lag: i64) -> Step<u64> {
        let since = TimeRange::since(now.saturating_sub(lag));
        Ok(self.asker.total(TimeAxis::Update, since).await?)
    }

    /// Something has changed since the last delta: if the filter shows a row since then, its clock is not further behind.
    async fn learn_lag(&mut self, now: Seconds, from: Seconds, fresh: u64) -> Step<()> {
        let Some(known) = self.ledger.filter_lag_seconds else { return Ok(()) };
        let last_delta = from + known + OVERLAP_SECONDS;
        let shorter = now - last_delta + OVERLAP_SECONDS;
        if fresh == 0 || !(0..known / 2).contains(&shorter) {
            return Ok(());
        }
        let total = self.updated_within(now, shorter).await?;
        if total > 0 {
            self.ledger.filter_lag_seconds = Some(self.shorten_lag(now, 0, shorter, total).await?);
        }
        Ok(())
    }

    fn move_cursor(&mut self, now: Seconds) {
        let lag = self.ledger.filter_lag_seconds.unwrap_or(0);
        let from = now.saturating_sub(lag).saturating_sub(OVERLAP_SECONDS);
        self.ledger.changes_from = Some(self.ledger.changes_from.map_or(from, |before| before.max(from)));
    }
}
