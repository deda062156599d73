//! Qeasy's limit: at most N calls in any 60 seconds. One more locks every caller out for five minutes.

use std::collections::VecDeque;

const WINDOW_MS: u64 = 60_000;

/// The calls of the last minute, and the lockout.
#[derive(Default)]
pub(crate) struct CallLimit {
    pub(crate) locked_until_ms: u64,
    recent_ms: VecDeque<u64>,
}

/// Whether a call may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// This call exceeded the limit and began a lockout.
    BeganLockout,
    /// A lockout goes on.
    DuringLockout,
}

impl CallLimit {
    /// Counts a call.
    pub(crate) fn admit(&mut self, now_ms: u64, calls_per_minute: u32, lockout_ms: u64) -> Admission {
        if self.is_locked(now_ms) {
            return Admission::DuringLockout;
        }
        while self.recent_ms.front().is_some_and(|call| now_ms - call >= WINDOW_MS) {
            self.recent_ms.pop_front();
        }
        if self.recent_ms.len() < calls_per_minute as usize {
            self.recent_ms.push_back(now_ms);
            return Admission::Admitted;
        }
        self.recent_ms.clear();
        self.locked_until_ms = now_ms + lockout_ms;
        Admission::BeganLockout
    }

    /// A call that is not counted; a lockout refuses it all the same.
    pub(crate) fn admit_uncounted(&self, now_ms: u64) -> Admission {
        if self.is_locked(now_ms) { Admission::DuringLockout } else { Admission::Admitted }
    }

    fn is_locked(&self, now_ms: u64) -> bool {
        now_ms < self.locked_until_ms
    }

    /// Seconds until the lockout ends, rounded up.
    pub(crate) fn locked_for_s(&self, now_ms: u64) -> u64 {
        self.locked_until_ms.saturating_sub(now_ms).div_ceil(1000)
    }

    pub(crate) fn remaining(&self, calls_per_minute: u32) -> u64 {
        u64::from(calls_per_minute).saturating_sub(self.recent_ms.len() as u64)
    }

    /// When the oldest counted call leaves the window, in Unix seconds.
    pub(crate) fn resets_at_s(&self, now_ms: u64) -> u64 {
        self.recent_ms.front().map_or(now_ms, |first| first + WINDOW_MS).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides_and_a_lockout_ends() {
        let mut limit = CallLimit::default();
        let mut at = |now_ms| limit.admit(now_ms, 2, 300_000);
        assert_eq!([at(0), at(1_000), at(60_000)], [Admission::Admitted; 3], "the first call has left");
        assert_eq!(at(60_500), Admission::BeganLockout);
        assert_eq!(at(360_499), Admission::DuringLockout);
        assert_eq!(at(360_500), Admission::Admitted);
        assert_eq!(limit.admit_uncounted(1_000), Admission::DuringLockout);
    }
}
