//! The batches under way at the target: how many at a time, and how they end.
//!
//! The first one goes alone and each good one lets one more go beside it, since an answer that asks for silence
//! should find as little else under way as can be had cheaply. After the first error no call is begun; those that
//! were sent are awaited, because the target may have taken their rows.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::budget::{Budget, interrupted};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::targets::batch::Batch;
use crate::targets::{Target, Written};

/// A batch that has come to its end.
pub(super) struct Done {
    /// What became of its rows.
    pub written: Written,
    /// How long it was under way.
    pub took: Duration,
    sent: Result<()>,
}

/// The batches of a run at its target.
pub(super) struct InFlight<'a> {
    target: &'a Target,
    budget: Budget,
    closing: watch::Sender<bool>,
    batches: FuturesUnordered<BoxFuture<'a, Done>>,
    /// Those that came back while something else was waited for.
    completed: VecDeque<Done>,
    slow_start: SlowStart,
    failures: u64,
    error: Option<Error>,
}

impl<'a> InFlight<'a> {
    /// At most `most` batches at a time.
    pub(super) fn new(target: &'a Target, budget: &Budget, most: usize) -> Self {
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

    /// Whether the next batch has to wait until one comes back.
    pub(super) fn is_full(&mut self) -> bool {
        self.look_for_setbacks();
        self.batches.len() + self.completed.len() >= self.slow_start.at_once()
    }

    /// Whether an error has ended the writing.
    pub(super) fn has_ended(&self) -> bool {
        self.error.is_some()
    }

    /// Sends a batch, unless it would probably not come back in time.
    pub(super) fn begin(&mut self, batch: Batch, slowest: Duration) -> Result<()> {
        if self.budget.is_over() || self.budget.left() < slowest {
            return Err(interrupted("the run's time is over or it was asked to stop"));
        }
        let (target, budget) = (self.target, self.budget.clone());
        let sending = async move {
            let started = Instant::now();
            let mut written = Written::default();
            let sent = target.write(&budget, batch, &mut written).await;
            Done { written, took: started.elapsed(), sent }
        };
        self.batches.push(sending.boxed());
        // Its call goes out now, not when the next batch has been rendered.
        if let Some(Some(done)) = self.batches.next().now_or_never() {
            self.keep(done);
        }
        Ok(())
    }

    /// The next batch that comes back; none when no more are under way.
    pub(super) async fn next(&mut self) -> Option<Done> {
        if let Some(done) = self.completed.pop_front() {
            return Some(done);
        }
        let done = self.batches.next().await?;
        self.look_at(&done);
        Some(done)
    }

    /// Does something else while the batches go on. Answers that come meanwhile are kept, and an error closes the
    /// door at once.
    pub(super) async fn while_draining<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                Some(done) = self.batches.next() => self.keep(done),
            }
        }
    }

    /// Ends the writing: nothing more is begun by whoever waits for its turn.
    pub(super) fn end_with(&mut self, error: Error) {
        // That the time is over keeps nobody who is under way from ending well.
        if error.kind != ErrorKind::Interrupted {
            self.closing.send_replace(true);
        }
        self.error = Some(match self.error.take() {
            Some(first) => more_severe(first, error),
            None => error,
        });
    }

    /// How the writing ended.
    pub(super) fn into_end(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }

    fn keep(&mut self, done: Done) {
        self.look_at(&done);
        self.completed.push_back(done);
    }

    fn look_at(&mut self, done: &Done) {
        if let Err(error) = &done.sent {
            self.end_with(error.clone());
        }
        if !self.look_for_setbacks() {
            self.slow_start.on_success();
        }
    }

    fn look_for_setbacks(&mut self) -> bool {
        let failures = self.target.failures();
        let more = failures > std::mem::replace(&mut self.failures, failures);
        if more {
            self.slow_start.on_failure();
        }
        more
    }
}

/// The first error ends the run; but how long the target wants silence outweighs that the run was interrupted, and
/// of two such times the longer one counts.
fn more_severe(first: Error, other: Error) -> Error {
    let silence =
        |error: &Error| error.resume_after.filter(|_| error.kind == ErrorKind::Throttled(Side::Target));
    match (silence(&first), silence(&other)) {
        (Some(one), Some(two)) if two > one => other,
        (None, Some(_)) if first.kind == ErrorKind::Interrupted => other,
        _ => first,
    }
}

/// How many may be under way at a time.
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
    fn each_good_batch_lets_one_more_go_beside_it_and_a_setback_begins_anew() {
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
    fn the_first_error_counts_unless_another_says_how_long_to_wait() {
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
