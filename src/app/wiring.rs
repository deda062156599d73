//! From a resolved pipeline and its credentials to the plain values that source, target and run take.

use std::sync::Arc;

use indexmap::IndexMap;
use secrecy::SecretString;

use super::connections::Connection;
use crate::clock::Clock;
use crate::config::credentials::Credentials;
use crate::config::{Config, Endpoint, TargetAuth, TargetMethod};
use crate::error::Side;
use crate::net::limit::Pace;
use crate::okki::SourceSettings;
use crate::store::Store;
use crate::store::limits::AccountLimits;
use crate::sync::{RunContext, RunSettings};
use crate::targets::TargetSettings;

/// What the source needs of a pipeline.
pub(super) fn source(config: &Config, credentials: &Credentials) -> SourceSettings {
    let source = &config.source;
    SourceSettings {
        base_url: source.base_url.clone(),
        api: source.api.to_owned(),
        id: source.id.clone(),
        number: source.number.clone(),
        id_check: source.id_check,
        page_size: source.page_size,
        max_requests_per_second: source.max_requests_per_second,
        max_concurrency: source.max_concurrency,
        client_id: credentials.okki_client_id.clone(),
        client_secret: credentials.okki_client_secret.clone(),
    }
}

/// What the target needs of a pipeline.
pub(super) fn target(config: &Config, credentials: &Credentials) -> TargetSettings {
    let given = |secret: &Option<SecretString>| secret.clone().unwrap_or_default();
    match config.target.endpoint.clone() {
        Endpoint::Qeasy { base_url, scheme_id, token_in } => TargetSettings::Qeasy {
            base_url,
            scheme_id,
            token_in,
            app_key: given(&credentials.qeasy_app_key),
            app_secret: given(&credentials.qeasy_app_secret),
        },
        Endpoint::Http { url, method, headers, auth, wrap, success, read_url } => TargetSettings::Http {
            url,
            method: match method {
                TargetMethod::Post => http::Method::POST,
                TargetMethod::Put => http::Method::PUT,
                TargetMethod::Patch => http::Method::PATCH,
            },
            headers: headers
                .0
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect::<IndexMap<_, _>>(),
            token: if auth == TargetAuth::Bearer { credentials.target_token.clone() } else { None },
            wrap,
            success,
            read_url,
        },
    }
}

/// The pace of a connection towards its target's account.
pub(super) fn target_pace(config: &Config, limits: &AccountLimits) -> Arc<Pace> {
    let limit = config.target.limit;
    let account = Arc::clone(limits.account());
    Arc::new(Pace::per_minute(
        limit.requests_per_minute,
        limit.reserve_ratio,
        Side::Target,
        &config.connection,
        account,
    ))
}

/// What a run of this connection works with.
pub(super) fn context<'a>(connection: &'a Connection, store: &'a Store, clock: Clock) -> RunContext<'a> {
    let config = &connection.config;
    RunContext {
        connection: &config.connection,
        okki: &connection.okki,
        target: &connection.target,
        store,
        limits: &connection.limits,
        rows: &config.rows,
        clock,
        settings: settings(config),
    }
}

/// What the pipeline file says about a run itself.
pub(super) fn settings(config: &Config) -> RunSettings {
    let batching = config.target.batching;
    RunSettings {
        on_delete: config.target.on_delete,
        max_delete_ratio: config.guard.max_delete_ratio,
        max_held_ratio: config.guard.max_held_ratio,
        full_read_every: config.full_read_every(),
        max_rows_per_batch: batching.max_rows,
        max_bytes_per_batch: batching.max_bytes,
        max_concurrency: batching.max_concurrency,
    }
}
