//! The calls as they come: the last ones, for people who watch. Neither queries nor headers nor bodies: they hold tokens.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use tokio::time::Instant;

use crate::{ConnectionLost, Sandbox, Service, okki, qeasy};

/// Calls that are kept.
const MOST_CALLS: usize = 500;
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
    let response = match service {
        Service::Okki => okki::answer(sandbox, request).await,
        Service::Target => qeasy::answer(sandbox, request).await,
    };
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
