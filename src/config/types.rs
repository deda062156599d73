//! The pipeline file's types. Their doc comments are the descriptions in its JSON Schema, and the schema is
//! what a file is checked against, so a limit is written down once: here.

use std::fmt;
use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::notify_keys::NotifyKeys;
use crate::plan::OnDelete;
use crate::targets::{TokenIn, Wrap};
use crate::transform::{RecordSpec, ValueGuard};

/// What a connection's name looks like; it becomes part of paths in the store.
pub(super) const CONNECTION_PATTERN: &str = "^[a-z0-9-]{1,64}$";

/// One connection: where rows come from, what they become and where they go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// The connection's name. It names the state, the reports and the quarantine in the store.
    /// 1 to 64 characters: a-z, 0-9 and -.
    #[serde(default = "default_connection")]
    #[schemars(regex(pattern = CONNECTION_PATTERN))]
    pub connection: String,
    /// Where rows come from: OKKI.
    #[serde(default)]
    pub source: SourceKeys,
    /// What one row at the target looks like.
    #[serde(default)]
    pub record: RecordSpec,
    /// Where rows go.
    pub target: TargetKeys,
    /// What keeps a run from doing harm.
    #[serde(default)]
    pub guard: Guard,
    /// What a chat group is told, when and how.
    #[serde(default)]
    pub notify: NotifyKeys,
    /// What a run leaves for people to read.
    #[serde(default)]
    pub report: ReportKeys,
}

pub(super) fn default_connection() -> String {
    "default".to_owned()
}

/// `[source]`: where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SourceKeys {
    /// The API that is synced.
    pub api: Api,
    /// The method it is called with.
    pub method: SourceMethod,
    /// The source field that identifies a row. Required in each row, and unique.
    #[schemars(length(min = 1))]
    pub id: String,
    /// The source field that people know a row by. Required in each row.
    #[schemars(length(min = 1))]
    pub number: String,
    /// Check that ids are present, not empty and unique. Offending rows go to the quarantine; of equal ids the first
    /// is kept.
    #[serde(rename = "idCheck")]
    pub id_check: bool,
    /// Scheme and host of OKKI's API. Plain http only to this machine.
    #[schemars(with = "String", extend("format" = "uri"))]
    pub base_url: Url,
    /// How products are read. Without it: `incremental` when the record uses products, else `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub products: Option<Products>,
    /// Rows per page of the product list, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub page_size: u32,
    /// Calls per second to OKKI, more than 0 and at most 100000.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 100000))]
    pub max_requests_per_second: f64,
    /// Calls under way at the same time to OKKI, 1 to 64.
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrency: usize,
}

impl Default for SourceKeys {
    fn default() -> Self {
        Self {
            api: Api::ProductGroups,
            method: SourceMethod::Get,
            id: "id".to_owned(),
            number: "name".to_owned(),
            id_check: true,
            base_url: known_url("https://api-sandbox.xiaoman.cn"),
            products: None,
            page_size: 100,
            max_requests_per_second: 5.0,
            max_concurrency: 4,
        }
    }
}

/// The APIs that can be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("$comment" = "only this API is synced"))]
pub(crate) enum Api {
    /// Product groups, with their products where the record uses them.
    #[serde(rename = "/v1/product/groups")]
    ProductGroups,
}

impl Api {
    /// The path of its call.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::ProductGroups => "/v1/product/groups",
        }
    }
}

/// The methods of the source's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("$comment" = "the source is only read"))]
pub(crate) enum SourceMethod {
    /// Read.
    #[serde(rename = "GET")]
    Get,
}

/// How products are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Products {
    /// Not at all.
    None,
    /// All of them in every run.
    Full,
    /// Those changed since the last run, and all of them every `guard.full_read_every`.
    Incremental,
}

/// `[target]`: where rows go. Keys that belong to the other kind are mistakes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetKeys {
    /// Which kind of target it is.
    pub kind: TargetKind,

    /// Kind `qeasy`: scheme and host of Qeasy's API. Default: `https://api.qeasy.cloud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "uri"))]
    pub base_url: Option<Url>,
    /// Kind `qeasy`, required: the id of the integration scheme that receives the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub scheme_id: Option<String>,
    /// Kind `qeasy`: how the token travels. Default: `header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_in: Option<TokenIn>,

    /// Kind `http`, required: where batches are sent. Plain http only to this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "uri"))]
    pub url: Option<Url>,
    /// Kind `http`: the method that batches are sent with. Default: `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<TargetMethod>,
    /// Kind `http`: further headers. Credentials do not belong here: use `auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Kind `http`: how a call is authorised. Default: `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<TargetAuth>,
    /// Kind `http`: how the rows are wrapped. Default: not at all, the body is a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap: Option<Wrap>,
    /// Kind `http`: what the answer's body must hold besides a 2xx status: JSON pointer = expected value,
    /// for example `"/code" = 0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<IndexMap<String, serde_json::Value>>,
    /// Kind `http`: where `verify` reads the rows back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "uri"))]
    pub read_url: Option<Url>,

    /// Rows in one batch, 1 to 5000.
    #[serde(default = "default_max_rows_per_batch")]
    #[schemars(range(min = 1, max = 5000))]
    pub max_rows_per_batch: usize,
    /// Bytes in one batch's body, 1000 or more. A single row that is larger goes alone.
    #[serde(default = "default_max_bytes_per_batch")]
    #[schemars(range(min = 1000))]
    pub max_bytes_per_batch: usize,
    /// Batches under way at the same time to the target, 1 to 64; a group waits for the groups above it. Default:
    /// `source.max_concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrency: Option<usize>,
    /// Calls per minute of the account (host and key), shared by all connections that use it: 1 to 5000, of kind `http` to
    /// 100000.
    #[serde(default = "default_requests_per_minute")]
    #[schemars(range(min = 1, max = 100000))]
    pub requests_per_minute: u32,
    /// Share of the limit that the target's `X-RateLimit-*` headers announce which is left to others, 0 to 0.9.
    #[serde(default = "default_reserve_ratio")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub reserve_ratio: f64,
    /// What happens at the target to a row that is gone at the source.
    #[serde(default = "default_on_delete")]
    pub on_delete: OnDelete,
}

fn default_max_rows_per_batch() -> usize {
    500
}

fn default_max_bytes_per_batch() -> usize {
    1_000_000
}

fn default_requests_per_minute() -> u32 {
    50
}

fn default_reserve_ratio() -> f64 {
    0.2
}

fn default_on_delete() -> OnDelete {
    OnDelete::Tombstone
}

/// The kinds of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TargetKind {
    /// An integration scheme of Qeasy.
    Qeasy,
    /// Any endpoint that takes JSON.
    Http,
}

/// The methods that batches can be sent with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TargetMethod {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// How a call to an HTTP target is authorised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetAuth {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer` with the credential `TARGET_TOKEN`.
    Bearer,
}

/// Header names and values. Its `Debug` shows the names only: people do put keys into headers.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Headers(pub IndexMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `[guard]`: what keeps a run from doing harm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// A plan that deletes a larger part of the rows (and more than 10) is refused, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub max_delete_ratio: f64,
    /// Rows that look wrong are held back: they go to the quarantine with the reason, and the others go on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValueGuard>,
    /// A run whose value guards hold back a larger part of the groups or products (and more than 10) is refused, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub max_held_ratio: f64,
    /// Incremental products: a full read at least this often, as in `24h` or `1h 30m`.
    #[serde(with = "duration_text")]
    #[schemars(with = "String", extend("format" = "humantime"))]
    pub full_read_every: Duration,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            max_delete_ratio: 0.2,
            values: Vec::new(),
            max_held_ratio: 0.2,
            full_read_every: Duration::from_hours(24),
        }
    }
}

/// `[report]`: what a run leaves for people to read, besides its report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReportKeys {
    /// Each sync writes its report as an HTML page to `reports/<connection>/latest.html` in the store.
    pub html: bool,
}

/// A URL that is written in this program.
#[expect(clippy::expect_used, reason = "only literals of this file come here, and a test parses them all")]
pub(super) fn known_url(url: &'static str) -> Url {
    Url::parse(url).expect("a literal URL is a URL")
}

/// Durations as people write them.
mod duration_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        const HOUR: u64 = 3600;
        // Whole hours as people write them in pipelines: `24h`, not `1day`.
        if duration.subsec_nanos() == 0 && duration.as_secs().is_multiple_of(HOUR) {
            return to.collect_str(&format_args!("{}h", duration.as_secs() / HOUR));
        }
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|_| de::Error::custom("not a duration"))
    }
}
