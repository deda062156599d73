//! The state of a run with its version in the store: loaded at the start, saved with what was acknowledged.
//!
//! Goal: the state never runs ahead of the target, and of a run that is killed only what was under way goes twice.
//!
//! - **Killed after a row was sent, before its answer.** The row may be at the target. So the intent is saved before
//!   the first batch goes out: a new row as *unknown*, a row that changes as *unsure*. The next run sends it again, and
//!   deletes it if the source has removed it since.
//! - **Killed after an answer, before it is saved.** The row counts as unknown or unsure and is sent once more. Rows
//!   carry ids, so the target converges. It is rare: in a directory the state is saved after each batch, on S3 at most
//!   every 2 s, and nowhere does it take more than a twentieth of the time.
//! - **A save takes its time.** It goes on beside the batches, one save at a time, and each holds all that was
//!   acknowledged when it began. In a directory a batch whose save has not ended counts as under way: where the disk is
//!   slower than the target, the run waits for it.
//! - **Two runs at once**, in spite of the lease. A save succeeds only on top of the version that was loaded; the later
//!   one ends with `StateConflict` and overwrites nothing.
//!
//! Deliberately absent: a journal of acknowledgements beside the state. 80 batches of a state of 2,000 rows, 20 ms each,
//! take as long as without saves; 100 batches of 50,000 rows take 1.15 times as long.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;

use super::{RunContext, Tally};
use crate::catalogue::{Catalogue, RecordId, Rejected};
use crate::error::Result;
use crate::plan::{Action, Plan};
use crate::state::{Acknowledged, Dismissed, Fingerprint, State};
use crate::store::{Version, paths};
use crate::targets::Written;
use crate::testing::Mutant;

/// On S3 the state is saved at most this often while batches go out: a save costs a call, and keeps a version.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// After the state was written down, batches go out for at least this many times as long before it is again: no batch can
/// be sent meanwhile.
const PAUSE_PER_WRITING: u32 = 19;

pub(super) struct Checkpoint<'a> {
    context: &'a RunContext<'a>,
    pub state: State,
    /// What the target had acknowledged of the rows that this run changes, before their intent was noted.
    pub former: HashMap<RecordId, Fingerprint>,
    version: Option<Version>,
    dirty: bool,
    /// Place of the row that is probably acknowledged next.
    expected: usize,
    /// The save that is under way.
    saving: Option<Saving<'a>>,
    next_save_at: Instant,
    /// Batches that were acknowledged since the last save began.
    newer_batches: usize,
    /// Whether the version that this run found has been copied to `.previous`.
    previous_is_kept: bool,
}

struct Saving<'a> {
    saved: BoxFuture<'a, Result<Version>>,
    batches: usize,
}

impl<'a> Checkpoint<'a> {
    /// The stored state, or an empty one before the first run.
    pub(super) async fn load(context: &'a RunContext<'a>) -> Result<Self> {
        let loaded = context.store.load(&paths::state(context.connection)).await?;
        let (state, version) = match loaded {
            Some((bytes, version)) => {
                (State::from_bytes(&bytes, context.connection, &context.target.identity())?, Some(version))
            }
            None => (State::default(), None),
        };
        Ok(Self {
            context,
            state,
            former: HashMap::new(),
            version,
            dirty: false,
            expected: 0,
            saving: None,
            next_save_at: Instant::now(),
            newer_batches: 0,
            previous_is_kept: false,
        })
    }

    /// Increments the run counter. It needs saving only while refused rows are scheduled by it.
    pub(super) fn bump_run_counter(&mut self) {
        self.state.runs += 1;
        self.dirty |= !self.state.refused.is_empty();
    }

    /// Drops refusals for rows the plan neither defers nor retries: the row is gone or its old content is back.
    pub(super) fn forget_refusals_except(&mut self, plan: &Plan, catalogue: &Catalogue) {
        let State { refused, .. } = &mut self.state;
        if refused.is_empty() {
            return;
        }
        let tried: std::collections::HashSet<_> = plan.pending(catalogue).map(|change| change.id).collect();
        refused.retain(|id, _| plan.deferred.contains(id) || tried.contains(id.as_str()));
    }

    /// Drops dismissals of rows that go through now, or whose content has changed.
    pub(super) fn forget_dismissals_except(&mut self, rejected: &[Rejected]) {
        let State { dismissed, refused, .. } = &mut self.state;
        if dismissed.is_empty() {
            return;
        }
        let before = dismissed.len();
        let there: BTreeSet<Dismissed> = rejected.iter().map(Dismissed::of).collect();
        // A refused row whose turn has come is told apart by the answer only.
        let waits = |row: &Dismissed| row.id.as_ref().is_some_and(|id| refused.contains_key(id.as_str()));
        dismissed.retain(|row| there.contains(row) || waits(row));
        self.dirty |= dismissed.len() != before;
    }

    /// Saves which rows are about to be sent: from now on, what the target holds of them is not known until it
    /// acknowledges them.
    pub(super) async fn record_intent(&mut self, plan: &Plan, catalogue: &Catalogue) -> Result<()> {
        self.state.rows.reserve(usize::try_from(plan.counts.create).unwrap_or(0));
        self.announce(plan.pending(catalogue).map(|change| (change.id, change.action))).await
    }

    /// The same for rows that no plan holds.
    pub(super) async fn announce(&mut self, rows: impl Iterator<Item = (&str, Action)>) -> Result<()> {
        let mut is_new = false;
        for (id, action) in rows {
            let mark = if action == Action::Create { Acknowledged::Unknown } else { Acknowledged::Unsure };
            let before = self.state.rows.insert(id, mark);
            is_new |= before != Some(mark);
            if let Some(Acknowledged::Known(fingerprint)) = before {
                self.former.insert(id.into(), fingerprint);
            }
            if action == Action::Delete {
                is_new |= self.state.tombstones.insert(id.into());
            }
        }
        self.dirty |= is_new;
        if is_new { self.save().await } else { Ok(()) }
    }

    pub(super) fn acknowledge(&mut self, written: &Written, tally: &mut Tally) {
        if !written.acknowledged.is_empty() || !written.refused.is_empty() {
            self.dirty = true;
            self.newer_batches += usize::from(!Mutant::SaveOnlyAtTheEnd.is_active());
        }
        tally.batches += written.batches;
        for entry in written.acknowledged.iter().flat_map(|batch| &batch.entries) {
            self.state.refused.remove(&entry.id);
            match entry.fingerprint {
                Some(fingerprint) => {
                    self.state.tombstones.remove(&entry.id);
                    let known = Acknowledged::Known(fingerprint);
                    match self.state.rows.place_near(self.expected, &entry.id) {
                        Some(place) => {
                            self.state.rows.set(place, known);
                            self.expected = place + 1;
                        }
                        None => drop(self.state.rows.insert(&entry.id, known)),
                    }
                    tally.written += 1;
                }
                None => {
                    self.state.rows.remove(&entry.id);
                    tally.deleted += 1;
                }
            }
        }
        for refused in &written.refused {
            let entry = &refused.entry;
            self.state.refuse(entry.id.clone(), entry.fingerprint, refused.reason.clone());
            tally.refused += 1;
            tally.rejected.push(refused.rejected.clone());
        }
    }

    /// Everything that was planned is done: the guard compares the next run with what the source held now.
    pub(super) fn complete(&mut self, products: u64) {
        self.dirty |= self.state.source_products != Some(products);
        self.state.source_products = Some(products);
    }

    /// Batches whose acknowledgements may not be stored yet, if the next one has to wait for them.
    pub(super) fn unsaved_batches(&self) -> usize {
        if !self.context.store.is_directory() {
            return 0;
        }
        let is_due = Instant::now() >= self.next_save_at;
        let newer = if is_due { self.newer_batches } else { 0 };
        newer + self.saving.as_ref().map_or(0, |saving| saving.batches)
    }

    /// Whether acknowledgements wait to be saved, or are being saved.
    pub(super) fn is_behind(&self) -> bool {
        self.newer_batches > 0 || self.saving.is_some()
    }

    /// Saves what was acknowledged as soon as a save is due, and returns when it has ended. A caller that stops waiting
    /// loses nothing: the save goes on when it is asked for again.
    pub(super) async fn save_when_due(&mut self) -> Result<()> {
        if self.saving.is_none() {
            if self.newer_batches == 0 {
                return Ok(());
            }
            tokio::time::sleep_until(self.next_save_at).await;
            self.begin_save();
        }
        self.end_save().await
    }

    pub(super) async fn save(&mut self) -> Result<()> {
        self.end_save().await?;
        if !self.dirty {
            return Ok(());
        }
        self.begin_save();
        self.end_save().await
    }

    fn begin_save(&mut self) {
        let RunContext { store, connection, target, .. } = *self.context;
        let began_at = Instant::now();
        let bytes = Bytes::from(self.state.to_text(connection, &target.identity()));
        let written_at = Instant::now();
        let pause = (written_at - began_at) * PAUSE_PER_WRITING;
        let every = if store.is_directory() { Duration::ZERO } else { SAVE_EVERY };
        self.next_save_at = (written_at + pause).max(began_at + every);
        let path = paths::state(connection);
        let (version, keeps_previous) = (self.version.clone(), !self.previous_is_kept);
        let saved = async move {
            if version.is_some() && keeps_previous {
                store.copy(&path, &paths::previous_state(connection)).await?;
            }
            store.save_if_unchanged(&path, bytes, version.as_ref()).await
        };
        let batches = std::mem::take(&mut self.newer_batches);
        self.saving = Some(Saving { saved: saved.boxed(), batches });
        self.dirty = false;
    }

    async fn end_save(&mut self) -> Result<()> {
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let saved = (&mut saving.saved).await;
        self.saving = None;
        match saved {
            Ok(version) => {
                (self.version, self.previous_is_kept) = (Some(version), true);
                Ok(())
            }
            Err(error) => {
                self.dirty = true;
                Err(error)
            }
        }
    }
}
