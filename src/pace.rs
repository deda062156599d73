//! Pacing: calls per second towards the source, calls per minute towards the target.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Slowest pace after repeated throttling: one call in this time.
const SLOWEST: Duration = Duration::from_secs(10);
/// How many good answers in a row earn a step back towards the configured pace.
const RECOVER_AFTER: u32 = 20;
/// The window of a per-minute limit.
pub const MINUTE_MS: u64 = 60_000;

/// Spaces calls evenly: at most so many per second; halves on throttling and recovers step by step.
#[derive(Debug)]
pub struct PerSecond {
    state: Mutex<Spacing>,
    configured: Duration,
}

#[derive(Debug)]
struct Spacing {
    interval: Duration,
    next: Instant,
    good: u32,
}

impl PerSecond {
    /// At most `calls_per_second` (more than 0).
    pub fn new(calls_per_second: f64) -> Self {
        let configured = Duration::from_secs_f64(1.0 / calls_per_second.clamp(0.01, 1_000_000.0));
        Self {
            state: Mutex::new(Spacing { interval: configured, next: Instant::now(), good: 0 }),
            configured,
        }
    }

    /// Waits for the next free slot.
    pub async fn slot(&self) {
        let at = {
            let mut state = self.state.lock().await;
            let at = state.next.max(Instant::now());
            state.next = at + state.interval;
            at
        };
        tokio::time::sleep_until(at).await;
    }

    /// The other side asked for less: half the pace, and nobody calls before `wait` is over.
    pub async fn slow_down(&self, wait: Duration) {
        let mut state = self.state.lock().await;
        state.interval = (state.interval * 2).min(SLOWEST.max(self.configured));
        state.next = state.next.max(Instant::now() + wait);
        state.good = 0;
    }

    /// A good answer; enough of them bring the configured pace back.
    pub async fn went_well(&self) {
        let mut state = self.state.lock().await;
        state.good += 1;
        if state.good >= RECOVER_AFTER && state.interval > self.configured {
            state.interval = (state.interval * 3 / 4).max(self.configured);
            state.good = 0;
        }
    }
}

/// A sliding window of one minute. It holds wall-clock times, so that it can be kept in the state from run to run.
#[derive(Debug, Clone, Default)]
pub struct PerMinute {
    limit: usize,
    calls_ms: VecDeque<u64>,
}

impl PerMinute {
    /// At most `limit` calls in any minute, `calls_ms` of which were made before (wall-clock, milliseconds).
    pub fn new(limit: u32, calls_ms: impl IntoIterator<Item = u64>) -> Self {
        Self { limit: limit.max(1) as usize, calls_ms: calls_ms.into_iter().collect() }
    }

    /// How long to wait before the next call; zero if it may go now.
    pub fn wait(&mut self, now_ms: u64) -> Duration {
        // A call "in the future" is a clock that was set back: keep counting it, but no longer than a minute.
        while self.calls_ms.front().is_some_and(|&at| at + MINUTE_MS <= now_ms || at > now_ms + MINUTE_MS) {
            self.calls_ms.pop_front();
        }
        let over = (self.calls_ms.len() + 1).saturating_sub(self.limit);
        match over.checked_sub(1).and_then(|n| self.calls_ms.get(n)) {
            Some(&at) => Duration::from_millis((at + MINUTE_MS).saturating_sub(now_ms)),
            None => Duration::ZERO,
        }
    }

    /// A call is being made.
    pub fn count(&mut self, now_ms: u64) {
        self.calls_ms.push_back(now_ms);
    }

    /// The calls of the last minute, to be kept in the state.
    pub fn calls_ms(&self) -> Vec<u64> {
        self.calls_ms.iter().copied().collect()
    }

    /// Adds calls that another run made (kept in the state). Those that are our own count once; of several calls in
    /// one millisecond each counts.
    pub fn remember(&mut self, calls_ms: impl IntoIterator<Item = u64>) {
        let mut ours: HashMap<u64, usize> = HashMap::new();
        for at in &self.calls_ms {
            *ours.entry(*at).or_default() += 1;
        }
        let is_new = |at: &u64| match ours.get_mut(at) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        };
        let new: Vec<u64> = calls_ms.into_iter().filter(is_new).collect();
        let mut all: Vec<u64> = self.calls_ms.iter().copied().chain(new).collect();
        all.sort_unstable();
        self.calls_ms = all.into();
    }

    /// The server's own limit is lower than ours: believe it.
    pub fn lower_to(&mut self, limit: usize) {
        self.limit = self.limit.min(limit.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_ever_holds_more_calls_than_the_limit() {
        let mut pace = PerMinute::new(3, []);
        let mut now_ms = 1_000_000;
        let mut calls = Vec::new();
        for _ in 0..10 {
            now_ms += u64::try_from(pace.wait(now_ms).as_millis()).unwrap_or(0);
            pace.count(now_ms);
            calls.push(now_ms);
            now_ms += 7;
        }
        for window in calls.windows(4) {
            assert!(window.last() >= window.first().map(|first| first + MINUTE_MS).as_ref(), "{window:?}");
        }
    }

    #[test]
    fn remembered_calls_of_one_millisecond_count_each_and_our_own_count_once() {
        let mut pace = PerMinute::new(9, [5, 5]);
        pace.remember([5, 5, 5, 7]);
        assert_eq!(pace.calls_ms(), [5, 5, 5, 7]);
        pace.remember([5, 5, 5, 7]);
        assert_eq!(pace.calls_ms(), [5, 5, 5, 7]);
    }

    #[test]
    fn calls_of_an_earlier_run_count() {
        let mut pace = PerMinute::new(2, [1_000, 31_000]);
        assert_eq!(pace.wait(41_000), Duration::from_secs(20));
        assert_eq!(pace.wait(61_000), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_pace_and_stops_everybody_until_the_wait_is_over() {
        let pace = PerSecond::new(10.0);
        let start = Instant::now();
        pace.slot().await;
        pace.slow_down(Duration::from_secs(5)).await;
        pace.slot().await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        let before = Instant::now();
        pace.slot().await;
        assert_eq!(before.elapsed().as_millis(), 200);
        for _ in 0..100 {
            pace.went_well().await;
        }
        pace.slot().await;
        let before = Instant::now();
        pace.slot().await;
        assert_eq!(before.elapsed().as_millis(), 100);
    }
}
