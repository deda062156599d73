//! Calls per minute: a window that many callers share, kept in the store from run to run.
//!
//! One caller at a time takes its turn, so that a reservation is stored before the next caller relies on it. Answers never
//! wait for that turn: they lock the window for a moment only, so what an answer says holds for the very next caller.
//!
//! Two races are closed here:
//! - While a caller waits, another caller's answer may ask for more patience. So nobody holds the turn while sleeping, and
//!   the wait is worked out again afterwards.
//! - While the reservation is being stored, an answer may ask for no more calls. So the wait is worked out once more
//!   after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::window::{RateLimit, Window};
use super::{CallLedger, Turn};
use crate::budget::{Budget, interrupted};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::retry::RETRY_AFTER_CAP;

pub(crate) struct PerMinute {
    side: Side,
    clock: Clock,
    window: Mutex<Window>,
    turn: tokio::sync::Mutex<()>,
    reserve_ratio: f64,
    /// The other side wants no call by anybody before this, wall-clock milliseconds.
    blocked_until_ms: AtomicU64,
}

impl PerMinute {
    pub(super) fn new(calls: u32, reserve_ratio: f64, side: Side, clock: Clock) -> Self {
        Self {
            side,
            clock,
            window: Mutex::new(Window::new(calls, [])),
            turn: tokio::sync::Mutex::default(),
            reserve_ratio,
            blocked_until_ms: AtomicU64::new(0),
        }
    }

    pub(super) async fn acquire(&self, budget: &Budget, turn: Turn<'_>) -> Result<()> {
        let Turn { what, ledger } = turn;
        loop {
            let taking = self.turn.lock().await;
            let wait = self.wait(budget, what)?;
            if !wait.is_zero() {
                drop(taking);
                budget.announce_wait(self.side, wait);
                tokio::time::sleep(wait).await;
                continue;
            }
            self.reserve(budget, ledger).await?;
            if self.wait(budget, what)?.is_zero() {
                self.window().count(self.clock.now_ms());
                return Ok(());
            }
        }
    }

    /// How long until the next call may be made; an error if that is too late for this run.
    pub(super) fn wait(&self, budget: &Budget, what: &str) -> Result<Duration> {
        let (blocked, full) = (self.blocked_for(), self.window().wait(self.clock.now_ms()));
        let wait = blocked.max(full);
        if wait < budget.left() {
            return Ok(wait);
        }
        let why = if blocked >= full && !blocked.is_zero() {
            format!("{} asked for silence", self.side)
        } else {
            "the calls of this minute are used up".to_owned()
        };
        let message = format!("{what}: {why}; come back in {} s", wait.as_secs() + 1);
        Err(Error::new(ErrorKind::Throttled(self.side), message).resume_after(wait))
    }

    /// Reserves the next few calls if none are left, and stores that before the first of them is made.
    async fn reserve(&self, budget: &Budget, ledger: Option<&dyn CallLedger>) -> Result<()> {
        let reserved = self.window().reserve(self.clock.now_ms());
        let (true, Some(ledger)) = (reserved, ledger) else { return Ok(()) };
        let persisted_ms = self.window().persisted_ms();
        let stored = tokio::time::timeout(budget.left(), ledger.reserve(persisted_ms)).await;
        let stored = stored.unwrap_or_else(|_| Err(interrupted("the run's time is over")));
        if stored.is_err() {
            self.window().release_reserved();
        }
        stored
    }

    pub(super) fn observe(&self, headers: &HeaderMap, now_ms: u64) {
        let announced = RateLimit::from_headers(headers, now_ms);
        self.window().observe(announced, self.reserve_ratio, now_ms);
    }

    /// Stops all callers for this long. Nothing is awaited here: the next caller knows it already.
    pub(super) fn block(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.blocked_until_ms.fetch_max(self.clock.now_ms().saturating_add(wait_ms), Ordering::Relaxed);
    }

    /// A time that is more than an hour away comes from a clock that was set back: it does not count.
    pub(super) fn blocked_for(&self) -> Duration {
        let left = self.clock.until_ms(self.blocked_until_ms.load(Ordering::Relaxed));
        if left > RETRY_AFTER_CAP { Duration::ZERO } else { left }
    }

    pub(super) fn restore_calls(&self, calls_ms: &[u64]) {
        self.window().remember(calls_ms.iter().copied());
    }

    pub(super) fn release_reservations(&self) -> Vec<u64> {
        let mut window = self.window();
        window.release_reserved();
        window.persisted_ms()
    }

    /// Nothing panics while it holds the window.
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::*;

    const STORE: Turn<'static> = Turn { what: "store", ledger: None };

    fn pace(calls: u32) -> PerMinute {
        PerMinute::new(calls, 0.2, Side::Target, Clock::starting_at_ms(1_800_000_000_000))
    }

    fn budget(seconds: u64) -> Budget {
        // With the reserve that a budget takes off for saving.
        let deadline = Instant::now() + Duration::from_secs(seconds) + crate::budget::SAVE_RESERVE;
        Budget::new(Some(deadline), watch::Sender::new(false).subscribe())
    }

    async fn acquired_after(pace: &PerMinute, budget: &Budget) -> Duration {
        let started = Instant::now();
        pace.acquire(budget, STORE).await.unwrap();
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_beyond_the_limit_waits_until_the_minute_is_over() {
        let (pace, budget) = (pace(2), budget(600));
        assert_eq!(acquired_after(&pace, &budget).await, Duration::ZERO);
        assert_eq!(acquired_after(&pace, &budget).await, Duration::ZERO);
        assert_eq!(acquired_after(&pace, &budget).await, Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_waits_sees_what_another_call_is_told_meanwhile() {
        let (pace, budget) = (pace(1), budget(600));
        pace.acquire(&budget, STORE).await.unwrap();
        let told = async {
            tokio::time::sleep(Duration::from_secs(50)).await;
            pace.block(Duration::from_secs(30));
        };
        let (waited, ()) = tokio::join!(acquired_after(&pace, &budget), told);
        assert_eq!(waited, Duration::from_secs(80));
        assert_eq!(pace.blocked_for(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_comes_too_late_ends_the_run_with_the_time_to_come_back() {
        let (pace, budget) = (pace(1), budget(30));
        pace.acquire(&budget, STORE).await.unwrap();
        let full = pace.acquire(&budget, STORE).await.unwrap_err();
        assert_eq!(full.to_string(), "store: the calls of this minute are used up; come back in 61 s");
        assert_eq!(full.kind, ErrorKind::Throttled(Side::Target));
        assert_eq!(full.resume_after, Some(Duration::from_secs(60)));
        pace.block(Duration::from_secs(300));
        let blocked = pace.wait(&budget, "store").unwrap_err();
        assert_eq!(blocked.to_string(), "store: target asked for silence; come back in 301 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_of_more_than_an_hour_comes_from_a_wrong_clock_and_does_not_count() {
        let pace = pace(1);
        pace.block(Duration::from_secs(3601));
        assert_eq!(pace.blocked_for(), Duration::ZERO);
    }

    /// Keeps what it was given; its store may fail, or take its time.
    #[derive(Default)]
    struct Ledger {
        stored: Mutex<Vec<Vec<u64>>>,
        fails: bool,
        takes: Duration,
    }

    #[async_trait::async_trait]
    impl CallLedger for Ledger {
        async fn reserve(&self, calls_ms: Vec<u64>) -> Result<()> {
            tokio::time::sleep(self.takes).await;
            self.stored.lock().unwrap().push(calls_ms);
            if self.fails { Err(Error::new(ErrorKind::Store, "full")) } else { Ok(()) }
        }
    }

    const NOW_MS: u64 = 1_800_000_000_000;

    #[tokio::test(start_paused = true)]
    async fn a_reservation_is_stored_once_before_the_first_of_its_calls() {
        let (pace, budget, ledger) = (pace(24), budget(600), Ledger::default());
        let turn = Turn { what: "store", ledger: Some(&ledger) };
        for _ in 0..4 {
            pace.acquire(&budget, turn).await.unwrap();
        }
        let later = NOW_MS + 5_000;
        let expected = [vec![later; 3], vec![NOW_MS, NOW_MS, NOW_MS, later, later, later]];
        assert_eq!(*ledger.stored.lock().unwrap(), expected);
        assert_eq!(pace.release_reservations(), [NOW_MS; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_cannot_be_reserved_is_not_made_nor_counted() {
        let (pace, budget) = (pace(24), budget(600));
        let ledger = Ledger { fails: true, ..Ledger::default() };
        let turn = Turn { what: "store", ledger: Some(&ledger) };
        assert_eq!(pace.acquire(&budget, turn).await.unwrap_err().kind, ErrorKind::Store);
        assert!(pace.release_reservations().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_says_while_a_reservation_is_stored_holds_for_its_call() {
        let (pace, budget) = (pace(24), budget(600));
        let ledger = Ledger { takes: Duration::from_secs(2), ..Ledger::default() };
        let turn = Turn { what: "store", ledger: Some(&ledger) };
        let told = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pace.block(Duration::from_secs(30));
        };
        let started = Instant::now();
        let (acquired, ()) = tokio::join!(pace.acquire(&budget, turn), told);
        acquired.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(31), "{:?}", started.elapsed());
    }
}
