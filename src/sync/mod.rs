//! The story of a run: load → read → transform → plan → write → save.

mod archive;
mod checkpoint;
mod in_flight;
mod rebuild;
mod verify;

use std::time::Duration;

use object_store::PutPayload;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::catalogue::{Catalogue, Rejected};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::okki::{self, Cache, Okki};
pub(crate) use crate::plan::DiffLine;
use crate::plan::{self, Action, Change, DeleteGuard, OnDelete, Plan, RowRef, SourceSummary};
use crate::report::{Mode, PlanCounts, SourceCounts};
pub(crate) use crate::report::{Progress, Watch};
use crate::state::State;
use crate::store::Store;
use crate::store::lease::Lease;
use crate::targets::Target;
use crate::targets::batch::{Batch, Builder, EntryKind};
use crate::testing::Mutant;
use crate::transform::{Renderer, RowMap};
use checkpoint::Checkpoint;
use in_flight::{Done, InFlight};
pub(crate) use rebuild::{Rebuilt, rebuild};

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// sync, plan or verify.
    pub mode: crate::report::Mode,
    /// Ignore the incremental cursor.
    pub full: bool,
    /// Lift the delete guard (and the empty-source guard) for this run.
    pub allow_mass_delete: bool,
    /// When the run must be over.
    pub deadline: Option<tokio::time::Instant>,
}

/// How a run ended, with what people want to see.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The report.
    pub report: crate::report::Report,
    /// What stopped it, where it failed or paused.
    pub error: Option<crate::error::Error>,
    /// The plan or the comparison (empty in sync mode).
    pub lines: Vec<DiffLine>,
    /// Rows in the quarantine (their reasons are shown to people).
    pub rejected: Vec<crate::catalogue::Rejected>,
}

/// Everything that a run works with.
pub(crate) struct RunContext<'a> {
    /// The connection's name.
    pub connection: &'a str,
    /// The source.
    pub okki: &'a Okki,
    /// The target.
    pub target: &'a Target,
    /// The store.
    pub store: &'a Store,
    /// The field map.
    pub rows: &'a RowMap,
    /// What happens to rows that the source no longer has.
    pub on_delete: OnDelete,
    /// The share of rows that a plan may delete.
    pub max_delete_ratio: f64,
    /// Read only the products that changed, and all of them this often; none: all of them each time.
    pub full_read_every: Option<Duration>,
    /// Rows per batch.
    pub max_rows_per_batch: usize,
    /// Bytes per batch.
    pub max_bytes_per_batch: usize,
    /// Batches of products under way at a time.
    pub max_concurrency: usize,
    /// The clock.
    pub clock: Clock,
}

/// What a run has come to so far; the report is made from it, also when an error ends it.
#[derive(Default)]
struct Tally {
    source: SourceCounts,
    plan: PlanCounts,
    written: u64,
    deleted: u64,
    batches: u64,
    differences: u64,
    /// Rows of the plan that the target refused, or that could not be written.
    refused: u64,
    rejected: Vec<Rejected>,
    lines: Vec<DiffLine>,
}

/// One run, from the event to the report. It never fails as a function: what went wrong stands in the outcome.
pub(crate) async fn run(
    context: &RunContext<'_>,
    request: &Request,
    budget: &Budget,
    watch: &Watch,
) -> Outcome {
    let started = Instant::now();
    let started_at = context.clock.now();
    let mut run = Run::new(context, request, watch);
    context.okki.start_run();
    context.target.start_run();

    let (budget, waits) = budget.with_waits();
    let work = async {
        match request.mode {
            Mode::Sync => run.sync(&budget).await,
            Mode::Plan => run.plan_only(&budget).await,
            Mode::Verify => run.verify(&budget).await,
        }
    };
    let result = waits.tell(watch, work).await;

    let Run { mut tally, run_id, .. } = run;
    let mut outcome = Outcome {
        report: archive::report(context, request.mode, &tally, result.as_ref().err()),
        error: result.err(),
        lines: std::mem::take(&mut tally.lines),
        rejected: std::mem::take(&mut tally.rejected),
    };
    outcome.report.run_id = run_id;
    outcome.report.started_at = format!("{started_at:.3}");
    outcome.report.duration_ms = millis(started.elapsed());
    if request.mode == Mode::Sync {
        archive::save(context, &mut outcome).await;
    }
    outcome
}

/// Names a run. Sorts by time and is unique: two runs may start in the same millisecond.
pub(crate) fn run_id(clock: Clock) -> String {
    format!("{}-{:08x}", clock.now().strftime("%Y%m%dT%H%M%S%3fZ"), fastrand::u32(..))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A run that is going on.
struct Run<'a> {
    context: &'a RunContext<'a>,
    request: &'a Request,
    watch: &'a Watch,
    run_id: String,
    tally: Tally,
    /// No batch is sent that would probably not come back in time.
    slowest_batch: Duration,
}

impl<'a> Run<'a> {
    fn new(context: &'a RunContext<'a>, request: &'a Request, watch: &'a Watch) -> Self {
        let run_id = run_id(context.clock);
        Self { context, request, watch, run_id, tally: Tally::default(), slowest_batch: Duration::ZERO }
    }
}

impl Run<'_> {
    async fn sync(&mut self, budget: &Budget) -> Result<()> {
        self.under_lease(budget, async |run, budget, lease| run.sync_under_lease(budget, lease).await).await
    }

    /// Works under the connection's lease, and gives it back whatever the end.
    async fn under_lease<T>(
        &mut self,
        budget: &Budget,
        work: impl AsyncFnOnce(&mut Self, &Budget, &Lease) -> Result<T>,
    ) -> Result<T> {
        let lease = self.take_lease().await?;
        let done = tokio::select! {
            biased;
            done = work(self, budget, &lease) => done,
            lost = lease.renew_until_lost() => Err(lost),
        };
        self.give_lease_back(&lease, &done).await;
        done
    }

    async fn sync_under_lease(&mut self, budget: &Budget, lease: &Lease) -> Result<()> {
        self.remember_limits(lease).await?;
        let mut checkpoint = Checkpoint::open(self.context).await?;
        checkpoint.bump_run_counter();
        let (catalogue, plan) = self.read_and_decide(budget, &checkpoint.state).await?;
        checkpoint.forget_refusals_except(&plan, &catalogue);
        self.write(budget, lease, &catalogue, &plan, &mut checkpoint).await
    }

    async fn plan_only(&mut self, budget: &Budget) -> Result<()> {
        let mut checkpoint = Checkpoint::open(self.context).await?;
        checkpoint.bump_run_counter();
        // A refused plan is shown too: its reader wants to see what it would have deleted.
        self.read_and_decide(budget, &checkpoint.state).await.map(drop)
    }

    /// Reading back calls the target, so it takes its turn under the lease like a sync; it keeps nothing else.
    async fn verify(&mut self, budget: &Budget) -> Result<()> {
        self.under_lease(budget, async |run, budget, lease| run.verify_under_lease(budget, lease).await).await
    }

    async fn verify_under_lease(&mut self, budget: &Budget, lease: &Lease) -> Result<()> {
        let context = self.context;
        self.remember_limits(lease).await?;
        // Refused by name if it is not ours: then the target is not ours to compare with either.
        Checkpoint::open(context).await?;
        let catalogue = self.read(budget, None).await?;
        let plan = Plan::new(context.rows, &catalogue, &State::default(), OnDelete::Ignore);
        let watch = self.watch;
        let theirs = context
            .target
            .reserving_in(lease)
            .read_back(budget, |read| watch(Progress::ReadingBack(read)))
            .await?;
        verify::compare(context, &catalogue, &plan, theirs, &mut self.tally);
        self.tally.rejected.extend(catalogue.rejected);
        self.tally.rejected.extend(plan.rejected);
        Ok(())
    }

    async fn take_lease(&self) -> Result<Lease> {
        let RunContext { store, connection, clock, .. } = *self.context;
        Lease::take(store, connection, &self.run_id, clock).await
    }

    /// Tells the target's pace what earlier runs used. While the target wants silence not even a login is sent.
    async fn remember_limits(&self, lease: &Lease) -> Result<()> {
        let (calls_ms, blocked_until_ms) = lease.limits().await;
        self.context.target.restore_calls(&calls_ms);
        let wait = blocked_until_ms.map(|until_ms| self.context.clock.until_ms(until_ms));
        match wait.filter(|wait| !wait.is_zero()) {
            // A time that is more than an hour away is a clock that was set back.
            Some(wait)
                if wait <= crate::net::retry::RETRY_AFTER_CAP && !Mutant::CallDuringLockout.is_active() =>
            {
                let message = format!(
                    "target asked for no calls until {} s from now (an earlier run was throttled)",
                    wait.as_secs() + 1
                );
                Err(Error::new(ErrorKind::Throttled(Side::Target), message).resume_after(wait))
            }
            _ => Ok(()),
        }
    }

    async fn give_lease_back<T>(&self, lease: &Lease, done: &Result<T>) {
        let calls_ms = self.context.target.release_reservations();
        let wait = match done {
            Err(error) if error.kind == ErrorKind::Throttled(Side::Target) => error.resume_after,
            _ => None,
        };
        // Of several calls under way one may have been told to be silent, and another one ended the run.
        let wait = wait.unwrap_or_default().max(self.context.target.blocked_for());
        let blocked_until_ms =
            (!wait.is_zero()).then(|| self.context.clock.now_ms().saturating_add(millis(wait)));
        lease.release(calls_ms, blocked_until_ms).await;
    }

    /// Reads and plans. A plan that takes something away is believed only if the catalogue stood still meanwhile: a
    /// row deleted and another created between two pages leave the total as it was, and hide a third one.
    async fn read_and_decide(&mut self, budget: &Budget, state: &State) -> Result<(Catalogue, Plan)> {
        let context = self.context;
        for attempt in 1..=okki::MAX_READS {
            // Only the first read may go by the cache: a doubt is settled by reading everything.
            let cache = if attempt == 1 { self.load_cache().await } else { None };
            let since_ms = cache.as_ref().map(|cache| cache.full_read_at_ms);
            let catalogue = self.read(budget, cache).await?;
            let plan = self.decide(&catalogue, state)?;
            let takes_away = plan.counts.update + plan.counts.delete > 0;
            let keeps = self.request.mode == Mode::Sync && context.full_read_every.is_some();
            let grew = match takes_away || keeps {
                true => context.okki.grew_since(budget, &catalogue).await?,
                false => None,
            };
            if !takes_away || grew != Some(true) {
                (self.watch)(Progress::Planned(plan.counts.clone()));
                // What may lack a row would go on lacking it, since later reads only add what changed.
                if keeps && grew == Some(false) {
                    self.save_cache(&catalogue, since_ms).await;
                }
                return Ok((catalogue, plan));
            }
            let why = "products were created while the pages were read".to_owned();
            tracing::warn!(attempt, %why, "the pages may not agree, reading again");
            (self.watch)(Progress::ReadingAgain { attempt: attempt + 1, why });
            // The source's clock counts seconds: what was created in the one in which a read began would always look new.
            budget.sleep(Side::Source, Duration::from_millis(1_100)).await?;
        }
        Err(Error::new(
            ErrorKind::InconsistentSource,
            format!(
                "source: products were created during each of {} reads, and the plan takes rows away; nothing was written; run again when no import is going on",
                okki::MAX_READS
            ),
        ))
    }

    /// The products of an earlier read, where going by them is wanted and possible.
    async fn load_cache(&self) -> Option<Cache> {
        let context = self.context;
        let every = context.full_read_every.filter(|_| !self.request.full && context.rows.uses_products())?;
        let (bytes, _) = match context.store.load(&okki::cache::path(context.connection)).await {
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

    /// Keeps the products for the next read. It is only a shortcut: a store that fails here spoils nothing.
    async fn save_cache(&self, catalogue: &Catalogue, since_ms: Option<u64>) {
        let context = self.context;
        let (Some(cursor), Some(_)) = (&catalogue.cursor, context.full_read_every) else { return };
        if !context.rows.uses_products() || !catalogue.worth_keeping {
            return;
        }
        let now_ms = context.clock.now_ms();
        let full_read_at_ms = since_ms.filter(|_| !catalogue.full_read).unwrap_or(now_ms);
        let key = context.okki.cache_key(context.rows);
        let pieces = okki::cache::to_pieces(&key, cursor, full_read_at_ms, catalogue);
        let pieces = PutPayload::from_iter(pieces);
        if let Err(error) = context.store.put(&okki::cache::path(context.connection), pieces).await {
            tracing::warn!(error = %error.line(), "the cache of products cannot be kept; the next run reads all of them");
        }
    }

    async fn read(&mut self, budget: &Budget, cache: Option<Cache>) -> Result<Catalogue> {
        let started = Instant::now();
        let context = self.context;
        let catalogue = context.okki.read(budget, context.rows, cache, self.watch).await;
        let source = &mut self.tally.source;
        let (requests, retries, throttled) = context.okki.take_counters();
        source.requests += requests;
        source.retries += retries;
        source.throttled += throttled;
        let catalogue = catalogue?;
        source.full_read = catalogue.full_read;
        source.groups = catalogue.groups.len() as u64;
        source.products = catalogue.product_count() as u64;
        tracing::info!(
            step = "fetched",
            groups = source.groups,
            products = source.products,
            deleted_at_source = catalogue.deleted_products,
            full_read = catalogue.full_read,
            fresh = catalogue.fresh_products,
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
            duration_ms = millis(catalogue.cleaned_in),
            "cleaned"
        );
        Ok(catalogue)
    }

    /// Plans, checks the guard, and leaves plan and quarantine in the tally.
    fn decide(&mut self, catalogue: &Catalogue, state: &State) -> Result<Plan> {
        let started = Instant::now();
        let (context, tally) = (self.context, &mut self.tally);
        let mut plan = Plan::new(context.rows, catalogue, state, context.on_delete);
        tally.plan = plan.counts.clone();
        tally.rejected.clone_from(&catalogue.rejected);
        tally.rejected.append(&mut plan.rejected);
        if self.request.mode == Mode::Plan {
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
            max_delete_ratio: context.max_delete_ratio,
            lifted: self.request.allow_mass_delete,
        };
        plan.check(state, &SourceSummary::of(catalogue, context.rows), guard)?;
        Ok(plan)
    }

    async fn write(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        catalogue: &Catalogue,
        plan: &Plan,
        checkpoint: &mut Checkpoint,
    ) -> Result<()> {
        let started = Instant::now();
        checkpoint.record_intent(self.context, plan, catalogue).await?;
        let writing = self.write_batches(budget, lease, catalogue, plan, checkpoint).await;
        if writing.is_ok() {
            checkpoint.complete(self.tally.source.products);
        }
        // What was acknowledged is saved whatever ended the writing.
        let saved = checkpoint.save(self.context).await;
        tracing::info!(
            step = "written",
            written = self.tally.written,
            deleted = self.tally.deleted,
            batches = self.tally.batches,
            duration_ms = millis(started.elapsed()),
            "written"
        );
        saved.and(writing)
    }

    async fn write_batches(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        catalogue: &Catalogue,
        plan: &Plan,
        checkpoint: &mut Checkpoint,
    ) -> Result<()> {
        let context = self.context;
        // Rows of groups go one batch after the other: a parent stands before its children.
        let most = if context.rows.per_product() { context.max_concurrency } else { 1 };
        let mut under_way = InFlight::new(context.target.reserving_in(lease), budget, most);
        let sent = self.send_batches(&mut under_way, catalogue, plan, checkpoint).await;
        if let Err(error) = sent {
            under_way.end_with(error);
        }
        while let Some(done) = under_way.next().await {
            self.completed(&mut under_way, done, plan, checkpoint).await;
        }
        under_way.into_end()
    }

    async fn send_batches(
        &mut self,
        under_way: &mut InFlight<'_>,
        catalogue: &Catalogue,
        plan: &Plan,
        checkpoint: &mut Checkpoint,
    ) -> Result<()> {
        let context = self.context;
        let renderer = Renderer::new(context.rows, catalogue);
        let mut builder =
            Builder::new(context.target.wrap(), context.max_rows_per_batch, context.max_bytes_per_batch);
        for change in plan.pending(catalogue) {
            let kind = match change.action {
                Action::Delete => EntryKind::Tombstone,
                _ => EntryKind::Row,
            };
            let write = |out: &mut Vec<u8>| render(context.rows, &renderer, change, out);
            match builder.push(change.id.into(), kind, write) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    if !self.send(under_way, batch, plan, checkpoint).await? {
                        return Ok(());
                    }
                }
                Err(reason) => self.leave_out(catalogue, change, reason),
            }
        }
        match builder.finish() {
            Some(batch) => self.send(under_way, batch, plan, checkpoint).await.map(drop),
            None => Ok(()),
        }
    }

    /// A row that fits the plan and cannot be written after all: it is reported, and the other rows go on.
    fn leave_out(&mut self, catalogue: &Catalogue, change: Change<'_>, reason: String) {
        tracing::warn!(id = change.id, %reason, "a row of the plan cannot be written; it is left out");
        self.tally.refused += 1;
        self.tally.rejected.push(plan::rejected(change.origin, change.id, reason, catalogue));
    }

    /// Begins a batch once there is room for it; false if one before it has ended the writing.
    async fn send(
        &mut self,
        under_way: &mut InFlight<'_>,
        batch: Batch,
        plan: &Plan,
        checkpoint: &mut Checkpoint,
    ) -> Result<bool> {
        while under_way.is_full() {
            let Some(done) = under_way.next().await else { break };
            self.completed(under_way, done, plan, checkpoint).await;
        }
        if under_way.has_ended() {
            return Ok(false);
        }
        under_way.begin(batch, self.slowest_batch)?;
        // Lets the call go out before the next batch is rendered.
        tokio::task::yield_now().await;
        Ok(true)
    }

    async fn completed(
        &mut self,
        under_way: &mut InFlight<'_>,
        done: Done,
        plan: &Plan,
        checkpoint: &mut Checkpoint,
    ) {
        self.slowest_batch = self.slowest_batch.max(done.took);
        checkpoint.acknowledge(done.written, &mut self.tally);
        let acknowledged = self.tally.written + self.tally.deleted;
        (self.watch)(Progress::Writing { acknowledged, planned: plan.pending_count() });
        if let Err(error) = under_way.while_draining(checkpoint.save_if_due(self.context)).await {
            under_way.end_with(error);
        }
    }
}

/// Writes a row. An error says why it does not fit; what was written until then is of no use.
fn render(
    rows: &RowMap,
    renderer: &Renderer<'_>,
    change: Change<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match change.origin {
        RowRef::Group(group) => renderer.group(group, out).map(drop).map_err(|misfit| misfit.reason),
        RowRef::Product(group, product) => {
            renderer.product(group, product, out).map_err(|misfit| misfit.reason)
        }
        RowRef::Gone => {
            rows.write_tombstone(change.id, out);
            Ok(())
        }
    }
}
