//! The sandbox's OKKI: tokens, envelopes, the flat group tree and the paged product list.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz};
use serde_json::{Map, Value, json};

use super::catalogue::{Group, Product};
use super::faults::{Endpoint, json as answer_json, through};
use super::{Options, Sandbox, State, bearer, random_hex};

const BEIJING: tz::Offset = tz::Offset::constant(8);

/// OKKI's own state.
#[derive(Default)]
pub(super) struct Side {
    /// The one token of the application, and when it ends.
    pub(super) token: Option<(String, u64)>,
    pub(super) locked_until: u64,
    index: Index,
}

/// What a query over the catalogue needs, made once per change of the catalogue: rows are rendered when
/// their page is asked for, since 200,000 rendered rows would hold a quarter of a gigabyte.
#[derive(Default)]
struct Index {
    revision: u64,
    /// Positions of the products by ascending id.
    order: Arc<Vec<u32>>,
    group_names: HashMap<String, String>,
    /// The last filters and their rows, so that page 1,000 of a list is found as fast as page 1.
    filtered: Vec<(Filter, Arc<Vec<u32>>)>,
}

/// Which products a list call wants; times are Unix seconds, inclusive.
#[derive(Clone, PartialEq, Default)]
struct Filter {
    by_creation: bool,
    from: Option<i64>,
    to: Option<i64>,
    product_type: Option<u8>,
}

pub(super) async fn answer(sandbox: &Sandbox, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let path = parts.uri.path();
    if let Some(response) = sandbox.control(&parts.method, path, query, &body) {
        return response;
    }
    if parts.method != Method::GET && path != "/v1/oauth2/access_token" {
        sandbox.state().stats.okki_writes += 1;
    }
    let at = match (&parts.method, path) {
        (&Method::POST, "/v1/oauth2/access_token") => Endpoint::OkkiToken,
        (&Method::GET, "/v1/product/groups") => Endpoint::OkkiGroups,
        (&Method::GET, "/v1/product/list") => Endpoint::OkkiProducts,
        _ => {
            let state = sandbox.state();
            return envelope(&state.options, sandbox.now_ms(), Some(404), "接口不存在", None);
        }
    };
    sandbox.enter(at).await;
    let now = sandbox.now_ms();
    let locked = sandbox.state().okki.locked_until;
    if now < locked {
        return throttled(Some((locked - now).div_ceil(1000)));
    }
    through(sandbox, at, || {
        let mut guard = sandbox.state();
        let state = &mut *guard;
        if at == Endpoint::OkkiToken {
            return token(state, now, &body);
        }
        if let Some(refusal) = refuse(state, now, &parts.headers) {
            return refusal;
        }
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if at == Endpoint::OkkiGroups { groups(state, now, &query) } else { products(state, now, &query) }
    })
    .await
}

/// The envelope of every answer but the token's; a failing one carries no data.
pub(super) fn envelope(
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
    push_text(&mut out, &beijing((now / 1000) as i64));
    if let Some(data) = data {
        out.push_str(",\"data\":");
        out.push_str(data);
    }
    out.push('}');
    answer_json(StatusCode::OK, out)
}

pub(super) fn throttled(retry_after: Option<u64>) -> Response {
    let body = r#"{"code":429,"message":"Too Many Requests"}"#;
    let mut response = answer_json(StatusCode::TOO_MANY_REQUESTS, body.into());
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn oauth_error(status: StatusCode, error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description, "message": description});
    answer_json(status, body.to_string())
}

fn token(state: &mut State, now: u64, body: &[u8]) -> Response {
    let bad = |error, description| oauth_error(StatusCode::BAD_REQUEST, error, description);
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        return bad("invalid_request", "The request body is not JSON.");
    };
    let field = |name: &str| asked.get(name).and_then(Value::as_str).unwrap_or_default();
    if field("grant_type") != "client_credentials" {
        return bad("unsupported_grant_type", "The authorization grant type is not supported.");
    }
    if field("client_id") != state.credentials.okki_client_id
        || field("client_secret") != state.credentials.okki_client_secret
    {
        return bad("invalid_client", "Client authentication failed");
    }
    if !field("scope").split(' ').any(|scope| scope == "product") {
        return bad("invalid_scope", "no permission product scopes");
    }
    // Asking again does not prolong a token: the same one comes back with what is left of its life.
    let lifetime = state.options.token_lifetime.as_millis() as u64;
    let (token, until) = match state.okki.token.take() {
        Some((token, until)) if now < until => (token, until),
        _ => (random_hex(&mut state.rng, 40), now + lifetime),
    };
    let mut reply = Map::new();
    reply.insert("token_type".into(), "Bearer".into());
    if state.options.expires_in {
        reply.insert("expires_in".into(), ((until - now) / 1000).into());
    }
    reply.insert("access_token".into(), token.as_str().into());
    if state.issued.last() != Some(&token) {
        state.issued.push(token.clone());
    }
    state.okki.token = Some((token, until));
    answer_json(StatusCode::OK, Value::Object(reply).to_string())
}

/// Both documented refusals occur: 401 for no token or an expired one, access_denied for a revoked one.
fn refuse(state: &State, now: u64, headers: &HeaderMap) -> Option<Response> {
    let denied =
        |status| oauth_error(status, "access_denied", "The resource owner or server denied the request.");
    match (bearer(headers), &state.okki.token) {
        (Some(sent), Some((token, until))) if sent == token => {
            (now >= *until).then(|| denied(StatusCode::UNAUTHORIZED))
        }
        (Some(_), _) => Some(denied(StatusCode::OK)),
        (None, _) => Some(denied(StatusCode::UNAUTHORIZED)),
    }
}

fn groups(state: &mut State, now: u64, query: &HashMap<String, String>) -> Response {
    let wanted = |group: &Group| {
        query.get("group_id").is_none_or(|id| *id == group.id)
            && query.get("group_name").is_none_or(|name| group.name.contains(name.as_str()))
    };
    let data = groups_json(state, wanted);
    envelope(&state.options, now, state.options.success_code, "success", Some(&data))
}

fn groups_json(state: &State, wanted: impl Fn(&Group) -> bool) -> String {
    let mut parents: HashMap<&str, &str> = HashMap::new();
    for group in &state.catalogue.groups {
        parents.entry(&group.id).or_insert(&group.parent_id);
    }
    let strings = state.options.ids_as_strings;
    let mut out = String::from("[");
    for group in state.catalogue.groups.iter().filter(|group| wanted(group)) {
        if out.len() > 1 {
            out.push(',');
        }
        // Ancestors from the nearest to the root; a cycle or a missing parent ends the walk.
        let mut ancestors: Vec<&str> = Vec::new();
        let mut seen = HashSet::from([group.id.as_str()]);
        let mut at = group.parent_id.as_str();
        while at != "0" && seen.insert(at) {
            ancestors.push(at);
            match parents.get(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        let mut prefix = String::from("0-");
        for ancestor in ancestors.iter().rev() {
            prefix.push_str(ancestor);
            prefix.push('-');
        }
        let mut row = Row::new(&mut out, &group.extra);
        row.id("id", &group.id, strings);
        row.id("parent_id", &group.parent_id, strings);
        row.id("layer", &(ancestors.len() + 1).to_string(), strings);
        row.text("prefix", &prefix);
        row.text("name", &group.name);
        let info = json!({"info_label": group.name, "info_value": group.name}).to_string();
        row.raw("name_info", &info);
        row.raw("client_id", "\"365249\"");
        row.raw("user_id", "\"0\"");
        row.raw("create_user", "\"249525942\"");
        row.text("create_time", &beijing(group.create_time));
        row.text("update_time", &beijing(group.update_time));
        row.text("description", &group.description);
        for name in ["order_rank", "relate_id", "system_flag", "is_sys", "rank"] {
            row.raw(name, "\"0\"");
        }
        row.end();
    }
    out.push(']');
    out
}

fn products(state: &mut State, now: u64, query: &HashMap<String, String>) -> Response {
    let bad = |state: &State, message| envelope(&state.options, now, Some(400), message, None);
    let number = |name: &str, default: usize| match query.get(name) {
        Some(text) => text.parse::<usize>().ok().filter(|number| *number > 0),
        None => Some(default),
    };
    let (Some(page), Some(size)) = (number("start_index", 1), number("count", 20)) else {
        return bad(state, "参数错误: start_index, count");
    };
    let size = size.min(state.options.max_page_size);
    let mut filter = Filter {
        product_type: query.get("product_type").and_then(|text| text.parse().ok()),
        ..Filter::default()
    };
    match query.get("time_type").map(String::as_str) {
        None | Some("1") => {}
        Some("2") => filter.by_creation = true,
        Some(_) => return bad(state, "参数错误: time_type"),
    }
    for (name, last) in [("start_time", false), ("end_time", true)] {
        let Some(text) = query.get(name) else { continue };
        let Some(second) = from_beijing(text, last) else {
            return bad(state, "参数错误: 时间格式");
        };
        *(if last { &mut filter.to } else { &mut filter.from }) = Some(second);
    }
    index(state);
    let rows = filtered(state, &filter);
    let names = &state.okki.index.group_names;
    let total = if state.options.total_item { "totalItem" } else { "count" };
    let mut data = format!("{{\"{total}\":{},\"list\":[", rows.len());
    let mut first = true;
    for at in rows.iter().skip((page - 1).saturating_mul(size)).take(size) {
        let Some(product) = state.catalogue.products.get(*at as usize) else { continue };
        if !std::mem::take(&mut first) {
            data.push(',');
        }
        product_json(&mut data, product, names, state.options.ids_as_strings);
    }
    data.push_str("]}");
    envelope(&state.options, now, state.options.success_code, "success", Some(&data))
}

/// Groups and products as the wire would show them.
pub(super) fn whole_catalogue(state: &mut State) -> String {
    index(state);
    let mut out = format!("{{\"groups\":{},\"products\":[", groups_json(state, |_| true));
    for (place, at) in state.okki.index.order.iter().enumerate() {
        let Some(product) = state.catalogue.products.get(*at as usize) else { continue };
        if place > 0 {
            out.push(',');
        }
        product_json(&mut out, product, &state.okki.index.group_names, state.options.ids_as_strings);
    }
    out.push_str("]}");
    out
}

fn index(state: &mut State) {
    if state.okki.index.revision == state.revision {
        return;
    }
    let mut order: Vec<(u64, u32)> = (0..)
        .zip(&state.catalogue.products)
        .map(|(at, product)| (product.product_id.parse().unwrap_or(0), at))
        .collect();
    order.sort_unstable();
    let groups = state.catalogue.groups.iter().rev();
    state.okki.index = Index {
        revision: state.revision,
        order: Arc::new(order.into_iter().map(|(_, at)| at).collect()),
        group_names: groups.map(|group| (group.id.clone(), group.name.clone())).collect(),
        filtered: Vec::new(),
    };
}

fn filtered(state: &mut State, filter: &Filter) -> Arc<Vec<u32>> {
    let index = &mut state.okki.index;
    if *filter == Filter::default() {
        return Arc::clone(&index.order);
    }
    if let Some((_, rows)) = index.filtered.iter().find(|(known, _)| known == filter) {
        return Arc::clone(rows);
    }
    let products = &state.catalogue.products;
    let wanted = |at: &u32| {
        products.get(*at as usize).is_some_and(|product| {
            let time = if filter.by_creation { product.create_time } else { product.update_time };
            filter.from.is_none_or(|from| time >= from)
                && filter.to.is_none_or(|to| time <= to)
                && filter.product_type.is_none_or(|kind| product.product_type == kind)
        })
    };
    let rows = Arc::new(index.order.iter().copied().filter(wanted).collect::<Vec<_>>());
    if index.filtered.len() == 8 {
        index.filtered.remove(0);
    }
    index.filtered.push((filter.clone(), Arc::clone(&rows)));
    rows
}

fn product_json(out: &mut String, product: &Product, group_names: &HashMap<String, String>, strings: bool) {
    let mut fob = String::from("{\"price_currency\":");
    push_text(&mut fob, &product.fob_currency);
    fob.push_str(",\"price_min\":");
    push_number(&mut fob, product.fob_min.as_deref());
    fob.push_str(",\"price_max\":");
    push_number(&mut fob, product.fob_max.as_deref());
    fob.push_str(",\"price_unit\":");
    push_text(&mut fob, &product.unit);
    fob.push('}');
    let mut row = Row::new(out, &product.extra);
    row.id("product_id", &product.product_id, strings);
    row.text("product_no", &product.product_no);
    row.raw(
        "product_type",
        if product.product_type == 2 {
            "2"
        } else if product.product_type == 3 {
            "3"
        } else {
            "1"
        },
    );
    row.text("name", &product.name);
    row.text("model", &product.model);
    row.id("group_id", &product.group_id, strings);
    row.text("group_name", group_names.get(&product.group_id).map_or("", String::as_str));
    row.raw("category_ids", "[]");
    row.text("unit", &product.unit);
    row.number("cost", product.cost.as_deref());
    row.text("cost_currency", &product.cost_currency);
    row.number("cost_with_tax", product.cost_with_tax.as_deref());
    row.text("cost_unit", &product.unit);
    row.raw("fob", &fob);
    row.raw("minimum_order_quantity", "100");
    row.raw("enable_flag", if product.enable_flag == 0 { "0" } else { "1" });
    row.raw("disable_flag", if product.disable_flag == 0 { "0" } else { "1" });
    row.raw("image", "\"\"");
    row.raw("images", "[]");
    for name in ["description", "product_remark", "hs_code", "from_url", "package_remark"] {
        row.raw(name, "\"\"");
    }
    row.raw("info_json", "[]");
    row.raw("package_gross_weight", "0.500");
    row.raw("count_per_package", "10");
    row.raw("source_type", "\"1\"");
    row.raw("create_user", "\"249525942\"");
    row.text("create_time", &beijing(product.create_time));
    row.text("update_time", &beijing(product.update_time));
    row.end();
}

/// Writes one JSON object; a field that `extra` holds too gives way to it.
struct Row<'a> {
    out: &'a mut String,
    extra: &'a Map<String, Value>,
    empty: bool,
}

impl<'a> Row<'a> {
    fn new(out: &'a mut String, extra: &'a Map<String, Value>) -> Self {
        out.push('{');
        Self { out, extra, empty: true }
    }

    fn key(&mut self, name: &str) -> bool {
        if !self.extra.is_empty() && self.extra.contains_key(name) {
            return false;
        }
        self.out.push_str(if self.empty { "\"" } else { ",\"" });
        self.empty = false;
        self.out.push_str(name);
        self.out.push_str("\":");
        true
    }

    fn raw(&mut self, name: &str, value: &str) {
        if self.key(name) {
            self.out.push_str(value);
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        if self.key(name) {
            push_text(self.out, value);
        }
    }

    fn number(&mut self, name: &str, digits: Option<&str>) {
        if self.key(name) {
            push_number(self.out, digits);
        }
    }

    fn id(&mut self, name: &str, id: &str, as_string: bool) {
        let integer = !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_digit())
            && (id == "0" || !id.starts_with('0'));
        if self.key(name) {
            if integer && !as_string { self.out.push_str(id) } else { push_text(self.out, id) }
        }
    }

    fn end(mut self) {
        let extra = self.extra;
        for (name, value) in extra {
            self.out.push_str(if self.empty { "" } else { "," });
            self.empty = false;
            push_text(self.out, name);
            self.out.push(':');
            self.out.push_str(&value.to_string());
        }
        self.out.push('}');
    }
}

fn push_text(out: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// The digits as they are: `2999.10` stays `2999.10`. What is no JSON number leaves as a string.
fn push_number(out: &mut String, digits: Option<&str>) {
    match digits {
        None => out.push_str("null"),
        Some(digits) if serde_json::from_str::<serde_json::Number>(digits).is_ok() => out.push_str(digits),
        Some(text) => push_text(out, text),
    }
}

/// OKKI writes times without a zone; they are Beijing's, which has had no summer time since 1991.
fn beijing(second: i64) -> String {
    let time = BEIJING.to_datetime(Timestamp::from_second(second).unwrap_or_default());
    let (date, time) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// A date counts from its first second as a start, and to its last as an end.
fn from_beijing(text: &str, last: bool) -> Option<i64> {
    let time = match DateTime::strptime("%Y-%m-%d %H:%M:%S", text) {
        Ok(time) => time,
        Err(_) => {
            let date = Date::strptime("%Y-%m-%d", text).ok()?;
            if last { date.at(23, 59, 59, 0) } else { date.at(0, 0, 0, 0) }
        }
    };
    BEIJING.to_timestamp(time).ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::faults::{Fault, Kind};
    use super::super::tests::{call, small, text};
    use super::*;
    use std::time::Duration;

    async fn log_in(sandbox: &Sandbox) -> (String, Option<u64>) {
        let known = sandbox.current_credentials();
        let body = json!({"grant_type": "client_credentials", "client_id": known.okki_client_id,
            "client_secret": known.okki_client_secret, "scope": "customer product"});
        let (_, reply) = call(sandbox.okki(), "POST", "/v1/oauth2/access_token", "", &body.to_string()).await;
        (reply["access_token"].as_str().unwrap().to_owned(), reply["expires_in"].as_u64())
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_age_expire_and_get_revoked() {
        let sandbox = small(|_| ());
        let get = |token: String| {
            let router = sandbox.okki();
            async move { call(router, "GET", "/v1/product/groups", &token, "").await }
        };
        let (token, left) = log_in(&sandbox).await;
        assert_eq!(left, Some(28_800));
        tokio::time::advance(Duration::from_secs(28_000)).await;
        assert_eq!(log_in(&sandbox).await, (token.clone(), Some(800)));
        assert_eq!(get(token.clone()).await.1["data"].as_array().unwrap().len(), 20);
        tokio::time::advance(Duration::from_secs(800)).await;
        assert_eq!(get(token.clone()).await.0, 401);
        sandbox.set_options(|options| options.expires_in = false);
        let (fresh, left) = log_in(&sandbox).await;
        assert_eq!(left, None);
        assert_ne!(fresh, token);
        sandbox.revoke_tokens();
        assert_eq!(get(fresh).await.1["error"], "access_denied");
        let old = json!({"grant_type": "client_credentials", "client_id": "sandbox-client", "client_secret": "no", "scope": "product"});
        let (status, error) =
            call(sandbox.okki(), "POST", "/v1/oauth2/access_token", "", &old.to_string()).await;
        assert_eq!((status, error["error"].as_str()), (400, Some("invalid_client")));
        sandbox.rotate_credentials(super::super::Side::Okki);
        log_in(&sandbox).await;
    }

    #[tokio::test]
    async fn groups_are_a_flat_tree_in_every_envelope() {
        let sandbox = small(|options| options.dirty = true);
        let (token, _) = log_in(&sandbox).await;
        let (_, reply) = call(sandbox.okki(), "GET", "/v1/product/groups", &token, "").await;
        let rows = reply["data"].as_array().unwrap();
        assert_eq!(rows.len(), 26);
        let leaf = rows.iter().find(|row| row["layer"] == 3).unwrap();
        assert_eq!(leaf["prefix"], format!("0-{}-{}-", rows[0]["id"], leaf["parent_id"]));
        assert_eq!((&rows[0]["parent_id"], &rows[0]["prefix"]), (&json!(0), &json!("0-")));
        assert_eq!(reply["now"], "2027-01-15 16:00:00");
        sandbox.set_options(|options| {
            options.success_code = None;
            options.msg_key = true;
            options.ids_as_strings = true;
        });
        let (_, reply) =
            call(sandbox.okki(), "GET", "/v1/product/groups?group_id=5203320130", &token, "").await;
        assert!(reply.get("code").is_none() && reply["msg"] == "success");
        assert_eq!(reply["data"][0]["id"], "5203320130");
    }

    #[tokio::test]
    async fn products_page_filter_and_keep_their_digits() {
        let sandbox = small(|_| ());
        let (token, _) = log_in(&sandbox).await;
        sandbox.edit(|catalogue| {
            catalogue.products[7].cost = Some("2999.10".into());
            catalogue.products[7].update_time = 1_800_000_000;
            catalogue.products[8].update_time = 1_800_000_000;
        });
        let list = |query: &str| {
            let (router, token) = (sandbox.okki(), token.clone());
            let uri = format!("/v1/product/list?{query}");
            async move { text(router, "GET", &uri, &token, "").await }
        };
        let mut ids = HashSet::new();
        for page in 1..=4 {
            let (_, reply) = list(&format!("start_index={page}&count=500")).await;
            let reply: Value = serde_json::from_str(&reply).unwrap();
            assert_eq!(reply["data"]["count"], 250);
            let rows = reply["data"]["list"].as_array().unwrap();
            ids.extend(rows.iter().map(|row| row["product_id"].as_u64().unwrap()));
        }
        assert_eq!(ids.len(), 250);
        let second = "time_type=1&start_time=2027-01-15+16:00:00&end_time=2027-01-15%2016:00:00";
        let (_, reply) = list(second).await;
        assert!(reply.contains("\"count\":2,") && reply.contains("\"cost\":2999.10,"), "{reply}");
        let (_, reply) = list("time_type=1&start_time=2027-01-15&end_time=2027-01-15").await;
        assert!(reply.contains("\"count\":2,"));
        let (status, reply) = list("start_index=0").await;
        assert!(status == 200 && reply.contains("\"code\":400") && !reply.contains("data"));
    }

    #[tokio::test]
    async fn pages_shift_under_the_reader() {
        let sandbox = small(|_| ());
        let (token, _) = log_in(&sandbox).await;
        sandbox.fault(Fault { at: Endpoint::OkkiProducts, kind: Kind::ShiftPages, times: 2, after: 0 });
        let mut ids = Vec::new();
        let mut totals = Vec::new();
        for page in 1..=3 {
            let uri = format!("/v1/product/list?start_index={page}&count=100");
            let (_, reply) = call(sandbox.okki(), "GET", &uri, &token, "").await;
            totals.push(reply["data"]["count"].as_u64().unwrap());
            let rows = reply["data"]["list"].as_array().unwrap();
            ids.extend(rows.iter().map(|row| row["product_id"].as_u64().unwrap()));
        }
        assert_eq!(totals, [250, 250, 249]);
        assert_eq!(ids.len() - ids.iter().collect::<HashSet<_>>().len(), 1);
    }

    #[tokio::test]
    async fn writes_to_okki_are_counted() {
        let sandbox = small(|_| ());
        call(sandbox.okki(), "POST", "/v1/product/groups", "", "{}").await;
        assert_eq!(sandbox.stats().okki_writes, 1);
    }
}
