//! What the callers of one account know of each other in this process: calls, and the silence that was asked for.
//!
//! The other side counts by account, so that is what a limit belongs to. Callers are connections. Their numbers come from
//! the store ([`super::CallLedger`]), which brings them here; each caller's window takes them over before its next call.
//! A silence is known here at once, without the store: the very next call of any caller heeds it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::net::retry::RETRY_AFTER_CAP;

/// Calls by caller, wall-clock milliseconds.
pub(super) type CallsByCaller = BTreeMap<String, Vec<u64>>;

#[derive(Debug)]
pub(crate) struct Account {
    pub(super) clock: Clock,
    /// The other side wants no call by anybody before this, wall-clock milliseconds.
    blocked_until_ms: AtomicU64,
    callers: Mutex<Callers>,
}

#[derive(Debug, Default)]
struct Callers {
    /// Grows whenever a caller's calls change.
    changes: u64,
    calls_ms: CallsByCaller,
    notes: HashMap<String, Note>,
}

/// What a caller has to take over.
#[derive(Debug, Default)]
pub(super) struct Note {
    /// Calls of its own that runs elsewhere made.
    pub earlier_ms: Vec<u64>,
    /// No call before this.
    pub hold_until_ms: u64,
}

/// The other callers of an account.
#[derive(Debug, Clone, Default)]
pub(super) struct Others {
    /// The change of the account that this is from.
    pub seen: u64,
    /// Whether anybody else has called or waited in the last minute.
    pub are_there: bool,
    /// Their calls, made and reserved, in order of time.
    pub calls_ms: Vec<u64>,
}

impl Account {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, blocked_until_ms: AtomicU64::new(0), callers: Mutex::default() }
    }

    /// Stops all callers until then. Nothing is awaited here: the next caller knows it already.
    pub(crate) fn block_until(&self, wall_ms: u64) {
        // A time from a wrong clock must not hide a true one.
        if self.clock.until_ms(wall_ms) <= RETRY_AFTER_CAP {
            self.blocked_until_ms.fetch_max(wall_ms, Ordering::Relaxed);
        }
    }

    /// A time that is more than an hour away comes from a clock that was set back: it does not count.
    pub(crate) fn blocked_for(&self) -> Duration {
        let left = self.clock.until_ms(self.blocked_until_ms.load(Ordering::Relaxed));
        if left > RETRY_AFTER_CAP { Duration::ZERO } else { left }
    }

    /// `None` while calls are wanted.
    pub(crate) fn blocked_until_ms(&self) -> Option<u64> {
        (!self.blocked_for().is_zero()).then(|| self.blocked_until_ms.load(Ordering::Relaxed))
    }

    /// Changes with every [`Self::publish`].
    pub(crate) fn changes(&self) -> u64 {
        self.callers().changes
    }

    /// These are the callers of the last minute, with the calls that they made and reserved. Who waits has none.
    pub(crate) fn publish(&self, calls_ms: CallsByCaller) {
        let mut callers = self.callers();
        callers.changes += 1;
        callers.calls_ms = calls_ms;
    }

    /// A run of this caller elsewhere made these calls.
    pub(crate) fn add_earlier(&self, caller: &str, calls_ms: Vec<u64>) {
        self.callers().notes.entry(caller.to_owned()).or_default().earlier_ms = calls_ms;
    }

    /// This caller makes no call before then.
    pub(crate) fn hold(&self, caller: &str, until_ms: u64) {
        self.callers().notes.entry(caller.to_owned()).or_default().hold_until_ms = until_ms;
    }

    pub(super) fn take_note(&self, caller: &str) -> Option<Note> {
        self.callers().notes.remove(caller)
    }

    /// What has changed about all other callers since `seen`, if anything has.
    pub(super) fn others(&self, caller: &str, seen: u64) -> Option<Others> {
        let callers = self.callers();
        if callers.changes == seen {
            return None;
        }
        let others = callers.calls_ms.iter().filter(|(name, _)| *name != caller);
        let mut others = Others {
            seen: callers.changes,
            are_there: others.clone().next().is_some(),
            calls_ms: others.flat_map(|(_, calls_ms)| calls_ms.iter().copied()).collect(),
        };
        others.calls_ms.sort_unstable();
        Some(others)
    }

    /// Nothing panics while it holds them.
    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
