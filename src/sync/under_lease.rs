//! A run's turn: it calls the target only under the connection's lease, and by what others have used of the account's
//! limit.

use super::{Run, RunContext};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::store::lease::Lease;
use crate::testing::Mutant;
use crate::words::say;

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
        let RunContext { store, connection, limits, clock, .. } = *self.context;
        Lease::take(store, connection, &self.start.run_id, limits, clock).await
    }

    /// Tells the target's limit what earlier runs used, and other connections with the same key. While the target wants no
    /// calls, not even a login is sent.
    pub(super) async fn restore_limits(&self, lease: &Lease) -> Result<()> {
        let (calls_ms, pause) = lease.begin_calls().await?;
        self.context.target.restore_calls(&calls_ms);
        let wait = pause.max(self.context.limits.blocked_for());
        if wait.is_zero() || Mutant::CallDuringLockout.is_active() {
            return Ok(());
        }
        let message = say!(
            "target asked for no calls until {wait} s from now (an earlier run was throttled)",
            wait = wait.as_secs() + 1
        );
        Err(Error::new(ErrorKind::Throttled(Side::Target), message).resume_after(wait))
    }

    async fn release<T>(&self, lease: &Lease, done: &Result<T>) {
        let pause = match done {
            Err(error) if error.kind == ErrorKind::Throttled(Side::Target) => error.resume_after,
            _ => None,
        };
        lease.release(self.context.target.release_reservations(), pause.unwrap_or_default()).await;
    }
}
