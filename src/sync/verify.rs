//! The comparison of a verification: what the source says against what the target holds.

use std::collections::HashMap;

use serde_json::Value;

use super::{RunContext, Tally, render};
use crate::catalogue::Catalogue;
use crate::plan::{self, DiffLine, OnDelete, Plan};
use crate::transform::Renderer;

/// Compares what the source says with what the target holds.
pub(super) fn compare(
    context: &RunContext<'_>,
    catalogue: &Catalogue,
    plan: &Plan,
    mut theirs: HashMap<String, Value>,
    tally: &mut Tally,
) {
    let renderer = Renderer::new(context.rows, catalogue);
    let mut row = Vec::new();
    for change in plan.changes_in_tree(catalogue) {
        row.clear();
        // A row that cannot be written equals no row of the target.
        let _ = render(context.rows, &renderer, change, &mut row);
        let (mark, why, count) = match theirs.remove(change.id) {
            None => ('+', "missing at the target", &mut tally.plan.create),
            Some(their) if crate::targets::contains(&their, &row) => ('=', "", &mut tally.plan.unchanged),
            Some(_) => ('*', "differs", &mut tally.plan.update),
        };
        *count += 1;
        let (name, depth) = plan::describe(change.origin, catalogue);
        tally.lines.push(DiffLine { depth, mark, name, id: change.id.to_string(), why });
    }
    // Quarantined rows exist at the source: the target's row of that id is neither extra nor comparable.
    for held in &catalogue.held {
        if theirs.remove(held.as_str()).is_some() {
            tally.lines.push(DiffLine {
                depth: 0,
                mark: '!',
                name: String::new(),
                id: held.to_string(),
                why: "in the quarantine, cannot be compared",
            });
        }
    }
    // With on_delete = "ignore" rows that the source no longer has stay at the target on purpose.
    if context.on_delete == OnDelete::Tombstone {
        let mut extra: Vec<String> = theirs.into_keys().collect();
        extra.sort_unstable_by(|a, b| crate::catalogue::id_order(a, b));
        tally.plan.delete = extra.len() as u64;
        tally.lines.extend(extra.into_iter().map(|id| DiffLine {
            depth: 0,
            mark: '-',
            name: String::new(),
            id,
            why: "extra at the target",
        }));
    }
    tally.differences = tally.plan.create + tally.plan.update + tally.plan.delete;
}
