//! The calls as they come: the last ones, for people who watch. Neither queries nor headers nor bodies: they hold tokens.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use http::header::AUTHORIZATION;
use tokio::time::Instant;

use crate::faults::{Echo, FaultKind};
use crate::response::json_response;
use crate::{ConnectionLost, Sandbox, Service, okki, qeasy};

/// Calls that are kept.
const MOST_CALLS: usize = 500;
/// Characters of a body that are repeated.
const ECHOED_CHARS: usize = 300;
/// Characters of a method and of a path that are kept.
const TEXT_CHARS: usize = 120;

/// A call that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Counts from 1.
    pub number: u64,
    /// When it was answered: milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Whom it was made to.
    pub service: Service,
    /// `GET`.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The status of its answer; `None` if the connection broke.
    pub status: Option<u16>,
    /// How long the answer took.
    pub took: Duration,
}

#[derive(Default)]
pub(crate) struct Calls {
    last: VecDeque<Call>,
    count: u64,
}

impl Calls {
    /// The calls after the one with this number, oldest first.
    fn after(&self, number: u64) -> Vec<Call> {
        self.last.iter().filter(|call| call.number > number).cloned().collect()
    }
}

/// Answers a call of one of the services, and notes it.
pub(crate) async fn answer(sandbox: &Sandbox, service: Service, request: Request) -> Response {
    let cut = |text: &str| text.chars().take(TEXT_CHARS).collect();
    let (method, path) = (cut(request.method().as_str()), cut(request.uri().path()));
    let since = Instant::now();
    let (request, echo) = with_echo(sandbox, request).await;
    let mut response = match service {
        Service::Okki => okki::answer(sandbox, request).await,
        Service::Target => qeasy::answer(sandbox, request).await,
    };
    if response.extensions().get::<Echo>().is_some() {
        let text = serde_json::json!({ "message": format!("cannot handle {echo}") });
        response = json_response(StatusCode::BAD_REQUEST, text.to_string());
    }
    let lost = response.extensions().get::<ConnectionLost>().is_some();
    let status = (!lost).then(|| response.status().as_u16());
    let at_ms = sandbox.now_ms();
    let calls = &mut sandbox.state().calls;
    calls.count += 1;
    if calls.last.len() == MOST_CALLS {
        calls.last.pop_front();
    }
    let number = calls.count;
    calls.last.push_back(Call { number, at_ms, service, method, path, status, took: since.elapsed() });
    response
}

/// The call as one text, if a fault will want it.
async fn with_echo(sandbox: &Sandbox, request: Request) -> (Request, String) {
    if !sandbox.state().faults.iter().any(|fault| fault.kind == FaultKind::Echo) {
        return (request, String::new());
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let start: String = String::from_utf8_lossy(&body).chars().take(ECHOED_CHARS).collect();
    let text = format!("{} {} with {token}: {start}", parts.method, parts.uri);
    (Request::from_parts(parts, body.into()), text)
}

impl Sandbox {
    /// The last calls to both services after the one with this number, oldest first; 500 are kept.
    pub fn calls_after(&self, number: u64) -> Vec<Call> {
        self.state().calls.after(number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::faults::{Endpoint, Fault, FaultKind};
    use crate::tests::{call, small};

    #[tokio::test(start_paused = true)]
    async fn the_last_calls_are_kept_without_what_is_secret() {
        let sandbox = small(|options| options.latency = Duration::from_millis(80));
        call(sandbox.target(), "POST", "/v2/open-api/business/x/store?access_token=hunter2", "hunter2", "[]")
            .await;
        sandbox.fault(Fault { at: Endpoint::OkkiGroups, kind: FaultKind::LostBefore, times: 1, after: 0 });
        call(sandbox.okki(), "GET", "/v1/product/groups", "", "").await;
        let calls = sandbox.calls_after(0);
        assert!(!format!("{calls:?}").contains("hunter2"));
        assert_eq!(calls[0].path, "/v2/open-api/business/x/store");
        assert_eq!((calls[0].status, calls[0].took), (Some(200), Duration::from_millis(80)));
        assert_eq!((calls[1].service, calls[1].status), (Service::Okki, None));
        assert_eq!(sandbox.calls_after(1).len(), 1);
        for _ in 0..600 {
            call(sandbox.okki(), "GET", "/v1/nothing", "", "").await;
        }
        assert_eq!((sandbox.calls_after(0).len(), sandbox.calls_after(0)[0].number), (500, 103));
    }
}
