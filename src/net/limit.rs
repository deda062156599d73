//! Pacing: calls per second towards the source, calls per minute towards the target.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Slowest pace after repeated throttling: one call in this time.
const SLOWEST: Duration = Duration::from_secs(10);
/// The timer counts milliseconds.
const TIMER: Duration = Duration::from_millis(1);
/// How many good answers in a row earn a step back towards the configured pace.
const RECOVER_AFTER: u32 = 20;
/// The window of a per-minute limit.
pub(crate) const MINUTE_MS: u64 = 60_000;
/// Calls are reserved by this share of the limit: fewer writes to the store against fewer calls lost to a crash.
const RESERVED_SHARE: usize = 8;
/// A reservation that is not used within this time is made anew.
const RESERVED_FOR_MS: u64 = 5_000;

/// Spaces calls evenly, at most so many per second and so many at a time. Both halve when the other side asks
/// for less or grows slow, and recover step by step.
#[derive(Debug)]
pub(crate) struct PerSecond {
    state: Mutex<Spacing>,
    in_flight: Semaphore,
    configured: Duration,
    max_in_flight: usize,
}

#[derive(Debug)]
struct Spacing {
    interval: Duration,
    next: Instant,
    good: u32,
    /// Calls that may be in flight now.
    permits: usize,
    /// Permits of calls in flight that are to be given up.
    surplus: usize,
}

impl PerSecond {
    /// At most `calls_per_second` (more than 0), and `max_in_flight` at a time.
    pub(crate) fn new(calls_per_second: f64, max_in_flight: usize) -> Self {
        let configured = Duration::from_secs_f64(1.0 / calls_per_second.clamp(0.01, 1_000_000.0));
        let max_in_flight = max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let state = Spacing {
            interval: configured,
            next: Instant::now(),
            good: 0,
            permits: max_in_flight,
            surplus: 0,
        };
        Self { state: Mutex::new(state), in_flight: Semaphore::new(max_in_flight), configured, max_in_flight }
    }

    /// Waits for the next free slot. The call is in flight until the permit is dropped.
    pub(crate) async fn slot(&self) -> Option<SemaphorePermit<'_>> {
        let (permit, at, slack) = loop {
            // The semaphore is never closed.
            let permit = self.in_flight.acquire().await.ok();
            let mut state = self.state.lock().await;
            if state.surplus == 0 {
                let slack = if state.interval < TIMER { TIMER } else { Duration::ZERO };
                let now = Instant::now();
                // What a sleep took too long is made up for, so far.
                let at = state.next.max(now.checked_sub(slack).unwrap_or(now));
                state.next = at + state.interval;
                break (permit, at, slack);
            }
            state.surplus -= 1;
            permit.into_iter().for_each(SemaphorePermit::forget);
        };
        // A slot that is free already is not waited for, nor one that is nearer than the timer can tell; a pace beyond the
        // timer's is kept by the slots that are further away.
        if at > Instant::now() + slack {
            tokio::time::sleep_until(at).await;
        }
        permit
    }

    /// The other side asked for less, or is slow: half the pace, half at a time, and nobody calls before `wait` is over.
    pub(crate) async fn slow_down(&self, wait: Duration) {
        let mut state = self.state.lock().await;
        state.interval = (state.interval * 2).min(SLOWEST.max(self.configured));
        state.next = state.next.max(Instant::now() + wait);
        state.good = 0;
        let half = (state.permits / 2).max(1);
        // Those in flight are given up when they come back.
        let given_up = self.in_flight.forget_permits(state.permits - half);
        state.surplus += state.permits - half - given_up;
        state.permits = half;
    }

    /// A good answer; enough of them bring the configured pace back.
    pub(crate) async fn on_success(&self) {
        let mut state = self.state.lock().await;
        state.good += 1;
        if state.good < RECOVER_AFTER {
            return;
        }
        state.good = 0;
        state.interval = (state.interval * 3 / 4).max(self.configured);
        if state.permits < self.max_in_flight {
            state.permits += 1;
            match state.surplus {
                0 => self.in_flight.add_permits(1),
                _ => state.surplus -= 1,
            }
        }
    }
}

/// A sliding window of one minute. It holds wall-clock times, so that it can be kept in the store from run to run.
///
/// Calls are reserved a few at a time, and the reservation is kept in the store before the first of them is made:
/// a run that is killed leaves at most calls that were never made, and never one that nobody counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct PerMinute {
    /// As configured.
    configured: usize,
    /// What the server's headers leave of it.
    limit: usize,
    calls_ms: VecDeque<u64>,
    reserved: usize,
    reserved_until_ms: u64,
    hold_until_ms: u64,
}

impl PerMinute {
    /// At most `limit` calls in any minute, `calls_ms` of which were made before (wall-clock, milliseconds).
    pub(crate) fn new(limit: u32, calls_ms: impl IntoIterator<Item = u64>) -> Self {
        let limit = limit.max(1) as usize;
        Self {
            configured: limit,
            limit,
            calls_ms: calls_ms.into_iter().collect(),
            reserved: 0,
            reserved_until_ms: 0,
            hold_until_ms: 0,
        }
    }

    /// How long to wait before the next call; zero if it may go now.
    pub(crate) fn wait(&mut self, now_ms: u64) -> Duration {
        // A call "in the future" is a clock that was set back: count it as made now.
        for at in self.calls_ms.iter_mut().rev().take_while(|at| **at > now_ms) {
            *at = now_ms;
        }
        while self.calls_ms.front().is_some_and(|&at| at + MINUTE_MS <= now_ms) {
            self.calls_ms.pop_front();
        }
        self.hold_until_ms = self.hold_until_ms.min(now_ms + MINUTE_MS);
        let over = (self.calls_ms.len() + 1).saturating_sub(self.limit);
        let free_at_ms = match over.checked_sub(1).and_then(|n| self.calls_ms.get(n)) {
            Some(&at) => at + MINUTE_MS,
            None => now_ms,
        };
        Duration::from_millis(free_at_ms.max(self.hold_until_ms).saturating_sub(now_ms))
    }

    /// Reserves the next few calls if none are left; true says that [`Self::persisted_ms`] must be stored before the next call.
    pub(crate) fn reserve(&mut self, now_ms: u64) -> bool {
        if self.reserved > 0 && now_ms < self.reserved_until_ms {
            return false;
        }
        let free = self.limit.saturating_sub(self.calls_ms.len());
        self.reserved = free.min(self.limit.div_ceil(RESERVED_SHARE)).max(1);
        self.reserved_until_ms = now_ms + RESERVED_FOR_MS;
        true
    }

    /// A call is being made.
    pub(crate) fn count(&mut self, now_ms: u64) {
        self.reserved = self.reserved.saturating_sub(1);
        self.calls_ms.push_back(now_ms);
    }

    /// The run is over: what was reserved and not used is free again.
    pub(crate) fn release_reserved(&mut self) {
        self.reserved = 0;
    }

    /// The calls of the last minute and those that are reserved (as late as they may be made), to be kept in the store.
    pub(crate) fn persisted_ms(&self) -> Vec<u64> {
        let reserved = std::iter::repeat_n(self.reserved_until_ms, self.reserved);
        self.calls_ms.iter().copied().chain(reserved).collect()
    }

    /// Adds calls that another run made (kept in the store). Those that are our own count once; of several calls in
    /// one millisecond each counts.
    pub(crate) fn remember(&mut self, calls_ms: impl IntoIterator<Item = u64>) {
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

    /// Believes the server's own numbers (`X-RateLimit-*`), less a share that is left to others with the same key:
    /// a limit below ours becomes ours, and when others use the minute up we hold until it is over.
    pub(crate) fn observe(&mut self, said: RateLimit, reserve_ratio: f64, now_ms: u64) {
        let Some(limit) = said.limit.filter(|limit| *limit > 0) else { return };
        let reserve = share(limit, reserve_ratio);
        self.limit = self.configured.min(limit.saturating_sub(reserve).max(1));
        // Our own calls can use up no more than our share: below the reserve, somebody else is calling.
        if said.remaining.is_some_and(|remaining| remaining < reserve) {
            self.hold_until_ms = now_ms + said.reset_in_ms.unwrap_or(MINUTE_MS).min(MINUTE_MS);
        }
    }
}

/// A share of a limit, rounded down.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits are thousands of calls"
)]
fn share(limit: usize, ratio: f64) -> usize {
    (limit as f64 * ratio.clamp(0.0, 1.0)).floor() as usize
}

/// What `X-RateLimit-Limit`, `-Remaining` and `-Reset` say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// Calls a minute.
    pub limit: Option<usize>,
    /// Calls left.
    pub remaining: Option<usize>,
    /// Time until all are free again.
    pub reset_in_ms: Option<u64>,
}

/// From this on, `X-RateLimit-Reset` is a time in seconds since 1970; below, seconds from now.
const EPOCH_SECONDS_FROM: u64 = 1_000_000_000;

impl RateLimit {
    /// Reads the headers; what is missing or no number is none.
    pub(crate) fn of(headers: &http::HeaderMap, now_ms: u64) -> Self {
        let number =
            |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok() };
        let count = |name: &str| number(name).and_then(|n| usize::try_from(n).ok());
        let reset_in_ms = number("x-ratelimit-reset").map(|reset| match reset {
            EPOCH_SECONDS_FROM.. => reset.saturating_mul(1000).saturating_sub(now_ms),
            seconds => seconds.saturating_mul(1000),
        });
        Self { limit: count("x-ratelimit-limit"), remaining: count("x-ratelimit-remaining"), reset_in_ms }
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
        assert_eq!(pace.persisted_ms(), [5, 5, 5, 7]);
        pace.remember([5, 5, 5, 7]);
        assert_eq!(pace.persisted_ms(), [5, 5, 5, 7]);
    }

    #[test]
    fn calls_are_reserved_before_they_are_made_and_given_back_at_the_end() {
        let mut pace = PerMinute::new(24, []);
        assert!(pace.reserve(1_000));
        assert_eq!(pace.persisted_ms(), [6_000; 3]);
        pace.count(1_000);
        assert!(!pace.reserve(2_000));
        pace.count(2_000);
        assert_eq!(pace.persisted_ms(), [1_000, 2_000, 6_000]);
        assert!(pace.reserve(6_000), "what is not used in time is reserved anew");
        assert_eq!(pace.persisted_ms(), [1_000, 2_000, 11_000, 11_000, 11_000]);
        pace.release_reserved();
        assert_eq!(pace.persisted_ms(), [1_000, 2_000]);
    }

    #[test]
    fn calls_of_a_clock_that_was_set_back_count_for_a_minute_and_no_longer() {
        let mut pace = PerMinute::new(1, [3_600_000]);
        assert_eq!(pace.wait(1_000), Duration::from_secs(60));
        assert_eq!(pace.wait(61_000), Duration::ZERO);
    }

    #[test]
    fn the_server_s_own_numbers_are_believed_less_a_reserve() {
        let mut pace = PerMinute::new(50, []);
        let said = |limit, remaining, reset| RateLimit {
            limit: Some(limit),
            remaining: Some(remaining),
            reset_in_ms: Some(reset),
        };
        pace.observe(said(30, 29, 60_000), 0.2, 0);
        assert_eq!(pace.limit, 24);
        assert_eq!(pace.wait(0), Duration::ZERO);
        pace.observe(said(30, 5, 7_000), 0.2, 0);
        assert_eq!(pace.wait(0), Duration::from_secs(7), "others use the same key");
        pace.observe(said(5000, 4999, 7_000), 0.2, 0);
        assert_eq!(pace.limit, 50, "a larger limit does not lift the configured one");
        pace.observe(said(30, 29, 0), 0.0, 0);
        assert_eq!(pace.limit, 30);
    }

    #[test]
    fn rate_limit_headers_are_read_with_a_reset_in_seconds_or_as_a_time() {
        let headers = |reset: &str| {
            [("x-ratelimit-limit", "60"), ("x-ratelimit-remaining", "x"), ("x-ratelimit-reset", reset)]
                .into_iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.parse()))
                .filter_map(|(name, value)| Some((name, value.ok()?)))
                .collect::<http::HeaderMap>()
        };
        let now_ms = 1_800_000_000_000;
        let said = RateLimit::of(&headers("12"), now_ms);
        assert_eq!(said, RateLimit { limit: Some(60), remaining: None, reset_in_ms: Some(12_000) });
        assert_eq!(RateLimit::of(&headers("1800000030"), now_ms).reset_in_ms, Some(30_000));
        assert_eq!(RateLimit::of(&headers("soon"), now_ms).reset_in_ms, None);
    }

    #[test]
    fn calls_of_an_earlier_run_count() {
        let mut pace = PerMinute::new(2, [1_000, 31_000]);
        assert_eq!(pace.wait(41_000), Duration::from_secs(20));
        assert_eq!(pace.wait(61_000), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_pace_and_stops_everybody_until_the_wait_is_over() {
        let pace = PerSecond::new(10.0, 4);
        let start = Instant::now();
        pace.slot().await;
        pace.slow_down(Duration::from_secs(5)).await;
        pace.slot().await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        let before = Instant::now();
        pace.slot().await;
        assert_eq!(before.elapsed().as_millis(), 200);
        for _ in 0..100 {
            pace.on_success().await;
        }
        pace.slot().await;
        let before = Instant::now();
        pace.slot().await;
        assert_eq!(before.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_beyond_the_timer_is_kept_on_average_and_at_most_2_ms_early() {
        let (pace, start) = (PerSecond::new(10_000.0, 100), Instant::now());
        for call in 0..1_000_u32 {
            pace.slot().await;
            assert!(start.elapsed() + 2 * TIMER >= pace.configured * call, "call {call}");
        }
        assert!(start.elapsed() <= Duration::from_millis(105), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_when_the_number_is_halved_are_dropped_on_return() {
        let pace = PerSecond::new(1_000.0, 4);
        let in_flight = [pace.slot().await, pace.slot().await, pace.slot().await, pace.slot().await];
        pace.slow_down(Duration::ZERO).await;
        drop(in_flight);
        let two = [pace.slot().await, pace.slot().await];
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.slot()).await.is_err());
        drop(two);
        assert!(pace.slot().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_number_at_a_time_and_good_answers_bring_it_back() {
        let pace = PerSecond::new(1_000.0, 4);
        let free = || pace.in_flight.available_permits();
        pace.slow_down(Duration::ZERO).await;
        assert_eq!(free(), 2);
        for _ in 0..3 {
            pace.slow_down(Duration::ZERO).await;
        }
        assert_eq!(free(), 1);
        for _ in 0..RECOVER_AFTER * 9 {
            pace.on_success().await;
        }
        assert_eq!(free(), 4);
    }
}
