//! The state of a run with its version: loaded at the start, saved with what was acknowledged.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{RunContext, Tally};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::plan::{Action, Plan};
use crate::state::{Fingerprint, State};
use crate::store::Version;
use crate::targets::Written;

/// The state is saved this often while batches go out, so that a kill costs little.
const SAVE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Checkpoint {
    pub state: State,
    version: Option<Version>,
    dirty: bool,
    /// Where the row that is acknowledged next probably stands.
    expected: usize,
    saved_at: Instant,
    /// Whether the version before this run's first save is kept.
    previous_kept: bool,
}

impl Checkpoint {
    pub(super) async fn open(context: &RunContext<'_>) -> Result<Self> {
        let loaded = context.store.load(&crate::state::path(context.connection)).await?;
        let (state, version) = match loaded {
            Some((bytes, version)) => {
                (State::from_bytes(&bytes, context.connection, &context.target.identity())?, Some(version))
            }
            None => (State::default(), None),
        };
        Ok(Self { state, version, dirty: false, expected: 0, saved_at: Instant::now(), previous_kept: false })
    }

    /// Counts the run. The count is worth saving only while refused rows wait for their turn by it.
    pub(super) fn bump_run_counter(&mut self) {
        self.state.runs += 1;
        self.dirty |= !self.state.refused.is_empty();
    }

    /// Refusals of rows that the plan neither holds back nor tries again (they are gone, or as they once were) are over.
    pub(super) fn forget_refusals_except(&mut self, plan: &Plan, catalogue: &Catalogue) {
        let State { refused, .. } = &mut self.state;
        if refused.is_empty() {
            return;
        }
        let tried: std::collections::HashSet<_> = plan.pending(catalogue).map(|change| change.id).collect();
        refused.retain(|id, _| plan.deferred.contains(id) || tried.contains(id.as_str()));
    }

    /// Notes the rows of the plan before the first of them is sent: from then on, what the target holds of them is
    /// not known until it is acknowledged.
    pub(super) async fn record_intent(
        &mut self,
        context: &RunContext<'_>,
        plan: &Plan,
        catalogue: &Catalogue,
    ) -> Result<()> {
        let mut announced = false;
        self.state.rows.reserve(usize::try_from(plan.counts.create).unwrap_or(0));
        for change in plan.pending(catalogue) {
            let mark =
                if change.action == Action::Create { Fingerprint::UNKNOWN } else { Fingerprint::UNSURE };
            announced |= self.state.rows.insert(change.id, mark) != Some(mark);
        }
        self.dirty |= announced;
        if announced { self.save(context).await } else { Ok(()) }
    }

    pub(super) fn acknowledge(&mut self, written: Written, tally: &mut Tally) {
        self.dirty |= !written.acknowledged.is_empty() || !written.refused.is_empty();
        tally.batches += written.batches;
        for entry in written.acknowledged {
            self.state.refused.remove(&entry.id);
            match entry.fingerprint {
                Some(fingerprint) => {
                    match self.state.rows.place_near(self.expected, &entry.id) {
                        Some(place) => {
                            self.state.rows.set(place, fingerprint);
                            self.expected = place + 1;
                        }
                        None => drop(self.state.rows.insert(&entry.id, fingerprint)),
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
            let fingerprint = refused.entry.fingerprint.unwrap_or(Fingerprint::UNKNOWN);
            self.state.refuse(refused.entry.id, fingerprint, refused.reason);
            tally.refused += 1;
            tally.rejected.push(refused.rejected);
        }
    }

    /// Everything that was planned is done: what the source held is what the guard compares the next run with.
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
        let path = crate::state::path(context.connection);
        if self.version.is_some() && !self.previous_kept {
            context.store.copy(&path, &crate::state::previous_path(context.connection)).await?;
            self.previous_kept = true;
        }
        let bytes = Bytes::from(self.state.to_text(context.connection, &context.target.identity()));
        self.version = Some(context.store.save_if_unchanged(&path, bytes, self.version.as_ref()).await?);
        self.dirty = false;
        self.saved_at = Instant::now();
        Ok(())
    }
}
