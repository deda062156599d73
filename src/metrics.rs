//! Metric names, and the one CloudWatch embedded-metric line (EMF) that each run prints.
//!
//! Alarms, the dashboard and the runbook in `infra/` are built on these names; a test holds them together.

use serde_json::{Value, json};

use crate::error::{Kind, Side};
use crate::report::Status;
use crate::sync::Outcome;

/// Namespace unless `OKKI_SYNC_METRICS_NAMESPACE` names another (the template sets it to the stack's name).
pub const DEFAULT_NAMESPACE: &str = "OkkiSync";
/// Dimension: the connection's name.
pub const DIMENSION_CONNECTION: &str = "connection";
/// Dimension: `sync`, `plan` or `verify`.
pub const DIMENSION_MODE: &str = "mode";

/// 1 for a run that ended as `succeeded`, else 0. Count.
pub const RUNS_SUCCEEDED: &str = "RunsSucceeded";
/// 1 for a run that ended as `partial`, else 0. Count.
pub const RUNS_PARTIAL: &str = "RunsPartial";
/// 1 for a run that ended as `paused`, else 0. Count.
pub const RUNS_PAUSED: &str = "RunsPaused";
/// 1 for a run that ended as `failed`, else 0. Count.
pub const RUNS_FAILED: &str = "RunsFailed";
/// 1 for a run that paused without one acknowledged row, else 0. Count.
pub const PAUSED_WITHOUT_PROGRESS: &str = "PausedWithoutProgress";
/// Wall time of the run. Milliseconds.
pub const DURATION_MS: &str = "DurationMs";
/// Groups read and clean. Count.
pub const SOURCE_GROUPS: &str = "SourceGroups";
/// Products read and clean. Count.
pub const SOURCE_PRODUCTS: &str = "SourceProducts";
/// Calls to the source. Count.
pub const SOURCE_REQUESTS: &str = "SourceRequests";
/// Repeated calls to the source. Count.
pub const SOURCE_RETRIES: &str = "SourceRetries";
/// Answers of the source that asked for a slower pace. Count.
pub const SOURCE_THROTTLED: &str = "SourceThrottled";
/// Planned creations. Count of rows.
pub const PLAN_CREATE: &str = "PlanCreate";
/// Planned updates. Count of rows.
pub const PLAN_UPDATE: &str = "PlanUpdate";
/// Planned deletions. Count of rows.
pub const PLAN_DELETE: &str = "PlanDelete";
/// Rows without a change. Count of rows.
pub const PLAN_UNCHANGED: &str = "PlanUnchanged";
/// Rows that the target acknowledged as created or updated. Count of rows.
pub const ROWS_WRITTEN: &str = "RowsWritten";
/// Rows that the target acknowledged as deleted. Count of rows.
pub const ROWS_DELETED: &str = "RowsDeleted";
/// Rows in the quarantine of this run. Count of rows.
pub const ROWS_QUARANTINED: &str = "RowsQuarantined";
/// Rows left for the next run. Count of rows.
pub const ROWS_REMAINING: &str = "RowsRemaining";
/// Acknowledged batches. Count.
pub const TARGET_BATCHES: &str = "TargetBatches";
/// Calls to the target. Count.
pub const TARGET_REQUESTS: &str = "TargetRequests";
/// Repeated calls to the target. Count.
pub const TARGET_RETRIES: &str = "TargetRetries";
/// Answers of the target that asked for a slower pace or announced a lockout. Count.
pub const TARGET_THROTTLED: &str = "TargetThrottled";
/// 1 for a run that the delete guard (or the empty-source guard) refused, else 0. Count.
pub const GUARD_REFUSED: &str = "GuardRefused";
/// 1 for a run that ended because the source refused the credentials, else 0. Count.
pub const SOURCE_CREDENTIALS_REFUSED: &str = "SourceCredentialsRefused";
/// 1 for a run that ended because the target refused the credentials, else 0. Count.
pub const TARGET_CREDENTIALS_REFUSED: &str = "TargetCredentialsRefused";

/// The metrics of a run, by name, with their unit.
fn values(outcome: &Outcome) -> Vec<(&'static str, u64, &'static str)> {
    let report = &outcome.report;
    let is = |status: Status| u64::from(report.status == status);
    let kind = outcome.error.as_ref().map(|error| error.kind);
    let struck = |wanted: Kind| u64::from(kind == Some(wanted));
    let idle = report.status == Status::Paused && report.target.written + report.target.deleted == 0;
    vec![
        (RUNS_SUCCEEDED, is(Status::Succeeded), "Count"),
        (RUNS_PARTIAL, is(Status::Partial), "Count"),
        (RUNS_PAUSED, is(Status::Paused), "Count"),
        (RUNS_FAILED, is(Status::Failed), "Count"),
        (PAUSED_WITHOUT_PROGRESS, u64::from(idle), "Count"),
        (DURATION_MS, report.duration_ms, "Milliseconds"),
        (SOURCE_GROUPS, report.source.groups, "Count"),
        (SOURCE_PRODUCTS, report.source.products, "Count"),
        (SOURCE_REQUESTS, report.source.requests, "Count"),
        (SOURCE_RETRIES, report.source.retries, "Count"),
        (SOURCE_THROTTLED, report.source.throttled, "Count"),
        (PLAN_CREATE, report.plan.create, "Count"),
        (PLAN_UPDATE, report.plan.update, "Count"),
        (PLAN_DELETE, report.plan.delete, "Count"),
        (PLAN_UNCHANGED, report.plan.unchanged, "Count"),
        (ROWS_WRITTEN, report.target.written, "Count"),
        (ROWS_DELETED, report.target.deleted, "Count"),
        (ROWS_QUARANTINED, report.quarantined, "Count"),
        (ROWS_REMAINING, report.remaining, "Count"),
        (TARGET_BATCHES, report.target.batches, "Count"),
        (TARGET_REQUESTS, report.target.requests, "Count"),
        (TARGET_RETRIES, report.target.retries, "Count"),
        (TARGET_THROTTLED, report.target.throttled, "Count"),
        (GUARD_REFUSED, struck(Kind::GuardRefused), "Count"),
        (SOURCE_CREDENTIALS_REFUSED, struck(Kind::CredentialsRefused(Side::Source)), "Count"),
        (TARGET_CREDENTIALS_REFUSED, struck(Kind::CredentialsRefused(Side::Target)), "Count"),
    ]
}

/// The embedded-metric line of a run, as CloudWatch Logs extracts it: by connection and mode, and over all.
pub fn line(outcome: &Outcome, namespace: &str, now_ms: u64) -> Value {
    let values = values(outcome);
    let definitions: Vec<Value> =
        values.iter().map(|(name, _, unit)| json!({"Name": name, "Unit": unit})).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{
                "Namespace": namespace,
                "Dimensions": [[DIMENSION_CONNECTION, DIMENSION_MODE], []],
                "Metrics": definitions,
            }],
        },
        DIMENSION_CONNECTION: outcome.report.connection,
        DIMENSION_MODE: outcome.report.mode,
        "run_id": outcome.report.run_id,
        "status": outcome.report.status,
    });
    if let Some(fields) = line.as_object_mut() {
        fields.extend(values.into_iter().map(|(name, value, _)| (name.to_owned(), json!(value))));
    }
    line
}

/// Prints the line on stdout, where the Lambda service reads it.
#[expect(clippy::print_stdout, reason = "stdout is where CloudWatch reads embedded metrics")]
pub fn emit(outcome: &Outcome) {
    let namespace = std::env::var("OKKI_SYNC_METRICS_NAMESPACE").ok().filter(|name| !name.is_empty());
    let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    println!("{}", line(outcome, namespace, crate::clock::Clock::system().now_ms()));
}
