//! The story of a run: load → read → transform → plan → write → save.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Budget;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::model::{Catalogue, Rejected};
use crate::okki::Okki;
pub use crate::plan::Line;
use crate::plan::{self, Action, Change, Guard, OnDelete, Origin, Plan};
use crate::report::{Mode, PlanCounts, Report, SourceCounts, Status, TargetCounts};
pub use crate::report::{Progress, Watch};
use crate::state::{Fingerprint, State};
use crate::store::{Store, Version};
use crate::target::batch::{Batch, Builder};
use crate::target::{Target, Written};
use crate::transform::{Renderer, RowMap};

/// The state is saved this often while batches go out, so that a kill costs little.
const SAVE_EVERY: Duration = Duration::from_secs(5);

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
    pub lines: Vec<Line>,
    /// Rows in the quarantine (their reasons are shown to people).
    pub rejected: Vec<crate::model::Rejected>,
}

/// Everything that a run works with.
pub struct Edges<'a> {
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
    /// Rows per batch.
    pub max_rows_per_batch: usize,
    /// Bytes per batch.
    pub max_bytes_per_batch: usize,
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
    rejected: Vec<Rejected>,
    lines: Vec<Line>,
}

/// One run, from the event to the report. It never fails as a function: what went wrong stands in the outcome.
pub async fn run(edges: &Edges<'_>, request: &Request, budget: &Budget, watch: &Watch) -> Outcome {
    let started = Instant::now();
    let run_id = run_id(edges.clock);
    let started_at = edges.clock.now();
    let mut tally = Tally::default();
    edges.okki.take_counters();
    edges.target.take_counters();
    edges.target.start_run();

    let result = match request.mode {
        Mode::Sync => sync(edges, request, budget, watch, &mut tally).await,
        Mode::Plan => plan_only(edges, request, budget, watch, &mut tally).await,
        Mode::Verify => verify(edges, budget, watch, &mut tally).await,
    };

    let mut outcome = Outcome {
        report: report(edges, request.mode, &tally, result.as_ref().err()),
        error: result.err(),
        lines: std::mem::take(&mut tally.lines),
        rejected: std::mem::take(&mut tally.rejected),
    };
    outcome.report.run_id = run_id;
    outcome.report.started_at = format!("{started_at:.3}");
    outcome.report.duration_ms = millis(started.elapsed());
    if request.mode == Mode::Sync {
        keep_records(edges, &mut outcome).await;
    }
    outcome
}

/// Names a run. Sorts by time and is unique: two runs may start in the same millisecond.
pub fn run_id(clock: Clock) -> String {
    format!("{}-{:08x}", clock.now().strftime("%Y%m%dT%H%M%S%3fZ"), fastrand::u32(..))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn sync(
    edges: &Edges<'_>,
    request: &Request,
    budget: &Budget,
    watch: &Watch,
    tally: &mut Tally,
) -> Result<()> {
    let _lock = edges.store.lock_run(edges.connection)?;
    let mut book = Book::open(edges).await?;
    book.refuse_if_blocked(edges)?;
    let catalogue = read(edges, budget, watch, tally).await?;
    let plan = decide(edges, request, &catalogue, &book.state, watch, tally)?;
    write(edges, budget, watch, &catalogue, &plan, &mut book, tally).await
}

async fn plan_only(
    edges: &Edges<'_>,
    request: &Request,
    budget: &Budget,
    watch: &Watch,
    tally: &mut Tally,
) -> Result<()> {
    let book = Book::open(edges).await?;
    let catalogue = read(edges, budget, watch, tally).await?;
    let plan = decide(edges, request, &catalogue, &book.state, watch, tally);
    // A refused plan is shown too: its reader wants to see what it would have deleted.
    plan.map(drop)
}

async fn verify(edges: &Edges<'_>, budget: &Budget, watch: &Watch, tally: &mut Tally) -> Result<()> {
    let book = Book::open(edges).await?;
    edges.target.remember_calls(&book.state.target_calls_ms).await;
    let catalogue = read(edges, budget, watch, tally).await?;
    let plan = Plan::new(edges.rows, &catalogue, &State::default(), OnDelete::Ignore);
    let theirs = edges.target.read_back(budget, |read| watch(Progress::ReadingBack(read))).await?;
    compare(edges, &catalogue, &plan, theirs, tally);
    tally.rejected.extend(catalogue.rejected);
    tally.rejected.extend(plan.rejected);
    Ok(())
}

async fn read(edges: &Edges<'_>, budget: &Budget, watch: &Watch, tally: &mut Tally) -> Result<Catalogue> {
    let started = Instant::now();
    let catalogue = edges.okki.read(budget, edges.rows, watch).await;
    let (requests, retries, throttled) = edges.okki.take_counters();
    tally.source = SourceCounts { requests, retries, throttled, full_read: true, ..SourceCounts::default() };
    let catalogue = catalogue?;
    tally.source.groups = catalogue.groups.len() as u64;
    tally.source.products = catalogue.product_count() as u64;
    tracing::info!(
        step = "fetched",
        groups = tally.source.groups,
        products = tally.source.products,
        deleted_at_source = catalogue.deleted_products,
        requests,
        retries,
        throttled,
        duration_ms = millis(started.elapsed()),
        "fetched"
    );
    tracing::info!(
        step = "cleaned",
        groups = tally.source.groups,
        products = tally.source.products,
        quarantined = catalogue.rejected.len(),
        duration_ms = millis(catalogue.cleaned_in),
        "cleaned"
    );
    Ok(catalogue)
}

/// Plans, checks the guard, and leaves plan and quarantine in the tally.
fn decide(
    edges: &Edges<'_>,
    request: &Request,
    catalogue: &Catalogue,
    state: &State,
    watch: &Watch,
    tally: &mut Tally,
) -> Result<Plan> {
    let started = Instant::now();
    let mut plan = Plan::new(edges.rows, catalogue, state, edges.on_delete);
    tally.plan = plan.counts.clone();
    tally.rejected.extend(catalogue.rejected.iter().cloned());
    tally.rejected.append(&mut plan.rejected);
    if request.mode == Mode::Plan {
        tally.lines = plan.lines(edges.rows, catalogue);
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
    let source_is_empty = catalogue.groups.is_empty() && catalogue.rejected.is_empty();
    let guard = Guard { max_delete_ratio: edges.max_delete_ratio, lifted: request.allow_mass_delete };
    plan.check(state, source_is_empty, guard)?;
    watch(Progress::Planned(plan.counts.clone()));
    Ok(plan)
}

async fn write(
    edges: &Edges<'_>,
    budget: &Budget,
    watch: &Watch,
    catalogue: &Catalogue,
    plan: &Plan,
    book: &mut Book,
    tally: &mut Tally,
) -> Result<()> {
    let started = Instant::now();
    edges.target.remember_calls(&book.state.target_calls_ms).await;
    book.announce(edges, plan).await?;
    let writing = write_batches(edges, budget, watch, catalogue, plan, book, tally).await;
    if let Err(error) = &writing
        && let (Kind::Throttled(_), Some(wait)) = (error.kind, error.resume_after)
    {
        book.state.target_blocked_until_ms = Some(edges.clock.now_ms() + millis(wait));
        book.dirty = true;
    }
    // What was acknowledged is saved whatever ended the writing.
    let saved = book.save(edges).await;
    tracing::info!(
        step = "written",
        written = tally.written,
        deleted = tally.deleted,
        batches = tally.batches,
        duration_ms = millis(started.elapsed()),
        "written"
    );
    saved.and(writing)
}

async fn write_batches(
    edges: &Edges<'_>,
    budget: &Budget,
    watch: &Watch,
    catalogue: &Catalogue,
    plan: &Plan,
    book: &mut Book,
    tally: &mut Tally,
) -> Result<()> {
    let renderer = Renderer::new(edges.rows, catalogue);
    let mut builder = Builder::new(edges.target.wrap(), edges.max_rows_per_batch, edges.max_bytes_per_batch);
    let mut batches = 0;
    for change in plan.pending() {
        let fingerprint = (change.action != Action::Delete).then_some(change.fingerprint);
        let full =
            builder.push(change.id.clone(), fingerprint, |out| render(edges.rows, &renderer, change, out));
        if let Some(batch) = full {
            send(edges, budget, watch, batch, plan, book, tally).await?;
            batches += 1;
        }
    }
    if let Some(batch) = builder.finish() {
        send(edges, budget, watch, batch, plan, book, tally).await?;
        batches += 1;
    }
    tracing::debug!(batches, "all batches sent");
    Ok(())
}

fn render(rows: &RowMap, renderer: &Renderer<'_>, change: &Change, out: &mut Vec<u8>) {
    // Rows that do not fit were left out of the plan, so writing them again cannot fail.
    match change.origin {
        Origin::Group(group) => drop(renderer.group(group, out)),
        Origin::Product(group, product) => drop(renderer.product(group, product, out)),
        Origin::Gone => rows.write_tombstone(&change.id, out),
    }
}

async fn send(
    edges: &Edges<'_>,
    budget: &Budget,
    watch: &Watch,
    batch: Batch,
    plan: &Plan,
    book: &mut Book,
    tally: &mut Tally,
) -> Result<()> {
    if budget.is_over() {
        return Err(Error::new(
            Kind::Interrupted,
            "the run's time is over or it was asked to stop; what remains is for the next run",
        ));
    }
    let mut written = Written::default();
    let sent = edges.target.write(budget, batch, &mut written).await;
    book.acknowledge(written, tally);
    watch(Progress::Writing { acknowledged: tally.written + tally.deleted, planned: plan.pending_count() });
    book.save_if_due(edges).await?;
    sent
}

/// The state with its version: loaded at the start, saved with what was acknowledged.
struct Book {
    state: State,
    version: Option<Version>,
    dirty: bool,
    saved_at: Instant,
}

impl Book {
    async fn open(edges: &Edges<'_>) -> Result<Self> {
        let loaded = edges.store.load(&crate::state::path(edges.connection)).await?;
        let (state, version) = match loaded {
            Some((bytes, version)) => {
                (State::from_bytes(&bytes, edges.connection, &edges.target.identity())?, Some(version))
            }
            None => (State::default(), None),
        };
        Ok(Self { state, version, dirty: false, saved_at: Instant::now() })
    }

    /// The target asked for silence until a time that has not come: not even a login is sent.
    fn refuse_if_blocked(&self, edges: &Edges<'_>) -> Result<()> {
        let wait = self.state.target_blocked_until_ms.map(|until_ms| edges.clock.until_ms(until_ms));
        match wait.filter(|wait| !wait.is_zero()) {
            // A time that is more than an hour away is a clock that was set back.
            Some(wait) if wait <= crate::retry::RETRY_AFTER_CAP => {
                let message = format!(
                    "target asked for no calls until {} s from now (an earlier run was throttled)",
                    wait.as_secs() + 1
                );
                Err(Error::new(Kind::Throttled(crate::error::Side::Target), message).resume_after(wait))
            }
            _ => Ok(()),
        }
    }

    /// Notes the rows that are new to the target before the first of them is sent.
    async fn announce(&mut self, edges: &Edges<'_>, plan: &Plan) -> Result<()> {
        for change in plan.pending().filter(|change| change.action == Action::Create) {
            if let Entry::Vacant(row) = self.state.rows.entry(change.id.clone()) {
                row.insert(Fingerprint::UNKNOWN);
                self.dirty = true;
            }
        }
        if self.dirty { self.save(edges).await } else { Ok(()) }
    }

    fn acknowledge(&mut self, written: Written, tally: &mut Tally) {
        self.dirty |= !written.acknowledged.is_empty();
        tally.batches += written.batches;
        for entry in written.acknowledged {
            match entry.fingerprint {
                Some(fingerprint) => {
                    self.state.rows.insert(entry.id, fingerprint);
                    tally.written += 1;
                }
                None => {
                    self.state.rows.remove(&entry.id);
                    tally.deleted += 1;
                }
            }
        }
        tally.rejected.extend(written.rejected);
    }

    async fn save_if_due(&mut self, edges: &Edges<'_>) -> Result<()> {
        if self.saved_at.elapsed() < SAVE_EVERY { Ok(()) } else { self.save(edges).await }
    }

    async fn save(&mut self, edges: &Edges<'_>) -> Result<()> {
        let calls_ms = edges.target.calls_ms().await;
        if !self.dirty && calls_ms == self.state.target_calls_ms {
            return Ok(());
        }
        self.state.target_calls_ms = calls_ms;
        if self.state.target_blocked_until_ms.is_some_and(|until_ms| until_ms <= edges.clock.now_ms()) {
            self.state.target_blocked_until_ms = None;
        }
        let bytes = Bytes::from(self.state.to_text(edges.connection, &edges.target.identity()));
        let path = crate::state::path(edges.connection);
        self.version = Some(edges.store.save_if_unchanged(&path, bytes, self.version.as_ref()).await?);
        self.dirty = false;
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// Compares what the source says with what the target holds.
fn compare(
    edges: &Edges<'_>,
    catalogue: &Catalogue,
    plan: &Plan,
    mut theirs: HashMap<String, Value>,
    tally: &mut Tally,
) {
    let renderer = Renderer::new(edges.rows, catalogue);
    let mut row = Vec::new();
    for change in &plan.changes {
        row.clear();
        render(edges.rows, &renderer, change, &mut row);
        let (mark, why, count) = match theirs.remove(change.id.as_str()) {
            None => ('+', "missing at the target", &mut tally.plan.create),
            Some(their) if crate::target::holds(&their, &row) => ('=', "", &mut tally.plan.unchanged),
            Some(_) => ('*', "differs", &mut tally.plan.update),
        };
        *count += 1;
        let (name, depth) = plan::describe(change.origin, catalogue);
        tally.lines.push(Line { depth, mark, name, id: change.id.to_string(), why });
    }
    // Quarantined rows exist at the source: the target's row of that id is neither extra nor comparable.
    for held in &catalogue.held {
        if theirs.remove(held.as_str()).is_some() {
            tally.lines.push(Line {
                depth: 0,
                mark: '!',
                name: String::new(),
                id: held.to_string(),
                why: "in the quarantine, cannot be compared",
            });
        }
    }
    // With on_delete = "ignore" rows that the source no longer has stay at the target on purpose.
    if edges.on_delete == OnDelete::Tombstone {
        let mut extra: Vec<String> = theirs.into_keys().collect();
        extra.sort_unstable_by(|a, b| crate::model::id_order(a, b));
        tally.plan.delete = extra.len() as u64;
        tally.lines.extend(extra.into_iter().map(|id| Line {
            depth: 0,
            mark: '-',
            name: String::new(),
            id,
            why: "extra at the target",
        }));
    }
    tally.differences = tally.plan.create + tally.plan.update + tally.plan.delete;
}

fn report(edges: &Edges<'_>, mode: Mode, tally: &Tally, error: Option<&Error>) -> Report {
    let (requests, retries, throttled) = edges.target.take_counters();
    let (more_requests, more_retries, more_throttled) = edges.okki.take_counters();
    let mut source = tally.source.clone();
    source.requests += more_requests;
    source.retries += more_retries;
    source.throttled += more_throttled;
    let refused =
        tally.rejected.iter().filter(|rejected| rejected.kind == crate::model::RowKind::Record).count()
            as u64;
    let planned = tally.plan.create + tally.plan.update + tally.plan.delete;
    let remaining = match mode {
        Mode::Sync => planned.saturating_sub(tally.written + tally.deleted + refused),
        Mode::Plan => 0,
        Mode::Verify => tally.differences,
    };
    let quarantined = tally.rejected.len() as u64;
    let status = match error.map(|error| error.kind) {
        Some(Kind::Interrupted | Kind::Throttled(_)) => Status::Paused,
        Some(_) => Status::Failed,
        None if quarantined > 0 || tally.differences > 0 => Status::Partial,
        None => Status::Succeeded,
    };
    Report {
        run_id: String::new(),
        connection: edges.connection.to_owned(),
        mode,
        status,
        started_at: String::new(),
        duration_ms: 0,
        source,
        plan: tally.plan.clone(),
        target: TargetCounts {
            written: tally.written,
            deleted: tally.deleted,
            batches: tally.batches,
            requests,
            retries,
            throttled,
        },
        quarantined,
        // A run that paused before it had a plan has at least one thing to do: the run itself.
        remaining: if status == Status::Paused { remaining.max(1) } else { remaining },
        resume_after_seconds: error
            .and_then(|error| error.resume_after)
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        error: error.map(Error::line),
    }
}

/// Report and quarantine go into the store. The run is over by then: a store that fails now spoils no data, but is said.
async fn keep_records(edges: &Edges<'_>, outcome: &mut Outcome) {
    let kept = store_records(edges, outcome).await;
    let Err(error) = kept else { return };
    tracing::error!(error = %error.line(), "report and quarantine could not be kept");
    if outcome.error.is_none() {
        outcome.report.status = Status::Failed;
        outcome.report.error = Some(error.line());
        outcome.error = Some(error);
    }
}

async fn store_records(edges: &Edges<'_>, outcome: &Outcome) -> Result<()> {
    let (connection, run_id) = (edges.connection, &outcome.report.run_id);
    if !outcome.rejected.is_empty() {
        let lines: Vec<String> =
            outcome.rejected.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
        edges.store.put(&format!("quarantine/{connection}/{run_id}.jsonl"), lines.join("\n") + "\n").await?;
    }
    let report = serde_json::to_vec_pretty(&outcome.report).unwrap_or_default();
    edges.store.put(&format!("reports/{connection}/{run_id}.json"), report).await
}
