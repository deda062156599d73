//! The batches in flight to the target: how many at a time, and how they end.
//!
//! Goals: use the target's limit, and have as few batches as possible in flight when it asks for a pause.
//!
//! - **Slow start.** One batch at first, one more after each success, one again after a failure. If the target asks for
//!   a pause, few other batches are in flight, and those count against it too.
//! - **An answer comes while a save is awaited.** Both are waited for at the same time (`write`), so that an error stops
//!   the next call at once and not after the save.
//! - **A batch waits for its turn when another one ends the writing.** Closing the budget wakes it: its call is not made.
//! - **Several batches fail.** The first error ends the run, but the longest pause that the target asked for decides when
//!   the next run may come: see [`more_severe`].
//! - **The run ends with batches in flight.** They are awaited, never dropped: the target may have taken their rows.
//!
//! Deliberately absent: an order among batches, which the `queue` sees to before it lets a row go, and a retry of a whole
//! batch, which is `targets`' to decide because only it knows which rows are in doubt.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::budget::{Budget, interrupted};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::plan::{Action, RowRef};
use crate::targets::batch::Batch;
use crate::targets::{TargetRun, Written};
use crate::words::say;

/// A batch that has ended.
pub(super) struct Done {
    pub written: Written,
    /// Its rows of groups, by their index.
    pub groups: Vec<usize>,
    /// All its rows, as the batch was cut.
    pub rows: Vec<(RowRef, Action)>,
    /// From the call to the answer.
    pub took: Duration,
    sent: Result<()>,
}

/// The batches of a run at its target.
pub(super) struct InFlight<'a> {
    target: TargetRun<'a>,
    budget: Budget,
    closing: watch::Sender<bool>,
    batches: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Those that ended while something else was awaited.
    completed: VecDeque<Done>,
    slow_start: SlowStart,
    failures: u64,
    error: Option<Error>,
}

impl<'a> InFlight<'a> {
    /// At most `most` batches at a time.
    pub(super) fn new(target: TargetRun<'a>, budget: &Budget, most: usize) -> Self {
        let closing = watch::Sender::new(false);
        Self {
            target,
            budget: budget.closed_by(closing.subscribe()),
            closing,
            batches: FuturesUnordered::new(),
            completed: VecDeque::new(),
            slow_start: SlowStart::new(most),
            failures: target.failures(),
            error: None,
        }
    }

    /// Whether the next batch has to wait until one ends, or until one of the `unsaved` is saved: after a kill those go
    /// again too. A target that takes one batch at a time need not wait for a save.
    pub(super) fn is_full(&mut self, unsaved: usize) -> bool {
        self.note_failures();
        let (under_way, at_once) = (self.batches.len() + self.completed.len(), self.slow_start.at_once());
        under_way >= at_once || (unsaved > 0 && under_way + unsaved >= at_once.max(2))
    }

    /// Whether no batch is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.completed.is_empty()
    }

    /// Whether an error has ended the writing.
    pub(super) fn has_ended(&self) -> bool {
        self.error.is_some()
    }

    /// Sends a batch, unless it would probably not come back in time.
    pub(super) fn begin(
        &mut self,
        batch: Batch,
        (groups, rows): (Vec<usize>, Vec<(RowRef, Action)>),
        slowest: Duration,
    ) -> Result<()> {
        if self.budget.is_over() || self.budget.left() < slowest {
            return Err(interrupted(say!("the run's time is over or it was asked to stop")));
        }
        let (target, budget) = (self.target, self.budget.clone());
        let sending = async move {
            let started = Instant::now();
            let mut written = Written::default();
            let sent = target.write(&budget, batch, &mut written).await;
            Done { written, groups, rows, took: started.elapsed(), sent }
        };
        self.batches.push(sending.boxed());
        // Its call goes out now, not when the next batch has been rendered.
        if let Some(Some(done)) = self.batches.next().now_or_never() {
            self.queue(done);
        }
        Ok(())
    }

    /// The next batch that ends; `None` when no more are in flight.
    pub(super) async fn next(&mut self) -> Option<Done> {
        if let Some(done) = self.completed.pop_front() {
            return Some(done);
        }
        let done = self.batches.next().await?;
        self.note_end(&done);
        Some(done)
    }

    /// Ends the writing: batches that wait for their turn are not sent.
    pub(super) fn end_with(&mut self, error: Error) {
        // When time runs out, batches already sent may still finish; only new ones are not started.
        if error.kind != ErrorKind::Interrupted {
            self.closing.send_replace(true);
        }
        self.error = Some(match self.error.take() {
            Some(first) => more_severe(first, error),
            None => error,
        });
    }

    /// The error that ended the writing, if one did.
    pub(super) fn into_result(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }

    fn queue(&mut self, done: Done) {
        self.note_end(&done);
        self.completed.push_back(done);
    }

    fn note_end(&mut self, done: &Done) {
        if let Err(error) = &done.sent {
            self.end_with(error.clone());
        }
        if !self.note_failures() {
            self.slow_start.on_success();
        }
    }

    fn note_failures(&mut self) -> bool {
        let failures = self.target.failures();
        let more = failures > std::mem::replace(&mut self.failures, failures);
        if more {
            self.slow_start.on_failure();
        }
        more
    }
}

/// The first error ends the run. But a pause that the target asked for outweighs an interruption, and of two such pauses
/// the longer one counts.
fn more_severe(first: Error, other: Error) -> Error {
    let pause =
        |error: &Error| error.resume_after.filter(|_| error.kind == ErrorKind::Throttled(Side::Target));
    match (pause(&first), pause(&other)) {
        (Some(one), Some(two)) if two > one => other,
        (None, Some(_)) if first.kind == ErrorKind::Interrupted => other,
        _ => first,
    }
}

/// How many may be in flight at a time.
#[derive(Debug)]
struct SlowStart {
    most: usize,
    at_once: usize,
}

impl SlowStart {
    fn new(most: usize) -> Self {
        Self { most: most.max(1), at_once: 1 }
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn on_success(&mut self) {
        self.at_once = (self.at_once + 1).min(self.most);
    }

    fn on_failure(&mut self) {
        self.at_once = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_success_lets_one_more_batch_fly_and_a_failure_starts_again_at_one() {
        let mut start = SlowStart::new(3);
        assert_eq!(start.at_once(), 1);
        start.on_success();
        assert_eq!(start.at_once(), 2);
        start.on_success();
        start.on_success();
        assert_eq!(start.at_once(), 3);
        start.on_failure();
        assert_eq!(start.at_once(), 1);
        assert_eq!(SlowStart::new(0).at_once(), 1);
    }

    #[test]
    fn the_first_error_counts_unless_another_one_tells_the_target_s_pause() {
        let error = |kind, seconds: Option<u64>| {
            let error = Error::new(kind, "");
            seconds.map_or(error.clone(), |seconds| error.resume_after(Duration::from_secs(seconds)))
        };
        let throttled = |seconds| error(ErrorKind::Throttled(Side::Target), Some(seconds));
        let (stopped, refused) =
            (|| error(ErrorKind::Interrupted, None), || error(ErrorKind::BadAnswer(Side::Target), None));
        assert_eq!(more_severe(stopped(), refused()), stopped());
        assert_eq!(more_severe(stopped(), throttled(7)), throttled(7));
        assert_eq!(more_severe(refused(), throttled(7)), refused());
        assert_eq!(more_severe(throttled(7), refused()), throttled(7));
        assert_eq!(more_severe(throttled(7), throttled(300)), throttled(300));
        assert_eq!(more_severe(throttled(300), throttled(7)), throttled(300));
    }
}
