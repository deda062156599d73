//! The rules that need more than one key, and the way from a file's value to a [`Pipeline`].

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::file::{Document, join};
use super::notify_keys::NotifyKeys;
use super::types::{
    Guard, Pipeline, Products, ReportKeys, SourceKeys, TargetAuth, TargetKeys, TargetKind, default_connection,
};
use super::{prune, schema};
use crate::error::Diagnostic;
use crate::transform::{RecordSpec, RowMap};
use crate::words::{Message, say};

/// The keys of `[target]` that only one kind has.
const QEASY_KEYS: [&str; 3] = ["base_url", "scheme_id", "token_in"];
const HTTP_KEYS: [&str; 7] = ["url", "method", "headers", "auth", "wrap", "success", "read_url"];

/// The largest of Qeasy's plans.
const QEASY_REQUESTS_PER_MINUTE: u32 = 5_000;

/// Headers that follow from the request itself.
const OWN_HEADERS: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

/// The pipeline with its compiled `[record]`, or everything that is wrong with the file.
pub(super) fn check(document: &mut Document, schema: &Value) -> Result<(Pipeline, RowMap), Vec<Diagnostic>> {
    let outcome = schema::check(schema, &document.value);
    let mut findings = std::mem::take(&mut document.findings);
    for finding in outcome.findings {
        if !findings.iter().any(|earlier| earlier.place == finding.place) {
            findings.push(finding);
        }
    }
    prune::prune(&mut document.value, &outcome.offenders);

    let mut rules = Rules { value: &document.value, settled: &findings, found: Vec::new() };
    let pipeline = rules.pipeline();
    findings.extend(std::mem::take(&mut rules.found));
    match pipeline {
        Some(pipeline) if findings.is_empty() => Ok(pipeline),
        _ => Err(document.mistakes(findings)),
    }
}

struct Rules<'d> {
    value: &'d Value,
    /// What the schema says already: a key that does not fit must not be called missing as well.
    settled: &'d [Diagnostic],
    found: Vec<Diagnostic>,
}

impl Rules<'_> {
    fn pipeline(&mut self) -> Option<(Pipeline, RowMap)> {
        let source: Option<SourceKeys> = self.section("source");
        let record: Option<RecordSpec> = self.section("record");
        let target: Option<TargetKeys> = self.section("target");
        let guard: Option<Guard> = self.section("guard");
        let notify: Option<NotifyKeys> = self.section("notify");
        let report: Option<ReportKeys> = self.section("report");
        if let Some(source) = &source {
            self.base_url("source.base_url", Some(&source.base_url));
        }
        if let Some(target) = &target {
            self.target(target);
        }
        let (source, record) = (source?, record?);
        let rows = self.rows(&source, &record);
        let rows = rows.and_then(|rows| self.guarded(rows, guard.as_ref()));
        let connection = match self.value.get("connection") {
            Some(name) => name.as_str()?.to_owned(),
            None => default_connection(),
        };
        Some((
            Pipeline {
                connection,
                source,
                record,
                target: target?,
                guard: guard?,
                notify: notify?,
                report: report?,
            },
            rows?,
        ))
    }

    /// A table of the file; a missing one is like an empty one.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.value.get(name).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let section = serde_json::from_value(value).ok();
        if section.is_none() {
            // The schema was checked, so this names a table whose mistake is known; serde's own message could
            // repeat a value.
            self.add(
                name,
                say!("does not fit the schema"),
                say!("compare it with what okki-sync schema prints"),
            );
        }
        section
    }

    fn rows(&mut self, source: &SourceKeys, record: &RecordSpec) -> Option<RowMap> {
        if self.is_settled("source.id") || self.is_settled("source.number") {
            return None;
        }
        match RowMap::compile(record, &source.id, &source.number) {
            Ok(rows) => {
                if source.products == Some(Products::None) && rows.uses_products() {
                    self.add(
                        "source.products",
                        say!("is \"none\", but the record uses products"),
                        say!("write \"incremental\" or \"full\", or choose record.shape = \"groups\""),
                    );
                }
                Some(rows)
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    self.add(&mistake.place, mistake.message, mistake.help);
                }
                None
            }
        }
    }

    /// The rows with their value guards.
    fn guarded(&mut self, rows: RowMap, guard: Option<&Guard>) -> Option<RowMap> {
        match rows.guarded_by(guard.map_or(&[], |guard| &guard.values)) {
            Ok(rows) => Some(rows),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.add(&mistake.place, mistake.message, mistake.help);
                }
                None
            }
        }
    }

    fn target(&mut self, target: &TargetKeys) {
        match target.kind {
            TargetKind::Qeasy => {
                self.keys_of_other_kind(&HTTP_KEYS, "http", "qeasy");
                self.base_url("target.base_url", target.base_url.as_ref());
                if target.requests_per_minute > QEASY_REQUESTS_PER_MINUTE {
                    self.add(
                        "target.requests_per_minute",
                        say!(
                            "{requests_per_minute} is more than Qeasy's largest plan allows",
                            requests_per_minute = target.requests_per_minute
                        ),
                        say!("write a number from 1 to {most}", most = QEASY_REQUESTS_PER_MINUTE),
                    );
                }
                if target.scheme_id.is_none() {
                    self.add(
                        "target.scheme_id",
                        say!("is missing"),
                        say!("add the id of the Qeasy scheme, or set QEASY_SCHEME_ID"),
                    );
                }
            }
            TargetKind::Http => {
                self.keys_of_other_kind(&QEASY_KEYS, "qeasy", "http");
                if target.url.is_none() {
                    self.add(
                        "target.url",
                        say!("is missing"),
                        say!("add the URL that takes the batches, or set TARGET_BASE_URL"),
                    );
                }
                self.headers(target);
                self.success(target);
            }
        }
    }

    fn keys_of_other_kind(&mut self, keys: &[&str], other: &str, kind: &str) {
        for key in keys {
            let written = self.value.get("target").and_then(|target| target.get(key));
            if written.is_some_and(|value| !value.is_null()) {
                let help = match (*key, kind) {
                    ("base_url", "http") => say!("write url, the whole URL"),
                    ("url", "qeasy") => say!("write base_url, scheme and host only"),
                    _ => say!("remove it, or write kind = \"{other}\"", other),
                };
                self.add(
                    &join("target", key),
                    say!("belongs to kind \"{other}\", and this is \"{kind}\"", other, kind),
                    help,
                );
            }
        }
    }

    fn base_url(&mut self, path: &str, url: Option<&url::Url>) {
        if url.is_some_and(|url| url.query().is_some()) {
            self.add(
                path,
                say!("has a query (?), which calls would lose"),
                say!("write scheme and host only"),
            );
        }
    }

    fn headers(&mut self, target: &TargetKeys) {
        for (name, value) in target.headers.iter().flat_map(|headers| &headers.0) {
            let path = join("target.headers", name);
            let lower = name.to_ascii_lowercase();
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.add(&path, say!("is not a header name"), say!("use letters, digits and -"));
            } else if http::HeaderValue::from_str(value).is_err() {
                self.add(&path, say!("is not a header value"), say!("use visible characters on one line"));
            } else if OWN_HEADERS.contains(&lower.as_str()) {
                self.add(&path, say!("follows from the request itself"), say!("remove it"));
            } else if lower == "authorization" && target.auth == Some(TargetAuth::Bearer) {
                self.add(
                    &path,
                    say!("is sent already because of auth = \"bearer\""),
                    say!("remove it, or write auth = \"none\""),
                );
            }
        }
    }

    fn success(&mut self, target: &TargetKeys) {
        for pointer in target.success.iter().flat_map(|success| success.keys()) {
            if !is_json_pointer(pointer) {
                self.add(
                    &join("target.success", pointer),
                    say!("is not a JSON pointer"),
                    say!("start it with /, as in \"/code\" or \"/data/status\""),
                );
            }
        }
    }

    fn add(&mut self, path: &str, what: impl Into<Message>, help: impl Into<Message>) {
        if !self.is_settled(path) {
            self.found.push(Diagnostic::new(path, what, help));
        }
    }

    /// Whether the schema has a finding at this path, around it or inside it.
    fn is_settled(&self, path: &str) -> bool {
        self.settled.iter().any(|finding| is_within(&finding.place, path) || is_within(path, &finding.place))
    }
}

fn is_within(inner: &str, outer: &str) -> bool {
    outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// RFC 6901: empty, or parts that each start with `/`, with `~` only as `~0` and `~1`.
fn is_json_pointer(text: &str) -> bool {
    let escapes_fit = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    escapes_fit && (text.is_empty() || text.starts_with('/'))
}
