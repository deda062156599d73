//! Batches out, acknowledgements in.

use futures::FutureExt as _;
use tokio::time::Instant;

use super::checkpoint::Checkpoint;
use super::in_flight::{Done, InFlight};
use super::queue::Queue;
use super::recorder::Recorder;
use super::{Run, millis};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::plan::{Action, Plan, RowRef, RowWriter, Unfit};
use crate::report::Progress;
use crate::store::lease::Lease;
use crate::targets::batch::{Batch, Builder, EntryKind, Room};
use crate::transform::Former;

/// What a run's rows go through on their way out.
struct Sending<'a, 'c, 's> {
    in_flight: InFlight<'a>,
    queue: Queue<'a>,
    rows: RowWriter<'a>,
    batch: Builder,
    /// The groups whose rows are in the batch that is being filled.
    groups: Vec<usize>,
    /// All rows of that batch, and what is done with them.
    in_batch: Vec<(RowRef, Action)>,
    recorder: Recorder<'a>,
    checkpoint: &'c mut Checkpoint<'s>,
    planned: u64,
}

impl Run<'_> {
    /// Sends what the plan holds. However it ends, every batch that was sent is awaited and its answer is in the
    /// checkpoint.
    pub(super) async fn write(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        (catalogue, plan): (&Catalogue, &Plan),
        checkpoint: &mut Checkpoint<'_>,
    ) -> Result<()> {
        let (context, settings) = (self.context, self.context.settings);
        // Rows are written as they were planned.
        let former = self.former.clone();
        let former = former.as_deref().map(|former| former as &dyn Former);
        let target = context.target.reserving_in(lease);
        let mut sending = Sending {
            in_flight: InFlight::new(target, budget, settings.max_concurrency),
            queue: Queue::new(catalogue, plan.pending(catalogue)),
            rows: RowWriter::new(context.rows, catalogue, former),
            batch: Builder::new(
                context.target.wrap(),
                settings.max_rows_per_batch,
                settings.max_bytes_per_batch,
            ),
            groups: Vec::new(),
            in_batch: Vec::new(),
            recorder: Recorder::new(
                context,
                &self.start.run_id,
                Some(catalogue),
                std::mem::take(&mut checkpoint.former),
            ),
            checkpoint,
            planned: plan.pending_count(),
        };
        if let Err(error) = self.send_batches(&mut sending).await {
            sending.in_flight.end_with(error);
        }
        while !sending.in_flight.is_empty() {
            self.advance(&mut sending).await;
        }
        let Sending { in_flight, recorder, .. } = sending;
        self.tally.recorded = recorder.finish().await;
        in_flight.into_result()
    }

    async fn send_batches(&mut self, sending: &mut Sending<'_, '_, '_>) -> Result<()> {
        while !sending.in_flight.has_ended() {
            let room = self.fill(sending);
            // Rows that wait for a batch may still go with this one: that is a call less.
            if room == Room::Some && sending.queue.has_waiting() && !sending.in_flight.is_empty() {
                self.advance(sending).await;
                continue;
            }
            match sending.batch.finish() {
                Some(batch) => self.send(sending, batch).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// Writes rows into the batch until it has no room, or no further row may go now.
    fn fill(&mut self, sending: &mut Sending<'_, '_, '_>) -> Room {
        let Sending { queue, rows, batch, groups, in_batch, checkpoint, .. } = sending;
        let tombstones = &checkpoint.state.tombstones;
        while let Some(change) = queue.next() {
            let kind = match change.action {
                Action::Delete => EntryKind::Tombstone,
                _ if tombstones.contains(change.id) => EntryKind::Revived,
                _ => EntryKind::Row,
            };
            match batch.push(change.id.into(), kind, |out| rows.write(change.row, change.id, out)) {
                Ok(Room::Some) => {
                    in_batch.push((change.row, change.action));
                    if let RowRef::Group(group) = change.row {
                        groups.push(group);
                    }
                }
                Ok(Room::None) => {
                    queue.put_back(change);
                    rows.rejected.clear();
                    return Room::None;
                }
                // A row that fits the plan and cannot be written after all: it is reported, and the others go on.
                Err(Unfit) => {
                    tracing::warn!(id = change.id, "a row of the plan cannot be written; it is left out");
                    self.tally.refused += 1;
                    self.tally.rejected.append(&mut rows.rejected);
                }
            }
            // Items that were left out are in the tally since the plan was made.
            rows.rejected.clear();
        }
        Room::Some
    }

    /// Sends a batch as soon as there is room for it, unless an error ends the writing before.
    async fn send(&mut self, sending: &mut Sending<'_, '_, '_>, batch: Batch) -> Result<()> {
        let (groups, rows) = (std::mem::take(&mut sending.groups), std::mem::take(&mut sending.in_batch));
        while !sending.in_flight.has_ended()
            && (sending.in_flight.is_full(sending.checkpoint.unsaved_batches())
                || sending.recorder.is_behind())
        {
            self.advance(sending).await;
        }
        let Sending { in_flight, queue, checkpoint, .. } = sending;
        if in_flight.has_ended() {
            return Ok(());
        }
        queue.begin(&groups);
        in_flight.begin(batch, (groups, rows), self.slowest_batch)?;
        // A save goes on also where answers never make anybody wait.
        if let Some(Err(error)) = checkpoint.save_when_due().now_or_never() {
            in_flight.end_with(error);
        }
        // Lets the call go out before the next batch is rendered.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Waits until a batch or a save has ended, whichever is first.
    async fn advance(&mut self, sending: &mut Sending<'_, '_, '_>) {
        let Sending { in_flight, queue, checkpoint, planned, recorder, .. } = sending;
        let (is_behind, is_recording) = (checkpoint.is_behind(), recorder.has_work());
        tokio::select! {
            // In this order, so that a save holds all answers that are there, and a simulated run replays exactly.
            biased;
            Some(done) = in_flight.next() => {
                queue.end(&done.groups);
                self.completed(done, checkpoint, recorder, *planned);
            }
            saved = checkpoint.save_when_due(), if is_behind => {
                if let Err(error) = saved {
                    in_flight.end_with(error);
                }
            }
            () = recorder.work(), if is_recording => {}
            else => {}
        }
    }

    fn completed(
        &mut self,
        done: Done,
        checkpoint: &mut Checkpoint<'_>,
        recorder: &mut Recorder<'_>,
        planned: u64,
    ) {
        self.slowest_batch = self.slowest_batch.max(done.took);
        checkpoint.acknowledge(&done.written, &mut self.tally);
        recorder.note(done.written, done.rows);
        let acknowledged = self.tally.written + self.tally.deleted;
        (self.watch)(Progress::Writing { acknowledged, planned });
    }

    pub(super) fn log_written(&self, started: Instant) {
        tracing::info!(
            step = "written",
            written = self.tally.written,
            deleted = self.tally.deleted,
            batches = self.tally.batches,
            duration_ms = millis(started.elapsed()),
            "written"
        );
    }
}
