//! The stored object of a source's account: its format, and what is left out of it when it is saved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::Stretch;
use crate::store::Store;
use crate::store::limits::silence_ahead;
use crate::words::say;

const FORMAT_NAME: &str = "okki-sync pace";
const FORMAT_VERSION: u32 = 1;
/// Who has called within this time is not alone.
const LATELY_MS: u64 = 60_000;
/// Processes whose stretch has passed that are remembered, so that the object stays small.
const PASSED: usize = 8;

/// The stored object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PaceFile {
    format: String,
    version: u32,
    /// The source wants no call before this, wall-clock milliseconds.
    pub blocked_until_ms: Option<u64>,
    /// The last stretch of each process, wall-clock milliseconds.
    stretches: BTreeMap<String, (u64, u64)>,
}

impl Default for PaceFile {
    fn default() -> Self {
        let (format, stretches) = (FORMAT_NAME.to_owned(), BTreeMap::new());
        Self { format, version: FORMAT_VERSION, blocked_until_ms: None, stretches }
    }
}

impl PaceFile {
    /// A damaged object is replaced: what it knew is over in seconds.
    pub(super) fn parse(store: &Store, path: &str, bytes: &[u8]) -> Result<Self> {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(Self::default()) };
        if value.get("version").and_then(Value::as_u64) > Some(FORMAT_VERSION.into()) {
            let what = say!("was written by a newer program");
            let message = say!("store {store}: {path} {what}", store = store.name(), path, what);
            return Err(Error::new(ErrorKind::BadState, message).help(say!("use that one")));
        }
        Ok(serde_json::from_value(value).unwrap_or_default())
    }

    pub(super) fn of(&self, process: &str) -> Option<Stretch> {
        self.stretches.get(process).map(|&(from_ms, until_ms)| Stretch { from_ms, until_ms })
    }

    pub(super) fn with(mut self, process: &str, Stretch { from_ms, until_ms }: Stretch) -> Self {
        self.stretches.insert(process.to_owned(), (from_ms, until_ms));
        self
    }

    /// Whether another process has called lately, or is about to.
    pub(super) fn has_others(&self, process: &str, now_ms: u64) -> bool {
        let mut others = self.stretches.iter().filter(|(name, _)| *name != process);
        others.any(|(_, (_, until_ms))| until_ms.saturating_add(LATELY_MS) > now_ms)
    }

    /// Where the last stretch ends; now, if all have passed.
    pub(super) fn free_from_ms(&self, now_ms: u64) -> u64 {
        let end_ms = self.ahead(now_ms).map(|(_, until_ms)| until_ms).max().unwrap_or(now_ms);
        end_ms.min(self.latest_ms(now_ms))
    }

    fn ahead(&self, now_ms: u64) -> impl Iterator<Item = (u64, u64)> {
        self.stretches.values().copied().filter(move |(_, until_ms)| *until_ms > now_ms)
    }

    /// Each stretch was reserved behind those before it, or a second ahead. One that ends later than all of them together
    /// take comes from a clock that was set back.
    fn latest_ms(&self, now_ms: u64) -> u64 {
        let all_ms: u64 =
            self.ahead(now_ms).map(|(from_ms, until_ms)| until_ms.saturating_sub(from_ms)).sum();
        now_ms.saturating_add(all_ms).saturating_add(1_000)
    }

    /// The object without what has passed, and with this silence.
    pub(super) fn pruned(&self, clock: Clock, blocked_until_ms: Option<u64>) -> Self {
        let now_ms = clock.now_ms();
        let mut file = self.clone();
        file.blocked_until_ms = silence_ahead(clock, [file.blocked_until_ms, blocked_until_ms]);
        // A time from a wrong clock would stay for ever.
        let latest_ms = self.latest_ms(now_ms);
        for (from_ms, until_ms) in file.stretches.values_mut().filter(|(_, until_ms)| *until_ms > latest_ms) {
            (*from_ms, *until_ms) = (latest_ms.saturating_sub(until_ms.saturating_sub(*from_ms)), latest_ms);
        }
        let passed = file.stretches.iter().filter(|(_, (_, until_ms))| *until_ms <= now_ms);
        let mut passed: Vec<(u64, String)> =
            passed.map(|(name, (_, until_ms))| (*until_ms, name.clone())).collect();
        passed.sort_unstable_by(|a, b| b.cmp(a));
        let is_late = |until_ms: u64| until_ms.saturating_add(LATELY_MS) > now_ms;
        let kept = passed.iter().take(PASSED).take_while(|(until_ms, _)| is_late(*until_ms)).count();
        for (_, name) in passed.into_iter().skip(kept) {
            file.stretches.remove(&name);
        }
        file
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn file(stretches: &[(&str, u64, u64)]) -> PaceFile {
        stretches.iter().fold(PaceFile::default(), |file, &(name, from_ms, until_ms)| {
            file.with(name, Stretch { from_ms: NOW_MS + from_ms, until_ms: NOW_MS + until_ms })
        })
    }

    #[test]
    fn a_line_holds_all_that_processes_say_of_their_stretches() {
        let text = serde_json::to_string(&file(&[("18aa220a", 0, 2_000)])).unwrap();
        let expected = r#"{"format":"okki-sync pace","version":1,"blocked_until_ms":null,"stretches":{"18aa220a":[1800000000000,1800000002000]}}"#;
        assert_eq!(text, expected);
        let read = PaceFile::parse(&Store::memory(), "", text.as_bytes()).unwrap();
        assert_eq!(read.of("18aa220a").map(|ours| ours.until_ms), Some(NOW_MS + 2_000));
    }

    #[test]
    fn the_next_stretch_begins_where_the_last_one_ends() {
        let all = file(&[("a", 0, 1_000), ("b", 1_000, 2_000)]);
        assert_eq!(all.free_from_ms(NOW_MS + 500), NOW_MS + 2_000);
        assert_eq!(all.free_from_ms(NOW_MS + 3_000), NOW_MS + 3_000);
        assert!(all.has_others("a", NOW_MS + 61_999) && !all.has_others("a", NOW_MS + 62_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_keeps_nobody_waiting() {
        let wrong = file(&[("a", 3_600_000, 3_602_000)]);
        assert_eq!(wrong.free_from_ms(NOW_MS), NOW_MS + 3_000);
        let pruned = wrong.pruned(Clock::starting_at_ms(NOW_MS), None);
        assert!(!pruned.has_others("b", NOW_MS + 63_000), "{pruned:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_of_those_that_have_passed_are_remembered_for_a_minute() {
        let names: Vec<String> = (0..20).map(|n| format!("p{n:02}")).collect();
        let all: Vec<(&str, u64, u64)> =
            names.iter().zip(0..).map(|(name, n)| (name.as_str(), n * 10, n * 10 + 10)).collect();
        let pruned = |after_ms| {
            let clock = Clock::starting_at_ms(NOW_MS + after_ms);
            file(&all).pruned(clock, None).stretches.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(pruned(200).first().map(String::as_str), Some("p12"));
        assert_eq!(pruned(60_190), ["p19"]);
        assert!(pruned(60_200).is_empty());
    }

    #[test]
    fn a_damaged_object_is_replaced_and_a_newer_one_is_not() {
        let parse = |text: &str| PaceFile::parse(&Store::memory(), "limits/x.json", text.as_bytes());
        assert_eq!(parse("{").unwrap(), PaceFile::default());
        assert_eq!(parse(r#"{"version":1,"stretches":7}"#).unwrap(), PaceFile::default());
        let error = parse(r#"{"format":"okki-sync pace","version":9}"#).unwrap_err();
        assert!(error.to_string().contains("limits/x.json was written by a newer program"), "{error}");
    }
}
