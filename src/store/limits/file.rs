//! The stored object of an account: its format, and what is left out of it when it is saved.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::retry::RETRY_AFTER_CAP;
use crate::store::Store;
use crate::words::{Message, say};

const FORMAT_NAME: &str = "okki-sync limits";
const FORMAT_VERSION: u32 = 1;
const MINUTE_MS: u64 = 60_000;
/// Who has not called for this long is forgotten: those who are left may be alone.
const SHARED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Callers without a call in the last minute that are remembered, so that the object stays small.
const IDLE_CALLERS: usize = 16;

/// The stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LimitsFile {
    pub format: String,
    pub version: u32,
    /// The account wants no call before this, wall-clock milliseconds.
    pub blocked_until_ms: Option<u64>,
    /// By connection.
    pub callers: BTreeMap<String, Caller>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Caller {
    /// The run that saved last.
    pub run_id: String,
    /// When it did.
    pub at_ms: u64,
    /// Calls of the last minute, made and reserved: pairs of wall-clock milliseconds and a number.
    calls: Vec<(u64, u32)>,
}

impl Default for LimitsFile {
    fn default() -> Self {
        let format = FORMAT_NAME.to_owned();
        Self { format, version: FORMAT_VERSION, blocked_until_ms: None, callers: BTreeMap::new() }
    }
}

impl LimitsFile {
    pub(super) fn parse(store: &Store, path: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |what: Message| {
            Error::new(
                ErrorKind::BadState,
                say!("store {store}: {path} {what}", store = store.name(), path, what),
            )
        };
        let file: Self = serde_json::from_slice(bytes).map_err(|_| {
            bad(say!("is damaged; nothing was written"))
                .help(say!("remove it when no run has been going on for five minutes"))
        })?;
        if file.version > FORMAT_VERSION {
            return Err(bad(say!("was written by a newer program")).help(say!("use that one")));
        }
        Ok(file)
    }

    /// The object without what has passed, and with this silence.
    pub(super) fn pruned(&self, clock: Clock, blocked_until_ms: Option<u64>) -> Self {
        let now_ms = clock.now_ms();
        let mut file = self.clone();
        file.blocked_until_ms = silence_ahead(clock, [file.blocked_until_ms, blocked_until_ms]);
        for caller in file.callers.values_mut() {
            // A time from a wrong clock would stay for ever.
            caller
                .calls
                .iter_mut()
                .filter(|(at, _)| *at > now_ms + MINUTE_MS)
                .for_each(|call| call.0 = now_ms);
            caller.calls.retain(|(at, _)| at + MINUTE_MS > now_ms);
        }
        file.forget_idle(now_ms);
        file
    }

    pub(super) fn has_active_others(&self, connection: &str, now_ms: u64) -> bool {
        self.callers.iter().any(|(name, caller)| name != connection && caller.is_active(now_ms))
    }

    fn forget_idle(&mut self, now_ms: u64) {
        let idle = self.callers.iter().filter(|(_, caller)| caller.calls.is_empty());
        let mut idle: Vec<(u64, String)> = idle.map(|(name, caller)| (caller.at_ms, name.clone())).collect();
        idle.sort_unstable_by(|a, b| b.cmp(a));
        let is_kept = |at_ms: u64| u128::from(now_ms.abs_diff(at_ms)) < SHARED_FOR.as_millis();
        let kept = idle.iter().take(IDLE_CALLERS).take_while(|(at_ms, _)| is_kept(*at_ms)).count();
        for (_, name) in idle.into_iter().skip(kept) {
            self.callers.remove(&name);
        }
    }
}

impl Caller {
    pub(super) fn new(run_id: &str, at_ms: u64, calls_ms: &[u64]) -> Self {
        Self { run_id: run_id.to_owned(), at_ms, calls: pairs(calls_ms) }
    }

    /// Whether it has called, or waited, in the last minute.
    pub(super) fn is_active(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.at_ms) < MINUTE_MS
            || self.calls.last().is_some_and(|(at, _)| at + MINUTE_MS > now_ms)
    }

    pub(super) fn calls_ms(&self) -> impl Iterator<Item = u64> {
        self.calls.iter().flat_map(|&(at, number)| std::iter::repeat_n(at, number as usize))
    }
}

/// The silence that lasts longest. A time that is more than an hour away comes from a clock that was set back: it does not
/// count.
pub(in crate::store) fn silence_ahead(clock: Clock, until_ms: [Option<u64>; 2]) -> Option<u64> {
    let is_ahead = |at: &u64| clock.now_ms() < *at && clock.until_ms(*at) <= RETRY_AFTER_CAP;
    until_ms.into_iter().flatten().filter(is_ahead).max()
}

/// Calls of one millisecond become one pair.
fn pairs(calls_ms: &[u64]) -> Vec<(u64, u32)> {
    let same = calls_ms.chunk_by(|a, b| a == b);
    same.filter_map(|calls| Some((*calls.first()?, u32::try_from(calls.len()).unwrap_or(u32::MAX)))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn file(callers: &[(&str, u64, &[u64])]) -> LimitsFile {
        let callers = callers.iter();
        let callers =
            callers.map(|(name, at_ms, calls)| ((*name).to_owned(), Caller::new("r", *at_ms, calls)));
        LimitsFile { callers: callers.collect(), ..LimitsFile::default() }
    }

    #[test]
    fn the_object_is_small_however_many_calls_a_millisecond_holds() {
        let text = serde_json::to_string(&file(&[("acme", 9, &[7, 7, 8])])).unwrap();
        let expected = r#"{"format":"okki-sync limits","version":1,"blocked_until_ms":null,"callers":{"acme":{"run_id":"r","at_ms":9,"calls":[[7,2],[8,1]]}}}"#;
        assert_eq!(text, expected);
        let read = LimitsFile::parse(&Store::memory(), "limits/x.json", text.as_bytes()).unwrap();
        assert_eq!(read.callers.values().next().unwrap().calls_ms().collect::<Vec<_>>(), [7, 7, 8]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_passed_is_left_out_and_who_was_here_today_is_remembered() {
        let clock = Clock::starting_at_ms(NOW_MS);
        let day_ms = SHARED_FOR.as_millis() as u64;
        let all = file(&[
            ("calls", NOW_MS, &[NOW_MS - 60_000, NOW_MS - 59_999, NOW_MS + 5_000, NOW_MS + 3_600_000]),
            ("today", NOW_MS - day_ms + 1, &[NOW_MS - 60_000]),
            ("yesterday", NOW_MS - day_ms, &[]),
        ]);
        let pruned = all.pruned(clock, Some(NOW_MS + 300_000));
        assert_eq!(pruned.callers.keys().collect::<Vec<_>>(), ["calls", "today"]);
        let calls: Vec<u64> = pruned.callers.values().flat_map(Caller::calls_ms).collect();
        assert_eq!(calls, [NOW_MS - 59_999, NOW_MS + 5_000, NOW_MS], "a clock was set back");
        assert_eq!(pruned.blocked_until_ms, Some(NOW_MS + 300_000));
        for wrong in [NOW_MS, NOW_MS + 3_600_001] {
            assert_eq!(pruned.pruned(clock, None).blocked_until_ms, Some(NOW_MS + 300_000));
            assert_eq!(all.pruned(clock, Some(wrong)).blocked_until_ms, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_of_idle_connections_leaves_the_newest_sixteen() {
        let names: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
        let all: Vec<(&str, u64, &[u64])> =
            names.iter().zip(NOW_MS - 40..).map(|(name, at)| (name.as_str(), at, &[] as &[u64])).collect();
        let pruned = file(&all).pruned(Clock::starting_at_ms(NOW_MS), None);
        assert_eq!(pruned.callers.len(), IDLE_CALLERS);
        assert!(pruned.callers.contains_key("c39") && !pruned.callers.contains_key("c23"));
    }

    #[test]
    fn a_damaged_or_newer_object_is_refused_by_name() {
        for (text, word) in [
            ("{", "damaged"),
            (r#"{"format":"okki-sync limits","version":9,"blocked_until_ms":null,"callers":{}}"#, "newer"),
        ] {
            let error = LimitsFile::parse(&Store::memory(), "limits/x.json", text.as_bytes()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadState);
            assert!(
                error.to_string().contains(word) && error.to_string().contains("limits/x.json"),
                "{error}"
            );
        }
    }
}
