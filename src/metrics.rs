//! Metric names, and the one CloudWatch embedded-metric line (EMF) that each run prints.
//!
//! Alarms, the dashboard and the runbook in `infra/` are built on these names; a test holds them together.

/// Namespace unless `OKKI_SYNC_METRICS_NAMESPACE` names another (the template sets it to the stack's name).
pub const DEFAULT_NAMESPACE: &str = "OkkiSync";
/// Dimension: the connection's name.
pub const DIMENSION_CONNECTION: &str = "connection";
/// Dimension: `sync`, `plan` or `verify`.
pub const DIMENSION_MODE: &str = "mode";

/// 1 for a run that ended as `succeeded`, else 0. Count.
pub const RUNS_SUCCEEDED: &str = "RunsSucceeded";
/// 1 for a run that ended as `partial`, else 0. Count.
pub const RUNS_PARTIAL: &str = "RunsPartial";
/// 1 for a run that ended as `paused`, else 0. Count.
pub const RUNS_PAUSED: &str = "RunsPaused";
/// 1 for a run that ended as `failed`, else 0. Count.
pub const RUNS_FAILED: &str = "RunsFailed";
/// 1 for a run that paused without one acknowledged row, else 0. Count.
pub const PAUSED_WITHOUT_PROGRESS: &str = "PausedWithoutProgress";
/// Wall time of the run. Milliseconds.
pub const DURATION_MS: &str = "DurationMs";
/// Groups read and clean. Count.
pub const SOURCE_GROUPS: &str = "SourceGroups";
/// Products read and clean. Count.
pub const SOURCE_PRODUCTS: &str = "SourceProducts";
/// Calls to the source. Count.
pub const SOURCE_REQUESTS: &str = "SourceRequests";
/// Repeated calls to the source. Count.
pub const SOURCE_RETRIES: &str = "SourceRetries";
/// Answers of the source that asked for a slower pace. Count.
pub const SOURCE_THROTTLED: &str = "SourceThrottled";
/// Planned creations. Count of rows.
pub const PLAN_CREATE: &str = "PlanCreate";
/// Planned updates. Count of rows.
pub const PLAN_UPDATE: &str = "PlanUpdate";
/// Planned deletions. Count of rows.
pub const PLAN_DELETE: &str = "PlanDelete";
/// Rows without a change. Count of rows.
pub const PLAN_UNCHANGED: &str = "PlanUnchanged";
/// Rows that the target acknowledged as created or updated. Count of rows.
pub const ROWS_WRITTEN: &str = "RowsWritten";
/// Rows that the target acknowledged as deleted. Count of rows.
pub const ROWS_DELETED: &str = "RowsDeleted";
/// Rows in the quarantine of this run. Count of rows.
pub const ROWS_QUARANTINED: &str = "RowsQuarantined";
/// Rows left for the next run. Count of rows.
pub const ROWS_REMAINING: &str = "RowsRemaining";
/// Acknowledged batches. Count.
pub const TARGET_BATCHES: &str = "TargetBatches";
/// Calls to the target. Count.
pub const TARGET_REQUESTS: &str = "TargetRequests";
/// Repeated calls to the target. Count.
pub const TARGET_RETRIES: &str = "TargetRetries";
/// Answers of the target that asked for a slower pace or announced a lockout. Count.
pub const TARGET_THROTTLED: &str = "TargetThrottled";
/// 1 for a run that the delete guard (or the empty-source guard) refused, else 0. Count.
pub const GUARD_REFUSED: &str = "GuardRefused";
/// 1 for a run that ended because the source refused the credentials, else 0. Count.
pub const SOURCE_CREDENTIALS_REFUSED: &str = "SourceCredentialsRefused";
/// 1 for a run that ended because the target refused the credentials, else 0. Count.
pub const TARGET_CREDENTIALS_REFUSED: &str = "TargetCredentialsRefused";
