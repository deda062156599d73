//! A sliding window of one minute: how many calls were made in it, and how many more may be.
//!
//! It holds wall-clock times, so that it can be kept in the store from run to run. Calls are reserved a few at a time, and
//! the reservation is stored before the first of them is made. After a kill the stored window may count calls that were
//! never made; it never misses one that was.
//!
//! Example with a limit of 24 (a reservation is an eighth of it, 3 calls, valid for 5 s), times in milliseconds:
//!
//! | at    | what              | in the store after it              |
//! |------:|-------------------|------------------------------------|
//! | 1000  | reserve           | 6000 6000 6000                     |
//! | 1000  | call              | (unchanged; in memory 1000)        |
//! | 2000  | call              | (unchanged; in memory 1000 2000)   |
//! | 6000  | reserve: expired  | 1000 2000 11000 11000 11000        |
//! | 6500  | the run ends      | 1000 2000                          |
//!
//! A reserved call counts as late as it may still be made, so a reader of the store never waits too little.
//!
//! Others may call too, each with a window of its own: their calls, made and reserved, count against the same limit.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::account::Others;

const MINUTE_MS: u64 = 60_000;
/// Calls are reserved by this share of the limit: fewer writes to the store against fewer calls lost to a crash.
const RESERVED_SHARE: usize = 8;
/// A reservation that is not used within this time is reserved again.
const RESERVED_FOR_MS: u64 = 5_000;
/// Of several callers that want to reserve calls, one that has used the whole limit comes so much later than one that has
/// made no call.
const YIELD_MS: u64 = 1_000;
/// A limit above this counts its calls at the next multiple of [`GRAIN_MS`], so that a minute of 100,000 calls is a short
/// list of pairs in the store.
const EXACT_LIMIT: usize = 5_000;
const GRAIN_MS: u64 = 100;

#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    configured: usize,
    /// What the server's headers leave of the configured limit.
    limit: usize,
    calls_ms: VecDeque<u64>,
    /// The calls of others, in order of time.
    others_ms: VecDeque<u64>,
    /// Whether others call, or wait until they may.
    is_shared: bool,
    /// The change of the account that the two are from.
    seen: u64,
    reserved: usize,
    reserved_until_ms: u64,
    hold_until_ms: u64,
}

impl Window {
    /// At most `limit` calls in any minute, `calls_ms` of which were made before (wall-clock, milliseconds).
    pub(super) fn new(limit: u32, calls_ms: impl IntoIterator<Item = u64>) -> Self {
        let limit = limit.max(1) as usize;
        Self {
            configured: limit,
            limit,
            calls_ms: calls_ms.into_iter().collect(),
            others_ms: VecDeque::new(),
            is_shared: false,
            seen: 0,
            reserved: 0,
            reserved_until_ms: 0,
            hold_until_ms: 0,
        }
    }

    /// How long to wait before the next call; zero if it may go now.
    pub(super) fn wait(&mut self, now_ms: u64) -> Duration {
        // A call "in the future" is a clock that was set back: count it as made now.
        for at in self.calls_ms.iter_mut().rev().take_while(|at| **at > now_ms + GRAIN_MS) {
            *at = now_ms;
        }
        // Those of others may be reserved.
        for at in self.others_ms.iter_mut().rev().take_while(|at| **at > now_ms + MINUTE_MS) {
            *at = now_ms;
        }
        for calls_ms in [&mut self.calls_ms, &mut self.others_ms] {
            while calls_ms.front().is_some_and(|&at| at + MINUTE_MS <= now_ms) {
                calls_ms.pop_front();
            }
        }
        self.hold_until_ms = self.hold_until_ms.min(now_ms + MINUTE_MS);
        let over = (self.calls_ms.len() + self.others_ms.len() + 1).saturating_sub(self.limit);
        let free_at_ms = match over.checked_sub(1).and_then(|n| self.nth(n)) {
            Some(at) => at + MINUTE_MS + self.yields_ms(),
            None if self.is_shared && self.reserved == 0 => {
                self.calls_ms.back().map_or(now_ms, |last| last + self.yields_ms())
            }
            None => now_ms,
        };
        Duration::from_millis(free_at_ms.max(self.hold_until_ms).saturating_sub(now_ms))
    }

    /// The call after the `n` oldest ones, our own and those of others.
    fn nth(&self, n: usize) -> Option<u64> {
        let (mut ours, mut others) = (self.calls_ms.iter().peekable(), self.others_ms.iter().peekable());
        for _ in 0..n {
            match (ours.peek(), others.peek()) {
                (Some(our), Some(other)) if our > other => others.next(),
                (Some(_), _) => ours.next(),
                (None, _) => others.next(),
            };
        }
        ours.next().into_iter().chain(others.next()).min().copied()
    }

    /// Who has made more calls of the last minute lets those go first who have made fewer.
    fn yields_ms(&self) -> u64 {
        if !self.is_shared {
            return 0;
        }
        let (ours, limit) = (self.calls_ms.len() as u64, self.limit as u64);
        (YIELD_MS * ours).checked_div(limit).unwrap_or(0).min(YIELD_MS)
    }

    /// Reserves the next few calls if none are left. `true` means: store [`Self::persisted_ms`] before the next call.
    pub(super) fn reserve(&mut self, now_ms: u64) -> bool {
        if self.reserved > 0 && now_ms < self.reserved_until_ms {
            return false;
        }
        let free = self.limit.saturating_sub(self.calls_ms.len() + self.others_ms.len());
        self.reserved = free.min(self.limit.div_ceil(RESERVED_SHARE)).max(1);
        self.reserved_until_ms = now_ms + RESERVED_FOR_MS;
        true
    }

    pub(super) fn count(&mut self, now_ms: u64) {
        self.reserved = self.reserved.saturating_sub(1);
        let grain_ms = if self.configured > EXACT_LIMIT { GRAIN_MS } else { 1 };
        self.calls_ms.push_back(now_ms.next_multiple_of(grain_ms));
    }

    pub(super) fn see_others(&mut self, others: Others) {
        (self.seen, self.is_shared, self.others_ms) = (others.seen, others.are_there, others.calls_ms.into());
    }

    /// The change of the account that this window knows of.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// No call before this.
    pub(super) fn hold_until(&mut self, wall_ms: u64) {
        self.hold_until_ms = self.hold_until_ms.max(wall_ms);
    }

    /// Frees what was reserved and not used.
    pub(super) fn release_reserved(&mut self) {
        self.reserved = 0;
    }

    /// The calls of the last minute and those that are reserved, for the store.
    pub(super) fn persisted_ms(&self) -> Vec<u64> {
        let reserved = std::iter::repeat_n(self.reserved_until_ms, self.reserved);
        self.calls_ms.iter().copied().chain(reserved).collect()
    }

    /// Adds calls from the store. A call that is known already counts once; of several calls in one millisecond each
    /// counts.
    pub(super) fn remember(&mut self, calls_ms: impl IntoIterator<Item = u64>) {
        let mut known: HashMap<u64, usize> = HashMap::new();
        for at in &self.calls_ms {
            *known.entry(*at).or_default() += 1;
        }
        let is_new = |at: &u64| match known.get_mut(at) {
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

    /// Follows the server's own numbers (`X-RateLimit-*`), less the share that is left to others with the same key. A
    /// limit below the configured one replaces it. When others use the minute up, no call is made until it ends.
    pub(super) fn observe(&mut self, announced: RateLimit, reserve_ratio: f64, now_ms: u64) {
        let Some(limit) = announced.limit.filter(|limit| *limit > 0) else { return };
        let reserve = share(limit, reserve_ratio);
        self.limit = self.configured.min(limit.saturating_sub(reserve).max(1));
        // This program's calls leave the reserve alone: below it, somebody else is calling.
        if announced.remaining.is_some_and(|remaining| remaining < reserve) {
            self.hold_until_ms = now_ms + announced.reset_in_ms.unwrap_or(MINUTE_MS).min(MINUTE_MS);
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
pub(super) struct RateLimit {
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
    /// A header that is missing or not a number is `None`.
    pub(super) fn from_headers(headers: &http::HeaderMap, now_ms: u64) -> Self {
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
        let mut pace = Window::new(3, []);
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
        let mut pace = Window::new(9, [5, 5]);
        pace.remember([5, 5, 5, 7]);
        assert_eq!(pace.persisted_ms(), [5, 5, 5, 7]);
        pace.remember([5, 5, 5, 7]);
        assert_eq!(pace.persisted_ms(), [5, 5, 5, 7]);
    }

    #[test]
    fn calls_are_reserved_before_they_are_made_and_given_back_at_the_end() {
        let mut pace = Window::new(24, []);
        assert!(pace.reserve(1_000));
        assert_eq!(pace.persisted_ms(), [6_000; 3]);
        pace.count(1_000);
        assert!(!pace.reserve(2_000));
        pace.count(2_000);
        assert_eq!(pace.persisted_ms(), [1_000, 2_000, 6_000]);
        assert!(pace.reserve(6_000), "what is not used in time is reserved again");
        assert_eq!(pace.persisted_ms(), [1_000, 2_000, 11_000, 11_000, 11_000]);
        pace.release_reserved();
        assert_eq!(pace.persisted_ms(), [1_000, 2_000]);
    }

    #[test]
    fn calls_of_a_clock_that_was_set_back_count_for_a_minute_and_no_longer() {
        let mut pace = Window::new(1, [3_600_000]);
        assert_eq!(pace.wait(1_000), Duration::from_secs(60));
        assert_eq!(pace.wait(61_000), Duration::ZERO);
    }

    #[test]
    fn the_server_s_own_numbers_are_believed_less_a_reserve() {
        let mut pace = Window::new(50, []);
        let announced = |limit, remaining, reset| RateLimit {
            limit: Some(limit),
            remaining: Some(remaining),
            reset_in_ms: Some(reset),
        };
        pace.observe(announced(30, 29, 60_000), 0.2, 0);
        assert_eq!(pace.limit, 24);
        assert_eq!(pace.wait(0), Duration::ZERO);
        pace.observe(announced(30, 5, 7_000), 0.2, 0);
        assert_eq!(pace.wait(0), Duration::from_secs(7), "others use the same key");
        pace.observe(announced(5000, 4999, 7_000), 0.2, 0);
        assert_eq!(pace.limit, 50, "a larger limit does not lift the configured one");
        pace.observe(announced(30, 29, 0), 0.0, 0);
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
        let announced = RateLimit::from_headers(&headers("12"), now_ms);
        assert_eq!(announced, RateLimit { limit: Some(60), remaining: None, reset_in_ms: Some(12_000) });
        assert_eq!(RateLimit::from_headers(&headers("1800000030"), now_ms).reset_in_ms, Some(30_000));
        assert_eq!(RateLimit::from_headers(&headers("soon"), now_ms).reset_in_ms, None);
    }

    fn others(calls_ms: &[u64]) -> Others {
        Others { seen: 1, are_there: true, calls_ms: calls_ms.to_vec() }
    }

    #[test]
    fn calls_of_others_count_too_and_the_oldest_of_all_is_free_first() {
        let mut pace = Window::new(4, [1_000, 3_000]);
        pace.see_others(others(&[2_000, 9_000]));
        let yields_ms = YIELD_MS / 2;
        assert_eq!(pace.wait(10_000), Duration::from_millis(51_000 + yields_ms));
        pace.see_others(others(&[2_000, 4_000, 9_000]));
        assert_eq!(pace.wait(10_000), Duration::from_millis(52_000 + yields_ms));
        pace.see_others(Others::default());
        assert_eq!(pace.wait(10_000), Duration::ZERO);
    }

    #[test]
    fn no_more_calls_are_reserved_than_all_of_the_account_may_make() {
        let mut pace = Window::new(40, [1_000; 20]);
        pace.see_others(others(&[1_000; 18]));
        assert!(pace.reserve(1_000));
        assert_eq!(pace.reserved, 2);
    }

    #[test]
    fn of_those_who_reserve_the_one_with_fewer_calls_goes_first() {
        let (mut much, mut none) = (Window::new(10, [1_000; 5]), Window::new(10, []));
        for pace in [&mut much, &mut none] {
            pace.see_others(others(&[]));
        }
        assert_eq!((much.wait(1_000), none.wait(1_000)), (Duration::from_millis(500), Duration::ZERO));
        assert!(much.reserve(1_500));
        assert_eq!(much.wait(1_500), Duration::ZERO, "what is reserved waits for nobody");
    }

    #[test]
    fn a_minute_of_a_hundred_thousand_calls_is_six_hundred_times() {
        let mut pace = Window::new(100_000, []);
        for call in 0..100_000 {
            let now_ms = 1_000_050 + call * 6 / 10;
            assert_eq!(pace.wait(now_ms), Duration::ZERO, "call {call}");
            pace.count(now_ms);
        }
        assert!(pace.wait(1_060_051) > Duration::ZERO);
        let mut times = pace.persisted_ms();
        times.dedup();
        assert!(times.len() <= 601, "{}", times.len());
        assert!(times.iter().all(|at| at % GRAIN_MS == 0));
    }

    #[test]
    fn calls_of_an_earlier_run_count() {
        let mut pace = Window::new(2, [1_000, 31_000]);
        assert_eq!(pace.wait(41_000), Duration::from_secs(20));
        assert_eq!(pace.wait(61_000), Duration::ZERO);
    }
}
