//! A pipeline with every default filled in. Defaults are resolved here, once: a [`Config`] has nothing optional that a run needs.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;
use url::Url;

use super::types::{
    self, Guard, Headers, Pipeline, Products, ReportKeys, TargetAuth, TargetKind, TargetMethod, known_url,
};
use crate::notify::Settings;
use crate::plan::OnDelete;
use crate::targets::{Limit, TokenIn, Wrap};
use crate::transform::RowMap;

/// What a run needs to know of its pipeline.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names the state, the reports and the quarantine in the store.
    pub connection: String,
    /// Where rows come from.
    pub source: SourceConfig,
    /// `[record]`, compiled: what one row at the target looks like.
    pub rows: RowMap,
    /// Where rows go.
    pub target: TargetConfig,
    /// What keeps a run from doing harm.
    pub guard: Guard,
    /// What a chat group is told, when and how.
    pub(crate) notify: Settings,
    /// What a run leaves for people to read.
    pub report: ReportKeys,
}

/// `[source]` with its defaults. `api` and `method` have one value each, so they are not here.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    pub base_url: Url,
    /// The path of the groups call.
    pub api: &'static str,
    pub id: String,
    pub number: String,
    pub id_check: bool,
    pub products: Products,
    pub page_size: u32,
    pub max_requests_per_second: f64,
    pub max_concurrency: usize,
}

/// `[target]` with its defaults.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    pub endpoint: Endpoint,
    pub batching: Batching,
    pub limit: Limit,
    pub on_delete: OnDelete,
}

/// How rows are cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    pub max_rows: usize,
    pub max_bytes: usize,
    /// Batches of products in flight at a time.
    pub max_concurrency: usize,
}

/// Where batches are sent, by the kind of target.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one per connection")]
pub enum Endpoint {
    Qeasy {
        base_url: Url,
        scheme_id: String,
        token_in: TokenIn,
    },
    Http {
        url: Url,
        method: TargetMethod,
        headers: Headers,
        auth: TargetAuth,
        wrap: Wrap,
        /// JSON pointer → the value that the answer must hold there.
        success: IndexMap<String, Value>,
        read_url: Option<Url>,
    },
}

impl Endpoint {
    /// `None` if a required key is missing, which the rules report by name.
    pub(super) fn resolve(target: &types::TargetKeys) -> Option<Self> {
        Some(match target.kind {
            TargetKind::Qeasy => Self::Qeasy {
                base_url: target.base_url.clone().unwrap_or_else(|| known_url("https://api.qeasy.cloud")),
                scheme_id: target.scheme_id.clone()?,
                token_in: target.token_in.unwrap_or_default(),
            },
            TargetKind::Http => Self::Http {
                url: target.url.clone()?,
                method: target.method.unwrap_or_default(),
                headers: target.headers.clone().unwrap_or_default(),
                auth: target.auth.unwrap_or_default(),
                wrap: target.wrap.unwrap_or_default(),
                success: target.success.clone().unwrap_or_default(),
                read_url: target.read_url.clone(),
            },
        })
    }

    #[cfg(feature = "cli")]
    pub(crate) fn kind(&self) -> TargetKind {
        match self {
            Self::Qeasy { .. } => TargetKind::Qeasy,
            Self::Http { .. } => TargetKind::Http,
        }
    }
}

impl Config {
    /// `None` if a required key of the target is missing, which the rules report by name.
    pub(super) fn resolve(pipeline: Pipeline, rows: RowMap) -> Option<Self> {
        let Pipeline { connection, source, target, guard, notify, report, .. } = pipeline;
        let endpoint = Endpoint::resolve(&target)?;
        Some(Self {
            connection,
            target: TargetConfig {
                endpoint,
                batching: Batching {
                    max_rows: target.max_rows_per_batch,
                    max_bytes: target.max_bytes_per_batch,
                    max_concurrency: target.max_concurrency.unwrap_or(source.max_concurrency),
                },
                limit: Limit {
                    requests_per_minute: target.requests_per_minute,
                    reserve_ratio: target.reserve_ratio,
                },
                on_delete: target.on_delete,
            },
            source: SourceConfig {
                base_url: source.base_url,
                api: source.api.path(),
                id: source.id,
                number: source.number,
                id_check: source.id_check,
                products: source.products.unwrap_or_else(|| Products::default_of(&rows)),
                page_size: source.page_size,
                max_requests_per_second: source.max_requests_per_second,
                max_concurrency: source.max_concurrency,
            },
            rows,
            guard,
            notify: notify.resolve(),
            report,
        })
    }

    /// How often all products are read; `None` if every run reads all of them.
    pub(crate) fn full_read_every(&self) -> Option<Duration> {
        (self.source.products == Products::Incremental).then_some(self.guard.full_read_every)
    }
}

impl Products {
    /// Incremental where the rows use products, else not at all.
    fn default_of(rows: &RowMap) -> Self {
        if rows.uses_products() { Self::Incremental } else { Self::None }
    }
}
