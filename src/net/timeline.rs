//! When a side was called in a run, and when its callers waited: for the picture in the report's page.
//!
//! A run of unknown length is kept in at most [`MOST_BUCKETS`] stretches of equal length. Where it grows longer, each two
//! become one, so that a run of a second and one of fifteen minutes cost the same few hundred bytes. A call costs one short
//! lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::report::{SideTimes, Timeline};

/// Stretches that a run is kept in, at most. An even number: two become one.
const MOST_BUCKETS: usize = 60;
/// The length of a stretch at the start of a run: 7.5 s fit.
const FIRST_WIDTH: Duration = Duration::from_millis(125);

/// Records one side of a run.
#[derive(Debug)]
pub(super) struct Recorder(Mutex<Recording>);

#[derive(Debug)]
struct Recording {
    started: Instant,
    times: Times,
    /// Callers that wait now, and since when there has been one.
    waiting: usize,
    waiting_since: Instant,
}

impl Recording {
    fn now() -> Self {
        let now = Instant::now();
        Self { started: now, times: Times::default(), waiting: 0, waiting_since: now }
    }
}

/// A caller waits, until this is dropped.
pub(super) struct Waiting<'a>(&'a Recorder);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut recording = self.0.lock();
        // A run that began meanwhile knows nothing of this caller.
        let Some(others) = recording.waiting.checked_sub(1) else { return };
        recording.waiting = others;
        if others == 0 {
            let (from, to) = (recording.waiting_since - recording.started, recording.started.elapsed());
            recording.times.waited(from, to);
        }
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self(Mutex::new(Recording::now()))
    }
}

impl Recorder {
    /// A run begins.
    pub(super) fn restart(&self) {
        *self.lock() = Recording::now();
    }

    /// An attempt is sent.
    pub(super) fn called(&self) {
        self.count(|bucket| bucket.calls += 1);
    }

    /// An attempt did not succeed: the other side asked for a slower pace, or it failed in another way.
    pub(super) fn failed(&self, throttled: bool) {
        self.count(|bucket| if throttled { bucket.throttled += 1 } else { bucket.failed += 1 });
    }

    /// A caller begins to wait. Several that wait at a time count once.
    pub(super) fn wait(&self) -> Waiting<'_> {
        let mut recording = self.lock();
        if recording.waiting == 0 {
            recording.waiting_since = Instant::now();
        }
        recording.waiting += 1;
        Waiting(self)
    }

    /// What was recorded since the run began.
    pub(super) fn times(&self) -> Times {
        self.lock().times.clone()
    }

    fn count(&self, add: impl FnOnce(&mut Bucket)) {
        let mut recording = self.lock();
        let at = recording.started.elapsed();
        add(recording.times.bucket(at));
    }

    /// Nothing panics while it holds it.
    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One side's stretches.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    width: Duration,
    buckets: Vec<Bucket>,
    /// What a time beyond all bounds counts into.
    beyond: Bucket,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bucket {
    calls: u64,
    throttled: u64,
    failed: u64,
    waited: Duration,
}

impl Bucket {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.throttled += other.throttled;
        self.failed += other.failed;
        self.waited += other.waited;
    }
}

impl Default for Times {
    fn default() -> Self {
        Self { width: FIRST_WIDTH, buckets: Vec::new(), beyond: Bucket::default() }
    }
}

impl Times {
    /// Which stretch this time after the start is in.
    fn place(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.width.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    fn bucket(&mut self, at: Duration) -> &mut Bucket {
        while self.place(at) >= MOST_BUCKETS {
            self.halve();
        }
        let place = self.place(at);
        if place >= self.buckets.len() {
            self.buckets.resize(place + 1, Bucket::default());
        }
        self.buckets.get_mut(place).unwrap_or(&mut self.beyond)
    }

    /// Each two stretches become one.
    fn halve(&mut self) {
        self.width *= 2;
        let halved = self.buckets.chunks(2).map(|two| {
            let mut one = Bucket::default();
            two.iter().for_each(|bucket| one.add(*bucket));
            one
        });
        self.buckets = halved.collect();
    }

    /// Somebody waited, in these stretches or parts of them.
    fn waited(&mut self, from: Duration, to: Duration) {
        if from >= to {
            return;
        }
        // The last one first, so that the width stays what it is.
        self.bucket(to);
        let mut from = from;
        while from < to {
            let place = u32::try_from(self.place(from)).unwrap_or(u32::MAX);
            let end = self.width.saturating_mul(place.saturating_add(1)).min(to);
            if end <= from {
                return;
            }
            self.bucket(from).waited += end - from;
            from = end;
        }
    }

    fn into_side(self) -> SideTimes {
        let column = |value: fn(&Bucket) -> u64| {
            let mut column: Vec<u64> = self.buckets.iter().map(value).collect();
            let filled = column.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
            column.truncate(filled);
            column
        };
        SideTimes {
            calls: column(|bucket| bucket.calls),
            throttled: column(|bucket| bucket.throttled),
            failed: column(|bucket| bucket.failed),
            waited_ms: column(|bucket| u64::try_from(bucket.waited.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Both sides on one scale; `None` if neither was called nor waited for.
pub(crate) fn timeline(mut source: Times, mut target: Times) -> Option<Timeline> {
    let width = source.width.max(target.width);
    for side in [&mut source, &mut target] {
        while side.width < width {
            side.halve();
        }
    }
    let bucket_ms = u64::try_from(width.as_millis()).unwrap_or(u64::MAX);
    let timeline = Timeline { bucket_ms, source: source.into_side(), target: target.into_side() };
    (!timeline.source.is_empty() || !timeline.target.is_empty()).then_some(timeline)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn of(times: Times) -> Timeline {
        timeline(times, Times::default()).unwrap()
    }

    #[test]
    fn a_longer_run_has_longer_stretches_and_loses_no_call() {
        let mut times = Times::default();
        for second in 0..900 {
            times.bucket(ms(second * 1_000)).calls += 1;
            assert!(times.buckets.len() <= MOST_BUCKETS);
        }
        let timeline = of(times);
        assert_eq!(timeline.bucket_ms, 16_000, "15 minutes in at most 60 stretches");
        assert_eq!(timeline.source.calls.len(), 57);
        assert_eq!(timeline.source.calls.iter().sum::<u64>(), 900);
        assert_eq!(timeline.source.calls.first(), Some(&16));
    }

    #[test]
    fn a_wait_is_spread_over_the_stretches_that_it_took() {
        let mut times = Times::default();
        times.waited(ms(100), ms(300));
        times.waited(ms(300), ms(300));
        assert_eq!(of(times).source.waited_ms, [25, 125, 50]);

        let mut times = Times::default();
        times.waited(ms(0), ms(60_000));
        times.waited(ms(3_600_000), ms(3_600_001));
        let timeline = of(times);
        assert_eq!(timeline.source.waited_ms.iter().sum::<u64>(), 60_001);
        assert!(timeline.source.waited_ms.iter().all(|waited| *waited <= timeline.bucket_ms));
    }

    #[test]
    fn times_beyond_reason_are_kept_all_the_same() {
        let mut times = Times::default();
        times.bucket(Duration::from_secs(u64::from(u32::MAX))).calls += 1;
        times.waited(ms(0), Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!(of(times).source.calls.iter().sum::<u64>(), 1);
    }

    #[test]
    fn both_sides_have_one_scale_and_columns_end_with_their_last_number() {
        let (mut source, mut target) = (Times::default(), Times::default());
        source.bucket(ms(0)).calls += 3;
        source.bucket(ms(130)).throttled += 1;
        target.bucket(ms(14_000)).calls += 1;
        let timeline = timeline(source, target).unwrap();
        assert_eq!(timeline.bucket_ms, 250);
        assert_eq!((timeline.source.calls, timeline.source.throttled), (vec![3], vec![1]));
        assert_eq!((timeline.target.calls.len(), timeline.target.failed.len()), (57, 0));
        assert_eq!(super::timeline(Times::default(), Times::default()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_together_count_once() {
        let recorder = Recorder::default();
        let wait = async |before: u64, long: u64| {
            tokio::time::sleep(ms(before)).await;
            let _waiting = recorder.wait();
            tokio::time::sleep(ms(long)).await;
        };
        tokio::join!(wait(0, 100), wait(50, 100), wait(200, 25));
        let waited = of(recorder.times()).source.waited_ms;
        assert_eq!(waited.iter().sum::<u64>(), 175, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_began_before_the_run_is_not_the_run_s() {
        let recorder = Recorder::default();
        let waiting = recorder.wait();
        tokio::time::sleep(ms(500)).await;
        recorder.restart();
        tokio::time::sleep(ms(500)).await;
        drop(waiting);
        assert_eq!(timeline(recorder.times(), Times::default()), None);
    }
}
