//! Faults on demand: what can go wrong with a call to the sandbox, the queue of what shall, and its effect.

use std::time::Duration;

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::response::{
    giant, html_response, json_response, lost, okki_envelope, okki_throttled, qeasy_failure, qeasy_throttled,
    truncated,
};
use crate::{Sandbox, Service};

/// Where a fault strikes, and what calls are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /v1/oauth2/access_token`.
    OkkiToken,
    /// `GET /v1/product/groups`.
    OkkiGroups,
    /// `GET /v1/product/list`.
    OkkiProducts,
    /// `POST /v2/oauth`.
    QeasyToken,
    /// `POST …/{scheme}/store`.
    QeasyStore,
    /// `POST …/{scheme}/query` and `GET …/{scheme}/find-one/{id}`.
    QeasyQuery,
    /// The plain HTTP target.
    HttpTarget,
}

impl Endpoint {
    pub(crate) fn service(self) -> Service {
        match self {
            Self::OkkiToken | Self::OkkiGroups | Self::OkkiProducts => Service::Okki,
            Self::QeasyToken | Self::QeasyStore | Self::QeasyQuery | Self::HttpTarget => Service::Target,
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Too many requests, once, with or without a word on when to come back.
    Throttle {
        /// `Retry-After`; absent if none.
        #[serde(default)]
        retry_after_seconds: Option<u64>,
    },
    /// An HTTP status with an HTML body, as gateways send it.
    Status(u16),
    /// HTTP 200 with a failing envelope: code and message.
    BodyCode(i64, String),
    /// HTTP 200 with text that is not JSON.
    NotJson,
    /// The right answer, broken off half-way through its declared body.
    Truncated,
    /// HTTP 200 with an endless-looking body of that many bytes.
    Giant(u64),
    /// The connection breaks and the call has had no effect.
    LostBefore,
    /// The connection breaks after the call has had its effect.
    LostAfter,
    /// The connection breaks and the effect comes that much later, whatever else happens until then; in JSON a number of
    /// seconds. Only calls that write to a target can be so late; others are lost.
    LostLate(#[serde(deserialize_with = "seconds")] Duration),
    /// The effect comes at once and the answer late; in JSON a number of seconds.
    Slow(#[serde(deserialize_with = "seconds")] Duration),
    /// The effect comes at once and the answer after [`Sandbox::release`].
    Hold,
    /// HTTP 302 to that address.
    Redirect(String),
    /// Right after this page of products the catalogue changes so that the next pages overlap (first
    /// time) or skip a row under a smaller total (second time), and so on in turn.
    ShiftPages,
    /// Right after this page of products the first product is deleted and another created: the next pages
    /// skip a row, and the total says nothing about it.
    SwapRows,
    /// HTTP 503 with `Retry-After`, as overloaded gateways send it.
    Overloaded {
        /// `Retry-After`.
        retry_after_seconds: u64,
    },
    /// Qeasy store: these ids fail in each call that holds one of them; only such calls are counted.
    PartlyFailed(Vec<String>),
    /// `{"error":"access_denied"}` under HTTP 200.
    AccessDenied,
    /// HTTP 400 with a text that repeats the call: its address, its token and its body.
    Echo,
    /// The whole side refuses every call from now on, for [`crate::Options::lockout`].
    Lockout,
}

impl FaultKind {
    /// A word for statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Throttle { retry_after_seconds: Some(_) } => "throttle with retry-after",
            Self::Throttle { retry_after_seconds: None } => "throttle",
            Self::Status(_) => "html status",
            Self::BodyCode(..) => "body code",
            Self::NotJson => "not json",
            Self::Truncated => "truncated",
            Self::Giant(_) => "giant",
            Self::LostBefore => "lost before",
            Self::LostAfter => "lost after",
            Self::LostLate(_) => "lost, late effect",
            Self::Slow(_) => "slow",
            Self::Hold => "hold",
            Self::Redirect(_) => "redirect",
            Self::ShiftPages => "shift pages",
            Self::SwapRows => "swap rows",
            Self::Overloaded { .. } => "overloaded",
            Self::PartlyFailed(_) => "partly failed",
            Self::AccessDenied => "access denied",
            Self::Echo => "echo",
            Self::Lockout => "lockout",
        }
    }
}

/// One fault, queued with [`Sandbox::fault`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Fault {
    /// Which calls it strikes.
    pub at: Endpoint,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many calls it strikes.
    #[serde(default = "once")]
    pub times: u32,
    /// How many calls it lets through first.
    #[serde(default)]
    pub after: u32,
}

fn once() -> u32 {
    1
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Sandbox {
    /// Queues a fault.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Lets [`FaultKind::Hold`] answer the calls it holds, and drops the ones that are queued.
    pub fn release(&self) {
        self.state().faults.retain(|fault| fault.kind != FaultKind::Hold);
        self.inner.releases.send_modify(|count| *count += 1);
    }

    /// Locks everybody out of a service from now on, for [`crate::Options::lockout`].
    pub fn lock_out(&self, service: Service) {
        let now = self.now_ms();
        let mut state = self.state();
        let until_ms = now + state.options.lockout.as_millis() as u64;
        match service {
            Service::Okki => state.okki.locked_until_ms = until_ms,
            Service::Target => state.qeasy.limit.locked_until_ms = until_ms,
        }
    }

    /// Drops all queued faults and ends lockouts.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.okki.locked_until_ms = 0;
        state.qeasy.limit.locked_until_ms = 0;
    }
}

/// Takes the fault that strikes this call, if any. Every other fault of the endpoint waits for one call less.
fn take(queue: &mut Vec<Fault>, at: Endpoint) -> Option<FaultKind> {
    let mut struck = None;
    for fault in queue.iter_mut() {
        if fault.at != at || matches!(fault.kind, FaultKind::PartlyFailed(_)) {
            continue;
        }
        if fault.after > 0 {
            fault.after -= 1;
        } else if struck.is_none() && fault.times > 0 {
            fault.times -= 1;
            struck = Some(fault.kind.clone());
        }
    }
    queue.retain(|fault| fault.times > 0);
    struck
}

/// The ids of a store call that shall fail.
pub(crate) fn failing_ids(queue: &mut Vec<Fault>, ids: &[String]) -> Vec<String> {
    let mut failing = Vec::new();
    for fault in queue.iter_mut() {
        let FaultKind::PartlyFailed(wanted) = &fault.kind else { continue };
        let hit: Vec<_> = wanted.iter().filter(|id| ids.contains(id)).cloned().collect();
        if fault.at != Endpoint::QeasyStore || hit.is_empty() {
            continue;
        }
        if fault.after > 0 {
            fault.after -= 1;
        } else {
            fault.times = fault.times.saturating_sub(1);
            failing.extend(hit);
        }
    }
    queue.retain(|fault| fault.times > 0);
    failing
}

/// Answers a call, through the fault that waits for it if there is one.
pub(crate) async fn through(sandbox: &Sandbox, at: Endpoint, answer: impl FnOnce() -> Response) -> Response {
    // Before a fault is taken: no release can fall between the two.
    let mut releases = sandbox.inner.releases.subscribe();
    let kind = take(&mut sandbox.state().faults, at);
    let Some(kind) = kind else { return answer() };
    tracing::debug!(?at, ?kind, "sandbox fault");
    *sandbox.state().stats.struck.entry(kind.name()).or_default() += 1;
    match kind {
        FaultKind::PartlyFailed(_) => answer(),
        FaultKind::Throttle { retry_after_seconds } => throttled(sandbox, at, retry_after_seconds),
        FaultKind::Echo => echo(),
        FaultKind::Lockout => lock_out(sandbox, at),
        FaultKind::Status(code) => html_response(code),
        FaultKind::BodyCode(code, message) => body_code(sandbox, at, code, &message),
        FaultKind::NotJson => {
            json_response(StatusCode::OK, "系统维护中 <!-- down for maintenance -->".into())
        }
        FaultKind::Truncated => truncated(answer()).await,
        FaultKind::Giant(bytes) => giant(bytes),
        FaultKind::LostBefore => lost(),
        FaultKind::LostAfter => {
            answer();
            lost()
        }
        FaultKind::LostLate(delay) => {
            let mut response = lost();
            response.extensions_mut().insert(Late(delay));
            response
        }
        FaultKind::Slow(delay) => {
            // The effect comes first: a client that gives up waiting must not conclude that nothing happened.
            let late = answer();
            tokio::time::sleep(delay).await;
            late
        }
        FaultKind::Hold => {
            let late = answer();
            // An error means that the sandbox is gone, and its caller with it.
            let _ = releases.changed().await;
            late
        }
        FaultKind::Redirect(location) => redirect(&location),
        FaultKind::ShiftPages => {
            let page = answer();
            sandbox.shift_pages();
            page
        }
        FaultKind::SwapRows => {
            let page = answer();
            sandbox.swap_rows();
            page
        }
        FaultKind::Overloaded { retry_after_seconds } => {
            let mut response = html_response(503);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            response
        }
        FaultKind::AccessDenied => json_response(StatusCode::OK, r#"{"error":"access_denied"}"#.into()),
    }
}

fn throttled(sandbox: &Sandbox, at: Endpoint, retry_after: Option<u64>) -> Response {
    if at.service() == Service::Okki || at == Endpoint::HttpTarget {
        return okki_throttled(retry_after);
    }
    qeasy_throttled(sandbox.state().options.codes, sandbox.now_ms(), retry_after, None)
}

fn lock_out(sandbox: &Sandbox, at: Endpoint) -> Response {
    sandbox.lock_out(at.service());
    let lockout = sandbox.state().options.lockout;
    throttled(sandbox, at, Some(lockout.as_secs()))
}

fn body_code(sandbox: &Sandbox, at: Endpoint, code: i64, message: &str) -> Response {
    if at.service() == Service::Okki {
        return okki_envelope(&sandbox.state().options, sandbox.now_ms(), Some(code), message, None);
    }
    let body = match at {
        Endpoint::HttpTarget => json!({"code": code, "message": message}).to_string(),
        _ => qeasy_failure(code, message),
    };
    json_response(StatusCode::OK, body)
}

/// Its text is filled in where the whole request is known.
fn echo() -> Response {
    let mut response = html_response(400);
    response.extensions_mut().insert(Echo);
    response
}

/// Marks a lost answer whose call has its effect later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Late(pub(crate) Duration);

/// Marks an answer that repeats its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echo;

fn redirect(location: &str) -> Response {
    let mut response = html_response(302);
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tests::{call, small};

    #[tokio::test]
    async fn a_held_call_is_answered_with_the_release_and_no_further_one_is_held() {
        let sandbox = small(|_| ());
        sandbox.fault(Fault { at: Endpoint::OkkiGroups, kind: FaultKind::Hold, times: 9, after: 0 });
        let groups = || call(sandbox.okki(), "GET", "/v1/product/groups", "", "");
        let held = tokio::spawn(groups());
        while sandbox.stats().struck.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!held.is_finished());
        sandbox.release();
        assert_eq!(held.await.unwrap().1["error"], "access_denied");
        assert_eq!(groups().await.1["error"], "access_denied");
    }

    #[test]
    fn faults_read_from_json_wait_and_run_out() {
        let text =
            r#"{"at":"okki_products","kind":{"throttle":{"retry_after_seconds":3}},"times":2,"after":1}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        let mut queue = vec![fault];
        let struck: Vec<bool> = (0..5).map(|_| take(&mut queue, Endpoint::OkkiProducts).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        let slow: Fault = serde_json::from_str(r#"{"at":"qeasy_store","kind":{"slow":1.5}}"#).unwrap();
        assert_eq!(slow.kind, FaultKind::Slow(Duration::from_millis(1500)));
        for kind in
            [r#""not_json""#, r#"{"body_code":[404,"x"]}"#, r#"{"partly_failed":["1"]}"#, r#"{"giant":9}"#]
                .into_iter()
                .chain([r#""hold""#, r#""swap_rows""#, r#"{"overloaded":{"retry_after_seconds":3}}"#])
        {
            serde_json::from_str::<FaultKind>(kind).unwrap();
        }
    }
}
