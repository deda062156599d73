//! The lease on a connection: one small object that outlives a crash.
//!
//! `state/<connection>.run` says who runs ([`Holder`]). When a run ends it also leaves there what its connection knows of
//! the target's limit ([`RateWindow`]), so that the next run needs no look at the account's object (`limits.rs`) as long
//! as nobody else uses the account.
//!
//! Goals: one run of a connection at a time, the second ends at once and says whom it met; and a crash needs no cleaning
//! up.
//!
//! Races, and what each comes to:
//!
//! - **Two runs start together.** Both read the object and both write their name on top of what they read. One write
//!   fails, and that run ends as `Busy`.
//! - **A run is killed.** It renews its lease every 10 s for 30 s, so others wait at most that long. In a directory the
//!   operating system's lock decides instead, which ends with the process.
//! - **A run is frozen, and a second run takes over.** Before it reserves its next calls, a run whose lease has expired
//!   renews it. That fails, and the run ends before its next call to the target.
//! - **A clock is wrong, and a second run takes over.** The first write of either one makes the other's fail. Until its
//!   next renewal the first run does not know it; but the second one puts its name into the account's object (`limits.rs`)
//!   before it does anything else, and the first one finds it there before it reserves its next calls.
//! - **A renewal is cancelled after it took effect** (the run ended while it was in flight). The stored version is newer
//!   than the one this run knows. If the stored lease is ours, [`Lease::adopt_own_write`] adopts its version.
//! - **A renewal that failed, or hangs.** It is repeated until the lease expires; until it is stored, no other run sees
//!   a longer lease, and neither does this one.
//! - **A clock that was set back** leaves a lease, or a pause, far in the future. No lease lasts longer than
//!   [`LONGEST`]: one that claims to counts as expired.
//!
//! Deliberately absent: fencing at the target (neither Qeasy nor plain HTTP has a token for it; the state's own
//! compare-and-swap stands behind this one), a queue of waiting runs (the schedule comes back), and a lease on `plan`,
//! which calls the source only.

mod calls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::limits::{AccountLimits, KnownAccount, LastRun, MOST_CALLS_OF_A_RUN, Who};
use crate::store::{RunLock, Store, Version, paths};
use crate::testing::Mutant;
use crate::words::{Message, say};

/// A lease that is not renewed expires after this.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Often enough that a lease outlives a renewal that fails.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A lease that claims to last longer comes from a wrong clock.
const LONGEST: Duration = Duration::from_secs(90);
const FORMAT_NAME: &str = "okki-sync run";
const FORMAT_VERSION: u32 = 1;

/// The stored object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseFile {
    format: String,
    version: u32,
    /// The run that holds the lease; `None` between runs.
    pub holder: Option<Holder>,
    /// What the target's limit has to count.
    #[serde(flatten)]
    pub window: RateWindow,
    /// The account's object as it is, if no other connection uses it. `None` while a run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<KnownAccount>,
    /// When a `sync` of all rows last came to its end, wall-clock milliseconds. `None` before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_ms: Option<u64>,
}

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run_id: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// When the lease ends unless it is renewed, wall-clock milliseconds. Means nothing in a directory.
    pub expires_at_ms: u64,
}

/// What the target's limit has to count of this connection's calls, as of the end of its last run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// Calls of the last minute, wall-clock milliseconds.
    #[serde(rename = "target_calls_ms")]
    pub calls_ms: Vec<u64>,
    /// No call before this, wall-clock milliseconds.
    #[serde(rename = "target_blocked_until_ms")]
    pub blocked_until_ms: Option<u64>,
}

impl LeaseFile {
    /// The object of a connection; a fresh one before its first run.
    pub(crate) async fn load(store: &Store, connection: &str) -> Result<Self> {
        Ok(load(store, connection).await?.0)
    }

    fn fresh() -> Self {
        Self { format: FORMAT_NAME.to_owned(), version: FORMAT_VERSION, ..Self::default() }
    }
}

async fn load(store: &Store, connection: &str) -> Result<(LeaseFile, Option<Version>)> {
    let path = paths::run(connection);
    let Some((bytes, version)) = store.load(&path).await? else { return Ok((LeaseFile::fresh(), None)) };
    let bad = |what: Message| {
        Error::new(
            ErrorKind::BadState,
            say!("store {store}: {path} {what}", store = store.name(), path, what),
        )
    };
    let file: LeaseFile = serde_json::from_slice(&bytes).map_err(|_| {
        bad(say!("is damaged; nothing was written"))
            .help(say!("remove it when no run has been going on for five minutes"))
    })?;
    if file.version > FORMAT_VERSION {
        return Err(bad(say!("was written by a newer program")).help(say!("use that one")));
    }
    Ok((file, Some(version)))
}

/// The lease of one run.
pub(crate) struct Lease {
    store: Store,
    connection: String,
    run_id: String,
    clock: Clock,
    account: Arc<AccountLimits>,
    /// What the last run left; taken when this one looks at it.
    last: Mutex<LastRun>,
    /// The last run did not end, and may still go on.
    takes_over: bool,
    /// The object as this run found it.
    found: LeaseFile,
    current: Mutex<Current>,
    /// Dropped with the lease.
    lock: RunLock,
}

/// The object as this run last saw or saved it.
#[derive(Debug)]
struct Current {
    file: LeaseFile,
    version: Option<Version>,
}

impl Lease {
    /// Takes the lease for a run, or says who holds it since when.
    pub(crate) async fn take(
        store: &Store,
        connection: &str,
        run_id: &str,
        account: &Arc<AccountLimits>,
        clock: Clock,
    ) -> Result<Self> {
        let lock = store.lock_run(connection)?;
        if let RunLock::Theirs = lock {
            let holder = holder_of(store, connection).await;
            return Err(busy(connection, holder.as_ref(), say!("it ends with its process")));
        }
        let (mut file, version) = load(store, connection).await?;
        let found = file.clone();
        let last = match &version {
            None => LastRun::None,
            // What is known does not outlive this run's first call.
            Some(_) => LastRun::Knew(file.account.take()),
        };
        // With the operating system's lock the time does not matter: the last holder's process has ended.
        if let (RunLock::Absent, Some(holder)) = (&lock, &file.holder) {
            let left = clock.until_ms(holder.expires_at_ms);
            if !left.is_zero() && left <= LONGEST && !Mutant::IgnoreTheLease.is_active() {
                let ends =
                    say!("unless it is renewed, its lease ends in {left} s", left = left.as_secs() + 1);
                return Err(busy(connection, Some(holder), ends));
            }
        }
        let takes_over = matches!(lock, RunLock::Absent) && file.holder.is_some();
        file.holder = Some(Holder {
            run_id: run_id.to_owned(),
            since: format!("{:.0}", clock.now()),
            expires_at_ms: expiry(clock),
        });
        let lease = Self {
            store: store.clone(),
            connection: connection.to_owned(),
            run_id: run_id.to_owned(),
            clock,
            account: Arc::clone(account),
            last: Mutex::new(last),
            takes_over,
            found,
            current: Mutex::new(Current { file, version }),
            lock,
        };
        let taken = lease.write(&mut *lease.current.lock().await).await;
        match taken {
            Err(error) if error.kind == ErrorKind::StateConflict => {
                let holder = holder_of(store, connection).await;
                Err(busy(connection, holder.as_ref(), say!("it took the lease at this moment")))
            }
            other => other.map(|()| lease),
        }
    }

    fn who(&self) -> Who<'_> {
        Who { connection: &self.connection, run_id: &self.run_id }
    }

    /// Renews the lease until it is lost, which is what it returns. In a directory there is nothing to renew.
    pub(crate) async fn renew_until_lost(&self) -> Error {
        if let RunLock::Ours(_) = self.lock {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let mut current = self.current.lock().await;
            let hung = || {
                Err(Error::new(
                    ErrorKind::Store,
                    say!("the store did not answer while the lease was renewed"),
                ))
            };
            let renewed = tokio::time::timeout(RENEW_EVERY, self.write(&mut current)).await;
            let Err(error) = renewed.unwrap_or_else(|_| hung()) else { continue };
            let expired = current
                .file
                .holder
                .as_ref()
                .is_none_or(|holder| self.clock.until_ms(holder.expires_at_ms).is_zero());
            // A store that fails for a moment is asked again, as long as the lease has not expired.
            if error.kind == ErrorKind::StateConflict || expired {
                return error;
            }
        }
    }

    /// The run has done all that it was to do. Saved with the lease's end.
    pub(crate) async fn note_completed(&self) {
        self.current.lock().await.file.completed_at_ms = Some(self.clock.now_ms());
    }

    /// Ends the lease. `calls_ms` are the calls of the last minute that were really made; the next run makes none before
    /// `pause` is over.
    pub(crate) async fn release(&self, calls_ms: Vec<u64>, pause: Duration) {
        let known = self.account.end(&self.store, self.who(), &calls_ms).await;
        // Of several calls in flight one may have been told to wait, and another one ended the run.
        let pause = pause.max(self.account.blocked_for());
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let blocked_until_ms = (pause_ms > 0).then(|| self.clock.now_ms().saturating_add(pause_ms));
        let mut current = self.current.lock().await;
        let file = &mut current.file;
        (file.holder, file.account) = (None, known);
        let calls_ms = if calls_ms.len() > MOST_CALLS_OF_A_RUN { Vec::new() } else { calls_ms };
        file.window = RateWindow { calls_ms, blocked_until_ms };
        if let Err(error) = self.save(&mut current).await {
            tracing::warn!(error = %error.line(), "the lease could not be given back; it ends by itself");
        }
    }

    /// Ends the lease of somebody who made no call: the object is as it was found, with all that it knows of the limit,
    /// and of a run that may still go on.
    pub(crate) async fn put_back(&self) {
        let mut current = self.current.lock().await;
        current.file = self.found.clone();
        if let Err(error) = self.save(&mut current).await {
            tracing::warn!(error = %error.line(), "the lease could not be given back; it ends by itself");
        }
    }

    /// Saves, and renews the lease by it.
    async fn write(&self, current: &mut Current) -> Result<()> {
        let before = current.file.holder.clone();
        if let Some(holder) = &mut current.file.holder {
            holder.expires_at_ms = expiry(self.clock);
        }
        let saved = self.save(current).await;
        if saved.is_err() {
            // Until it is stored, no other run sees the longer lease.
            current.file.holder = before;
        }
        saved
    }

    async fn save(&self, current: &mut Current) -> Result<()> {
        let saved = match self.put(current).await {
            Err(error) if error.kind == ErrorKind::StateConflict && self.adopt_own_write(current).await => {
                self.put(current).await
            }
            saved => saved,
        };
        current.version = Some(saved.map_err(|error| match error.kind {
            ErrorKind::StateConflict => Error::new(
                ErrorKind::StateConflict,
                say!(
                    "another run of connection \"{connection}\" took over (this one's lease was lost); that run goes on, this one ends",
                    connection = self.connection,
                ),
            ),
            _ => error,
        })?);
        Ok(())
    }

    async fn put(&self, current: &Current) -> Result<Version> {
        let bytes = Bytes::from(serde_json::to_vec(&current.file).unwrap_or_default());
        self.store.save_if_unchanged(&paths::run(&self.connection), bytes, current.version.as_ref()).await
    }

    /// A cancelled renewal may already have been written. If the stored lease is ours, adopts its version; returns
    /// whether it did.
    async fn adopt_own_write(&self, current: &mut Current) -> bool {
        match load(&self.store, &self.connection).await {
            Ok((there, version))
                if there.holder.as_ref().is_some_and(|holder| holder.run_id == self.run_id) =>
            {
                current.version = version;
                true
            }
            _ => false,
        }
    }
}

/// Who holds the lease, for a message; `None` also if the object cannot be read.
async fn holder_of(store: &Store, connection: &str) -> Option<Holder> {
    LeaseFile::load(store, connection).await.ok().and_then(|file| file.holder)
}

fn expiry(clock: Clock) -> u64 {
    clock.now_ms().saturating_add(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
}

fn busy(connection: &str, holder: Option<&Holder>, ends: Message) -> Error {
    let who = holder.map_or_else(
        || say!("another run"),
        |holder| say!("run {run_id} (since {since})", run_id = holder.run_id, since = holder.since),
    );
    Error::new(ErrorKind::Busy, say!("{who} of connection \"{connection}\" is going on", who, connection))
        .help(say!("wait for it to end ({ends})", ends))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::limit::CallLedger as _;
    use crate::store::limits::AccountId;

    /// In a process of its own.
    async fn take(store: &Store, run: &str, clock: Clock) -> Result<Lease> {
        let account = AccountLimits::new(AccountId::of("target", "host", "key"), clock);
        Lease::take(store, "acme", run, &Arc::new(account), clock).await
    }

    async fn calls_before(lease: &Lease) -> Vec<u64> {
        lease.begin_calls().await.unwrap().0
    }

    async fn reserve(lease: &Lease, calls_ms: &[u64]) -> Result<bool> {
        let seen = lease.account.account().changes();
        lease.reserve(calls_ms.to_vec(), seen).await
    }

    #[test]
    fn both_subjects_are_one_flat_object() {
        let window = RateWindow { calls_ms: vec![7], blocked_until_ms: None };
        let file = LeaseFile { window, ..LeaseFile::fresh() };
        let text = r#"{"format":"okki-sync run","version":1,"holder":null,"target_calls_ms":[7],"target_blocked_until_ms":null}"#;
        assert_eq!(serde_json::to_string(&file).unwrap(), text);
        assert_eq!(serde_json::from_str::<LeaseFile>(text).unwrap(), file);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_run_is_told_who_holds_the_lease_since_when() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let first = take(&store, "run-1", clock).await.unwrap();
        let error = take(&store, "run-2", clock).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.to_string().contains("run-1 (since 2027-01-15T08:00:00Z)"), "{error}");
        first.release(vec![7], Duration::ZERO).await;
        let second = take(&store, "run-2", clock).await.unwrap();
        assert_eq!(calls_before(&second).await, [7]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_lasts_and_one_that_is_not_ends_after_30_s() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let first = take(&store, "run-1", clock).await.unwrap();
        let renewed = tokio::time::timeout(Duration::from_secs(300), first.renew_until_lost()).await;
        assert!(renewed.is_err(), "{renewed:?}");
        assert_eq!(take(&store, "run-2", clock).await.err().unwrap().kind, ErrorKind::Busy);
        drop(first);
        tokio::time::advance(LEASE).await;
        assert!(take(&store, "run-2", clock).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_whose_lease_was_taken_over_ends_before_its_next_call() {
        let store = Store::memory();
        let slow = Clock::starting_at_ms(1_800_000_000_000);
        let first = take(&store, "run-1", slow).await.unwrap();
        calls_before(&first).await;
        let ahead = Clock::starting_at_ms(1_800_000_040_000);
        let second = take(&store, "run-2", ahead).await.unwrap();
        calls_before(&second).await;
        assert_eq!(reserve(&first, &[1]).await.unwrap_err().kind, ErrorKind::StateConflict);
        assert_eq!(first.renew_until_lost().await.kind, ErrorKind::StateConflict);
        assert!(reserve(&second, &[2]).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_cut_off_after_its_effect_does_not_block_the_release() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let lease = take(&store, "run-1", clock).await.unwrap();
        let stale = lease.current.lock().await.version.clone();
        lease.write(&mut *lease.current.lock().await).await.unwrap();
        lease.current.lock().await.version = stale;
        lease.release(vec![2], Duration::ZERO).await;
        assert_eq!(calls_before(&take(&store, "run-2", clock).await.unwrap()).await, [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_run_that_wakes_up_ends_before_it_reserves_a_call() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let first = take(&store, "run-1", clock).await.unwrap();
        calls_before(&first).await;
        assert!(reserve(&first, &[1]).await.unwrap());
        tokio::time::advance(LEASE).await;
        // A newer run that comes and goes leaves no holder behind.
        let second = take(&store, "run-2", clock).await.unwrap();
        second.release(Vec::new(), Duration::ZERO).await;
        assert_eq!(reserve(&first, &[1]).await.unwrap_err().kind, ErrorKind::StateConflict);
    }

    #[tokio::test]
    async fn in_a_directory_a_dead_process_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::directory(directory.path().to_owned()).unwrap();
        let first = take(&store, "run-1", Clock::system()).await.unwrap();
        let error = take(&store, "run-2", Clock::system()).await.err().unwrap();
        assert!(error.to_string().contains("run-1 (since 2"), "{error}");
        // Dropped and not released: its process has ended.
        drop(first);
        assert!(take(&store, "run-2", Clock::system()).await.is_ok());
    }

    #[tokio::test]
    async fn a_damaged_or_newer_object_is_refused_by_name() {
        for (text, word) in [
            ("{", "damaged"),
            (
                r#"{"format":"okki-sync run","version":9,"holder":null,"target_calls_ms":[],"target_blocked_until_ms":null}"#,
                "newer",
            ),
        ] {
            let store = Store::memory();
            store.put(&paths::run("acme"), text).await.unwrap();
            let error = take(&store, "run-1", Clock::system()).await.err().unwrap();
            assert_eq!(error.kind, ErrorKind::BadState);
            assert!(
                error.to_string().contains(word) && error.to_string().contains("state/acme.run"),
                "{error}"
            );
        }
    }
}
