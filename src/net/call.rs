//! A call as its maker describes it, how far it has come, and what a side's calls are counted by.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::limit::{CallLedger, Turn};
use crate::net::timeline::{Recorder, Times};

/// How a call is made.
pub(crate) struct Call<'a, T> {
    pub(super) turn: Turn<'a>,
    /// Set if the outcome quotes the answer: see [`Call::quoting`].
    pub(super) requote: Option<Requote<T>>,
    /// Whether the other side may lack what the call asks for.
    pub(super) optional: bool,
    /// The value to return if the answer is lost and reading back is cheaper than repeating the call.
    pub(super) when_lost: Option<T>,
}

/// Replaces what an outcome quotes by what the second one does, which comes from the same answer without its secrets.
/// `None` if that cannot be judged.
pub(crate) type Requote<T> = fn(T, Option<T>) -> T;

impl<'a, T> Call<'a, T> {
    /// A call that is repeated if its answer is lost. `what` names it in messages.
    pub(crate) fn new(what: &'static str) -> Self {
        let turn = Turn { what, ledger: None };
        Self { turn, requote: None, optional: false, when_lost: None }
    }

    /// Stores the call in this ledger before it is made, and its login too.
    pub(crate) fn reserved_in(self, ledger: &'a dyn CallLedger) -> Self {
        let turn = Turn { ledger: Some(ledger), ..self.turn };
        Self { turn, ..self }
    }

    /// The outcome quotes the answer's text, perhaps in the quarantine, and must not quote credentials or a token. The
    /// answer is judged as it came: a value that decides may be one of them.
    pub(crate) fn quoting(self, requote: Requote<T>) -> Self {
        Self { requote: Some(requote), ..self }
    }

    /// The other side may lack what this call asks for. If it says so twice, the call ends with
    /// [`ErrorKind::NotSupported`], and the caller has another way.
    ///
    /// [`ErrorKind::NotSupported`]: crate::error::ErrorKind::NotSupported
    pub(crate) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// Ends with this value, if there is one, when the answer is lost.
    pub(crate) fn when_lost(self, value: Option<T>) -> Self {
        Self { when_lost: value, ..self }
    }
}

/// How far a call has come.
pub(super) struct Attempts<'a> {
    pub turn: Turn<'a>,
    /// From 1, this one included.
    pub attempt: u32,
    pub optional: bool,
    pub can_refresh: bool,
    pub can_doubt: bool,
    pub can_read_back: bool,
}

impl<'a> Attempts<'a> {
    /// A login in the turn of the call that needs it. A refused login is final: there is no token to refresh.
    pub(super) fn at_login(turn: Turn<'a>) -> Self {
        let turn = Turn { what: "token", ..turn };
        Self { turn, attempt: 0, optional: false, can_refresh: false, can_doubt: false, can_read_back: false }
    }
}

/// Calls made, by what they were.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) throttled: AtomicU64,
    /// Calls and batches that did not succeed at once. Only ever grows.
    failures: AtomicU64,
    /// When the calls were made.
    pub(super) recorder: Recorder,
}

impl Counters {
    /// Reads (requests, retries, throttled) and starts again at zero.
    pub(crate) fn take(&self) -> (u64, u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.requests), take(&self.retries), take(&self.throttled))
    }

    /// A run begins.
    pub(super) fn restart(&self) {
        self.take();
        self.recorder.restart();
    }

    /// When this run called and waited.
    pub(crate) fn times(&self) -> Times {
        self.recorder.times()
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
