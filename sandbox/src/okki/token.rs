//! OKKI's login: one session with many tokens, and what a call with a token may do.

use std::collections::HashMap;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use fastrand::Rng;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::response::json_response;
use crate::state::{SandboxState, random_hex};

/// The module that the app works with.
const MODULE: &str = "product";
const FORM: &str = "application/x-www-form-urlencoded";

/// The one session of the application. Asking again does not prolong it.
pub(crate) struct Session {
    /// The `jti` of all its tokens.
    id: String,
    until_ms: u64,
    /// Every token given so far, and whether its scopes hold the product module.
    tokens: HashMap<String, bool>,
}

fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description, "message": description});
    json_response(status, body.to_string())
}

/// `POST /v1/oauth2/access_token`.
pub(super) fn log_in(state: &mut SandboxState, now: u64, headers: &HeaderMap, body: &[u8]) -> Response {
    let bad = |error, description| oauth_error(StatusCode::BAD_REQUEST, error, description);
    let Some(asked) = read(headers, body) else {
        return bad("invalid_request", "The request body is neither a form nor JSON.");
    };
    let field = |name: &str| asked.get(name).map_or("", String::as_str);
    if field("grant_type") != "client_credentials" {
        return bad("unsupported_grant_type", "The authorization grant type is not supported.");
    }
    if field("client_id") != state.credentials.okki_client_id
        || field("client_secret") != state.credentials.okki_client_secret
    {
        return bad("invalid_client", "Client authentication failed");
    }
    let scopes: Vec<&str> = field("scope")
        .split(' ')
        .filter(|scope| !scope.is_empty() && (state.options.product_module || *scope != MODULE))
        .collect();
    let lifetime = state.options.token_lifetime.as_millis() as u64;
    let mut session = match state.okki.session.take() {
        Some(session) if now < session.until_ms => session,
        _ => Session { id: random_hex(&mut state.rng, 40), until_ms: now + lifetime, tokens: HashMap::new() },
    };
    let token = session.token(&state.credentials.okki_client_id, &scopes, now, &mut state.okki.signatures);
    let mut reply = Map::new();
    reply.insert("token_type".into(), "Bearer".into());
    if state.options.expires_in {
        reply.insert("expires_in".into(), ((session.until_ms - now) / 1000).into());
    }
    reply.insert("access_token".into(), token.as_str().into());
    session.tokens.insert(token.clone(), scopes.contains(&MODULE));
    state.issued.push(token);
    state.okki.session = Some(session);
    json_response(StatusCode::OK, Value::Object(reply).to_string())
}

/// The fields of a form or of a JSON object. Without a content type the first byte tells which.
fn read(headers: &HeaderMap, body: &[u8]) -> Option<HashMap<String, String>> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_form = match named {
        Some(named) => named.trim_start().to_ascii_lowercase().starts_with(FORM),
        None => !body.trim_ascii_start().starts_with(b"{"),
    };
    if is_form {
        return Some(url::form_urlencoded::parse(body).into_owned().collect());
    }
    let object: Map<String, Value> = serde_json::from_slice(body).ok()?;
    Some(object.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect())
}

impl Session {
    /// A JWT of this session that nobody has had before. Its signature is random bytes.
    fn token(&self, client: &str, scopes: &[&str], now: u64, signatures: &mut Rng) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256"});
        let claims = json!({
            "aud": client,
            "jti": self.id,
            "iat": now / 1000,
            "nbf": now / 1000,
            "exp": self.until_ms / 1000,
            "sub": "",
            "scopes": scopes,
        });
        let mut signature = [0; 256];
        signatures.fill(&mut signature);
        let encoded = |value: Value| BASE64URL.encode(value.to_string());
        format!("{}.{}.{}", encoded(header), encoded(claims), BASE64URL.encode(signature))
    }
}

/// Why a call may not go on. Both documented refusals occur: 401 for no token or an expired one, access_denied under
/// HTTP 200 for a revoked one. The scopes are judged here and not at the login.
pub(super) fn refuse(state: &SandboxState, now: u64, headers: &HeaderMap) -> Option<Response> {
    let denied =
        |status| oauth_error(status, "access_denied", "The resource owner or server denied the request.");
    let Some(sent) = sent_token(headers) else { return Some(denied(StatusCode::UNAUTHORIZED)) };
    let session = state.okki.session.as_ref();
    let Some((session, may_read)) = session.and_then(|session| Some((session, session.tokens.get(sent)?)))
    else {
        return Some(denied(StatusCode::OK));
    };
    if now >= session.until_ms {
        return Some(denied(StatusCode::UNAUTHORIZED));
    }
    let missing = format!("no permission {MODULE} scopes");
    (!may_read).then(|| oauth_error(StatusCode::BAD_REQUEST, &missing, &missing))
}

/// The token of `Authorization`, after `Bearer` or bare.
fn sent_token(headers: &HeaderMap) -> Option<&str> {
    let sent = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let sent = sent.strip_prefix("Bearer").map_or(sent, str::trim_start);
    (!sent.is_empty()).then_some(sent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::tests::log_in;
    use super::*;
    use crate::tests::{call, small};
    use crate::{Sandbox, Service};
    use axum::body::Body;
    use axum::extract::Request;
    use futures::stream;
    use std::time::Duration;
    use tower::ServiceExt as _;

    async fn get(sandbox: &Sandbox, token: &str) -> (u16, Value) {
        call(sandbox.okki(), "GET", "/v1/product/groups", token, "").await
    }

    async fn ask(sandbox: &Sandbox, content_type: Option<&str>, body: Body) -> (u16, Value) {
        let mut request = Request::post("/v1/oauth2/access_token");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let response = sandbox.okki().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    fn form(scope: &str) -> String {
        let known = Sandbox::credentials();
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &known.okki_client_id)
            .append_pair("client_secret", &known.okki_client_secret)
            .append_pair("scope", scope)
            .finish()
    }

    fn claims(token: &str) -> Value {
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        serde_json::from_slice(&BASE64URL.decode(parts[1]).unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_age_expire_and_get_revoked() {
        let sandbox = small(|_| ());
        let (token, left) = log_in(&sandbox).await;
        assert_eq!(left, Some(28_800));
        tokio::time::advance(Duration::from_secs(28_000)).await;
        let (again, left) = log_in(&sandbox).await;
        assert_eq!(left, Some(800));
        assert_ne!(again, token, "a re-issued token is another text");
        for token in [&token, &again] {
            assert_eq!(get(&sandbox, token).await.1["data"].as_array().unwrap().len(), 20);
        }
        tokio::time::advance(Duration::from_secs(800)).await;
        for token in [&token, &again] {
            assert_eq!(get(&sandbox, token).await.0, 401);
        }
        sandbox.set_options(|options| options.expires_in = false);
        let (fresh, left) = log_in(&sandbox).await;
        assert_eq!(left, None);
        assert_ne!(claims(&fresh)["jti"], claims(&token)["jti"]);
        sandbox.revoke_tokens();
        assert_eq!(get(&sandbox, &fresh).await.1["error"], "access_denied");
        assert!([token, again, fresh].iter().all(|token| sandbox.issued().contains(token)));
        let old = form("product").replace("sandbox-client-secret", "no");
        let (status, error) = ask(&sandbox, Some(FORM), old.into()).await;
        assert_eq!((status, error["error"].as_str()), (400, Some("invalid_client")));
        sandbox.rotate_credentials(Service::Okki);
        log_in(&sandbox).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_re_issued_token_is_the_same_session_with_the_same_end() {
        let sandbox = small(|_| ());
        let first = claims(&log_in(&sandbox).await.0);
        tokio::time::advance(Duration::from_secs(600)).await;
        let second = claims(&log_in(&sandbox).await.0);
        for (claim, value) in [
            ("aud", json!("sandbox-client")),
            ("exp", json!(1_800_028_800)),
            ("scopes", json!(["customer", "product"])),
        ] {
            assert_eq!((&first[claim], &second[claim]), (&value, &value), "{claim}");
        }
        assert_eq!(first["jti"], second["jti"]);
        assert_eq!((&first["iat"], &second["nbf"]), (&json!(1_800_000_000), &json!(1_800_000_600)));
    }

    #[tokio::test]
    async fn a_login_is_a_form_in_chunks_or_whole_or_json() {
        let sandbox = small(|_| ());
        let text = form("product");
        let (head, tail) = text.split_at(20);
        let chunks = stream::iter([head, tail].map(|chunk| Ok::<_, std::io::Error>(chunk.to_owned())));
        let fields: Map<String, Value> = url::form_urlencoded::parse(text.as_bytes())
            .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
            .collect();
        let json = Value::Object(fields).to_string();
        for (content_type, body) in [
            (Some(FORM), Body::from(text.clone())),
            (Some("application/x-www-form-urlencoded; charset=utf-8"), Body::from_stream(chunks)),
            (None, Body::from(text.clone())),
            (Some("application/json"), Body::from(json.clone())),
            (None, Body::from(json)),
        ] {
            let (status, reply) = ask(&sandbox, content_type, body).await;
            assert_eq!((status, &reply["token_type"]), (200, &json!("Bearer")), "{content_type:?}");
        }
        let (status, reply) = ask(&sandbox, Some("application/json"), Body::from(text)).await;
        assert_eq!((status, &reply["error"]), (400, &json!("invalid_request")));
    }

    #[tokio::test]
    async fn a_token_comes_bare_or_after_bearer() {
        let sandbox = small(|_| ());
        let (token, _) = log_in(&sandbox).await;
        for (sent, status) in
            [(token.clone(), 200), (format!("Bearer {token}"), 200), ("Bearer ".into(), 401)]
        {
            let request = Request::get("/v1/product/groups").header(header::AUTHORIZATION, sent);
            let response = sandbox.okki().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), status);
        }
    }

    #[tokio::test]
    async fn the_scope_is_judged_by_the_called_module() {
        let sandbox = small(|_| ());
        let mut tokens = Vec::new();
        for scope in ["customer order", ""] {
            let (status, reply) = ask(&sandbox, Some(FORM), form(scope).into()).await;
            assert_eq!(status, 200);
            tokens.push(reply["access_token"].as_str().unwrap().to_owned());
        }
        let (reader, _) = log_in(&sandbox).await;
        sandbox.set_options(|options| options.product_module = false);
        tokens.push(log_in(&sandbox).await.0);
        for token in &tokens {
            let (status, reply) = get(&sandbox, token).await;
            assert_eq!((status, &reply["error"]), (400, &json!("no permission product scopes")));
        }
        assert_eq!(get(&sandbox, &reader).await.0, 200);
    }
}
