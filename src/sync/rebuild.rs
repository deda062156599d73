//! Rebuilds the state from what the target holds, where it was lost, damaged, or belongs to another target.

use bytes::Bytes;
use serde_json::Value;

use super::read::ReadFor;
use super::{Run, RunContext, Watch};
use crate::budget::Budget;
use crate::error::Result;
use crate::plan::{self, RowWriter};
use crate::state::{Acknowledged, Fingerprint, State};
use crate::store::lease::Lease;
use crate::store::paths;

/// What happens to rows that only the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    /// They stay out of the state: no sync deletes them.
    Leave,
    /// They become part of the state: the next sync deletes them.
    Own,
}

/// What a rebuild found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// Rows that the target holds as the source has them: acknowledged.
    pub same: u64,
    /// Rows that it holds with other content: the next sync updates them.
    pub differing: u64,
    /// Rows of the source that it does not hold: the next sync creates them.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Whether the extra rows are part of the state: then the next sync deletes them.
    pub extra_owned: bool,
}

/// Rebuilds the state of a connection from its target.
pub(crate) async fn rebuild(
    context: &RunContext<'_>,
    budget: &Budget,
    watch: &Watch,
    extras: Extras,
) -> Result<Rebuilt> {
    let mut run = Run::begin(context, watch);
    let (budget, waits) = budget.with_waits();
    let work = run.under_lease(&budget, async |run, budget, lease| {
        run.rebuild_under_lease(budget, lease, extras).await
    });
    waits.tell(watch, work).await
}

impl Run<'_> {
    async fn rebuild_under_lease(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        extras: Extras,
    ) -> Result<Rebuilt> {
        let context = self.context;
        self.restore_limits(lease).await?;
        let path = paths::state(context.connection);
        // The stored state is kept as `.previous`, readable or not.
        let version = context.store.load(&path).await?.map(|(_, version)| version);
        let (catalogue, _) = self.read(budget, ReadFor::Comparison).await?;
        let mut theirs = self.read_back(budget, lease).await?;

        let mut rows = RowWriter::new(context.rows, &catalogue);
        let (mut state, mut ours) = (State::default(), Vec::new());
        let mut found = Rebuilt { extra_owned: extras == Extras::Own, ..Rebuilt::default() };
        for row in plan::rows(&catalogue, context.rows.unit()) {
            let id = row.id(&catalogue);
            ours.clear();
            if rows.write(row, id, &mut ours).is_err() {
                continue;
            }
            let Some(their) = theirs.remove(id) else {
                found.missing += 1;
                continue;
            };
            let is_same = crate::targets::contains(&their, &ours);
            *(if is_same { &mut found.same } else { &mut found.differing }) += 1;
            let content =
                if is_same { Acknowledged::Known(Fingerprint::of(&ours)) } else { other_content(&their) };
            state.rows.insert(id, content);
        }
        // Rows in the quarantine are the source's too.
        for id in &catalogue.quarantined_ids {
            if let Some(their) = theirs.remove(id.as_str()) {
                state.rows.insert(id, other_content(&their));
            }
        }
        found.extra = theirs.len() as u64;
        if extras == Extras::Own {
            state.rows.extend(theirs.iter().map(|(id, their)| (id.as_str(), other_content(their))));
        }

        if version.is_some() {
            context.store.copy(&path, &paths::previous_state(context.connection)).await?;
        }
        let text = state.to_text(context.connection, &context.target.identity());
        context.store.save_if_unchanged(&path, Bytes::from(text), version.as_ref()).await?;
        Ok(found)
    }
}

/// Fingerprint for a row the target has with different content. It can never equal one of ours, because ours are hashes
/// of JSON objects.
fn other_content(their: &Value) -> Acknowledged {
    Acknowledged::Known(Fingerprint::of(format!("theirs {their}").as_bytes()))
}
