//! The environment: a lookup that tests can fill, and its overrides of the pipeline file.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use url::Url;

use super::file::Document;
use super::url_mistake;
use crate::error::Diagnostic;
use crate::words::say;

/// The environment variables; one that is empty counts as unset.
#[derive(Clone, Default)]
pub struct Env {
    /// `None`: the process's own.
    fixed: Option<BTreeMap<String, String>>,
}

/// Values may be credentials: only names are shown.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fixed {
            Some(variables) => f.debug_set().entries(variables.keys()).finish(),
            None => f.write_str("Env::process()"),
        }
    }
}

impl Env {
    /// The environment of this process.
    pub fn process() -> Self {
        Self { fixed: None }
    }

    /// An environment of these variables and no others.
    pub fn of<K: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { fixed: Some(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()) }
    }

    /// The same environment with one variable set otherwise; an empty value unsets it.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut variables = match &self.fixed {
            Some(variables) => variables.clone(),
            None => std::env::vars_os()
                .map(|(name, value)| {
                    (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
                })
                .collect(),
        };
        variables.insert(name.to_owned(), value.to_owned());
        Self { fixed: Some(variables) }
    }

    /// The variable's value, unless it is unset or blank.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = match &self.fixed {
            Some(variables) => variables.get(name).cloned(),
            // What is not Unicode is kept, garbled, so that a check names it instead of overlooking it.
            None => std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()),
        };
        value.filter(|value| !value.trim().is_empty())
    }

    /// `OKKI_SYNC_PIPELINE`: the pipeline file, a path or a key in the store.
    pub fn pipeline(&self) -> Option<String> {
        self.get("OKKI_SYNC_PIPELINE")
    }

    /// `OKKI_SYNC_STORE`: the store's URL.
    pub fn store(&self) -> Option<String> {
        self.get("OKKI_SYNC_STORE")
    }

    /// `OKKI_SYNC_SECRET`: the id or ARN of the secret that holds the credentials.
    pub fn secret(&self) -> Option<String> {
        self.get("OKKI_SYNC_SECRET")
    }

    /// `OKKI_SYNC_STALE_AFTER`: the default of `notify.stale_after`.
    pub(crate) fn stale_after(&self) -> Option<String> {
        self.get("OKKI_SYNC_STALE_AFTER")
    }

    /// The log level: Lambda's own setting, or `OKKI_SYNC_LOG`.
    pub fn log_level(&self) -> Option<String> {
        self.get("AWS_LAMBDA_LOG_LEVEL").or_else(|| self.get("OKKI_SYNC_LOG"))
    }

    /// Puts the overrides into the document.
    pub(super) fn apply(&self, document: &mut Document) {
        if let Some(base) = self.get("OKKI_BASE_URL") {
            document.put("source", "base_url", base, "OKKI_BASE_URL");
        }
        // What the deployment knows of its schedule; a connection may know better.
        if let Some(age) = self.stale_after()
            && document.get("notify", "stale_after").is_none()
        {
            document.put("notify", "stale_after", age, "OKKI_SYNC_STALE_AFTER");
        }
        match document.get("target", "kind").and_then(Value::as_str) {
            Some("qeasy") => self.apply_qeasy(document),
            Some("http") => self.apply_http(document),
            // Without a kind there is nothing to override; the file's mistake comes first.
            _ => {}
        }
    }

    fn apply_qeasy(&self, document: &mut Document) {
        if let Some(base) = self.get("TARGET_BASE_URL") {
            document.put("target", "base_url", base, "TARGET_BASE_URL");
        }
        if let Some(scheme) = self.get("QEASY_SCHEME_ID") {
            document.put("target", "scheme_id", scheme, "QEASY_SCHEME_ID");
        }
    }

    /// An HTTP target keeps its paths: only scheme, host and port are replaced.
    fn apply_http(&self, document: &mut Document) {
        const VARIABLE: &str = "TARGET_BASE_URL";
        let Some(base) = self.get(VARIABLE) else { return };
        for key in ["url", "read_url"] {
            let rebased = match document.get("target", key) {
                Some(Value::String(url)) => rebase_url(url, &base),
                None if key == "url" => Some(base.clone()),
                _ => None,
            };
            if let Some(rebased) = rebased {
                document.put("target", key, rebased, VARIABLE);
            }
        }
        let has_url = document.get("target", "url").and_then(Value::as_str).is_some_and(|url| url != base);
        if has_url && Url::parse(&base).is_ok_and(|base| base.path() != "/" || base.query().is_some()) {
            document.findings.push(Diagnostic::new(
                "target.url",
                say!("has a path, but an HTTP target keeps the path of its url"),
                say!("give scheme, host and port only"),
            ));
        }
    }
}

/// Returns `url` with the scheme, host and port of `base`. If `base` is invalid, returns it unchanged so that its error
/// is reported; if `url` is invalid, returns `None`.
fn rebase_url(url: &str, base: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    if url_mistake(base).is_some() {
        return Some(base.to_owned());
    }
    let base = Url::parse(base).ok()?;
    url.set_scheme(base.scheme()).ok()?;
    url.set_host(base.host_str()).ok()?;
    url.set_port(base.port()).ok()?;
    Some(url.into())
}
