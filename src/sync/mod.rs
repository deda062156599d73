//! The story of a run: load → read → plan → write → save.
//!
//! A run compares everything that the source holds with what the target has acknowledged, sends the difference, and
//! remembers only what was acknowledged. A crash, a timeout, a duplicate event or a lockout therefore needs no repair:
//! the next run finds what is left. Each race is named where it is met: of two runs of one connection in
//! [`under_lease`] and `store/lease.rs`, of a source that people edit in [`read`], of a kill between a batch and its
//! answer in [`checkpoint`], of batches that end each other in [`in_flight`].
//!
//! Deliberately absent: a queue of changes, a log of events, a resume point inside of the plan. The plan is cheap to make
//! again, and one that is made again is never out of date. Only the two long reads, of the source and of the target, go
//! on in the next run where one ends.

mod archive;
pub(crate) mod ask;
mod checkpoint;
mod former;
mod history;
mod in_flight;
mod ledger;
pub(crate) mod preview;
pub(crate) mod quarantine;
mod queue;
mod read;
mod rebuild;
mod recorder;
mod row;
mod show;
mod under_lease;
mod undo;
mod verify;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Budget;
use crate::catalogue::Rejected;
pub use crate::changes::RowChange;
#[cfg(any(feature = "cli", feature = "testing"))]
pub use crate::changes::{ChangeAction, FieldChange, Json};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::okki::Okki;
pub(crate) use crate::plan::DiffLine;
pub use crate::plan::Digest;
pub(crate) use crate::plan::NoDigest;
use crate::plan::OnDelete;
pub(crate) use crate::report::Watch;
use crate::report::{Mode, PlanCounts, Report, SourceCounts};
use crate::state::Dismissed;
use crate::store::Store;
use crate::store::lease::Lease;
use crate::store::limits::AccountLimits;
use crate::targets::Target;
use crate::transform::{Former, RowMap};
use crate::words::say;
#[cfg(feature = "cli")]
pub(crate) use crate::{plan::DiffKind, report::Progress};
use archive::RunStart;
use checkpoint::Checkpoint;
use ledger::Contents;
use read::Decided;
pub(crate) use rebuild::rebuild;
pub use rebuild::{Extras, Rebuilt};
use recorder::Recorded;
#[cfg(feature = "cli")]
pub(crate) use row::HistoryEntry;
pub use row::RowStory;
pub(crate) use row::row;
#[cfg(all(test, feature = "cli"))]
pub(crate) use row::{RowPlan, RowQuarantine};
#[cfg(any(feature = "cli", feature = "testing"))]
pub use undo::LeftOut;
pub(crate) use undo::undo;
pub use undo::{UndoRequest, Undone};

/// What a run is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// sync, plan or verify.
    pub mode: Mode,
    /// Read all products, whatever the cache holds.
    pub full: bool,
    /// Lift the delete guard (and the empty-source guard) for this run.
    pub allow_mass_delete: bool,
    /// When the run must have ended.
    pub deadline: Option<Instant>,
    /// The rows that are sent, whether they changed or not; empty: those that changed.
    pub only: Only,
    /// The plan that was approved: lifts the delete guard for it, and refuses any other.
    pub approve: Option<Digest>,
    /// Of a plan: compare with what the target holds, in the place of what it has acknowledged.
    pub from_target: bool,
    /// Rows whose changed fields are shown, at most.
    pub changes: usize,
}

/// Rows that a person names, to be sent again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// Rows at the target by their ids; a product that is an item stands for the row of its group.
    pub ids: Vec<String>,
    /// Groups: their rows, or where products are rows those of their products.
    pub groups: Vec<String>,
}

impl Only {
    /// Whether nobody named a row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.groups.is_empty()
    }
}

/// Rows whose changed fields are shown, unless somebody asks for more.
pub(crate) const CHANGES: usize = 1_000;

impl RunRequest {
    /// A run with its guards on and without a deadline.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            full: false,
            allow_mass_delete: false,
            deadline: None,
            only: Only::default(),
            approve: None,
            from_target: false,
            changes: CHANGES,
        }
    }
}

/// How a run ended, with what people want to see.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The run's report.
    pub report: Report,
    /// What stopped it, if it failed or paused.
    pub error: Option<Error>,
    /// The plan or the comparison (empty in sync mode).
    pub lines: Vec<DiffLine>,
    /// Rows in the quarantine (their reasons are shown to people).
    pub rejected: Vec<Rejected>,
    /// The first rows that changed, or would, with their fields.
    pub changes: Vec<RowChange>,
    /// How many more there are.
    pub more_changes: u64,
}

/// A row is shown or compared as the source has it, whatever the target has acknowledged.
const NO_FORMER: Option<&dyn Former> = None;

/// Everything that a run works with.
pub(crate) struct RunContext<'a> {
    pub connection: &'a str,
    pub okki: &'a Okki,
    pub target: &'a Target,
    /// Where state, report and quarantine are kept.
    pub store: &'a Store,
    /// The limits of the target's account.
    pub limits: &'a Arc<AccountLimits>,
    pub rows: &'a RowMap,
    /// The clock that both sides and the store are measured by.
    pub clock: Clock,
    /// What the pipeline file says about the run itself.
    pub settings: RunSettings,
}

/// What the pipeline file says about a run, as plain values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunSettings {
    /// What happens to rows that the source no longer has.
    pub on_delete: OnDelete,
    /// The share of rows that a plan may delete.
    pub max_delete_ratio: f64,
    /// The share of rows that value guards may hold back.
    pub max_held_ratio: f64,
    /// `Some`: read only the products that changed, and all of them this often. `None`: all of them each time.
    pub full_read_every: Option<Duration>,
    /// Rows per batch, at most.
    pub max_rows_per_batch: usize,
    /// Bytes per batch, at most.
    pub max_bytes_per_batch: usize,
    /// Batches in flight at a time, at most.
    pub max_concurrency: usize,
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
    /// Products that the read has not come to, if it is not complete.
    unread: u64,
    /// Whether the read had no time to compare the source's total.
    is_uncompared: bool,
    /// Rows of the plan that the target refused, or that could not be written.
    refused: u64,
    rejected: Vec<Rejected>,
    lines: Vec<DiffLine>,
    /// The ids that a person named.
    only: Vec<String>,
    /// Rows that somebody has silenced.
    dismissed: BTreeSet<Dismissed>,
    /// What the run changed, or would.
    recorded: Recorded,
    /// Names the pending rows.
    digest: Option<Digest>,
}

/// One run, from the request to the report. It never fails as a function: the outcome says what went wrong.
pub(crate) async fn run(
    context: &RunContext<'_>,
    request: &RunRequest,
    budget: &Budget,
    watch: &Watch,
) -> Outcome {
    let mut run = Run::begin(context, watch);
    run.tally.only = request.only.ids.iter().chain(&request.only.groups).cloned().collect();
    let (budget, waits) = budget.with_waits();
    let work = async {
        match request.mode {
            Mode::Sync => run.sync(&budget, request).await,
            Mode::Plan => run.plan_only(&budget, request).await,
            Mode::Verify => run.verify(&budget, request.changes).await,
            Mode::Undo => {
                Err(Error::new(ErrorKind::BadEvent, say!("an undo names its run")).help("okki-sync undo RUN"))
            }
        }
    };
    let result = waits.tell(watch, work).await;
    let Run { tally, start, .. } = run;
    archive::end(context, request.mode, start, tally, result.err()).await
}

/// A run that is going on.
struct Run<'a> {
    context: &'a RunContext<'a>,
    watch: &'a Watch,
    start: RunStart,
    tally: Tally,
    /// What the target has acknowledged, where a value guard looks at it.
    former: Option<Arc<Contents>>,
    /// No batch is sent that would probably not come back in time.
    slowest_batch: Duration,
}

impl<'a> Run<'a> {
    fn begin(context: &'a RunContext<'a>, watch: &'a Watch) -> Self {
        context.okki.start_run();
        context.target.start_run();
        let start = RunStart::now(context.clock);
        Self { context, watch, start, tally: Tally::default(), former: None, slowest_batch: Duration::ZERO }
    }
}

impl Run<'_> {
    async fn sync(&mut self, budget: &Budget, request: &RunRequest) -> Result<()> {
        self.under_lease(budget, async |run, budget, lease| {
            run.sync_under_lease(budget, lease, request).await
        })
        .await
    }

    async fn sync_under_lease(&mut self, budget: &Budget, lease: &Lease, request: &RunRequest) -> Result<()> {
        self.restore_limits(lease).await?;
        let mut checkpoint = Checkpoint::load(self.context).await?;
        self.tally.dismissed.clone_from(&checkpoint.state.dismissed);
        // A run for rows that a person names leaves everything else of the state as it is.
        let is_whole = request.only.is_empty();
        if is_whole {
            checkpoint.bump_run_counter();
        }
        let Decided { catalogue, plan, refusal } =
            self.read_and_decide(budget, request, &checkpoint.state).await?;
        refusal.map_or(Ok(()), Err)?;
        if is_whole {
            checkpoint.forget_refusals_except(&plan, &catalogue);
            checkpoint.forget_dismissals_except(&self.tally.rejected);
        }

        let started = Instant::now();
        checkpoint.record_intent(&plan, &catalogue).await?;
        let written = self.write(budget, lease, (&catalogue, &plan), &mut checkpoint).await;
        if written.is_ok() && is_whole {
            checkpoint.complete(self.tally.source.products);
        }
        // The state's text is as large as the catalogue: they need not be in memory both.
        drop((catalogue, plan, self.former.take()));
        // What was acknowledged is saved, however the writing ended.
        let saved = checkpoint.save().await;
        self.log_written(started);
        saved.and(written)?;
        self.check_compared()?;
        if is_whole {
            lease.note_completed().await;
        }
        Ok(())
    }

    /// The same up to the plan. Nothing is called but the source, so it takes no lease, unless the target is asked too.
    async fn plan_only(&mut self, budget: &Budget, request: &RunRequest) -> Result<()> {
        if !request.from_target {
            return self.plan_and_show(budget, request, None).await;
        }
        self.under_lease(budget, async |run, budget, lease| {
            run.restore_limits(lease).await?;
            run.plan_and_show(budget, request, Some(lease)).await
        })
        .await
    }

    async fn plan_and_show(
        &mut self,
        budget: &Budget,
        request: &RunRequest,
        lease: Option<&Lease>,
    ) -> Result<()> {
        let mut checkpoint = Checkpoint::load(self.context).await?;
        self.tally.dismissed.clone_from(&checkpoint.state.dismissed);
        checkpoint.bump_run_counter();
        let decided = self.read_and_decide(budget, request, &checkpoint.state).await?;
        self.show_changes(request, &decided, &checkpoint.state, lease.map(|lease| (budget, lease))).await?;
        // A refused plan is shown too: its reader wants to see what it would have deleted.
        decided.refusal.map_or(Ok(()), Err)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
