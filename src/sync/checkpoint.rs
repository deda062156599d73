//! The state of a run with its version in the store: loaded at the start, saved with what was acknowledged.
//!
//! Goal: the state never runs ahead of the target, and a kill at any moment costs one repetition at most.
//!
//! - **Killed after a row was sent, before its answer.** The row may be at the target. So the intent is saved before
//!   the first batch goes out: a new row as *unknown*, a row that changes as *unsure*. The next run sends it again, and
//!   deletes it if the source has removed it since.
//! - **Killed after an answer, before it is saved.** The row counts as unknown or unsure and is sent once more. Rows
//!   carry ids, so the target converges.
//! - **Two runs at once**, in spite of the lease. A save succeeds only on top of the version that was loaded; the later
//!   one ends with `StateConflict` and overwrites nothing.
//!
//! Deliberately absent: a save for each batch. One state is one object; writing it costs more than a batch.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{RunContext, Tally};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::plan::{Action, Plan};
use crate::state::{Acknowledged, State};
use crate::store::{Version, paths};
use crate::targets::Written;

/// The state is saved this often while batches go out: a kill then costs a repetition of at most this much work.
const SAVE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Checkpoint {
    pub state: State,
    version: Option<Version>,
    dirty: bool,
    /// Place of the row that is probably acknowledged next.
    expected: usize,
    saved_at: Instant,
    /// Whether the version that this run found has been copied to `.previous`.
    previous_is_kept: bool,
}

impl Checkpoint {
    /// The stored state, or an empty one before the first run.
    pub(super) async fn load(context: &RunContext<'_>) -> Result<Self> {
        let loaded = context.store.load(&paths::state(context.connection)).await?;
        let (state, version) = match loaded {
            Some((bytes, version)) => {
                (State::from_bytes(&bytes, context.connection, &context.target.identity())?, Some(version))
            }
            None => (State::default(), None),
        };
        Ok(Self {
            state,
            version,
            dirty: false,
            expected: 0,
            saved_at: Instant::now(),
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

    /// Saves which rows are about to be sent: from now on, what the target holds of them is not known until it
    /// acknowledges them.
    pub(super) async fn record_intent(
        &mut self,
        context: &RunContext<'_>,
        plan: &Plan,
        catalogue: &Catalogue,
    ) -> Result<()> {
        let mut is_new = false;
        self.state.rows.reserve(usize::try_from(plan.counts.create).unwrap_or(0));
        for change in plan.pending(catalogue) {
            let mark =
                if change.action == Action::Create { Acknowledged::Unknown } else { Acknowledged::Unsure };
            is_new |= self.state.rows.insert(change.id, mark) != Some(mark);
        }
        self.dirty |= is_new;
        if is_new { self.save(context).await } else { Ok(()) }
    }

    pub(super) fn acknowledge(&mut self, written: Written, tally: &mut Tally) {
        self.dirty |= !written.acknowledged.is_empty() || !written.refused.is_empty();
        tally.batches += written.batches;
        for entry in written.acknowledged {
            self.state.refused.remove(&entry.id);
            match entry.fingerprint {
                Some(fingerprint) => {
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
        for refused in written.refused {
            self.state.refuse(refused.entry.id, refused.entry.fingerprint, refused.reason);
            tally.refused += 1;
            tally.rejected.push(refused.rejected);
        }
    }

    /// Everything that was planned is done: the guard compares the next run with what the source held now.
    pub(super) fn complete(&mut self, products: u64) {
        self.dirty |= self.state.source_products != Some(products);
        self.state.source_products = Some(products);
    }

    pub(super) async fn save_if_due(&mut self, context: &RunContext<'_>) -> Result<()> {
        if self.saved_at.elapsed() < SAVE_EVERY { Ok(()) } else { self.save(context).await }
    }

    pub(super) async fn save(&mut self, context: &RunContext<'_>) -> Result<()> {
        if !self.dirty {
            return Ok(());
        }
        let path = paths::state(context.connection);
        if self.version.is_some() && !self.previous_is_kept {
            context.store.copy(&path, &paths::previous_state(context.connection)).await?;
            self.previous_is_kept = true;
        }
        let bytes = Bytes::from(self.state.to_text(context.connection, &context.target.identity()));
        self.version = Some(context.store.save_if_unchanged(&path, bytes, self.version.as_ref()).await?);
        self.dirty = false;
        self.saved_at = Instant::now();
        Ok(())
    }
}
