//! The quarantine for people: which rows cannot go through now, since when, and two things that can be done about it.
//!
//! A row of the source is judged anew in every run, so its line in the quarantine of the last run is the truth. A row that
//! the target refused is in the state too, which says when its next try is. So the list is made of both: the last run
//! that came to a plan, and the state of now. Runs for single rows (`sync --only`) since then add what they met.
//!
//! `retry` and `dismiss` change the state, and so take the connection's lease; they make no call, and leave what the lease's
//! object knows of the target's limit as it was.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;

use super::archive::run_id;
use crate::catalogue::{Reason, ReasonKind, Rejected, RowKind};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{NEAREST, nearest_ids, unknown_id};
use crate::report::{Report, Status};
use crate::state::{Dismissed, State};
use crate::store::lease::Lease;
use crate::store::limits::{AccountId, AccountLimits};
use crate::store::{Store, Version, paths};
use crate::words::{phrase, say, written};

/// Runs that are looked back at for how long a row has been in the quarantine.
const LOOK_BACK_RUNS: usize = 200;
/// Files that are loaded at a time.
const AT_ONCE: usize = 8;
/// Digits of a row's content that name it where it has no id.
const HANDLE_DIGITS: usize = 8;

/// A row in the quarantine.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// The row as the last run met it; `dismissed` is that of now.
    pub row: Rejected,
    /// Start of the first run in a row that met it, RFC 3339 in UTC; `None` if no file of those runs is left.
    pub since: Option<String>,
    /// How often the target refused it; of a row of the source, the runs in a row that met it.
    pub tries: u64,
    /// In how many runs it is tried again: 1 is the next one.
    pub next_try: u64,
}

impl Quarantined {
    /// What a person calls the row by: its id, or `~` and the first digits of its content's hash.
    pub fn handle(&self) -> String {
        let content = || Dismissed::of(&self.row).content;
        self.row
            .id
            .clone()
            .unwrap_or_else(|| format!("~{}", content().get(..HANDLE_DIGITS).unwrap_or_default()))
    }
}

/// A connection whose quarantine is looked at.
#[derive(Clone, Copy)]
pub(crate) struct QuarantineOf<'a> {
    pub connection: &'a str,
    pub store: &'a Store,
    pub clock: Clock,
}

/// A change that a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The next run sends it, and it counts again.
    Retry,
    /// It does not count until its content changes.
    Dismiss,
}

/// What a run left.
struct Past {
    report: Report,
    rows: Vec<Rejected>,
}

impl Past {
    /// Whether it came to a plan, so that its quarantine is whole.
    fn is_whole(&self) -> bool {
        let Report { status, quarantined, dismissed, .. } = &self.report;
        let is_done = matches!(status, Status::Succeeded | Status::Partial);
        self.report.only.is_empty() && (is_done || quarantined + dismissed > 0)
    }
}

impl QuarantineOf<'_> {
    /// The rows that cannot go through now.
    pub(crate) async fn list(&self) -> Result<Vec<Quarantined>> {
        let state = self.state().await?.map(|(state, ..)| state).unwrap_or_default();
        self.list_by(&state).await
    }

    async fn list_by(&self, state: &State) -> Result<Vec<Quarantined>> {
        let names = self.store.names_after(&paths::reports(self.connection), "").await?;
        let runs = names.iter().rev().filter_map(|name| paths::run_of_report(name)).take(LOOK_BACK_RUNS);
        let runs: Vec<String> = runs.map(str::to_owned).collect();
        let mut past = futures::stream::iter(runs).map(|run| self.load(run)).buffered(AT_ONCE);
        let mut list = Listing::default();
        while let Some(run) = past.next().await {
            let Some(run) = run? else { continue };
            if list.take(run) {
                break;
            }
        }
        Ok(list.finish(state))
    }

    /// `None` if the run left no report that can be read.
    async fn load(&self, run: String) -> Result<Option<Past>> {
        let Some((bytes, _)) = self.store.load(&paths::report(self.connection, &run)).await? else {
            return Ok(None);
        };
        let Ok(report) = serde_json::from_slice::<Report>(&bytes) else { return Ok(None) };
        if report.quarantined + report.dismissed == 0 {
            return Ok(Some(Past { report, rows: Vec::new() }));
        }
        let file = self.store.load(&paths::quarantine(self.connection, &run)).await?;
        let text = file.map(|(bytes, _)| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(with_kind).collect();
        Ok(Some(Past { report, rows }))
    }

    async fn state(&self) -> Result<Option<(State, String, Version)>> {
        let Some((bytes, version)) = self.store.load(&paths::state(self.connection)).await? else {
            return Ok(None);
        };
        let (state, target) = State::with_target(&bytes, self.connection)?;
        Ok(Some((state, target, version)))
    }

    /// Changes the state for these rows, and returns them. One that nobody knows is an error, and nothing is changed then.
    pub(crate) async fn change(&self, change: Change, handles: &[String]) -> Result<Vec<Quarantined>> {
        let account = AccountLimits::new(AccountId::of("target", "", ""), self.clock);
        let run_id = run_id(self.clock);
        let lease = Lease::take(self.store, self.connection, &run_id, &Arc::new(account), self.clock).await?;
        let done = tokio::select! {
            biased;
            done = self.change_under_lease(change, handles) => done,
            lost = lease.renew_until_lost() => Err(lost),
        };
        lease.put_back().await;
        done
    }

    async fn change_under_lease(&self, change: Change, handles: &[String]) -> Result<Vec<Quarantined>> {
        let Some((mut state, target, version)) = self.state().await? else {
            let what = say!(
                "connection \"{connection}\" has no state yet, and what is noted of a row stands there",
                connection = self.connection
            );
            return Err(Error::new(ErrorKind::BadEvent, what).help(say!("let a sync send its first batch")));
        };
        let all = self.list_by(&state).await?;
        let mut changed = find(&all, handles)?;
        let before = state.clone();
        for row in &mut changed {
            let dismissed = Dismissed::of(&row.row);
            row.row.dismissed = change == Change::Dismiss;
            match change {
                Change::Dismiss => drop(state.dismissed.insert(dismissed)),
                Change::Retry => {
                    state.dismissed.remove(&dismissed);
                    let is_refused = row.row.id.as_deref().is_some_and(|id| state.retry(id));
                    row.next_try = if is_refused { 1 } else { row.next_try };
                }
            }
        }
        if state != before {
            let text = Bytes::from(state.to_text(self.connection, &target));
            self.store.save_if_unchanged(&paths::state(self.connection), text, Some(&version)).await?;
        }
        Ok(changed)
    }
}

/// The rows that these words name; of an id all rows that have it.
pub(crate) fn find(all: &[Quarantined], handles: &[String]) -> Result<Vec<Quarantined>> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for handle in handles {
        let mut named = all.iter().filter(|row| row.handle() == *handle).peekable();
        if named.peek().is_none() {
            let known: Vec<String> = all.iter().map(Quarantined::handle).collect();
            let near = nearest_ids(handle, known.iter().map(String::as_str), NEAREST);
            return Err(unknown_id(handle, phrase!("row in the quarantine"), &near));
        }
        if seen.insert(handle) {
            found.extend(named.cloned());
        }
    }
    Ok(found)
}

/// Lines of older programs have no kind of reason.
fn with_kind(row: Rejected) -> Rejected {
    match (row.kind, row.reason_kind) {
        (RowKind::Record, ReasonKind::Other) => Rejected { reason_kind: ReasonKind::Refused, ..row },
        _ => row,
    }
}

/// What the runs have met, the newest first.
#[derive(Default)]
struct Listing {
    rows: Vec<Quarantined>,
    /// Whether the last whole run was met.
    is_based: bool,
    /// Places in `rows` of those that every run so far has met, by what they are.
    open: HashMap<Identity, usize>,
}

/// What a row is, whatever its content.
type Identity = (RowKind, String);

fn identity(row: &Rejected) -> Identity {
    // Rows without an id are told apart by their content.
    (row.kind, row.id.clone().unwrap_or_else(|| format!("~{}", Dismissed::of(row).content)))
}

impl Listing {
    /// Takes in an earlier run; returns whether no other one is needed.
    fn take(&mut self, run: Past) -> bool {
        let is_whole = run.is_whole();
        if !self.is_based {
            let known: HashSet<Identity> = self.rows.iter().map(|row| identity(&row.row)).collect();
            for row in run.rows {
                let identity = identity(&row);
                if known.contains(&identity) {
                    continue;
                }
                if is_whole {
                    self.open.insert(identity, self.rows.len());
                }
                let since = Some(run.report.started_at.clone());
                self.rows.push(Quarantined { row, since, tries: 1, next_try: 1 });
            }
            self.is_based |= is_whole;
            return self.is_based && self.open.is_empty();
        }
        if !is_whole {
            return false;
        }
        let there: HashSet<Identity> = run.rows.iter().map(identity).collect();
        self.open.retain(|identity, _| there.contains(identity));
        for place in self.open.values() {
            if let Some(row) = self.rows.get_mut(*place) {
                row.since = Some(run.report.started_at.clone());
                row.tries += 1;
            }
        }
        self.open.is_empty()
    }

    /// The list, with what the state knows of now.
    fn finish(self, state: &State) -> Vec<Quarantined> {
        let mut rows = self.rows;
        // What was refused then and is not now went through since.
        rows.retain(|row| {
            let id = row.row.id.as_deref().unwrap_or_default();
            row.row.reason_kind != ReasonKind::Refused || state.refused.contains_key(id)
        });
        let listed: BTreeSet<String> = rows
            .iter()
            .filter(|row| row.row.reason_kind == ReasonKind::Refused)
            .filter_map(|row| row.row.id.clone())
            .collect();
        for (id, refusal) in state.refused.iter().filter(|(id, _)| !listed.contains(id.as_str())) {
            let reason = written!("refused by the target: {reason}", reason = refusal.said);
            let reason = Reason::new(ReasonKind::Refused, reason);
            let row = Rejected::new(RowKind::Record, Some(id.to_string()), reason, "null");
            rows.push(Quarantined { row, since: None, tries: 1, next_try: 1 });
        }
        for row in &mut rows {
            row.row.dismissed = state.dismissed.contains(&Dismissed::of(&row.row));
            let id = row.row.id.as_deref().unwrap_or_default();
            if let Some(refusal) =
                state.refused.get(id).filter(|_| row.row.reason_kind == ReasonKind::Refused)
            {
                row.tries = u64::from(refusal.times);
                row.next_try = refusal.not_before_run.saturating_sub(state.runs).max(1);
                row.row.reason = written!("refused by the target: {reason}", reason = refusal.said);
            }
        }
        rows
    }
}
