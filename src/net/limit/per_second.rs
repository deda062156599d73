//! Calls per second, evenly spaced, at most N at a time. Both halve when the other side asks for less or grows slow, and
//! recover step by step. All connections of an account in this process take their slots here, in the order in which they
//! ask; one at a time waits for its slot, the others behind it. Other processes have the slots between our stretches
//! (`stretch.rs`).
//!
//! tokio's timer wakes on whole milliseconds. A pace beyond 1,000 calls a second (a local server, a benchmark) therefore
//! cannot sleep for each slot. Slots that are due within the next millisecond start at once, and up to one millisecond of
//! oversleep is made up for. The rate is then met on average, and no call is early by more than 2 ms. At 10,000 calls a
//! second (`interval` 0.1 ms) the first callers of an idle pace see:
//!
//! | call | now (ms) | slot `at` (ms) | what happens                                                        |
//! |-----:|---------:|---------------:|---------------------------------------------------------------------|
//! |    1 |      0.0 |            0.0 | goes at once                                                        |
//! |   11 |      0.0 |            1.0 | goes at once: not later than now + 1 ms                             |
//! |   12 |      0.0 |            1.1 | sleeps until 1.1, the timer wakes it at 2.0                         |
//! |   13 |      2.0 |            1.2 | goes at once: the slots of the oversleep are still free, down to 1.0 |
//! |   31 |      2.0 |            3.0 | goes at once; call 32 sleeps again                                  |
//!
//! At 1,000 calls a second or less `slack` is zero: every call waits for its slot, and missed slots are lost.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Shared;
use crate::budget::Budget;
use crate::error::Result;

/// Slowest pace after repeated throttling: one call in this time.
const SLOWEST: Duration = Duration::from_secs(10);
/// The resolution of tokio's timer.
const TIMER: Duration = Duration::from_millis(1);
/// How many good answers in a row earn a step back towards the configured pace.
const RECOVER_AFTER: u32 = 20;

#[derive(Debug)]
pub(crate) struct PerSecond {
    state: Mutex<Spacing>,
    in_flight: Semaphore,
    /// Whoever waits for the next slot.
    first_in_line: tokio::sync::Mutex<()>,
    /// `None`: no other process calls.
    shared: Option<Shared>,
}

#[derive(Debug)]
struct Spacing {
    /// Between two calls at the configured pace.
    configured: Duration,
    max_in_flight: usize,
    interval: Duration,
    /// When the next slot is due.
    next: Instant,
    good: u32,
    /// Calls that may be in flight now.
    permits: usize,
    /// Permits of calls in flight that are to be given up when those calls return.
    surplus: usize,
}

impl PerSecond {
    /// At most `calls_per_second` (more than 0), and `max_in_flight` at a time.
    pub(super) fn new(calls_per_second: f64, max_in_flight: usize, shared: Option<Shared>) -> Self {
        let configured = interval(calls_per_second);
        let max_in_flight = max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let state = Spacing {
            configured,
            max_in_flight,
            interval: configured,
            next: Instant::now(),
            good: 0,
            permits: max_in_flight,
            surplus: 0,
        };
        let first_in_line = tokio::sync::Mutex::default();
        Self { state: Mutex::new(state), in_flight: Semaphore::new(max_in_flight), first_in_line, shared }
    }

    /// From now on this. A pace that was halved recovers towards it.
    pub(super) fn configure(&self, calls_per_second: f64, max_in_flight: usize) {
        let (configured, max_in_flight) =
            (interval(calls_per_second), max_in_flight.clamp(1, Semaphore::MAX_PERMITS));
        let mut state = self.state();
        let (is_at_pace, is_at_most) =
            (state.interval == state.configured, state.permits == state.max_in_flight);
        state.configured = configured;
        state.interval = if is_at_pace { configured } else { state.interval.max(configured) };
        state.max_in_flight = max_in_flight;
        if state.permits > max_in_flight {
            self.give_up(&mut state, max_in_flight);
        } else if is_at_most {
            let more = max_in_flight - state.permits;
            let kept = more.min(state.surplus);
            state.surplus -= kept;
            state.permits = max_in_flight;
            self.in_flight.add_permits(more - kept);
        }
    }

    /// Nothing panics while it holds the state.
    fn state(&self) -> MutexGuard<'_, Spacing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Down to so many permits; calls in flight give theirs up when they return.
    fn give_up(&self, state: &mut Spacing, permits: usize) {
        let fewer = state.permits - permits;
        state.surplus += fewer - self.in_flight.forget_permits(fewer);
        state.permits = permits;
    }

    /// Waits for the next free slot. The call is in flight until the permit is dropped. An error if other processes have
    /// met a silence that is too long for this run.
    pub(super) async fn acquire(&self, budget: &Budget, what: &str) -> Result<Option<SemaphorePermit<'_>>> {
        let permit = self.permit().await;
        let _first = self.first_in_line.lock().await;
        loop {
            let Slot { mut at, interval, slack } = self.state().slot();
            if let Some(shared) = &self.shared {
                at = shared.slot(budget, what, at, interval).await?;
            }
            if at > Instant::now() + slack {
                tokio::time::sleep_until(at).await;
            }
            if self.begins(at) {
                return Ok(permit);
            }
        }
    }

    /// A permit to be in flight.
    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        loop {
            // The semaphore is never closed.
            let permit = self.in_flight.acquire().await.ok();
            let mut state = self.state();
            if state.surplus == 0 {
                return permit;
            }
            state.surplus -= 1;
            permit.into_iter().for_each(SemaphorePermit::forget);
        }
    }

    /// Takes the slot at `at`, which has come; `false` if there is more to wait for by now.
    fn begins(&self, at: Instant) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        if state.next > at || self.shared.as_ref().is_some_and(|shared| !shared.allows(now)) {
            return false;
        }
        // Whoever looked what others do came late; the next call keeps its distance all the same.
        let is_late = state.slack().is_zero() && now > at + 2 * TIMER;
        state.next = if is_late { now } else { at } + state.interval;
        true
    }

    /// The other side wants no call for this long; other processes are told.
    pub(super) async fn block(&self, wait: Duration) {
        if let Some(shared) = &self.shared {
            shared.block(wait).await;
        }
    }

    /// See [`Shared::give_back`].
    pub(super) async fn give_back(&self, always: bool) {
        let next = self.state().next;
        if let Some(shared) = &self.shared {
            shared.give_back(next, always).await;
        }
    }

    /// The other side asked for less, or is slow: half the pace, half at a time, and no call before `wait` has passed.
    pub(super) fn slow_down(&self, wait: Duration) {
        let mut state = self.state();
        state.interval = (state.interval * 2).min(SLOWEST.max(state.configured));
        state.next = state.next.max(Instant::now() + wait);
        state.good = 0;
        let half = (state.permits / 2).max(1);
        self.give_up(&mut state, half);
    }

    /// Enough good answers in a row bring the configured pace back, step by step.
    pub(super) fn on_success(&self) {
        let mut state = self.state();
        state.good += 1;
        if state.good < RECOVER_AFTER {
            return;
        }
        state.good = 0;
        state.interval = (state.interval * 3 / 4).max(state.configured);
        if state.permits < state.max_in_flight {
            state.permits += 1;
            match state.surplus {
                0 => self.in_flight.add_permits(1),
                _ => state.surplus -= 1,
            }
        }
    }
}

/// When the next call is due.
struct Slot {
    at: Instant,
    /// The slot after it comes so much later.
    interval: Duration,
    /// How much too early it may go.
    slack: Duration,
}

impl Spacing {
    fn slot(&self) -> Slot {
        let (now, slack) = (Instant::now(), self.slack());
        // Carries over at most `slack` of oversleep.
        let at = self.next.max(now.checked_sub(slack).unwrap_or(now));
        Slot { at, interval: self.interval, slack }
    }

    fn slack(&self) -> Duration {
        if self.interval < TIMER { TIMER } else { Duration::ZERO }
    }
}

fn interval(calls_per_second: f64) -> Duration {
    Duration::from_secs_f64(1.0 / calls_per_second.clamp(0.01, 1_000_000.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::watch;

    use super::*;

    impl PerSecond {
        async fn acquire_alone(&self) -> Option<SemaphorePermit<'_>> {
            let budget = Budget::new(None, watch::Sender::new(false).subscribe());
            self.acquire(&budget, "call").await.unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_lowered_and_raised_while_it_is_in_use() {
        let (pace, start) = (PerSecond::new(10.0, 4, None), Instant::now());
        pace.configure(5.0, 2);
        for call in 0..10_u32 {
            drop(pace.acquire_alone().await);
            assert_eq!(start.elapsed(), Duration::from_millis(200) * call);
        }
        let two = [pace.acquire_alone().await, pace.acquire_alone().await];
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.acquire_alone()).await.is_err());
        pace.configure(10.0, 1);
        drop(two);
        let one = pace.acquire_alone().await;
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.acquire_alone()).await.is_err());
        drop(one);
        pace.configure(10.0, 3);
        assert_eq!(pace.in_flight.available_permits(), 3);
        pace.slow_down(Duration::ZERO);
        pace.configure(20.0, 3);
        for _ in 0..RECOVER_AFTER * 9 {
            pace.on_success();
        }
        let state = pace.state();
        assert_eq!((state.interval, state.permits), (Duration::from_millis(50), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_pace_and_stops_everybody_until_the_wait_is_over() {
        let pace = PerSecond::new(10.0, 4, None);
        let start = Instant::now();
        pace.acquire_alone().await;
        pace.slow_down(Duration::from_secs(5));
        pace.acquire_alone().await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        let before = Instant::now();
        pace.acquire_alone().await;
        assert_eq!(before.elapsed().as_millis(), 200);
        for _ in 0..100 {
            pace.on_success();
        }
        pace.acquire_alone().await;
        let before = Instant::now();
        pace.acquire_alone().await;
        assert_eq!(before.elapsed().as_millis(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_in_line_when_another_one_is_throttled_waits_too() {
        let (pace, start) = (PerSecond::new(1.0, 4, None), Instant::now());
        pace.acquire_alone().await;
        let throttled = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            pace.slow_down(Duration::from_secs(5));
        };
        tokio::join!(pace.acquire_alone(), throttled);
        assert!(start.elapsed() >= Duration::from_millis(5_500), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_beyond_the_timer_is_met_on_average_and_2_ms_early_at_most() {
        let (pace, start) = (PerSecond::new(10_000.0, 100, None), Instant::now());
        for call in 0..1_000_u32 {
            pace.acquire_alone().await;
            assert!(start.elapsed() + 2 * TIMER >= pace.state().configured * call, "call {call}");
        }
        assert!(start.elapsed() <= Duration::from_millis(105), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_when_the_number_halves_are_given_up_when_they_end() {
        let pace = PerSecond::new(1_000.0, 4, None);
        let in_flight = [
            pace.acquire_alone().await,
            pace.acquire_alone().await,
            pace.acquire_alone().await,
            pace.acquire_alone().await,
        ];
        pace.slow_down(Duration::ZERO);
        drop(in_flight);
        let two = [pace.acquire_alone().await, pace.acquire_alone().await];
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.acquire_alone()).await.is_err());
        drop(two);
        assert!(pace.acquire_alone().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_in_flight_count_while_the_number_is_lowered_and_raised() {
        let pace = PerSecond::new(1_000.0, 4, None);
        let mut in_flight = Vec::new();
        for _ in 0..4 {
            in_flight.push(pace.acquire_alone().await);
        }
        pace.configure(1_000.0, 1);
        pace.configure(1_000.0, 3);
        drop(in_flight.pop());
        assert!(tokio::time::timeout(Duration::from_secs(60), pace.acquire_alone()).await.is_err());
        for free in 1..=3 {
            drop(in_flight.pop());
            drop(pace.acquire_alone().await);
            assert_eq!(pace.in_flight.available_permits(), free);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_number_at_a_time_and_good_answers_bring_it_back() {
        let pace = PerSecond::new(1_000.0, 4, None);
        let free = || pace.in_flight.available_permits();
        pace.slow_down(Duration::ZERO);
        assert_eq!(free(), 2);
        for _ in 0..3 {
            pace.slow_down(Duration::ZERO);
        }
        assert_eq!(free(), 1);
        for _ in 0..RECOVER_AFTER * 9 {
            pace.on_success();
        }
        assert_eq!(free(), 4);
    }
}
