//! A source whose totals are always too large by the same number: it counts rows that it never shows.
//!
//! A range in the future holds nothing. If its answer has no rows and counts some all the same, that many are in every
//! total. They are taken off each total as it comes, so that nobody else has to know of them. They are counted again at
//! the start of each run: the day on which the source counts right costs nothing.
//!
//! Deliberately absent: believing a surplus that shows in one range only. That is a product that the source hides, and
//! what it costs is in `settle.rs`.

use super::reading::{Keep, Reading, Step};
use super::windows::times::YEAR_SECONDS;
use super::windows::{Asker, TimeRange, times};

impl<K: Keep> Reading<'_, '_, K> {
    /// Counts what the source counts where there is nothing. `false` if its filter cannot be believed: it shows rows of the
    /// future, or as many are there in all, or two futures differ.
    pub(super) async fn find_surplus(&mut self) -> Step<bool> {
        let asker = Asker { surplus: 0, ..self.asker };
        let future = |years: i64| {
            let from = self.source_clock.began.saturating_add(years * YEAR_SECONDS);
            TimeRange::new(from, from.saturating_add(YEAR_SECONDS - 1).min(times::LATEST))
        };
        let (one, other) =
            (asker.total_of_nothing(future(1)).await?, asker.total_of_nothing(future(3)).await?);
        let Some(surplus) = one.filter(|_| one == other) else { return Ok(false) };
        let all = asker.total_of_all().await?;
        if surplus > 0 && surplus >= all {
            return Ok(false);
        }
        if surplus != self.ledger.surplus {
            tracing::warn!(surplus, "the source's totals count rows that it never shows; they are left out");
            (self.ledger.surplus, self.is_dirty) = (surplus, true);
        }
        self.ledger.source_total = all - surplus;
        self.asker = Asker { surplus, ..self.asker };
        Ok(true)
    }
}
