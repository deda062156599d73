//! The accounts that this process uses: connections with one host and key share one limit, silence and pace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::clock::Clock;
use crate::net::limit::Pace;
use crate::net::{exposed, stored_host};
use crate::okki::SourceSettings;
use crate::store::Store;
use crate::store::limits::{AccountId, AccountLimits};
use crate::store::stretches::Stretches;
use crate::targets::TargetSettings;
use crate::testing::Mutant;

/// They live as long as the program: what an account was told outlives the connection that was told.
#[derive(Default)]
pub(super) struct Accounts {
    sources: Mutex<HashMap<AccountId, SourceAccount>>,
    targets: Mutex<HashMap<AccountId, Arc<AccountLimits>>>,
}

struct SourceAccount {
    pace: Arc<Pace>,
    /// Calls per second, and calls at a time, by connection.
    wishes: HashMap<String, (f64, usize)>,
}

impl Accounts {
    /// The pace of a source's account, which other processes share by this store; it is opened before the first call. Where
    /// the connections of this process wish for different ones, the lowest holds.
    pub(super) fn source(
        &self,
        source: &SourceSettings,
        connection: &str,
        store: &Arc<OnceCell<Store>>,
        clock: Clock,
    ) -> Arc<Pace> {
        let id = id_of(source);
        let wish = (source.max_requests_per_second, source.max_concurrency);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let mut id = id.clone();
            if Mutant::PaceOfOneProcess.is_active() {
                id = AccountId::of("source", "process", &fastrand::u64(..).to_string());
            }
            let stretches = Arc::new(Stretches::new(id, Arc::clone(store), clock));
            let account = Arc::clone(stretches.account());
            let pace = Arc::new(Pace::per_second(wish.0, wish.1, stretches, account));
            SourceAccount { pace, wishes: HashMap::new() }
        };
        let account = sources.entry(id.clone()).or_insert_with(new);
        account.wishes.insert(connection.to_owned(), wish);
        let lowest = account.wishes.values().fold(wish, |low, wish| (low.0.min(wish.0), low.1.min(wish.1)));
        account.pace.configure(lowest.0, lowest.1);
        Arc::clone(&account.pace)
    }

    /// The limits of a target's account.
    pub(super) fn target(
        &self,
        target: &TargetSettings,
        connection: &str,
        clock: Clock,
    ) -> Arc<AccountLimits> {
        let (host, key) = target.account();
        let key = if Mutant::LimitsOfOneConnection.is_active() { connection } else { key };
        let id = AccountId::of("target", host, key);
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(targets.entry(id.clone()).or_insert_with(|| Arc::new(AccountLimits::new(id, clock))))
    }
}

/// Local servers on two ports are two sources.
fn id_of(source: &SourceSettings) -> AccountId {
    let (host, port) = (stored_host(&source.base_url), source.base_url.port().unwrap_or_default());
    AccountId::of("source", &format!("{host}:{port}"), exposed(&source.client_id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn source(client_id: &str, max_requests_per_second: f64) -> SourceSettings {
        SourceSettings {
            base_url: "https://api-sandbox.xiaoman.cn".parse().unwrap(),
            api: String::new(),
            id: "id".to_owned(),
            number: "name".to_owned(),
            id_check: true,
            page_size: 100,
            max_requests_per_second,
            max_concurrency: 4,
            client_id: client_id.to_owned().into(),
            client_secret: "s".to_owned().into(),
        }
    }

    #[test]
    fn connections_of_one_app_share_its_pace_and_those_of_another_do_not() {
        let (accounts, store) = (Accounts::default(), Arc::default());
        let pace = |app: &str, wish: f64, connection: &str| {
            accounts.source(&source(app, wish), connection, &store, Clock::system())
        };
        let one = pace("app", 5.0, "a");
        assert!(Arc::ptr_eq(&one, &pace("app", 1.0, "b")));
        assert!(!Arc::ptr_eq(&one, &pace("other", 5.0, "a")));
        let lowest = |app: &str| {
            let sources = accounts.sources.lock().unwrap();
            sources
                .get(&id_of(&source(app, 1.0)))
                .unwrap()
                .wishes
                .values()
                .map(|wish| wish.0)
                .fold(f64::MAX, f64::min)
        };
        assert!((lowest("app") - 1.0).abs() < f64::EPSILON);
        pace("app", 4.0, "b");
        assert!((lowest("app") - 4.0).abs() < f64::EPSILON, "a pipeline that changed its mind");
    }
}
