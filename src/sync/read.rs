//! Reads the source until the plan that follows from it is believable.
//!
//! Goal: no row is deleted or changed at the target because of a read that missed something. People edit the catalogue
//! while its pages are read, so three things can go wrong:
//!
//! - **A page shifts.** A row is inserted or removed before the page that is read next; a row is seen twice or not at
//!   all. The total moves or differs from the number of ids, and [`Okki::read`](crate::okki::Okki::read) reads again.
//! - **A swap.** One row is deleted and another created between two pages. The total stays as it was, and a third row,
//!   which slid from the page to come onto the page already read, is missed: the plan would delete it. So a plan that
//!   takes something away is believed only if the source created no product since the read began.
//! - **A stale cache.** An incremental read that once missed a row would go on missing it. So only a read during which
//!   no product was created becomes the cache, and a doubt is settled by reading everything.
//!
//! Deliberately absent: a swap in which the second product was *restored* and not created. It leaves no trace in the
//! total or in the creation times; the next full read corrects it. A plan that only creates is believed at once: a row
//! that it misses comes with the next run.

use std::time::Duration;

use object_store::PutPayload;
use tokio::time::Instant;

use super::{Run, RunRequest, millis};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::okki::{self, Cache, ReadInfo};
use crate::plan::{DeleteGuard, Plan, SourceSummary};
use crate::report::{Mode, Progress};
use crate::state::State;
use crate::store::paths;

/// The source's clock counts seconds. A product that was created in the second in which a read begins would look new
/// to that read, however often it is repeated; so the next one begins in another second.
const PAUSE_BEFORE_READING_AGAIN: Duration = Duration::from_millis(1_100);

/// Whether the source created products while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    NotAsked,
    /// The source gives no time, or has no such filter.
    Unknown,
    Still,
    Grew,
}

/// What to do with a read and the plan that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    /// Go on with it.
    Use,
    /// Go on with it, and keep its products for the next read.
    UseAndCache,
    ReadAgain,
}

/// | the plan takes rows away | a cache is wanted | created meanwhile | decision |
/// |---|---|---|---|
/// | no | no | not asked | use |
/// | no | yes | none | use and cache |
/// | no | yes | some, unknown | use: a missed row comes with a later run, but never from this cache |
/// | yes | no | none, unknown | use |
/// | yes | yes | none | use and cache |
/// | yes | yes | unknown | use |
/// | yes | no, yes | some | read again |
fn believe(takes_away: bool, wants_cache: bool, growth: Growth) -> Belief {
    match growth {
        Growth::Grew if takes_away => Belief::ReadAgain,
        Growth::Still if wants_cache => Belief::UseAndCache,
        _ => Belief::Use,
    }
}

impl Run<'_> {
    /// Reads and plans, until the plan is believable.
    pub(super) async fn read_and_decide(
        &mut self,
        budget: &Budget,
        request: &RunRequest,
        state: &State,
    ) -> Result<(Catalogue, Plan)> {
        let wants_cache = request.mode == Mode::Sync && self.context.settings.full_read_every.is_some();
        for attempt in 1..=okki::MAX_READS {
            // Only the first read may go by the cache: a doubt is settled by reading everything.
            let cache = if attempt == 1 && !request.full { self.load_cache().await } else { None };
            let cached_since_ms = cache.as_ref().map(|cache| cache.full_read_at_ms);
            let (catalogue, read) = self.read(budget, cache).await?;
            let plan = self.decide(request, &catalogue, state)?;
            let takes_away = plan.counts.update + plan.counts.delete > 0;
            let growth = match takes_away || wants_cache {
                true => self.growth(budget, &read).await?,
                false => Growth::NotAsked,
            };
            let belief = believe(takes_away, wants_cache, growth);
            if belief != Belief::ReadAgain {
                (self.watch)(Progress::Planned(plan.counts.clone()));
                if belief == Belief::UseAndCache {
                    self.save_cache(&catalogue, &read, cached_since_ms).await;
                }
                return Ok((catalogue, plan));
            }
            let why = "products were created while the pages were read".to_owned();
            tracing::warn!(attempt, %why, "the pages may not agree, reading again");
            (self.watch)(Progress::ReadingAgain { attempt: attempt + 1, why });
            budget.sleep(Side::Source, PAUSE_BEFORE_READING_AGAIN).await?;
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            format!(
                "source: products were created during each of {} reads, and the plan takes rows away; nothing was written",
                okki::MAX_READS
            ),
        )
        .help("run again when no import is going on"))
    }

    async fn growth(&self, budget: &Budget, read: &ReadInfo) -> Result<Growth> {
        Ok(match self.context.okki.grew_since(budget, read).await? {
            None => Growth::Unknown,
            Some(false) => Growth::Still,
            Some(true) => Growth::Grew,
        })
    }

    /// The products of an earlier read; `None` where all of them have to be read.
    async fn load_cache(&self) -> Option<Cache> {
        let context = self.context;
        let every = context.settings.full_read_every.filter(|_| context.rows.uses_products())?;
        let (bytes, _) = match context.store.load(&paths::products(context.connection)).await {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(error = %error.line(), "the cache of products cannot be read; reading all of them");
                return None;
            }
        };
        match Cache::from_bytes(bytes, &context.okki.cache_key(context.rows)) {
            Ok(cache) if !cache.is_older_than(every, context.clock.now_ms()) => Some(cache),
            Ok(_) => None,
            Err(why) => {
                tracing::info!(why, "the cache of products is of no use; reading all of them");
                None
            }
        }
    }

    /// Keeps the products for the next read. The cache is only a shortcut: a store that fails here fails no run.
    async fn save_cache(&self, catalogue: &Catalogue, read: &ReadInfo, cached_since_ms: Option<u64>) {
        let context = self.context;
        let Some(cursor) = &read.cursor else { return };
        if !context.rows.uses_products() || !read.worth_keeping {
            return;
        }
        let full_read_at_ms = cached_since_ms.filter(|_| !read.full_read).unwrap_or(context.clock.now_ms());
        let key = context.okki.cache_key(context.rows);
        let pieces = okki::cache::to_pieces(&key, cursor, full_read_at_ms, catalogue);
        let pieces = PutPayload::from_iter(pieces);
        if let Err(error) = context.store.put(&paths::products(context.connection), pieces).await {
            tracing::warn!(error = %error.line(), "the cache of products cannot be kept; the next run reads all of them");
        }
    }

    /// One consistent read; with a cache, of what changed since.
    pub(super) async fn read(
        &mut self,
        budget: &Budget,
        cache: Option<Cache>,
    ) -> Result<(Catalogue, ReadInfo)> {
        let started = Instant::now();
        let context = self.context;
        let done = context.okki.read(budget, context.rows, cache, self.watch).await;
        let source = &mut self.tally.source;
        let (requests, retries, throttled) = context.okki.take_counters();
        source.requests += requests;
        source.retries += retries;
        source.throttled += throttled;
        let (catalogue, read) = done?;
        source.full_read = read.full_read;
        source.groups = catalogue.groups.len() as u64;
        source.products = catalogue.product_count() as u64;
        tracing::info!(
            step = "fetched",
            groups = source.groups,
            products = source.products,
            deleted_at_source = read.deleted_products,
            full_read = read.full_read,
            fresh = read.fresh_products,
            requests,
            retries,
            throttled,
            duration_ms = millis(started.elapsed()),
            "fetched"
        );
        tracing::info!(
            step = "cleaned",
            groups = source.groups,
            products = source.products,
            quarantined = catalogue.rejected.len(),
            duration_ms = millis(read.cleaned_in),
            "cleaned"
        );
        Ok((catalogue, read))
    }

    /// Plans, leaves plan and quarantine in the tally, and asks the guard.
    fn decide(&mut self, request: &RunRequest, catalogue: &Catalogue, state: &State) -> Result<Plan> {
        let started = Instant::now();
        let (context, tally) = (self.context, &mut self.tally);
        let mut plan = Plan::new(context.rows, catalogue, state, context.settings.on_delete);
        tally.plan = plan.counts.clone();
        tally.rejected.clone_from(&catalogue.rejected);
        tally.rejected.append(&mut plan.rejected);
        if request.mode == Mode::Plan {
            tally.lines = plan.lines(catalogue);
        }
        tracing::info!(
            step = "transformed",
            create = plan.counts.create,
            update = plan.counts.update,
            delete = plan.counts.delete,
            unchanged = plan.counts.unchanged,
            quarantined = tally.rejected.len(),
            duration_ms = millis(started.elapsed()),
            "transformed"
        );
        let guard = DeleteGuard {
            max_delete_ratio: context.settings.max_delete_ratio,
            lifted: request.allow_mass_delete,
        };
        plan.check(state, &SourceSummary::of(catalogue, context.rows), guard)?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_takes_rows_away_is_not_believed_while_products_are_created() {
        use Belief::{ReadAgain, Use, UseAndCache};
        for (takes_away, wants_cache, growth, expected) in [
            (false, false, Growth::NotAsked, Use),
            (false, true, Growth::Still, UseAndCache),
            (false, true, Growth::Grew, Use),
            (false, true, Growth::Unknown, Use),
            (true, false, Growth::Still, Use),
            (true, false, Growth::Unknown, Use),
            (true, true, Growth::Still, UseAndCache),
            (true, true, Growth::Unknown, Use),
            (true, false, Growth::Grew, ReadAgain),
            (true, true, Growth::Grew, ReadAgain),
        ] {
            let belief = believe(takes_away, wants_cache, growth);
            assert_eq!(belief, expected, "{takes_away} {wants_cache} {growth:?}");
        }
    }
}
