//! OKKI's wire format: token, envelope, groups and product pages, in every spelling that is known.
//!
//! Types are not to be relied on: numbers come as strings, `[]` where `{}` is meant, and HTTP 200 with a failing body
//! code is real. Everything here accepts what was seen and reports the rest; nothing is guessed.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::JsonCursor;
use super::row::scalar;
use crate::error::{ErrorKind, Side};
use crate::net::retry::FailureKind;
use crate::net::{Answer, CallError, Token, judge_status, server_message};
use crate::words::{Message, say};

/// A longer answer is not searched for an OAuth error: it holds rows.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// A client_credentials token without `expires_in` lasts this long (OKKI's documentation).
const TOKEN_LIFETIME: Duration = Duration::from_secs(8 * 3600);

fn call_error(failure: FailureKind, kind: ErrorKind, message: impl Into<Message>) -> CallError {
    CallError { failure, kind, message: message.into() }
}

/// Not JSON, or not this API's JSON. A proxy's error page looks like this, so another attempt may succeed.
fn not_okki(body: &[u8], what: Message) -> CallError {
    call_error(
        FailureKind::ServerError,
        ErrorKind::BadAnswer(Side::Source),
        say!("source answered {what}: {body}", what, body = server_message(body)),
    )
}

/// Reads the answer of the login.
pub(super) fn token(answer: &Answer, now_ms: u64) -> Result<Token, CallError> {
    #[derive(Deserialize)]
    struct Reply {
        access_token: Option<secrecy::SecretString>,
        expires_in: Option<u64>,
    }
    let status = answer.status.as_u16();
    // An outage is not a refusal, even if its body has an `error`.
    if let (408 | 429 | 500..=599, Some(error)) = (status, judge_status(answer, Side::Source, now_ms)) {
        return Err(error);
    }
    if matches!(status, 400 | 401 | 403) || oauth_error(&answer.body).is_some() {
        return Err(refused_credentials(&answer.body));
    }
    if let Some(error) = judge_status(answer, Side::Source, now_ms) {
        return Err(error);
    }
    let reply: Reply = serde_json::from_slice(&answer.body)
        .map_err(|_| not_okki(b"", say!("something other than a token")))?;
    match reply.access_token {
        Some(value) => {
            Ok(Token { value, expires_in: reply.expires_in.map_or(TOKEN_LIFETIME, Duration::from_secs) })
        }
        None => Err(not_okki(&answer.body, say!("without a token"))),
    }
}

fn server_time(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Timed {
        now: Option<String>,
    }
    serde_json::from_slice::<Timed>(body).ok()?.now
}

fn oauth_error(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct OAuthError {
        error: Option<String>,
    }
    serde_json::from_slice::<OAuthError>(body).ok()?.error
}

fn refused_credentials(body: &[u8]) -> CallError {
    let error = oauth_error(body).unwrap_or_default();
    let said = server_message(body);
    let help = if said.contains("scope") || error.contains("scope") {
        say!("grant the app the product module in OKKI's admin console")
    } else {
        say!("check OKKI_CLIENT_ID and OKKI_CLIENT_SECRET")
    };
    if matches!(error.as_str(), "server_error" | "temporarily_unavailable") {
        let message = say!("source's login failed: {error} {said}", error, said);
        return call_error(FailureKind::ServerError, ErrorKind::Unavailable(Side::Source), message);
    }
    call_error(
        FailureKind::Refused,
        ErrorKind::CredentialsRefused(Side::Source),
        say!("source refused the credentials: {error} {said}; {help}", error, said, help),
    )
}

/// An integer; sibling endpoints send it as a string.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Int<'a> {
    Number(i64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Int<'_> {
    /// `None` if the text is not an integer.
    pub(super) fn value(&self) -> Option<i64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

#[derive(Deserialize)]
struct OkkiEnvelope<'a> {
    #[serde(borrow)]
    code: Option<Int<'a>>,
    #[serde(borrow, alias = "msg")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// The document's sample has its rows here, without an envelope.
    #[serde(borrow, rename = "productGroups")]
    product_groups: Option<&'a RawValue>,
}

/// Opens the envelope: the `data` of a successful answer.
pub(super) fn data(answer: &Answer, now_ms: u64) -> Result<&RawValue, CallError> {
    // OKKI sends it under any status.
    if answer.body.len() < MAX_ERROR_BYTES && oauth_error(&answer.body).as_deref() == Some("access_denied") {
        return Err(call_error(
            FailureKind::Unauthorized,
            ErrorKind::CredentialsRefused(Side::Source),
            say!("source answered access_denied also for a fresh token; check the app's permissions in OKKI"),
        ));
    }
    if let Some(error) = judge_status(answer, Side::Source, now_ms) {
        return Err(error);
    }
    let text =
        std::str::from_utf8(&answer.body).map_err(|_| not_okki(b"", say!("bytes that are not UTF-8")))?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|_| not_okki(&answer.body, say!("broken JSON")));
    }
    let envelope: OkkiEnvelope<'_> = serde_json::from_str(text)
        .map_err(|_| not_okki(&answer.body, say!("something that is not its JSON")))?;
    if let Some(rows) = envelope.product_groups {
        return Ok(rows);
    }
    let words = crate::net::excerpt(&envelope.message.or(envelope.error).unwrap_or_default(), &[]);
    match envelope.code.as_ref().map(Int::value) {
        None | Some(Some(200 | 0)) => {}
        Some(code) => return Err(failing_code(code, &words)),
    }
    envelope.data.ok_or_else(|| not_okki(&answer.body, say!("without data")))
}

/// HTTP 200 with a failing body code is real.
fn failing_code(code: Option<i64>, words: &str) -> CallError {
    let message = match code {
        Some(code) => say!("source answered HTTP 200 with body code {code}: {words}", code, words),
        None => say!("source answered a body code that is not a number: {words}", words),
    };
    let (failure, kind) = match code {
        Some(401) => (FailureKind::Unauthorized, ErrorKind::CredentialsRefused(Side::Source)),
        Some(429) => (FailureKind::Throttled(None), ErrorKind::Throttled(Side::Source)),
        Some(400..=499) => (FailureKind::NotSupported, ErrorKind::BadAnswer(Side::Source)),
        _ => (FailureKind::ServerError, ErrorKind::BadAnswer(Side::Source)),
    };
    call_error(failure, kind, message)
}

/// A page of products, its rows as they came.
pub(super) struct Page<'a> {
    /// `data.count` (not the request's `count`, which is the page size) or `data.totalItem`.
    pub total: u64,
    pub rows: Vec<&'a RawValue>,
}

/// Reads a product page out of `data`.
pub(super) fn page(data: &RawValue) -> Result<Page<'_>, CallError> {
    #[derive(Deserialize)]
    struct PageBody<'a> {
        #[serde(borrow)]
        count: Option<Int<'a>>,
        #[serde(borrow, rename = "totalItem")]
        total_item: Option<Int<'a>>,
        #[serde(borrow)]
        list: Option<Vec<&'a RawValue>>,
    }
    // An empty PHP array is `[]` where a filled one is an object.
    if data
        .get()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|rest| rest.trim().is_empty())
    {
        return Ok(Page { total: 0, rows: Vec::new() });
    }
    let bad = || not_okki(b"", say!("a product page without list and count (or totalItem)"));
    let body: PageBody<'_> = serde_json::from_str(data.get()).map_err(|_| bad())?;
    let total =
        body.total_item.or(body.count).as_ref().and_then(Int::value).and_then(|n| u64::try_from(n).ok());
    match (total, body.list) {
        (Some(total), Some(rows)) => Ok(Page { total, rows }),
        (Some(0), None) => Ok(Page { total: 0, rows: Vec::new() }),
        _ => Err(bad()),
    }
}

/// Where each row of a page is in its body, for the few rows that go into the quarantine.
pub(super) fn places_of_rows(body: &[u8]) -> Vec<Range<usize>> {
    rows_of_page(body).into_iter().map(|row| range_in(body, row.get())).collect()
}

fn rows_of_page(body: &[u8]) -> Vec<&RawValue> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        list: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        data: List<'a>,
    }
    serde_json::from_slice::<Page<'_>>(body).map(|page| page.data.list).unwrap_or_default()
}

/// The rows of the groups call, as they came.
pub(super) struct GroupList {
    body: Bytes,
    /// Where each row is in the body.
    rows: Vec<Range<usize>>,
    /// The server's own time (Beijing), as the server writes it.
    pub now: Option<String>,
}

impl GroupList {
    /// `rows` are parts of `body`.
    fn new(body: &Bytes, rows: &[&str], now: Option<String>) -> Self {
        Self { body: body.clone(), rows: rows.iter().map(|row| range_in(body, row)).collect(), now }
    }

    /// Rows that did not come in one answer.
    pub(super) fn of_rows(rows: &[String]) -> Self {
        let body = Bytes::from(rows.join("\n"));
        let mut end = 0;
        let place = |row: &String| {
            let start = end;
            end += row.len() + 1;
            start..start + row.len()
        };
        Self { rows: rows.iter().map(place).collect(), body, now: None }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &str> {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        self.rows.iter().filter_map(|row| text.get(row.clone()))
    }
}

/// Where a part of a text is in it.
fn range_in(text: &[u8], part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.len()
}

/// Reads the flat array of groups out of an answer.
pub(super) fn groups(answer: &Answer, now_ms: u64) -> Result<GroupList, CallError> {
    if answer.status.is_success()
        && let Some(list) = plain_groups(&answer.body)
    {
        return Ok(list);
    }
    let data = data(answer, now_ms)?;
    let array = serde_json::from_str(data.get());
    // Sibling endpoints wrap their array as data.list.
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        list: Vec<&'a RawValue>,
    }
    let rows: Vec<&RawValue> = array
        .or_else(|_| serde_json::from_str(data.get()).map(|wrapped: Wrapped<'_>| wrapped.list))
        .map_err(|_| not_okki(b"", say!("groups that are not a list")))?;
    let rows: Vec<&str> = rows.into_iter().map(RawValue::get).collect();
    Ok(GroupList::new(&answer.body, &rows, server_time(&answer.body)))
}

/// The fast path, for a well-formed `{"code", "message", "now", "data": [ … ]}`; `None` leaves the answer to [`data`].
fn plain_groups(body: &Bytes) -> Option<GroupList> {
    let mut cursor = JsonCursor::new(std::str::from_utf8(body).ok()?);
    let (mut rows, mut now) = (None, None);
    cursor.object(|cursor, key| match key {
        "\"code\"" => is_success(cursor.value()?).then_some(()),
        "\"now\"" => {
            now = scalar(cursor.value()?).map(Cow::into_owned);
            Some(())
        }
        "\"data\"" => {
            let mut list = Vec::new();
            cursor.list(|cursor| cursor.value().map(|row| list.push(row)))?;
            rows = Some(list);
            Some(())
        }
        _ => skip_field(cursor, key),
    })?;
    cursor.expect_end()?;
    Some(GroupList::new(body, &rows?, now))
}

/// Whether a body code means success; a missing or null one does.
pub(super) fn is_success(code: &str) -> bool {
    matches!(code, "200" | "0" | "\"200\"" | "\"0\"" | "null")
}

/// Skips a field of an envelope that nobody needs. `None` where only [`data`] can tell what the answer means.
pub(super) fn skip_field<'a>(cursor: &mut JsonCursor<'a>, key: &'a str) -> Option<()> {
    if key.contains('\\') || matches!(key, "\"error\"" | "\"productGroups\"") {
        return None;
    }
    cursor.skip_value()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn login(status: u16, body: &str) -> CallError {
        let answer = Answer {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        };
        token(&answer, 0).unwrap_err()
    }

    #[test]
    fn an_outage_at_the_login_is_not_a_refusal() {
        let gateway = r#"{"timestamp":1,"status":503,"error":"Service Unavailable"}"#;
        assert_eq!(login(503, gateway).kind, ErrorKind::Unavailable(Side::Source));
        assert_eq!(login(429, r#"{"error":"too_many_requests"}"#).failure, FailureKind::Throttled(None));
        assert_eq!(login(400, r#"{"error":"server_error"}"#).failure, FailureKind::ServerError);
        let refused = login(400, r#"{"error":"invalid_client"}"#);
        assert_eq!(
            (refused.failure, refused.kind),
            (FailureKind::Refused, ErrorKind::CredentialsRefused(Side::Source))
        );
    }
}
