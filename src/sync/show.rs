//! What a plan would change, field by field: from what the target has acknowledged, or from what it holds.

use std::collections::HashMap;

use serde_json::Value;

use super::ledger::{Contents, RowLedger};
use super::read::Decided;
use super::{Run, RunRequest};
use crate::budget::Budget;
use crate::catalogue::RecordId;
use crate::changes::{ChangeAction, FieldChange, RowChange};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::plan::diff::{self, Digits};
use crate::plan::{Action, Change, RowWriter, in_tree, name_of};
use crate::state::{Acknowledged, Fingerprint, State};
use crate::store::lease::Lease;
use crate::targets::{HeldRow, IDS_PER_CALL};
use crate::transform;
use crate::words::say;

/// Rows as the target holds them now; `None` for those that it does not hold.
type There = HashMap<RecordId, Option<String>>;

/// What is known of a row's former content.
enum Former<'a> {
    Known(Option<&'a str>),
    Unknown,
    /// As the target holds it, which may have fields of its own.
    AtTheTarget(Option<&'a str>),
}

impl Run<'_> {
    /// Leaves in the tally what the plan changes, of its first rows.
    pub(super) async fn show_changes(
        &mut self,
        request: &RunRequest,
        decided: &Decided,
        state: &State,
        target: Option<(&Budget, &Lease)>,
    ) -> Result<()> {
        let Decided { catalogue, plan, .. } = decided;
        let mut pending: Vec<Change<'_>> = plan.pending(catalogue).collect();
        pending.sort_by(|a, b| in_tree((a.row, a.id), (b.row, b.id)));
        self.tally.recorded.more = pending.len().saturating_sub(request.changes) as u64;
        pending.truncate(request.changes);
        let there = match target {
            Some((budget, lease)) => Some(self.ask_target(budget, lease, &pending).await?),
            None => None,
        };
        let acknowledged =
            if there.is_some() { Contents::new() } else { self.acknowledged(&pending, state).await };
        let former = self.former.clone();
        let former = former.as_deref().map(|former| former as &dyn transform::Former);
        let mut writer = RowWriter::new(self.context.rows, catalogue, former);
        let mut row = Vec::new();
        for change in pending {
            row.clear();
            let is_written =
                change.action != Action::Delete && writer.write(change.row, change.id, &mut row).is_ok();
            let new = std::str::from_utf8(&row).ok().filter(|_| is_written);
            let held = there.as_ref().map(|there| there.get(change.id).and_then(Option::as_deref));
            let known = acknowledged.get(change.id).and_then(|content| std::str::from_utf8(content).ok());
            let former = match (held, known, change.action) {
                (Some(held), ..) => Former::AtTheTarget(held),
                (None, Some(known), _) => Former::Known(Some(known)),
                (None, None, Action::Create) => Former::Known(None),
                (None, None, _) => Former::Unknown,
            };
            let name = name_of(change.row, catalogue);
            let old = held.flatten().or(known);
            let name = if name.is_empty() {
                old.and_then(|old| self.context.rows.name_in(old)).unwrap_or_default()
            } else {
                name
            };
            self.tally.recorded.shown.push(RowChange {
                id: change.id.to_owned(),
                name,
                action: action(change.action),
                fields: diff::bounded(fields(&former, new)),
            });
        }
        Ok(())
    }

    async fn acknowledged(&self, pending: &[Change<'_>], state: &State) -> Contents {
        let wanted: Vec<(&str, Fingerprint)> = pending
            .iter()
            .filter_map(|change| match state.rows.get(change.id)? {
                Acknowledged::Known(fingerprint) => Some((change.id, fingerprint)),
                Acknowledged::Unknown | Acknowledged::Unsure => None,
            })
            .collect();
        RowLedger::new(self.context).contents(&wanted).await
    }

    /// Asks the target for these rows, whatever it has acknowledged.
    async fn ask_target(&self, budget: &Budget, lease: &Lease, pending: &[Change<'_>]) -> Result<There> {
        let target = self.context.target.reserving_in(lease);
        let mut there = There::new();
        for some in pending.chunks(IDS_PER_CALL) {
            let ids: Vec<&str> = some.iter().map(|change| change.id).collect();
            let mut found = match target.rows_by_id(budget, &ids).await {
                Ok(found) => found,
                Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                    return self.ask_for_all(budget, lease, pending, error).await;
                }
                Err(error) => return Err(error),
            };
            for id in ids {
                let held = HeldRow::new(id.to_owned(), found.remove(id), true);
                there.insert(id.into(), held.content.as_ref().map(Value::to_string));
            }
        }
        Ok(there)
    }

    /// Of a target that answers all its rows at once.
    async fn ask_for_all(
        &self,
        budget: &Budget,
        lease: &Lease,
        pending: &[Change<'_>],
        single: Error,
    ) -> Result<There> {
        if self.context.target.is_read_in_pages() {
            let what = say!("{message}; its rows cannot be compared one by one", message = single.message);
            return Err(Error::new(ErrorKind::BadAnswer(Side::Target), what)
                .help(say!("plan without --from-target, or verify")));
        }
        let page =
            self.context.target.reserving_in(lease).page(budget, 1).await.map_err(|error| {
                match error.kind {
                    ErrorKind::BadPipeline => error.help(say!(
                        "set it to a GET address that lists the rows, or plan without --from-target"
                    )),
                    _ => error,
                }
            })?;
        let mut held: HashMap<String, Value> = page.rows.into_iter().collect();
        let of_row = |change: &Change<'_>| {
            let row = HeldRow::new(change.id.to_owned(), held.remove(change.id), true);
            (change.id.into(), row.content.as_ref().map(Value::to_string))
        };
        Ok(pending.iter().map(of_row).collect())
    }
}

fn action(action: Action) -> ChangeAction {
    match action {
        Action::Create => ChangeAction::Create,
        Action::Delete => ChangeAction::Delete,
        Action::Update | Action::Unchanged | Action::Skip => ChangeAction::Update,
    }
}

fn fields(former: &Former<'_>, new: Option<&str>) -> Vec<FieldChange> {
    match (former, new) {
        (Former::Known(old), new) => diff::diff(*old, new, Digits::Count),
        (Former::Unknown, new) => diff::over_unknown(new),
        (Former::AtTheTarget(Some(theirs)), Some(ours)) => diff::diff_with_target(theirs, ours),
        (Former::AtTheTarget(old), new) => diff::diff(*old, new, Digits::DoNotCount),
    }
}
