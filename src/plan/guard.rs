//! The guard against a source that lost its rows: a source that answers with little is more often broken than emptied.

use super::Plan;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind, Result};
use crate::state::State;
use crate::testing::Mutant;
use crate::transform::{RowMap, RowUnit};
use crate::words::{Message, say};

/// Deleting this many rows or fewer is never refused: small catalogues change by large ratios.
const MIN_DELETES: u64 = 10;

/// How much a plan may delete.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DeleteGuard {
    /// A plan that deletes a larger share of the known rows is refused.
    pub max_delete_ratio: f64,
    /// Lifted for this run.
    pub lifted: bool,
}

impl DeleteGuard {
    fn is_too_much(self, gone: u64, of: u64) -> bool {
        gone > MIN_DELETES && ratio(gone, of) > self.max_delete_ratio
    }
}

/// What a read found, for the guard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceSummary {
    /// Whether it found no row at all of the kind that the target holds.
    pub nothing: bool,
    /// Whether it found rows that cannot go through.
    pub offenders: bool,
    /// Number of products, where they are items inside the target's rows.
    pub items: Option<u64>,
}

impl SourceSummary {
    pub(crate) fn of(catalogue: &Catalogue, map: &RowMap) -> Self {
        let products = catalogue.product_count() as u64;
        let (rows, items) = match map.unit() {
            RowUnit::Group => (catalogue.groups.len() as u64, map.uses_products().then_some(products)),
            RowUnit::Product => (products, None),
        };
        Self { nothing: rows == 0, offenders: !catalogue.rejected.is_empty(), items }
    }
}

impl Plan {
    /// Refuses a plan that takes away too much.
    pub(crate) fn check(&self, state: &State, found: &SourceSummary, guard: DeleteGuard) -> Result<()> {
        let is_lifted = guard.lifted || Mutant::LiftTheGuard.is_active();
        let refusal = if is_lifted { None } else { self.refusal(state, found, guard) };
        refusal.map_or(Ok(()), |what| {
            Err(Error::new(ErrorKind::GuardRefused, say!("{what}; nothing was written", what)).help(
                say!("if that is right, allow it once with --allow-mass-delete (event: \"allow_mass_delete\": true)"),
            ))
        })
    }

    fn refusal(&self, state: &State, found: &SourceSummary, guard: DeleteGuard) -> Option<Message> {
        let known = state.rows.len() as u64;
        // Rows that only lost their ids or names are offenders, and would be deleted as if they were gone.
        if found.nothing && known > 0 && (!found.offenders || self.counts.delete > 0) {
            return Some(say!(
                "the source answered no row that can go through, the target holds {known}",
                known
            ));
        }
        let allowed = guard.max_delete_ratio * 100.0;
        if let (Some(before), Some(now)) = (state.source_products, found.items) {
            let lost = before.saturating_sub(now);
            if (now == 0 && before > 0) || guard.is_too_much(lost, before) {
                return Some(say!(
                    "the source answered {now} products, the last complete run saw {before} ({percent} % fewer), guard.max_delete_ratio allows {allowed} %",
                    now,
                    before,
                    percent = format!("{:.0}", ratio(lost, before) * 100.0),
                    allowed = format!("{allowed:.0}")
                ));
            }
        }
        let deletes = self.counts.delete;
        guard.is_too_much(deletes, known).then(|| {
            say!(
                "the plan deletes {deletes} of {known} rows ({percent} %), guard.max_delete_ratio allows {allowed} %",
                deletes,
                known,
                percent = format!("{:.0}", ratio(deletes, known) * 100.0),
                allowed = format!("{allowed:.0}"),
            )
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52, where f64 is exact")]
fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PlanCounts;
    use crate::state::Acknowledged;

    /// What the guard says of a plan that deletes `delete` of `known` rows.
    fn check(known: usize, delete: u64, before: Option<u64>, found: SourceSummary) -> Result<()> {
        let mut state = State { source_products: before, ..State::default() };
        for id in 0..known {
            state.rows.insert(&id.to_string(), Acknowledged::Unsure);
        }
        let plan = Plan { counts: PlanCounts { delete, ..PlanCounts::default() }, ..Plan::default() };
        let lifted = DeleteGuard { max_delete_ratio: 0.0, lifted: true };
        assert_eq!(plan.check(&state, &found, lifted), Ok(()));
        plan.check(&state, &found, DeleteGuard { max_delete_ratio: 0.2, lifted: false })
    }

    #[test]
    fn a_plan_is_refused_that_deletes_many_rows_and_a_large_share() {
        let rows = SourceSummary { nothing: false, offenders: false, items: None };
        let nothing = SourceSummary { nothing: true, ..rows };
        let items = |n| SourceSummary { items: Some(n), ..rows };
        for (known, delete, before, found, refused) in [
            (100, 20, None, rows, false),
            (100, 21, None, rows, true),
            // Small catalogues change by large ratios.
            (10, 10, None, rows, false),
            (11, 11, None, rows, true),
            // An empty source, whether it would be deleted or ignored.
            (1, 0, None, nothing, true),
            (0, 0, None, nothing, false),
            (1, 0, None, SourceSummary { offenders: true, ..nothing }, false),
            (1, 1, None, SourceSummary { offenders: true, ..nothing }, true),
            // Products that are items of rows: no row is deleted, and yet they are gone.
            (5, 0, Some(100), items(80), false),
            (5, 0, Some(100), items(79), true),
            (5, 0, Some(9), items(0), true),
            (5, 0, None, items(0), false),
        ] {
            let checked = check(known, delete, before, found);
            assert_eq!(checked.is_err(), refused, "{known} {delete} {before:?} {found:?}");
        }
    }
}
