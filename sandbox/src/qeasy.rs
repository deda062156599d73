//! The sandbox's Qeasy: tokens, one scheme, and the contradictory codes of its documentation.

use std::collections::HashMap;

use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::faults::{Endpoint, Late, failing_ids, through};
use crate::limits::{Admission, CallLimit};
use crate::options::{CodeReading, IdCheck};
use crate::response::{
    bearer, json_response, qeasy_failure, qeasy_limit_headers, qeasy_second_failure, qeasy_success,
    qeasy_throttled,
};
use crate::row_query::RowQuery;
use crate::state::{SandboxState, random_hex};
use crate::stored_rows::{RowKey, StoredRow, StoredRows};
use crate::{Sandbox, http_target};

/// Advised sizes of a batch go up to 5,000 rows.
const MAX_BODY_BYTES: usize = 256 << 20;

#[derive(Default)]
pub(crate) struct QeasyState {
    /// Valid tokens and when they end (milliseconds).
    pub(crate) tokens: HashMap<String, u64>,
    pub(crate) limit: CallLimit,
    /// Rows of the scheme.
    pub(crate) rows: StoredRows,
}

/// The cases for which the documentation gives contradictory codes.
#[derive(Clone, Copy)]
enum Case {
    BadKey,
    BadToken,
    BadParameter,
    NoScheme,
    MissingField,
}

fn refuse(reading: CodeReading, case: Case, message: &str, now: u64) -> Response {
    let (a, b, c, status) = match case {
        Case::BadKey => (40101, 40001, 10001, StatusCode::OK),
        Case::BadToken => (40102, 40002, 10001, StatusCode::UNAUTHORIZED),
        Case::BadParameter => (40001, 40005, 40005, StatusCode::BAD_REQUEST),
        Case::NoScheme => (40401, 40003, 40101, StatusCode::NOT_FOUND),
        Case::MissingField => (40001, 50103, 50103, StatusCode::BAD_REQUEST),
    };
    match reading {
        CodeReading::A => json_response(StatusCode::OK, qeasy_failure(a, message)),
        CodeReading::B => json_response(StatusCode::OK, qeasy_failure(b, message)),
        CodeReading::C => json_response(status, qeasy_second_failure(c, message, now)),
    }
}

/// Everything below the target's address: Qeasy, and the plain HTTP target under its own path.
pub(crate) async fn answer(sandbox: &Sandbox, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return json_response(StatusCode::PAYLOAD_TOO_LARGE, qeasy_failure(40001, "请求体过大"));
    };
    let path = parts.uri.path();
    let _in_flight = sandbox.target_call();
    if path.starts_with(http_target::PATH) {
        sandbox.enter(Endpoint::HttpTarget).await;
        let answer = || http_target::answer(sandbox, &parts, &body);
        let response = through(sandbox, Endpoint::HttpTarget, answer).await;
        if let Some(Late(delay)) = response.extensions().get() {
            let (sandbox, delay) = (sandbox.clone(), *delay);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                http_target::answer(&sandbox, &parts, &body);
            });
        }
        return response;
    }
    if ["/dispatch-source", "/dispatch-target"].iter().any(|verb| path.contains(verb)) {
        sandbox.state().stats.qeasy_dispatches += 1;
    }
    let Some(call) = Call::of(&parts) else {
        return json_response(StatusCode::NOT_FOUND, qeasy_failure(40401, "接口不存在"));
    };
    let at = call.endpoint();
    sandbox.enter(at).await;
    let now = sandbox.now_ms();
    let refusal = refuse_over_limit(&mut sandbox.state(), at, now);
    if let Some(refusal) = refusal {
        return refusal;
    }
    let mut response = through(sandbox, at, || call.answer(&mut sandbox.state(), &parts, now, &body)).await;
    add_limit_headers(&sandbox.state(), at, now, &mut response);
    if let (Some(Late(delay)), Endpoint::QeasyStore) = (response.extensions().get(), at) {
        let (sandbox, delay) = (sandbox.clone(), *delay);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Its token was judged when it came.
            store(&mut sandbox.state(), sandbox.now_ms(), &body);
        });
    }
    response
}

/// A call to one of Qeasy's endpoints.
enum Call<'a> {
    Token,
    Store { scheme: &'a str },
    Query { scheme: &'a str },
    FindOne { scheme: &'a str, id: &'a str },
}

impl<'a> Call<'a> {
    fn of(parts: &'a Parts) -> Option<Self> {
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        match (&parts.method, segments.as_slice()) {
            (&Method::POST, ["v2", "oauth"]) => Some(Self::Token),
            (&Method::POST, ["v2", "open-api", "business", scheme, "store"]) => Some(Self::Store { scheme }),
            (&Method::POST, ["v2", "open-api", "business", scheme, "query"]) => Some(Self::Query { scheme }),
            (&Method::GET, ["v2", "open-api", "business", scheme, "find-one", id]) => {
                Some(Self::FindOne { scheme, id })
            }
            _ => None,
        }
    }

    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Token => Endpoint::QeasyToken,
            Self::Store { .. } => Endpoint::QeasyStore,
            Self::Query { .. } | Self::FindOne { .. } => Endpoint::QeasyQuery,
        }
    }

    fn answer(&self, state: &mut SandboxState, parts: &Parts, now: u64, body: &[u8]) -> Response {
        let scheme = match *self {
            Self::Token => return token(state, now, body),
            Self::Store { scheme } | Self::Query { scheme } | Self::FindOne { scheme, .. } => scheme,
        };
        let reading = state.options.codes;
        if !has_valid_token(state, parts, now) {
            return refuse(reading, Case::BadToken, "access_token 无效或已过期", now);
        }
        if scheme != state.credentials.scheme_id {
            return refuse(reading, Case::NoScheme, "方案不存在", now);
        }
        match *self {
            Self::FindOne { id, .. } => find_one(state, id),
            Self::Query { .. } => find(state, now, body),
            Self::Token | Self::Store { .. } => store(state, now, body),
        }
    }
}

/// In the header, or in the query.
fn has_valid_token(state: &SandboxState, parts: &Parts, now: u64) -> bool {
    let query = parts.uri.query().unwrap_or_default();
    let sent = bearer(&parts.headers).map(str::to_owned).or_else(|| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "access_token")
            .map(|(_, token)| token.into_owned())
    });
    sent.and_then(|token| state.qeasy.tokens.get(&token)).is_some_and(|until| now < *until)
}

/// Counts a call against the limit. Token calls are not counted, but a lockout refuses them like all others.
fn refuse_over_limit(state: &mut SandboxState, at: Endpoint, now: u64) -> Option<Response> {
    let calls_per_minute = state.options.calls_per_minute;
    let limit = &mut state.qeasy.limit;
    let admission = match at {
        Endpoint::QeasyToken => limit.admit_uncounted(now),
        _ => limit.admit(now, calls_per_minute, state.options.lockout.as_millis() as u64),
    };
    match admission {
        Admission::Admitted => return None,
        Admission::BeganLockout => state.stats.lockouts += 1,
        Admission::DuringLockout => state.stats.calls_during_lockout += 1,
    }
    let seconds = limit.locked_for_s(now);
    Some(qeasy_throttled(state.options.codes, now, Some(seconds), Some(calls_per_minute)))
}

/// Reading A tells the limit with every good answer.
fn add_limit_headers(state: &SandboxState, at: Endpoint, now: u64, response: &mut Response) {
    let told = response.headers().contains_key("x-ratelimit-limit");
    let good = response.status() == StatusCode::OK && at != Endpoint::QeasyToken;
    if state.options.codes == CodeReading::A && good && !told {
        let (calls, limit) = (state.options.calls_per_minute, &state.qeasy.limit);
        qeasy_limit_headers(response, calls, limit.remaining(calls), limit.resets_at_s(now));
    }
}

fn token(state: &mut SandboxState, now: u64, body: &[u8]) -> Response {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or_default();
    let known = &state.credentials;
    if field("app_key") != known.qeasy_app_key || field("app_secret") != known.qeasy_app_secret {
        return refuse(state.options.codes, Case::BadKey, "app_key 或 app_secret 错误", now);
    }
    let lifetime = state.options.target_token_lifetime;
    let token = random_hex(&mut state.rng, 32);
    state.qeasy.tokens.retain(|_, until| *until > now);
    state.issued.push(token.clone());
    state.qeasy.tokens.insert(token.clone(), now + lifetime.as_millis() as u64);
    qeasy_success(&json!({"access_token": token, "expires_in": lifetime.as_secs()}).to_string())
}

#[derive(Deserialize)]
struct StoreBody<'a> {
    #[serde(borrow, alias = "groups")]
    content: Vec<&'a RawValue>,
}

fn store(state: &mut SandboxState, now: u64, body: &[u8]) -> Response {
    let reading = state.options.codes;
    let Ok(batch) = serde_json::from_slice::<StoreBody>(body) else {
        return refuse(reading, Case::BadParameter, "参数错误: content", now);
    };
    let keyed = batch.content.into_iter().map(|row| RowKey::of(row).map(|key| (key, row)));
    let Some(keyed) = keyed.collect::<Option<Vec<_>>>() else {
        return refuse(reading, Case::MissingField, "必填字段缺失: id", now);
    };
    let ids: Vec<String> = keyed.iter().map(|(key, _)| key.id.clone()).collect();
    let failing = failing_ids(&mut state.faults, &ids);
    if !failing.is_empty() {
        *state.stats.struck.entry("partly failed").or_default() += 1;
    }
    let (mut inserted, mut failed) = (0_u64, 0_u64);
    for (key, row) in keyed {
        if failing.contains(&key.id) {
            failed += 1;
            continue;
        }
        if state.qeasy.rows.contains(&key.id) {
            match state.options.id_check {
                IdCheck::Off => {}
                IdCheck::CountedAsFailed => {
                    failed += 1;
                    continue;
                }
                IdCheck::Excluded => continue,
            }
        }
        state.note_written(&key.id, row);
        state.qeasy.rows.put(key, row, now);
        inserted += 1;
    }
    // A partly failed batch is a success that tells neither which rows failed nor why.
    qeasy_success(&format!("{{\"inserted\":{inserted},\"failed\":{failed}}}"))
}

fn find_one(state: &SandboxState, segment: &str) -> Response {
    let encoded = format!("id={}", segment.replace('+', "%2B"));
    let id = url::form_urlencoded::parse(encoded.as_bytes()).next().map(|(_, id)| id.into_owned());
    let row = id.and_then(|id| state.qeasy.rows.get(&id));
    qeasy_success(row.map_or("null", |row| row.raw.get()))
}

fn find(state: &SandboxState, now: u64, body: &[u8]) -> Response {
    let bad = |message| refuse(state.options.codes, Case::BadParameter, message, now);
    let Ok(asked) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return bad("参数错误: 请求体不是 JSON 对象");
    };
    let query = match RowQuery::of(&asked) {
        Ok(query) => query,
        Err(message) => return bad(message),
    };
    let found = query.find(&state.qeasy.rows);
    let skipped = usize::try_from((query.page - 1).saturating_mul(query.size)).unwrap_or(usize::MAX);
    let page = found.iter().skip(skipped).take(query.size as usize);
    let shape = state.options.query_shape;
    let rows: Vec<String> = page.map(|(id, row)| shown(id, row, shape)).collect();
    let (rows, total) = (rows.join(","), found.len());
    match shape {
        2 => qeasy_success(&format!("{{\"rows\":[{rows}],\"total\":{total}}}")),
        3 => qeasy_success(&format!("[{rows}]")),
        4 => qeasy_success(&format!("{{\"rows\":[{rows}]}},\"total\":{total}")),
        _ => qeasy_success(&format!("{{\"list\":[{rows}],\"total\":{total}}}")),
    }
}

/// A row as this shape of a reply shows it: its fields below `content`, or alone.
fn shown(id: &str, row: &StoredRow, shape: u8) -> String {
    if matches!(shape, 2 | 4) {
        let (id, created) = (Value::from(id), row.arrived_ms / 1000);
        format!("{{\"id\":{id},\"content\":{},\"created_at\":{created}}}", row.raw.get())
    } else {
        row.raw.get().to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::faults::{Fault, FaultKind};
    use crate::tests::{call, small, text};
    use std::time::Duration;

    fn path(verb: &str) -> String {
        format!("/v2/open-api/business/{}/{verb}", Sandbox::credentials().scheme_id)
    }

    async fn log_in(sandbox: &Sandbox) -> String {
        let body = json!({"app_key": "SANDBOXKEY01", "app_secret": "sandboxsecret0123456"}).to_string();
        let (_, reply) = call(sandbox.target(), "POST", "/v2/oauth", "", &body).await;
        reply["content"]["access_token"].as_str().unwrap_or_default().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_61st_call_of_a_minute_locks_everyone_out() {
        for (reading, status, code) in
            [(CodeReading::A, 429, 42901), (CodeReading::B, 200, 40029), (CodeReading::C, 429, 429)]
        {
            let sandbox = small(|options| options.codes = reading);
            let token = log_in(&sandbox).await;
            let find = || call(sandbox.target(), "POST", "/v2/open-api/business/x/query", &token, "{}");
            for _ in 0..60 {
                find().await;
            }
            assert_eq!(sandbox.stats().lockouts, 0);
            let (got, body) = find().await;
            assert_eq!((got, body["code"].as_i64()), (status, Some(code)));
            assert_eq!(log_in(&sandbox).await, "");
            tokio::time::advance(Duration::from_secs(299)).await;
            assert_eq!(find().await.1["code"], code);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_ne!(find().await.1["code"], code);
            let stats = sandbox.stats();
            assert_eq!((stats.lockouts, stats.max_target_calls_per_minute), (1, 61));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_come_in_header_or_query_and_expire() {
        let sandbox = small(|_| ());
        let token = log_in(&sandbox).await;
        let uri = format!("{}?access_token={token}", path("query"));
        let request = || axum::http::Request::post(&uri).body(axum::body::Body::from("{}")).unwrap();
        let response = tower::ServiceExt::oneshot(sandbox.target(), request()).await.unwrap();
        assert_eq!(response.headers()["x-ratelimit-remaining"], "59");
        tokio::time::advance(Duration::from_secs(7200)).await;
        assert_eq!(call(sandbox.target(), "POST", &path("query"), &token, "{}").await.1["code"], 40102);
        sandbox.set_options(|options| options.codes = CodeReading::C);
        let (status, body) = call(sandbox.target(), "POST", &path("query"), &token, "{}").await;
        assert_eq!((status, body["code"].as_i64(), body["requestId"].is_string()), (401, Some(10001), true));
    }

    #[tokio::test]
    async fn rows_are_kept_byte_for_byte_and_id_check_excludes_repeats() {
        let sandbox = small(|_| ());
        let token = log_in(&sandbox).await;
        let uri = path("store");
        let store = |body: &'static str| call(sandbox.target(), "POST", &uri, &token, body);
        let (_, reply) =
            store(r#"{"content":[{"id":"001", "cost":2999.10},{"id":"001","cost":1840.000}]}"#).await;
        assert_eq!(reply["content"], json!({"inserted": 2, "failed": 0}));
        assert_eq!(sandbox.target_rows()["001"].get(), r#"{"id":"001","cost":1840.000}"#);
        sandbox.set_options(|options| options.id_check = IdCheck::CountedAsFailed);
        let (_, reply) = store(r#"{"content":[{"id":"001","cost":1},{"productGroupId":7}]}"#).await;
        assert_eq!(reply["content"], json!({"inserted": 1, "failed": 1}));
        assert_eq!(sandbox.target_rows()["001"].get(), r#"{"id":"001","cost":1840.000}"#);
        let (_, one) = text(sandbox.target(), "GET", &path("find-one/001"), &token, "").await;
        assert!(one.contains(r#""content":{"id":"001","cost":1840.000}"#));
        assert_eq!(store(r#"{"content":[{"name":"x"}]}"#).await.1["code"], 40001);
        sandbox.set_options(|options| options.id_check = IdCheck::Excluded);
        let (_, reply) = store(r#"{"content":[{"id":"001","cost":1},{"id":"002"}]}"#).await;
        assert_eq!(reply["content"], json!({"inserted": 1, "failed": 0}));
        assert_eq!(sandbox.target_rows()["001"].get(), r#"{"id":"001","cost":1840.000}"#);
        sandbox.set_options(|options| options.id_check = IdCheck::Off);
        let kind = FaultKind::PartlyFailed(vec!["9".into()]);
        sandbox.fault(Fault { at: Endpoint::QeasyStore, kind, times: 1, after: 0 });
        assert_eq!(store(r#"{"content":[{"id":"8"}]}"#).await.1["content"]["failed"], 0);
        assert_eq!(store(r#"{"content":[{"id":"8"},{"id":"9"}]}"#).await.1["content"]["failed"], 1);
        assert_eq!(store(r#"{"content":[{"id":"9"}]}"#).await.1["content"]["failed"], 0);
    }

    #[tokio::test]
    async fn queries_filter_and_answer_in_every_shape() {
        let sandbox = small(|_| ());
        let token = log_in(&sandbox).await;
        let rows: Vec<Value> =
            (1..=12).map(|id| json!({"id": id.to_string(), "name": format!("组{id}")})).collect();
        call(sandbox.target(), "POST", &path("store"), &token, &json!({"content": rows}).to_string()).await;
        let find = |body: Value| {
            let (router, token) = (sandbox.target(), token.clone());
            async move { call(router, "POST", &path("query"), &token, &body.to_string()).await.1 }
        };
        assert_eq!(find(json!({"CONTENT_id": "1"})).await["content"]["total"], 4);
        assert_eq!(find(json!({"CONTENT_name": "组2"})).await["content"]["total"], 1);
        assert_eq!(find(json!({"CONTENT_id": {"$eq": "1"}})).await["content"]["list"], json!([rows[0]]));
        assert_eq!(find(json!({"CONTENT_id": {"$in": ["2", "3", "77"]}})).await["content"]["total"], 2);
        assert_eq!(find(json!({"begin_at": 1_900_000_000})).await["content"]["total"], 0);
        assert_eq!(find(json!({"pageSize": 101})).await["code"], 40001);
        let page = json!({"page": 2, "pageSize": 10});
        sandbox.set_options(|options| options.query_shape = 2);
        let reply = find(page.clone()).await;
        assert_eq!(
            (&reply["content"]["rows"][1]["content"], &reply["content"]["total"]),
            (&rows[11], &json!(12))
        );
        sandbox.set_options(|options| options.query_shape = 3);
        assert_eq!(find(page.clone()).await["content"], json!(rows[10..]));
        sandbox.set_options(|options| options.query_shape = 4);
        assert_eq!(find(page).await["total"], 12);
    }

    #[tokio::test]
    async fn a_get_that_dispatches_is_counted() {
        let sandbox = small(|_| ());
        let token = log_in(&sandbox).await;
        for verb in ["dispatch-source", "dispatch-target"] {
            assert_eq!(call(sandbox.target(), "GET", &path(verb), &token, "").await.0, 404);
        }
        assert_eq!(sandbox.stats().qeasy_dispatches, 2);
    }
}
