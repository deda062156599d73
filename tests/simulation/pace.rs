//! What the source sees of all processes together: its pace, and its silence once it is stored.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use tokio::time::Instant;
use tower::ServiceExt as _;

/// Both clocks count milliseconds, and each of two processes may round once.
const ROUNDING: Duration = Duration::from_millis(2);
/// A call more than the pace allows may fall into a second: both its ends count.
const BURST: usize = 2;
/// What is stored is asked for so often, and the answer takes a moment.
const KNOWN_WITHIN: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
struct Seen {
    calls: Vec<(Instant, String)>,
    /// From when until when a stored silence holds.
    silences: Vec<(Instant, Instant)>,
}

/// The source's calls, by whomever.
#[derive(Debug, Clone, Default)]
pub struct SourceCalls(Arc<Mutex<Seen>>);

impl SourceCalls {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// Listens to one process's wire.
    pub fn on(&self, inner: Router, process: u32) -> Router {
        let calls = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let inner = inner.clone();
            let call = format!("process {process} {}", request.uri().path());
            calls.seen().calls.push((Instant::now(), call));
            async move { inner.oneshot(request).await }
        })
    }

    /// The store holds a silence from now on.
    pub fn stored_silence(&self, left: Duration) {
        let now = Instant::now();
        self.seen().silences.push((now, now + left));
    }

    /// In no second more calls than the pace allows, and a second's rounding.
    pub fn keep_the_pace(&self, per_second: f64) -> Result<(), String> {
        let seen = self.seen();
        // A slow pace is one call in several seconds.
        let span = Duration::from_secs_f64((1.0 / per_second).max(1.0));
        let most = (per_second * span.as_secs_f64()).floor() as usize + BURST;
        for calls in seen.calls.windows(most + 1) {
            let took = calls[most].0 - calls[0].0;
            if took + ROUNDING < span {
                let told: Vec<_> = calls.iter().map(|(at, call)| (*at - calls[0].0, call)).collect();
                return Err(format!(
                    "pace: {} calls in {took:?} at {per_second} a second: {told:?}",
                    most + 1
                ));
            }
        }
        Ok(())
    }

    /// Once a silence is stored, nobody calls.
    pub fn heed_the_silence(&self) -> Result<(), String> {
        let seen = self.seen();
        for (from, until) in &seen.silences {
            let is_early = |at: Instant| at > *from + KNOWN_WITHIN && at + ROUNDING < *until;
            if let Some((at, call)) = seen.calls.iter().find(|(at, _)| is_early(*at)) {
                return Err(format!(
                    "pace: {call}, {:?} after a silence was stored that ends in {:?}",
                    *at - *from,
                    *until - *at
                ));
            }
        }
        Ok(())
    }
}
