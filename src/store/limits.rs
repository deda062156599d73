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
mod words;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

pub(super) use self::file::silence_ahead;
use self::file::{Caller, LimitsFile};
use self::known::{Known, RunHere};
pub(crate) use self::words::{AccountId, KnownAccount, LastRun, Reserved, Who};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::Account;
use crate::store::{Store, others_first, paths};
use crate::words::say;

/// How old a look may be before a call, where others use the account.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A caller that waits stores its name again after this: the others count on it for a minute.
const SEEN_FOR: Duration = Duration::from_secs(30);
/// How often a save is tried again that others came before.
const SAVES: u32 = 10;
/// A store that takes longer must not keep a run from its end: the silence is stored again with the next save.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// More calls than this are not repeated in the connection's own object.
pub(super) const MOST_CALLS_OF_A_RUN: usize = 5_000;

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

    /// A run begins, whose connection made these calls in the last minute. Reads the object where the last run could not
    /// say what is in it.
    pub(crate) async fn begin(
        &self,
        store: &Store,
        who: Who<'_>,
        last: LastRun,
        calls_ms: &[u64],
    ) -> Result<()> {
        let mut known = self.known.lock().await;
        let run = RunHere { run_id: who.run_id.to_owned(), ..RunHere::default() };
        known.runs.insert(who.connection.to_owned(), run);
        let has_others = known.has_others(who.connection);
        match last {
            LastRun::Knew(Some(last)) if last.name == self.id.0 && !has_others => {
                if known.version != last.version {
                    // The pause that the run left is its silence too.
                    let blocked_until_ms = self.account.blocked_until_ms();
                    known.file = LimitsFile { blocked_until_ms, ..LimitsFile::default() };
                    // Another connection of this process may save on top of it before this run does.
                    let own = Caller::new(who.run_id, self.clock.now_ms(), calls_ms);
                    known.file.callers.insert(who.connection.to_owned(), own);
                    known.version = last.version;
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

    /// Stores this run's name, in the place of an earlier run of its connection. Should that one still go on, it finds
    /// out before it reserves its next calls.
    pub(crate) async fn store_name(&self, store: &Store, who: Who<'_>) -> Result<()> {
        let mut known = self.known.lock().await;
        for save in 0..SAVES {
            others_first(save).await;
            if self.save_name(store, &mut known, who).await? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::StateConflict,
            say!("other connections save the account's limits all the time"),
        )
        .help(say!("run again")))
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
        if self.save_calls(store, &mut known, who, calls_ms).await? {
            return Ok(Reserved::Stored);
        }
        known.ensure_goes_on(who)?;
        let run = known.runs.get_mut(who.connection);
        Ok(match run.is_some_and(|run| std::mem::take(&mut run.is_doubtful)) {
            true => Reserved::SameConnectionFirst,
            false => Reserved::OthersFirst,
        })
    }

    /// Reads what others have stored, unless that was done a moment ago or there are no others.
    pub(crate) async fn look(&self, store: &Store, who: Who<'_>) -> Result<()> {
        let mut known = self.known.lock().await;
        // Should the store fail: what is reserved may be used for 5 s in any case. Then it is asked again.
        if known.has_others(who.connection) && self.is_older(known.seen_at_ms, LOOK_EVERY) {
            tell_of(self.read(store, &mut known).await);
        }
        known.ensure_goes_on(who)
    }

    /// Stores the name of a run that waits for a call to become free, where others call: they let it go first.
    pub(crate) async fn wait_in_line(&self, store: &Store, who: Who<'_>) {
        let mut known = self.known.lock().await;
        let own = known.file.callers.get(who.connection);
        let is_seen = own.is_some_and(|own| own.run_id == who.run_id && !self.is_older(own.at_ms, SEEN_FOR));
        let goes_on = known.ensure_goes_on(who).is_ok();
        if goes_on && !is_seen && known.file.has_active_others(who.connection, self.clock.now_ms()) {
            // If another one is first, the next wait tries again.
            tell_of(self.save_name(store, &mut known, who).await.map(drop));
        }
    }

    fn is_older(&self, at_ms: u64, than: Duration) -> bool {
        u128::from(self.clock.now_ms().abs_diff(at_ms)) >= than.as_millis()
    }

    /// Stores the silence that this process was asked for, for the others.
    pub(crate) async fn tell_silence(&self, store: &Store, who: Who<'_>) {
        let telling = async {
            let mut known = self.known.lock().await;
            for save in 0..SAVES {
                others_first(save).await;
                if known.knows_silence(&self.account) || known.ensure_goes_on(who).is_err() {
                    break;
                }
                let file = self.pruned(&known.file);
                self.save(store, &mut known, file).await?;
            }
            Ok(())
        };
        let told: Result<_, _> = tokio::time::timeout(TELL_WITHIN, telling).await;
        if let Ok(Err(error)) = told {
            let error: Error = error;
            tracing::warn!(error = %error.line(), "the target's silence could not be stored for other connections");
        }
    }

    /// A run ends, and has made these calls in the last minute. Returns what its connection knows if it is alone.
    pub(crate) async fn end(&self, store: &Store, who: Who<'_>, calls_ms: &[u64]) -> Option<KnownAccount> {
        let mut known = self.known.lock().await;
        let given_back = self.give_back(store, &mut known, who, calls_ms).await;
        known.runs.remove(who.connection);
        if let Err(error) = given_back {
            tracing::warn!(error = %error.line(), "reserved calls could not be given back; they count for a minute");
            return None;
        }
        let is_alone = !known.has_others(who.connection) && calls_ms.len() <= MOST_CALLS_OF_A_RUN;
        is_alone.then(|| KnownAccount { name: self.id.0.clone(), version: known.version.clone() })
    }

    async fn give_back(
        &self,
        store: &Store,
        known: &mut Known,
        who: Who<'_>,
        calls_ms: &[u64],
    ) -> Result<()> {
        for save in 0..SAVES {
            others_first(save).await;
            let run = known.runs.get(who.connection);
            let has_reserved = run.is_some_and(|run| run.is_stored && !run.is_taken_over);
            let is_alone = !known.has_others(who.connection) && calls_ms.len() <= MOST_CALLS_OF_A_RUN;
            let is_known = is_alone && known.knows_silence(&self.account);
            if !has_reserved || is_known || self.save_calls(store, known, who, calls_ms).await? {
                break;
            }
        }
        Ok(())
    }

    async fn save_name(&self, store: &Store, known: &mut Known, who: Who<'_>) -> Result<bool> {
        let earlier = known.file.callers.get(who.connection);
        let calls_ms: Vec<u64> = earlier.map(|caller| caller.calls_ms().collect()).unwrap_or_default();
        self.save_calls(store, known, who, &calls_ms).await
    }

    async fn save_calls(
        &self,
        store: &Store,
        known: &mut Known,
        who: Who<'_>,
        calls_ms: &[u64],
    ) -> Result<bool> {
        let is_newcomer = !known.file.callers.contains_key(who.connection);
        let mut file = self.pruned(&known.file);
        let caller = Caller::new(who.run_id, self.clock.now_ms(), calls_ms);
        file.callers.insert(who.connection.to_owned(), caller);
        let saved = self.save(store, known, file).await?;
        if saved && is_newcomer {
            self.wait_for_one_who_does_not_look(known, who);
        }
        if let Some(run) = known.runs.get_mut(who.connection).filter(|_| saved) {
            (run.is_stored, run.is_doubtful) = (true, false);
        }
        Ok(saved)
    }

    /// `false`: others were first. What they saved is known now.
    async fn save(&self, store: &Store, known: &mut Known, file: LimitsFile) -> Result<bool> {
        let bytes = Bytes::from(serde_json::to_vec(&file).unwrap_or_default());
        let path = paths::limits(self.id.name());
        match store.save_if_unchanged(&path, bytes, known.version.as_ref()).await {
            Ok(version) => {
                (known.file, known.version) = (file, Some(version));
                self.publish(known);
                Ok(true)
            }
            Err(error) if error.kind == ErrorKind::StateConflict => {
                self.read(store, known).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn read(&self, store: &Store, known: &mut Known) -> Result<()> {
        let path = paths::limits(self.id.name());
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

    /// Everybody in this process knows what is known.
    fn publish(&self, known: &mut Known) {
        let now_ms = self.clock.now_ms();
        known.seen_at_ms = now_ms;
        if let Some(until_ms) = known.file.blocked_until_ms {
            self.account.block_until(until_ms);
        }
        let callers = known.file.callers.iter().filter(|(_, caller)| caller.is_active(now_ms));
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

    fn pruned(&self, file: &LimitsFile) -> LimitsFile {
        file.pruned(self.clock, self.account.blocked_until_ms())
    }
}

fn tell_of(looked: Result<()>) {
    if let Err(error) = looked {
        tracing::debug!(error = %error.line(), "the account's limits could not be brought up to date before a call");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn process(clock: Clock) -> AccountLimits {
        AccountLimits::new(AccountId::of("target", "host", "key"), clock)
    }

    fn who(connection: &'static str) -> Who<'static> {
        Who { connection, run_id: connection }
    }

    async fn reserve(
        process: &AccountLimits,
        store: &Store,
        connection: &'static str,
        at: &[u64],
    ) -> Reserved {
        process.reserve(store, who(connection), at, process.account.changes()).await.unwrap()
    }

    /// How many calls of a connection are stored; `None` if its name is not.
    async fn stored_calls(process: &AccountLimits, store: &Store, connection: &str) -> Option<usize> {
        let (bytes, _) = store.load(&paths::limits(process.id.name())).await.unwrap().unwrap();
        let file = LimitsFile::parse(store, "", &bytes).unwrap();
        file.callers.get(connection).map(|caller| caller.calls_ms().count())
    }

    #[test]
    fn an_account_is_side_host_and_key_and_its_name_shows_none_of_them() {
        let id = |side: &str, host: &str, key: &str| AccountId::of(side, host, key).0;
        let one = id("target", "api.qeasy.cloud", "0123456789abcdef-app-key");
        assert_eq!(one, id("target", "api.qeasy.cloud", "0123456789abcdef-app-key"));
        assert!(one.len() == 16 && one.chars().all(|c| c.is_ascii_hexdigit()), "{one}");
        for other in [id("source", "api.qeasy.cloud", "0123456789abcdef-app-key"), id("target", "api", "k")] {
            assert_ne!(one, other);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_second_learns_what_the_first_one_has_reserved() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let (one, two) = (process(clock), process(clock));
        one.begin(&store, who("a"), LastRun::None, &[]).await.unwrap();
        two.begin(&store, who("b"), LastRun::None, &[]).await.unwrap();
        assert_eq!(reserve(&one, &store, "a", &[NOW_MS + 5_000; 7]).await, Reserved::Stored);
        assert_eq!(reserve(&two, &store, "b", &[NOW_MS + 5_000]).await, Reserved::OthersFirst);
        let stale = two.account.changes() - 1;
        assert_eq!(two.reserve(&store, who("b"), &[1], stale).await.unwrap(), Reserved::OthersFirst);
        assert_eq!(reserve(&two, &store, "b", &[NOW_MS + 5_000]).await, Reserved::Stored);
        assert_eq!(reserve(&one, &store, "a", &[NOW_MS]).await, Reserved::OthersFirst);
        one.account.block_until(NOW_MS + 300_000);
        one.tell_silence(&store, who("a")).await;
        assert!(two.blocked_for().is_zero());
        tokio::time::advance(LOOK_EVERY).await;
        two.look(&store, who("b")).await.unwrap();
        assert!(!two.blocked_for().is_zero(), "before its next call");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_run_knew_when_it_ended_is_enough_until_others_come() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let first = process(clock);
        first.begin(&store, who("a"), LastRun::None, &[]).await.unwrap();
        assert_eq!(reserve(&first, &store, "a", &[NOW_MS; 3]).await, Reserved::Stored);
        let known = first.end(&store, who("a"), &[NOW_MS]).await;
        let second = process(clock);
        second.begin(&store, who("a"), LastRun::Knew(known), &[]).await.unwrap();
        assert_eq!(reserve(&second, &store, "a", &[NOW_MS; 2]).await, Reserved::Stored, "without a look");
        let other = process(clock);
        other.begin(&store, who("b"), LastRun::Knew(None), &[]).await.unwrap();
        assert_eq!(reserve(&other, &store, "b", &[NOW_MS]).await, Reserved::Stored);
        assert_eq!(reserve(&second, &store, "a", &[NOW_MS; 2]).await, Reserved::OthersFirst);
        assert_eq!(second.end(&store, who("a"), &[NOW_MS; 2]).await, None);
        assert_eq!(stored_calls(&second, &store, "a").await, Some(2), "what was not used is given back");
    }
    #[tokio::test(start_paused = true)]
    async fn a_neighbour_in_the_process_keeps_the_calls_of_a_run_that_did_not_look() {
        let (store, clock) = (Store::memory(), Clock::starting_at_ms(NOW_MS));
        let first = process(clock);
        first.begin(&store, who("a"), LastRun::None, &[]).await.unwrap();
        assert_eq!(reserve(&first, &store, "a", &[NOW_MS; 3]).await, Reserved::Stored);
        let known = first.end(&store, who("a"), &[NOW_MS; 3]).await;
        let second = process(clock);
        second.begin(&store, who("a"), LastRun::Knew(known), &[NOW_MS; 3]).await.unwrap();
        second.begin(&store, who("b"), LastRun::None, &[]).await.unwrap();
        assert_eq!(reserve(&second, &store, "b", &[NOW_MS]).await, Reserved::Stored);
        assert_eq!(stored_calls(&second, &store, "a").await, Some(3));
    }
}
