//! The wires of a process: answers take time, and the target's wish for silence is watched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use okki_sync::testing::net::RETRY_AFTER_CAP;
use tokio::time::Instant;
use tower::ServiceExt as _;

/// An answer is on its way for a moment: a caller may die between the effect and the answer.
pub fn with_a_way_back(inner: Router, seen: impl Fn() + Clone + Send + Sync + 'static) -> Router {
    Router::new().fallback(move |request: axum::extract::Request| {
        let (inner, seen) = (inner.clone(), seen.clone());
        async move {
            let response = inner.oneshot(request).await;
            seen();
            tokio::time::sleep(Duration::from_millis(2)).await;
            response
        }
    })
}

/// What was said while it should have been quiet.
pub type Outbursts = Arc<Mutex<Vec<String>>>;

/// One process's wire to the target: once an answer that asks for silence has come back, no call leaves before its
/// time, whichever of the calls in flight was told.
pub fn listening(inner: Router, outbursts: &Outbursts) -> Router {
    let (outbursts, silent_until) = (Arc::clone(outbursts), Arc::new(Mutex::new(Instant::now())));
    Router::new().fallback(move |request: axum::extract::Request| {
        let (inner, outbursts, silent_until) = (inner.clone(), outbursts.clone(), silent_until.clone());
        async move {
            let early = silent_until.lock().unwrap().saturating_duration_since(Instant::now());
            // Clocks count milliseconds.
            if early > Duration::from_millis(1) {
                outbursts.lock().unwrap().push(format!("{} {early:?} too early", request.uri().path()));
            }
            let response = inner.oneshot(request).await.unwrap();
            let asked = matches!(response.status().as_u16(), 429 | 503);
            let seconds = response.headers().get("retry-after").filter(|_| asked);
            if let Some(seconds) = seconds.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()) {
                let until = Instant::now() + Duration::from_secs(seconds).min(RETRY_AFTER_CAP);
                let mut silent_until = silent_until.lock().unwrap();
                *silent_until = until.max(*silent_until);
            }
            response
        }
    })
}
