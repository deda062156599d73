//! Calls per minute: a window that many callers share, kept in the store from run to run.
//!
//! One caller at a time takes its turn, so that a reservation is stored before the next caller relies on it. Answers never
//! wait for that turn: they lock the window for a moment only, so what an answer says holds for the very next caller.
//!
//! Other connections may use the account too, in this process or in another one. Their calls, made and reserved, count
//! here like our own; [`Account`] brings them. Who has made fewer calls in the last minute goes first when one is free
//! again, so that none starves ([`Window::wait`]).
//!
//! Three races are closed here:
//! - While a caller waits, another caller's answer may ask for more patience. So nobody holds the turn while sleeping, and
//!   the wait is worked out again afterwards.
//! - While the reservation is being stored, an answer may ask for no more calls. So the wait is worked out once more
//!   after it.
//! - While a reservation is made, another caller's may be stored. So the store refuses it, and what is free is worked out
//!   again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;

use super::window::{RateLimit, Window};
use super::{Account, CallLedger, Turn, silence, too_early};
use crate::budget::{Budget, interrupted};
use crate::error::{Result, Side};
use crate::net::retry::PATIENCE;
use crate::testing::Mutant;
use crate::words::say;

pub(crate) struct PerMinute {
    side: Side,
    /// Who makes these calls, among the callers of the account.
    caller: String,
    account: Arc<Account>,
    window: Mutex<Window>,
    turn: tokio::sync::Mutex<()>,
    reserve_ratio: f64,
}

impl PerMinute {
    pub(super) fn new(
        calls: u32,
        reserve_ratio: f64,
        side: Side,
        caller: &str,
        account: Arc<Account>,
    ) -> Self {
        Self {
            side,
            caller: caller.to_owned(),
            account,
            window: Mutex::new(Window::new(calls, [])),
            turn: tokio::sync::Mutex::default(),
            reserve_ratio,
        }
    }

    pub(super) async fn acquire(&self, budget: &Budget, turn: Turn<'_>) -> Result<()> {
        let Turn { what, ledger } = turn;
        loop {
            let taking = self.turn.lock().await;
            if let Some(ledger) = ledger {
                in_time(budget, ledger.look()).await?;
            }
            let wait = self.wait(budget, what)?;
            if !wait.is_zero() {
                drop(taking);
                budget.announce_wait(self.side, wait);
                let told = async {
                    if let Some(ledger) = ledger {
                        ledger.wait_in_line().await;
                    }
                };
                // Whether the others have been told or not, the wait is the same.
                let _ = tokio::join!(tokio::time::sleep(wait), tokio::time::timeout(wait, told));
                continue;
            }
            if self.reserve(budget, ledger).await? && self.wait(budget, what)?.is_zero() {
                self.window().count(self.now_ms());
                return Ok(());
            }
        }
    }

    /// How long until the next call may be made; an error if that is too late for this run.
    pub(super) fn wait(&self, budget: &Budget, what: &str) -> Result<Duration> {
        let (blocked, full) = (self.account.blocked_for(), self.window().wait(self.now_ms()));
        let wait = blocked.max(full);
        // A silence that another connection met: waiting it out would cost a run's whole time.
        if wait < budget.left() && blocked <= PATIENCE {
            return Ok(wait);
        }
        if blocked >= full && !blocked.is_zero() {
            return Err(silence(self.side, what, wait));
        }
        Err(too_early(self.side, what, say!("the calls of this minute are used up"), wait))
    }

    /// Reserves the next few calls if none are left, and stores that before the first of them is made. `false` if others
    /// were first: what is free has to be worked out again.
    async fn reserve(&self, budget: &Budget, ledger: Option<&dyn CallLedger>) -> Result<bool> {
        let now_ms = self.now_ms();
        let (persisted_ms, seen) = {
            let mut window = self.window();
            // Others may have stored calls since the wait was worked out.
            if !window.wait(now_ms).is_zero() {
                return Ok(false);
            }
            if !window.reserve(now_ms) {
                return Ok(true);
            }
            (window.persisted_ms(), window.seen())
        };
        let Some(ledger) = ledger else { return Ok(true) };
        let stored = in_time(budget, ledger.reserve(persisted_ms, seen)).await;
        if !matches!(stored, Ok(true)) {
            self.window().release_reserved();
        }
        stored
    }

    pub(super) fn observe(&self, headers: &HeaderMap, now_ms: u64) {
        let announced = RateLimit::from_headers(headers, now_ms);
        self.window().observe(announced, self.reserve_ratio, now_ms);
    }

    /// Stops all callers of the account for this long.
    pub(super) fn block(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.account.block_until(self.now_ms().saturating_add(wait_ms));
    }

    pub(super) fn restore_calls(&self, calls_ms: &[u64]) {
        let mut window = self.window();
        // A run that was dropped in the middle gave nothing back.
        window.release_reserved();
        window.remember(calls_ms.iter().copied());
    }

    pub(super) fn release_reservations(&self) -> Vec<u64> {
        let mut window = self.window();
        window.release_reserved();
        window.persisted_ms()
    }

    fn now_ms(&self) -> u64 {
        self.account.clock.now_ms()
    }

    /// The window, with what the account knows of the others. Nothing panics while it is held.
    fn window(&self) -> MutexGuard<'_, Window> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(note) = self.account.take_note(&self.caller) {
            window.hold_until(note.hold_until_ms);
            if !Mutant::ForgetTheLimit.is_active() {
                window.remember(note.earlier_ms);
            }
        }
        if let Some(others) = self.account.others(&self.caller, window.seen()) {
            window.see_others(others);
        }
        window
    }
}

async fn in_time<T>(budget: &Budget, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(budget.left(), work).await;
    done.unwrap_or_else(|_| Err(interrupted(say!("the run's time is over"))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::*;
    use crate::clock::Clock;
    use crate::error::{Error, ErrorKind};

    const STORE: Turn<'static> = Turn { what: "store", ledger: None };

    fn pace(calls: u32) -> PerMinute {
        let account = Arc::new(Account::new(Clock::starting_at_ms(1_800_000_000_000)));
        PerMinute::new(calls, 0.2, Side::Target, "acme", account)
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
        assert_eq!(pace.account.blocked_for(), Duration::ZERO);
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
        assert_eq!(pace.account.blocked_for(), Duration::ZERO);
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
        async fn reserve(&self, calls_ms: Vec<u64>, _: u64) -> Result<bool> {
            tokio::time::sleep(self.takes).await;
            self.stored.lock().unwrap().push(calls_ms);
            if self.fails { Err(Error::new(ErrorKind::Store, "full")) } else { Ok(true) }
        }

        async fn look(&self) -> Result<()> {
            Ok(())
        }

        async fn wait_in_line(&self) {}

        async fn tell_silence(&self) {}
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
