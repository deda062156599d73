//! The end of a read: does the source hold as many products as we do? If not, the ledger finds where.
//!
//! Deletions are not announced. They show as a total below the number of rows held, and each window tells its own total in
//! one call. So the ledger is searched like a sorted list, half by half, down to the windows that differ, and those are
//! read again:
//!
//! ```text
//! total 199,999, held 200,000       208 windows
//! left half as expected ─▶ right half differs ─▶ … ─▶ window 171: 8 calls
//! window 171 is read again: 10 calls; the row that it no longer holds is gone
//! ```
//!
//! A total above what is held means a row that neither windows nor delta brought: one that was restored, or became visible
//! late, or that lies on the border of two windows because the source's filter leaves out an end of its range
//! ([`Reading::find_shift`]); or products without a creation time (`filters.rs`).
//!
//! Nothing is ever deleted for a difference: only the windows that are read again take rows away. A difference that
//! stays is told, and the catalogue is read again in the runs that follow.

use std::collections::HashSet;

use super::reading::{Keep, MOST_LOOKS, Reading, Step, Stop};
use super::windows::times::LATEST;
use super::windows::{Seconds, TimeAxis, Walk, Window};

/// Windows that become gaps together. Where the time ends before all are read again, few gaps are left for the next run,
/// and it begins with those that were read longest ago.
const WINDOWS_AT_A_TIME: usize = 16;
/// Rounds of searching in one run.
const MAX_ROUNDS: u32 = 4;
/// Runs in a row that end with a difference before everything is read again, and before it is taken as the source's own.
const READ_AGAIN_AFTER: u32 = 2;
const ACCEPT_AFTER: u32 = 4;

impl<K: Keep> Reading<'_, '_, K> {
    /// Compares the source's total with the rows held, and reads again where they differ.
    pub(super) async fn settle(&mut self) -> Step<()> {
        if !self.close_gaps().await? {
            self.is_compared = false;
            return Ok(());
        }
        let is_busy = self.is_busy() && !self.ledger.windows().is_empty();
        if is_busy {
            self.settle_exactly().await?;
        }
        let before = self.ledger.last_number();
        let is_open = self.settle_total(is_busy).await?;
        // Windows that were all read again just now need no comparison.
        let has_parts = !self.ledger.windows().is_empty() && !self.ledger.all_newer_than(before);
        if is_open && !is_busy && has_parts {
            self.settle_exactly().await?;
        }
        Ok(())
    }

    /// Whether a delta brought rows whose place is not known: people create products.
    fn is_busy(&self) -> bool {
        self.has_unplaced || self.ledger.unplaced_since().is_some()
    }

    /// `is_busy`: the parts were compared just now, so rows that are held and not in the total have been deleted since.
    /// Returns whether each part is to be compared by itself: new rows came meanwhile, or a deletion was not found.
    async fn settle_total(&mut self, is_busy: bool) -> Step<bool> {
        self.place_new_rows().await?;
        let (mut total, mut has_new) = (self.total().await?, false);
        if total > self.held() {
            // Created since the delta, most likely.
            let before = total;
            self.read_changes().await?;
            has_new |= self.has_unplaced;
            self.place_new_rows().await?;
            total = self.total().await?;
            if (before.min(total)..=before.max(total)).contains(&self.held()) {
                self.end_settled();
                return Ok(has_new);
            }
        }
        if is_busy && total <= self.held() {
            return Ok(has_new);
        }
        let before = self.ledger.last_number();
        for _ in 0..MAX_ROUNDS {
            if self.is_settled(total) {
                self.end_settled();
                return Ok(has_new);
            }
            if self.ledger.windows().is_empty() {
                self.read_in_windows().await?;
            }
            if total < self.held() && self.has_waiting() {
                self.read_tail().await?;
                self.forget_found();
                if self.ledger.unplaced_since().is_some()
                    && let Some(numbers) = self.find_vanished().await?
                {
                    self.ledger.forget_change(numbers.again);
                }
            }
            if total > self.held() && self.tail_holds_more().await? {
                self.read_tail().await?;
            }
            if self.is_settled(total) {
                continue;
            }
            if !self.ledger.gaps().is_empty() {
                break;
            }
            let Some(due) = self.differing(total).await? else { break };
            if self.ledger.all_newer_than(before) && due.len() == self.ledger.windows().len() {
                // All of them were read again just now.
                break;
            }
            self.read_again(&due).await?;
            if total > self.held() {
                self.find_shift(&due).await?;
            }
            if !self.is_settled(total) {
                self.read_changes().await?;
                has_new |= self.has_unplaced;
                self.place_new_rows().await?;
                total = self.total().await?;
            }
        }
        if self.is_settled(total) {
            self.end_settled();
            return Ok(has_new);
        }
        if total > self.held() {
            self.check_creation_times().await?;
        }
        if !is_busy && !has_new {
            self.end_unsettled(total);
        }
        Ok(has_new || total < self.held())
    }

    /// Products that were read the old way, or by an older version, have no windows to search.
    async fn read_in_windows(&mut self) -> Step<()> {
        if self.ledger.whole_because.is_some() {
            return Err(Stop::ReadWhole("the total differs from the products that are known".to_owned()));
        }
        self.close_windows().await
    }

    /// Reads windows up to where time has passed for sure.
    pub(super) async fn close_windows(&mut self) -> Step<()> {
        let end = self.closed_end().await?;
        self.ledger.extend_to(end);
        self.cover(None).await
    }

    /// Whether the tail holds rows that no delta brought: they became visible late.
    async fn tail_holds_more(&self) -> Step<bool> {
        let waiting = self.held().saturating_sub(self.ledger.rows_in_windows());
        Ok(self.asker.total(TimeAxis::Creation, self.ledger.tail()).await? > waiting)
    }

    /// Rows that wait and were created lately: the tail, read whole, tells which of them are still there.
    pub(super) async fn read_tail(&mut self) -> Step<()> {
        let number = self.ledger.number();
        let tail = self.ledger.tail();
        self.ledger.expect(number, tail.from, LATEST);
        let (mut is_sure, mut ranges) = (true, vec![(tail, None)]);
        for _ in 0..MOST_LOOKS {
            // Rows of a part that is to be read again wait to be found by it.
            let doubted = self.ledger.number();
            self.ledger.expect(doubted, tail.from, LATEST);
            let mut walk = Walk::new(self.asker, TimeAxis::Creation, self.source_clock, &ranges);
            ranges.clear();
            while let Some(found) = walk.next(&mut self.sizing, true).await? {
                is_sure &= found.rows.sure;
                let may_hide = self.may_hide(&found.rows);
                if may_hide {
                    ranges.push((found.range, None));
                }
                let number = if may_hide { doubted } else { number };
                self.builder.add_window(&found.rows, number, &self.ledger)?;
            }
            if ranges.is_empty() {
                break;
            }
        }
        if is_sure && ranges.is_empty() {
            self.tail = Some(number);
        }
        self.remove_gone();
        self.is_dirty = true;
        Ok(())
    }

    pub(super) async fn read_again(&mut self, due: &[Window]) -> Step<()> {
        let mut by_age: Vec<&Window> = due.iter().collect();
        by_age.sort_by_key(|window| (window.read_at_ms, window.from));
        for some in by_age.chunks(WINDOWS_AT_A_TIME) {
            let starts: HashSet<Seconds> = some.iter().map(|window| window.from).collect();
            self.ledger.retire(|window| starts.contains(&window.from));
            self.is_dirty = true;
            self.cover(None).await?;
        }
        Ok(())
    }

    async fn total(&mut self) -> Step<u64> {
        let total = self.asker.total_of_all().await?;
        self.ledger.source_total = total;
        Ok(total)
    }

    /// New rows get a place: a window as soon as one can be closed, else the tail. Then their deletion can be found by a
    /// total.
    async fn place_new_rows(&mut self) -> Step<()> {
        if !self.is_busy() || self.ledger.end().is_none() || !self.ledger.gaps().is_empty() {
            return Ok(());
        }
        self.close_windows().await?;
        if self.has_waiting() {
            self.read_tail().await?;
        }
        self.has_unplaced = false;
        Ok(())
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.held() > self.ledger.rows_in_windows()
    }

    fn is_settled(&self, total: u64) -> bool {
        total.saturating_add_signed(self.ledger.known_difference.saturating_neg()) == self.held()
    }

    fn end_settled(&mut self) {
        if self.ledger.unsettled_runs > 0 {
            (self.ledger.unsettled_runs, self.is_dirty) = (0, true);
        }
    }

    fn end_unsettled(&mut self, total: u64) {
        let held = self.held();
        self.is_dirty = true;
        self.ledger.unsettled_runs += 1;
        match self.ledger.unsettled_runs {
            READ_AGAIN_AFTER => self.ledger.retire(|_| true),
            ACCEPT_AFTER.. => {
                let signed = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
                self.ledger.known_difference = signed(total) - signed(held);
                self.ledger.unsettled_runs = 0;
            }
            _ => {}
        }
        tracing::warn!(
            total,
            held,
            runs = self.ledger.unsettled_runs,
            "the source's total differs from the products held; nothing is deleted for it, later runs read again"
        );
    }
}
