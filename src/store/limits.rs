//! What an account has used of its limit, shared by all connections that use it: one small object in the store.
//!
//! Qeasy counts by app key and locks the key out. So calls and silence stand in `limits/<account>.json`, by caller, and a
//! run reserves its next few calls there before it makes the first of them: compare-and-swap, on top of what it knows.
//! Whoever comes second learns what the first one has reserved, and works out again what is free. The numbers of all
//! callers together therefore never pass the limit, in one process, in a fleet and across machines.
//!
//! **A connection that is alone** pays nothing for this. What it knows of the object, and at which version, it writes into
//! its own `state/<connection>.run` when it ends; the next run reserves on top of that without a look. If somebody else
//! has saved meanwhile, the version does not fit, and the run looks. **Where others have called within a day** the object
//! is read at the start of a run and before calls, at most every 250 ms, so that a lockout that one of them met is known;
//! and what a run did not use is given back at its end.
//!
//! Races, and what each comes to:
//!
//! - **Two callers reserve at once.** One save fails; that caller reads, and decides again.
//! - **A caller that was alone does not look**, and its reserved calls may go on for 5 s. A newcomer therefore stores its
//!   name and then waits until they have passed. The other one's next reservation finds the name.
//! - **A run is killed between a call and its answer.** The call was reserved. It counts until a minute after the last
//!   moment in which it could have been made.
//! - **A run that lost its lease**, because its machine was frozen or its clock is wrong: before it reserves it renews a
//!   lease that has expired, which fails; and where another run of its connection has reserved calls, it makes none.
//! - **A call and a lockout cross on the way.** That call is refused like those that were in flight; nothing prevents it.
//!
//! Deliberately absent: a queue. Who has made fewer calls in the last minute goes first (`net::limit`), which needs no
//! word between those who wait.

mod file;
mod known;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::file::{Caller, LimitsFile};
use self::known::{Known, RunHere};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::Account;
use crate::store::{Store, Version, paths};

/// How old a look may be before a call, where others use the account.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a save is tried again that others came before.
const SAVES: u32 = 5;
/// A store that takes longer must not keep a run from its end: the silence is stored again with the next save.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// More calls than this are not repeated in the connection's own object.
pub(super) const MOST_CALLS_OF_A_RUN: usize = 5_000;

/// The name of an account in the store. It shows neither host nor key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AccountId(String);

impl AccountId {
    pub(crate) fn of(side: &str, host: &str, key: &str) -> Self {
        let text = format!("{side}\n{host}\n{key}");
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Self(hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What a connection that is alone knows of the object when its run ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAccount {
    name: String,
    /// `None`: there is no object.
    version: Option<Version>,
}

/// What the last run of a connection left behind.
pub(crate) enum LastRun {
    /// There was none.
    None,
    /// Calls and silence were as it says. `None`: others use the account, or the run did not come to its end.
    Knew(Option<KnownAccount>),
}

/// What came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    Stored,
    /// Others came first; what they have stored is known now.
    OthersFirst,
    /// The same, and a run of the same connection was among them. The lease tells whether it is over.
    SameConnectionFirst,
}

/// A run, as the account knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub connection: &'a str,
    pub run_id: &'a str,
}

/// One account, as this process knows it; shared by its connections.
#[derive(Debug)]
pub(crate) struct AccountLimits {
    id: AccountId,
    clock: Clock,
    account: Arc<Account>,
    known: Mutex<Known>,
}

impl AccountLimits {
    pub(crate) fn new(id: AccountId, clock: Clock) -> Self {
        Self { id, clock, account: Arc::new(Account::new(clock)), known: Mutex::default() }
    }

    /// What its callers in this process share.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// For how long the account wants no call by anybody, as far as it is known here.
    pub(crate) fn blocked_for(&self) -> Duration {
        self.account.blocked_for()
    }

    /// A run begins. Reads the object where the last run could not say what is in it.
    pub(crate) async fn begin(&self, store: &Store, who: Who<'_>, last: LastRun) -> Result<()> {
        let mut known = self.known.lock().await;
        let run = RunHere { run_id: who.run_id.to_owned(), ..RunHere::default() };
        known.runs.insert(who.connection.to_owned(), run);
        let has_others = known.has_others(who.connection);
        match last {
            LastRun::Knew(Some(last)) if last.name == self.id.0 && !has_others => {
                if known.version != last.version {
                    (known.file, known.version) = (LimitsFile::default(), last.version);
                    self.publish(&mut known);
                }
            }
            LastRun::None if !has_others => {}
            _ => self.read(store, &mut known).await?,
        }
        if let Some(run) = known.runs.get_mut(who.connection) {
            run.is_doubtful = false;
        }
        Ok(())
    }

    /// Puts this run's name in the place of one that did not end. Should that one still go on, it finds out before it
    /// reserves its next calls.
    pub(crate) async fn take_over(&self, store: &Store, who: Who<'_>) -> Result<()> {
        let mut known = self.known.lock().await;
        for _ in 0..SAVES {
            let theirs = known.file.callers.get(who.connection);
            let calls_ms: Vec<u64> = theirs.map(|caller| caller.calls_ms().collect()).unwrap_or_default();
            let file = self.with_calls(&known.file, who, &calls_ms);
            match self.save(store, &mut known, file).await {
                Err(error) if error.kind == ErrorKind::StateConflict => self.read(store, &mut known).await?,
                saved => {
                    if let (Ok(()), Some(run)) = (&saved, known.runs.get_mut(who.connection)) {
                        (run.is_stored, run.is_doubtful) = (true, false);
                    }
                    return saved;
                }
            }
        }
        Err(Error::new(ErrorKind::StateConflict, "other connections save the account's limits all the time")
            .help("run again"))
    }

    /// Stores a run's calls unless others have stored theirs, which it then knows.
    pub(crate) async fn reserve(
        &self,
        store: &Store,
        who: Who<'_>,
        calls_ms: &[u64],
        seen: u64,
    ) -> Result<Reserved> {
        let mut known = self.known.lock().await;
        known.ensure_goes_on(who)?;
        if self.account.changes() != seen {
            return Ok(Reserved::OthersFirst);
        }
        let is_newcomer = !known.file.callers.contains_key(who.connection);
        let file = self.with_calls(&known.file, who, calls_ms);
        match self.save(store, &mut known, file).await {
            Ok(()) => {
                if is_newcomer {
                    self.wait_for_one_who_does_not_look(&known, who);
                }
                if let Some(run) = known.runs.get_mut(who.connection) {
                    run.is_stored = true;
                }
                Ok(Reserved::Stored)
            }
            Err(error) if error.kind == ErrorKind::StateConflict => {
                self.read(store, &mut known).await?;
                known.ensure_goes_on(who)?;
                let run = known.runs.get_mut(who.connection);
                Ok(match run.is_some_and(|run| std::mem::take(&mut run.is_doubtful)) {
                    true => Reserved::SameConnectionFirst,
                    false => Reserved::OthersFirst,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what others have stored, unless that was done a moment ago or there are no others.
    pub(crate) async fn look(&self, store: &Store, who: Who<'_>) -> Result<()> {
        let mut known = self.known.lock().await;
        let age_ms = self.clock.now_ms().abs_diff(known.seen_at_ms);
        if known.has_others(who.connection) && u128::from(age_ms) >= LOOK_EVERY.as_millis() {
            // What is reserved may be used for 5 s in any case; then the store is asked again.
            if let Err(error) = self.read(store, &mut known).await {
                tracing::debug!(error = %error.line(), "the account's limits could not be read before a call");
            }
        }
        known.ensure_goes_on(who)
    }

    /// Stores the silence that this process was asked for, for the others.
    pub(crate) async fn tell_silence(&self, store: &Store, who: Who<'_>) {
        let telling = async {
            let mut known = self.known.lock().await;
            for _ in 0..SAVES {
                if known.knows_silence(&self.account) || known.ensure_goes_on(who).is_err() {
                    return Ok(());
                }
                let file = self.pruned(&known.file);
                match self.save(store, &mut known, file).await {
                    Err(error) if error.kind == ErrorKind::StateConflict => {
                        self.read(store, &mut known).await?;
                    }
                    told => return told,
                }
            }
            Ok(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(TELL_WITHIN, telling).await {
            tracing::warn!(error = %error.line(), "the target's silence could not be stored for other connections");
        }
    }

    /// A run ends, and has made these calls in the last minute. Returns what its connection knows if it is alone.
    pub(crate) async fn end(&self, store: &Store, who: Who<'_>, calls_ms: &[u64]) -> Option<KnownAccount> {
        let mut known = self.known.lock().await;
        let given_back = self.give_back(store, &mut known, who, calls_ms).await;
        known.runs.remove(who.connection);
        match given_back {
            Ok(()) if !known.has_others(who.connection) && calls_ms.len() <= MOST_CALLS_OF_A_RUN => {
                Some(KnownAccount { name: self.id.0.clone(), version: known.version.clone() })
            }
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = %error.line(), "reserved calls could not be given back; they count for a minute");
                None
            }
        }
    }

    async fn give_back(
        &self,
        store: &Store,
        known: &mut Known,
        who: Who<'_>,
        calls_ms: &[u64],
    ) -> Result<()> {
        for _ in 0..SAVES {
            let run = known.runs.get(who.connection);
            let has_reserved = run.is_some_and(|run| run.is_stored && !run.is_taken_over);
            let is_alone = !known.has_others(who.connection) && calls_ms.len() <= MOST_CALLS_OF_A_RUN;
            if !has_reserved || (is_alone && known.knows_silence(&self.account)) {
                return Ok(());
            }
            let file = self.with_calls(&known.file, who, calls_ms);
            match self.save(store, known, file).await {
                Err(error) if error.kind == ErrorKind::StateConflict => self.read(store, known).await?,
                saved => return saved,
            }
        }
        Ok(())
    }

    async fn read(&self, store: &Store, known: &mut Known) -> Result<()> {
        let path = paths::limits(&self.id.0);
        let (file, version) = match store.load(&path).await? {
            Some((bytes, version)) => (LimitsFile::parse(store, &path, &bytes)?, Some(version)),
            None => (LimitsFile::default(), None),
        };
        (known.file, known.version) = (file, version);
        for (connection, run) in &mut known.runs {
            let Some(stored) = known.file.callers.get(connection).filter(|there| there.run_id != run.run_id)
            else {
                continue;
            };
            run.is_taken_over |= run.is_stored;
            run.is_doubtful = true;
            if run.earlier_at_ms.replace(stored.at_ms) != Some(stored.at_ms) {
                self.account.add_earlier(connection, stored.calls_ms().collect());
            }
        }
        self.publish(known);
        Ok(())
    }

    async fn save(&self, store: &Store, known: &mut Known, file: LimitsFile) -> Result<()> {
        let bytes = Bytes::from(serde_json::to_vec(&file).unwrap_or_default());
        let path = paths::limits(&self.id.0);
        let version = store.save_if_unchanged(&path, bytes, known.version.as_ref()).await?;
        (known.file, known.version) = (file, Some(version));
        self.publish(known);
        Ok(())
    }

    /// Everybody in this process knows what is known.
    fn publish(&self, known: &mut Known) {
        known.seen_at_ms = self.clock.now_ms();
        if let Some(until_ms) = known.file.blocked_until_ms {
            self.account.block_until(until_ms);
        }
        let callers = known.file.callers.iter();
        self.account
            .publish(callers.map(|(name, caller)| (name.clone(), caller.calls_ms().collect())).collect());
    }

    /// Only one who is alone does not look before its calls.
    fn wait_for_one_who_does_not_look(&self, known: &Known, who: Who<'_>) {
        let mut others = known.file.callers.iter().filter(|(name, _)| *name != who.connection);
        if let (Some((name, other)), None) = (others.next(), others.next())
            && !known.runs.contains_key(name)
        {
            let now_ms = self.clock.now_ms();
            self.account
                .hold(who.connection, other.calls_ms().filter(|at| *at > now_ms).max().unwrap_or_default());
        }
    }

    fn with_calls(&self, file: &LimitsFile, who: Who<'_>, calls_ms: &[u64]) -> LimitsFile {
        let mut file = self.pruned(file);
        let caller = Caller::new(who.run_id, self.clock.now_ms(), calls_ms);
        file.callers.insert(who.connection.to_owned(), caller);
        file
    }

    fn pruned(&self, file: &LimitsFile) -> LimitsFile {
        file.pruned(self.clock, self.account.blocked_until_ms())
    }
}
