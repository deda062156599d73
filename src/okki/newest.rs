//! Whether products were created while the catalogue was read page by page.
//!
//! Before the read, the end of creation times is looked for: from it on the source's filter shows no product. If it shows
//! one there after the read, that one was created meanwhile. `now` only says where to look: the filter may go by another
//! clock.

use super::Okki;
use super::protocol::GroupList;
use super::row::RowReader;
use super::windows::Seconds;
use super::windows::times::{self, FARTHEST_ZONE_SECONDS, SECOND_IS_OVER};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result, Side};
use crate::net::Call;
use crate::transform::Columns;

impl Okki {
    /// From when on the filter shows no product; `None` if it cannot be asked, or is ignored. Takes one call where nothing
    /// was created for 15 hours by the filter's clock, and at most 19.
    pub(super) async fn end_of_creations(
        &self,
        budget: &Budget,
        groups: &GroupList,
        clock: &Clock,
    ) -> Result<Option<Seconds>> {
        let Some(said) = &groups.now else { return Ok(None) };
        let ours = i64::try_from(clock.now_ms() / 1_000).unwrap_or(0);
        let now = times::from_text(said).unwrap_or(ours);
        let (mut shows, mut shows_none) = (now - FARTHEST_ZONE_SECONDS, now + FARTHEST_ZONE_SECONDS);
        match self.created_since(budget, shows).await? {
            None => return Ok(None),
            Some(0) => return Ok(Some(shows)),
            Some(_) => {}
        }
        // Nowhere on earth has that time come: such a filter filters nothing.
        if self.created_since(budget, shows_none).await? != Some(0) {
            return Ok(None);
        }
        while shows_none - shows > 1 {
            let middle = shows + (shows_none - shows) / 2;
            match self.created_since(budget, middle).await? {
                Some(0) => shows_none = middle,
                _ => shows = middle,
            }
        }
        // More of the second before may still come.
        budget.sleep(Side::Source, SECOND_IS_OVER).await?;
        Ok(Some(shows_none))
    }

    /// How many products the filter shows since then, in a call of one row; `None` if the source has no such filter.
    pub(super) async fn created_since(&self, budget: &Budget, since: Seconds) -> Result<Option<u64>> {
        let since = times::to_text(since);
        let query =
            [("start_index", "1"), ("count", "1"), ("time_type", "2"), ("start_time", since.as_str())];
        let columns = Columns::default();
        let (call, reader) = (Call::new("products").optional(), RowReader::products(&columns));
        match self.list(budget, call, &query, reader).await {
            Ok(page) => Ok(Some(page.total)),
            Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                tracing::debug!(error = %error.line(), "the source cannot be asked for new products");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
