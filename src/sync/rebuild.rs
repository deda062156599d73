//! Rebuilds the state from what the target holds, where it was lost, damaged, or belongs to another target.

use bytes::Bytes;

use super::ledger::RowLedger;
use super::verify::{Comparison, Held, ReadBack};
use super::{NO_FORMER, Run, RunContext, Watch};
use crate::budget::Budget;
use crate::error::Result;
use crate::ledger::Builder;
use crate::plan;
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
        let (stored, version) = context.store.load(&path).await?.unzip();
        // The damaged or lost state cannot say what a sync wrote since, so older rows are of no use.
        let read_back = ReadBack::load(context, stored.as_deref()).await;
        let mut read_back = read_back.without_stale_rows(context, stored.as_deref());
        let catalogue = self.read_both(budget, lease, &mut read_back).await?;
        let rows = plan::rows(&catalogue, context.rows.unit()).collect();
        let compared =
            self.compare(budget, lease, &mut read_back, (&catalogue, rows), (None, NO_FORMER)).await?;
        let mut contents = Builder::default();
        let (mut state, found) = acknowledge(compared, extras, &mut contents);
        // The next run's guard compares with what the source holds now.
        state.source_products = Some(self.tally.source.products);
        // What somebody has silenced stays so, if the stored state can still say it.
        let dismissed = stored.as_deref().map(|bytes| State::dismissed_in(bytes, context.connection));
        state.dismissed = dismissed.and_then(Result::ok).unwrap_or_default();

        if version.is_some() {
            context.store.copy(&path, &paths::previous_state(context.connection)).await?;
        }
        let text = state.to_text(context.connection, &context.target.identity());
        context.store.save_if_unchanged(&path, Bytes::from(text), version.as_ref()).await?;
        RowLedger::new(context).replace(&contents.finish()).await;
        read_back.clear(context).await;
        Ok(found)
    }
}

/// The state that says what the target was found to hold, and the content of the rows that are as they should be.
fn acknowledge(mut compared: Comparison<'_>, extras: Extras, contents: &mut Builder) -> (State, Rebuilt) {
    let mut state = State::default();
    let mut found = Rebuilt { extra_owned: extras == Extras::Own, ..Rebuilt::default() };
    let rows: Vec<_> = compared.rows().collect();
    for (row, id, held) in rows {
        let (count, content) = match held {
            Held::Missing => {
                found.missing += 1;
                continue;
            }
            Held::Same => {
                let content = compared.content(row, id);
                contents.add(id, content);
                (&mut found.same, Acknowledged::Known(Fingerprint::of(content)))
            }
            Held::Differs => (&mut found.differing, other_content()),
        };
        *count += 1;
        state.rows.insert(id, content);
    }
    state.tombstones = compared.tombstones.iter().map(|id| id.as_str().into()).collect();
    let (quarantined, extra) = compared.into_extras();
    found.extra = extra.len() as u64;
    let owned = extra.iter().filter(|_| extras == Extras::Own);
    // Rows in the quarantine are the source's too.
    state.rows.extend(quarantined.iter().chain(owned).map(|id| (id.as_str(), other_content())));
    (state, found)
}

/// A row that the target has with other content. Its fingerprint can never equal one of ours, because ours are hashes of
/// JSON objects.
fn other_content() -> Acknowledged {
    Acknowledged::Known(Fingerprint::of(b"theirs"))
}
