//! The sandbox's target: Qeasy with its rate limit and its contradictory codes, and a plain HTTP target.

use std::collections::{BTreeSet, HashMap, VecDeque};

use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::faults::{self, Endpoint, json as answer_json, through};
use super::{CodeReading, Sandbox, State, bearer, random_hex};

/// The target's own state.
#[derive(Default)]
pub(super) struct Side {
    /// Valid tokens and when they end.
    pub(super) tokens: HashMap<String, u64>,
    pub(super) locked_until: u64,
    recent: VecDeque<u64>,
    pub(super) scheme: Table,
    pub(super) http: Table,
}

/// Rows by primary key, exactly as they came.
#[derive(Default)]
pub(super) struct Table {
    rows: IndexMap<String, Row>,
    /// The fields that ids were found in; with one of them alone, an id filter needs no scan.
    key_fields: BTreeSet<&'static str>,
}

struct Row {
    raw: Box<RawValue>,
    arrived_ms: u64,
}

/// The fields that can be a row's primary key, in this order.
#[derive(Deserialize)]
struct Keys<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "productGroupId")]
    group: Option<&'a RawValue>,
    #[serde(borrow, rename = "productId")]
    product: Option<&'a RawValue>,
}

impl Table {
    pub(super) fn rows(&self) -> IndexMap<String, Box<RawValue>> {
        self.rows.iter().map(|(id, row)| (id.clone(), row.raw.clone())).collect()
    }

    fn put(&mut self, id: String, field: &'static str, raw: &RawValue, now: u64) {
        self.key_fields.insert(field);
        self.rows.insert(id, Row { raw: raw.to_owned(), arrived_ms: now });
    }
}

/// A row's primary key and its field; none if it is missing, null or blank.
fn key(row: &RawValue) -> Option<(String, &'static str)> {
    let keys: Keys = serde_json::from_str(row.get()).ok()?;
    let (raw, field) = keys
        .id
        .map(|raw| (raw, "id"))
        .or(keys.group.map(|raw| (raw, "productGroupId")))
        .or(keys.product.map(|raw| (raw, "productId")))?;
    let id = text_of(&serde_json::from_str(raw.get()).ok()?);
    (!id.trim().is_empty()).then_some((id, field))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Cases that the documentation gives contradictory codes for.
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
        CodeReading::A => answer_json(StatusCode::OK, failure(a, message)),
        CodeReading::B => answer_json(StatusCode::OK, failure(b, message)),
        CodeReading::C => answer_json(status, second_failure(c, message, now)),
    }
}

fn failure(code: i64, message: &str) -> String {
    json!({"success": false, "code": code, "message": message, "content": null}).to_string()
}

fn second_failure(code: i64, message: &str, now: u64) -> String {
    let request = format!("req-{now:x}");
    json!({"code": code, "message": message, "detail": message, "requestId": request, "timestamp": now / 1000}).to_string()
}

fn success(content: &str) -> Response {
    answer_json(
        StatusCode::OK,
        format!("{{\"success\":true,\"code\":0,\"message\":\"success\",\"content\":{content}}}"),
    )
}

/// A throttled answer; with `limit`, the headers of reading A say where the caller stands.
pub(super) fn throttled(
    reading: CodeReading,
    now: u64,
    retry_after: Option<u64>,
    limit: Option<u32>,
) -> Response {
    let message = "请求过于频繁，请稍后再试";
    let mut response = match reading {
        CodeReading::A => answer_json(StatusCode::TOO_MANY_REQUESTS, failure(42901, message)),
        CodeReading::B => return answer_json(StatusCode::OK, failure(40029, message)),
        CodeReading::C => answer_json(StatusCode::TOO_MANY_REQUESTS, second_failure(429, message, now)),
    };
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let (CodeReading::A, Some(limit)) = (reading, limit) {
        limit_headers(&mut response, limit, 0, now / 1000 + retry_after.unwrap_or(0));
    }
    response
}

fn limit_headers(response: &mut Response, limit: u32, remaining: u64, reset: u64) {
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(limit));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
}

/// Counts a call against the limit. Token calls are not counted, but a lockout refuses them like all others.
fn limited(state: &mut State, now: u64, counted: bool) -> Option<Response> {
    let limit = state.options.calls_per_minute;
    let side = &mut state.target;
    if now >= side.locked_until {
        if !counted {
            return None;
        }
        while side.recent.front().is_some_and(|call| now - call >= 60_000) {
            side.recent.pop_front();
        }
        if side.recent.len() < limit as usize {
            side.recent.push_back(now);
            return None;
        }
        state.stats.lockouts += 1;
        side.recent.clear();
        side.locked_until = now + state.options.lockout.as_millis() as u64;
    } else {
        state.stats.knocks += 1;
    }
    let seconds = (side.locked_until - now).div_ceil(1000);
    Some(throttled(state.options.codes, now, Some(seconds), Some(limit)))
}

pub(super) async fn answer(sandbox: &Sandbox, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 256 << 20).await else {
        return answer_json(StatusCode::PAYLOAD_TOO_LARGE, failure(40001, "请求体过大"));
    };
    let path = parts.uri.path();
    if let Some(response) = sandbox.control(&parts.method, path, parts.uri.query().unwrap_or_default(), &body)
    {
        return response;
    }
    let _under_way = sandbox.under_way();
    if path.starts_with("/v1/productGroups") {
        sandbox.enter(Endpoint::HttpTarget).await;
        return through(sandbox, Endpoint::HttpTarget, || http_target(sandbox, &parts, &body)).await;
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (at, scheme, id) = match (&parts.method, segments.as_slice()) {
        (&Method::POST, ["v2", "oauth"]) => (Endpoint::QeasyToken, "", ""),
        (&Method::POST, ["v2", "open-api", "business", scheme, "store"]) => {
            (Endpoint::QeasyStore, *scheme, "")
        }
        (&Method::POST, ["v2", "open-api", "business", scheme, "query"]) => {
            (Endpoint::QeasyQuery, *scheme, "")
        }
        (&Method::GET, ["v2", "open-api", "business", scheme, "find-one", id]) => {
            (Endpoint::QeasyQuery, *scheme, *id)
        }
        _ => return answer_json(StatusCode::NOT_FOUND, failure(40401, "接口不存在")),
    };
    sandbox.enter(at).await;
    let now = sandbox.now_ms();
    let refusal = limited(&mut sandbox.state(), now, at != Endpoint::QeasyToken);
    if let Some(refusal) = refusal {
        return refusal;
    }
    let mut response = through(sandbox, at, || {
        let mut guard = sandbox.state();
        let state = &mut *guard;
        if at == Endpoint::QeasyToken {
            return token(state, now, &body);
        }
        let reading = state.options.codes;
        let query = parts.uri.query().unwrap_or_default();
        let sent = bearer(&parts.headers).map(str::to_owned).or_else(|| {
            url::form_urlencoded::parse(query.as_bytes())
                .find(|(name, _)| name == "access_token")
                .map(|(_, token)| token.into_owned())
        });
        let valid = sent.and_then(|token| state.target.tokens.get(&token)).is_some_and(|until| now < *until);
        if !valid {
            return refuse(reading, Case::BadToken, "access_token 无效或已过期", now);
        }
        if scheme != state.credentials.scheme_id {
            return refuse(reading, Case::NoScheme, "方案不存在", now);
        }
        match at {
            Endpoint::QeasyStore => store(state, now, &body),
            _ if parts.method == Method::GET => find_one(state, id),
            _ => find(state, now, &body),
        }
    })
    .await;
    let state = sandbox.state();
    let told = response.headers().contains_key("x-ratelimit-limit");
    if state.options.codes == CodeReading::A
        && response.status() == StatusCode::OK
        && at != Endpoint::QeasyToken
        && !told
    {
        let limit = state.options.calls_per_minute;
        let remaining = u64::from(limit).saturating_sub(state.target.recent.len() as u64);
        let reset = state.target.recent.front().map_or(now, |first| first + 60_000).div_ceil(1000);
        limit_headers(&mut response, limit, remaining, reset);
    }
    response
}

fn token(state: &mut State, now: u64, body: &[u8]) -> Response {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or_default();
    let known = &state.credentials;
    if field("app_key") != known.qeasy_app_key || field("app_secret") != known.qeasy_app_secret {
        return refuse(state.options.codes, Case::BadKey, "app_key 或 app_secret 错误", now);
    }
    let lifetime = state.options.target_token_lifetime;
    let token = random_hex(&mut state.rng, 32);
    state.target.tokens.retain(|_, until| *until > now);
    state.issued.push(token.clone());
    state.target.tokens.insert(token.clone(), now + lifetime.as_millis() as u64);
    success(&json!({"access_token": token, "expires_in": lifetime.as_secs()}).to_string())
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, alias = "groups")]
    content: Vec<&'a RawValue>,
}

fn store(state: &mut State, now: u64, body: &[u8]) -> Response {
    let reading = state.options.codes;
    let Ok(batch) = serde_json::from_slice::<Batch>(body) else {
        return refuse(reading, Case::BadParameter, "参数错误: content", now);
    };
    let mut keyed = Vec::with_capacity(batch.content.len());
    for row in batch.content {
        let Some((id, field)) = key(row) else {
            return refuse(reading, Case::MissingField, "必填字段缺失: id", now);
        };
        keyed.push((id, field, row));
    }
    let ids: Vec<String> = keyed.iter().map(|(id, ..)| id.clone()).collect();
    let failing = faults::failing_ids(&mut state.faults, &ids);
    if !failing.is_empty() {
        *state.stats.struck.entry("partly failed").or_default() += 1;
    }
    let (mut inserted, mut failed) = (0_u64, 0_u64);
    for (id, field, row) in keyed {
        let repeated = state.options.id_check && state.target.scheme.rows.contains_key(&id);
        if repeated || failing.contains(&id) {
            failed += 1;
        } else {
            if state.options.journal {
                state.journal.push((id.clone(), row.to_owned()));
            }
            state.target.scheme.put(id, field, row, now);
            inserted += 1;
        }
    }
    state.stats.rows_written += inserted;
    // A partly failed batch is a success that tells neither which rows failed nor why.
    success(&format!("{{\"inserted\":{inserted},\"failed\":{failed}}}"))
}

fn find_one(state: &State, segment: &str) -> Response {
    let encoded = format!("id={}", segment.replace('+', "%2B"));
    let id = url::form_urlencoded::parse(encoded.as_bytes()).next().map(|(_, id)| id.into_owned());
    let row = id.and_then(|id| state.target.scheme.rows.get(&id));
    success(row.map_or("null", |row| row.raw.get()))
}

/// One `CONTENT_<field>` condition.
enum Test {
    Contains(String),
    In(Vec<String>),
}

fn conditions(asked: &Map<String, Value>) -> Option<Vec<(&str, Test)>> {
    let mut tests = Vec::new();
    for (name, value) in asked {
        let Some(field) = name.strip_prefix("CONTENT_") else { continue };
        let Value::Object(operators) = value else {
            tests.push((field, Test::Contains(text_of(value).to_lowercase())));
            continue;
        };
        for (operator, value) in operators {
            tests.push((
                field,
                match (operator.as_str(), value) {
                    ("$eq", value) => Test::In(vec![text_of(value)]),
                    ("$in", Value::Array(values)) => Test::In(values.iter().map(text_of).collect()),
                    _ => return None,
                },
            ));
        }
    }
    Some(tests)
}

fn find(state: &State, now: u64, body: &[u8]) -> Response {
    let bad = |message| refuse(state.options.codes, Case::BadParameter, message, now);
    let Ok(asked) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return bad("参数错误: 请求体不是 JSON 对象");
    };
    let whole = |name: &str, default: u64| asked.get(name).map_or(Some(default), Value::as_u64);
    let (Some(page), Some(size @ 1..=100)) = (whole("page", 1), whole("pageSize", 20)) else {
        return bad("参数错误: page, pageSize (1-100)");
    };
    let (Some(begin), Some(end)) = (whole("begin_at", 0), whole("end_at", u64::MAX / 1000)) else {
        return bad("参数错误: begin_at, end_at");
    };
    let (Some(tests), 1..) = (conditions(&asked), page) else {
        return bad("参数错误: 过滤条件");
    };
    let table = &state.target.scheme;
    let fits = |row: &Row| {
        let second = row.arrived_ms / 1000;
        if second < begin || second > end {
            return false;
        }
        if tests.is_empty() {
            return true;
        }
        let content: Map<String, Value> = serde_json::from_str(row.raw.get()).unwrap_or_default();
        tests.iter().all(|(field, test)| {
            let Some(value) = content.get(*field) else { return false };
            let text = text_of(value);
            match test {
                Test::Contains(part) => text.to_lowercase().contains(part),
                Test::In(values) => values.contains(&text),
            }
        })
    };
    // Ids asked for by name are looked up: verification asks for all of them, 100 at a time.
    let named = tests.iter().find_map(|(field, test)| match test {
        Test::In(ids) if table.key_fields.len() == 1 && table.key_fields.contains(field) => Some(ids),
        _ => None,
    });
    let found: Vec<(&String, &Row)> = match named {
        Some(ids) => {
            let unique: BTreeSet<usize> = ids.iter().filter_map(|id| table.rows.get_index_of(id)).collect();
            unique
                .into_iter()
                .filter_map(|at| table.rows.get_index(at))
                .filter(|(_, row)| fits(row))
                .collect()
        }
        None => table.rows.iter().filter(|(_, row)| fits(row)).collect(),
    };
    let skipped = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let shape = state.options.query_shape;
    let rows: Vec<String> = found
        .iter()
        .skip(skipped)
        .take(size as usize)
        .map(|(id, row)| {
            if matches!(shape, 2 | 4) {
                let (id, created) = (Value::from(id.as_str()), row.arrived_ms / 1000);
                format!("{{\"id\":{id},\"content\":{},\"created_at\":{created}}}", row.raw.get())
            } else {
                row.raw.get().to_owned()
            }
        })
        .collect();
    let (rows, total) = (rows.join(","), found.len());
    match shape {
        2 => success(&format!("{{\"rows\":[{rows}],\"total\":{total}}}")),
        3 => success(&format!("[{rows}]")),
        4 => success(&format!("{{\"rows\":[{rows}]}},\"total\":{total}")),
        _ => success(&format!("{{\"list\":[{rows}],\"total\":{total}}}")),
    }
}

fn http_target(sandbox: &Sandbox, parts: &Parts, body: &[u8]) -> Response {
    let mut guard = sandbox.state();
    let state = &mut *guard;
    let refuse = |status: StatusCode, message: &str| {
        answer_json(status, json!({"code": status.as_u16(), "message": message}).to_string())
    };
    if parts.headers.contains_key(header::AUTHORIZATION)
        && bearer(&parts.headers) != Some(state.credentials.target_token.as_str())
    {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/v1/productGroups") => {
            let rows: Vec<&str> = state.target.http.rows.values().map(|row| row.raw.get()).collect();
            answer_json(StatusCode::OK, format!("[{}]", rows.join(",")))
        }
        (&Method::POST, "/v1/productGroups/batchInsert") => {
            let rows = serde_json::from_slice::<Vec<&RawValue>>(body)
                .or_else(|_| serde_json::from_slice::<Batch>(body).map(|batch| batch.content));
            let Ok(rows) = rows else {
                return refuse(StatusCode::BAD_REQUEST, "expected an array of rows");
            };
            let Some(keyed) =
                rows.into_iter().map(|row| key(row).map(|key| (key, row))).collect::<Option<Vec<_>>>()
            else {
                return refuse(StatusCode::BAD_REQUEST, "a row has no id");
            };
            let inserted = keyed.len();
            for ((id, field), row) in keyed {
                if state.options.journal {
                    state.journal.push((id.clone(), row.to_owned()));
                }
                state.target.http.put(id, field, row, sandbox.now_ms());
            }
            state.stats.rows_written += inserted as u64;
            answer_json(
                StatusCode::OK,
                json!({"code": 0, "message": "success", "inserted": inserted}).to_string(),
            )
        }
        _ => refuse(StatusCode::NOT_FOUND, "not found"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::faults::{Fault, Kind};
    use super::super::tests::{call, small, text};
    use super::*;
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
        sandbox.set_options(|options| options.id_check = true);
        let (_, reply) = store(r#"{"content":[{"id":"001","cost":1},{"productGroupId":7}]}"#).await;
        assert_eq!(reply["content"], json!({"inserted": 1, "failed": 1}));
        assert_eq!(sandbox.target_rows()["001"].get(), r#"{"id":"001","cost":1840.000}"#);
        let (_, one) = text(sandbox.target(), "GET", &path("find-one/001"), &token, "").await;
        assert!(one.contains(r#""content":{"id":"001","cost":1840.000}"#));
        assert_eq!(store(r#"{"content":[{"name":"x"}]}"#).await.1["code"], 40001);
        sandbox.set_options(|options| options.id_check = false);
        let kind = Kind::PartlyFailed(vec!["9".into()]);
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
    async fn the_plain_target_takes_three_wrappers() {
        let sandbox = small(|_| ());
        let insert = |token: &'static str, body: &'static str| {
            call(sandbox.target(), "POST", "/v1/productGroups/batchInsert", token, body)
        };
        let token = "sandbox-target-token";
        assert_eq!(insert("wrong", "[]").await.0, 401);
        let (status, reply) = insert(token, r#"[{"productGroupId":"123","productName":"Group A"}]"#).await;
        assert_eq!((status, &reply["inserted"]), (200, &json!(1)));
        insert(token, r#"{"groups":[{"id":"123","cost":0.035}]}"#).await;
        insert(token, r#"{"content":[{"id":"124"}]}"#).await;
        let (_, all) = text(sandbox.target(), "GET", "/v1/productGroups", token, "").await;
        assert_eq!(all, r#"[{"id":"123","cost":0.035},{"id":"124"}]"#);
        assert_eq!(sandbox.http_rows().len(), 2);
    }
}
