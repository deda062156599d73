//! What a target needs to know. The app fills it from a pipeline and its credentials.

use http::Method;
use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::batch::Wrap;
use crate::net::{exposed, stored_host};

/// How Qeasy's token travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenIn {
    /// In a header, where proxies do not log it.
    #[default]
    Header,
    /// In the query of the URL.
    Query,
}

/// Which target, with all that it needs.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one for each connection")]
pub(crate) enum TargetSettings {
    /// A Qeasy scheme.
    Qeasy {
        base_url: Url,
        scheme_id: String,
        token_in: TokenIn,
        app_key: SecretString,
        app_secret: SecretString,
    },
    /// Any endpoint that takes an array of rows.
    Http {
        url: Url,
        /// POST, PUT or PATCH.
        method: Method,
        /// Extra headers.
        headers: IndexMap<String, SecretString>,
        /// Bearer token.
        token: Option<SecretString>,
        wrap: Wrap,
        /// JSON pointers and the values that mean success.
        success: IndexMap<String, Value>,
        /// Where rows are read back.
        read_url: Option<Url>,
    },
}

impl TargetSettings {
    /// Where the calls go.
    pub(crate) fn address(&self) -> &Url {
        match self {
            Self::Qeasy { base_url, .. } => base_url,
            Self::Http { url, .. } => url,
        }
    }

    /// Whose limit its calls count against: host and key. A limit that needs no key is the host's.
    pub(crate) fn account(&self) -> (&str, &str) {
        match self {
            Self::Qeasy { base_url, app_key, .. } => (stored_host(base_url), exposed(app_key)),
            Self::Http { url, token, .. } => (stored_host(url), token.as_ref().map_or("", exposed)),
        }
    }

    /// Names the target in the state, without its address on this machine: a local server changes its port.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Qeasy { base_url, scheme_id, .. } => format!("qeasy {} {scheme_id}", stored_host(base_url)),
            Self::Http { url, .. } => format!("http {} {}", stored_host(url), url.path()),
        }
    }
}

/// How often the target may be called.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Calls per minute.
    pub requests_per_minute: u32,
    /// Share of the limit that the target's headers announce which is left to others, 0.0 to 0.9.
    pub reserve_ratio: f64,
}
