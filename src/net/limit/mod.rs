//! How often a side may be called: calls per second towards the source, calls per minute towards the target.
//!
//! The client asks its pace before each call ([`Pace::acquire`]) and tells it what came of it; it never asks which of the
//! two it is. Both belong to the account: connections that use one key in this process share one [`PerSecond`] or one
//! [`Account`]. Those of several processes are joined by the store: a [`CallLedger`] counts calls to a target, a
//! [`StretchLedger`] gives each process a stretch of time at a source.

mod account;
mod per_minute;
mod per_second;
mod stretch;
mod window;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::SemaphorePermit;

use crate::budget::{Budget, interrupted};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::retry::FailureKind;
use crate::net::{Answer, TransportError};
use crate::words::{Message, say};
pub(crate) use account::Account;
use per_minute::PerMinute;
use per_second::PerSecond;
use stretch::Shared;
pub(crate) use stretch::{Stretch, StretchLedger};

/// An answer that takes longer asks for a slower pace: the other side has enough to do.
const SLOW_ANSWER: Duration = Duration::from_secs(10);

/// Where a run's calls are stored before they are made, for limits that outlive the run and belong to many.
#[async_trait]
pub(crate) trait CallLedger: Send + Sync {
    /// Stores the calls of the last minute, made and reserved, as wall-clock milliseconds. The calls may be made once
    /// this has succeeded. `false`: others have stored calls that the caller, who has `seen` so many changes of the
    /// [`Account`], does not know. It knows them now, and decides again.
    async fn reserve(&self, calls_ms: Vec<u64>, seen: u64) -> Result<bool>;

    /// Brings the [`Account`] up to date where others use it. To be called before each call; an error if the run may make
    /// none any more.
    async fn look(&self) -> Result<()>;

    /// The caller is about to wait until a call is free. Others who know that let it go first.
    async fn wait_in_line(&self);

    /// Stores that the other side wants silence, for the others.
    async fn tell_silence(&self);
}

/// For whom a turn is taken.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    /// The call's name in messages.
    pub what: &'a str,
    /// `None`: its limit is forgotten with the process.
    pub ledger: Option<&'a dyn CallLedger>,
}

/// The pace of one side.
pub(crate) enum Pace {
    /// Adapts to the other side; how is forgotten with the process.
    PerSecond(PerSecond),
    /// Fixed, and kept in the store from run to run.
    PerMinute(PerMinute),
}

/// A call's turn. The call counts as in flight until this is dropped.
pub(super) struct Slot<'a> {
    _in_flight: Option<SemaphorePermit<'a>>,
}

impl Pace {
    /// At most `calls_per_second` (more than 0) by all processes that share this ledger and account, and `max_in_flight`
    /// at a time in this one.
    pub(crate) fn per_second(
        calls_per_second: f64,
        max_in_flight: usize,
        ledger: Arc<dyn StretchLedger>,
        account: Arc<Account>,
    ) -> Self {
        let shared = Shared::new(ledger, account);
        Self::PerSecond(PerSecond::new(calls_per_second, max_in_flight, Some(shared)))
    }

    /// At most `calls` in any minute by all callers of the account. Of a lower limit that the other side announces,
    /// `reserve_ratio` is left to strangers. `caller` names the one that makes these calls.
    pub(crate) fn per_minute(
        calls: u32,
        reserve_ratio: f64,
        side: Side,
        caller: &str,
        account: Arc<Account>,
    ) -> Self {
        Self::PerMinute(PerMinute::new(calls, reserve_ratio, side, caller, account))
    }

    /// Changes calls per second, and how many at a time, while callers use it.
    pub(crate) fn configure(&self, calls_per_second: f64, max_in_flight: usize) {
        if let Self::PerSecond(pace) = self {
            pace.configure(calls_per_second, max_in_flight);
        }
    }

    /// Waits for a call's turn; an error if it would come too late for this run.
    pub(super) async fn acquire(&self, budget: &Budget, turn: Turn<'_>) -> Result<Slot<'_>> {
        check_time(budget)?;
        let in_flight = match self {
            Self::PerSecond(pace) => {
                let permit = tokio::time::timeout(budget.left(), pace.acquire(budget, turn.what)).await;
                permit.map_err(|_| interrupted(say!("the run's time is over")))??
            }
            Self::PerMinute(pace) => {
                pace.acquire(budget, turn).await?;
                None
            }
        };
        Ok(Slot { _in_flight: in_flight })
    }

    /// How long a call would wait for its turn now; an error if that is too long for this run. Zero for calls per second:
    /// their turn comes within seconds, also beside other processes, and a token that expires meanwhile is fetched again.
    pub(super) fn wait(&self, budget: &Budget, what: &str) -> Result<Duration> {
        check_time(budget)?;
        match self {
            Self::PerSecond(_) => Ok(Duration::ZERO),
            Self::PerMinute(pace) => pace.wait(budget, what),
        }
    }

    /// Learns from how long a call took and from the limits that its answer announces.
    pub(super) fn observe(&self, answer: &Result<Answer, TransportError>, took: Duration, now_ms: u64) {
        match (self, answer) {
            (Self::PerSecond(pace), _) if took >= SLOW_ANSWER => pace.slow_down(Duration::ZERO),
            (Self::PerMinute(pace), Ok(answer)) => pace.observe(&answer.headers, now_ms),
            _ => {}
        }
    }

    /// A call failed and is repeated after `wait`: all callers slow down, not only this one.
    pub(super) async fn back_off(&self, failure: &FailureKind, wait: Duration, turn: Turn<'_>) {
        match (self, failure) {
            (Self::PerSecond(pace), FailureKind::Throttled(_)) => {
                pace.slow_down(wait);
                pace.block(wait).await;
            }
            (Self::PerSecond(pace), FailureKind::ServerError) => pace.slow_down(Duration::ZERO),
            (Self::PerSecond(_), _) => {}
            (Self::PerMinute(_), _) => self.block(failure, wait, turn).await,
        }
    }

    /// A call failed and ends the run for `wait`: nobody calls before.
    pub(super) async fn block(&self, failure: &FailureKind, wait: Duration, turn: Turn<'_>) {
        if !failure.is_limit() {
            return;
        }
        match self {
            Self::PerSecond(pace) => pace.block(wait).await,
            Self::PerMinute(pace) => {
                pace.block(wait);
                if let Some(ledger) = turn.ledger {
                    ledger.tell_silence().await;
                }
            }
        }
    }

    /// A run has ended. Other processes that call the source need not wait for the end of its stretch; where there were
    /// none lately, they are told only if this is `always` to be done.
    pub(crate) async fn give_back_stretch(&self, always: bool) {
        if let Self::PerSecond(pace) = self {
            pace.give_back(always).await;
        }
    }

    pub(super) fn on_success(&self) {
        if let Self::PerSecond(pace) = self {
            pace.on_success();
        }
    }

    /// A run begins: adds the calls of the last minute that earlier runs made.
    pub(crate) fn restore_calls(&self, calls_ms: &[u64]) {
        if let Self::PerMinute(pace) = self {
            pace.restore_calls(calls_ms);
        }
    }

    /// The run has ended: drops what it reserved and did not use, and returns the calls of the last minute.
    pub(crate) fn release_reservations(&self) -> Vec<u64> {
        match self {
            Self::PerSecond(_) => Vec::new(),
            Self::PerMinute(pace) => pace.release_reservations(),
        }
    }
}

/// The error of a call that would come too early by more than a run waits.
fn silence(side: Side, what: &str, wait: Duration) -> Error {
    let why = say!("{side} asked for silence", side);
    too_early(side, what, why, wait)
}

fn too_early(side: Side, what: &str, why: Message, wait: Duration) -> Error {
    let message = say!("{what}: {why}; come back in {wait} s", what, why, wait = wait.as_secs() + 1);
    Error::new(ErrorKind::Throttled(side), message).resume_after(wait)
}

fn check_time(budget: &Budget) -> Result<()> {
    if budget.left().is_zero() { Err(interrupted(say!("the run's time is over"))) } else { Ok(()) }
}
