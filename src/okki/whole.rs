//! The old way to read, for a source that cannot be read in windows: all pages one after the other, until two agree.
//!
//! It needs a catalogue that stands still for as long as the read lasts, and it cannot go on in a later run. It is used
//! where groups bring their products themselves, where the source gives no time of its own, and where its filters cannot be
//! believed (`reading.rs` says why, once).
//!
//! Races:
//! - Pages overlap while people edit: a row may come twice, another one not at all. A read counts only if it holds as
//!   many distinct ids as the total says and the total stayed the same.
//! - Two rows of one second may change places at the border of two pages, in each read anew: one of them comes twice, the
//!   other one never. Each further read has its borders elsewhere, so that two reads do not agree on that by chance.
//! - A row deleted and another one created between two pages leave the total as it was and hide a third row. Only the
//!   plan knows whether that matters; [`ReadInfo::grew`](super::ReadInfo) tells it.

use std::ops::ControlFlow;
use std::time::Duration;

use super::page::ProductPage;
use super::protocol::GroupList;
use super::row::RowReader;
use super::snapshot::SnapshotBuilder;
use super::windows::{Ledger, times};
use super::{Keep, Okki, ReadInfo, Unfinished};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, id_hash};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Progress, Watch};
use crate::testing::Mutant;
use crate::transform::RowMap;
use crate::words::{Message, say};

/// After this time a source that could not be read in windows is tried again.
pub(super) const TRY_WINDOWS_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3_600);
/// Reads of everything before giving up on a catalogue that keeps changing.
pub(crate) const MAX_READS: u32 = 5;

/// How the pages of one read agree.
#[derive(Debug, Default)]
struct Agreement {
    total: Option<u64>,
    moved: Option<(u64, u64)>,
    rows: u64,
    /// Rows of the largest page.
    page_rows: u32,
    /// Distinct ids, and rows without one.
    distinct: u64,
    ids: hashbrown::HashSet<u64>,
    /// The sum of all rows' hashes of their ids, which does not depend on their order. Two reads that miss the same row by
    /// chance have another one twice.
    signature: u64,
    pages: u64,
}

impl Agreement {
    fn take(&mut self, page: &ProductPage) {
        match self.total {
            Some(before) if before != page.total => self.moved = Some((before, page.total)),
            _ => self.total = Some(page.total),
        }
        self.pages += 1;
        self.page_rows = self.page_rows.max(page.rows.len() as u32);
        for row in &page.rows {
            self.rows += 1;
            let hash = row.id.as_deref().map(id_hash);
            self.distinct += u64::from(hash.is_none_or(|hash| self.ids.insert(hash)));
            self.signature = self.signature.wrapping_add(hash.unwrap_or(1));
        }
    }

    /// How the pages contradict each other; `None` if they agree.
    fn contradiction(&self) -> Option<Message> {
        match (self.total, self.moved) {
            (_, Some((before, after))) => {
                Some(say!("the total moved from {before} to {after} while reading", before, after))
            }
            (Some(total), None) if total != self.distinct => {
                let distinct = self.distinct;
                Some(say!(
                    "the total says {total} products, the pages held {distinct} different ones",
                    total,
                    distinct
                ))
            }
            _ => None,
        }
    }
}

/// A read of everything.
pub(super) struct Whole<'a> {
    pub builder: SnapshotBuilder<'a>,
    pub total: u64,
    /// Whether rows can have been missed between pages.
    pub in_pages: bool,
}

impl Okki {
    /// Reads everything the old way. `why`: what is wrong with the source's filters, if they were tried.
    #[expect(clippy::too_many_arguments, reason = "the arguments of a read, and why it is one of this kind")]
    pub(super) async fn whole(
        &self,
        budget: &Budget,
        map: &RowMap,
        groups: &GroupList,
        clock: Clock,
        why: Option<String>,
        keep: &impl Keep,
        watch: &Watch,
    ) -> Result<(Catalogue, ReadInfo), Unfinished> {
        if let Some(why) = &why {
            tracing::warn!(%why, "reading all products page by page, which needs a catalogue that stands still");
        }
        let end = match SnapshotBuilder::new(&self.settings, map, groups).has_embedded_products() {
            true => None,
            false => self.end_of_creations(budget, groups, &clock).await?,
        };
        let Whole { mut builder, total, in_pages } = self.read_whole(budget, map, groups, watch).await?;
        let fresh_products = builder.rows;
        let mut grew = Some(false);
        if in_pages && groups.now.is_some() {
            grew = match end {
                Some(end) => self.created_since(budget, end).await?.map(|rows| rows > 0),
                None => None,
            };
        }
        // A read that may have missed a row does not serve as the cache.
        if let (Some(why), Some(false), Some(began)) = (why, grew, &groups.now)
            && let Some(cursor) = times::from_text(began)
            && builder.offenders.is_empty()
        {
            let (mut ledger, number) = Ledger::without_windows(cursor, clock.now_ms());
            (ledger.whole_because, ledger.source_total) = (Some(why), total);
            (0..builder.products.len()).for_each(|row| builder.products.set_number(row, number));
            keep.keep(builder.to_pieces(&self.cache_key(map), &ledger)).await;
        }
        let (catalogue, cleaned) = builder.finish()?;
        Ok((catalogue, ReadInfo { full_read: true, fresh_products, grew, ..ReadInfo::of(cleaned) }))
    }

    /// Reads until a read is consistent, or until two reads in a row agree with each other and have as many rows as the
    /// total says: then the source really holds ids twice, and their rows are rejected like any other offender.
    pub(super) async fn read_whole<'a>(
        &self,
        budget: &Budget,
        map: &'a RowMap,
        groups: &'a GroupList,
        watch: &Watch,
    ) -> Result<Whole<'a>> {
        let (mut last_signature, mut last_why) = (None, Message::plain(""));
        let mut page_size = self.settings.page_size;
        for attempt in 1..=MAX_READS {
            let mut builder = SnapshotBuilder::new(&self.settings, map, groups);
            let mut seen = Agreement::default();
            if builder.has_embedded_products() {
                builder.add_embedded()?;
            } else {
                self.read_pages(budget, map, page_size, |page| {
                    seen.take(&page);
                    builder.reserve_for(&page, page.total);
                    builder.add_page(&page)?;
                    watch(Progress::Reading { read: seen.rows, total: page.total });
                    Ok(ControlFlow::Continue(()))
                })
                .await?;
            }
            let done = |builder| Whole { builder, total: seen.total.unwrap_or(0), in_pages: seen.pages > 1 };
            let Some(why) = seen.contradiction() else { return Ok(done(builder)) };
            let signature = (seen.signature, seen.total);
            if last_signature == Some(signature) && seen.total == Some(seen.rows) {
                tracing::warn!(
                    total = seen.total,
                    distinct = seen.distinct,
                    "two reads agree: the difference is the source's own"
                );
                return Ok(done(builder));
            }
            last_signature = Some(signature);
            page_size = match seen.pages > 1 && page_size == self.settings.page_size {
                // One less than the source gives: it may give less than it is asked for.
                true => seen.page_rows.saturating_sub(1).max(1),
                false => self.settings.page_size,
            };
            last_why.clone_from(&why);
            tracing::warn!(attempt, %why, "the pages do not agree, reading again");
            watch(Progress::ReadingAgain { attempt: attempt + 1, why });
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            say!(
                "source: {reads} reads in a row did not agree (the last: {last_why}); nothing was written",
                reads = MAX_READS,
                last_why
            ),
        )
        .help(say!("run again when the catalogue is not being edited")))
    }

    /// Calls `take` with each page, in the order of the list rather than of arrival: it decides which of two rows with
    /// one id is the first.
    async fn read_pages(
        &self,
        budget: &Budget,
        map: &RowMap,
        page_size: u32,
        mut take: impl FnMut(ProductPage) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        use futures::StreamExt as _;
        let reader = RowReader::products(&map.product_columns);
        let first = self.page(budget, 1, page_size, &[], reader).await?;
        // A server that caps the page size counts its pages by its own size.
        let size = (first.rows.len() as u64).clamp(1, u64::from(page_size));
        let total = first.total;
        if take(first)?.is_break() {
            return Ok(());
        }
        let pages = total.div_ceil(size) - u64::from(Mutant::DropTheLastPage.is_active() && total > size);
        let mut answers = futures::stream::iter(2..=pages)
            .map(|number| self.page(budget, number, page_size, &[], reader))
            .buffered(self.settings.max_concurrency.max(1));
        while let Some(page) = answers.next().await {
            let page = page?;
            let is_past_the_end = page.rows.is_empty();
            // No page follows an empty one, even if the total promised more.
            if take(page)?.is_break() || is_past_the_end {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::value::RawValue;

    use super::*;
    use crate::transform::Columns;

    fn seen(pages: &[(u64, &[u32])]) -> Agreement {
        let mut seen = Agreement::default();
        for (total, ids) in pages {
            let row =
                |id: &u32| RawValue::from_string(format!(r#"{{"product_id":{id},"name":"A"}}"#)).unwrap();
            let rows: Vec<Box<RawValue>> = ids.iter().map(row).collect();
            let rows: Vec<&RawValue> = rows.iter().map(AsRef::as_ref).collect();
            seen.take(&ProductPage::from_rows(*total, &rows, RowReader::products(&Columns::default())));
        }
        seen
    }

    #[test]
    fn pages_agree_where_the_total_stays_and_each_row_comes_once() {
        let told = |pages| seen(pages).contradiction().map(|why| why.to_string());
        assert_eq!(told(&[(3, &[1, 2]), (3, &[3])]), None);
        assert!(told(&[(3, &[1, 2]), (4, &[3, 4])]).unwrap().contains("moved from 3 to 4"));
        assert!(told(&[(3, &[1, 2]), (3, &[2])]).unwrap().contains("says 3 products, the pages held 2"));
        assert_eq!(seen(&[(3, &[1, 2]), (3, &[3])]).page_rows, 2);
        // Two reads of the same ids are told apart from others, whatever their order.
        let signature = |ids| seen(&[(9, ids)]).signature;
        assert_eq!(signature(&[1, 2, 3]), signature(&[3, 1, 2]));
        assert_ne!(signature(&[1, 2, 3]), signature(&[1, 2, 4]));
        assert_ne!(
            signature(&[1, 2, 2]),
            signature(&[1, 1, 2]),
            "both miss the third, each has another one twice"
        );
    }
}
