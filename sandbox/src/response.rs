//! The answers that both services and their faults give: JSON, HTML, broken ones, and the envelopes of each service.
//!
//! Faults need a service's way to say "failed" or "too many requests", and the services answer through the faults.
//! With the answers in this module neither has to know the other.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use crate::beijing;
use crate::json::push_text;
use crate::options::{CodeReading, Options};

/// The token of `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

pub(crate) fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// An HTML page, as gateways send it.
pub(crate) fn html_response(code: u16) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = format!("{code} {}", status.canonical_reason().unwrap_or("Error"));
    let body =
        format!("<html><head><title>{title}</title></head><body><h1>{title}</h1><hr>nginx</body></html>");
    let mut response = json_response(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// The envelope of every OKKI answer but the token's; a failing one carries no data.
pub(crate) fn okki_envelope(
    options: &Options,
    now: u64,
    code: Option<i64>,
    message: &str,
    data: Option<&str>,
) -> Response {
    let mut out = String::with_capacity(data.map_or(0, str::len) + 128);
    out.push('{');
    if let Some(code) = code {
        out.push_str(&format!("\"code\":{code},"));
    }
    out.push_str(if options.msg_key { "\"msg\":" } else { "\"message\":" });
    push_text(&mut out, message);
    out.push_str(",\"now\":");
    push_text(&mut out, &beijing::to_text((now / 1000) as i64));
    if let Some(data) = data {
        out.push_str(",\"data\":");
        out.push_str(data);
    }
    out.push('}');
    json_response(StatusCode::OK, out)
}

pub(crate) fn okki_throttled(retry_after: Option<u64>) -> Response {
    let body = r#"{"code":429,"message":"Too Many Requests"}"#;
    let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, body.into());
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The first documented error body.
pub(crate) fn qeasy_failure(code: i64, message: &str) -> String {
    json!({"success": false, "code": code, "message": message, "content": null}).to_string()
}

/// The second documented error body.
pub(crate) fn qeasy_second_failure(code: i64, message: &str, now: u64) -> String {
    let request = format!("req-{now:x}");
    json!({"code": code, "message": message, "detail": message, "requestId": request, "timestamp": now / 1000}).to_string()
}

pub(crate) fn qeasy_success(content: &str) -> Response {
    json_response(
        StatusCode::OK,
        format!("{{\"success\":true,\"code\":0,\"message\":\"success\",\"content\":{content}}}"),
    )
}

/// Too many requests. With `limit`, reading A adds the headers that say where the caller stands.
pub(crate) fn qeasy_throttled(
    reading: CodeReading,
    now: u64,
    retry_after: Option<u64>,
    limit: Option<u32>,
) -> Response {
    let message = "请求过于频繁，请稍后再试";
    let mut response = match reading {
        CodeReading::A => json_response(StatusCode::TOO_MANY_REQUESTS, qeasy_failure(42901, message)),
        CodeReading::B => return json_response(StatusCode::OK, qeasy_failure(40029, message)),
        CodeReading::C => {
            json_response(StatusCode::TOO_MANY_REQUESTS, qeasy_second_failure(429, message, now))
        }
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let (CodeReading::A, Some(limit)) = (reading, limit) {
        qeasy_limit_headers(&mut response, limit, 0, now / 1000 + retry_after.unwrap_or(0));
    }
    response
}

pub(crate) fn qeasy_limit_headers(response: &mut Response, limit: u32, remaining: u64, resets_at_s: u64) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(resets_at_s));
}

/// Marks an answer whose connection broke before its first byte, for callers that use the routers without a
/// connection: over TCP the client sees a closed connection, in process this extension and a failing body.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLost;

fn broken() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "sandbox fault: the connection breaks")
}

/// No answer: hyper drops a connection whose body fails before the head is flushed, so no byte reaches the client.
pub(crate) fn lost() -> Response {
    let body = Body::from_stream(futures::stream::once(async { Err::<Bytes, _>(broken()) }));
    let mut response = Response::new(body);
    response.extensions_mut().insert(ConnectionLost);
    response
}

/// The right answer, broken off half-way through its declared body.
pub(crate) async fn truncated(whole: Response) -> Response {
    let (mut parts, body) = whole.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let half = bytes.slice(..bytes.len() / 2);
    let pieces = futures::stream::once(async move { Ok(half) }).chain(futures::stream::once(async {
        // Lets hyper flush the first half, which the break would otherwise swallow.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(broken())
    }));
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Valid JSON of exactly that size, if it is large enough to be JSON. It is streamed and never held whole.
pub(crate) fn giant(bytes: u64) -> Response {
    const HEAD: &[u8] = br#"{"code":200,"data":""#;
    const TAIL: &[u8] = br#""}"#;
    let filler = bytes.saturating_sub((HEAD.len() + TAIL.len()) as u64);
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let middle = futures::stream::unfold(filler, move |left| {
        let piece = piece.clone();
        async move {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            (size > 0).then(|| (piece.slice(..size), left - size as u64))
        }
    });
    let whole = futures::stream::once(async { Bytes::from_static(HEAD) })
        .chain(middle)
        .chain(futures::stream::once(async { Bytes::from_static(TAIL) }))
        .map(Ok::<_, std::convert::Infallible>);
    let mut response = json_response(StatusCode::OK, String::new());
    *response.body_mut() = Body::from_stream(whole);
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn a_giant_has_its_size_and_a_truncated_answer_breaks() {
        let body = axum::body::to_bytes(giant(200_000).into_body(), usize::MAX).await.unwrap();
        assert_eq!(body.len(), 200_000);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        let half = truncated(json_response(StatusCode::OK, "0123456789".into())).await;
        assert_eq!(half.headers()[header::CONTENT_LENGTH], "10");
        assert!(axum::body::to_bytes(half.into_body(), usize::MAX).await.is_err());
    }
}
