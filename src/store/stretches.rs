//! Who calls a source when, shared by all processes that use its account: one small object in the store.
//!
//! OKKI counts calls per second, and a second is too short to write each call down. So processes take turns: each reserves
//! a stretch of time in `limits/<account>.json`, by compare-and-swap, behind all stretches that stand there, and calls at
//! its own pace inside of it. The source sees the pace of one process, in a fleet and across machines.
//!
//! **A process that is alone** reserves 2 s, then twice as much, up to 10 s: one save in ten seconds, as often as a lease is
//! renewed. A run that finds nothing changed has done its three calls by then. **Where others have called within a
//! minute** a stretch is a second long, the object is read before calls, at most every 250 ms, so that a silence that one
//! of them met is known; and what a run did not use is given back at its end.
//!
//! **None starves**: a process has one stretch at a time, and the next one comes behind those of all others.
//!
//! Races, and what each comes to:
//!
//! - **Two processes reserve at once.** One save fails; that process reads, and comes second.
//! - **A process is killed, or frozen.** Its stretch passes by unused. A frozen one sees on the wall clock that it has.
//! - **A save takes longer than the stretch.** It has passed; the next one is longer by as much.
//! - **A call and a silence cross on the way.** That call is refused like those that were in flight.
//! - **A clock was set back.** The stretches that stand in the object cannot take longer than all of them together.
//! - **Clocks of two machines differ.** Where one is ahead of the other by so much, their stretches may overlap by so much.
//! - **The object cannot be saved**, after three attempts: the process goes on as if it had. A person who may only read the
//!   store can make a plan, and a run that writes ends at its next save.

mod file;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use self::file::PaceFile;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::{Account, Stretch, StretchLedger};
use crate::store::limits::AccountId;
use crate::store::{Store, Version, others_first, paths};

/// Where others have called lately.
const SHARED: Duration = Duration::from_secs(1);
/// The first stretch of a process that is alone.
const FIRST: Duration = Duration::from_secs(2);
/// Its longest one.
const LONGEST: Duration = Duration::from_secs(10);
/// After a pause of this length the first one comes again.
const IDLE_MS: u64 = 60_000;
/// How old a look may be before a call, where others use the account.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a save is tried that the store failed.
const SAVES: u32 = 3;
/// Whoever has lost this many saves in a row waits no longer before the next one: a second at most.
const MOST_PATIENT: u32 = 20;
/// A store that takes longer must not keep a run from its end, or a call from its repetition.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// One account, as this process knows it.
#[derive(Debug)]
pub(crate) struct Stretches {
    id: AccountId,
    /// This process, in the object.
    name: String,
    /// Opened before the first call.
    store: Arc<OnceCell<Store>>,
    clock: Clock,
    account: Arc<Account>,
    is_shared: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    file: PaceFile,
    version: Option<Version>,
    seen_at: Option<Instant>,
    /// How long the last save took.
    took: Duration,
    is_warned: bool,
}

impl Stretches {
    pub(crate) fn new(id: AccountId, store: Arc<OnceCell<Store>>, clock: Clock) -> Self {
        let account = Arc::new(Account::new(clock));
        let (is_shared, known) = (AtomicBool::new(false), Mutex::default());
        Self { id, name: format!("{:08x}", fastrand::u32(..)), store, clock, account, is_shared, known }
    }

    /// What its callers in this process share.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Behind all stretches that are known.
    fn next_stretch(&self, known: &Known, interval: Duration, earliest_ms: u64) -> Stretch {
        let now_ms = self.clock.now_ms();
        let length = known.took + self.length(known, now_ms);
        let calls = length.as_nanos().checked_div(interval.as_nanos()).unwrap_or(1).max(1);
        let length = interval.saturating_mul(u32::try_from(calls).unwrap_or(u32::MAX));
        let from_ms = known.file.free_from_ms(now_ms).max(earliest_ms);
        Stretch { from_ms, until_ms: from_ms.saturating_add(ceil_ms(length)) }
    }

    fn length(&self, known: &Known, now_ms: u64) -> Duration {
        if known.file.has_others(&self.name, now_ms) {
            return SHARED;
        }
        let last = known.file.of(&self.name).filter(|last| last.until_ms + IDLE_MS > now_ms);
        let last = last.map(|last| Duration::from_millis(last.until_ms.saturating_sub(last.from_ms)));
        last.map_or(FIRST, |last| (last * 2).clamp(FIRST, LONGEST))
    }

    async fn try_to_reserve(
        &self,
        known: &mut Known,
        interval: Duration,
        earliest_ms: u64,
    ) -> Result<Stretch> {
        let Some(store) = self.store.get() else {
            return Ok(self.next_stretch(known, interval, earliest_ms));
        };
        if known.seen_at.is_none() {
            self.read(store, known).await?;
        }
        let mut saves = 1;
        loop {
            let stretch = self.next_stretch(known, interval, earliest_ms);
            let file = self.pruned(known).with(&self.name, stretch);
            if self.save(store, known, file, saves).await? {
                return Ok(stretch);
            }
            saves = MOST_PATIENT.min(saves + 1);
        }
    }

    /// `false`: others were first. What they saved is known now. `saves`: how many this one is in a row.
    async fn save(&self, store: &Store, known: &mut Known, file: PaceFile, saves: u32) -> Result<bool> {
        let (path, started) = (paths::limits(self.id.name()), Instant::now());
        let bytes = Bytes::from(serde_json::to_vec(&file).unwrap_or_default());
        match store.save_if_unchanged(&path, bytes, known.version.as_ref()).await {
            Ok(version) => {
                (known.file, known.version, known.took) = (file, Some(version), started.elapsed());
                self.publish(known);
                Ok(true)
            }
            Err(error) if error.kind == ErrorKind::StateConflict => {
                others_first(saves).await;
                self.read(store, known).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self, store: &Store, known: &mut Known) -> Result<()> {
        let path = paths::limits(self.id.name());
        (known.file, known.version) = match store.load(&path).await? {
            Some((bytes, version)) => (PaceFile::parse(store, &path, &bytes)?, Some(version)),
            None => (PaceFile::default(), None),
        };
        self.publish(known);
        Ok(())
    }

    /// Everybody in this process knows what is known.
    fn publish(&self, known: &mut Known) {
        known.seen_at = Some(Instant::now());
        if let Some(until_ms) = known.file.blocked_until_ms {
            self.account.block_until(until_ms);
        }
        let is_shared = known.file.has_others(&self.name, self.clock.now_ms());
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    fn pruned(&self, known: &Known) -> PaceFile {
        known.file.pruned(self.clock, self.account.blocked_until_ms())
    }

    /// Saves what `change` makes of the object, if it makes anything.
    async fn tell(&self, change: impl Fn(&Known) -> Option<PaceFile>) {
        let Some(store) = self.store.get() else { return };
        let telling = async {
            let mut known = self.known.lock().await;
            if known.seen_at.is_none() {
                self.read(store, &mut known).await?;
            }
            for saves in 1.. {
                let Some(file) = change(&known) else { break };
                if self.save(store, &mut known, file, saves).await? {
                    break;
                }
            }
            Ok(())
        };
        let told: Result<_, _> = tokio::time::timeout(TELL_WITHIN, telling).await;
        if let Ok(Err(error)) = told {
            let error: Error = error;
            tracing::debug!(error = %error.line(), "other processes could not be told of the source's pace");
        }
    }
}

#[async_trait::async_trait]
impl StretchLedger for Stretches {
    async fn reserve(&self, interval: Duration, earliest_ms: u64) -> Stretch {
        let mut known = self.known.lock().await;
        let mut last = None;
        for _ in 0..SAVES {
            match self.try_to_reserve(&mut known, interval, earliest_ms).await {
                Ok(stretch) => return stretch,
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last.filter(|_| !std::mem::replace(&mut known.is_warned, true)) {
            tracing::warn!(error = %error.line(), "the source's pace is not shared with other processes");
        }
        let stretch = self.next_stretch(&known, interval, earliest_ms);
        known.file = known.file.clone().with(&self.name, stretch);
        stretch
    }

    fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    async fn look(&self) {
        let Some(store) = self.store.get().filter(|_| self.is_shared()) else { return };
        let mut known = self.known.lock().await;
        if known.seen_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
            && let Err(error) = self.read(store, &mut known).await
        {
            tracing::debug!(error = %error.line(), "the source's pace could not be brought up to date before a call");
        }
    }

    async fn give_back(&self, from_ms: u64, until_ms: u64) {
        self.tell(|known| {
            let ours = known.file.of(&self.name)?;
            if ours.until_ms != until_ms || from_ms >= until_ms {
                // A run of this process that begins has taken another one since.
                return None;
            }
            // Behind another one's stretch nobody can use it.
            let is_last = known.file.free_from_ms(self.clock.now_ms()) <= ours.until_ms;
            let rest = Stretch { until_ms: from_ms.max(ours.from_ms), ..ours };
            is_last.then(|| self.pruned(known).with(&self.name, rest))
        })
        .await;
    }

    async fn tell_silence(&self) {
        self.tell(|known| {
            let until_ms = self.account.blocked_until_ms()?;
            (known.file.blocked_until_ms < Some(until_ms)).then(|| self.pruned(known))
        })
        .await;
    }
}

fn ceil_ms(length: Duration) -> u64 {
    u64::try_from(length.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const FIFTH: Duration = Duration::from_millis(200);

    fn process(store: &Store, clock: Clock) -> Stretches {
        let store = Arc::new(OnceCell::new_with(Some(store.clone())));
        Stretches::new(AccountId::of("source", "host", "key"), store, clock)
    }

    async fn reserve(process: &Stretches) -> (u64, u64) {
        let stretch = process.reserve(FIFTH, process.clock.now_ms()).await;
        (stretch.from_ms - NOW_MS, stretch.until_ms - NOW_MS)
    }

    #[tokio::test(start_paused = true)]
    async fn alone_they_grow_and_beside_another_one_they_are_a_second_long() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let (one, two) = (process(&store, clock), process(&store, clock));
        for expected in [(0, 2_000), (2_000, 6_000), (6_000, 14_000), (14_000, 24_000)] {
            assert_eq!(reserve(&one).await, expected);
            // Its last call goes before the stretch ends.
            tokio::time::advance(Duration::from_millis(expected.1 - expected.0 - 100)).await;
        }
        assert!(!one.is_shared());
        assert_eq!(reserve(&two).await, (24_000, 25_000));
        assert_eq!(reserve(&one).await, (25_000, 26_000));
        assert!(one.is_shared() && two.is_shared());
        tokio::time::advance(Duration::from_secs(90)).await;
        let (from_ms, until_ms) = reserve(&two).await;
        assert_eq!(until_ms - from_ms, 2_000, "the other one has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_ten_seconds_has_a_stretch_of_ten_seconds() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let one = process(&store, clock);
        let stretch = one.reserve(Duration::from_secs(10), NOW_MS).await;
        assert_eq!(stretch.until_ms - stretch.from_ms, 10_000);
        // Calls of a pace that does not divide a second leave no part of a call.
        let stretch = one.reserve(Duration::from_millis(3_300), NOW_MS).await;
        assert_eq!((stretch.until_ms - stretch.from_ms) % 3_300, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_free_unless_another_one_stands_behind_it() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let (one, two, three) = (process(&store, clock), process(&store, clock), process(&store, clock));
        assert_eq!(reserve(&one).await, (0, 2_000));
        one.give_back(NOW_MS + 600, NOW_MS + 2_000).await;
        assert_eq!(reserve(&two).await, (600, 1_600));
        assert_eq!(reserve(&three).await, (1_600, 2_600));
        two.give_back(NOW_MS + 800, NOW_MS + 1_600).await;
        assert_eq!(reserve(&one).await, (2_600, 3_600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_ends_as_the_next_one_begins_gives_none_of_its_time_away() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let (one, two) = (process(&store, clock), process(&store, clock));
        assert_eq!(reserve(&one).await, (0, 2_000));
        tokio::time::advance(Duration::from_millis(1_900)).await;
        assert_eq!(reserve(&one).await, (2_000, 6_000));
        one.give_back(NOW_MS + 1_950, NOW_MS + 2_000).await;
        assert_eq!(reserve(&two).await, (6_000, 7_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_known_to_another_process_with_its_next_look() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let (one, two) = (process(&store, clock), process(&store, clock));
        for process in [&one, &two, &one] {
            reserve(process).await;
        }
        one.account.block_until(NOW_MS + 300_000);
        one.tell_silence().await;
        two.look().await;
        assert!(two.account.blocked_for().is_zero(), "it looked a moment ago");
        tokio::time::advance(LOOK_EVERY).await;
        two.look().await;
        assert!(!two.account.blocked_for().is_zero());
        tokio::time::advance(Duration::from_secs(400)).await;
        reserve(&one).await;
        let (bytes, _) = store.load(&paths::limits(one.id.name())).await.unwrap().unwrap();
        assert_eq!(PaceFile::parse(&store, "", &bytes).unwrap().blocked_until_ms, None, "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_take_it_keeps_nobody_from_reading() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let one = process(&store, clock);
        store.put(&paths::limits(one.id.name()), r#"{"version":9}"#).await.unwrap();
        assert_eq!(reserve(&one).await, (0, 2_000));
        assert_eq!(reserve(&one).await, (2_000, 6_000));
        let (bytes, _) = store.load(&paths::limits(one.id.name())).await.unwrap().unwrap();
        assert_eq!(bytes, r#"{"version":9}"#);
    }
}
