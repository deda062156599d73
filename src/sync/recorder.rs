//! Keeps what a run changed: the new content in the row ledger, and old and new values in the run's file of changes.
//!
//! Goal: nobody who asks what a run did, or what a row was before, is told something that the target did not acknowledge.
//! Rows come here with their acknowledgement, as the bytes that were sent. Their former content comes from the ledger, by
//! the fingerprint that the state had before the run noted its intent.
//!
//! - **A killed run** loses at most [`SAVE_EVERY`] of this: the rows are known as acknowledged and their content is not.
//!   After a kill it shows as unknown until the row is sent again. Saving after each batch, as the state is, would double
//!   the calls to the store.
//! - **The store takes its time**, and batches are under way. Their calls are reserved to the second, so no call waits here:
//!   the work is a future of its own that goes on beside them ([`Recorder::work`]). What needs nothing of the store is
//!   taken in at once: answers come faster than anybody asks for the work, and each holds its whole body. Where many wait
//!   all the same, the next batch waits too, before its call is reserved ([`Recorder::is_behind`]).
//! - **A row that the target refused** keeps its former content; its line says what the target answered.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::time::Instant;

use super::RunContext;
use super::ledger::{Contents, RowLedger};
use crate::catalogue::{Catalogue, RecordId};
use crate::changes::{ACCEPTED, ChangeAction, ChangeLine, ChangesWriter, Json, RowChange};
use crate::ledger::Builder;
use crate::plan::diff::{self, Digits};
use crate::plan::{Action, RowRef, name_of};
use crate::state::Fingerprint;
use crate::store::paths;
use crate::targets::Written;
use crate::targets::batch::Entry;
use crate::words::written;

/// Ledger and changes are saved this often while batches go out: a run of 15 minutes makes 30 saves, of what is new.
const SAVE_EVERY: Duration = Duration::from_secs(30);
/// Answers that wait to be taken in, at most, while further batches begin.
const MOST_WAITING: usize = 16;
/// Changed rows that a run shows to people.
const SHOWN_ROWS: usize = 100;

/// A batch that was answered: its rows as it was cut, and what was to be done with them.
type Answer = (Written, Vec<(RowRef, Action)>);

/// Takes in what a run changes, beside its batches.
pub(super) struct Recorder<'a> {
    /// `None` while it works.
    record: Option<Box<Record<'a>>>,
    work: Option<BoxFuture<'a, Box<Record<'a>>>>,
    waiting: Vec<Answer>,
}

impl<'a> Recorder<'a> {
    /// `catalogue` knows the names of rows, `former` what was acknowledged before the run.
    pub(super) fn new(
        context: &'a RunContext<'a>,
        run_id: &str,
        catalogue: Option<&'a Catalogue>,
        former: HashMap<RecordId, Fingerprint>,
    ) -> Self {
        let record = Box::new(Record::new(context, run_id, catalogue, former));
        Self { record: Some(record), work: None, waiting: Vec::new() }
    }

    /// Notes what became of a batch.
    pub(super) fn note(&mut self, written: Written, rows: Vec<(RowRef, Action)>) {
        match &mut self.record {
            Some(record) if self.waiting.is_empty() && record.asks_nothing_of(&written) => {
                record.take_batch(&written, &rows, &Contents::new());
            }
            _ => self.waiting.push((written, rows)),
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.has_answers() || self.record.as_ref().is_some_and(|record| record.is_save_due())
    }

    fn has_answers(&self) -> bool {
        self.work.is_some() || !self.waiting.is_empty()
    }

    /// Whether so much waits that the next batch should: each answer that was not taken in holds its body.
    pub(super) fn is_behind(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// Takes in what was noted. A caller that stops waiting loses nothing: the work goes on when it is asked for again.
    pub(super) async fn work(&mut self) {
        if let Some(mut record) = self.record.take() {
            let answers = std::mem::take(&mut self.waiting);
            let work = async move {
                record.take_in(answers).await;
                record
            };
            self.work = Some(work.boxed());
        }
        if let Some(work) = &mut self.work {
            self.record = Some(work.await);
            self.work = None;
        }
    }

    /// The writing has ended: saves the ledger; the file of changes goes with the report.
    pub(super) async fn finish(mut self) -> Recorded {
        while self.has_answers() {
            self.work().await;
        }
        match self.record {
            Some(record) => record.finish().await,
            None => Recorded::default(),
        }
    }
}

/// What a run changed, so far.
struct Record<'a> {
    context: &'a RunContext<'a>,
    run_id: String,
    ledger: RowLedger<'a>,
    /// Rows that the ledger does not have yet.
    rows: Builder,
    changes: Option<ChangesWriter>,
    catalogue: Option<&'a Catalogue>,
    /// What was acknowledged before the run.
    former: HashMap<RecordId, Fingerprint>,
    saved_at: Instant,
    /// Whether nothing came since the last save.
    is_saved: bool,
    shown: Vec<RowChange>,
    more: u64,
}

/// What a run leaves to its archive.
#[derive(Default)]
pub(super) struct Recorded {
    /// The file of changes; `None` if nothing changed.
    pub file: Option<Vec<u8>>,
    /// The first rows that changed, for people.
    pub shown: Vec<RowChange>,
    /// How many more did.
    pub more: u64,
}

/// All rows that a batch was answered for.
fn entries(written: &Written) -> impl Iterator<Item = &Entry> {
    let taken = written.acknowledged.iter().flat_map(|batch| &batch.entries);
    taken.chain(written.refused.iter().map(|row| &row.entry))
}

/// A row as it was answered for.
struct Answered<'r> {
    id: &'r str,
    new: Option<&'r [u8]>,
    refused: Option<&'r str>,
    name: String,
    action: Action,
}

impl<'a> Record<'a> {
    fn new(
        context: &'a RunContext<'a>,
        run_id: &str,
        catalogue: Option<&'a Catalogue>,
        former: HashMap<RecordId, Fingerprint>,
    ) -> Self {
        Self {
            context,
            run_id: run_id.to_owned(),
            ledger: RowLedger::new(context),
            rows: Builder::default(),
            changes: ChangesWriter::new(context.connection, run_id).ok(),
            catalogue,
            former,
            saved_at: Instant::now(),
            is_saved: true,
            shown: Vec::new(),
            more: 0,
        }
    }

    async fn take_in(&mut self, answers: Vec<Answer>) {
        for (written, rows) in answers {
            let contents = self.former_contents(&written).await;
            self.take_batch(&written, &rows, &contents);
        }
        if self.is_save_due() {
            self.save().await;
        }
    }

    fn is_save_due(&self) -> bool {
        !self.is_saved && self.saved_at.elapsed() >= SAVE_EVERY
    }

    /// Whether the ledger need not be asked for former rows: none of these was there.
    fn asks_nothing_of(&self, written: &Written) -> bool {
        self.former.is_empty() || !entries(written).any(|entry| self.former.contains_key(&entry.id))
    }

    async fn former_contents(&mut self, written: &Written) -> Contents {
        let wanted =
            entries(written).filter_map(|entry| Some((entry.id.as_str(), *self.former.get(&entry.id)?)));
        let wanted: Vec<(&str, Fingerprint)> = wanted.collect();
        self.ledger.contents(&wanted).await
    }

    fn take_batch(&mut self, written: &Written, rows: &[(RowRef, Action)], contents: &Contents) {
        self.is_saved = false;
        let catalogue = self.catalogue;
        let at = self.now();
        let planned =
            |order: u32| rows.get(order as usize).copied().unwrap_or((RowRef::Gone, Action::Update));
        let name = |row: RowRef| catalogue.map(|catalogue| name_of(row, catalogue)).unwrap_or_default();
        let taken = written
            .acknowledged
            .iter()
            .flat_map(|batch| batch.entries.iter().map(move |entry| (batch, entry)));
        for (batch, entry) in taken {
            let row = batch.made(entry);
            let new = entry.fingerprint.is_some().then_some(row.as_ref());
            match new {
                Some(content) => self.rows.add(&entry.id, content),
                None => self.rows.forget(&entry.id),
            }
            let (row, action) = planned(entry.order);
            if action == Action::Create && !self.lists_creations() {
                self.more += 1;
                self.changes.iter_mut().for_each(|changes| changes.add_created(&entry.id, &at));
                continue;
            }
            let row = Answered { id: &entry.id, new, refused: None, name: name(row), action };
            self.row(row, contents.get(&entry.id).map(AsRef::as_ref), entry.fingerprint, &at);
        }
        for refused in &written.refused {
            let (entry, raw) = (&refused.entry, refused.rejected.raw.get());
            let new = entry.fingerprint.is_some().then_some(raw.as_bytes());
            let (row, action) = planned(entry.order);
            let row =
                Answered { id: &entry.id, new, refused: Some(&refused.reason), name: name(row), action };
            self.row(row, contents.get(&entry.id).map(AsRef::as_ref), None, &at);
        }
    }

    fn lists_creations(&self) -> bool {
        self.changes.as_ref().is_some_and(ChangesWriter::lists_creations)
    }

    fn row(&mut self, row: Answered<'_>, old: Option<&[u8]>, sent: Option<Fingerprint>, at: &str) {
        let action = match (row.action, row.new) {
            (_, None) => ChangeAction::Delete,
            (Action::Create, Some(_)) => ChangeAction::Create,
            (_, Some(_)) => ChangeAction::Update,
        };
        let [old, new] = [old, row.new].map(|text| text.and_then(|text| std::str::from_utf8(text).ok()));
        let fields = match (action, old) {
            // The ledger has the content of a row that was created.
            (ChangeAction::Create, _) if row.refused.is_none() => Vec::new(),
            (ChangeAction::Create, _) => diff::diff(None, new, Digits::Count),
            (_, Some(old)) => diff::diff(Some(old), new, Digits::Count),
            (_, None) => diff::over_unknown(new),
        };
        let name = if row.name.is_empty() { self.name_in(old.or(new)) } else { row.name };
        let line = ChangeLine {
            id: row.id.to_owned(),
            name,
            action,
            at: at.to_owned(),
            fields: diff::bounded(fields),
            answer: row.refused.map_or_else(|| ACCEPTED.to_owned(), |said| written!("refused: {said}", said)),
            was: old.filter(|_| row.refused.is_none()).and_then(Json::parse),
            sent: sent.map(Fingerprint::text),
            ids: Vec::new(),
        };
        if row.refused.is_none() {
            self.show(&line, new);
        }
        self.changes.iter_mut().for_each(|changes| changes.add(&line));
    }

    /// The name that the row itself has, as the pipeline writes it.
    fn name_in(&self, row: Option<&str>) -> String {
        row.and_then(|row| self.context.rows.name_in(row)).unwrap_or_default()
    }

    fn show(&mut self, line: &ChangeLine, new: Option<&str>) {
        if self.shown.len() >= SHOWN_ROWS {
            self.more += 1;
            return;
        }
        let fields = match line.action {
            ChangeAction::Create => diff::bounded(diff::diff(None, new, Digits::Count)),
            _ => line.fields.clone(),
        };
        self.shown.push(RowChange {
            id: line.id.clone(),
            name: line.name.clone(),
            action: line.action,
            fields,
        });
    }

    fn now(&self) -> String {
        format!("{:.3}", self.context.clock.now())
    }

    async fn save(&mut self) {
        (self.saved_at, self.is_saved) = (Instant::now(), true);
        self.ledger.add(self.rows.finish()).await;
        let at = self.now();
        let Some(file) = self.changes.as_mut().and_then(|changes| changes.file(&at)) else { return };
        let path = paths::changes(self.context.connection, &self.run_id);
        if let Err(error) = self.context.store.put(&path, file).await {
            tracing::warn!(error = %error.line(), "the changes of this run cannot be kept yet");
        }
    }

    async fn finish(mut self: Box<Self>) -> Recorded {
        self.ledger.add(self.rows.finish()).await;
        let at = self.now();
        let file = self.changes.take().and_then(|changes| changes.finish(&at));
        Recorded { file, shown: self.shown, more: self.more }
    }
}
