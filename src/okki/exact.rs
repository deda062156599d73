//! The comparison where people create products: a total tells nothing there, each part is compared by itself.

use std::time::Duration;

use super::merge::Numbers;
use super::reading::{Keep, Reading, Step, Stop, may_pass};
use super::search::{Differing, MOST_TO_SEARCH, Parts};
use super::windows::ledger::Waiting;
use super::windows::times::{LATEST, OLDEST};
use super::windows::{Seconds, TimeAxis, TimeRange};

/// Looks at the totals before everything is read again: a difference may come from what people did meanwhile.
const MOST_LOOKS: u32 = 3;

/// What the windows' total says of the rows that they held.
struct Look {
    in_windows: u64,
    /// How many are gone at least.
    missing: u64,
    /// How many are gone at most: a product that was brought back and went again may hide one, if it went after the total.
    may_be_missing: u64,
    /// How many are in the total and known from nowhere: products that came before it and went after it, or that no delta
    /// shows. They may hide as many that are gone.
    unknown: u64,
    /// Products that were brought back, and counted in the total.
    brought_back: u64,
    /// The last delta that asked which products are still there.
    asked: Option<Numbers>,
    /// The number of the rows that came after the total.
    later: Option<u32>,
}

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
        let mut is_searched = false;
        for looks in 1..=MOST_LOOKS {
            let is_last = looks == MOST_LOOKS;
            let look = self.look_until(end).await?;
            let is_done = if look.may_be_missing + look.unknown == 0 {
                true
            } else if look.may_be_missing > 0 && (is_searched || is_last) {
                // A row was brought back into a window that has lost another one: before this began, or meanwhile.
                let all = self.ledger.windows().to_vec();
                self.read_again(&all).await?;
                true
            } else if look.missing > 0 || is_last {
                is_searched = true;
                self.read_what_differs(&look).await? || is_last
            } else {
                // Whether the total counted what is gone since, only another one tells.
                false
            };
            if is_done {
                if let Some(numbers) = look.asked {
                    self.ledger.forget_change(numbers.again);
                }
                break;
            }
        }
        Ok(())
    }

    /// Compares the total of the windows, which end at `end`, with the rows that they held and those that were brought back.
    async fn look_until(&mut self, end: Seconds) -> Step<Look> {
        let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
        let first = self.find_vanished().await?;
        if self.has_waiting() {
            self.read_tail().await?;
        }
        self.has_unplaced = false;
        // Those that the first one found may be gone again.
        let second = match self.brought_back(None) {
            0 => None,
            _ => self.find_vanished().await?,
        };
        let later = second.as_ref().map(|asked| asked.numbers.new);
        let vanished: u64 = first.iter().chain(&second).map(|asked| asked.vanished).sum();
        let brought_back = self.brought_back(later);
        let expected = self.ledger.rows_in_windows() + brought_back;
        // A product that the source counts and never shows.
        let never_shown = self.ledger.known_difference.max(0).unsigned_abs();
        Ok(Look {
            in_windows,
            missing: expected.saturating_sub(in_windows),
            may_be_missing: (expected + vanished).saturating_sub(in_windows),
            unknown: in_windows.saturating_sub(expected + vanished + never_shown),
            brought_back,
            asked: second.or(first).map(|asked| asked.numbers),
            later,
        })
    }

    /// Reads the windows again that differ. Returns whether they explain all that may be missing.
    async fn read_what_differs(&mut self, look: &Look) -> Step<bool> {
        let missing = look.may_be_missing;
        // Each half is asked for by itself, so a row that is deleted while the search goes on cannot hide an earlier one.
        let found = match missing.max(look.unknown) {
            ..=MOST_TO_SEARCH => self.search(look.in_windows, Parts::Asked).await?,
            _ => Differing { windows: self.ledger.windows().to_vec(), rows_gone: missing },
        };
        let is_all = found.windows.len() == self.ledger.windows().len();
        self.read_again(&found.windows).await?;
        let left = self.brought_back(look.later);
        let is_explained = found.rows_gone + look.brought_back.saturating_sub(left) >= missing;
        Ok(is_all || (is_explained && left == 0))
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
