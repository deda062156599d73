//! The Lambda function: an event becomes a request, a run's outcome an answer or an error, and one metrics line.
//!
//! A failed run is answered as an error, so that Lambda's retries, the dead-letter queue and the Errors metric see it. A
//! paused run is an answer: whoever scheduled it comes back after `resume_after_seconds`.

use aws_lambda_events::eventbridge::EventBridgeEvent;
use lambda_runtime::{Diagnostic, LambdaEvent};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::app::{App, Freshness, PipelineSource};
use crate::config::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{self, MetricsSettings};
use crate::report::{Mode, Report, Status};
use crate::sync::{Digest, NoDigest, Outcome, RunRequest};
use crate::words::{Message, say};

/// The sources of a scheduled event: an EventBridge rule, and EventBridge Scheduler.
const SCHEDULE_SOURCES: [&str; 2] = ["aws.events", "aws.scheduler"];

/// An event that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Which pipeline of the store; `None`: the configured one.
    pub connection: Option<String>,
    /// The run; its deadline is not in the event.
    pub request: RunRequest,
}

/// Reads an event. An unknown field or a value of the wrong kind is an error that names the field.
pub fn parse(event: &Value) -> Result<Invocation> {
    let bad = |message: Message| Error::new(ErrorKind::BadEvent, message);
    let Some(fields) = event.as_object() else {
        return Err(bad(say!("the event is not a JSON object")).help(say!("send {\"mode\": \"sync\"}")));
    };
    if fields.contains_key("detail-type") || fields.contains_key("source") {
        return scheduled(event);
    }
    let (mut mode, mut connection) = (None, None);
    let mut request = RunRequest::new(Mode::Sync);
    for (field, value) in fields {
        match field.as_str() {
            "mode" => mode = Some(parse_mode(value)?),
            "connection" => connection = Some(parse_connection(value)?),
            "full" => request.full = parse_flag(field, value)?,
            "allow_mass_delete" => request.allow_mass_delete = parse_flag(field, value)?,
            "only" => request.only.ids = parse_ids(field, value)?,
            "approve" => request.approve = Some(parse_digest(value)?),
            other => {
                let known = ["mode", "connection", "full", "allow_mass_delete", "only", "approve"];
                let near = crate::transform::nearest(other, known).unwrap_or("mode");
                return Err(bad(say!(
                    "field {other}: unknown; did you mean \"{near}\"?",
                    other = crate::catalogue::short(other),
                    near
                )));
            }
        }
    }
    request.mode =
        mode.ok_or_else(|| bad(say!("field \"mode\": missing; send \"sync\", \"plan\" or \"verify\"")))?;
    if request.mode == Mode::Verify && !request.only.is_empty() {
        return Err(bad(say!("field \"only\": a verification compares all rows; send \"sync\" or \"plan\"")));
    }
    if request.approve.is_some() && request.mode != Mode::Sync {
        return Err(bad(say!("field \"approve\": only a sync is approved; send \"mode\": \"sync\"")));
    }
    Ok(Invocation { connection, request })
}

fn scheduled(event: &Value) -> Result<Invocation> {
    let bad = |message: Message| Error::new(ErrorKind::BadEvent, message);
    let parsed: EventBridgeEvent<Value> = serde_json::from_value(event.clone()).map_err(|error| {
        bad(say!("field \"detail-type\": not a whole EventBridge event ({error})", error))
    })?;
    if !SCHEDULE_SOURCES.contains(&parsed.source.as_str()) {
        let source = crate::catalogue::short(&parsed.source);
        return Err(bad(say!(
            "field \"source\": {source} is no schedule; expected aws.events or aws.scheduler",
            source
        )));
    }
    if parsed.detail_type != "Scheduled Event" {
        let kind = crate::catalogue::short(&parsed.detail_type);
        return Err(bad(say!(
            "field \"detail-type\": {kind} is no schedule; expected \"Scheduled Event\"",
            kind
        )));
    }
    Ok(Invocation { connection: None, request: RunRequest::new(Mode::Sync) })
}

fn parse_mode(value: &Value) -> Result<Mode> {
    let mode = serde_json::from_value(value.clone()).ok().filter(|mode| *mode != Mode::Undo);
    mode.ok_or_else(|| {
        Error::new(
            ErrorKind::BadEvent,
            say!(
                "field \"mode\": {value} is none; send \"sync\", \"plan\" or \"verify\"",
                value = crate::catalogue::short(&value.to_string())
            ),
        )
    })
}

fn parse_connection(value: &Value) -> Result<String> {
    match value.as_str() {
        Some(name) if crate::config::is_connection_name(name) => Ok(name.to_owned()),
        _ => Err(Error::new(
            ErrorKind::BadEvent,
            say!(
                "field \"connection\": {value} is no connection name; use 1 to 64 of a-z, 0-9 and -",
                value = crate::catalogue::short(&value.to_string())
            ),
        )),
    }
}

fn parse_digest(value: &Value) -> Result<Digest> {
    value.as_str().and_then(Digest::parse).ok_or_else(|| {
        let value = crate::catalogue::short(&value.to_string());
        Error::new(ErrorKind::BadEvent, say!("field \"approve\": {value} {why}", value, why = NoDigest))
    })
}

fn parse_flag(field: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| {
        Error::new(
            ErrorKind::BadEvent,
            say!(
                "field \"{field}\": {value} is not true or false",
                field,
                value = crate::catalogue::short(&value.to_string())
            ),
        )
    })
}

fn parse_ids(field: &str, value: &Value) -> Result<Vec<String>> {
    let ids = value.as_array().map(|list| list.iter().map(|id| id.as_str().map(str::to_owned)).collect());
    let ids: Option<Vec<String>> = ids.unwrap_or_default();
    ids.filter(|ids| !ids.is_empty() && ids.iter().all(|id| !id.trim().is_empty())).ok_or_else(|| {
        let value = crate::catalogue::short(&value.to_string());
        Error::new(
            ErrorKind::BadEvent,
            say!(
                "field \"{field}\": {value} is not a list of ids; send [\"ID\", …], each as text",
                field,
                value
            ),
        )
    })
}

/// What an event is answered with.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Of a run.
    Run(Box<Report>),
    /// Of [`asks_for_freshness`].
    Freshness(Freshness),
}

/// Whether the event asks how fresh the connections of the store are, which is no run: a fleet does, for its summary.
pub fn asks_for_freshness(event: &Value) -> bool {
    event.as_object().is_some_and(|fields| {
        fields.len() == 1 && fields.get("mode").and_then(Value::as_str) == Some("freshness")
    })
}

/// Answers one event.
pub async fn handle(app: &App, event: LambdaEvent<Value>) -> Result<Answer, Diagnostic> {
    if asks_for_freshness(&event.payload) {
        return freshness(app).await.map(Answer::Freshness);
    }
    run(app, event).await.map(|report| Answer::Run(Box::new(report)))
}

async fn freshness(app: &App) -> Result<Freshness, Diagnostic> {
    let freshness = app.freshness().await.map_err(|error| {
        tracing::error!(error = %error.line(), "nobody knows how fresh the connections are");
        diagnostic(&error)
    })?;
    metrics::emit_freshness(freshness.oldest_age_seconds, freshness.stale, &metrics_settings(app.env()));
    let text = serde_json::to_string(&freshness).unwrap_or_default();
    tracing::info!(freshness = text, "connections looked at");
    Ok(freshness)
}

async fn run(app: &App, event: LambdaEvent<Value>) -> Result<Report, Diagnostic> {
    let mut invocation = parse(&event.payload).map_err(|error| {
        tracing::error!(error = %error.line(), "bad event");
        diagnostic(&error)
    })?;
    invocation.request.deadline = deadline(event.context.deadline);
    let mode = invocation.request.mode;
    let span = tracing::info_span!("run", request_id = %event.context.request_id, %mode);
    answer(app, invocation).instrument(span).await
}

async fn answer(app: &App, Invocation { connection, request }: Invocation) -> Result<Report, Diagnostic> {
    let from = connection.map_or_else(|| app.default_pipeline(), PipelineSource::Connection);
    let outcome = app.run(from, &request, &|_| {}).await;
    let kind = outcome.error.as_ref().map(|error| error.kind);
    metrics::emit(&outcome.report, kind, &metrics_settings(app.env()));
    log(&outcome);
    match (&outcome.error, outcome.report.status) {
        (Some(error), Status::Failed) => Err(diagnostic(error)),
        _ => Ok(outcome.report),
    }
}

/// The runtime gives the deadline as wall-clock milliseconds. One that has passed before the run begins is ignored:
/// cargo-lambda's emulator always sends 600000, ten minutes after the start of 1970.
fn deadline(deadline_ms: u64) -> Option<Instant> {
    let left = crate::clock::Clock::system().until_ms(deadline_ms);
    (!left.is_zero()).then(|| Instant::now() + left)
}

fn metrics_settings(env: &Env) -> MetricsSettings {
    MetricsSettings {
        namespace: env.get("OKKI_SYNC_METRICS_NAMESPACE"),
        by_connection: env.get("OKKI_SYNC_METRICS_BY_CONNECTION").is_some_and(|value| value == "true"),
    }
}

fn log(outcome: &Outcome) {
    let report = serde_json::to_string(&outcome.report.for_logs()).unwrap_or_default();
    match outcome.report.status {
        Status::Failed => tracing::error!(step = "failed", report, "run failed"),
        Status::Paused => tracing::warn!(step = "paused", report, "run paused"),
        Status::Succeeded | Status::Partial => tracing::info!(step = "done", report, "run done"),
    }
}

fn diagnostic(error: &Error) -> Diagnostic {
    Diagnostic { error_type: error.kind.name().to_owned(), error_message: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_sample_event_is_understood() {
        let of = |text: &str| parse(&serde_json::from_str(text).unwrap()).unwrap();
        let sync = Invocation { connection: None, request: RunRequest::new(Mode::Sync) };
        assert_eq!(of(include_str!("../events/scheduled.json")), sync);
        assert_eq!(of(include_str!("../events/scheduled-rule.json")), sync);
        assert_eq!(of(include_str!("../events/sync.json")), sync);
        assert_eq!(of(include_str!("../events/plan.json")).request.mode, Mode::Plan);
        assert_eq!(of(include_str!("../events/verify.json")).request.mode, Mode::Verify);
        assert!(of(include_str!("../events/full.json")).request.full);
        assert!(of(include_str!("../events/allow-mass-delete.json")).request.allow_mass_delete);
        assert_eq!(of(include_str!("../events/only.json")).request.only.ids, ["37004000100"]);
        let freshness = serde_json::from_str(include_str!("../events/freshness.json")).unwrap();
        assert!(asks_for_freshness(&freshness) && parse(&freshness).is_err(), "it is no run");
        assert_eq!(of(include_str!("../events/connection.json")).connection.as_deref(), Some("acme"));
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_is_an_emulator_s_and_none_of_ours() {
        let now_ms = crate::clock::Clock::system().now_ms();
        assert_eq!(deadline(0), None);
        assert_eq!(deadline(600_000), None);
        let left = deadline(now_ms + 60_000).unwrap().saturating_duration_since(Instant::now());
        assert!((50..=60).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn anything_else_is_a_bad_event_that_names_the_field() {
        let table = [
            (r#"[]"#, "not a JSON object"),
            (r#"{}"#, "\"mode\": missing"),
            (r#"{"mode":"delete"}"#, "\"mode\""),
            (r#"{"mode":"undo"}"#, "\"mode\""),
            (r#"{"mode":"sync","conection":"a"}"#, "did you mean \"connection\"?"),
            (r#"{"mode":"sync","connection":"../etc"}"#, "\"connection\""),
            (r#"{"mode":"sync","full":"yes"}"#, "\"full\""),
            (r#"{"mode":"sync","allow_mass_delete":1}"#, "\"allow_mass_delete\""),
            (r#"{"mode":"sync","only":"7"}"#, "\"only\""),
            (r#"{"mode":"sync","only":[7]}"#, "\"only\""),
            (r#"{"mode":"sync","only":[]}"#, "\"only\""),
            (r#"{"mode":"sync","only":["7"," "]}"#, "\"only\""),
            (r#"{"mode":"verify","only":["7"]}"#, "\"only\""),
            (r#"{"mode":"sync","approve":"yes"}"#, "\"approve\""),
            (
                r#"{"mode":"plan","approve":"0-1-0-00000000000000000000000000000abc"}"#,
                "only a sync is approved",
            ),
            (r#"{"source":"aws.s3","detail-type":"Object Created","detail":{}}"#, "\"source\""),
        ];
        for (event, expected) in table {
            let error = parse(&serde_json::from_str(event).unwrap()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadEvent);
            assert!(error.to_string().contains(expected), "{event}: {error}");
        }
    }
}
