//! Asks both sides who we are, without a run: logs in, reads one row, and finds the scheme. Writes nothing to either side.

use super::{Run, RunContext};
use crate::budget::Budget;
use crate::error::Result;
use crate::okki::SourceTotals;

/// What the two sides said.
#[derive(Debug)]
pub(crate) struct Asked {
    pub source: Result<SourceTotals>,
    /// Rows that the target holds, where it says so.
    pub target: Result<Option<u64>>,
}

/// Asks the source, then the target: the latter by the rules of a run, since its account's limit counts every call.
pub(crate) async fn ask(context: &RunContext<'_>, budget: &Budget) -> Asked {
    let mut run = Run::begin(context, &|_| {});
    let source = context.okki.totals(budget, context.rows).await;
    let target = run
        .under_lease(budget, async |run, budget, lease| {
            run.restore_limits(lease).await?;
            let page = run.context.target.reserving_in(lease).page(budget, 1).await?;
            Ok(page.total.or(page.is_only.then_some(page.length)))
        })
        .await;
    Asked { source, target }
}
