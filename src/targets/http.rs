//! The plain HTTP target: any endpoint that takes rows as JSON.

use indexmap::IndexMap;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::answer::{
    BodyCode, ReadPage, Verdict, bad_answer, count_rows, denies_success, refused_by_firewall,
};
use super::batch::Batch;
use super::body::AnswerBody;
use super::{TargetRun, TokenIn, with_token};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::net::{
    Answer, Call, CallError, MAX_LIST_BYTES, MAX_VERDICT_BYTES, Request, exposed, judge_status,
    server_message,
};
use crate::words::{say, written};

/// Headers with a shorter value are words ("true", "json"), which an answer may hold too. Longer ones may be keys.
const SHORTEST_KEY_BYTES: usize = 8;

pub(super) struct HttpTarget {
    pub url: Url,
    pub method: http::Method,
    pub headers: IndexMap<String, SecretString>,
    /// JSON pointers and the values that mean success.
    pub success: IndexMap<String, Value>,
    pub read_url: Option<Url>,
}

impl HttpTarget {
    /// Headers that may hold a key.
    pub(super) fn secret_headers(&self) -> impl Iterator<Item = &SecretString> {
        self.headers.values().filter(|value| exposed(value).len() >= SHORTEST_KEY_BYTES)
    }

    pub(super) async fn write(&self, run: TargetRun<'_>, budget: &Budget, batch: &Batch) -> Result<Verdict> {
        let build = |token: Option<&SecretString>| {
            // The rows carry their ids: writing one twice leaves it as it is. Some endpoints echo them.
            let request = Request::post(self.url.clone(), batch.body.clone())
                .idempotent()
                .answered_by_at_most(MAX_VERDICT_BYTES.max(2 * batch.body.len()));
            let mut request = self.with_headers(request, token);
            request.method = self.method.clone();
            request
        };
        let judge = |answer: &Answer, now_ms| written(answer, batch.entries.len(), &self.success, now_ms);
        run.call(budget, Call::new("write").quoting(Verdict::requoted), build, judge).await
    }

    pub(super) async fn read_back(&self, run: TargetRun<'_>, budget: &Budget) -> Result<ReadPage> {
        let Some(url) = &self.read_url else {
            return Err(Error::new(
                ErrorKind::BadPipeline,
                say!("target.read_url is not set: a target of kind http says nowhere else what it holds"),
            )
            .help(say!("set it to a GET address that lists the rows")));
        };
        let build = |token: Option<&SecretString>| {
            self.with_headers(Request::get(url.clone()).answered_by_at_most(MAX_LIST_BYTES), token)
        };
        run.call(budget, Call::new("read back"), build, listed).await
    }

    fn with_headers(&self, request: Request, token: Option<&SecretString>) -> Request {
        let mut request = with_token(request, token, TokenIn::Header);
        request.headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        request
    }
}

/// Judges the answer to a batch of `sent` rows. Without `success`, a 2xx counts unless its body says the opposite.
pub(super) fn written(
    answer: &Answer,
    sent: usize,
    success: &IndexMap<String, Value>,
    now_ms: u64,
) -> Result<Verdict, CallError> {
    let message = server_message(&answer.body);
    if matches!(answer.status.as_u16(), 400 | 413 | 422) {
        return Ok(Verdict::Refused(written!(
            "HTTP {status}: {message}",
            status = answer.status.as_u16(),
            message
        )));
    }
    if let Some(reason) = refused_by_firewall(answer) {
        return Ok(Verdict::Refused(reason));
    }
    if let Some(error) = judge_status(answer, Side::Target, now_ms) {
        return Err(error);
    }
    let Some(body) = AnswerBody::parse(&answer.body) else {
        if success.is_empty() && is_plain_text(answer) {
            return Ok(Verdict::Accepted);
        }
        return Err(bad_answer(say!("target answered something that is not JSON: {message}", message)));
    };
    if success.is_empty() && (denies_success(&body) || !BodyCode::of(&body).allows_success()) {
        return Ok(Verdict::Refused(message));
    }
    if let Some((pointer, wanted)) = unfulfilled(success, &answer.body) {
        return Ok(Verdict::Unfulfilled {
            asked: written!("{pointer} is not {wanted}", pointer, wanted),
            said: message,
        });
    }
    Ok(count_rows(&body, sent))
}

/// The first pointer that does not lead to its value.
fn unfulfilled<'a>(success: &'a IndexMap<String, Value>, body: &[u8]) -> Option<(&'a String, &'a Value)> {
    if success.is_empty() {
        return None;
    }
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    success.iter().find(|(pointer, wanted)| json.pointer(pointer) != Some(wanted))
}

/// Many endpoints answer nothing, or "ok". A page comes from a proxy or a login, and broken JSON from a mistake: no row
/// is stored then.
fn is_plain_text(answer: &Answer) -> bool {
    let body = answer.body.trim_ascii();
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("text/plain");
    body.is_empty() || (kind.starts_with("text/plain") && !body.starts_with(b"<"))
}

/// Reads the rows of `read_url`: an array, or an object that holds one as `groups`, `content`, `data` or `rows`.
pub(super) fn listed(answer: &Answer, now_ms: u64) -> Result<ReadPage, CallError> {
    if let Some(error) = judge_status(answer, Side::Target, now_ms) {
        return Err(error);
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let rows = json
        .as_array()
        .or_else(|| ["groups", "content", "data", "rows"].iter().find_map(|key| json.get(key)?.as_array()))
        .ok_or_else(|| bad_answer(say!("target's read_url answered no list of rows")))?;
    Ok(ReadPage { rows: rows.clone(), total: Some(rows.len() as u64) })
}
