//! The accounts that this process uses: connections with one host and key share one limit, silence and pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Clock;
use crate::net::limit::Pace;
use crate::net::{exposed, stored_host};
use crate::okki::SourceSettings;
use crate::store::limits::{AccountId, AccountLimits};
use crate::targets::TargetSettings;

/// They live as long as the program: what an account was told outlives the connection that was told.
#[derive(Default)]
pub(super) struct Accounts {
    sources: Mutex<HashMap<AccountId, Arc<Pace>>>,
    targets: Mutex<HashMap<AccountId, Arc<AccountLimits>>>,
}

impl Accounts {
    /// The pace of a source's account. Where its connections wish for different ones, the lowest holds.
    pub(super) fn source(&self, source: &SourceSettings) -> Arc<Pace> {
        let id = AccountId::of("source", stored_host(&source.base_url), exposed(&source.client_id));
        let SourceSettings { max_requests_per_second, max_concurrency, .. } = *source;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Pace::per_second(max_requests_per_second, max_concurrency));
        let pace = sources.entry(id).or_insert_with(new);
        pace.lower_to(max_requests_per_second, max_concurrency);
        Arc::clone(pace)
    }

    /// The limits of a target's account.
    pub(super) fn target(&self, target: &TargetSettings, clock: Clock) -> Arc<AccountLimits> {
        let (host, key) = target.account();
        let id = AccountId::of("target", host, key);
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(targets.entry(id.clone()).or_insert_with(|| Arc::new(AccountLimits::new(id, clock))))
    }
}
