//! A verification: what the source holds against what the target reads back. It changes nothing at either.

mod compare;
mod read_back;

use super::{Run, RunContext, Tally};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::changes::{ChangeAction, RowChange};
use crate::error::Result;
use crate::plan::{self, DiffKind, DiffLine, OnDelete};
use crate::state::State;
use crate::store::lease::Lease;
use crate::store::paths;
use crate::transform::Former;
use crate::words::phrase;
pub(super) use compare::{Comparison, Held};
pub(super) use read_back::ReadBack;

impl Run<'_> {
    /// Reading back calls the target, so it takes its turn under the lease like a sync; of its own it keeps nothing but
    /// how far it has read.
    pub(super) async fn verify(&mut self, budget: &Budget, changes: usize) -> Result<()> {
        self.under_lease(budget, async |run, budget, lease| {
            run.verify_under_lease(budget, lease, changes).await
        })
        .await
    }

    async fn verify_under_lease(&mut self, budget: &Budget, lease: &Lease, changes: usize) -> Result<()> {
        let context = self.context;
        self.restore_limits(lease).await?;
        let stored = context.store.load(&paths::state(context.connection)).await?.map(|(bytes, _)| bytes);
        // If the state belongs to another target there is nothing to compare.
        if let Some(bytes) = &stored {
            State::ensure_is_for(bytes, context.connection, &context.target.identity())?;
        }
        if let Some(bytes) = &stored {
            self.tally.dismissed = State::dismissed_in(bytes, context.connection)?;
        }
        let mut read_back = ReadBack::load(context, stored.as_deref()).await;
        let mut catalogue = self.read_both(budget, lease, &mut read_back).await?;
        let state = match stored.filter(|_| read_back.has_stale_rows() || context.rows.has_guards()) {
            Some(bytes) => Some(State::from_bytes(&bytes, context.connection, &context.target.identity())?),
            None => None,
        };
        // What a value guard holds back is set aside on purpose: it is no difference.
        if let Some(state) = state.as_ref().filter(|_| context.rows.has_guards()) {
            self.load_former_of(&catalogue, state).await;
        }
        let former = self.former.clone();
        let former = former.as_deref().map(|former| former as &dyn Former);
        let rejected = std::mem::take(&mut catalogue.rejected);
        let rows = plan::rows_in_tree(&catalogue, context.rows.unit());
        let compared =
            self.compare(budget, lease, &mut read_back, (&catalogue, rows), (state.as_ref(), former)).await?;
        self.tally.rejected.extend(rejected);
        show(&compared, &catalogue, changes, &mut self.tally);
        tell(context, compared, &catalogue, &mut self.tally);
        read_back.clear(context).await;
        Ok(())
    }
}

/// Both sides' values of the rows that differ: `old` is the target's, `new` the source's.
fn show(compared: &Comparison<'_>, catalogue: &Catalogue, most: usize, tally: &mut Tally) {
    for (row, id, _) in compared.rows().filter(|(_, _, held)| *held == Held::Differs) {
        let Some(fields) = compared.differing.get(id).filter(|_| tally.recorded.shown.len() < most) else {
            tally.recorded.more += 1;
            continue;
        };
        tally.recorded.shown.push(RowChange {
            id: id.to_owned(),
            name: plan::name_of(row, catalogue),
            action: ChangeAction::Update,
            fields: fields.clone(),
        });
    }
}

fn tell(context: &RunContext<'_>, mut compared: Comparison<'_>, catalogue: &Catalogue, tally: &mut Tally) {
    for (row, id, held) in compared.rows() {
        let (kind, why, count) = match held {
            Held::Missing => (DiffKind::OnlySource, phrase!("missing at the target"), &mut tally.plan.create),
            Held::Same => (DiffKind::Same, "", &mut tally.plan.unchanged),
            Held::Differs => (DiffKind::Differs, phrase!("differs"), &mut tally.plan.update),
        };
        *count += 1;
        tally.lines.push(DiffLine::of(row, id, catalogue, kind, why));
    }
    tally.rejected.append(&mut compared.rejected);
    // Quarantined rows exist at the source: the target's row of that id is neither extra nor comparable.
    let (quarantined, extra) = compared.into_extras();
    let why = phrase!("in the quarantine, cannot be compared");
    let lines = quarantined.into_iter().map(|id| DiffLine::of_target(id, DiffKind::NotComparable, why));
    tally.lines.extend(lines);
    // With on_delete = "ignore" rows that the source no longer has stay at the target on purpose.
    if context.settings.on_delete == OnDelete::Tombstone {
        tally.plan.delete = extra.len() as u64;
        let line = |id| DiffLine::of_target(id, DiffKind::OnlyTarget, phrase!("extra at the target"));
        tally.lines.extend(extra.into_iter().map(line));
    }
    tally.differences = tally.plan.create + tally.plan.update + tally.plan.delete;
}
