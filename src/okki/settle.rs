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
//! ([`Reading::find_shift`]).
//!
//! Nothing is ever deleted for a difference: only the windows that are read again take rows away. A difference that
//! stays is told, and the catalogue is read again in the runs that follow.

use std::collections::HashSet;

use super::reading::{Keep, Reading, Step, Stop};
use super::windows::times::{LATEST, OLDEST};
use super::windows::{Asker, Seconds, TimeAxis, TimeRange, Walk, Window};
use crate::error::Result;

/// Beyond this many deletions everything is read again: it costs no more.
const MOST_TO_SEARCH: u64 = 100;
/// Rounds of searching in one run.
const MAX_ROUNDS: u32 = 4;
/// Runs in a row that end with a difference before everything is read again, and before it is taken as the source's own.
const READ_AGAIN_AFTER: u32 = 2;
const ACCEPT_AFTER: u32 = 4;

/// Where the total of the right half of a range comes from.
#[derive(Clone, Copy)]
enum Parts {
    /// From the total of both less the left one: a call less, and rows between two windows show.
    Derived,
    /// From the source.
    Asked,
}

impl<K: Keep> Reading<'_, '_, K> {
    /// Compares the source's total with the rows held, and reads again where they differ.
    pub(super) async fn settle(&mut self) -> Step<()> {
        let (is_busy, before) = (self.has_unplaced, self.ledger.last_number());
        self.settle_total().await?;
        if (is_busy || self.has_unplaced) && !self.ledger.all_newer_than(before) {
            self.place_new_rows().await?;
            self.settle_windows().await?;
        }
        Ok(())
    }

    /// Where people create products, one that was created a moment ago can hide in the total that another one was
    /// deleted. Nothing enters windows that lie in the past: their total is lower only by what was deleted.
    ///
    /// Each part is asked for by itself, so a row that is deleted while the search goes on cannot hide an earlier one
    /// either: one search finds everything that was deleted before it began.
    async fn settle_windows(&mut self) -> Step<()> {
        let Some(end) = self.ledger.end().filter(|_| self.ledger.gaps().is_empty()) else { return Ok(()) };
        let in_windows = self.asker.total(TimeAxis::Creation, TimeRange::new(OLDEST, end)).await?;
        let held = self.ledger.rows_in_windows();
        let due = match held.saturating_sub(in_windows) {
            0 => return Ok(()),
            1..=MOST_TO_SEARCH => self.search(in_windows, Parts::Asked).await?.unwrap_or_default(),
            _ => self.ledger.windows().to_vec(),
        };
        if !due.is_empty() {
            self.read_again(&due, in_windows).await?;
        }
        Ok(())
    }

    async fn settle_total(&mut self) -> Step<()> {
        self.place_new_rows().await?;
        let mut total = self.total().await?;
        if total > self.held() {
            // Created since the delta, most likely.
            let before = total;
            self.read_changes().await?;
            self.place_new_rows().await?;
            total = self.total().await?;
            if (before.min(total)..=before.max(total)).contains(&self.held()) {
                self.end_settled();
                return Ok(());
            }
        }
        let before = self.ledger.last_number();
        for _ in 0..MAX_ROUNDS {
            if self.is_settled(total) {
                self.end_settled();
                return Ok(());
            }
            if self.ledger.windows().is_empty() {
                self.read_in_windows().await?;
            }
            if total < self.held() && self.has_waiting() {
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
            self.read_again(&due, total).await?;
            if !self.is_settled(total) {
                self.read_changes().await?;
                self.place_new_rows().await?;
                total = self.total().await?;
            }
        }
        if self.is_settled(total) {
            self.end_settled();
        } else {
            self.end_unsettled(total);
        }
        Ok(())
    }

    /// Products that were read the old way, or by an older version, have no windows to search.
    async fn read_in_windows(&mut self) -> Step<()> {
        if self.ledger.whole_because.is_some() {
            return Err(Stop::ReadWhole("the total differs from the products that are known".to_owned()));
        }
        let end = self.closed_end().await?;
        self.ledger.extend_to(end);
        self.cover(None).await
    }

    /// Rows that wait and were created lately: the tail, read whole, tells which of them are still there.
    async fn read_tail(&mut self) -> Step<()> {
        let number = self.ledger.number();
        let tail = self.ledger.tail();
        self.ledger.expect(number, tail.from, LATEST);
        let mut walk = Walk::new(self.asker, TimeAxis::Creation, self.source_clock, &[(tail, None)]);
        let mut is_sure = true;
        while let Some(found) = walk.next(&mut self.sizing, true).await? {
            is_sure &= found.rows.sure;
            self.builder.add_window(&found.rows, number, &self.ledger)?;
        }
        self.remove_gone(Some(number).filter(|_| is_sure));
        self.is_dirty = true;
        Ok(())
    }

    async fn read_again(&mut self, due: &[Window], total: u64) -> Step<()> {
        let starts: HashSet<Seconds> = due.iter().map(|window| window.from).collect();
        self.ledger.retire(|window| starts.contains(&window.from));
        self.is_dirty = true;
        self.cover(None).await?;
        if total > self.held() {
            self.find_shift(due).await?;
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
        if !self.has_unplaced || self.ledger.end().is_none() || !self.ledger.gaps().is_empty() {
            return Ok(());
        }
        let end = self.closed_end().await?;
        self.ledger.extend_to(end);
        self.cover(None).await?;
        if std::mem::take(&mut self.has_unplaced) && self.has_waiting() {
            self.read_tail().await?;
        }
        Ok(())
    }

    fn has_waiting(&self) -> bool {
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

    /// The windows whose totals differ from what they held; `None` if totals move too fast to tell, or if the difference
    /// is in no window.
    async fn differing(&self, total: u64) -> Step<Option<Vec<Window>>> {
        // Without rows that wait, the tail is empty: the delta would have brought what is in it.
        let tail = match self.has_waiting() {
            true => self.asker.total(TimeAxis::Creation, self.ledger.tail()).await?,
            false => 0,
        };
        let Some(in_windows) = total.checked_sub(tail) else { return Ok(None) };
        let held = self.ledger.rows_in_windows();
        if in_windows.abs_diff(held) > MOST_TO_SEARCH {
            return Ok(Some(self.ledger.windows().to_vec()));
        }
        if in_windows != held {
            return self.search(in_windows, Parts::Derived).await;
        }
        // Together the windows are as they were. A row that waits is gone, or a window has lost one row and got another
        // one back: only reading tells.
        let is_hidden = self.has_waiting() && total < self.held();
        Ok(is_hidden.then(|| self.ledger.windows().to_vec()))
    }

    /// Searches half by half.
    async fn search(&self, in_windows: u64, parts_are: Parts) -> Step<Option<Vec<Window>>> {
        let windows = self.ledger.windows();
        let mut due = Vec::new();
        let mut parts = vec![(0..windows.len(), in_windows)];
        while let Some((part, total)) = parts.pop() {
            let Some(of_part) = windows.get(part.clone()) else { continue };
            if of_part.iter().map(|window| window.rows).sum::<u64>() == total {
                continue;
            }
            if let [window] = of_part {
                due.push(window.clone());
                continue;
            }
            let (left, right) = of_part.split_at(of_part.len() / 2);
            let of_left = total_of(&self.asker, left).await?;
            let of_right = match parts_are {
                Parts::Asked => total_of(&self.asker, right).await?,
                Parts::Derived => match total.checked_sub(of_left) {
                    Some(rest) => rest,
                    None => return Ok(None),
                },
            };
            let middle = part.start + left.len();
            parts.push((middle..part.end, of_right));
            parts.push((part.start..middle, of_left));
        }
        Ok((!due.is_empty()).then_some(due))
    }

    /// Finds out whether the filter leaves out an end of its range: then neighbouring windows together hold more than
    /// each by itself, and a start that is one or two seconds earlier closes the seam.
    async fn find_shift(&mut self, due: &[Window]) -> Step<()> {
        if self.ledger.start_shift_seconds > 0 {
            return Ok(());
        }
        let windows = self.ledger.windows();
        let near =
            |window: &Window| due.iter().any(|due| due.from <= window.to + 1 && window.from <= due.to + 1);
        for pair in windows.windows(2).filter(|pair| pair.iter().any(near)) {
            let [before, after] = pair else { continue };
            let together = total_of(&self.asker, pair).await?;
            let apart = total_of(&self.asker, std::slice::from_ref(before)).await?;
            if together <= apart + total_of(&self.asker, std::slice::from_ref(after)).await? {
                continue;
            }
            for shift in [1, 2] {
                let shifted = Asker { start_shift_seconds: shift, ..self.asker };
                if apart + total_of(&shifted, std::slice::from_ref(after)).await? == together {
                    tracing::info!(
                        shift,
                        "the source's filter leaves out an end of its range; asking for more"
                    );
                    self.ledger.shift_starts(shift);
                    self.asker = shifted;
                    return self.cover(None).await;
                }
            }
        }
        Ok(())
    }
}

async fn total_of(asker: &Asker<'_>, windows: &[Window]) -> Result<u64> {
    let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return Ok(0) };
    asker.total(TimeAxis::Creation, TimeRange::new(first.from, last.to)).await
}
