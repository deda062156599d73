//! The sandbox's OKKI: tokens, the flat group tree and the paged product list.

mod index;
mod list;
mod listing;
mod permutation;
mod rows;
mod token;

use std::collections::HashMap;

use axum::extract::Request;
use axum::response::Response;
use fastrand::Rng;
use http::{HeaderMap, Method};

use crate::Sandbox;
use crate::catalogue::{Group, Product};
use crate::faults::{Endpoint, through};
use crate::response::{okki_envelope, okki_throttled};
use crate::state::SandboxState;
pub(crate) use listing::Change;
use listing::Listing;
use token::Session;

pub(crate) struct OkkiState {
    pub(crate) session: Option<Session>,
    /// Apart from the other generators, so that a login changes nothing of what people do.
    signatures: Rng,
    pub(crate) locked_until_ms: u64,
    pub(crate) listing: Listing,
    /// List calls answered so far.
    list_answers: u64,
    /// What [`crate::Total::Falling`] has taken from the total.
    fallen: i64,
}

impl OkkiState {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            session: None,
            signatures: Rng::with_seed(seed ^ 0x519_4ed),
            locked_until_ms: 0,
            listing: Listing::default(),
            list_answers: 0,
            fallen: 0,
        }
    }
}

pub(crate) async fn answer(sandbox: &Sandbox, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default();
    let path = parts.uri.path();
    let is_remove = path == "/v1/product/remove";
    if is_remove || (parts.method != Method::GET && path != "/v1/oauth2/access_token") {
        sandbox.state().stats.okki_writes += 1;
    }
    let at = match (&parts.method, path) {
        (&Method::POST, "/v1/oauth2/access_token") => Endpoint::OkkiToken,
        (&Method::GET, "/v1/product/groups") => Endpoint::OkkiGroups,
        (&Method::GET, "/v1/product/list") => Endpoint::OkkiProducts,
        (&Method::GET, _) if is_remove => return remove(sandbox, &parts.headers, query),
        _ => {
            let state = sandbox.state();
            return okki_envelope(&state.options, sandbox.now_ms(), Some(404), "接口不存在", None);
        }
    };
    sandbox.enter(at).await;
    let now = sandbox.now_ms();
    let locked = sandbox.state().okki.locked_until_ms;
    if now < locked {
        return okki_throttled(Some((locked - now).div_ceil(1000)));
    }
    through(sandbox, at, || {
        let mut guard = sandbox.state();
        let state = &mut *guard;
        state.catch_up(now);
        if at == Endpoint::OkkiToken {
            return token::log_in(state, now, &parts.headers, &body);
        }
        if let Some(refusal) = token::refuse(state, now, &parts.headers) {
            return refusal;
        }
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if at == Endpoint::OkkiGroups { groups(state, now, &query) } else { list::answer(state, now, &query) }
    })
    .await
}

/// `GET /v1/product/remove`, the trap for a client that takes every GET for a read.
fn remove(sandbox: &Sandbox, headers: &HeaderMap, query: &str) -> Response {
    let (mut state, now) = sandbox.state_now();
    if let Some(refusal) = token::refuse(&state, now, headers) {
        return refusal;
    }
    let id = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "product_id");
    if id.is_some_and(|(_, id)| state.remove_id(&id, now)) {
        return success(&state, now, "[]");
    }
    okki_envelope(&state.options, now, Some(404), "产品不存在", None)
}

fn groups(state: &mut SandboxState, now: u64, query: &HashMap<String, String>) -> Response {
    let wanted = |group: &Group| {
        query.get("group_id").is_none_or(|id| *id == group.id)
            && query.get("group_name").is_none_or(|name| group.name.contains(name.as_str()))
    };
    let data = rows::groups(&state.catalogue.groups, wanted, state.options.ids_as_strings);
    success(state, now, &data)
}

fn success(state: &SandboxState, now: u64, data: &str) -> Response {
    okki_envelope(&state.options, now, state.options.success_code, "success", Some(data))
}

/// Groups and products as the wire would show them, each product by its id.
pub(crate) fn whole_catalogue(state: &SandboxState) -> String {
    let catalogue = &state.catalogue;
    let groups = rows::groups(&catalogue.groups, |_| true, state.options.ids_as_strings);
    let mut products: Vec<&Product> = catalogue.products.iter().collect();
    products.sort_by_key(|product| product.product_id.parse::<u64>().unwrap_or(0));
    let names = catalogue.group_names();
    let mut out = format!("{{\"groups\":{groups},\"products\":[");
    let name = |id: &str| names.get(id).map_or("", String::as_str);
    rows::products(&mut out, products.into_iter(), name, &state.options);
    out.push_str("]}");
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::faults::{Fault, FaultKind};
    use crate::tests::{call, small, text};
    use serde_json::{Value, json};
    use std::collections::HashSet;

    pub(super) async fn log_in(sandbox: &Sandbox) -> (String, Option<u64>) {
        let known = sandbox.current_credentials();
        let body = json!({"grant_type": "client_credentials", "client_id": known.okki_client_id,
            "client_secret": known.okki_client_secret, "scope": "customer product"});
        let (_, reply) = call(sandbox.okki(), "POST", "/v1/oauth2/access_token", "", &body.to_string()).await;
        (reply["access_token"].as_str().unwrap().to_owned(), reply["expires_in"].as_u64())
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
        sandbox.fault(Fault { at: Endpoint::OkkiProducts, kind: FaultKind::ShiftPages, times: 2, after: 0 });
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

    #[tokio::test]
    async fn a_get_that_deletes_is_a_write() {
        let sandbox = small(|_| ());
        let (token, _) = log_in(&sandbox).await;
        let id = sandbox.catalogue().products[3].product_id.clone();
        let uri = format!("/v1/product/remove?product_id={id}");
        call(sandbox.okki(), "GET", &uri, "no token", "").await;
        assert_eq!((sandbox.stats().okki_writes, sandbox.catalogue().products.len()), (1, 250));
        assert_eq!(call(sandbox.okki(), "GET", &uri, &token, "").await.1["code"], 200);
        assert_eq!(call(sandbox.okki(), "GET", &uri, &token, "").await.1["code"], 404);
        assert_eq!((sandbox.stats().okki_writes, sandbox.catalogue().products.len()), (3, 249));
        assert!(sandbox.restore(&id));
    }
}
