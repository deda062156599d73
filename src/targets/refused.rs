//! Finds the rows for which a batch was refused, or that the target left out of it.
//!
//! No target names the rows that it refuses. What the target can be asked for is read back and compared; where it cannot
//! be asked, the batch is sent again in halves until a half is a single row. Four rows of which the third is bad:
//!
//! ```text
//! 1 2 3 4 refused → 1 2 accepted
//!                   3 4 refused → 3 refused: into the quarantine
//!                                 4 accepted
//! ```
//!
//! A single bad row among `n` costs about `2 log2(n)` calls. A scheme that refuses everything would cost `2 n`, so a run
//! spends at most [`SPLIT_CALLS`].

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::batch::{Batch, Entry};
use super::compare::contains;
use super::{Protocol, Refused, TargetRun, Written, accept};
use crate::budget::Budget;
use crate::catalogue::{Reason, ReasonKind, Rejected, RowKind};
use crate::error::{Error, ErrorKind, Result, Side};
use crate::words::{Message, phrase, say, written};

/// Calls that a run spends on finding refused rows by bisecting.
pub(super) const SPLIT_CALLS: u32 = 64;

/// What a batch shows of which the target took no row and holds an older version of each.
const KEEPS_OLDER_ROWS: &str = phrase!(
    "the scheme keeps the older version of every row of the batch, as it does while its idCheck is on: \
     switch idCheck off on the scheme, or no change arrives"
);

/// What is wrong with a batch that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchFailure {
    /// No row is stored.
    Refused,
    /// Some rows are stored; the answer does not say which.
    PartlyStored,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct BatchContext {
    pub rows: usize,
    /// Whether the target can be asked which rows it holds.
    pub can_read_back: bool,
    /// What is left of [`SPLIT_CALLS`].
    pub calls_left: u32,
}

/// What to do with such a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchAction {
    /// Ask which rows are stored.
    ReadBack,
    /// Send it again in two halves.
    Split,
    /// Its only row is the refused one.
    Quarantine,
    /// End the run: too many rows are refused to find each one.
    GiveUp,
}

pub(super) fn after_batch(failure: BatchFailure, now: BatchContext) -> BatchAction {
    match failure {
        BatchFailure::PartlyStored if now.can_read_back => BatchAction::ReadBack,
        _ if now.rows <= 1 => BatchAction::Quarantine,
        _ if now.calls_left < 2 => BatchAction::GiveUp,
        _ => BatchAction::Split,
    }
}

impl TargetRun<'_> {
    /// Decides what becomes of a batch that failed for `reason`. Halves to be sent are added to `waiting`.
    pub(super) async fn find_refused(
        self,
        budget: &Budget,
        batch: Batch,
        (failure, reason): (BatchFailure, &str),
        waiting: &mut Vec<Batch>,
        written: &mut Written,
    ) -> Result<()> {
        let mut now = BatchContext {
            rows: batch.entries.len(),
            can_read_back: matches!(self.target.protocol, Protocol::Qeasy(_)),
            calls_left: SPLIT_CALLS.saturating_sub(self.target.split_calls.load(Ordering::Relaxed)),
        };
        let mut action = after_batch(failure, now);
        if action == BatchAction::ReadBack {
            match self.stored_rows(budget, &batch).await {
                Ok(stored) => {
                    self.resolve_partial(&batch, &stored, reason, written);
                    return Ok(());
                }
                Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                    tracing::warn!(error = %error.line(), "the batch cannot be read back, halving it instead");
                    now.can_read_back = false;
                    action = after_batch(failure, now);
                }
                Err(error) => return Err(error),
            }
        }
        match (action, batch.halves()) {
            (BatchAction::Split, Some((left, right))) => {
                self.target.split_calls.fetch_add(2, Ordering::Relaxed);
                waiting.extend([right, left]);
                Ok(())
            }
            (BatchAction::GiveUp, _) => Err(Error::new(
                ErrorKind::BadAnswer(Side::Target),
                say!(
                    "target refuses too many rows to find each one ({calls} calls spent): {reason}",
                    calls = SPLIT_CALLS,
                    reason = Message::from(reason),
                ),
            )
            .help(say!("correct the scheme or [record]"))),
            _ => {
                written.refused.extend(batch.entries.iter().map(|entry| refused(&batch, entry, reason)));
                Ok(())
            }
        }
    }

    /// Of a batch that was stored in part: what the target holds is acknowledged, the rest is refused.
    fn resolve_partial(
        self,
        batch: &Batch,
        stored: &HashMap<String, Value>,
        reason: &str,
        written: &mut Written,
    ) {
        let (held, missing) = partition(batch, stored);
        let has_older = |entry: &Entry| stored.contains_key(entry.id.as_str());
        let reason = if held.is_empty() && missing.iter().all(has_older) {
            self.warn_of_id_check();
            written!(
                "{reason}; {why}",
                reason = Message::from(reason),
                why = Message::plain(KEEPS_OLDER_ROWS)
            )
        } else {
            written!(
                "{reason}; of these it does not hold this one as sent (a scheme whose idCheck is on excludes repeated ids: changes need it off)",
                reason
            )
        };
        written.refused.extend(missing.iter().map(|entry| refused(batch, entry, &reason)));
        accept(batch, held, written);
    }

    /// Once for each run: such a scheme refuses every batch of changes.
    fn warn_of_id_check(self) {
        if !self.target.told_of_id_check.swap(true, Ordering::Relaxed) {
            tracing::warn!("{KEEPS_OLDER_ROWS}");
        }
    }

    /// A scheme that takes no change at all has been named already.
    pub(super) fn warn_of_part(self, failed: u64, rows: usize, reason: &str) {
        if self.target.told_of_id_check.load(Ordering::Relaxed) {
            tracing::debug!(failed, rows, reason, "the target stored a batch only in part");
        } else {
            tracing::warn!(failed, rows, reason, "the target stored a batch only in part");
        }
    }

    /// The answer was lost: acknowledges what the target holds of the batch, and sends the rest again. A target that cannot
    /// be asked gets all of it again: rows carry ids, and the attempts are bounded like those of any call.
    pub(super) async fn read_back_lost(
        self,
        budget: &Budget,
        mut batch: Batch,
        waiting: &mut Vec<Batch>,
        written: &mut Written,
    ) -> Result<()> {
        let stored = match self.stored_rows(budget, &batch).await {
            Ok(stored) => stored,
            Err(error) if cannot_be_asked(error.kind) => {
                tracing::warn!(error = %error.line(), "an answer was lost and the target cannot be asked what it holds; sending the batch again");
                batch.was_read_back = true;
                waiting.push(batch);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (held, missing) = partition(&batch, &stored);
        tracing::info!(
            stored = held.len(),
            missing = missing.len(),
            "an answer was lost; the target was asked what it holds"
        );
        if !missing.is_empty() {
            let mut again = batch.only(&missing);
            again.was_read_back = true;
            waiting.push(again);
        }
        accept(&batch, held, written);
        Ok(())
    }
}

/// Whether reading back failed in a way that says nothing about the next batch. If the key is refused or the target is
/// down, the batch itself will be told so.
fn cannot_be_asked(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotSupported(_)
            | ErrorKind::BadAnswer(_)
            | ErrorKind::Unavailable(_)
            | ErrorKind::CredentialsRefused(_)
    )
}

/// The rows that the target holds as they were sent, and the others.
fn partition(batch: &Batch, stored: &HashMap<String, Value>) -> (Vec<Entry>, Vec<Entry>) {
    let is_stored =
        |entry: &Entry| stored.get(entry.id.as_str()).is_some_and(|row| contains(row, batch.row(entry)));
    batch.entries.iter().cloned().partition(is_stored)
}

fn refused(batch: &Batch, entry: &Entry, reason: &str) -> Refused {
    let row = String::from_utf8_lossy(batch.row(entry));
    let why = Reason::new(ReasonKind::Refused, written!("refused by the target: {reason}", reason));
    Refused {
        entry: entry.clone(),
        reason: reason.to_owned(),
        rejected: Rejected::new(RowKind::Record, Some(entry.id.to_string()), why, &row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_batch_has_its_action() {
        use BatchAction::{GiveUp, Quarantine, ReadBack, Split};
        use BatchFailure::{PartlyStored, Refused};
        #[rustfmt::skip]
        let table = [
            // failure, rows, can_read_back, calls_left
            (Refused,      500, false, 64, Split),
            (Refused,      500, true,  64, Split),
            (Refused,      500, true,  2,  Split),
            (Refused,      500, true,  1,  GiveUp),
            (Refused,      1,   true,  64, Quarantine),
            (Refused,      1,   false, 0,  Quarantine),
            (PartlyStored, 500, true,  64, ReadBack),
            (PartlyStored, 500, true,  0,  ReadBack),
            (PartlyStored, 1,   true,  64, ReadBack),
            (PartlyStored, 500, false, 64, Split),
            (PartlyStored, 500, false, 1,  GiveUp),
            (PartlyStored, 1,   false, 0,  Quarantine),
        ];
        for (failure, rows, can_read_back, calls_left, expected) in table {
            let now = BatchContext { rows, can_read_back, calls_left };
            assert_eq!(after_batch(failure, now), expected, "{failure:?} in {now:?}");
        }
    }
}
