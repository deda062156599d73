//! Faults on demand: what can go wrong with a call to the sandbox, and how the wrong answer is made.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Sandbox, okki, qeasy};

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
    pub(super) fn is_okki(self) -> bool {
        matches!(self, Self::OkkiToken | Self::OkkiGroups | Self::OkkiProducts)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
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
    /// The effect comes at once and the answer late; in JSON a number of seconds.
    Slow(#[serde(deserialize_with = "seconds")] Duration),
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
    /// The whole side refuses every call from now on, for [`super::Options::lockout`].
    Lockout,
}

impl Kind {
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
            Self::Slow(_) => "slow",
            Self::Redirect(_) => "redirect",
            Self::ShiftPages => "shift pages",
            Self::SwapRows => "swap rows",
            Self::Overloaded { .. } => "overloaded",
            Self::PartlyFailed(_) => "partly failed",
            Self::AccessDenied => "access denied",
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
    pub kind: Kind,
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

/// Marks an answer whose connection broke before its first byte, for callers that use the routers without a
/// connection: over TCP the client sees a closed connection, in process this extension and a failing body.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLost;

/// Takes the fault that strikes this call, if any; every other fault of the endpoint has one call less to wait.
pub(super) fn take(queue: &mut Vec<Fault>, at: Endpoint) -> Option<Kind> {
    let mut struck = None;
    for fault in queue.iter_mut() {
        if fault.at != at || matches!(fault.kind, Kind::PartlyFailed(_)) {
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
pub(super) fn failing_ids(queue: &mut Vec<Fault>, ids: &[String]) -> Vec<String> {
    let mut failing = Vec::new();
    for fault in queue.iter_mut() {
        let Kind::PartlyFailed(wanted) = &fault.kind else { continue };
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
pub(super) async fn through(sandbox: &Sandbox, at: Endpoint, answer: impl FnOnce() -> Response) -> Response {
    let kind = take(&mut sandbox.state().faults, at);
    let Some(kind) = kind else { return answer() };
    tracing::debug!(?at, ?kind, "sandbox fault");
    *sandbox.state().stats.struck.entry(kind.name()).or_default() += 1;
    match kind {
        Kind::PartlyFailed(_) => answer(),
        Kind::Throttle { retry_after_seconds } => throttled(sandbox, at, retry_after_seconds),
        Kind::Lockout => {
            let mut state = sandbox.state();
            let until = sandbox.now_ms() + state.options.lockout.as_millis() as u64;
            let seconds = state.options.lockout.as_secs();
            let side =
                if at.is_okki() { &mut state.okki.locked_until } else { &mut state.target.locked_until };
            *side = until;
            drop(state);
            throttled(sandbox, at, Some(seconds))
        }
        Kind::Status(code) => html(code),
        Kind::BodyCode(code, message) => {
            let state = sandbox.state();
            if at.is_okki() {
                okki::envelope(&state.options, sandbox.now_ms(), Some(code), &message, None)
            } else if at == Endpoint::HttpTarget {
                json(StatusCode::OK, serde_json::json!({"code": code, "message": message}).to_string())
            } else {
                let body =
                    serde_json::json!({"success": false, "code": code, "message": message, "content": null});
                json(StatusCode::OK, body.to_string())
            }
        }
        Kind::NotJson => json(StatusCode::OK, "系统维护中 <!-- down for maintenance -->".into()),
        Kind::Truncated => truncated(answer()).await,
        Kind::Giant(bytes) => giant(bytes),
        Kind::LostBefore => lost(),
        Kind::LostAfter => {
            answer();
            lost()
        }
        Kind::Slow(delay) => {
            // The effect comes first: a client that gives up waiting must not conclude that nothing happened.
            let late = answer();
            tokio::time::sleep(delay).await;
            late
        }
        Kind::Redirect(location) => {
            let mut response = html(302);
            if let Ok(value) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            response
        }
        Kind::ShiftPages => {
            let page = answer();
            sandbox.shift_pages();
            page
        }
        Kind::SwapRows => {
            let page = answer();
            sandbox.swap_rows();
            page
        }
        Kind::Overloaded { retry_after_seconds } => {
            let mut response = html(503);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds));
            response
        }
        Kind::AccessDenied => json(StatusCode::OK, r#"{"error":"access_denied"}"#.into()),
    }
}

fn throttled(sandbox: &Sandbox, at: Endpoint, retry_after: Option<u64>) -> Response {
    if at.is_okki() || at == Endpoint::HttpTarget {
        return okki::throttled(retry_after);
    }
    qeasy::throttled(sandbox.state().options.codes, sandbox.now_ms(), retry_after, None)
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn html(code: u16) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = format!("{code} {}", status.canonical_reason().unwrap_or("Error"));
    let body =
        format!("<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>nginx</body></html>");
    let mut response = json(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn broken() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "sandbox fault: the connection breaks")
}

/// hyper drops a connection whose body fails before the head was flushed, so no byte reaches the client.
fn lost() -> Response {
    let body = Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(broken()) }));
    let mut response = Response::new(body);
    response.extensions_mut().insert(ConnectionLost);
    response
}

async fn truncated(whole: Response) -> Response {
    let (mut parts, body) = whole.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let pieces = futures::stream::once(async move { Ok(half) }).chain(futures::stream::once(async {
        // Gives hyper the occasion to flush the first half; else the break would swallow it.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(broken())
    }));
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Valid JSON of exactly that size, if it is large enough to be JSON; made piece by piece and never held.
fn giant(bytes: u64) -> Response {
    const HEAD: &[u8] = br#"{"code":200,"data":""#;
    const TAIL: &[u8] = br#""}"#;
    let filler = bytes.saturating_sub((HEAD.len() + TAIL.len()) as u64);
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let middle = futures::stream::unfold(filler, move |left| {
        let piece = piece.clone();
        async move {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            (size > 0).then(|| (piece.slice(..size), left - size as u64))
        }
    });
    let whole = futures::stream::once(async { Bytes::from_static(HEAD) })
        .chain(middle)
        .chain(futures::stream::once(async { Bytes::from_static(TAIL) }))
        .map(Ok::<_, std::convert::Infallible>);
    let mut response = json(StatusCode::OK, String::new());
    *response.body_mut() = Body::from_stream(whole);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn faults_read_from_json_wait_and_run_out() {
        let text =
            r#"{"at":"okki_products","kind":{"throttle":{"retry_after_seconds":3}},"times":2,"after":1}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        let mut queue = vec![fault];
        let struck: Vec<bool> = (0..5).map(|_| take(&mut queue, Endpoint::OkkiProducts).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        let slow: Fault = serde_json::from_str(r#"{"at":"qeasy_store","kind":{"slow":1.5}}"#).unwrap();
        assert_eq!(slow.kind, Kind::Slow(Duration::from_millis(1500)));
        for kind in
            [r#""not_json""#, r#"{"body_code":[404,"x"]}"#, r#"{"partly_failed":["1"]}"#, r#"{"giant":9}"#]
                .into_iter()
                .chain([r#""swap_rows""#, r#"{"overloaded":{"retry_after_seconds":3}}"#])
        {
            serde_json::from_str::<Kind>(kind).unwrap();
        }
    }

    #[tokio::test]
    async fn a_giant_has_its_size_and_a_truncated_answer_breaks() {
        let body = axum::body::to_bytes(giant(200_000).into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len(), 200_000);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        let half = truncated(json(StatusCode::OK, "0123456789".into())).await;
        assert_eq!(half.headers()[header::CONTENT_LENGTH], "10");
        assert!(axum::body::to_bytes(half.into_body(), usize::MAX).await.is_err());
    }
}
