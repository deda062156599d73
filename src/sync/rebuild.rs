//! Makes the state anew from what the target holds, where it was lost, damaged, or belongs to another target.

use bytes::Bytes;

use super::{Run, RunContext, render};
use crate::budget::Budget;
use crate::error::Result;
use crate::plan::{OnDelete, Plan};
use crate::state::{self, Fingerprint, State};
use crate::store::lease::Lease;
use crate::transform::Renderer;

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
    /// Whether the extra rows count as ours: then the next sync deletes them.
    pub extra_owned: bool,
}

impl Run<'_> {
    /// Rebuilds under the lease.
    pub(super) async fn rebuild(&mut self, budget: &Budget, own_extra: bool) -> Result<Rebuilt> {
        self.under_lease(budget, async |run, budget, lease| {
            run.rebuild_under_lease(budget, lease, own_extra).await
        })
        .await
    }

    async fn rebuild_under_lease(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        own_extra: bool,
    ) -> Result<Rebuilt> {
        let context = self.context;
        self.remember_limits(lease).await?;
        let path = state::path(context.connection);
        // Whatever is there, readable or not, is kept beside.
        let version = context.store.load(&path).await?.map(|(_, version)| version);
        let catalogue = self.read(budget, None).await?;
        let plan = Plan::new(context.rows, &catalogue, &State::default(), OnDelete::Ignore);
        let watch = self.watch;
        let mut theirs = context
            .target
            .reserving_in(lease)
            .read_back(budget, |read| watch(super::Progress::ReadingBack(read)))
            .await?;

        let renderer = Renderer::new(context.rows, &catalogue);
        let (mut state, mut found, mut row) = (State::default(), Rebuilt::default(), Vec::new());
        found.extra_owned = own_extra;
        for change in plan.changes(&catalogue) {
            row.clear();
            // A row that cannot be written equals no row of the target.
            let _ = render(context.rows, &renderer, change, &mut row);
            let Some(their) = theirs.remove(change.id) else {
                found.missing += 1;
                continue;
            };
            let same = crate::targets::contains(&their, &row);
            *(if same { &mut found.same } else { &mut found.differing }) += 1;
            let fingerprint = if same { Fingerprint::of(&row) } else { of_theirs(&their) };
            state.rows.insert(change.id, fingerprint);
        }
        // Rows in the quarantine are the source's too.
        for held in &catalogue.held {
            if let Some(their) = theirs.remove(held.as_str()) {
                state.rows.insert(held, of_theirs(&their));
            }
        }
        found.extra = theirs.len() as u64;
        if own_extra {
            state.rows.extend(theirs.iter().map(|(id, their)| (id.as_str(), of_theirs(their))));
        }

        if version.is_some() {
            context.store.copy(&path, &state::previous_path(context.connection)).await?;
        }
        let text = state.to_text(context.connection, &context.target.identity());
        context.store.save_if_unchanged(&path, Bytes::from(text), version.as_ref()).await?;
        Ok(found)
    }
}

/// Of a row that is there with other content: it equals no row of ours, whose bytes are never a JSON value of this form.
fn of_theirs(their: &serde_json::Value) -> Fingerprint {
    Fingerprint::of(format!("theirs {their}").as_bytes())
}

/// Rebuilds the state of a connection from its target.
pub(crate) async fn rebuild(
    context: &RunContext<'_>,
    budget: &Budget,
    watch: &super::Watch,
    own_extra: bool,
) -> Result<Rebuilt> {
    let request =
        super::Request { mode: super::Mode::Verify, full: false, allow_mass_delete: false, deadline: None };
    context.okki.start_run();
    context.target.start_run();
    let (budget, waits) = budget.with_waits();
    waits.tell(watch, Run::new(context, &request, watch).rebuild(&budget, own_extra)).await
}
