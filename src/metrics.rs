//! The one CloudWatch embedded-metric line (EMF) that each run prints, and the numbers in it.
//!
//! CloudWatch bills each metric once per set of dimensions. So only what an alarm or the dashboard of
//! `infra/template.yaml` reads is published, and no more than CloudWatch gives away to an account. Every other number is a
//! property of the same line, which Logs Insights reads. A test in `tests/infra/` ties template, runbook and these names
//! together.

use serde_json::{Value, json};

use crate::error::{ErrorKind, Side};
use crate::report::{Report, Status};

const DEFAULT_NAMESPACE: &str = "OkkiSync";
/// Dimension: the connection's name.
const DIMENSION_CONNECTION: &str = "connection";
/// Dimension: `sync`, `plan` or `verify`.
const DIMENSION_MODE: &str = "mode";

/// What the environment says about metrics.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetricsSettings {
    /// The template sets it to the stack's name.
    pub namespace: Option<String>,
    /// Publishes the metrics by connection too: each connection then costs as much as the whole stack.
    pub by_connection: bool,
}

/// A run that has ended.
struct EndedRun<'a> {
    report: &'a Report,
    error: Option<ErrorKind>,
}

impl EndedRun<'_> {
    fn is(&self, status: Status) -> u64 {
        u64::from(self.report.status == status)
    }

    fn ended_with(&self, kind: ErrorKind) -> u64 {
        u64::from(self.error == Some(kind))
    }

    fn paused_without_progress(&self) -> u64 {
        let target = &self.report.target;
        u64::from(self.report.status == Status::Paused && target.written + target.deleted == 0)
    }
}

/// One number of the line.
struct Metric {
    name: &'static str,
    /// As a metric, a count; otherwise it is a property of the line.
    publish: bool,
    value: fn(&EndedRun<'_>) -> u64,
}

const fn published(name: &'static str, value: fn(&EndedRun<'_>) -> u64) -> Metric {
    Metric { name, publish: true, value }
}

const fn property(name: &'static str, value: fn(&EndedRun<'_>) -> u64) -> Metric {
    Metric { name, publish: false, value }
}

/// Counts, but for `DurationMs`. `Plan…` and `Rows…` count rows.
const METRICS: &[Metric] = &[
    // The sign of life.
    published("RunsCompleted", |run| run.is(Status::Succeeded) + run.is(Status::Partial)),
    property("RunsSucceeded", |run| run.is(Status::Succeeded)),
    property("RunsPartial", |run| run.is(Status::Partial)),
    property("RunsPaused", |run| run.is(Status::Paused)),
    published("RunsFailed", |run| run.is(Status::Failed)),
    published("PausedWithoutProgress", |run| run.paused_without_progress()),
    property("DurationMs", |run| run.report.duration_ms),
    // Groups and products that passed cleaning; calls, those that were repeated, and answers that asked for a slower pace.
    property("SourceGroups", |run| run.report.source.groups),
    property("SourceProducts", |run| run.report.source.products),
    property("SourceRequests", |run| run.report.source.requests),
    property("SourceRetries", |run| run.report.source.retries),
    published("SourceThrottled", |run| run.report.source.throttled),
    property("PlanCreate", |run| run.report.plan.create),
    property("PlanUpdate", |run| run.report.plan.update),
    property("PlanDelete", |run| run.report.plan.delete),
    property("PlanUnchanged", |run| run.report.plan.unchanged),
    // What the target acknowledged as created or updated, and as deleted.
    published("RowsWritten", |run| run.report.target.written),
    property("RowsDeleted", |run| run.report.target.deleted),
    published("RowsQuarantined", |run| run.report.quarantined),
    property("RowsRemaining", |run| run.report.remaining),
    property("TargetBatches", |run| run.report.target.batches),
    property("TargetRequests", |run| run.report.target.requests),
    property("TargetRetries", |run| run.report.target.retries),
    published("TargetThrottled", |run| run.report.target.throttled),
    // The delete guard or the empty-source guard.
    published("GuardRefused", |run| run.ended_with(ErrorKind::GuardRefused)),
    published("SourceCredentialsRefused", |run| run.ended_with(ErrorKind::CredentialsRefused(Side::Source))),
    published("TargetCredentialsRefused", |run| run.ended_with(ErrorKind::CredentialsRefused(Side::Target))),
];

/// The embedded-metric line of a run, as CloudWatch Logs extracts it.
fn line(report: &Report, error: Option<ErrorKind>, settings: &MetricsSettings, now_ms: u64) -> Value {
    let published = METRICS.iter().filter(|metric| metric.publish);
    let definitions: Vec<Value> =
        published.map(|metric| json!({"Name": metric.name, "Unit": "Count"})).collect();
    let mut dimensions = vec![vec![DIMENSION_MODE]];
    if settings.by_connection {
        dimensions.push(vec![DIMENSION_CONNECTION, DIMENSION_MODE]);
    }
    let mut line = json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{
                "Namespace": settings.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
                "Dimensions": dimensions,
                "Metrics": definitions,
            }],
        },
        DIMENSION_CONNECTION: report.connection,
        DIMENSION_MODE: report.mode,
        "run_id": report.run_id,
        "status": report.status,
    });
    if let Some(fields) = line.as_object_mut() {
        let ended = EndedRun { report, error };
        fields.extend(METRICS.iter().map(|metric| (metric.name.to_owned(), json!((metric.value)(&ended)))));
    }
    line
}

/// Prints the line on stdout, where the Lambda service reads it.
#[expect(clippy::print_stdout, reason = "stdout is where CloudWatch reads embedded metrics")]
pub(crate) fn emit(report: &Report, error: Option<ErrorKind>, settings: &MetricsSettings) {
    println!("{}", line(report, error, settings, crate::clock::Clock::system().now_ms()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::report::{Mode, PlanCounts, SourceCounts, TargetCounts};

    /// The line of a run that ended like this.
    fn of(status: Status, error: Option<ErrorKind>, by_connection: bool) -> Value {
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
            error: None,
        };
        let settings = MetricsSettings { namespace: Some("N".to_owned()), by_connection };
        line(&report, error, &settings, 5)
    }

    #[test]
    fn every_published_metric_has_a_number_and_every_other_is_a_property() {
        let line = of(Status::Succeeded, None, false);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        let published: Vec<&str> =
            directive["Metrics"].as_array().unwrap().iter().map(|m| m["Name"].as_str().unwrap()).collect();
        let wanted: Vec<&str> =
            METRICS.iter().filter(|metric| metric.publish).map(|metric| metric.name).collect();
        assert_eq!(published, wanted);
        assert_eq!(published.len(), 10, "CloudWatch gives ten away");
        for metric in METRICS {
            assert!(line[metric.name].is_u64(), "{}", metric.name);
        }
        assert_eq!((&line["DurationMs"], &line["SourceRequests"]), (&json!(1_234), &json!(7)));
        assert_eq!((&line["_aws"]["Timestamp"], &directive["Namespace"]), (&json!(5), &json!("N")));
    }

    #[test]
    fn metrics_go_by_mode_and_by_connection_only_where_asked_for() {
        let dimensions = |by_connection| {
            let line = of(Status::Succeeded, None, by_connection);
            line["_aws"]["CloudWatchMetrics"][0]["Dimensions"].clone()
        };
        assert_eq!(dimensions(false), json!([["mode"]]));
        assert_eq!(dimensions(true), json!([["mode"], ["connection", "mode"]]));
    }

    #[test]
    fn a_partial_run_counts_as_completed_and_a_paused_or_failed_one_does_not() {
        let completed = |status| of(status, None, false)["RunsCompleted"].clone();
        assert_eq!(completed(Status::Succeeded), json!(1));
        assert_eq!(completed(Status::Partial), json!(1));
        assert_eq!(completed(Status::Paused), json!(0));
        assert_eq!(completed(Status::Failed), json!(0));
    }

    #[test]
    fn refusals_name_their_side() {
        let refused = |side| {
            let error = Some(ErrorKind::CredentialsRefused(side));
            let line = of(Status::Failed, error, false);
            (line["SourceCredentialsRefused"].clone(), line["TargetCredentialsRefused"].clone())
        };
        assert_eq!(refused(Side::Source), (json!(1), json!(0)));
        assert_eq!(refused(Side::Target), (json!(0), json!(1)));
        let guard = of(Status::Failed, Some(ErrorKind::GuardRefused), false);
        assert_eq!((&guard["GuardRefused"], &guard["RunsFailed"]), (&json!(1), &json!(1)));
    }
}
