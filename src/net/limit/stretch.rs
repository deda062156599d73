//! A stretch of time in which this process has the pace of a source's account to itself.
//!
//! Processes that use one account take turns: each reserves a stretch on one timeline ([`StretchLedger`]) and calls at
//! its own pace inside of it. The stretches of others come before it or after it. So the source sees the pace of one,
//! however many there are. A silence that one of them met is known to the others before their next call.
//!
//! Wall clocks order the stretches of several machines; inside of a stretch the timer counts. A call begins only while
//! both say that the stretch goes on: a machine that was frozen has missed the rest of its stretch and takes another one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Account, silence};
use crate::budget::Budget;
use crate::error::{Result, Side};
use crate::net::retry::PATIENCE;

/// Both clocks count milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);
/// A slot that is farther away waits for a pause to end; nothing is reserved for it before.
const NEAR: Duration = Duration::from_secs(1);
/// What others have met is asked for this long before a call, so that the answer is there in time.
const LOOK_BEFORE: Duration = Duration::from_millis(250);

/// From when until when, wall-clock milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub from_ms: u64,
    pub until_ms: u64,
}

/// Where the stretches of an account are stored.
#[async_trait]
pub(crate) trait StretchLedger: fmt::Debug + Send + Sync {
    /// Reserves the next stretch that is free, for calls that are so far apart: at least one. It does not begin before
    /// `earliest_ms`, which is a second from now at most.
    async fn reserve(&self, interval: Duration, earliest_ms: u64) -> Stretch;

    /// Whether other processes have called lately.
    fn is_shared(&self) -> bool;

    /// Brings the [`Account`] up to date where others use it. To be called before each call.
    async fn look(&self);

    /// Frees what is left from `from_ms` on of the stretch that ends at `until_ms`, unless this process has taken another
    /// one meanwhile: a run may end as the next one begins.
    async fn give_back(&self, from_ms: u64, until_ms: u64);

    /// Stores that the other side wants silence, for the others.
    async fn tell_silence(&self);
}

/// The part of a pace that other processes share.
#[derive(Debug)]
pub(super) struct Shared {
    ledger: Arc<dyn StretchLedger>,
    account: Arc<Account>,
    held: Mutex<Option<Held>>,
}

/// The stretch that this process has, on both clocks.
#[derive(Debug, Clone, Copy)]
struct Held {
    from: Instant,
    until: Instant,
    until_ms: u64,
}

impl Held {
    /// Whether a call at this time leaves room for the pause that follows it.
    fn fits(&self, at: Instant, interval: Duration) -> bool {
        at.max(self.from) + interval <= self.until + ROUNDING
    }
}

impl Shared {
    pub(super) fn new(ledger: Arc<dyn StretchLedger>, account: Arc<Account>) -> Self {
        Self { ledger, account, held: Mutex::new(None) }
    }

    /// When a call may go that has its slot at `at`: inside of a stretch, and in no silence. An error if that is too late
    /// for this run.
    pub(super) async fn slot(
        &self,
        budget: &Budget,
        what: &str,
        mut at: Instant,
        interval: Duration,
    ) -> Result<Instant> {
        loop {
            self.wait_out_the_silence(budget, what).await?;
            let now = Instant::now();
            at = at.max(now.checked_sub(ROUNDING).unwrap_or(now));
            if let Some(held) = self.going_on().filter(|held| held.fits(at, interval)) {
                at = at.max(held.from);
                sleep(budget, at.checked_sub(LOOK_BEFORE).unwrap_or(now)).await;
                self.ledger.look().await;
                if self.account.blocked_for().is_zero() {
                    return Ok(at);
                }
            } else if at > now + NEAR {
                sleep(budget, at).await;
            } else {
                let earliest_ms = self.wall_ms(at);
                self.hold(self.ledger.reserve(interval, earliest_ms).await);
            }
        }
    }

    /// Whether a call may go now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let is_inside = |held: Held| held.from <= now + 2 * ROUNDING && now < held.until;
        self.account.blocked_for().is_zero() && self.going_on().is_some_and(is_inside)
    }

    /// Nobody calls for this long, here and elsewhere.
    pub(super) async fn block(&self, wait: Duration) {
        self.account.block_until(self.wall_ms(Instant::now() + wait));
        // Until our stretch ends nobody else calls.
        let silent_until_ms = self.account.blocked_until_ms();
        let held = self.going_on().filter(|held| held.from <= Instant::now());
        if silent_until_ms > held.map(|held| held.until_ms) {
            self.ledger.tell_silence().await;
        }
    }

    /// The run has ended; this process calls again at `next` at the earliest. Where others have called lately, or `always`,
    /// they need not wait for the end of its stretch.
    pub(super) async fn give_back(&self, next: Instant, always: bool) {
        if !always && !self.ledger.is_shared() {
            return;
        }
        // Another run of this process takes a stretch of its own.
        let held = self.held().take();
        if let Some(held) = held.filter(|held| next < held.until) {
            self.ledger.give_back(self.wall_ms(next), held.until_ms).await;
        }
    }

    async fn wait_out_the_silence(&self, budget: &Budget, what: &str) -> Result<()> {
        loop {
            let wait = self.account.blocked_for();
            if wait.is_zero() {
                return Ok(());
            }
            if wait > PATIENCE || wait >= budget.left() {
                return Err(silence(Side::Source, what, wait));
            }
            sleep(budget, Instant::now() + wait).await;
        }
    }

    /// The stretch that this process has, unless it is over on either clock.
    fn going_on(&self) -> Option<Held> {
        let now_ms = self.account.clock.now_ms();
        self.held().filter(|held| Instant::now() < held.until && now_ms < held.until_ms)
    }

    fn hold(&self, Stretch { from_ms, until_ms }: Stretch) {
        let from = Instant::now() + self.account.clock.until_ms(from_ms);
        let until = Instant::now() + self.account.clock.until_ms(until_ms);
        *self.held() = Some(Held { from, until, until_ms });
    }

    /// A time of the timer on the wall clock, rounded up.
    fn wall_ms(&self, at: Instant) -> u64 {
        let wait = at.saturating_duration_since(Instant::now());
        let wait_ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.account.clock.now_ms().saturating_add(wait_ms)
    }

    /// Nothing panics while it is held.
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep(budget: &Budget, until: Instant) {
    let wait = until.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        budget.announce_wait(Side::Source, wait);
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::Clock;

    /// A ledger that counts what it is told.
    #[derive(Debug, Default)]
    struct Told {
        is_shared: bool,
        silences: AtomicU32,
        given_back: Mutex<Vec<(u64, u64)>>,
    }

    #[async_trait]
    impl StretchLedger for Told {
        async fn reserve(&self, _: Duration, earliest_ms: u64) -> Stretch {
            Stretch { from_ms: earliest_ms, until_ms: earliest_ms + 10_000 }
        }

        fn is_shared(&self) -> bool {
            self.is_shared
        }

        async fn look(&self) {}

        async fn give_back(&self, from_ms: u64, until_ms: u64) {
            self.given_back.lock().unwrap().push((from_ms, until_ms));
        }

        async fn tell_silence(&self) {
            self.silences.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// With a stretch that begins and ends so many milliseconds from now.
    fn with_stretch(is_shared: bool, from_ms: u64, until_ms: u64) -> (Arc<Told>, Shared, u64) {
        let (clock, told) = (Clock::pinned(), Arc::new(Told { is_shared, ..Told::default() }));
        let shared = Shared::new(Arc::<Told>::clone(&told), Arc::new(Account::new(clock)));
        let now_ms = clock.now_ms();
        shared.hold(Stretch { from_ms: now_ms + from_ms, until_ms: now_ms + until_ms });
        (told, shared, now_ms)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_told_to_others_if_they_might_call_before_it_ends() {
        for (from_ms, until_ms, seconds, told_times) in
            [(0, 10_000, 3, 0), (0, 10_000, 20, 1), (5_000, 10_000, 3, 1)]
        {
            let (told, shared, _) = with_stretch(false, from_ms, until_ms);
            shared.block(Duration::from_secs(seconds)).await;
            assert_eq!(told.silences.load(Ordering::Relaxed), told_times, "{from_ms} {until_ms} {seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_stretch_is_given_back_to_others_if_there_are_any() {
        for (is_shared, always, next_s, times) in
            [(false, false, 2, 0), (false, true, 2, 1), (true, false, 2, 1), (true, false, 10, 0)]
        {
            let (told, shared, now_ms) = with_stretch(is_shared, 0, 10_000);
            shared.give_back(Instant::now() + Duration::from_secs(next_s), always).await;
            let given_back = told.given_back.lock().unwrap().clone();
            assert_eq!(given_back, vec![(now_ms + 2_000, now_ms + 10_000); times]);
        }
    }
}
