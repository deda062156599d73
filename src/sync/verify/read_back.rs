//! Reads the target back over as many runs as it takes.
//!
//! Qeasy answers 100 rows a call and takes 50 calls a minute: a quarter of an hour holds 75,000 rows. So what was read
//! is kept in the store ([`HeldRows`]): when the run ends before the read does, and every two minutes for a run that is
//! killed. The next verification or rebuild goes on from there.
//!
//! The target is read before the source: the source then is as new as it can be when the two are compared, and its
//! pages are not read in vain by runs that end before the target's. Deliberately absent: starting anew because a sync
//! wrote in between. On a large target there would be no end to it. The rows that may have changed are asked for again by
//! their ids ([`Comparison`]).

use std::time::Duration;

use object_store::PutPayload;
use tokio::time::Instant;

use super::compare::Comparison;
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::plan::RowRef;
use crate::report::Progress;
use crate::state::State;
use crate::store::lease::Lease;
use crate::store::paths;
use crate::sync::read::ReadFor;
use crate::sync::{Run, RunContext};
use crate::targets::{HeldRow, HeldRows, IDS_PER_CALL};
use crate::transform::Former;
use crate::words::say;

/// A run that is killed loses at most this much reading.
const SAVE_EVERY: Duration = Duration::from_secs(120);
/// Where no limit has to pass, the next run can begin at once.
const RESUME_AFTER: Duration = Duration::from_secs(1);

/// The target's rows as far as they are read, and their checkpoint in the store.
pub(in crate::sync) struct ReadBack {
    held: HeldRows,
    /// Whether rows were read that the checkpoint does not have.
    dirty: bool,
    saved_at: Instant,
    /// Whether the store holds a checkpoint.
    is_stored: bool,
}

impl ReadBack {
    /// Goes on from the checkpoint, or begins. `state` is the stored state.
    pub(in crate::sync) async fn load(context: &RunContext<'_>, state: Option<&[u8]>) -> Self {
        let stored = stored(context, state).await;
        let is_stored = stored.is_some();
        let held = stored.unwrap_or_else(|| nothing(context, state));
        Self { held, dirty: false, saved_at: Instant::now(), is_stored }
    }

    /// Drops what was read if a sync has written since.
    pub(in crate::sync) fn without_stale_rows(self, context: &RunContext<'_>, state: Option<&[u8]>) -> Self {
        if !self.held.has_stale_rows() {
            return self;
        }
        tracing::info!("a sync wrote since the target was read back; reading it anew");
        Self { held: nothing(context, state), ..self }
    }

    pub(super) fn has_stale_rows(&self) -> bool {
        self.held.has_stale_rows()
    }

    async fn save_if_due(&mut self, context: &RunContext<'_>) {
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save(context).await;
        }
    }

    /// A checkpoint is only a shortcut: a store that fails here fails no run.
    async fn save(&mut self, context: &RunContext<'_>) {
        if !self.dirty || !context.target.is_read_in_pages() {
            return;
        }
        self.saved_at = Instant::now();
        let pieces = PutPayload::from_iter(self.held.to_pieces());
        match context.store.put(&paths::read_back(context.connection), pieces).await {
            Ok(()) => (self.dirty, self.is_stored) = (false, true),
            Err(error) => {
                tracing::warn!(error = %error.line(), "the checkpoint of the read-back cannot be kept");
            }
        }
    }

    /// All is compared: the next read-back begins anew. The program deletes nothing in the store, so it empties it.
    pub(in crate::sync) async fn clear(self, context: &RunContext<'_>) {
        if !self.is_stored {
            return;
        }
        let emptied = context.store.put(&paths::read_back(context.connection), PutPayload::new()).await;
        if let Err(error) = emptied {
            tracing::warn!(error = %error.line(), "the checkpoint of the read-back cannot be emptied");
        }
    }
}

fn nothing(context: &RunContext<'_>, state: Option<&[u8]>) -> HeldRows {
    HeldRows::new(&context.target.identity(), context.target.id_field(), state, context.clock.now_ms())
}

async fn stored(context: &RunContext<'_>, state: Option<&[u8]>) -> Option<HeldRows> {
    if !context.target.is_read_in_pages() {
        return None;
    }
    let bytes = match context.store.load(&paths::read_back(context.connection)).await {
        Ok(found) => found?.0,
        Err(error) => {
            tracing::warn!(error = %error.line(), "the checkpoint of the read-back cannot be read; reading anew");
            return None;
        }
    };
    if bytes.is_empty() {
        return None;
    }
    let (target, id_field) = (context.target.identity(), context.target.id_field());
    match HeldRows::from_bytes(&bytes, &target, id_field, state, context.clock.now_ms()) {
        Ok(held) => Some(held),
        Err(why) => {
            tracing::info!(why, "the checkpoint of the read-back is of no use; reading the target anew");
            None
        }
    }
}

impl Run<'_> {
    /// Reads the rest of the target, then the source.
    pub(in crate::sync) async fn read_both(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        read_back: &mut ReadBack,
    ) -> Result<Catalogue> {
        let read = self.read_pages(budget, lease, &mut *read_back).await;
        if let Err(error) = read {
            let left = read_back.held.unread();
            return Err(self.pause(read_back, left, error).await);
        }
        read_back.save_if_due(self.context).await;
        match self.read(budget, ReadFor::Comparison).await {
            Ok((catalogue, _)) => Ok(catalogue),
            Err(error) => {
                read_back.save(self.context).await;
                Err(error)
            }
        }
    }

    async fn read_pages(&self, budget: &Budget, lease: &Lease, read_back: &mut ReadBack) -> Result<()> {
        let (context, watch) = (self.context, self.watch);
        let target = context.target.reserving_in(lease);
        while let Some(number) = read_back.held.next_page() {
            let page = target.page(budget, number).await?;
            read_back.held.add_page(&page);
            read_back.dirty = true;
            watch(Progress::ReadingBack(read_back.held.len()));
            read_back.save_if_due(context).await;
        }
        Ok(())
    }

    /// Compares these rows of the source with the target's. `state` is needed where rows are older than it, `former` for
    /// value guards.
    pub(in crate::sync) async fn compare<'c>(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        read_back: &mut ReadBack,
        (catalogue, rows): (&'c Catalogue, Vec<RowRef>),
        (state, former): (Option<&'c State>, Option<&'c dyn Former>),
    ) -> Result<Comparison<'c>>
    where
        Self: 'c,
    {
        let context = self.context;
        let mut comparison =
            Comparison::new(context.rows, catalogue, rows, &read_back.held, (state, former))?;
        let mut doubts = comparison.doubts().into_iter().peekable();
        let target = context.target.reserving_in(lease);
        while doubts.peek().is_some() {
            let left = doubts.len() as u64;
            let ids: Vec<String> = doubts.by_ref().take(IDS_PER_CALL).collect();
            let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
            let mut found = match target.rows_by_id(budget, &asked).await {
                Ok(found) => found,
                Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                    doubtful(read_back.has_stale_rows(), error)?;
                    break;
                }
                Err(error) => return Err(self.pause(read_back, left, error).await),
            };
            read_back.held.add(asked.iter().map(|id| (*id, found.get(*id))));
            read_back.dirty = true;
            read_back.save_if_due(context).await;
            for id in ids {
                let row = found.remove(&id);
                comparison.take(HeldRow::new(id, row, true));
            }
        }
        Ok(comparison)
    }

    /// Keeps what was read. `left` rows of the target are for the next run.
    async fn pause(&mut self, read_back: &mut ReadBack, left: u64, mut error: Error) -> Error {
        read_back.save(self.context).await;
        if !matches!(error.kind, ErrorKind::Interrupted | ErrorKind::Throttled(Side::Target)) {
            return error;
        }
        self.tally.unread = left;
        error.message = say!(
            "{message}; rows of the target that are not read yet: {left}",
            message = error.message,
            left,
        );
        // A limit says itself when it has passed.
        let wait = error.resume_after.unwrap_or(RESUME_AFTER);
        error.resume_after(wait)
    }
}

/// The target cannot be asked for single rows. What its pages said has to do, unless a sync has made it untrue.
fn doubtful(has_stale_rows: bool, error: Error) -> Result<()> {
    if has_stale_rows {
        return Err(error.help(say!("a sync wrote while the target was read back: verify while none runs")));
    }
    tracing::warn!(error = %error.line(), "rows that look missing are not asked for by their ids");
    Ok(())
}
