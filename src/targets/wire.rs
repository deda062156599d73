//! What a target's answers mean: Qeasy's contradictory codes, and the plain HTTP target.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{ErrorKind, Side};
use crate::net::retry::FailureKind;
use crate::net::{Answer, CallError, Token, judge_status, server_message};
use crate::testing::Mutant;

/// Above its limit, Qeasy refuses every call for this long.
pub(super) const LOCKOUT: Duration = Duration::from_secs(300);
/// A token without `expires_in` lasts this long (Qeasy's documentation).
const TOKEN_LIFETIME: Duration = Duration::from_secs(7200);

/// Stands for a count that is there and cannot be read.
const UNREADABLE_COUNT: u64 = u64::MAX;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every row is stored.
    Accepted,
    /// Some rows are not, and the answer does not say which.
    PartlyFailed {
        /// How many.
        failed: u64,
        /// What the target said.
        said: String,
    },
    /// The batch was refused because of a row (or its size): a smaller one may pass.
    Refused(String),
    /// No answer came; asking what is stored is cheaper than sending it again.
    Lost,
}

fn problem(failure: FailureKind, kind: ErrorKind, message: String) -> CallError {
    CallError { failure, kind, message }
}

fn body_code(json: &Value) -> Option<i64> {
    let code = json.get("code")?;
    code.as_i64().or_else(|| code.as_str()?.trim().parse().ok())
}

/// A code that is there and is no number says something, and hardly that all went well.
fn strange_code(json: &Value) -> bool {
    json.get("code").is_some_and(|code| !code.is_null()) && body_code(json).is_none()
}

fn failed_flag(json: &Value) -> bool {
    match json.get("success") {
        Some(Value::Bool(success)) => !success,
        Some(Value::String(word)) => word.eq_ignore_ascii_case("false") || word == "0",
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        _ => false,
    }
}

/// Reads Qeasy's token answer.
pub(super) fn token(answer: &Answer, now_ms: u64) -> Result<Token, CallError> {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let refused = || {
        let message = format!(
            "target refused the credentials: {}; check QEASY_APP_KEY and QEASY_APP_SECRET",
            server_message(&answer.body)
        );
        problem(FailureKind::Refused, ErrorKind::CredentialsRefused(Side::Target), message)
    };
    match body_code(&json) {
        Some(42901 | 40029) => return Err(throttled(answer, now_ms)),
        // An outage at the login is no refusal, whatever its body calls itself.
        _ if matches!(answer.status.as_u16(), 408 | 429 | 500..=599) => {
            return Err(judge_status(answer, Side::Target, now_ms).unwrap_or_else(refused));
        }
        Some(50000 | 50001) => {
            return Err(problem(
                FailureKind::ServerError,
                ErrorKind::Unavailable(Side::Target),
                format!("target: {}", server_message(&answer.body)),
            ));
        }
        Some(code) if code != 0 && code != 200 => return Err(refused()),
        _ => {}
    }
    if matches!(answer.status.as_u16(), 400 | 401 | 403) || failed_flag(&json) {
        return Err(refused());
    }
    if let Some(problem) = judge_status(answer, Side::Target, now_ms) {
        return Err(problem);
    }
    let content = json.get("content").unwrap_or(&json);
    let Some(value) = content.get("access_token").and_then(Value::as_str) else {
        return Err(problem(
            FailureKind::ServerError,
            ErrorKind::BadAnswer(Side::Target),
            format!("target answered without a token: {}", server_message(b"")),
        ));
    };
    let expires_in =
        content.get("expires_in").and_then(Value::as_u64).map_or(TOKEN_LIFETIME, Duration::from_secs);
    Ok(Token { value: value.into(), expires_in })
}

/// Throttled with a time: wait it out if it is short. Throttled without one, by a code of Qeasy's: the lockout.
fn throttled(answer: &Answer, now_ms: u64) -> CallError {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let wait = header("retry-after").and_then(|value| crate::net::retry::retry_after(value, now_ms));
    let failure = wait.map_or(FailureKind::LockedOut(LOCKOUT), |wait| FailureKind::Throttled(Some(wait)));
    problem(
        failure,
        ErrorKind::Throttled(Side::Target),
        format!("target wants no calls for a while: {}", server_message(&answer.body)),
    )
}

/// The verdict on Qeasy's envelope: the JSON of a success, a refusal of rows, or a problem.
fn qeasy(answer: &Answer, now_ms: u64) -> Result<Result<Value, String>, CallError> {
    let parsed = serde_json::from_slice::<Value>(&answer.body);
    let json = parsed.as_ref().unwrap_or(&Value::Null);
    let said = server_message(&answer.body);
    match body_code(json) {
        Some(42901 | 40029) => return Err(throttled(answer, now_ms)),
        Some(40102 | 40002 | 10001) => {
            return Err(problem(
                FailureKind::Unauthorized,
                ErrorKind::CredentialsRefused(Side::Target),
                format!("target does not accept the token: {said}"),
            ));
        }
        Some(40401 | 40003 | 40101) => {
            let message =
                format!("target knows no such scheme (or not for this key): {said}; check target.scheme_id");
            return Err(problem(FailureKind::Refused, ErrorKind::BadAnswer(Side::Target), message));
        }
        Some(50000 | 50001) => {
            return Err(problem(
                FailureKind::ServerError,
                ErrorKind::Unavailable(Side::Target),
                format!("target had an error of its own: {said}"),
            ));
        }
        Some(40001 | 40005 | 50103 | 50201 | 50203 | 40901) => return Ok(Err(said)),
        _ => {}
    }
    if matches!(answer.status.as_u16(), 400 | 413 | 422) {
        return Ok(Err(format!("HTTP {}: {said}", answer.status.as_u16())));
    }
    if let Some(problem) = judge_status(answer, Side::Target, now_ms) {
        return Err(problem);
    }
    let Ok(json) = parsed else {
        return Err(problem(
            FailureKind::ServerError,
            ErrorKind::BadAnswer(Side::Target),
            format!("target answered something that is not JSON: {said}"),
        ));
    };
    let code = body_code(&json);
    if failed_flag(&json) || strange_code(&json) || !matches!(code, None | Some(0 | 200)) {
        let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}"));
        return Ok(Err(format!("{code}: {said}")));
    }
    Ok(Ok(json))
}

/// Judges the answer to `/store`.
pub(super) fn stored(answer: &Answer, now_ms: u64) -> Result<Verdict, CallError> {
    Ok(match qeasy(answer, now_ms)? {
        Ok(json) if !confirms_success(&json) => {
            return Err(problem(
                FailureKind::ServerError,
                ErrorKind::BadAnswer(Side::Target),
                format!(
                    "target answered neither success nor a count of rows: {}",
                    server_message(&answer.body)
                ),
            ));
        }
        Ok(json) => counted(&json),
        Err(said) => Verdict::Refused(said),
    })
}

/// A success says so: by its flag, by Qeasy's code for it, or by the count of rows that it took.
fn confirms_success(json: &Value) -> bool {
    body_code(json) == Some(0)
        || json.get("success").and_then(Value::as_bool) == Some(true)
        || ["/content/inserted", "/data/inserted", "/inserted"].iter().any(|at| json.pointer(at).is_some())
}

fn counted(json: &Value) -> Verdict {
    let failed = ["/content/failed", "/data/failed", "/failed"].iter().find_map(|at| json.pointer(at));
    let failed = match failed {
        None | Some(Value::Null) => 0,
        Some(Value::Array(rows)) => rows.len() as u64,
        // Something failed, and how much is not to be read.
        Some(other) => {
            other.as_u64().or_else(|| other.as_str()?.trim().parse().ok()).unwrap_or(UNREADABLE_COUNT)
        }
    };
    if failed == 0 || Mutant::IgnoreFailed.is_active() {
        return Verdict::Accepted;
    }
    let said = json.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    Verdict::PartlyFailed { failed, said: crate::net::excerpt(said, &[]) }
}

/// Judges the answer of a plain HTTP target. Without `success`, a 2xx counts unless its body says the opposite.
pub(super) fn accepted(
    answer: &Answer,
    success: &IndexMap<String, Value>,
    now_ms: u64,
) -> Result<Verdict, CallError> {
    let said = server_message(&answer.body);
    if matches!(answer.status.as_u16(), 400 | 413 | 422) {
        return Ok(Verdict::Refused(format!("HTTP {}: {said}", answer.status.as_u16())));
    }
    if let Some(problem) = judge_status(answer, Side::Target, now_ms) {
        return Err(problem);
    }
    let not_json = || {
        let message = format!("target answered something that is not JSON: {said}");
        problem(FailureKind::ServerError, ErrorKind::BadAnswer(Side::Target), message)
    };
    let parsed = serde_json::from_slice::<Value>(&answer.body);
    if success.is_empty() {
        let Ok(json) = parsed else {
            return if is_plain_text(answer) { Ok(Verdict::Accepted) } else { Err(not_json()) };
        };
        if failed_flag(&json) || strange_code(&json) || !matches!(body_code(&json), None | Some(0 | 200)) {
            return Ok(Verdict::Refused(said));
        }
        return Ok(counted(&json));
    }
    let Ok(json) = parsed else { return Err(not_json()) };
    for (pointer, wanted) in success {
        if json.pointer(pointer) != Some(wanted) {
            return Ok(Verdict::Refused(format!("{pointer} is not {wanted}: {said}")));
        }
    }
    Ok(counted(&json))
}

/// Many endpoints answer nothing, or "ok". A page is a proxy's or a login's, and broken JSON is somebody's mistake:
/// behind neither is a row stored.
fn is_plain_text(answer: &Answer) -> bool {
    let body = answer.body.trim_ascii();
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("text/plain");
    body.is_empty() || (kind.starts_with("text/plain") && !body.starts_with(b"<"))
}

/// A page of rows that was read back.
#[derive(Debug, Default)]
pub(super) struct ReadPage {
    /// The rows.
    pub rows: Vec<Value>,
    /// How many there are in all, where the answer says so.
    pub total: Option<u64>,
}

/// Reads the three shapes that `/query` has had.
pub(super) fn queried(answer: &Answer, now_ms: u64) -> Result<ReadPage, CallError> {
    let json = match qeasy(answer, now_ms)? {
        Ok(json) => json,
        Err(said) => {
            return Err(problem(
                FailureKind::Refused,
                ErrorKind::BadAnswer(Side::Target),
                format!("target refused to read back: {said}"),
            ));
        }
    };
    let bad = || {
        problem(
            FailureKind::ServerError,
            ErrorKind::BadAnswer(Side::Target),
            "target answered a query without rows".to_owned(),
        )
    };
    let content = json.get("content").ok_or_else(bad)?;
    let total = content.get("total").or_else(|| json.get("total")).and_then(Value::as_u64);
    let rows = content.as_array().or_else(|| content.get("list")?.as_array());
    if let Some(rows) = rows {
        return Ok(ReadPage { rows: rows.iter().map(unwrapped).collect(), total });
    }
    let rows = content.get("rows").and_then(Value::as_array).ok_or_else(bad)?;
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

/// Reads the rows of a plain HTTP target: an array, or an object that holds one as `groups`, `content`, `data` or `rows`.
pub(super) fn listed(answer: &Answer, now_ms: u64) -> Result<ReadPage, CallError> {
    if let Some(problem) = judge_status(answer, Side::Target, now_ms) {
        return Err(problem);
    }
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let rows = json
        .as_array()
        .or_else(|| ["groups", "content", "data", "rows"].iter().find_map(|key| json.get(key)?.as_array()))
        .ok_or_else(|| {
            problem(
                FailureKind::ServerError,
                ErrorKind::BadAnswer(Side::Target),
                "target's read_url answered no list of rows".to_owned(),
            )
        })?;
    Ok(ReadPage { rows: rows.clone(), total: Some(rows.len() as u64) })
}

/// Whether the target's row holds what ours says. Fields that only the target has are its own business.
pub(super) fn holds(theirs: &Value, ours: &RawValue) -> bool {
    let Ok(Value::Object(ours)) = serde_json::from_str::<Value>(ours.get()) else { return false };
    ours.iter().all(|(key, value)| theirs.get(key).is_some_and(|their| same(their, value)))
}

/// Equal as values: `2999.10` and `2999.1` are, should the target have rewritten its numbers.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.as_f64().is_some() && a.as_f64() == b.as_f64() && !(a.is_i64() && b.is_i64()))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
            let plain = accepted(&answer(200, body), &IndexMap::new(), 0).unwrap();
            assert!(matches!(plain, Verdict::Refused(_)), "{body}: {plain:?}");
            assert!(!matches!(stored(&answer(200, body), 0), Ok(Verdict::Accepted)), "{body}");
        }
        for body in
            [r#"{"success":true,"code":0}"#, r#"{"success":true,"code":"200","content":{"inserted":1}}"#]
        {
            assert_eq!(stored(&answer(200, body), 0).unwrap(), Verdict::Accepted, "{body}");
        }
    }

    #[test]
    fn a_count_of_failed_rows_is_read_in_every_form_and_never_taken_for_none() {
        for (failed, count) in
            [("0", 0), ("null", 0), ("\"0\"", 0), ("3", 3), ("\"3\"", 3), ("[\"a\",\"b\"]", 2)]
        {
            let body = format!(r#"{{"success":true,"code":0,"content":{{"inserted":1,"failed":{failed}}}}}"#);
            let read = match stored(&answer(200, &body), 0).unwrap() {
                Verdict::PartlyFailed { failed, .. } => failed,
                _ => 0,
            };
            assert_eq!(read, count, "{body}");
        }
        let body = r#"{"success":true,"content":{"failed":{"some":1}}}"#;
        assert!(matches!(stored(&answer(200, body), 0).unwrap(), Verdict::PartlyFailed { .. }));
    }

    #[test]
    fn an_outage_at_the_login_is_no_refusal() {
        let body = r#"{"code":503,"message":"down"}"#;
        let problem = token(&answer(503, body), 0).unwrap_err();
        assert_eq!(
            (problem.failure, problem.kind),
            (FailureKind::ServerError, ErrorKind::Unavailable(Side::Target))
        );
        assert_eq!(token(&answer(429, "{}"), 0).unwrap_err().failure, FailureKind::Throttled(None));
        assert_eq!(token(&answer(200, r#"{"code":40101}"#), 0).unwrap_err().failure, FailureKind::Refused);
    }
}
