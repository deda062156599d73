//! From the configuration's words to the plain values that the edges take.

use indexmap::IndexMap;
use secrecy::SecretString;

use crate::config::credentials::Credentials;
use crate::config::{self, Config, Endpoint};
use crate::error::{Error, ErrorKind, Result};
use crate::okki;
use crate::targets;

/// What the source needs of a pipeline.
pub(super) fn source(config: &Config, credentials: &Credentials) -> okki::SourceSettings {
    let source = &config.pipeline.source;
    okki::SourceSettings {
        base_url: source.base_url.clone(),
        api: "/v1/product/groups".to_owned(),
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
pub(super) fn target(config: &Config, credentials: &Credentials) -> Result<targets::TargetSettings> {
    let none = || SecretString::from("");
    let endpoint = config.pipeline.target.endpoint().ok_or_else(|| {
        Error::new(ErrorKind::BadPipeline, "target: a required key is missing; okki-sync check names it")
    })?;
    Ok(match endpoint {
        Endpoint::Qeasy { base_url, scheme_id, token_in } => targets::TargetSettings::Qeasy {
            base_url,
            scheme_id,
            token_in: match token_in {
                config::TokenIn::Header => targets::TokenIn::Header,
                config::TokenIn::Query => targets::TokenIn::Query,
            },
            app_key: credentials.qeasy_app_key.clone().unwrap_or_else(none),
            app_secret: credentials.qeasy_app_secret.clone().unwrap_or_else(none),
        },
        Endpoint::Http { url, method, headers, auth, wrap, success, read_url } => {
            targets::TargetSettings::Http {
                url,
                method: match method {
                    config::TargetMethod::Post => http::Method::POST,
                    config::TargetMethod::Put => http::Method::PUT,
                    config::TargetMethod::Patch => http::Method::PATCH,
                },
                headers: headers
                    .0
                    .into_iter()
                    .map(|(name, value)| (name, value.into()))
                    .collect::<IndexMap<_, _>>(),
                token: if auth == config::Auth::Bearer { credentials.target_token.clone() } else { None },
                wrap: match wrap {
                    config::Wrap::Nothing => targets::Wrap::Array,
                    config::Wrap::Groups => targets::Wrap::Groups,
                    config::Wrap::Content => targets::Wrap::Content,
                },
                success,
                read_url,
            }
        }
    })
}
