//! The one CloudWatch embedded-metric line (EMF) that each run prints, and the numbers in it.
//!
//! CloudWatch bills each metric once per set of dimensions. So only what an alarm or the dashboard of
//! `infra/template.yaml` reads is published, and no more than CloudWatch gives away to an account. Every other number is a
//! property of the same line, which Logs Insights reads. A test in `tests/infra/` ties template, runbook and these names
//! together.

use serde_json::{Value as Json, json};

use crate::error::{ErrorKind, Side};
use crate::report::{Report, Status};

const DEFAULT_NAMESPACE: &str = "OkkiSync";
/// Dimension: the connection's name.
const DIMENSION_CONNECTION: &str = "connection";
/// The age of the last completed run of the connection that has gone longest without one.
const OLDEST_COMPLETED: &str = "OldestCompletedRunAge";
/// Dimension: `sync`, `plan`, `verify`, or `freshness`.
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

    /// A run that reads a part of a large catalogue makes progress without a row at the target.
    fn paused_without_progress(&self) -> u64 {
        let Report { source, target, .. } = self.report;
        let progress = target.written + target.deleted + source.newly_read.unwrap_or(0);
        u64::from(self.report.status == Status::Paused && progress == 0)
    }

    /// Not known of a run that did not come to its end, unless it says so. Where the catalogue has no parts, a run that
    /// did has read everything now.
    fn oldest_read_age(&self) -> Option<u64> {
        let is_complete = matches!(self.report.status, Status::Succeeded | Status::Partial);
        self.report.source.oldest_read_age_seconds.or(is_complete.then_some(0))
    }
}

/// One number of the line.
struct Metric {
    name: &'static str,
    /// As a metric; otherwise it is a property of the line.
    publish: bool,
    value: Value,
}

enum Value {
    Count(fn(&EndedRun<'_>) -> u64),
    /// Left out of the line of a run that does not know it.
    Seconds(fn(&EndedRun<'_>) -> Option<u64>),
}

impl Metric {
    fn unit(&self) -> &'static str {
        match self.value {
            Value::Count(_) => "Count",
            Value::Seconds(_) => "Seconds",
        }
    }

    fn of(&self, run: &EndedRun<'_>) -> Option<u64> {
        match self.value {
            Value::Count(value) => Some(value(run)),
            Value::Seconds(value) => value(run),
        }
    }
}

const fn published(name: &'static str, value: fn(&EndedRun<'_>) -> u64) -> Metric {
    Metric { name, publish: true, value: Value::Count(value) }
}

const fn published_seconds(name: &'static str, value: fn(&EndedRun<'_>) -> Option<u64>) -> Metric {
    Metric { name, publish: true, value: Value::Seconds(value) }
}

const fn property(name: &'static str, value: fn(&EndedRun<'_>) -> u64) -> Metric {
    Metric { name, publish: false, value: Value::Count(value) }
}

/// `Plan…` and `Rows…` count rows.
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
    // Of the part of the catalogue that was read longest ago.
    published_seconds("OldestReadAge", |run| run.oldest_read_age()),
    property("PlanCreate", |run| run.report.plan.create),
    property("PlanUpdate", |run| run.report.plan.update),
    property("PlanDelete", |run| run.report.plan.delete),
    property("PlanUnchanged", |run| run.report.plan.unchanged),
    // What the target acknowledged as created or updated, and as deleted.
    property("RowsWritten", |run| run.report.target.written),
    property("RowsDeleted", |run| run.report.target.deleted),
    published("RowsQuarantined", |run| run.report.quarantined),
    property("RowsRemaining", |run| run.report.remaining),
    property("TargetBatches", |run| run.report.target.batches),
    property("TargetRequests", |run| run.report.target.requests),
    property("TargetRetries", |run| run.report.target.retries),
    published("TargetThrottled", |run| run.report.target.throttled),
    // The delete guard, the empty-source guard, or value guards that hold back too much.
    published("GuardRefused", |run| {
        run.ended_with(ErrorKind::GuardRefused) + run.ended_with(ErrorKind::HeldBackTooMany)
    }),
    published("SourceCredentialsRefused", |run| run.ended_with(ErrorKind::CredentialsRefused(Side::Source))),
    published("TargetCredentialsRefused", |run| run.ended_with(ErrorKind::CredentialsRefused(Side::Target))),
];

/// The embedded-metric line of a run, as CloudWatch Logs extracts it.
fn line(report: &Report, error: Option<ErrorKind>, settings: &MetricsSettings, now_ms: u64) -> Json {
    let ended = EndedRun { report, error };
    let known: Vec<_> = METRICS.iter().filter_map(|metric| Some((metric, metric.of(&ended)?))).collect();
    let published = known.iter().filter(|(metric, _)| metric.publish);
    let definitions: Vec<Json> =
        published.map(|(metric, _)| json!({"Name": metric.name, "Unit": metric.unit()})).collect();
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
        fields.extend(known.into_iter().map(|(metric, value)| (metric.name.to_owned(), json!(value))));
    }
    line
}

/// The line of a look at a fleet's connections. Its one metric is only there where a fleet asks for it.
fn freshness_line(oldest_age_seconds: u64, stale: u64, settings: &MetricsSettings, now_ms: u64) -> Json {
    json!({
        "_aws": {
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{
                "Namespace": settings.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
                "Dimensions": [[DIMENSION_MODE]],
                "Metrics": [{"Name": OLDEST_COMPLETED, "Unit": "Seconds"}],
            }],
        },
        DIMENSION_MODE: "freshness",
        OLDEST_COMPLETED: oldest_age_seconds,
        "StaleConnections": stale,
    })
}

/// Prints the line of a fleet's look at its connections; none where there are none.
#[expect(clippy::print_stdout, reason = "stdout is where CloudWatch reads embedded metrics")]
pub(crate) fn emit_freshness(oldest_age_seconds: Option<u64>, stale: u64, settings: &MetricsSettings) {
    if let Some(age) = oldest_age_seconds {
        println!("{}", freshness_line(age, stale, settings, crate::clock::Clock::system().now_ms()));
    }
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

    fn report(status: Status) -> Report {
        Report {
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
            quarantined_by_kind: Default::default(),
            dismissed: 0,
            remaining: 0,
            resume_after_seconds: None,
            error: None,
            only: Vec::new(),
            digest: None,
            changes: None,
            more_changes: None,
            timeline: None,
        }
    }

    /// The line of a run that ended like this.
    fn of(status: Status, error: Option<ErrorKind>, by_connection: bool) -> Json {
        let settings = MetricsSettings { namespace: Some("N".to_owned()), by_connection };
        line(&report(status), error, &settings, 5)
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
    fn a_paused_run_that_read_more_of_the_catalogue_made_progress() {
        for (written, newly_read, expected) in
            [(0, None, 1), (0, Some(0), 1), (0, Some(500), 0), (3, None, 0), (3, Some(0), 0)]
        {
            let mut report = report(Status::Paused);
            report.target.written = written;
            report.source.newly_read = newly_read;
            let paused = EndedRun { report: &report, error: None }.paused_without_progress();
            assert_eq!(paused, expected, "{written} {newly_read:?}");
        }
    }

    #[test]
    fn the_age_of_the_oldest_read_is_left_out_where_it_is_not_known() {
        let age = |status, age| {
            let mut report = report(status);
            report.source.oldest_read_age_seconds = age;
            let line = line(&report, None, &MetricsSettings::default(), 5);
            let definition = json!({"Name": "OldestReadAge", "Unit": "Seconds"});
            let published = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
            let is_published = published.as_array().unwrap().contains(&definition);
            let age = line.get("OldestReadAge").and_then(Json::as_u64);
            assert_eq!(is_published, age.is_some());
            age
        };
        assert_eq!(age(Status::Succeeded, Some(90_000)), Some(90_000));
        assert_eq!(age(Status::Partial, None), Some(0));
        assert_eq!(age(Status::Failed, None), None);
        assert_eq!(age(Status::Paused, Some(7)), Some(7));
    }

    #[test]
    fn the_age_of_the_oldest_connection_is_a_metric_of_its_own_mode() {
        let line = freshness_line(90_000, 2, &MetricsSettings::default(), 5);
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Metrics"], json!([{"Name": "OldestCompletedRunAge", "Unit": "Seconds"}]));
        assert_eq!(directive["Dimensions"], json!([["mode"]]));
        assert_eq!(
            (&line["mode"], &line["OldestCompletedRunAge"], &line["StaleConnections"]),
            (&json!("freshness"), &json!(90_000), &json!(2))
        );
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
