//! A run's turn: it calls the target only under the connection's lease, and by what earlier runs used of the limit.

use super::{Run, RunContext, millis};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::store::lease::{Lease, RateWindow};
use crate::testing::Mutant;

impl Run<'_> {
    /// Works under the connection's lease and releases it, however the work ends.
    pub(super) async fn under_lease<T>(
        &mut self,
        budget: &Budget,
        work: impl AsyncFnOnce(&mut Self, &Budget, &Lease) -> Result<T>,
    ) -> Result<T> {
        let lease = self.take_lease().await?;
        let done = tokio::select! {
            biased;
            done = work(self, budget, &lease) => done,
            lost = lease.renew_until_lost() => Err(lost),
        };
        self.release(&lease, &done).await;
        done
    }

    async fn take_lease(&self) -> Result<Lease> {
        let RunContext { store, connection, clock, .. } = *self.context;
        Lease::take(store, connection, &self.start.run_id, clock).await
    }

    /// Tells the target's limit what earlier runs used. While the target wants no calls, not even a login is sent.
    pub(super) async fn restore_limits(&self, lease: &Lease) -> Result<()> {
        let window = lease.window().await;
        self.context.target.restore_calls(&window.calls_ms);
        let wait = window.blocked_until_ms.map(|until_ms| self.context.clock.until_ms(until_ms));
        match wait.filter(|wait| !wait.is_zero()) {
            // A time that is more than an hour away comes from a clock that was set back.
            Some(wait)
                if wait <= crate::net::retry::RETRY_AFTER_CAP && !Mutant::CallDuringLockout.is_active() =>
            {
                let message = format!(
                    "target asked for no calls until {} s from now (an earlier run was throttled)",
                    wait.as_secs() + 1
                );
                Err(Error::new(ErrorKind::Throttled(Side::Target), message).resume_after(wait))
            }
            _ => Ok(()),
        }
    }

    async fn release<T>(&self, lease: &Lease, done: &Result<T>) {
        let calls_ms = self.context.target.release_reservations();
        let wait = match done {
            Err(error) if error.kind == ErrorKind::Throttled(Side::Target) => error.resume_after,
            _ => None,
        };
        // Of several calls in flight one may have been told to wait, and another one ended the run.
        let wait = wait.unwrap_or_default().max(self.context.target.blocked_for());
        let blocked_until_ms =
            (!wait.is_zero()).then(|| self.context.clock.now_ms().saturating_add(millis(wait)));
        lease.release(RateWindow { calls_ms, blocked_until_ms }).await;
    }
}
