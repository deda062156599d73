//! Whether the source filters by creation time, and all products have one: windows need both.
//!
//! It is asked before a first read, and again where a total stays above what windows have shown. (Which ends of a range are
//! included: `bounds.rs`. Totals that are always too large: `surplus.rs`.)

use super::reading::{Keep, Reading, Step, Stop};
use super::windows::times::{OLDEST, YEAR_SECONDS};
use super::windows::{TimeAxis, TimeRange};

/// So many looks must show products without a creation time.
const LOOKS: u32 = 5;
/// Looks in a catalogue that never stands still for three calls.
const MOST_LOOKS: u32 = 20;
/// Why a source with such products cannot be read in windows.
pub(super) const UNTIMED: &str = "some products have no creation time that the source's filter knows";

impl<K: Keep> Reading<'_, '_, K> {
    /// Before a first read: whether creation filters can be believed at all.
    pub(super) async fn check_filters(&mut self) -> Step<()> {
        self.check_creation_times().await?;
        if self.ledger.source_total == 0 {
            return Ok(());
        }
        let next_year = TimeRange::since(self.source_clock.began.saturating_add(YEAR_SECONDS));
        match self.asker.total(TimeAxis::Creation, next_year).await? {
            0 => Ok(()),
            _ if self.find_surplus().await? => Ok(()),
            _ => Err(Stop::ReadWhole("the source does not filter by creation time".to_owned())),
        }
    }

    /// Products without a creation time are in no window. The total counts them, and the total of all creations does not.
    /// Only a look counts before and after which the total is the same: a product that is created between two answers
    /// hides one of them, and one that is deleted looks like one.
    pub(super) async fn check_creation_times(&mut self) -> Step<()> {
        let (mut before, mut untimed) = (self.asker.total_of_all().await?, 0);
        for _ in 0..MOST_LOOKS {
            self.ledger.source_total = before;
            if before == 0 {
                return Ok(());
            }
            let created = self.asker.total(TimeAxis::Creation, TimeRange::since(OLDEST)).await?;
            let after = self.asker.total_of_all().await?;
            if after == before {
                if created >= after {
                    return Ok(());
                }
                untimed += 1;
            }
            if untimed == LOOKS {
                break;
            }
            before = after;
        }
        if untimed == 0 { Ok(()) } else { Err(Stop::ReadWhole(UNTIMED.to_owned())) }
    }
}
