//! Batches out, acknowledgements in.

use futures::FutureExt as _;
use tokio::time::Instant;

use super::checkpoint::Checkpoint;
use super::in_flight::{Done, InFlight};
use super::{Run, millis};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::plan::{Action, Plan, RowWriter, Unfit};
use crate::report::Progress;
use crate::store::lease::Lease;
use crate::targets::batch::{Batch, Builder, EntryKind};
use crate::transform::RowUnit;

/// Whether the writing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    GoesOn,
    HasEnded,
}

impl Run<'_> {
    /// Sends what the plan holds. However it ends, every batch that was sent is awaited and its answer is in the
    /// checkpoint.
    pub(super) async fn write(
        &mut self,
        budget: &Budget,
        lease: &Lease,
        catalogue: &Catalogue,
        plan: &Plan,
        checkpoint: &mut Checkpoint<'_>,
    ) -> Result<()> {
        let context = self.context;
        // Rows of groups go one batch after the other: a parent must be at the target before its children.
        let most = if context.rows.unit() == RowUnit::Product { context.settings.max_concurrency } else { 1 };
        let mut in_flight = InFlight::new(context.target.reserving_in(lease), budget, most);
        let sent = self.send_batches(&mut in_flight, catalogue, plan, checkpoint).await;
        if let Err(error) = sent {
            in_flight.end_with(error);
        }
        while !in_flight.is_empty() {
            self.advance(&mut in_flight, plan, checkpoint).await;
        }
        in_flight.into_result()
    }

    async fn send_batches(
        &mut self,
        in_flight: &mut InFlight<'_>,
        catalogue: &Catalogue,
        plan: &Plan,
        checkpoint: &mut Checkpoint<'_>,
    ) -> Result<()> {
        let (context, settings) = (self.context, self.context.settings);
        let mut rows = RowWriter::new(context.rows, catalogue);
        let mut builder =
            Builder::new(context.target.wrap(), settings.max_rows_per_batch, settings.max_bytes_per_batch);
        for change in plan.pending(catalogue) {
            let kind = match change.action {
                Action::Delete => EntryKind::Tombstone,
                _ => EntryKind::Row,
            };
            match builder.push(change.id.into(), kind, |out| rows.write(change.row, change.id, out)) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    if self.send(in_flight, batch, plan, checkpoint).await? == Writing::HasEnded {
                        return Ok(());
                    }
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
        match builder.finish() {
            Some(batch) => self.send(in_flight, batch, plan, checkpoint).await.map(drop),
            None => Ok(()),
        }
    }

    /// Sends a batch as soon as there is room for it.
    async fn send(
        &mut self,
        in_flight: &mut InFlight<'_>,
        batch: Batch,
        plan: &Plan,
        checkpoint: &mut Checkpoint<'_>,
    ) -> Result<Writing> {
        while !in_flight.has_ended() && in_flight.is_full(checkpoint.unsaved_batches()) {
            self.advance(in_flight, plan, checkpoint).await;
        }
        if in_flight.has_ended() {
            return Ok(Writing::HasEnded);
        }
        in_flight.begin(batch, self.slowest_batch)?;
        // A save goes on also where answers never make anybody wait.
        if let Some(Err(error)) = checkpoint.save_when_due().now_or_never() {
            in_flight.end_with(error);
        }
        // Lets the call go out before the next batch is rendered.
        tokio::task::yield_now().await;
        Ok(Writing::GoesOn)
    }

    /// Waits until a batch or a save has ended, whichever is first.
    async fn advance(&mut self, in_flight: &mut InFlight<'_>, plan: &Plan, checkpoint: &mut Checkpoint<'_>) {
        let is_behind = checkpoint.is_behind();
        tokio::select! {
            // In this order, so that a save holds all answers that are there, and a simulated run replays exactly.
            biased;
            Some(done) = in_flight.next() => self.completed(done, plan, checkpoint),
            saved = checkpoint.save_when_due(), if is_behind => {
                if let Err(error) = saved {
                    in_flight.end_with(error);
                }
            }
            else => {}
        }
    }

    fn completed(&mut self, done: Done, plan: &Plan, checkpoint: &mut Checkpoint<'_>) {
        self.slowest_batch = self.slowest_batch.max(done.took);
        checkpoint.acknowledge(done.written, &mut self.tally);
        let acknowledged = self.tally.written + self.tally.deleted;
        (self.watch)(Progress::Writing { acknowledged, planned: plan.pending_count() });
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
