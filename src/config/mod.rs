//! Pipeline file and environment → [`Config`], or all mistakes at once, each with its place and what to do.

use crate::words::{Message, Words, say};

pub(crate) mod credentials;
mod env;
mod file;
mod formats;
mod hosts;
mod notify_keys;
mod prune;
mod resolved;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod type_words;
mod types;

use std::sync::LazyLock;

use serde_json::Value;
use url::Url;

pub use env::Env;
pub use resolved::Config;
pub(crate) use resolved::Endpoint;
pub(crate) use types::{TargetAuth, TargetMethod};

use self::file::Document;
use self::types::Pipeline;
use crate::error::{Diagnostic, Error, ErrorKind};
use crate::transform::RowMap;

/// Reads a pipeline file (TOML or JSON by the ending of its name) under the environment's overrides.
pub fn parse(text: &str, name: &str, env: &Env) -> Result<Config, Vec<Diagnostic>> {
    resolved(name, read(text, name, env)?)
}

/// The same for a file that was found in the store: it may name only the hosts of `OKKI_SYNC_HOSTS`.
pub(crate) fn parse_stored(text: &str, name: &str, env: &Env) -> Result<Config, Vec<Diagnostic>> {
    let mut document = overridden(text, name, env)?;
    hosts::check(&mut document, env);
    resolved(name, rules::check(&mut document, &SCHEMA)?)
}

fn resolved(name: &str, (pipeline, rows): (Pipeline, RowMap)) -> Result<Config, Vec<Diagnostic>> {
    // The rules have seen every required key.
    Config::resolve(pipeline, rows).ok_or_else(|| {
        vec![Diagnostic::new(name, say!("a required key of [target] is missing"), say!("add it"))]
    })
}

/// What the file says, before defaults are filled in.
pub(crate) fn read(text: &str, name: &str, env: &Env) -> Result<(Pipeline, RowMap), Vec<Diagnostic>> {
    rules::check(&mut overridden(text, name, env)?, &SCHEMA)
}

fn overridden(text: &str, name: &str, env: &Env) -> Result<Document, Vec<Diagnostic>> {
    let mut document = Document::parse(text, name).map_err(|mistake| vec![mistake])?;
    env.apply(&mut document);
    Ok(document)
}

/// The mistakes as the one error that ends a run.
pub(crate) fn error_of(mistakes: &[Diagnostic]) -> Error {
    let message = match mistakes {
        [] => say!("the pipeline has mistakes: okki-sync check lists them"),
        [only] => only.words(),
        [first, rest @ ..] => {
            say!("{first}; and {more} more: okki-sync check lists all", first, more = rest.len())
        }
    };
    Error::new(ErrorKind::BadPipeline, message)
}

/// The JSON Schema of the pipeline file.
#[cfg(feature = "cli")]
pub(crate) fn schema() -> Value {
    SCHEMA.clone()
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Pipeline).to_value());

/// Whether this can name a connection. The name becomes part of paths in the store, so no dots or slashes.
pub(crate) fn is_connection_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

/// What is wrong with a URL that rows or credentials would travel to, and what to do. The URL is not repeated: it
/// may hold a password.
fn url_mistake(text: &str) -> Option<(Message, Message)> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            return Some((
                say!("is not a URL: {error}", error),
                say!("write it in full, as in \"https://host/path\""),
            ));
        }
    };
    let (what, help) = if !matches!(url.scheme(), "http" | "https") {
        (say!("is neither https nor http"), say!("write a URL that starts with https://"))
    } else if !url.username().is_empty() || url.password().is_some() {
        (
            say!("holds a user name or password"),
            say!("take it out; credentials come from the environment or the secret"),
        )
    } else if url.scheme() == "http" && !crate::net::is_loopback(&url) {
        (
            say!("is plain http to another machine"),
            say!("use https://; http:// is for 127.0.0.1, ::1 and localhost"),
        )
    } else if url.fragment().is_some() {
        (say!("has a fragment (#), which is never sent"), say!("take it out"))
    } else {
        return None;
    };
    Some((what, help))
}
