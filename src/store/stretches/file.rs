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
