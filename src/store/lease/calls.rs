//! The calls that a run makes under its lease: what it starts with, and what it reserves.

use std::time::Duration;

use super::{Lease, RateWindow};
use crate::error::Result;
use crate::net::limit::CallLedger;
use crate::net::retry::RETRY_AFTER_CAP;
use crate::store::RunLock;
use crate::store::limits::{LastRun, Reserved};

/// A longer pause is the target's wish and not the run's own wait for the minute to pass: it holds for all connections.
const LONGEST_OWN_PAUSE: Duration = Duration::from_secs(61);

impl Lease {
    /// The calls that earlier runs of this connection made in the last minute, and the pause that they left. Looks at what
    /// other connections use, where there are any.
    pub(crate) async fn begin_calls(&self) -> Result<(Vec<u64>, Duration)> {
        let RateWindow { calls_ms, blocked_until_ms } = self.current.lock().await.file.window.clone();
        let until_ms = blocked_until_ms.unwrap_or_default();
        let pause = self.clock.until_ms(until_ms);
        if pause > LONGEST_OWN_PAUSE {
            self.account.account().block_until(until_ms);
        }
        let last = std::mem::replace(&mut *self.last.lock().await, LastRun::Knew(None));
        self.account.begin(&self.store, self.who(), last, &calls_ms).await?;
        if pause > LONGEST_OWN_PAUSE {
            // Version 0.1.0 told nobody.
            self.tell_silence().await;
        }
        if self.takes_over {
            self.account.store_name(&self.store, self.who()).await?;
        }
        // A time that is more than an hour away comes from a clock that was set back.
        Ok((calls_ms, if pause > RETRY_AFTER_CAP { Duration::ZERO } else { pause }))
    }

    /// An error if another run holds the lease. It costs nothing before the lease has expired.
    async fn ensure_held(&self) -> Result<()> {
        if let RunLock::Ours(_) = self.lock {
            return Ok(());
        }
        let mut current = self.current.lock().await;
        let expires_at_ms = current.file.holder.as_ref().map(|holder| holder.expires_at_ms);
        match expires_at_ms {
            Some(at_ms) if !self.clock.until_ms(at_ms).is_zero() => Ok(()),
            _ => self.write(&mut current).await,
        }
    }
}

#[async_trait::async_trait]
impl CallLedger for Lease {
    async fn reserve(&self, calls_ms: Vec<u64>, seen: u64) -> Result<bool> {
        self.ensure_held().await?;
        let reserved = self.account.reserve(&self.store, self.who(), &calls_ms, seen).await?;
        if reserved == Reserved::SameConnectionFirst {
            // Either the last run's name, or that of one that has taken this lease over.
            self.write(&mut *self.current.lock().await).await?;
        }
        Ok(reserved == Reserved::Stored)
    }

    async fn look(&self) -> Result<()> {
        self.account.look(&self.store, self.who()).await
    }

    async fn wait_in_line(&self) {
        self.account.wait_in_line(&self.store, self.who()).await;
    }

    async fn tell_silence(&self) {
        self.account.tell_silence(&self.store, self.who()).await;
    }
}
