//! Who called whom: runs that could meet are told apart by the calls that each of them makes.
//!
//! A run is a task, and the wires are in process: what a call belongs to is known where it arrives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::Outcome;
use tower::ServiceExt as _;

tokio::task_local! {
    /// The number of the run that is going on.
    static RUN: usize;
}

/// Two runs that go on at once for longer must have met: taking and releasing a lease takes less.
const MEETING_MS: u64 = 1_000;

/// One run, from its beginning to its end.
#[derive(Debug)]
struct Run {
    connection: String,
    mode: Mode,
    from_ms: u64,
    /// `None` while it goes on, and for ever if it was killed.
    to_ms: Option<u64>,
    is_busy: bool,
    calls: BTreeMap<Side, u64>,
}

/// A side that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Source,
    Target,
}

#[derive(Debug, Default)]
struct Seen {
    runs: Vec<Run>,
    /// Runs that sent rows, in the order of their calls.
    writers: Vec<usize>,
}

/// All calls of a world.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<Mutex<Seen>>);

impl Traffic {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// Listens to a side.
    pub fn on(&self, inner: Router, side: Side) -> Router {
        let traffic = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let (inner, path) = (inner.clone(), request.uri().path());
            let writes = path.ends_with("/store") || path.ends_with("/batchInsert");
            if let Ok(run) = RUN.try_with(|run| *run) {
                traffic.note(run, side, writes);
            }
            async move { inner.oneshot(request).await }
        })
    }

    fn note(&self, run: usize, side: Side, writes: bool) {
        let mut seen = self.seen();
        *seen.runs[run].calls.entry(side).or_default() += 1;
        if writes && seen.writers.last() != Some(&run) {
            seen.writers.push(run);
        }
    }

    /// A run begins. Its calls are those that are made in [`Self::within`].
    pub fn begin(&self, connection: &str, mode: Mode, now_ms: u64) -> usize {
        let mut seen = self.seen();
        let (connection, calls) = (connection.to_owned(), BTreeMap::new());
        seen.runs.push(Run { connection, mode, from_ms: now_ms, to_ms: None, is_busy: false, calls });
        seen.runs.len() - 1
    }

    pub async fn within<T>(run: usize, work: impl Future<Output = T>) -> T {
        RUN.scope(run, work).await
    }

    /// A run has ended by itself.
    pub fn end(&self, run: usize, now_ms: u64, outcome: &Outcome) {
        let is_busy = outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
        let run = &mut self.seen().runs[run];
        (run.to_ms, run.is_busy) = (Some(now_ms), is_busy);
    }

    /// A run that meets another one makes no call; a verification has read the source by then.
    pub fn busy_runs_are_silent(&self) -> Result<(), String> {
        for run in self.seen().runs.iter().filter(|run| run.is_busy) {
            let calls = |side| run.calls.get(&side).copied().unwrap_or_default();
            let source = if run.mode == Mode::Sync { calls(Side::Source) } else { 0 };
            if source + calls(Side::Target) > 0 {
                return Err(format!("busy: a run met another one and called all the same: {run:?}"));
            }
        }
        Ok(())
    }

    /// Once a run of the connection has sent rows, no earlier one sends any.
    pub fn nobody_writes_beside_another(&self) -> Result<(), String> {
        let seen = self.seen();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for writer in &seen.writers {
            let run = &seen.runs[*writer];
            let last = last.entry(&run.connection).or_insert(*writer);
            if seen.runs[*last].from_ms > run.from_ms {
                return Err(format!("lease: {run:?} sent rows after {:?} had", seen.runs[*last]));
            }
            *last = *writer;
        }
        Ok(())
    }

    /// Of two syncs of a connection that go on at once, one is busy. (Only where nothing took a lease away.)
    pub fn the_last_two_have_met(&self) -> Result<(), String> {
        let seen = self.seen();
        let [.., one, two] = &seen.runs[..] else { return Ok(()) };
        let both = |is: fn(&Run) -> bool| is(one) && is(two);
        if one.connection != two.connection
            || !both(|run| run.mode == Mode::Sync && run.to_ms.is_some() && !run.is_busy)
        {
            return Ok(());
        }
        let from_ms = one.from_ms.max(two.from_ms);
        let to_ms = one.to_ms.min(two.to_ms).unwrap_or_default();
        if to_ms > from_ms + MEETING_MS {
            return Err(format!("lease: two runs went on at once: {one:?} and {two:?}"));
        }
        Ok(())
    }
}
