//! What a run leaves behind: its report and its quarantine.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::recorder::Recorded;
use super::{Outcome, RunContext, Tally, millis};
use crate::catalogue::Rejected;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::timeline::timeline;
use crate::report::{Mode, PlanCounts, Report, SourceCounts, Status, TargetCounts};
use crate::state::Dismissed;
use crate::store::paths;

/// The name of a run, and when it began.
pub(super) struct RunStart {
    pub run_id: String,
    at: Timestamp,
    started: Instant,
}

impl RunStart {
    pub(super) fn now(clock: Clock) -> Self {
        Self { run_id: run_id(clock), at: clock.now(), started: Instant::now() }
    }
}

/// Sorts by time and is unique: two runs may start in the same millisecond.
pub(super) fn run_id(clock: Clock) -> String {
    format!("{}-{:08x}", clock.now().strftime("%Y%m%dT%H%M%S%3fZ"), fastrand::u32(..))
}

impl Outcome {
    /// The outcome of a run that failed before it could begin.
    pub(crate) fn not_begun(
        connection: &str,
        mode: Mode,
        clock: Clock,
        waited: Duration,
        error: Error,
    ) -> Self {
        let report = Report {
            run_id: run_id(clock),
            connection: connection.to_owned(),
            mode,
            status: Status::Failed,
            started_at: format!("{:.3}", clock.now()),
            duration_ms: millis(waited),
            source: SourceCounts::default(),
            plan: PlanCounts::default(),
            target: TargetCounts::default(),
            quarantined: 0,
            quarantined_by_kind: BTreeMap::new(),
            dismissed: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: Some(error.line()),
            only: Vec::new(),
            digest: None,
            changes: None,
            more_changes: None,
            timeline: None,
        };
        Self {
            report,
            error: Some(error),
            lines: Vec::new(),
            rejected: Vec::new(),
            changes: Vec::new(),
            more_changes: 0,
        }
    }
}

/// Ends a run: makes its report and, after a sync, keeps report and quarantine in the store.
pub(super) async fn end(
    context: &RunContext<'_>,
    mode: Mode,
    start: RunStart,
    mut tally: Tally,
    error: Option<Error>,
) -> Outcome {
    mark_dismissed(&mut tally);
    let changes = tally.recorded.file.take();
    let report = report(context, mode, start, &tally, error.as_ref());
    let Recorded { shown, more, .. } = tally.recorded;
    let mut outcome = Outcome {
        report,
        error,
        lines: tally.lines,
        rejected: tally.rejected,
        changes: shown,
        more_changes: more,
    };
    if matches!(mode, Mode::Sync | Mode::Undo) {
        save(context, &mut outcome, changes).await;
    }
    outcome
}

fn report(
    context: &RunContext<'_>,
    mode: Mode,
    start: RunStart,
    tally: &Tally,
    error: Option<&Error>,
) -> Report {
    let (requests, retries, throttled) = context.target.counters().take();
    let (more_requests, more_retries, more_throttled) = context.okki.counters().take();
    let mut source = tally.source.clone();
    source.requests += more_requests;
    source.retries += more_retries;
    source.throttled += more_throttled;
    let planned = tally.plan.create + tally.plan.update + tally.plan.delete;
    let remaining = match mode {
        Mode::Sync | Mode::Undo => planned.saturating_sub(tally.written + tally.deleted + tally.refused),
        Mode::Plan => 0,
        Mode::Verify => tally.differences,
    };
    let (dismissed, counted): (Vec<&Rejected>, Vec<&Rejected>) =
        tally.rejected.iter().partition(|row| row.dismissed);
    let quarantined = counted.len() as u64;
    let status = match error.map(|error| error.kind) {
        Some(ErrorKind::Interrupted | ErrorKind::Throttled(_)) => Status::Paused,
        Some(_) => Status::Failed,
        None if quarantined > 0 || tally.differences > 0 => Status::Partial,
        None => Status::Succeeded,
    };
    Report {
        run_id: start.run_id,
        connection: context.connection.to_owned(),
        mode,
        status,
        started_at: format!("{:.3}", start.at),
        duration_ms: millis(start.started.elapsed()),
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
        quarantined_by_kind: by_kind(&counted),
        dismissed: dismissed.len() as u64,
        // A run that paused before it had a plan has at least one thing to do: the run itself.
        remaining: if status == Status::Paused { remaining.max(tally.unread).max(1) } else { remaining },
        resume_after_seconds: error
            .and_then(|error| error.resume_after)
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        error: error.map(Error::line),
        only: tally.only.clone(),
        digest: tally.digest.as_ref().map(ToString::to_string),
        // A sync's are in its file.
        changes: matches!(mode, Mode::Plan | Mode::Verify).then(|| tally.recorded.shown.clone()),
        more_changes: Some(tally.recorded.more)
            .filter(|more| matches!(mode, Mode::Plan | Mode::Verify) && *more > 0),
        timeline: matches!(mode, Mode::Sync | Mode::Undo)
            .then(|| timeline(context.okki.counters().times(), context.target.counters().times()))
            .flatten(),
    }
}

/// Rows that somebody has dismissed, as they are, do not count.
fn mark_dismissed(tally: &mut Tally) {
    if tally.dismissed.is_empty() {
        return;
    }
    for row in &mut tally.rejected {
        row.dismissed = tally.dismissed.contains(&Dismissed::of(row));
    }
}

fn by_kind(rejected: &[&Rejected]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for row in rejected {
        *counts.entry(row.reason_kind.as_str().to_owned()).or_default() += 1;
    }
    counts
}

/// The data is safe by now, so a store that fails here loses only the report. The run still ends as failed: somebody
/// should know.
async fn save(context: &RunContext<'_>, outcome: &mut Outcome, changes: Option<Vec<u8>>) {
    let Err(error) = put(context, outcome, changes).await else { return };
    tracing::error!(error = %error.line(), "report, changes and quarantine could not be kept");
    if outcome.error.is_none() {
        outcome.report.status = Status::Failed;
        outcome.report.error = Some(error.line());
        outcome.error = Some(error);
    }
}

async fn put(context: &RunContext<'_>, outcome: &Outcome, changes: Option<Vec<u8>>) -> Result<()> {
    let (connection, run_id) = (context.connection, &outcome.report.run_id);
    if let Some(changes) = changes {
        context.store.put(&paths::changes(connection, run_id), changes).await?;
    }
    if !outcome.rejected.is_empty() {
        let lines: Vec<String> =
            outcome.rejected.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
        context.store.put(&paths::quarantine(connection, run_id), lines.join("\n") + "\n").await?;
    }
    let report = serde_json::to_vec_pretty(&outcome.report).unwrap_or_default();
    context.store.put(&paths::report(connection, run_id), report).await
}
