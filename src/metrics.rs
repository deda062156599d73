//! Metric names, and the one CloudWatch embedded-metric line (EMF) that each run prints.
//!
//! CloudWatch bills each metric once per set of dimensions. So only [`PUBLISHED`] become metrics: what an alarm or the
//! dashboard of `infra/template.yaml` reads, and no more than CloudWatch gives away to an account. Every other number
//! stands in the same line as a plain property, which Logs Insights reads. A test in `tests/infra/` ties template,
//! runbook and these names together.

use serde_json::{Value, json};

use crate::error::{ErrorKind, Side};
use crate::report::Status;
use crate::sync::Outcome;

/// Namespace unless `OKKI_SYNC_METRICS_NAMESPACE` names another (the template sets it to the stack's name).
pub(crate) const DEFAULT_NAMESPACE: &str = "OkkiSync";
/// Dimension: the connection's name.
pub(crate) const DIMENSION_CONNECTION: &str = "connection";
/// Dimension: `sync`, `plan` or `verify`.
pub(crate) const DIMENSION_MODE: &str = "mode";

/// Publishes the metrics by connection too if it is `true`: each connection then costs as much as the whole stack.
pub(crate) const BY_CONNECTION_VARIABLE: &str = "OKKI_SYNC_METRICS_BY_CONNECTION";

/// 1 for a run that came to its end (`succeeded` or `partial`), else 0: the sign of life. Count.
pub(crate) const RUNS_COMPLETED: &str = "RunsCompleted";
/// 1 for a run that ended as `succeeded`, else 0. Count.
pub(crate) const RUNS_SUCCEEDED: &str = "RunsSucceeded";
/// 1 for a run that ended as `partial`, else 0. Count.
pub(crate) const RUNS_PARTIAL: &str = "RunsPartial";
/// 1 for a run that ended as `paused`, else 0. Count.
pub(crate) const RUNS_PAUSED: &str = "RunsPaused";
/// 1 for a run that ended as `failed`, else 0. Count.
pub(crate) const RUNS_FAILED: &str = "RunsFailed";
/// 1 for a run that paused without one acknowledged row, else 0. Count.
pub(crate) const PAUSED_WITHOUT_PROGRESS: &str = "PausedWithoutProgress";
/// Wall time of the run. Milliseconds.
pub(crate) const DURATION_MS: &str = "DurationMs";
/// Groups read and clean. Count.
pub(crate) const SOURCE_GROUPS: &str = "SourceGroups";
/// Products read and clean. Count.
pub(crate) const SOURCE_PRODUCTS: &str = "SourceProducts";
/// Calls to the source. Count.
pub(crate) const SOURCE_REQUESTS: &str = "SourceRequests";
/// Repeated calls to the source. Count.
pub(crate) const SOURCE_RETRIES: &str = "SourceRetries";
/// Answers of the source that asked for a slower pace. Count.
pub(crate) const SOURCE_THROTTLED: &str = "SourceThrottled";
/// Planned creations. Count of rows.
pub(crate) const PLAN_CREATE: &str = "PlanCreate";
/// Planned updates. Count of rows.
pub(crate) const PLAN_UPDATE: &str = "PlanUpdate";
/// Planned deletions. Count of rows.
pub(crate) const PLAN_DELETE: &str = "PlanDelete";
/// Rows without a change. Count of rows.
pub(crate) const PLAN_UNCHANGED: &str = "PlanUnchanged";
/// Rows that the target acknowledged as created or updated. Count of rows.
pub(crate) const ROWS_WRITTEN: &str = "RowsWritten";
/// Rows that the target acknowledged as deleted. Count of rows.
pub(crate) const ROWS_DELETED: &str = "RowsDeleted";
/// Rows in the quarantine of this run. Count of rows.
pub(crate) const ROWS_QUARANTINED: &str = "RowsQuarantined";
/// Rows left for the next run. Count of rows.
pub(crate) const ROWS_REMAINING: &str = "RowsRemaining";
/// Acknowledged batches. Count.
pub(crate) const TARGET_BATCHES: &str = "TargetBatches";
/// Calls to the target. Count.
pub(crate) const TARGET_REQUESTS: &str = "TargetRequests";
/// Repeated calls to the target. Count.
pub(crate) const TARGET_RETRIES: &str = "TargetRetries";
/// Answers of the target that asked for a slower pace or announced a lockout. Count.
pub(crate) const TARGET_THROTTLED: &str = "TargetThrottled";
/// 1 for a run that the delete guard (or the empty-source guard) refused, else 0. Count.
pub(crate) const GUARD_REFUSED: &str = "GuardRefused";
/// 1 for a run that ended because the source refused the credentials, else 0. Count.
pub(crate) const SOURCE_CREDENTIALS_REFUSED: &str = "SourceCredentialsRefused";
/// 1 for a run that ended because the target refused the credentials, else 0. Count.
pub(crate) const TARGET_CREDENTIALS_REFUSED: &str = "TargetCredentialsRefused";

/// The numbers that are published as metrics, all of them counts; the others are properties of the line.
pub(crate) const PUBLISHED: [&str; 10] = [
    RUNS_COMPLETED,
    RUNS_FAILED,
    PAUSED_WITHOUT_PROGRESS,
    SOURCE_THROTTLED,
    ROWS_WRITTEN,
    ROWS_QUARANTINED,
    TARGET_THROTTLED,
    GUARD_REFUSED,
    SOURCE_CREDENTIALS_REFUSED,
    TARGET_CREDENTIALS_REFUSED,
];

/// The numbers of a run, by name.
fn values(outcome: &Outcome) -> Vec<(&'static str, u64)> {
    let report = &outcome.report;
    let is = |status: Status| u64::from(report.status == status);
    let kind = outcome.error.as_ref().map(|error| error.kind);
    let struck = |wanted: ErrorKind| u64::from(kind == Some(wanted));
    let idle = report.status == Status::Paused && report.target.written + report.target.deleted == 0;
    vec![
        (RUNS_COMPLETED, is(Status::Succeeded) + is(Status::Partial)),
        (RUNS_SUCCEEDED, is(Status::Succeeded)),
        (RUNS_PARTIAL, is(Status::Partial)),
        (RUNS_PAUSED, is(Status::Paused)),
        (RUNS_FAILED, is(Status::Failed)),
        (PAUSED_WITHOUT_PROGRESS, u64::from(idle)),
        (DURATION_MS, report.duration_ms),
        (SOURCE_GROUPS, report.source.groups),
        (SOURCE_PRODUCTS, report.source.products),
        (SOURCE_REQUESTS, report.source.requests),
        (SOURCE_RETRIES, report.source.retries),
        (SOURCE_THROTTLED, report.source.throttled),
        (PLAN_CREATE, report.plan.create),
        (PLAN_UPDATE, report.plan.update),
        (PLAN_DELETE, report.plan.delete),
        (PLAN_UNCHANGED, report.plan.unchanged),
        (ROWS_WRITTEN, report.target.written),
        (ROWS_DELETED, report.target.deleted),
        (ROWS_QUARANTINED, report.quarantined),
        (ROWS_REMAINING, report.remaining),
        (TARGET_BATCHES, report.target.batches),
        (TARGET_REQUESTS, report.target.requests),
        (TARGET_RETRIES, report.target.retries),
        (TARGET_THROTTLED, report.target.throttled),
        (GUARD_REFUSED, struck(ErrorKind::GuardRefused)),
        (SOURCE_CREDENTIALS_REFUSED, struck(ErrorKind::CredentialsRefused(Side::Source))),
        (TARGET_CREDENTIALS_REFUSED, struck(ErrorKind::CredentialsRefused(Side::Target))),
    ]
}

/// The embedded-metric line of a run, as CloudWatch Logs extracts it: by mode, and by connection too where asked for.
pub(crate) fn line(outcome: &Outcome, namespace: &str, by_connection: bool, now_ms: u64) -> Value {
    let definitions: Vec<Value> =
        PUBLISHED.iter().map(|name| json!({"Name": name, "Unit": "Count"})).collect();
    let mut dimensions = vec![vec![DIMENSION_MODE]];
    if by_connection {
        dimensions.push(vec![DIMENSION_CONNECTION, DIMENSION_MODE]);
    }
    let mut line = json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{
                "Namespace": namespace,
                "Dimensions": dimensions,
                "Metrics": definitions,
            }],
        },
        DIMENSION_CONNECTION: outcome.report.connection,
        DIMENSION_MODE: outcome.report.mode,
        "run_id": outcome.report.run_id,
        "status": outcome.report.status,
    });
    if let Some(fields) = line.as_object_mut() {
        fields.extend(values(outcome).into_iter().map(|(name, value)| (name.to_owned(), json!(value))));
    }
    line
}

/// Prints the line on stdout, where the Lambda service reads it.
#[expect(clippy::print_stdout, reason = "stdout is where CloudWatch reads embedded metrics")]
pub(crate) fn emit(outcome: &Outcome) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let namespace = variable("OKKI_SYNC_METRICS_NAMESPACE");
    let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let by_connection = variable(BY_CONNECTION_VARIABLE).is_some_and(|value| value == "true");
    println!("{}", line(outcome, namespace, by_connection, crate::clock::Clock::system().now_ms()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::error::Error;
    use crate::report::{Mode, PlanCounts, Report, SourceCounts, TargetCounts};

    fn outcome(status: Status, error: Option<ErrorKind>) -> Outcome {
        let error = error.map(|kind| Error::new(kind, "why"));
        let report = Report {
            run_id: "run".to_owned(),
            connection: "acme".to_owned(),
            mode: Mode::Sync,
            status,
            started_at: String::new(),
            duration_ms: 1_234,
            source: SourceCounts { requests: 7, throttled: 2, ..SourceCounts::default() },
            plan: PlanCounts::default(),
            target: TargetCounts { written: 3, throttled: 1, ..TargetCounts::default() },
            quarantined: 4,
            remaining: 0,
            resume_after_seconds: None,
            error: error.as_ref().map(Error::line),
        };
        Outcome { report, error, lines: Vec::new(), rejected: Vec::new() }
    }

    #[test]
    fn every_published_metric_has_a_number_and_every_other_is_a_property() {
        let line = line(&outcome(Status::Succeeded, None), "N", false, 5);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        let published: Vec<&str> =
            directive["Metrics"].as_array().unwrap().iter().map(|m| m["Name"].as_str().unwrap()).collect();
        assert_eq!(published, PUBLISHED);
        for name in published {
            assert!(line[name].is_u64(), "{name}");
        }
        assert_eq!((&line[DURATION_MS], &line[SOURCE_REQUESTS]), (&json!(1_234), &json!(7)));
        assert_eq!((&line["_aws"]["Timestamp"], &directive["Namespace"]), (&json!(5), &json!("N")));
    }

    #[test]
    fn metrics_go_by_mode_and_by_connection_only_where_asked_for() {
        let dimensions = |by_connection| {
            let line = line(&outcome(Status::Succeeded, None), "N", by_connection, 0);
            line["_aws"]["CloudWatchMetrics"][0]["Dimensions"].clone()
        };
        assert_eq!(dimensions(false), json!([["mode"]]));
        assert_eq!(dimensions(true), json!([["mode"], ["connection", "mode"]]));
    }

    #[test]
    fn a_partial_run_counts_as_completed_and_a_paused_or_failed_one_does_not() {
        let completed = |status| line(&outcome(status, None), "N", false, 0)[RUNS_COMPLETED].clone();
        assert_eq!(completed(Status::Succeeded), json!(1));
        assert_eq!(completed(Status::Partial), json!(1));
        assert_eq!(completed(Status::Paused), json!(0));
        assert_eq!(completed(Status::Failed), json!(0));
    }

    #[test]
    fn refusals_name_their_side() {
        let refused = |side| {
            let error = Some(ErrorKind::CredentialsRefused(side));
            let line = line(&outcome(Status::Failed, error), "N", false, 0);
            (line[SOURCE_CREDENTIALS_REFUSED].clone(), line[TARGET_CREDENTIALS_REFUSED].clone())
        };
        assert_eq!(refused(Side::Source), (json!(1), json!(0)));
        assert_eq!(refused(Side::Target), (json!(0), json!(1)));
        let guard = line(&outcome(Status::Failed, Some(ErrorKind::GuardRefused)), "N", false, 0);
        assert_eq!((&guard[GUARD_REFUSED], &guard[RUNS_FAILED]), (&json!(1), &json!(1)));
    }
}
