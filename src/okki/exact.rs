//! The comparison where people create products: a total tells nothing there, each part is compared by itself.

use std::time::Duration;

use super::reading::{Keep, Reading, Step, Stop, may_pass};
use super::search::{Differing, MOST_TO_SEARCH, Parts};
use super::windows::ledger::Waiting;
use super::windows::times::{LATEST, OLDEST};
use super::windows::{Seconds, TimeAxis, TimeRange};

impl<K: Keep> Reading<'_, '_, K> {
    /// Where people create products, one that was created a moment ago can hide in the total that another one was
    /// deleted. So each part is compared by itself: nothing enters windows that lie in the past, so their total is lower
    /// only by what was deleted. Then everything is found that was deleted before this began.
    ///
    /// People may bring products back, too. What came back before the windows' total is among the changes that are asked
    /// for after it, and not in the tail that is read then.
    pub(super) async fn settle_exactly(&mut self) -> Step<()> {
        self.close_windows().await?;
        let Some(end) = self.ledger.end().filter(|_| self.ledger.gaps().is_empty()) else { return Ok(()) };
        let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
        let mut asked = self.find_vanished().await?;
        if self.has_waiting() {
            self.read_tail().await?;
        }
        self.has_unplaced = false;
        let mut later = None;
        if self.brought_back(later) > 0 {
            // Or they are gone again.
            asked = self.find_vanished().await?;
            later = asked.map(|numbers| numbers.new);
        }
        self.settle_windows(in_windows, end, later).await?;
        if let Some(numbers) = asked {
            self.ledger.forget_change(numbers.again);
        }
        Ok(())
    }

    /// `later`: the number of rows that came after the windows' total.
    async fn settle_windows(&mut self, in_windows: u64, end: Seconds, later: Option<u32>) -> Step<()> {
        let brought_back = self.brought_back(later);
        let missing = (self.ledger.rows_in_windows() + brought_back).saturating_sub(in_windows);
        if missing == 0 {
            return Ok(());
        }
        // Each half is asked for by itself, so a row that is deleted while the search goes on cannot hide an earlier one.
        let found = match missing {
            ..=MOST_TO_SEARCH => self.search(in_windows, Parts::Asked).await?,
            _ => Differing { windows: self.ledger.windows().to_vec(), rows_gone: missing },
        };
        let is_all = found.windows.len() == self.ledger.windows().len();
        self.read_again(&found.windows).await?;
        let left = self.brought_back(later);
        let is_explained = found.rows_gone + brought_back.saturating_sub(left) >= missing;
        if is_all || (is_explained && left == 0) {
            return Ok(());
        }
        if is_explained {
            let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
            if self.ledger.rows_in_windows() + left <= in_windows {
                return Ok(());
            }
        }
        // A row was brought back into a window that has lost another one: before this began, or meanwhile.
        let all = self.ledger.windows().to_vec();
        self.read_again(&all).await
    }

    /// Rows that belong into windows which were read before they came: products that were brought back. `later`: the
    /// number of rows that came after the windows' total.
    fn brought_back(&self, later: Option<u32>) -> u64 {
        let of_any_time = |waiting: &&Waiting| (waiting.from, waiting.to) == (OLDEST, LATEST);
        let waiting = self.ledger.waiting().iter().filter(of_any_time);
        let mut waiting = waiting.filter(|waiting| Some(waiting.number) != later).peekable();
        if waiting.peek().is_none() {
            return 0;
        }
        let by_number = self.builder.rows_by_number();
        waiting.filter_map(|waiting| by_number.get(&waiting.number)).sum()
    }

    /// Reads what an earlier comparison had no time to read again: there is nothing to compare without it. `false` if the
    /// source refuses it, or if a window may hide a row at each look: changes flow on.
    pub(super) async fn close_gaps(&mut self) -> Step<bool> {
        match self.cover(None).await {
            Err(Stop::Error(error)) if !self.asker.budget.is_over() && may_pass(&error) => {
                tracing::warn!(error = %error.line(), "windows could not be read again; changes flow on");
                Ok(false)
            }
            done => done.map(|()| self.ledger.gaps().is_empty()),
        }
    }

    /// The comparison takes at most three quarters of the time that is left: where a source changes faster than it can be
    /// compared, the run still writes what it knows. What the comparison would have found, the next one finds.
    pub(super) async fn settle_in_time(&mut self) -> Step<()> {
        let left = self.asker.budget.left();
        if left > Duration::MAX / 4 {
            return self.settle().await;
        }
        let settled = tokio::time::timeout(left / 4 * 3, self.settle()).await;
        settled.unwrap_or_else(|_| {
            (self.is_dirty, self.is_compared) = (true, false);
            Ok(())
        })
    }
}
