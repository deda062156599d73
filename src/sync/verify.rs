//! A verification: what the source holds against what the target reads back. It changes nothing at either.

use std::collections::HashMap;

use serde_json::Value;

use super::read::ReadFor;
use super::{Run, RunContext, Tally};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, id_order};
use crate::error::Result;
use crate::plan::{self, DiffKind, DiffLine, OnDelete, RowWriter};
use crate::report::Progress;
use crate::state::State;
use crate::store::lease::Lease;
use crate::store::paths;

impl Run<'_> {
    /// Reading back calls the target, so it takes its turn under the lease like a sync; it keeps nothing else.
    pub(super) async fn verify(&mut self, budget: &Budget) -> Result<()> {
        self.under_lease(budget, async |run, budget, lease| run.verify_under_lease(budget, lease).await).await
    }

    async fn verify_under_lease(&mut self, budget: &Budget, lease: &Lease) -> Result<()> {
        let context = self.context;
        self.restore_limits(lease).await?;
        // If the state belongs to another target there is nothing to compare.
        if let Some((bytes, _)) = context.store.load(&paths::state(context.connection)).await? {
            State::ensure_is_for(&bytes, context.connection, &context.target.identity())?;
        }
        let (catalogue, _) = self.read(budget, ReadFor::Comparison).await?;
        let theirs = self.read_back(budget, lease).await?;
        compare(context, catalogue, theirs, &mut self.tally);
        Ok(())
    }

    /// The target's rows by their ids.
    pub(super) async fn read_back(&self, budget: &Budget, lease: &Lease) -> Result<HashMap<String, Value>> {
        let (watch, target) = (self.watch, self.context.target.reserving_in(lease));
        target.read_back(budget, |read| watch(Progress::ReadingBack(read))).await
    }
}

fn compare(
    context: &RunContext<'_>,
    catalogue: Catalogue,
    mut theirs: HashMap<String, Value>,
    tally: &mut Tally,
) {
    let mut rows = RowWriter::new(context.rows, &catalogue);
    let mut ours = Vec::new();
    for row in plan::rows_in_tree(&catalogue, context.rows.unit()) {
        let id = row.id(&catalogue);
        ours.clear();
        if rows.write(row, id, &mut ours).is_err() {
            continue;
        }
        let (kind, why, count) = match theirs.remove(id) {
            None => (DiffKind::OnlySource, "missing at the target", &mut tally.plan.create),
            Some(their) if crate::targets::contains(&their, &ours) => {
                (DiffKind::Same, "", &mut tally.plan.unchanged)
            }
            Some(_) => (DiffKind::Differs, "differs", &mut tally.plan.update),
        };
        *count += 1;
        tally.lines.push(DiffLine::of(row, id, &catalogue, kind, why));
    }
    let misfits = rows.rejected;
    // Quarantined rows exist at the source: the target's row of that id is neither extra nor comparable.
    for id in &catalogue.quarantined_ids {
        if theirs.remove(id.as_str()).is_some() {
            let why = "in the quarantine, cannot be compared";
            tally.lines.push(DiffLine::of_target(id.as_str(), DiffKind::NotComparable, why));
        }
    }
    // With on_delete = "ignore" rows that the source no longer has stay at the target on purpose.
    if context.settings.on_delete == OnDelete::Tombstone {
        let mut extra: Vec<String> = theirs.into_keys().collect();
        extra.sort_unstable_by(|a, b| id_order(a, b));
        tally.plan.delete = extra.len() as u64;
        let line = |id| DiffLine::of_target(id, DiffKind::OnlyTarget, "extra at the target");
        tally.lines.extend(extra.into_iter().map(line));
    }
    tally.differences = tally.plan.create + tally.plan.update + tally.plan.delete;
    tally.rejected.extend(catalogue.rejected);
    tally.rejected.extend(misfits);
}
