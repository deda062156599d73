//! A local OKKI and a local Qeasy, for development, the demo and the tests. OKKI has no test host: its only one is
//! production.
//!
//! # What it imitates
//! - **OKKI** (小满): `POST /v1/oauth2/access_token`, `GET /v1/product/groups`, `GET /v1/product/list`. A login is a form
//!   or JSON; tokens are JWTs that keep their end when they are asked for again, bare or after `Bearer`, and the called
//!   module judges their scopes. Answers come in every envelope that OKKI uses (`code` 200, 0 or none, `message` or
//!   `msg`, ids as integers or strings), the tree is flat, times are Beijing's, prices keep their digits.
//!   Where nobody knows how the product list behaves, [`Options`] choose: its order, its filters, its totals, rows
//!   without times, a filter in another time zone, changes that show late, the synthetic group 0.
//! - **People**, on demand, who change, create, delete and restore products without end, at any moment of a second
//!   ([`Options::edits_per_minute`]); imports that put many pages into one second ([`Sandbox::import`]).
//! - **Qeasy** (轻易云): `POST /v2/oauth` and `store`, `query`, `find-one` of one scheme. Its documentation contradicts
//!   itself, so [`CodeReading`] and [`Options::query_shape`] choose a reading. More calls in a minute than the limit
//!   lock everyone out for five minutes; a partly failed batch is a success that names no row.
//! - **A plain HTTP target** below `/v1/productGroups`, with a bearer token and no limit.
//! - **What goes wrong**, on demand: see [`faults::FaultKind`].
//!
//! # What it is made from
//! From OKKI's published API description and the behaviour that public clients report, and from Qeasy's open
//! documentation in all its readings. It shares no code with the client, so that the two can disagree.
//!
//! # What it leaves out
//! - OKKI: scopes other than `product`, `product/info`, webhooks, a rate limit of its own. Writes are counted and
//!   refused, except for the GET that deletes a product (`product/remove`), which is counted and works.
//! - Qeasy: more than one scheme or app, windows of natural minutes, limits per kind of call, metadata. Calls of
//!   `dispatch-source` and `dispatch-target` are counted and refused.
//! - TLS: it speaks plain HTTP on loopback.
//!
//! # How it runs
//! [`Sandbox::okki`] and [`Sandbox::target`] are routers: they serve loopback ports ([`Sandbox::serve`]) or, as tower
//! services, a test in the same process. All time comes from the caller's clock and tokio's timer, so a paused clock
//! drives it. One seed gives one catalogue and one sequence of tokens, changes and shuffles. Another process looks
//! inside and queues faults through `/_sandbox/` (see `control.rs`); people do so on [`Sandbox::page`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod beijing;
mod calls;
pub mod catalogue;
mod control;
pub mod faults;
mod http_target;
mod json;
mod limits;
mod okki;
mod options;
mod page;
mod people;
mod qeasy;
mod response;
mod row_query;
mod serve;
mod state;
mod stored_rows;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::Request;
use fastrand::Rng;
use indexmap::IndexMap;
use serde_json::value::RawValue;
use tokio::sync::watch;

pub use calls::Call;
use catalogue::Catalogue;
use faults::Endpoint;
pub use options::{ChangeMix, CodeReading, Credentials, IdCheck, ListOrder, Options, TimeFilter, Total};
pub use people::PastChange;
pub use response::ConnectionLost;
pub use serve::Serving;
use state::SandboxState;
pub use state::{Service, Stats};

/// The pipeline that a sandbox run uses where no other is named.
pub const PIPELINE: &str = include_str!("pipeline.toml");

/// Reads the wall clock: milliseconds since 1970-01-01 UTC.
type NowMs = Box<dyn Fn() -> u64 + Send + Sync>;

struct Inner {
    now_ms: NowMs,
    state: Mutex<SandboxState>,
    /// Counts releases of held calls.
    releases: watch::Sender<u64>,
}

/// A local OKKI and Qeasy that share a clock. Clones are handles on the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

/// A call to the target that is in flight; its caller may give it up at any await.
struct CallInFlight(Sandbox);

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.0.state().end_target_call();
    }
}

impl Sandbox {
    /// A sandbox with a fresh catalogue. `now_ms` is its wall clock, milliseconds since 1970-01-01 UTC.
    pub fn new(options: Options, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let state = SandboxState::new(options, now_ms());
        let releases = watch::Sender::new(0);
        Self { inner: Arc::new(Inner { now_ms: Box::new(now_ms), state: Mutex::new(state), releases }) }
    }

    /// OKKI, as a router that is also a tower service.
    pub fn okki(&self) -> Router {
        self.router(Service::Okki)
    }

    /// Qeasy and the plain HTTP target, as a router that is also a tower service.
    pub fn target(&self) -> Router {
        self.router(Service::Target)
    }

    fn router(&self, service: Service) -> Router {
        let sandbox = self.clone();
        control::router(self).fallback(move |request: Request| {
            let sandbox = sandbox.clone();
            async move { calls::answer(&sandbox, service, request).await }
        })
    }

    /// The credentials that every sandbox starts with.
    pub fn credentials() -> Credentials {
        Credentials::standard()
    }

    /// The credentials that are valid now.
    pub fn current_credentials(&self) -> Credentials {
        self.state().credentials.clone()
    }

    /// Changes the catalogue as people do in a working day: renames, moves, new prices, new and lost products.
    pub fn simulate_edits(&self) {
        let now = self.now_s();
        self.with_rng(|catalogue, rng| catalogue.simulate_edits(rng, now));
    }

    /// Edits the catalogue. As in OKKI, the edit sets the update time of each product that it changes.
    pub fn edit(&self, f: impl FnOnce(&mut Catalogue)) {
        let now = self.now_s();
        self.with_rng(|catalogue, _| catalogue.edit(f, now));
    }

    /// Changes how the sandbox behaves from now on.
    pub fn set_options(&self, f: impl FnOnce(&mut Options)) {
        let (mut state, now) = self.state_now();
        f(&mut state.options);
        // Whoever starts to work now has done nothing before.
        state.catch_up(now);
        state.options_changed();
    }

    /// Revokes every token of both services before its time.
    pub fn revoke_tokens(&self) {
        let mut state = self.state();
        state.okki.session = None;
        state.qeasy.tokens.clear();
    }

    /// Gives a service new secrets and revokes its tokens; returns the credentials that are valid now.
    pub fn rotate_credentials(&self, service: Service) -> Credentials {
        let mut state = self.state();
        state.rotate_credentials(service);
        state.credentials.clone()
    }

    /// What the Qeasy scheme holds, by id, byte for byte as received.
    pub fn target_rows(&self) -> IndexMap<String, Box<RawValue>> {
        self.state().qeasy.rows.copy()
    }

    /// What the plain HTTP target holds, by id, byte for byte as received.
    pub fn http_rows(&self) -> IndexMap<String, Box<RawValue>> {
        self.state().http_rows.copy()
    }

    /// What the sandbox has counted so far.
    pub fn stats(&self) -> Stats {
        self.state().stats.clone()
    }

    /// Every secret that was ever valid here: credentials and tokens, old ones included.
    pub fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    /// The rows that the targets took after the first `skip` ones, in their order (see [`Options::journal`]).
    pub fn journal(&self, skip: usize) -> Vec<(String, Box<RawValue>)> {
        self.state().journal.get(skip..).unwrap_or_default().to_vec()
    }

    /// A copy of the catalogue.
    pub fn catalogue(&self) -> Catalogue {
        self.state_now().0.catalogue.clone()
    }

    /// Counts changes of the catalogue.
    pub fn revision(&self) -> u64 {
        self.state_now().0.revision
    }

    fn state(&self) -> MutexGuard<'_, SandboxState> {
        // A test that panicked inside `edit` has not broken the sandbox for the others.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as it is now, with all that people have done until now, and the time (milliseconds).
    fn state_now(&self) -> (MutexGuard<'_, SandboxState>, u64) {
        let now = self.now_ms();
        let mut state = self.state();
        state.catch_up(now);
        (state, now)
    }

    fn now_ms(&self) -> u64 {
        (self.inner.now_ms)()
    }

    fn now_s(&self) -> i64 {
        (self.now_ms() / 1000) as i64
    }

    fn with_rng(&self, f: impl FnOnce(&mut Catalogue, &mut Rng)) {
        let (mut state, now) = self.state_now();
        state.change_anyhow(f, now);
    }

    fn shift_pages(&self) {
        let now = self.now_s();
        let overlap = {
            let mut state = self.state();
            state.shifts += 1;
            state.shifts % 2 == 1
        };
        self.with_rng(|catalogue, rng| catalogue.shift_pages(overlap, rng, now));
    }

    fn swap_rows(&self) {
        let now = self.now_s();
        self.with_rng(|catalogue, rng| catalogue.swap_rows(rng, now));
    }

    /// Counts a call to the target as in flight until it is dropped.
    fn target_call(&self) -> CallInFlight {
        self.state().begin_target_call();
        CallInFlight(self.clone())
    }

    /// Counts a call and takes its time.
    async fn enter(&self, at: Endpoint) {
        let now_ms = self.now_ms();
        let latency = {
            let mut state = self.state();
            state.count_call(at, now_ms);
            state.options.latency
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use axum::body::Body;
    use faults::{Fault, FaultKind};
    use serde_json::Value;
    use tower::ServiceExt;

    pub(crate) fn small(options: impl FnOnce(&mut Options)) -> Sandbox {
        let mut start = Options { groups: 20, products: 250, ..Options::default() };
        options(&mut start);
        let started = tokio::time::Instant::now();
        Sandbox::new(start, move || 1_800_000_000_000 + started.elapsed().as_millis() as u64)
    }

    pub(crate) async fn text(
        router: Router,
        method: &str,
        uri: &str,
        token: &str,
        body: &str,
    ) -> (u16, String) {
        let request =
            Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {token}"));
        let response = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap_or_default();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub(crate) async fn call(
        router: Router,
        method: &str,
        uri: &str,
        token: &str,
        body: &str,
    ) -> (u16, Value) {
        let (status, text) = text(router, method, uri, token, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn a_served_sandbox_breaks_connections_for_real() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let sandbox = small(|_| ());
        let serving = sandbox.serve(0, 0).await.unwrap();
        let address = serving.okki_url.strip_prefix("http://").unwrap().to_owned();
        let mut answers = Vec::new();
        for kind in [FaultKind::LostAfter, FaultKind::Truncated, FaultKind::NotJson] {
            sandbox.fault(Fault { at: Endpoint::OkkiGroups, kind, times: 1, after: 0 });
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            stream
                .write_all(b"GET /v1/product/groups HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answers.push(String::from_utf8_lossy(&answer).into_owned());
        }
        assert_eq!(answers[0], "");
        assert!(answers[1].contains("content-length") && !answers[1].ends_with('}'), "{}", answers[1]);
        assert!(answers[2].contains("down for maintenance"));
        assert_eq!(Sandbox::environment(&serving).len(), 9);
    }

    #[tokio::test]
    async fn another_process_can_queue_faults_and_look_inside() {
        let sandbox = small(|_| ());
        let fault = r#"{"at":"okki_groups","kind":"access_denied"}"#;
        assert_eq!(call(sandbox.target(), "POST", "/_sandbox/faults", "", fault).await.0, 200);
        let (_, denied) = call(sandbox.okki(), "GET", "/v1/product/groups", "x", "").await;
        assert_eq!(denied["error"], "access_denied");
        let (_, catalogue) = call(sandbox.okki(), "GET", "/_sandbox/catalogue", "", "").await;
        assert_eq!(catalogue["products"].as_array().unwrap().len(), 250);
        let (_, stats) = call(sandbox.okki(), "GET", "/_sandbox/stats", "", "").await;
        assert_eq!(stats["calls"]["okki_groups"], 1);
        assert_eq!(call(sandbox.okki(), "POST", "/_sandbox/change", "", "").await.0, 200);
        assert_eq!(call(sandbox.okki(), "GET", "/_sandbox/rows", "", "").await.1, serde_json::json!({}));
    }
}
