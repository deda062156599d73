//! What HTTP itself says of an answer: from a status to a failure and its message. Both sides use it after they have
//! looked for their own codes.

use serde::Deserialize;

use crate::error::{ErrorKind, Side};
use crate::net::call::Requote;
use crate::net::redact::Secrets;
use crate::net::retry::{self, FailureKind};
use crate::net::{Answer, Field, excerpt};
use crate::words::{Message, phrase, say, written};

/// Error bodies are shorter; of a longer one only this much is looked at.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// For an answer that means something else without the secrets in it.
pub(crate) const UNQUOTED: &str = phrase!("(its text holds a credential and is not shown)");

/// A call that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallError {
    /// What to do next depends on this.
    pub failure: FailureKind,
    /// The error that ends the run if nothing more can be done.
    pub kind: ErrorKind,
    /// One line; text of the server's is an excerpt.
    pub message: Message,
}

impl CallError {
    pub(crate) fn new(failure: FailureKind, kind: ErrorKind, message: impl Into<Message>) -> Self {
        Self { failure, kind, message: message.into() }
    }
}

/// Judges an answer so that no message repeats a secret that the server may have echoed.
///
/// The answer as it came decides. What is quoted comes from a second judgement without the secrets, made before the
/// message is cut short: the part of a secret that is left by a cut would not be found any more.
pub(super) fn judge_redacted<T>(
    mut answer: Answer,
    secrets: Secrets<'_>,
    requote: Option<Requote<T>>,
    now_ms: u64,
    judge: &impl Fn(&Answer, u64) -> Result<T, CallError>,
) -> Result<T, CallError> {
    let judged = judge(&answer, now_ms);
    if judged.is_ok() && requote.is_none() {
        return judged;
    }
    let redacted = secrets.redacted_body(&answer.body);
    let holds_none = redacted == answer.body;
    answer.body = redacted;
    match (judged, requote) {
        (Ok(done), Some(requote)) if !holds_none => Ok(requote(done, judge(&answer, now_ms).ok())),
        (Ok(done), _) => Ok(done),
        (Err(mut error), _) => {
            if !holds_none {
                error.message = match judge(&answer, now_ms) {
                    Err(without_secrets) => without_secrets.message,
                    Ok(_) => Message::plain(UNQUOTED),
                };
            }
            error.message = error.message.map_text(&|text| secrets.excerpt(text));
            Err(error)
        }
    }
}

/// The failure that the status stands for. `None` if it is a success.
pub(crate) fn judge_status(answer: &Answer, side: Side, now_ms: u64) -> Option<CallError> {
    let status = answer.status;
    if status.is_success() {
        return None;
    }
    let retry_after = answer
        .headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry::retry_after(value, now_ms));
    let (failure, kind) = match status.as_u16() {
        429 => (FailureKind::Throttled(retry_after), ErrorKind::Throttled(side)),
        503 if retry_after.is_some() => (FailureKind::Throttled(retry_after), ErrorKind::Throttled(side)),
        401 => (FailureKind::Unauthorized, ErrorKind::CredentialsRefused(side)),
        403 => (FailureKind::Refused, ErrorKind::CredentialsRefused(side)),
        300..=399 => {
            let message = say!(
                "{side} answered HTTP {status} with a redirect, which is not followed; set base_url to the final address",
                side,
                status,
            );
            return Some(CallError::new(FailureKind::Refused, ErrorKind::BadAnswer(side), message));
        }
        408 | 500..=599 => (FailureKind::ServerError, ErrorKind::Unavailable(side)),
        // A page is a proxy's, which knows nothing of what the other side can do.
        400 | 404 | 405 | 410 | 414 | 415 | 422 if !is_page(answer) => {
            (FailureKind::NotSupported, ErrorKind::BadAnswer(side))
        }
        _ => (FailureKind::Refused, ErrorKind::BadAnswer(side)),
    };
    // These four are known by their number; of the others the name helps too.
    let status = match (status.as_u16(), &failure) {
        (401 | 403 | 429, _) | (503, FailureKind::Throttled(_)) => status.as_str().to_owned(),
        _ => status.to_string(),
    };
    let said = server_message(&answer.body);
    let message = say!("{side} answered HTTP {status}: {said}", side, status, said);
    Some(CallError::new(failure, kind, message))
}

/// Whether a proxy answers, and not the other side.
pub(crate) fn is_page(answer: &Answer) -> bool {
    answer.body.trim_ascii_start().starts_with(b"<")
}

/// The keys under which APIs put a message for people.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error_description: Field,
    message: Field,
    msg: Field,
    detail: Field,
    error: Field,
}

fn known_message(body: &[u8]) -> Option<String> {
    // A list would be read as the fields in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let ErrorBody { error_description, message, msg, detail, error } = serde_json::from_slice(body).ok()?;
    // The most specific first.
    [error_description, message, msg, detail, error].iter().find_map(Field::text).map(str::to_owned)
}

/// The message in a body if it is one of the known error bodies, else the body's beginning. Of a long body only the
/// beginning is looked at, so that no answer costs more memory than its bytes.
pub(crate) fn server_message(body: &[u8]) -> String {
    let body = body.get(..MAX_MESSAGE_BYTES).unwrap_or(body);
    let message = known_message(body).unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    if message.trim().is_empty() { written!("(no text)") } else { excerpt(&message, &[]) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn judged(status: u16, retry_after: Option<&str>, body: &str) -> Option<CallError> {
        let mut headers = http::HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert("retry-after", value.parse().unwrap());
        }
        let status = http::StatusCode::from_u16(status).unwrap();
        judge_status(&Answer { status, headers, body: body.to_owned().into() }, Side::Source, 0)
    }

    #[test]
    fn each_status_has_its_failure() {
        let wait = Some(Duration::from_secs(7));
        let (bad, down) = (ErrorKind::BadAnswer(Side::Source), ErrorKind::Unavailable(Side::Source));
        let (slow, who) = (ErrorKind::Throttled(Side::Source), ErrorKind::CredentialsRefused(Side::Source));
        for (status, retry_after, body, failure, kind) in [
            (429, None, "", FailureKind::Throttled(None), slow),
            (429, Some("7"), "", FailureKind::Throttled(wait), slow),
            (503, Some("7"), "", FailureKind::Throttled(wait), slow),
            (503, None, "", FailureKind::ServerError, down),
            (500, Some("7"), "", FailureKind::ServerError, down),
            (408, None, "", FailureKind::ServerError, down),
            (401, None, "", FailureKind::Unauthorized, who),
            (403, None, "", FailureKind::Refused, who),
            (302, None, "", FailureKind::Refused, bad),
            (404, None, "{}", FailureKind::NotSupported, bad),
            (400, None, "{}", FailureKind::NotSupported, bad),
            (404, None, " <html>", FailureKind::Refused, bad),
            (407, None, "", FailureKind::Refused, bad),
        ] {
            let error = judged(status, retry_after, body).unwrap();
            assert_eq!((error.failure, error.kind), (failure, kind), "HTTP {status}");
        }
        assert_eq!(judged(204, None, ""), None);
    }

    #[test]
    fn the_answer_as_it_came_decides_and_its_secrets_are_not_quoted() {
        let secrets = [secrecy::SecretString::from("acme-tenant")];
        let secrets = Secrets { credentials: &secrets, token: None };
        let judged = |body: &str| {
            let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
            let answer = Answer { status, headers, body: body.to_owned().into() };
            let judge = |answer: &Answer, _| match std::str::from_utf8(&answer.body).unwrap() {
                "acme-tenant" => Ok("taken".to_owned()),
                text if text.starts_with("no") => Ok(text.to_owned()),
                text => Err(CallError::new(FailureKind::Refused, ErrorKind::BadAnswer(Side::Target), text)),
            };
            let requote =
                |done: String, clean: Option<String>| if done == "taken" { done } else { clean.unwrap() };
            judge_redacted(answer, secrets, Some(requote), 0, &judge).map_err(|error| error.message)
        };
        assert_eq!(judged("acme-tenant").unwrap(), "taken");
        assert_eq!(judged("no, acme-tenant").unwrap(), "no, …");
        assert_eq!(judged("no").unwrap(), "no");
        assert_eq!(judged("bad acme-tenant").unwrap_err(), "bad …");
        assert_eq!(judged("bad").unwrap_err(), "bad");
    }

    #[test]
    fn a_message_is_taken_from_the_known_error_bodies_and_else_from_the_text() {
        for (body, message) in [
            (r#"{"error":"invalid_client","error_description":"bad secret"}"#, "bad secret"),
            (r#"{"msg":"系统繁忙"}"#, "系统繁忙"),
            (r#"{"detail":{"retryAfter":7},"error":"no"}"#, "no"),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            (r#"["bad","worse"]"#, r#"["bad","worse"]"#),
            ("<h1>Bad\n Gateway</h1>", "<h1>Bad Gateway</h1>"),
            (" ", "(no text)"),
        ] {
            assert_eq!(server_message(body.as_bytes()), message);
        }
    }

    #[test]
    fn a_message_behind_the_beginning_of_a_long_body_is_not_looked_for() {
        let body = |zeros: usize| format!(r#"{{"list":[{}0],"message":"bad"}}"#, "0,".repeat(zeros));
        assert_eq!(server_message(body(1000).as_bytes()), "bad");
        let beginning = server_message(body(MAX_MESSAGE_BYTES).as_bytes());
        assert!(beginning.starts_with(r#"{"list":[0,0,"#) && beginning.ends_with('…'), "{beginning}");
        assert!(beginning.chars().count() < 200, "{beginning}");
    }
}
