//! Whether the source filters by creation time, and all products have one: windows need both.
//!
//! It is asked before a first read, and again where a total stays above what windows have shown. People create and delete
//! products between two answers, so a contradiction counts only if it lasts. (Which ends of a range are included: `bounds.rs`.
//! Totals that are always too large: `surplus.rs`.)

use super::reading::{Keep, Reading, Step, Stop};
use super::windows::times::{OLDEST, YEAR_SECONDS};
use super::windows::{TimeAxis, TimeRange};

/// So many looks in a row must show products without a creation time.
const LOOKS: u32 = 5;
/// Why a source with such products cannot be read in windows.
pub(super) const UNTIMED: &str = "some products have no creation time that the source's filter knows";

impl<K: Keep> Reading<'_, '_, K> {
    /// Before a first read: whether creation filters can be believed at all.
    pub(super) async fn check_filters(&mut self) -> Step<()> {
        let ever = TimeRange::since(OLDEST);
        let next_year = TimeRange::since(self.source_clock.began.saturating_add(YEAR_SECONDS));
        let mut created = 0;
        for _ in 0..LOOKS {
            let total = self.asker.total_of_all().await?;
            self.ledger.source_total = total;
            if total == 0 {
                return Ok(());
            }
            if created < total {
                created = self.asker.total(TimeAxis::Creation, ever).await?;
            }
            if created >= total {
                return match self.asker.total(TimeAxis::Creation, next_year).await? {
                    0 => Ok(()),
                    _ if self.find_surplus().await? => Ok(()),
                    _ => Err(Stop::ReadWhole("the source does not filter by creation time".to_owned())),
                };
            }
            // Products were deleted between the two answers, or some have no creation time.
        }
        Err(Stop::ReadWhole(UNTIMED.to_owned()))
    }

    /// A total that stays above what is held may count products without a creation time, which are in no window. People
    /// create and delete products between two answers, so a few must say the same.
    pub(super) async fn check_creation_times(&self) -> Step<()> {
        for _ in 0..LOOKS {
            let before = self.asker.total(TimeAxis::Creation, TimeRange::since(OLDEST)).await?;
            let total = self.asker.total_of_all().await?;
            let after = self.asker.total(TimeAxis::Creation, TimeRange::since(OLDEST)).await?;
            if before.max(after) >= total {
                return Ok(());
            }
        }
        Err(Stop::ReadWhole(UNTIMED.to_owned()))
    }
}
