//! What a run may still spend: its time, until it is asked to stop. A caller that waits announces it here, since a person
//! who watches must not take a long wait for a hang.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result, Side};
use crate::report::{Progress, Watch};
use crate::words::{Message, say};

/// Time kept free before the deadline, for saving the state and the report.
pub(crate) const SAVE_RESERVE: Duration = Duration::from_secs(5);

/// A shorter wait is part of an ordinary pace and is not told.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Where a run's callers announce their waits. Of several that wait for the same moment, one is told.
struct Announcer {
    waits: mpsc::UnboundedSender<Progress>,
    told_until: Mutex<Instant>,
}

impl Announcer {
    fn announce(&self, side: Side, wait: Duration) {
        let Some(end) = Instant::now().checked_add(wait) else { return };
        let mut told_until = self.told_until.lock().unwrap_or_else(PoisonError::into_inner);
        if wait < WORTH_TELLING || end < *told_until + WORTH_TELLING {
            return;
        }
        *told_until = end;
        // It fails only after the run, when nobody listens.
        let _ = self.waits.send(Progress::Waiting { side, wait });
    }
}

/// The waits that the callers under a budget announce.
pub(crate) struct Waits(mpsc::UnboundedReceiver<Progress>);

impl Waits {
    /// Does the work, and tells the watcher of each wait meanwhile.
    pub(crate) async fn tell<T>(mut self, watch: &Watch, work: impl Future<Output = T>) -> T {
        let telling = async {
            while let Some(wait) = self.0.recv().await {
                watch(wait);
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            done = work => done,
            never = telling => never,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Budget {
    deadline: Option<Instant>,
    stop: watch::Receiver<bool>,
    /// Once this is true no call begins. Calls that were sent are awaited.
    closing: Option<watch::Receiver<bool>>,
    announcer: Option<Arc<Announcer>>,
}

impl Budget {
    /// A budget that ends at the deadline, or when `stop` turns true.
    pub(crate) fn new(deadline: Option<Instant>, stop: watch::Receiver<bool>) -> Self {
        Self { deadline, stop, closing: None, announcer: None }
    }

    /// The same, and the waits that its callers announce.
    pub(crate) fn with_waits(&self) -> (Self, Waits) {
        let (waits, told) = mpsc::unbounded_channel();
        let announcer = Announcer { waits, told_until: Mutex::new(Instant::now()) };
        (Self { announcer: Some(Arc::new(announcer)), ..self.clone() }, Waits(told))
    }

    /// The same, for several callers. Once `closing` is true, none of them begins a call.
    pub(crate) fn closed_by(&self, closing: watch::Receiver<bool>) -> Self {
        Self { closing: Some(closing), ..self.clone() }
    }

    /// An error if no call may begin any more. To be checked right before one is sent.
    pub(crate) fn check_open(&self) -> Result<()> {
        match &self.closing {
            Some(closing) if *closing.borrow() => Err(closed()),
            _ => Ok(()),
        }
    }

    /// Time left for work; [`SAVE_RESERVE`] is already taken off.
    pub(crate) fn left(&self) -> Duration {
        match self.deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).saturating_sub(SAVE_RESERVE),
            None => Duration::MAX,
        }
    }

    /// Whether the run should end now.
    pub(crate) fn is_over(&self) -> bool {
        *self.stop.borrow() || self.left().is_zero()
    }

    /// An error if the run is asked to stop before the work is done.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            // In this order, so that a simulated run replays exactly.
            biased;
            done = work => Ok(done),
            () = turned(Some(self.stop.clone())) => Err(interrupted(say!("the run was asked to stop"))),
        }
    }

    /// Waits for something before a call. An error if the run is asked to stop, or no call may begin any more.
    pub(crate) async fn before_a_call<T>(&self, waiting: impl Future<Output = T>) -> Result<T> {
        self.check_open()?;
        tokio::select! {
            biased;
            done = self.unless_stopped(waiting) => done,
            () = turned(self.closing.clone()) => Err(closed()),
        }
    }

    /// Sleeps between two calls to a side, as long as another one may still begin.
    pub(crate) async fn sleep(&self, side: Side, wait: Duration) -> Result<()> {
        self.announce_wait(side, wait);
        self.before_a_call(tokio::time::sleep(wait)).await
    }

    /// Somebody is about to wait this long for a side.
    pub(crate) fn announce_wait(&self, side: Side, wait: Duration) {
        if let Some(announcer) = &self.announcer {
            announcer.announce(side, wait);
        }
    }
}

async fn turned(flag: Option<watch::Receiver<bool>>) {
    let Some(mut flag) = flag else { return std::future::pending().await };
    if flag.wait_for(|on| *on).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn closed() -> Error {
    interrupted(say!("another batch ended the writing"))
}

/// The run ends here, in good order.
pub(crate) fn interrupted(why: impl Into<Message>) -> Error {
    Error::new(ErrorKind::Interrupted, why).help(say!("what remains is for the next run"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_one_moment_is_told_once_and_a_short_one_not_at_all() {
        let told: Arc<Mutex<Vec<Duration>>> = Arc::default();
        let heard = Arc::clone(&told);
        let watch = move |progress| {
            if let Progress::Waiting { wait, .. } = progress {
                heard.lock().unwrap().push(wait);
            }
        };
        let (budget, waits) = Budget::new(None, watch::Sender::new(false).subscribe()).with_waits();
        let (seconds, ms) = (Duration::from_secs, Duration::from_millis);
        let work = async {
            budget.sleep(Side::Source, ms(999)).await.unwrap();
            for wait in [seconds(30), seconds(30), seconds(20), seconds(75)] {
                budget.announce_wait(Side::Target, wait);
            }
            tokio::time::sleep(seconds(75)).await;
            budget.sleep(Side::Target, seconds(2)).await.unwrap();
        };
        waits.tell(&watch, work).await;
        assert_eq!(*told.lock().unwrap(), [seconds(30), seconds(75), seconds(2)]);
    }
}
