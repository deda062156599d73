//! Reads the source, and plans.
//!
//! Goal: no row is deleted or changed at the target because of a read that missed something. `okki/reading.rs` reads in
//! windows that prove themselves, keeps what it has read in the store while it goes on, and needs no second look. Two
//! things are left for here:
//!
//! - **Where a read goes on.** A sync goes on from the last one. A verification trusts nothing that was read before; it
//!   goes on only from its own interrupted read. `--full` and `products = "full"` go on only from a read that was
//!   interrupted: it is as fresh as one that begins now.
//! - **A swap**, where the source had to be read the old way (`okki/whole.rs`): one row is deleted and another created
//!   between two pages, the total stays as it was, and a third row is missed. So a plan that takes something away is
//!   believed only if the source created no product since such a read began.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutPayload;
use tokio::time::Instant;

use super::{Only, Run, RunContext, RunRequest, millis};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, Rejected};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::okki::{self, Cache, Keep, ReadInfo, ReadStart, Unfinished};
use crate::plan::{DeleteGuard, Digest, HeldGuard, Plan, Selection, SourceSummary};
use crate::report::{Mode, Progress};
use crate::state::State;
use crate::store::{Store, paths};
use crate::testing::Mutant;
use crate::transform::Former;
use crate::words::say;

/// The source's clock counts seconds. A product that was created in the second in which a read begins would look new
/// to that read, however often it is repeated; so the next one begins in another second.
const PAUSE_BEFORE_READING_AGAIN: Duration = Duration::from_millis(1_100);
/// A read that was interrupted goes on at once.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// What a read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFor {
    /// It goes on from what is held, and keeps what it reads.
    Sync,
    /// The same, but keeps nothing.
    Plan,
    /// It trusts nothing that was read before it began.
    Anew,
    /// The same, apart from what syncs hold.
    Comparison,
}

/// What a run is about to do.
pub(super) struct Decided {
    pub catalogue: Catalogue,
    pub plan: Plan,
    /// Why it may not be done.
    pub refusal: Option<Error>,
}

/// Keeps a read in the store. It is a checkpoint: a store that fails here fails no run.
struct StoreKeep<'a> {
    store: &'a Store,
    /// `None`: nothing is kept.
    path: Option<String>,
    /// Whether a read that is complete serves the next one.
    keeps_complete: bool,
}

impl Keep for StoreKeep<'_> {
    fn keeps_complete(&self) -> bool {
        self.keeps_complete
    }

    async fn keep(&self, pieces: Vec<Bytes>) {
        let Some(path) = &self.path else { return };
        let started = Instant::now();
        match self.store.put(path, PutPayload::from_iter(pieces)).await {
            Ok(()) => {
                tracing::debug!(duration_ms = millis(started.elapsed()), "the products read so far are kept")
            }
            Err(error) => {
                tracing::warn!(error = %error.line(), "the products read so far cannot be kept; an interrupted read begins anew");
            }
        }
    }
}

impl Run<'_> {
    /// Reads and plans, until the plan is believable.
    pub(super) async fn read_and_decide(
        &mut self,
        budget: &Budget,
        request: &RunRequest,
        state: &State,
    ) -> Result<Decided> {
        let mut purpose = match (request.mode, request.full) {
            (Mode::Plan, false) => ReadFor::Plan,
            // Rows that a person names move no cursor.
            (Mode::Sync, false) if !request.only.is_empty() => ReadFor::Plan,
            (Mode::Sync, true) if !request.only.is_empty() => ReadFor::Comparison,
            (Mode::Sync, false) => ReadFor::Sync,
            (Mode::Plan | Mode::Verify | Mode::Undo, _) => ReadFor::Comparison,
            (Mode::Sync, true) => ReadFor::Anew,
        };
        for attempt in 1..=okki::MAX_READS {
            let (catalogue, read) = self.read(budget, purpose).await?;
            self.former = None;
            let (mut plan, mut refusal) = self.decide(request, &catalogue, state)?;
            let rejected = std::mem::take(&mut self.tally.rejected);
            let has_former = self.load_former((&catalogue, state), &plan, &rejected).await;
            self.tally.rejected = rejected;
            if has_former {
                (plan, refusal) = self.decide(request, &catalogue, state)?;
            }
            let takes_away = plan.counts.update + plan.counts.delete > 0;
            if refusal.is_some() {
                return Ok(Decided { catalogue, plan, refusal });
            }
            if !takes_away || read.grew != Some(true) || Mutant::IgnoreGrowth.is_active() {
                (self.watch)(Progress::Planned(plan.counts.clone()));
                return Ok(Decided { catalogue, plan, refusal });
            }
            let why = say!("products were created while the pages were read");
            tracing::warn!(attempt, %why, "the pages may not agree, reading again");
            (self.watch)(Progress::ReadingAgain { attempt: attempt + 1, why });
            budget.sleep(Side::Source, PAUSE_BEFORE_READING_AGAIN).await?;
            if purpose == ReadFor::Sync {
                purpose = ReadFor::Anew;
            }
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            say!(
                "source: products were created during each of {reads} reads, and the plan takes rows away; nothing was written",
                reads = okki::MAX_READS,
            ),
        )
        .help(say!("run again when no import is going on")))
    }

    /// What a read goes on from; `None` if it begins anew.
    async fn load_cache(&self, purpose: ReadFor, path: &str) -> Option<Cache> {
        let context = self.context;
        if !context.rows.uses_products() {
            return None;
        }
        let found = match context.store.load(path).await {
            Ok(None) if purpose != ReadFor::Comparison => {
                context.store.load(&paths::former_products(context.connection)).await
            }
            found => found,
        };
        let (bytes, _) = match found {
            Ok(found) => found?,
            Err(error) => {
                tracing::warn!(error = %error.line(), "the products read before cannot be loaded; reading all of them");
                return None;
            }
        };
        match Cache::from_bytes(bytes, &context.okki.cache_key(context.rows)) {
            Ok(cache) => {
                let goes_on = matches!(purpose, ReadFor::Sync | ReadFor::Plan)
                    && context.settings.full_read_every.is_some();
                (goes_on || cache.goes_on_anyway(context.clock.now_ms())).then_some(cache)
            }
            Err(why) => {
                tracing::info!(why, path, "the products read before are set aside; reading all of them");
                None
            }
        }
    }

    /// One read, complete and consistent.
    pub(super) async fn read(&mut self, budget: &Budget, purpose: ReadFor) -> Result<(Catalogue, ReadInfo)> {
        let started = Instant::now();
        let context = self.context;
        let path = match purpose {
            ReadFor::Comparison => paths::compared_products(context.connection),
            _ => paths::products(context.connection),
        };
        let is_incremental = context.settings.full_read_every.is_some();
        let start = ReadStart {
            cache: self.load_cache(purpose, &path).await,
            full_read_every: context.settings.full_read_every.filter(|_| purpose != ReadFor::Comparison),
            clock: context.clock,
        };
        let keep = StoreKeep {
            store: context.store,
            path: (purpose != ReadFor::Plan).then_some(path),
            keeps_complete: is_incremental && purpose != ReadFor::Comparison,
        };
        let done = context.okki.read(budget, context.rows, start, &keep, self.watch).await;
        let source = &mut self.tally.source;
        let (requests, retries, throttled) = context.okki.counters().take();
        source.requests += requests;
        source.retries += retries;
        source.throttled += throttled;
        let (catalogue, read) = match done {
            Ok(done) => done,
            Err(unfinished) => return Err(self.end_unfinished(unfinished)),
        };
        source.full_read = read.full_read;
        self.tally.is_uncompared = !read.is_compared;
        let source = &mut self.tally.source;
        source.groups = catalogue.groups.len() as u64;
        source.products = catalogue.product_count() as u64;
        source.oldest_read_age_seconds =
            read.oldest_read_at_ms.map(|at_ms| context.clock.now_ms().saturating_sub(at_ms) / 1_000);
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

    /// A run that had no time to compare totals writes what it knows, and says that another one has to follow.
    pub(super) fn check_compared(&self) -> Result<()> {
        if !self.tally.is_uncompared {
            return Ok(());
        }
        let message = say!(
            "there was no time to compare the source's total; products deleted lately may be held still"
        );
        Err(Error::new(ErrorKind::Interrupted, message)
            .help(say!("the next run goes on from there"))
            .resume_after(RESUME_AFTER))
    }

    /// Leaves in the tally how far the read came; the error says where the next run goes on.
    fn end_unfinished(&mut self, unfinished: Unfinished) -> Error {
        let Unfinished { error, read, newly_read, unread } = unfinished;
        let Some(unread) = unread else { return error };
        (self.tally.source.products, self.tally.source.newly_read) = (read, Some(newly_read));
        self.tally.unread = unread;
        if error.kind != ErrorKind::Interrupted || error.resume_after.is_some() {
            return error;
        }
        let message = say!(
            "{message}; {read} of {unread} products are read",
            message = error.message,
            read,
            unread = read.saturating_add(unread)
        );
        Error::new(ErrorKind::Interrupted, message)
            .help(say!("the next run goes on from there"))
            .resume_after(RESUME_AFTER)
    }

    /// Plans, leaves plan and quarantine in the tally, and asks the guard.
    fn decide(
        &mut self,
        request: &RunRequest,
        catalogue: &Catalogue,
        state: &State,
    ) -> Result<(Plan, Option<Error>)> {
        let started = Instant::now();
        let former = self.former.as_deref().map(|former| former as &dyn Former);
        let (context, tally) = (self.context, &mut self.tally);
        let is_whole = request.only.is_empty();
        let mut plan = if is_whole {
            tally.rejected.clone_from(&catalogue.rejected);
            Plan::new(context.rows, catalogue, (state, former), context.settings.on_delete)
        } else {
            let selection = select(context, request, catalogue)?;
            let is_meant =
                |row: &&Rejected| row.id.as_ref().is_some_and(|id| selection.rejected.contains(id));
            tally.rejected = catalogue.rejected.iter().filter(is_meant).cloned().collect();
            Plan::only(context.rows, catalogue, (state, former), &selection)
        };
        tally.plan = plan.counts.clone();
        let held = HeldGuard { max_held_ratio: context.settings.max_held_ratio };
        let held = if is_whole { held.check(catalogue, &plan.rejected) } else { Ok(()) };
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
        if request.mode == Mode::Plan || request.approve.is_some() {
            tally.digest = Some(plan.digest(context.rows, catalogue, (state, former)));
        }
        if let Some(refusal) = unapproved(request, tally.digest.as_ref()).or(held.err()) {
            return Ok((plan, Some(refusal)));
        }
        let guard = DeleteGuard {
            max_delete_ratio: context.settings.max_delete_ratio,
            lifted: request.allow_mass_delete || request.approve.is_some(),
        };
        let summary = SourceSummary::of(catalogue, context.rows);
        let refusal = if is_whole { plan.check(state, &summary, guard).err() } else { None };
        Ok((plan, refusal))
    }
}

/// The rows that a person named.
fn select(context: &RunContext<'_>, request: &RunRequest, catalogue: &Catalogue) -> Result<Selection> {
    let Only { ids, groups } = &request.only;
    Selection::of(catalogue, context.rows.unit(), ids, groups).map_err(|mut error| {
        error.message = say!("only: {why}", why = error.message);
        error
    })
}

/// Refuses a plan that is not the one that was approved.
fn unapproved(request: &RunRequest, now: Option<&Digest>) -> Option<Error> {
    let (approved, now) = (request.approve.as_ref()?, now?);
    if approved == now {
        return None;
    }
    let what = say!(
        "the plan is not the one that was approved ({difference}); nothing was written",
        difference = approved.difference(now)
    );
    let help = say!("look at it with okki-sync plan, and approve its digest");
    Some(Error::new(ErrorKind::GuardRefused, what).help(help))
}
