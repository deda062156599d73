//! Qeasy's protocol: the login, `/store`, `/query`, and what its contradictory codes mean.
//!
//! Qeasy numbers its errors in two ways, sometimes under HTTP 200. `parse_envelope` reads both; a new code goes there.

use std::time::Duration;

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
use crate::error::{ErrorKind, Result, Side};
use crate::net::retry::{self, FailureKind};
use crate::net::{
    Answer, Auth, Call, CallError, Field, Login, MAX_PAGE_BYTES, Request, Token, exposed, join_path,
    judge_status, server_message,
};
use crate::words::{Message, say, written};

/// Rows per `/query` call: the largest page.
pub(super) const QUERY_PAGE: usize = 100;
/// Above its limit, Qeasy refuses every call for this long.
const LOCKOUT: Duration = Duration::from_secs(300);
/// A token without `expires_in` lasts this long (Qeasy's documentation).
const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);

/// One integration scheme.
pub(super) struct Qeasy {
    base_url: Url,
    scheme_id: String,
    token_in: TokenIn,
}

impl Qeasy {
    pub(super) fn new(base_url: Url, scheme_id: String, token_in: TokenIn) -> Self {
        Self { base_url, scheme_id, token_in }
    }

    pub(super) fn auth(&self, app_key: &SecretString, app_secret: &SecretString) -> Auth {
        let login = serde_json::json!({"app_key": exposed(app_key), "app_secret": exposed(app_secret)});
        let request = Request::post(join_path(&self.base_url, "/v2/oauth"), login.to_string()).idempotent();
        Auth::Login(Login { request, read: token })
    }

    pub(super) async fn store(&self, run: TargetRun<'_>, budget: &Budget, batch: &Batch) -> Result<Verdict> {
        let url = self.url("store");
        let build = |token: Option<&SecretString>| {
            with_token(Request::post(url.clone(), batch.body.clone()).idempotent(), token, self.token_in)
        };
        // One call reads back a page of rows. For a larger batch, sending it again is cheaper.
        let reading_is_cheaper = batch.entries.len() <= QUERY_PAGE && !batch.was_read_back;
        let call = Call::new("store")
            .quoting(Verdict::requoted)
            .when_lost(reading_is_cheaper.then_some(Verdict::Lost));
        let judge = |answer: &Answer, now_ms| stored(answer, batch.entries.len(), now_ms);
        run.call(budget, call, build, judge).await
    }

    /// The rows with these ids, of which there are at most [`QUERY_PAGE`].
    pub(super) async fn rows_by_id(
        &self,
        run: TargetRun<'_>,
        budget: &Budget,
        id_field: &str,
        ids: &[&str],
    ) -> Result<Vec<Value>> {
        // `$in`, because a plain string matches fuzzily.
        let filter = serde_json::json!({"page": 1, "pageSize": QUERY_PAGE, format!("CONTENT_{id_field}"): {"$in": ids}});
        Ok(self.query(run, budget, &filter).await?.rows)
    }

    /// A page of all rows, from 1.
    pub(super) async fn page(&self, run: TargetRun<'_>, budget: &Budget, page: u64) -> Result<ReadPage> {
        self.query(run, budget, &serde_json::json!({"page": page, "pageSize": QUERY_PAGE})).await
    }

    async fn query(&self, run: TargetRun<'_>, budget: &Budget, filter: &Value) -> Result<ReadPage> {
        let url = self.url("query");
        let build = |token: Option<&SecretString>| {
            let request = Request::post(url.clone(), filter.to_string()).idempotent();
            with_token(request.answered_by_at_most(MAX_PAGE_BYTES), token, self.token_in)
        };
        run.call(budget, Call::new("query").optional(), build, queried).await
    }

    fn url(&self, call: &str) -> Url {
        join_path(&self.base_url, &format!("/v2/open-api/business/{}/{call}", self.scheme_id))
    }
}

/// Reads the answer to the login.
pub(super) fn token(answer: &Answer, now_ms: u64) -> Result<Token, CallError> {
    let body = AnswerBody::parse(&answer.body).unwrap_or_default();
    let refused = || {
        let message = say!(
            "target refused the credentials: {body}; check QEASY_APP_KEY and QEASY_APP_SECRET",
            body = server_message(&answer.body)
        );
        CallError::new(FailureKind::Refused, ErrorKind::CredentialsRefused(Side::Target), message)
    };
    match BodyCode::of(&body) {
        BodyCode::Number(42901 | 40029) => return Err(throttled(answer, now_ms)),
        // An outage at the login does not refuse the credentials, whatever its body says.
        _ if matches!(answer.status.as_u16(), 408 | 429 | 500..=599) => {
            return Err(judge_status(answer, Side::Target, now_ms).unwrap_or_else(refused));
        }
        BodyCode::Number(50000 | 50001) => {
            let message = say!("target: {body}", body = server_message(&answer.body));
            return Err(unavailable(message));
        }
        BodyCode::Number(code) if code != 0 && code != 200 => return Err(refused()),
        _ => {}
    }
    if matches!(answer.status.as_u16(), 400 | 401 | 403) || denies_success(&body) {
        return Err(refused());
    }
    if let Some(error) = judge_status(answer, Side::Target, now_ms) {
        return Err(error);
    }
    let content = body.content.as_deref().unwrap_or(&body);
    let Some(value) = content.access_token.text() else {
        // Without its text, which may hold a token in another form.
        return Err(bad_answer(say!("target answered without a token: {body}", body = server_message(b""))));
    };
    let expires_in = match content.expires_in {
        Field::Integer(seconds) => u64::try_from(seconds).map_or(TOKEN_LIFETIME, Duration::from_secs),
        _ => TOKEN_LIFETIME,
    };
    Ok(Token { value: value.into(), expires_in })
}

/// With a time it is a limit that passes. Without one, a code of Qeasy's means the lockout.
fn throttled(answer: &Answer, now_ms: u64) -> CallError {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let wait = header("retry-after").and_then(|value| retry::retry_after(value, now_ms));
    let failure = wait.map_or(FailureKind::LockedOut(LOCKOUT), |wait| FailureKind::Throttled(Some(wait)));
    let message = say!("target wants no calls for a while: {body}", body = server_message(&answer.body));
    CallError::new(failure, ErrorKind::Throttled(Side::Target), message)
}

fn unavailable(message: Message) -> CallError {
    CallError::new(FailureKind::ServerError, ErrorKind::Unavailable(Side::Target), message)
}

/// What Qeasy's envelope says. What concerns the whole call is a [`CallError`].
enum Envelope {
    Success(AnswerBody),
    /// Rows are refused, or a filter; the reason.
    Refused(String),
}

fn parse_envelope(answer: &Answer, now_ms: u64) -> Result<Envelope, CallError> {
    let parsed = AnswerBody::parse(&answer.body);
    let code = parsed.as_ref().map_or(BodyCode::Absent, BodyCode::of);
    let message = server_message(&answer.body);
    match code {
        BodyCode::Number(42901 | 40029) => return Err(throttled(answer, now_ms)),
        BodyCode::Number(40102 | 40002 | 10001) => {
            return Err(CallError::new(
                FailureKind::Unauthorized,
                ErrorKind::CredentialsRefused(Side::Target),
                say!("target does not accept the token: {message}", message),
            ));
        }
        BodyCode::Number(40401 | 40003 | 40101) => {
            let message = say!(
                "target knows no such scheme (or not for this key): {message}; check target.scheme_id",
                message
            );
            let kind = ErrorKind::BadAnswer(Side::Target);
            return Err(CallError::new(FailureKind::NotSupported, kind, message));
        }
        BodyCode::Number(50000 | 50001) => {
            return Err(unavailable(say!("target had an error of its own: {message}", message)));
        }
        BodyCode::Number(40001 | 40005 | 50103 | 50201 | 50203 | 40901) => {
            return Ok(Envelope::Refused(message));
        }
        _ => {}
    }
    if matches!(answer.status.as_u16(), 400 | 413 | 422) {
        return Ok(Envelope::Refused(written!(
            "HTTP {status}: {message}",
            status = answer.status.as_u16(),
            message
        )));
    }
    if let Some(error) = judge_status(answer, Side::Target, now_ms) {
        return Err(error);
    }
    let Some(body) = parsed else {
        return Err(bad_answer(say!("target answered something that is not JSON: {message}", message)));
    };
    if denies_success(&body) || !code.allows_success() {
        let code = match code {
            BodyCode::Number(code) => written!("code {code}", code),
            BodyCode::Absent | BodyCode::Unreadable => written!("no code"),
        };
        return Ok(Envelope::Refused(written!("{code}: {message}", code, message)));
    }
    Ok(Envelope::Success(body))
}

/// Judges the answer to `/store` of `sent` rows.
pub(super) fn stored(answer: &Answer, sent: usize, now_ms: u64) -> Result<Verdict, CallError> {
    if let Some(reason) = refused_by_firewall(answer) {
        return Ok(Verdict::Refused(reason));
    }
    match parse_envelope(answer, now_ms)? {
        Envelope::Success(body) if confirms_success(&body) => Ok(count_rows(&body, sent)),
        Envelope::Success(_) => {
            let message = server_message(&answer.body);
            Err(bad_answer(say!("target answered neither success nor a count of rows: {message}", message)))
        }
        Envelope::Refused(reason) => Ok(Verdict::Refused(reason)),
    }
}

/// A success says so: by its flag, by Qeasy's code for it, or by the count of rows that it took.
fn confirms_success(body: &AnswerBody) -> bool {
    BodyCode::of(body) == BodyCode::Number(0)
        || body.success == Field::Bool(true)
        || !body.count(|body| &body.inserted).is_absent()
}

/// Reads the three shapes that `/query` has had: `content` as a list, `content.list`, and `content.rows`.
pub(super) fn queried(answer: &Answer, now_ms: u64) -> Result<ReadPage, CallError> {
    match parse_envelope(answer, now_ms)? {
        Envelope::Success(_) => {}
        Envelope::Refused(reason) => {
            let message = say!("target refused to read back: {reason}", reason);
            let kind = ErrorKind::BadAnswer(Side::Target);
            return Err(CallError::new(FailureKind::NotSupported, kind, message));
        }
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let without_rows = || bad_answer(say!("target answered a query without rows"));
    let content = json.get("content").ok_or_else(without_rows)?;
    let total = content.get("total").or_else(|| json.get("total")).and_then(Value::as_u64);
    let rows = content
        .as_array()
        .or_else(|| ["list", "rows"].iter().find_map(|key| content.get(key)?.as_array()))
        .ok_or_else(without_rows)?;
    Ok(ReadPage { rows: rows.iter().map(unwrapped).collect(), total })
}

/// `{id, content, created_at}` holds the row in `content`, as an object or as JSON text.
fn unwrapped(row: &Value) -> Value {
    match row.get("content") {
        Some(Value::Object(inner)) => Value::Object(inner.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| row.clone()),
        _ => row.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use indexmap::IndexMap;

    use super::super::answer::FailedRows;
    use super::super::http::written;
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: http::StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn a_code_or_a_flag_that_is_there_and_strange_is_no_success() {
        for body in [
            r#"{"code":"A0400","message":"参数错误"}"#,
            r#"{"code":"ERROR"}"#,
            r#"{"code":[],"inserted":1}"#,
            r#"{"success":"false"}"#,
            r#"{"success":0,"inserted":1}"#,
        ] {
            let plain = written(&answer(200, body), 1, &IndexMap::new(), 0).unwrap();
            assert!(matches!(plain, Verdict::Refused(_)), "{body}: {plain:?}");
            assert!(!matches!(stored(&answer(200, body), 1, 0), Ok(Verdict::Accepted)), "{body}");
        }
        for body in
            [r#"{"success":true,"code":0}"#, r#"{"success":true,"code":"200","content":{"inserted":1}}"#]
        {
            assert_eq!(stored(&answer(200, body), 1, 0).unwrap(), Verdict::Accepted, "{body}");
        }
    }

    #[test]
    fn a_count_of_failed_rows_is_read_in_every_form_and_never_taken_for_none() {
        for (failed, count) in
            [("0", 0), ("null", 0), ("\"0\"", 0), ("3", 3), ("\"3\"", 3), ("[\"a\",\"b\"]", 2)]
        {
            let body = format!(r#"{{"success":true,"code":0,"content":{{"inserted":1,"failed":{failed}}}}}"#);
            let read = match stored(&answer(200, &body), 1, 0).unwrap() {
                Verdict::PartlyFailed { failed, .. } => failed,
                _ => FailedRows::Count(0),
            };
            assert_eq!(read, FailedRows::Count(count), "{body}");
        }
        let body = r#"{"success":true,"content":{"failed":{"some":1}}}"#;
        assert!(matches!(stored(&answer(200, body), 1, 0).unwrap(), Verdict::PartlyFailed { .. }));
    }

    #[test]
    fn a_page_under_http_403_or_405_refuses_rows_and_not_the_key() {
        for status in [403, 405] {
            let page = answer(status, "\n<html><title>Blocked</title></html>");
            for verdict in [stored(&page, 1, 0), written(&page, 1, &IndexMap::new(), 0)] {
                assert!(matches!(verdict.unwrap(), Verdict::Refused(reason) if reason.contains("Blocked")));
            }
            assert!(queried(&page, 0).is_err());
        }
        let key = stored(&answer(403, r#"{"message":"IP not allowed"}"#), 1, 0).unwrap_err();
        assert_eq!(key.kind, ErrorKind::CredentialsRefused(Side::Target));
        let login = token(&answer(403, "<html>Blocked</html>"), 0).unwrap_err();
        assert_eq!(login.kind, ErrorKind::CredentialsRefused(Side::Target));
    }

    #[test]
    fn an_outage_at_the_login_is_no_refusal() {
        let body = r#"{"code":503,"message":"down"}"#;
        let error = token(&answer(503, body), 0).unwrap_err();
        assert_eq!(
            (error.failure, error.kind),
            (FailureKind::ServerError, ErrorKind::Unavailable(Side::Target))
        );
        assert_eq!(token(&answer(429, "{}"), 0).unwrap_err().failure, FailureKind::Throttled(None));
        assert_eq!(token(&answer(200, r#"{"code":40101}"#), 0).unwrap_err().failure, FailureKind::Refused);
    }

    #[test]
    fn a_refused_query_is_not_supported_and_nonsense_is_a_bad_answer() {
        for (status, body, failure) in [
            (200, r#"{"success":false,"code":40003}"#, FailureKind::NotSupported),
            (200, r#"{"success":false,"code":40001}"#, FailureKind::NotSupported),
            (404, r#"{"message":"no route"}"#, FailureKind::NotSupported),
            (404, "<html>no route</html>", FailureKind::Refused),
            (200, "<html>log in</html>", FailureKind::ServerError),
            (200, r#"{"code":0}"#, FailureKind::ServerError),
            (302, "", FailureKind::Refused),
        ] {
            let error = queried(&answer(status, body), 0).unwrap_err();
            let expected = (failure, ErrorKind::BadAnswer(Side::Target));
            assert_eq!((error.failure, error.kind), expected, "{status} {body}");
        }
    }
}
