//! One read, and which way it goes: in windows, or page by page where the source's filters cannot be believed.

use std::time::Duration;

use tokio::time::Instant;

use super::cache::Cache;
use super::clean::Cleaned;
use super::filters::UNTIMED;
use super::reading::{Keep, Reading, Stop};
use super::snapshot::SnapshotBuilder;
use super::windows::{self, Asker, Ledger, Sizing, SourceClock};
use super::{Okki, whole};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::report::Watch;
use crate::transform::RowMap;

/// What a read goes on from.
pub(crate) struct ReadStart {
    /// Of an earlier read.
    pub cache: Option<Cache>,
    /// `Some`: what is held is trusted, and every part of it is read again within this time.
    pub full_read_every: Option<Duration>,
    pub clock: Clock,
}

/// How a catalogue was read.
#[derive(Debug, Default)]
pub(crate) struct ReadInfo {
    /// Whether all products were read, rather than those that changed.
    pub full_read: bool,
    /// Products that differ from the cache (all of them where there was none).
    pub fresh_products: u64,
    /// Products that the source marks as deleted (`enable_flag` 0).
    pub deleted_products: u64,
    /// Whether products were created between the pages, so that one can have been missed; `None` if nobody knows.
    pub grew: Option<bool>,
    /// When the part was read that was read longest ago, wall-clock milliseconds; `None` if there are no parts.
    pub oldest_read_at_ms: Option<u64>,
    /// Whether the source's total was compared to the end. If not, products that were deleted lately may be held still.
    pub is_compared: bool,
    /// Time spent on cleaning.
    pub cleaned_in: Duration,
}

impl ReadInfo {
    pub(super) fn of(cleaned: Cleaned) -> Self {
        Self {
            deleted_products: cleaned.deleted,
            cleaned_in: cleaned.took,
            grew: Some(false),
            is_compared: true,
            ..Self::default()
        }
    }
}

/// A read that ended before it was complete. What it read is kept.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub error: Error,
    /// Products read so far.
    pub read: u64,
    /// How many of them this read brought.
    pub newly_read: u64,
    /// Products that are not read yet; `None` if that is not known, or nothing is kept.
    pub unread: Option<u64>,
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self { error, read: 0, newly_read: 0, unread: None }
    }
}

impl Okki {
    /// Reads everything that the pipeline needs; with the cache of an earlier read, what is missing and what changed.
    pub(crate) async fn read(
        &self,
        budget: &Budget,
        map: &RowMap,
        start: ReadStart,
        keep: &impl Keep,
        watch: &Watch,
    ) -> Result<(Catalogue, ReadInfo), Unfinished> {
        let doubt = start.cache.as_ref().and_then(|cache| cache.ledger.whole_because.as_deref());
        // Products without a creation time stay what they are.
        let may_pass = doubt.is_some_and(|why| why != UNTIMED);
        let anew = ReadStart { cache: None, ..start };
        match self.read_from(budget, map, start, false, keep, watch).await {
            // Page by page a catalogue that is being edited cannot be read. What was wrong with the source's filters is a
            // while ago.
            Err(Unfinished { error, .. }) if may_pass && error.kind == ErrorKind::InconsistentSource => {
                tracing::warn!(error = %error.line(), "the source's filters are tried again");
                self.read_from(budget, map, anew, true, keep, watch).await
            }
            done => done,
        }
    }

    /// `has_doubt`: the store holds a doubt about the source's filters, which must not outlive a read that they have passed.
    async fn read_from(
        &self,
        budget: &Budget,
        map: &RowMap,
        start: ReadStart,
        has_doubt: bool,
        keep: &impl Keep,
        watch: &Watch,
    ) -> Result<(Catalogue, ReadInfo), Unfinished> {
        let groups = self.groups(budget).await?;
        let mut later = None;
        let mut builder = SnapshotBuilder::new(&self.settings, map, &groups);
        if !map.uses_products() {
            let (catalogue, cleaned) = builder.finish()?;
            return Ok((catalogue, ReadInfo::of(cleaned)));
        }
        let began = groups.now.as_deref().and_then(windows::times::from_text);
        let Some(began) = began.filter(|_| !builder.has_embedded_products()) else {
            return self.whole(budget, map, &groups, start.clock, None, keep, watch).await;
        };
        let ReadStart { cache, full_read_every, clock } = start;
        let mut ledger = cache.map_or_else(Ledger::default, |cache| builder.add_cached(cache));
        if let Some(why) = ledger.whole_because.clone() {
            let every = full_read_every.unwrap_or(whole::TRY_WINDOWS_AGAIN_AFTER);
            if ledger.is_whole_due(every, clock.now_ms()) {
                // Perhaps its filters can be believed by now.
                (builder, ledger) = (SnapshotBuilder::new(&self.settings, map, &groups), Ledger::default());
            } else if full_read_every.is_none() {
                return self.whole(budget, map, &groups, clock, Some(why), keep, watch).await;
            }
        }
        ledger.began.get_or_insert(began);
        let asker = Asker {
            okki: self,
            budget,
            reader: builder.reader(),
            start_shift_seconds: ledger.start_shift_seconds,
            surplus: ledger.surplus,
        };
        let sizing = Sizing::for_run(&self.settings, budget.left());
        let is_resumed = !ledger.finished && !ledger.windows().is_empty();
        let (windows_before, first_number) = (ledger.complete, ledger.last_number());
        let mut reading = Reading {
            asker,
            builder,
            ledger,
            source_clock: SourceClock { began, at: Instant::now() },
            clock,
            key: self.cache_key(map),
            keep,
            watch,
            sizing,
            held_at_start: 0,
            kept_at: Instant::now(),
            is_checkpoint_there: is_resumed || has_doubt,
            is_dirty: false,
            fresh_rows: 0,
            tail: None,
            has_unplaced: false,
            is_compared: true,
        };
        reading.held_at_start = reading.held();
        match reading.run(full_read_every).await {
            Ok(()) => {}
            Err(Stop::ReadWhole(why)) => {
                return self.whole(budget, map, &groups, clock, Some(why), keep, watch).await;
            }
            Err(Stop::Error(error)) => {
                if reading.is_dirty {
                    reading.checkpoint().await;
                }
                return Err(reading.unfinished(error));
            }
        }
        reading.keep_complete().await;
        let full_read = !windows_before || reading.ledger.all_newer_than(first_number);
        let Reading { mut builder, ledger, fresh_rows, is_compared, .. } = reading;
        if builder.met_unknown_group {
            // The group may be as new as the product.
            let groups = later.insert(self.groups(budget).await?);
            builder = builder.with_groups(&self.settings, groups);
        }
        let (catalogue, cleaned) = builder.finish()?;
        let info = ReadInfo {
            full_read,
            fresh_products: fresh_rows,
            oldest_read_at_ms: ledger.oldest_read_at_ms(),
            is_compared,
            ..ReadInfo::of(cleaned)
        };
        Ok((catalogue, info))
    }
}
