//! What a run may still spend: its time, until it is asked to stop, under the lease that counts its calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::store::lease::Lease;

/// Time kept free before the deadline, for saving the state and the report.
pub(crate) const SAVE_RESERVE: Duration = Duration::from_secs(5);

/// The run's budget of time, the wish that it stop, and the lease under which it calls the target.
#[derive(Clone)]
pub(crate) struct Budget {
    deadline: Option<Instant>,
    stop: watch::Receiver<bool>,
    /// Turns true when no call is begun any more; those that were sent are awaited.
    closing: Option<watch::Receiver<bool>>,
    /// Where calls to the target are reserved before they are made.
    pub lease: Option<Arc<Lease>>,
}

impl Budget {
    /// A budget that ends at the deadline, or when `stop` turns true.
    pub(crate) fn new(deadline: Option<Instant>, stop: watch::Receiver<bool>) -> Self {
        Self { deadline, stop, closing: None, lease: None }
    }

    /// The same, with the lease that keeps the calls to the target.
    pub(crate) fn under(&self, lease: &Arc<Lease>) -> Self {
        Self { lease: Some(Arc::clone(lease)), ..self.clone() }
    }

    /// The same, for several callers of which one may close the door for all.
    pub(crate) fn closed_by(&self, closing: watch::Receiver<bool>) -> Self {
        Self { closing: Some(closing), ..self.clone() }
    }

    /// Whether calls may still begin. To be asked right before one is sent.
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

    /// Runs something unless the run is asked to stop meanwhile.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            // In this order, so that a simulated run replays exactly.
            biased;
            done = work => Ok(done),
            () = turned(Some(self.stop.clone())) => Err(interrupted("the run was asked to stop")),
        }
    }

    /// Waits for something before a call: ends with the wish to stop, and when no call is begun any more.
    pub(crate) async fn before_a_call<T>(&self, waiting: impl Future<Output = T>) -> Result<T> {
        self.check_open()?;
        tokio::select! {
            biased;
            done = self.unless_stopped(waiting) => done,
            () = turned(self.closing.clone()) => Err(closed()),
        }
    }

    /// Sleeps between two calls, as long as another one may still begin.
    pub(crate) async fn sleep(&self, wait: Duration) -> Result<()> {
        self.before_a_call(tokio::time::sleep(wait)).await
    }
}

async fn turned(flag: Option<watch::Receiver<bool>>) {
    let Some(mut flag) = flag else { return std::future::pending().await };
    if flag.wait_for(|on| *on).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn closed() -> Error {
    interrupted("another batch ended the writing")
}

/// The run ends here, in good order.
pub(crate) fn interrupted(why: &str) -> Error {
    Error::new(ErrorKind::Interrupted, format!("{why}; what remains is for the next run"))
}
