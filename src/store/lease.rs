//! The lease on a connection: of two runs the second ends at once; and the record that outlives a crash.
//!
//! One small object, `state/<connection>.run`, says who runs since when, which calls of the last minute count
//! against the target's limit, and until when the target wants silence. It is written before a call is made and
//! only on top of what was read (compare-and-swap). In a directory the operating system's lock decides who runs,
//! so that a dead process holds nothing; elsewhere the record is a lease of 30 s that is renewed while the run
//! lives. Should a wrong clock give the lease to two runs, the first write of the other one ends this one, and
//! the state's own compare-and-swap stands behind both.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{RunLock, Store, Version};

/// A lease that is not renewed ends after this.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// A lease that claims to last longer comes from a wrong clock.
const LONGEST: Duration = Duration::from_secs(90);
const FORMAT_NAME: &str = "okki-sync run";
const FORMAT_VERSION: u32 = 1;

/// What the object holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: String,
    version: u32,
    /// The run that holds the lease; none when nobody does.
    pub holder: Option<Holder>,
    /// Calls to the target in the last minute, and reserved ones, wall-clock milliseconds.
    pub target_calls_ms: Vec<u64>,
    /// The target wants no call before this, wall-clock milliseconds.
    pub target_blocked_until_ms: Option<u64>,
}

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The run.
    pub run_id: String,
    /// Since when, RFC 3339 in UTC.
    pub since: String,
    /// Until when unless it is renewed, wall-clock milliseconds. Means nothing in a directory.
    pub expires_at_ms: u64,
}

/// Where the record of a connection stands in the store.
pub(crate) fn path(connection: &str) -> String {
    format!("state/{connection}.run")
}

/// Reads the record of a connection; a fresh one where there is none.
pub(crate) async fn record(store: &Store, connection: &str) -> Result<Record> {
    Ok(load(store, connection).await?.0)
}

async fn load(store: &Store, connection: &str) -> Result<(Record, Option<Version>)> {
    let path = path(connection);
    let fresh = || Record { format: FORMAT_NAME.to_owned(), version: FORMAT_VERSION, ..Record::default() };
    let Some((bytes, version)) = store.load(&path).await? else { return Ok((fresh(), None)) };
    let bad = |what: &str| Error::new(ErrorKind::BadState, format!("store {}: {path} {what}", store.name()));
    let record: Record = serde_json::from_slice(&bytes).map_err(|_| {
        bad("is damaged; nothing was written; remove it when no run has been going on for five minutes")
    })?;
    if record.version > FORMAT_VERSION {
        return Err(bad("was written by a newer program; use that one"));
    }
    Ok((record, Some(version)))
}

/// The lease of one run.
pub(crate) struct Lease {
    store: Store,
    connection: String,
    run_id: String,
    clock: Clock,
    held: Mutex<Held>,
    /// In a directory; released with the process.
    lock: RunLock,
}

#[derive(Debug)]
struct Held {
    record: Record,
    version: Option<Version>,
}

impl Lease {
    /// Takes the lease for a run, or says who holds it since when.
    pub(crate) async fn take(store: &Store, connection: &str, run_id: &str, clock: Clock) -> Result<Self> {
        let Some(lock) = store.lock_run(connection)? else {
            let holder = holder_of(store, connection).await;
            return Err(busy(connection, holder.as_ref(), "it ends with its process"));
        };
        let (mut record, version) = load(store, connection).await?;
        if let Some(holder) = record.holder.as_ref().filter(|_| !lock.is_held()) {
            let left = clock.until_ms(holder.expires_at_ms);
            if !left.is_zero() && left <= LONGEST {
                let ends = format!("unless it is renewed, its lease ends in {} s", left.as_secs() + 1);
                return Err(busy(connection, Some(holder), &ends));
            }
        }
        record.holder = Some(Holder {
            run_id: run_id.to_owned(),
            since: format!("{:.0}", clock.now()),
            expires_at_ms: expiry(clock),
        });
        let lease = Self {
            store: store.clone(),
            connection: connection.to_owned(),
            run_id: run_id.to_owned(),
            clock,
            held: Mutex::new(Held { record, version }),
            lock,
        };
        let taken = lease.write(&mut *lease.held.lock().await).await;
        match taken {
            Err(error) if error.kind == ErrorKind::StateConflict => {
                let holder = holder_of(store, connection).await;
                Err(busy(connection, holder.as_ref(), "it took the lease at this moment"))
            }
            other => other.map(|()| lease),
        }
    }

    /// What the record says of the target: calls of the last minute, and until when it wants silence.
    pub(crate) async fn limits(&self) -> (Vec<u64>, Option<u64>) {
        let held = self.held.lock().await;
        (held.record.target_calls_ms.clone(), held.record.target_blocked_until_ms)
    }

    /// Keeps the calls to the target, made and reserved, before the next one is made.
    pub(crate) async fn note_calls(&self, calls_ms: Vec<u64>) -> Result<()> {
        let mut held = self.held.lock().await;
        held.record.target_calls_ms = calls_ms;
        self.write(&mut held).await
    }

    /// Renews the lease until it is lost, which is what it returns. In a directory there is nothing to renew.
    pub(crate) async fn renew_until_lost(&self) -> Error {
        if self.lock.is_held() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let mut held = self.held.lock().await;
            let hung =
                || Err(Error::new(ErrorKind::Store, "the store did not answer while the lease was renewed"));
            let renewed = tokio::time::timeout(RENEW_EVERY, self.write(&mut held)).await;
            let Err(error) = renewed.unwrap_or_else(|_| hung()) else { continue };
            let expired = held
                .record
                .holder
                .as_ref()
                .is_none_or(|holder| self.clock.until_ms(holder.expires_at_ms).is_zero());
            // A store that fails for a moment is asked again, as long as the lease still stands.
            if error.kind == ErrorKind::StateConflict || expired {
                return error;
            }
        }
    }

    /// Gives the lease back, with the calls as they were really made and until when the target wants silence.
    pub(crate) async fn release(&self, calls_ms: Vec<u64>, blocked_until_ms: Option<u64>) {
        let mut held = self.held.lock().await;
        held.record.holder = None;
        held.record.target_calls_ms = calls_ms;
        // What stood there was over when this run began, or came from a clock that was set back.
        held.record.target_blocked_until_ms = blocked_until_ms;
        if let Err(error) = self.save(&mut held).await {
            tracing::warn!(error = %error.line(), "the lease could not be given back; it ends by itself");
        }
    }

    async fn write(&self, held: &mut Held) -> Result<()> {
        let before = held.record.clone();
        if let Some(holder) = &mut held.record.holder {
            holder.expires_at_ms = expiry(self.clock);
        }
        let saved = self.save(held).await;
        if saved.is_err() {
            // Until it is stored, nobody else sees the longer lease.
            held.record.holder = before.holder;
        }
        saved
    }

    async fn save(&self, held: &mut Held) -> Result<()> {
        let saved = match self.put(held).await {
            Err(error) if error.kind == ErrorKind::StateConflict && self.adopt_own_write(held).await => {
                self.put(held).await
            }
            saved => saved,
        };
        held.version = Some(saved.map_err(|error| match error.kind {
            ErrorKind::StateConflict => Error::new(
                ErrorKind::StateConflict,
                format!(
                    "another run of connection \"{}\" took over (this one's lease was lost); that run goes on, this one ends",
                    self.connection
                ),
            ),
            _ => error,
        })?);
        Ok(())
    }

    async fn put(&self, held: &Held) -> Result<Version> {
        let bytes = Bytes::from(serde_json::to_vec(&held.record).unwrap_or_default());
        self.store.save_if_unchanged(&path(&self.connection), bytes, held.version.as_ref()).await
    }

    /// A renewal that was cut off when the run ended may have had its effect: what stands there is still this run's.
    async fn adopt_own_write(&self, held: &mut Held) -> bool {
        match load(&self.store, &self.connection).await {
            Ok((there, version))
                if there.holder.as_ref().is_some_and(|holder| holder.run_id == self.run_id) =>
            {
                held.version = version;
                true
            }
            _ => false,
        }
    }
}

/// Who holds the lease, for a message: a record that cannot be read names nobody.
async fn holder_of(store: &Store, connection: &str) -> Option<Holder> {
    record(store, connection).await.ok().and_then(|record| record.holder)
}

fn expiry(clock: Clock) -> u64 {
    clock.now_ms().saturating_add(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
}

fn busy(connection: &str, holder: Option<&Holder>, ends: &str) -> Error {
    let who = holder.map_or_else(
        || "another run".to_owned(),
        |holder| format!("run {} (since {})", holder.run_id, holder.since),
    );
    Error::new(
        ErrorKind::Busy,
        format!("{who} of connection \"{connection}\" is going on; wait for it to end ({ends})"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn take(store: &Store, run: &str, clock: Clock) -> Result<Lease> {
        Lease::take(store, "acme", run, clock).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_run_is_told_who_holds_the_lease_since_when() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let first = take(&store, "run-1", clock).await.unwrap();
        let error = take(&store, "run-2", clock).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.message.contains("run-1 (since 2027-01-15T08:00:00Z)"), "{error}");
        first.release(vec![7], None).await;
        let second = take(&store, "run-2", clock).await.unwrap();
        assert_eq!(second.limits().await.0, [7]);
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
        let ahead = Clock::starting_at_ms(1_800_000_040_000);
        let second = take(&store, "run-2", ahead).await.unwrap();
        assert_eq!(first.note_calls(vec![1]).await.unwrap_err().kind, ErrorKind::StateConflict);
        assert_eq!(first.renew_until_lost().await.kind, ErrorKind::StateConflict);
        second.note_calls(vec![2]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_cut_off_after_its_effect_does_not_block_the_release() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(1_800_000_000_000));
        let lease = take(&store, "run-1", clock).await.unwrap();
        let stale = lease.held.lock().await.version.clone();
        lease.note_calls(vec![1]).await.unwrap();
        lease.held.lock().await.version = stale;
        lease.release(vec![2], None).await;
        assert_eq!(take(&store, "run-2", clock).await.unwrap().limits().await.0, [2]);
    }

    #[tokio::test]
    async fn in_a_directory_a_dead_process_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::directory(directory.path().to_owned()).unwrap();
        let first = take(&store, "run-1", Clock::system()).await.unwrap();
        let error = take(&store, "run-2", Clock::system()).await.err().unwrap();
        assert!(error.message.contains("run-1 (since 2"), "{error}");
        // Dropped and not given back: its process is gone.
        drop(first);
        assert!(take(&store, "run-2", Clock::system()).await.is_ok());
    }

    #[tokio::test]
    async fn a_damaged_or_newer_record_is_refused_by_name() {
        for (text, word) in [
            ("{", "damaged"),
            (
                r#"{"format":"okki-sync run","version":9,"holder":null,"target_calls_ms":[],"target_blocked_until_ms":null}"#,
                "newer",
            ),
        ] {
            let store = Store::memory();
            store.put(&path("acme"), text).await.unwrap();
            let error = take(&store, "run-1", Clock::system()).await.err().unwrap();
            assert_eq!(error.kind, ErrorKind::BadState);
            assert!(error.message.contains(word) && error.message.contains("state/acme.run"), "{error}");
        }
    }
}
