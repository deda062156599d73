//! What a run leaves behind: its report and its quarantine.

use super::{Outcome, RunContext, Tally};
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Mode, Report, Status, TargetCounts};

/// The report of a run, made from what it came to.
pub(super) fn report(context: &RunContext<'_>, mode: Mode, tally: &Tally, error: Option<&Error>) -> Report {
    let (requests, retries, throttled) = context.target.take_counters();
    let (more_requests, more_retries, more_throttled) = context.okki.take_counters();
    let mut source = tally.source.clone();
    source.requests += more_requests;
    source.retries += more_retries;
    source.throttled += more_throttled;
    let planned = tally.plan.create + tally.plan.update + tally.plan.delete;
    let remaining = match mode {
        Mode::Sync => planned.saturating_sub(tally.written + tally.deleted + tally.refused),
        Mode::Plan => 0,
        Mode::Verify => tally.differences,
    };
    let quarantined = tally.rejected.len() as u64;
    let status = match error.map(|error| error.kind) {
        Some(ErrorKind::Interrupted | ErrorKind::Throttled(_)) => Status::Paused,
        Some(_) => Status::Failed,
        None if quarantined > 0 || tally.differences > 0 => Status::Partial,
        None => Status::Succeeded,
    };
    Report {
        run_id: String::new(),
        connection: context.connection.to_owned(),
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
pub(super) async fn save(context: &RunContext<'_>, outcome: &mut Outcome) {
    let kept = store_records(context, outcome).await;
    let Err(error) = kept else { return };
    tracing::error!(error = %error.line(), "report and quarantine could not be kept");
    if outcome.error.is_none() {
        outcome.report.status = Status::Failed;
        outcome.report.error = Some(error.line());
        outcome.error = Some(error);
    }
}

async fn store_records(context: &RunContext<'_>, outcome: &Outcome) -> Result<()> {
    let (connection, run_id) = (context.connection, &outcome.report.run_id);
    if !outcome.rejected.is_empty() {
        let lines: Vec<String> =
            outcome.rejected.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
        context
            .store
            .put(&format!("quarantine/{connection}/{run_id}.jsonl"), lines.join("\n") + "\n")
            .await?;
    }
    let report = serde_json::to_vec_pretty(&outcome.report).unwrap_or_default();
    context.store.put(&format!("reports/{connection}/{run_id}.json"), report).await
}
