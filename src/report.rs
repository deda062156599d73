//! The run report: the answer of the Lambda function, the `--json` output, and the summary people forward.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::to_raw_value;

use crate::changes::RowChange;
use crate::error::Side;
use crate::words::{Message, Words, say};

/// What a run is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Fetch, transform, plan, write, remember.
    Sync,
    /// The same up to the plan; writes nothing.
    Plan,
    /// Read the target back and compare; writes nothing.
    Verify,
    /// Send the former content of rows that a run changed. No event asks for it.
    Undo,
}

impl Mode {
    /// The word used in events, reports and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Plan => "plan",
            Self::Verify => "verify",
            Self::Undo => "undo",
        }
    }
}

impl Words for Mode {
    fn words(&self) -> Message {
        match self {
            Self::Sync => say!("sync"),
            Self::Plan => say!("plan"),
            Self::Verify => say!("verify"),
            Self::Undo => say!("undo"),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything that was planned is done.
    Succeeded,
    /// Done, but rows are in the quarantine, or a verification found differences.
    Partial,
    /// Work remains for the next run; see [`Report::remaining`] and [`Report::resume_after_seconds`].
    Paused,
    /// Stopped by an error; see [`Report::error`].
    Failed,
}

impl Status {
    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }
}

impl Words for Status {
    fn words(&self) -> Message {
        match self {
            Self::Succeeded => say!("succeeded"),
            Self::Partial => say!("partial"),
            Self::Paused => say!("paused"),
            Self::Failed => say!("failed"),
        }
    }
}

/// What was read from OKKI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Product groups that passed cleaning.
    pub groups: u64,
    /// Products that passed cleaning.
    pub products: u64,
    /// Calls made, repeats and tokens included.
    pub requests: u64,
    /// Calls that were repeats of a failed one.
    pub retries: u64,
    /// Answers that asked for a slower pace.
    pub throttled: u64,
    /// Whether all products were read, rather than those changed since the last run.
    pub full_read: bool,
    /// Age of the part of the catalogue that was read longest ago; `None` where the catalogue has no parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_read_age_seconds: Option<u64>,
    /// Rows that this run added to a read that is not complete yet; `None` where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newly_read: Option<u64>,
}

/// What differs between the source and what the target has acknowledged, in rows.
///
/// In `verify` mode the same four mean: missing at the target, differing, extra at the target, same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanCounts {
    /// Rows that the target does not have.
    pub create: u64,
    /// Rows that the target has with other content.
    pub update: u64,
    /// Rows that the target has and the source no longer has.
    pub delete: u64,
    /// Rows that are the same on both sides.
    pub unchanged: u64,
}

/// What the target acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetCounts {
    /// Rows created or updated.
    pub written: u64,
    /// Rows deleted (sent as tombstones).
    pub deleted: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Calls made, repeats and tokens included.
    pub requests: u64,
    /// Calls that were repeats of a failed one.
    pub retries: u64,
    /// Answers that asked for a slower pace.
    pub throttled: u64,
}

/// When a run called both sides, and when it waited: stretches of equal length from its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Length of a stretch in milliseconds, more than 0; at most 60 of them take the whole run.
    pub bucket_ms: u64,
    /// Calls of the source.
    #[serde(default, skip_serializing_if = "SideTimes::is_empty")]
    pub source: SideTimes,
    /// Calls of the target.
    #[serde(default, skip_serializing_if = "SideTimes::is_empty")]
    pub target: SideTimes,
}

/// One side's numbers for each stretch. A list ends with its last number above zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideTimes {
    /// Attempts that were sent, repeats and logins included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<u64>,
    /// Answers that asked for a slower pace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throttled: Vec<u64>,
    /// Attempts that failed in another way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u64>,
    /// Milliseconds in which a call waited: for its turn, for a limit, or before it was repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waited_ms: Vec<u64>,
}

impl SideTimes {
    /// Whether nothing was called or waited for.
    pub fn is_empty(&self) -> bool {
        [&self.calls, &self.throttled, &self.failed, &self.waited_ms].iter().all(|column| column.is_empty())
    }
}

/// The report of one run, as the contract spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Names the run in logs, in the quarantine and in the store.
    pub run_id: String,
    /// The connection that was run.
    pub connection: String,
    /// What it was asked to do.
    pub mode: Mode,
    /// How it ended.
    pub status: Status,
    /// Start, RFC 3339 in UTC.
    pub started_at: String,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
    /// What was read.
    pub source: SourceCounts,
    /// What differed.
    pub plan: PlanCounts,
    /// What was acknowledged.
    pub target: TargetCounts,
    /// Rows in the quarantine of this run, without those that somebody has dismissed.
    pub quarantined: u64,
    /// The same by the kind of their reasons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quarantined_by_kind: BTreeMap<String, u64>,
    /// Rows in the quarantine of this run that somebody has dismissed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dismissed: u64,
    /// Rows that were planned and are not acknowledged yet. Where the read is not complete: rows not read yet.
    pub remaining: u64,
    /// When it makes sense to come back, if that is known.
    pub resume_after_seconds: Option<u64>,
    /// What stopped the run, in one line.
    pub error: Option<String>,
    /// The ids of rows that a person named, of a run that sent only these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Of a plan: names its pending rows, for `sync --approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of a plan or a verification: the first rows that differ, with their fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<RowChange>>,
    /// How many more rows differ; `None` where all are in `changes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_changes: Option<u64>,
    /// Of a run that a store keeps: when it called both sides.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "on_one_line")]
    pub timeline: Option<Timeline>,
}

impl Report {
    /// The same without the content of rows and the times of calls, for logs.
    pub fn for_logs(&self) -> Self {
        Self { changes: None, more_changes: None, timeline: None, ..self.clone() }
    }
}

/// Where a report is indented, its lists of numbers would be longer than everything else.
fn on_one_line<S: Serializer>(timeline: &Option<Timeline>, to: S) -> Result<S::Ok, S::Error> {
    to_raw_value(timeline).map_err(S::Error::custom)?.serialize(to)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a run reports while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A page of products was read. The groups have been read by then.
    Reading {
        /// Products read so far.
        read: u64,
        /// The source's total, as of this page.
        total: u64,
    },
    /// The pages did not agree; all of them are read again.
    ReadingAgain {
        /// Which attempt starts, from 2.
        attempt: u32,
        /// Why the last one does not count.
        why: Message,
    },
    /// The plan is made and believed.
    Planned(PlanCounts),
    /// A batch was acknowledged.
    Writing {
        /// Rows acknowledged so far.
        acknowledged: u64,
        /// Rows of the plan that need a call.
        planned: u64,
    },
    /// A limit of this side, or a backoff after a failed call, makes the run wait.
    Waiting {
        /// The side that is not called meanwhile.
        side: Side,
        /// For how long.
        wait: std::time::Duration,
    },
    /// Rows of the target that were read back so far.
    ReadingBack(u64),
}

/// Receives the progress of a run.
pub(crate) type Watch = dyn Fn(Progress) + Send + Sync;
