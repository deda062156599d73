//! The comparison where people create products: a total tells nothing there, each part is compared by itself.

use std::time::Duration;

use super::reading::{Keep, Reading, Step, Stop, may_pass};
use super::settle::{MOST_TO_SEARCH, Parts};
use super::windows::ledger::Waiting;
use super::windows::times::{LATEST, OLDEST};
use super::windows::{TimeAxis, TimeRange};

impl<K: Keep> Reading<'_, '_, K> {
    /// Where people create products, one that was created a moment ago can hide in the total that another one was
    /// deleted. So each part is compared by itself: what is new gets a place; what has none is looked for; and nothing
    /// enters windows that lie in the past, so their total is lower only by what was deleted. Then everything is found
    /// that was deleted before this began.
    pub(super) async fn settle_exactly(&mut self) -> Step<()> {
        let tail = self.place_new_rows().await?;
        let numbers = self.find_vanished(tail).await?;
        self.settle_windows(numbers.map(|numbers| numbers.new)).await?;
        if let Some(numbers) = numbers {
            self.ledger.forget_change(numbers.again);
        }
        Ok(())
    }

    /// Each half is asked for by itself, so a row that is deleted while the search goes on cannot hide an earlier one.
    /// `new`: the number of rows that came after the tail was read.
    async fn settle_windows(&mut self, new: Option<u32>) -> Step<()> {
        let Some(end) = self.ledger.end().filter(|_| self.ledger.gaps().is_empty()) else { return Ok(()) };
        let brought_back = self.brought_back(new);
        let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
        let due = match (self.ledger.rows_in_windows() + brought_back).saturating_sub(in_windows) {
            0 => return Ok(()),
            1..=MOST_TO_SEARCH => self.search(in_windows, Parts::Asked).await?.unwrap_or_default(),
            _ => self.ledger.windows().to_vec(),
        };
        let is_all = due.len() == self.ledger.windows().len();
        self.read_again(&due).await?;
        if brought_back == 0 || is_all || self.brought_back(new) == 0 {
            return Ok(());
        }
        // Perhaps one row was brought back into a window that has lost another one.
        let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
        if self.ledger.rows_in_windows() + self.brought_back(new) > in_windows {
            let all = self.ledger.windows().to_vec();
            self.read_again(&all).await?;
        }
        Ok(())
    }

    /// Rows that belong into windows which were read before they came: products that were brought back.
    fn brought_back(&self, new: Option<u32>) -> u64 {
        let of_any_time = |waiting: &&Waiting| (waiting.from, waiting.to) == (OLDEST, LATEST);
        let waiting = self.ledger.waiting().iter().filter(of_any_time);
        let mut waiting = waiting.filter(|waiting| Some(waiting.number) != new).peekable();
        if waiting.peek().is_none() {
            return 0;
        }
        let by_number = self.builder.rows_by_number();
        waiting.filter_map(|waiting| by_number.get(&waiting.number)).sum()
    }

    /// Reads what an earlier comparison had no time to read again: there is nothing to compare without it. `false` if the
    /// source refuses it: changes flow on.
    pub(super) async fn close_gaps(&mut self) -> Step<bool> {
        match self.cover(None).await {
            Err(Stop::Error(error)) if !self.asker.budget.is_over() && may_pass(&error) => {
                tracing::warn!(error = %error.line(), "windows could not be read again; changes flow on");
                Ok(false)
            }
            done => done.map(|()| true),
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
