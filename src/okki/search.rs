//! Which windows differ: their totals are searched half by half. And whether the source's filter leaves out an end of its
//! range, so that rows are between two windows.

use super::reading::{Keep, Reading, Step};
use super::windows::{Asker, TimeAxis, TimeRange, Window};
use crate::error::Result;

/// Beyond this many deletions everything is read again: it costs no more.
pub(super) const MOST_TO_SEARCH: u64 = 100;

/// Where the total of the right half of a range comes from.
#[derive(Clone, Copy)]
pub(super) enum Parts {
    /// From the total of both less the left one: a call less, and rows between two windows show.
    Derived,
    /// From the source.
    Asked,
}

/// What a search has found.
#[derive(Default)]
pub(super) struct Differing {
    pub windows: Vec<Window>,
    /// How many rows these windows have lost, as their totals say.
    pub rows_gone: u64,
}

impl<K: Keep> Reading<'_, '_, K> {
    /// The windows whose totals differ from what they held; `None` if totals move too fast to tell, or if the difference
    /// is in no window.
    pub(super) async fn differing(&self, total: u64) -> Step<Option<Vec<Window>>> {
        // Without rows that wait, the tail is empty, or was read just now.
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
            let found = self.search(in_windows, Parts::Derived).await?;
            return Ok(Some(found.windows).filter(|windows| !windows.is_empty()));
        }
        // Together the windows are as they were. A row that waits is gone, or a window has lost one row and got another
        // one back: only reading tells.
        let is_hidden = self.has_waiting() && total < self.held();
        Ok(is_hidden.then(|| self.ledger.windows().to_vec()))
    }

    /// Searches half by half. Finds nothing if totals move too fast to tell.
    pub(super) async fn search(&self, in_windows: u64, parts_are: Parts) -> Step<Differing> {
        let windows = self.ledger.windows();
        let mut found = Differing::default();
        let mut parts = vec![(0..windows.len(), in_windows)];
        let all = windows.len();
        while let Some((part, total)) = parts.pop() {
            let Some(of_part) = windows.get(part.clone()) else { continue };
            let is_part = of_part.len() < all;
            if is_part && of_part.iter().map(|window| window.rows).sum::<u64>() == total {
                continue;
            }
            if let [window] = of_part {
                found.rows_gone += window.rows.saturating_sub(total);
                found.windows.push(window.clone());
                continue;
            }
            let (left, right) = of_part.split_at(of_part.len() / 2);
            let of_left = total_of(&self.asker, left).await?;
            let of_right = match parts_are {
                Parts::Asked => total_of(&self.asker, right).await?,
                Parts::Derived => match total.checked_sub(of_left) {
                    Some(rest) => rest,
                    None => return Ok(Differing::default()),
                },
            };
            let middle = part.start + left.len();
            parts.push((middle..part.end, of_right));
            parts.push((part.start..middle, of_left));
        }
        Ok(found)
    }

    /// Finds out whether the filter leaves out an end of its range: then neighbouring windows together hold more than
    /// each by itself, and a start that is one or two seconds earlier closes the seam.
    pub(super) async fn find_shift(&mut self, due: &[Window]) -> Step<()> {
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
