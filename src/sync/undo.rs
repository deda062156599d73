//! Takes back what a run changed: sends the former content of its rows.
//!
//! A row is taken back only if the target still has what the run sent: by the fingerprint in the run's file of changes
//! and the one in the state. What changed again since, or whose former content nobody knows, is left out and named. It is
//! sent as a sync sends: under the lease, within the limits, announced in the state before and acknowledged after, with a
//! report and changes of its own, so that an undo can be undone. Rows that come back go in the order in which they were
//! changed, so that a group comes before what hangs below it; deletions go last, the other way round. The batches go one
//! after the other for that.
//!
//! Deliberately absent: a way to make it last. The source is the truth, and the next sync brings its values again.

use std::collections::HashSet;

use indexmap::IndexMap;
use serde::Serialize;

use super::checkpoint::Checkpoint;
use super::recorder::Recorder;
use super::{Outcome, Run, RunContext, Watch, archive, history};
use crate::budget::{Budget, interrupted};
use crate::changes::{ChangeAction, ChangeLine, RowChange};
use crate::error::Result;
use crate::plan::{Action, RowRef};
use crate::report::{Mode, Progress};
use crate::state::{Acknowledged, Fingerprint, State};
use crate::store::lease::Lease;
use crate::targets::Written;
use crate::targets::batch::{Batch, Builder, EntryKind, Room};
use crate::words::{phrase, say};

/// What an undo is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoRequest {
    /// The run whose changes are taken back.
    pub run_id: String,
    /// Send it; else it is only planned.
    pub send: bool,
    /// Delete rows that the run created.
    pub deletes: bool,
}

/// What an undo would do, or has done.
#[derive(Debug)]
pub struct Undone {
    /// The rows that go back, with their fields.
    pub changes: Vec<RowChange>,
    /// The rows that do not, each with the reason.
    pub left_out: Vec<LeftOut>,
    /// The run that sent them; `None` if it was only planned.
    pub outcome: Option<Outcome>,
}

/// A row that an undo leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The row.
    pub id: String,
    /// Its name, if it is known.
    pub name: String,
    /// Why.
    pub why: &'static str,
}

/// A row that goes back.
struct Back {
    change: RowChange,
    /// The row to send; `None` for a tombstone.
    content: Option<String>,
}

impl Back {
    fn action(&self) -> Action {
        match self.change.action {
            ChangeAction::Create => Action::Create,
            ChangeAction::Update => Action::Update,
            ChangeAction::Delete => Action::Delete,
        }
    }
}

#[derive(Default)]
struct UndoPlan {
    back: Vec<Back>,
    left_out: Vec<LeftOut>,
}

/// Plans an undo, and sends it if it is asked to. An error before the sending is an error of the command; later ones are
/// in the outcome.
pub(crate) async fn undo(
    context: &RunContext<'_>,
    request: &UndoRequest,
    budget: &Budget,
    watch: &Watch,
) -> Result<Undone> {
    let kept = Kept::load(context, request).await?;
    let mut run = Run::begin(context, watch);
    if !request.send {
        let checkpoint = Checkpoint::load(context).await?;
        let UndoPlan { back, left_out } = kept.plan(request.deletes, &checkpoint.state);
        return Ok(Undone {
            changes: back.into_iter().map(|row| row.change).collect(),
            left_out,
            outcome: None,
        });
    }
    let (budget, waits) = budget.with_waits();
    let mut undone = Undone { changes: Vec::new(), left_out: Vec::new(), outcome: None };
    let work = run.under_lease(&budget, async |run, budget, lease| {
        run.undo_under_lease(budget, lease, (kept, request.deletes), &mut undone).await
    });
    let result = waits.tell(watch, work).await;
    let Run { tally, start, .. } = run;
    undone.outcome = Some(archive::end(context, Mode::Undo, start, tally, result.err()).await);
    Ok(undone)
}

impl Run<'_> {
    async fn undo_under_lease(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        (kept, deletes): (Kept, bool),
        undone: &mut Undone,
    ) -> Result<()> {
        self.restore_limits(lease).await?;
        let mut checkpoint = Checkpoint::load(self.context).await?;
        checkpoint.bump_run_counter();
        let UndoPlan { back, left_out } = kept.plan(deletes, &checkpoint.state);
        undone.left_out = left_out;
        undone.changes = back.iter().map(|row| row.change.clone()).collect();
        for row in &back {
            match row.change.action {
                ChangeAction::Create => self.tally.plan.create += 1,
                ChangeAction::Update => self.tally.plan.update += 1,
                ChangeAction::Delete => self.tally.plan.delete += 1,
            }
        }
        (self.watch)(Progress::Planned(self.tally.plan.clone()));
        checkpoint.announce(back.iter().map(|row| (row.change.id.as_str(), row.action()))).await?;
        let former = std::mem::take(&mut checkpoint.former);
        let mut recorder = Recorder::new(self.context, &self.start.run_id, None, former);
        let sent = self.send_back(budget, lease, &back, (&mut checkpoint, &mut recorder)).await;
        let saved = checkpoint.save().await;
        self.tally.recorded = recorder.finish().await;
        saved.and(sent)
    }

    async fn send_back(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        back: &[Back],
        (checkpoint, recorder): (&mut Checkpoint<'_>, &mut Recorder<'_>),
    ) -> Result<()> {
        let target = self.context.target.reserving_in(lease);
        for (batch, rows) in self.batches(back, &checkpoint.state) {
            if budget.is_over() {
                return Err(interrupted(say!("the run's time is over or it was asked to stop")));
            }
            let mut written = Written::default();
            let sent = target.write(budget, batch, &mut written).await;
            checkpoint.acknowledge(&written, &mut self.tally);
            recorder.note(written, rows);
            recorder.work().await;
            let acknowledged = self.tally.written + self.tally.deleted;
            (self.watch)(Progress::Writing { acknowledged, planned: back.len() as u64 });
            sent?;
            checkpoint.save().await?;
        }
        Ok(())
    }

    /// The rows in batches, as a sync cuts them.
    fn batches(&self, back: &[Back], state: &State) -> Vec<(Batch, Vec<(RowRef, Action)>)> {
        let settings = self.context.settings;
        let wrap = self.context.target.wrap();
        let mut builder = Builder::new(wrap, settings.max_rows_per_batch, settings.max_bytes_per_batch);
        let (mut batches, mut rows) = (Vec::new(), Vec::new());
        for row in back {
            while self.push(&mut builder, row, state) == Room::None {
                batches.extend(builder.finish().map(|batch| (batch, std::mem::take(&mut rows))));
            }
            rows.push((RowRef::Gone, row.action()));
        }
        batches.extend(builder.finish().map(|batch| (batch, rows)));
        batches
    }

    fn push(&self, builder: &mut Builder, row: &Back, state: &State) -> Room {
        let id = row.change.id.as_str();
        let kind = match &row.content {
            None => EntryKind::Tombstone,
            Some(_) if state.tombstones.contains(id) => EntryKind::Revived,
            Some(_) => EntryKind::Row,
        };
        let pushed: Result<Room, std::convert::Infallible> = builder.push(id.into(), kind, |out| {
            match &row.content {
                Some(content) => out.extend_from_slice(content.as_bytes()),
                None => self.context.rows.write_tombstone(id, out),
            }
            Ok(())
        });
        match pushed {
            Ok(room) => room,
        }
    }
}

/// What is kept of the run.
struct Kept {
    lines: Vec<ChangeLine>,
    /// Rows that later runs changed, where it is not known what this one sent.
    changed_since: HashSet<String>,
}

impl Kept {
    async fn load(context: &RunContext<'_>, request: &UndoRequest) -> Result<Self> {
        let lines = history::changes_of(context, &request.run_id).await?;
        let has_unlisted = lines.iter().any(|line| !line.ids.is_empty());
        let changed_since = match has_unlisted && request.deletes {
            true => changed_since(context, &request.run_id).await?,
            false => HashSet::new(),
        };
        Ok(Self { lines, changed_since })
    }

    fn plan(self, deletes: bool, state: &State) -> UndoPlan {
        plan(self.lines, deletes, state, &self.changed_since)
    }
}

/// The rows that later runs changed: creations that have no line of their own carry no fingerprint.
async fn changed_since(context: &RunContext<'_>, run_id: &str) -> Result<HashSet<String>> {
    let mut ids = HashSet::new();
    for later in history::runs(context).await?.into_iter().take_while(|later| later.as_str() > run_id) {
        for line in history::changes_of(context, &later).await? {
            ids.insert(line.id);
            ids.extend(line.ids);
        }
    }
    Ok(ids)
}

fn plan(lines: Vec<ChangeLine>, deletes: bool, state: &State, changed_since: &HashSet<String>) -> UndoPlan {
    // A row has one line; of one that was answered for twice, the first knows what was, the last what was sent.
    let mut rows: IndexMap<String, ChangeLine> = IndexMap::new();
    let mut unlisted = Vec::new();
    for line in lines.into_iter().filter(ChangeLine::is_accepted) {
        if line.ids.is_empty() {
            let first = rows.swap_remove(&line.id);
            let was = first.map_or(line.was.clone(), |first| first.was);
            rows.insert(line.id.clone(), ChangeLine { was, ..line });
        } else {
            unlisted.extend(line.ids);
        }
    }
    let mut undo = UndoPlan::default();
    let mut created = Vec::new();
    for (id, line) in rows {
        match back(&line, deletes, state) {
            Ok(row) if row.change.action == ChangeAction::Delete => created.push(row),
            Ok(row) => undo.back.push(row),
            Err(why) => undo.left_out.push(LeftOut { id, name: line.name, why }),
        }
    }
    for id in unlisted {
        let why = match (deletes, state.rows.get(&id)) {
            (false, _) => CREATED,
            (true, Some(Acknowledged::Known(_))) if !changed_since.contains(&id) => {
                created.push(tombstone(id, String::new()));
                continue;
            }
            (true, _) => CHANGED_AGAIN,
        };
        undo.left_out.push(LeftOut { id, name: String::new(), why });
    }
    undo.back.extend(created.into_iter().rev());
    undo
}

const CREATED: &str = phrase!("the run created it; --deletes deletes it");
const CHANGED_AGAIN: &str = phrase!("it has changed again since");
const UNKNOWN: &str = phrase!("its former content is not known");

fn back(line: &ChangeLine, deletes: bool, state: &State) -> Result<Back, &'static str> {
    let now = state.rows.get(&line.id);
    let sent = line.sent.as_deref().and_then(Fingerprint::parse).map(Acknowledged::Known);
    if now != sent {
        return Err(CHANGED_AGAIN);
    }
    let action = match line.action {
        ChangeAction::Create if !deletes => return Err(CREATED),
        ChangeAction::Create => return Ok(tombstone(line.id.clone(), line.name.clone())),
        ChangeAction::Update => ChangeAction::Update,
        ChangeAction::Delete => ChangeAction::Create,
    };
    let was = line.was.as_ref().ok_or(UNKNOWN)?;
    let fields = line.fields.iter().map(crate::changes::FieldChange::reversed).collect();
    let change = RowChange { id: line.id.clone(), name: line.name.clone(), action, fields };
    Ok(Back { change, content: Some(was.text().to_owned()) })
}

fn tombstone(id: String, name: String) -> Back {
    Back { change: RowChange { id, name, action: ChangeAction::Delete, fields: Vec::new() }, content: None }
}
