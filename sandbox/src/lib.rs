//! The sandbox: a faithful local OKKI and Qeasy, for development, the demo and the tests.
//!
//! It is written from what is known about the two services and shares no code with the client, so that the two
//! can disagree. Its routers serve loopback ports or, as tower services, a test in the same process; all time
//! comes from the caller's clock and tokio's timer, so that a paused clock drives it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod catalogue;
pub mod faults;
mod okki;
mod qeasy;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use fastrand::Rng;
use http::{Method, StatusCode};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use catalogue::Catalogue;
use faults::{Endpoint, Fault, json};

/// The pipeline that a sandbox run uses where no other is named.
pub const PIPELINE: &str = include_str!("pipeline.toml");

/// Which of the contradictory documented readings Qeasy's failures follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodeReading {
    /// The first code of each case under HTTP 200; throttled is HTTP 429 with rate-limit headers.
    #[default]
    A,
    /// The second code of each case, always under HTTP 200 and without headers.
    B,
    /// HTTP statuses with the second error body, `{"code","message","detail","requestId","timestamp"}`.
    C,
}

/// One of the two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source.
    Okki,
    /// Qeasy and the plain HTTP target.
    Target,
}

/// How the sandbox behaves. Seed, sizes and `dirty` count at the start only.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of catalogue, tokens and changes.
    pub seed: u64,
    /// Number of groups.
    pub groups: usize,
    /// Number of products.
    pub products: usize,
    /// Adds a handful of offenders: blank id, blank name, repeated id, unknown group, missing parent, cycle.
    pub dirty: bool,
    /// Qeasy scheme's idCheck: a repeated id is excluded and counted as failed.
    pub id_check: bool,
    /// Life of an OKKI token.
    pub token_lifetime: Duration,
    /// Life of a Qeasy token.
    pub target_token_lifetime: Duration,
    /// Whether OKKI's token answer carries `expires_in`.
    pub expires_in: bool,
    /// OKKI's ids (and layers) as strings instead of integers.
    pub ids_as_strings: bool,
    /// The product total is called `totalItem` instead of `count`.
    pub total_item: bool,
    /// OKKI's `code` of success; none = left out.
    pub success_code: Option<i64>,
    /// OKKI spells `msg` instead of `message`.
    pub msg_key: bool,
    /// OKKI's silent upper bound on the page size.
    pub max_page_size: usize,
    /// Qeasy's limit.
    pub calls_per_minute: u32,
    /// How long Qeasy refuses every call once the limit was passed.
    pub lockout: Duration,
    /// Shape of `/query` replies: 1 `content.list`, 2 `content.rows`, 3 `content` is the array,
    /// 4 as 2 with `total` beside `content`.
    pub query_shape: u8,
    /// Which failure codes Qeasy uses.
    pub codes: CodeReading,
    /// Time each call takes at least.
    pub latency: Duration,
    /// Keeps every row that the targets take, for [`Sandbox::journal`]; it grows without bound.
    pub journal: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            groups: 120,
            products: 3000,
            dirty: false,
            id_check: false,
            token_lifetime: Duration::from_secs(28_800),
            target_token_lifetime: Duration::from_secs(7200),
            expires_in: true,
            ids_as_strings: false,
            total_item: false,
            success_code: Some(200),
            msg_key: false,
            max_page_size: 100,
            calls_per_minute: 60,
            lockout: Duration::from_secs(300),
            query_shape: 1,
            codes: CodeReading::A,
            latency: Duration::ZERO,
            journal: false,
        }
    }
}

/// What opens the sandbox's doors. Not secrets: everyone's sandbox has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// OKKI client id.
    pub okki_client_id: String,
    /// OKKI client secret.
    pub okki_client_secret: String,
    /// Qeasy app key, 12 characters.
    pub qeasy_app_key: String,
    /// Qeasy app secret, 20 characters.
    pub qeasy_app_secret: String,
    /// Bearer token of the plain HTTP target.
    pub target_token: String,
    /// The Qeasy scheme that exists.
    pub scheme_id: String,
}

/// What the sandbox has seen.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Calls per endpoint, refused ones included.
    pub calls: BTreeMap<Endpoint, u64>,
    /// Rows that the targets took.
    pub rows_written: u64,
    /// Lockouts that callers provoked by exceeding the limit.
    pub lockouts: u64,
    /// Most calls to the target, token calls aside, in any 60 seconds.
    pub max_target_calls_per_minute: usize,
    /// Most calls to the target that were under way at a time.
    pub max_target_calls_at_once: usize,
    /// Calls to OKKI, token aside, that were not GET.
    pub okki_writes: u64,
    /// Calls that Qeasy refused because a lockout had begun before them.
    pub knocks: u64,
    /// Faults that struck, by kind.
    pub struck: BTreeMap<&'static str, u64>,
}

struct State {
    options: Options,
    credentials: Credentials,
    catalogue: Catalogue,
    /// Counts changes of the catalogue, so that indexes over it know when they are stale.
    revision: u64,
    faults: Vec<Fault>,
    shifts: u32,
    stats: Stats,
    recent_target_calls: VecDeque<u64>,
    target_calls_under_way: usize,
    /// Credentials and tokens that opened a door once.
    issued: Vec<String>,
    journal: Vec<(String, Box<RawValue>)>,
    rng: Rng,
    okki: okki::Side,
    target: qeasy::Side,
}

/// A call to the target that is under way; its caller may give it up at any await.
struct InFlight(Sandbox);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state().target_calls_under_way -= 1;
    }
}

/// Reads the wall clock: milliseconds since 1970-01-01 UTC.
type NowMs = Box<dyn Fn() -> u64 + Send + Sync>;

struct Inner {
    now_ms: NowMs,
    state: Mutex<State>,
}

/// A local OKKI and Qeasy that share a clock. Clones are handles on the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

/// A sandbox on loopback ports; stops serving when dropped.
#[derive(Debug)]
pub struct Serving {
    /// Base URL of OKKI.
    pub okki_url: String,
    /// Base URL of Qeasy and of the plain HTTP target.
    pub target_url: String,
    credentials: Credentials,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Sandbox {
    /// A sandbox with a fresh catalogue. `now_ms` is its wall clock, milliseconds since 1970-01-01 UTC.
    pub fn new(options: Options, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let now = (now_ms() / 1000) as i64;
        let catalogue =
            Catalogue::generate(options.seed, options.groups, options.products, options.dirty, now);
        let state = State {
            // A stream of its own: the catalogue's must not depend on what else draws from it.
            rng: Rng::with_seed(options.seed ^ 0x5eed_0ff5),
            options,
            credentials: Self::credentials(),
            catalogue,
            revision: 1,
            faults: Vec::new(),
            shifts: 0,
            stats: Stats::default(),
            recent_target_calls: VecDeque::new(),
            target_calls_under_way: 0,
            issued: secrets_of(&Self::credentials()),
            journal: Vec::new(),
            okki: okki::Side::default(),
            target: qeasy::Side::default(),
        };
        Self { inner: Arc::new(Inner { now_ms: Box::new(now_ms), state: Mutex::new(state) }) }
    }

    /// OKKI, as a router that is also a tower service.
    pub fn okki(&self) -> Router {
        let sandbox = self.clone();
        Router::new().fallback(move |request: Request| {
            let sandbox = sandbox.clone();
            async move { okki::answer(&sandbox, request).await }
        })
    }

    /// Qeasy and the plain HTTP target, as a router that is also a tower service.
    pub fn target(&self) -> Router {
        let sandbox = self.clone();
        Router::new().fallback(move |request: Request| {
            let sandbox = sandbox.clone();
            async move { qeasy::answer(&sandbox, request).await }
        })
    }

    /// The credentials that every sandbox starts with.
    pub fn credentials() -> Credentials {
        Credentials {
            okki_client_id: "sandbox-client".into(),
            okki_client_secret: "sandbox-client-secret".into(),
            qeasy_app_key: "SANDBOXKEY01".into(),
            qeasy_app_secret: "sandboxsecret0123456".into(),
            target_token: "sandbox-target-token".into(),
            scheme_id: "0166a725-2b9a-30e4-91c5-3529176302c4".into(),
        }
    }

    /// The credentials that are valid now.
    pub fn current_credentials(&self) -> Credentials {
        self.state().credentials.clone()
    }

    /// Serves both sides on 127.0.0.1; port 0 takes a free one.
    pub async fn serve(&self, okki_port: u16, target_port: u16) -> std::io::Result<Serving> {
        let okki = TcpListener::bind(("127.0.0.1", okki_port)).await?;
        let target = TcpListener::bind(("127.0.0.1", target_port)).await?;
        let mut serving = Serving {
            okki_url: format!("http://{}", okki.local_addr()?),
            target_url: format!("http://{}", target.local_addr()?),
            credentials: self.current_credentials(),
            tasks: Vec::new(),
        };
        for (listener, router) in [(okki, self.okki()), (target, self.target())] {
            serving.tasks.push(tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the sandbox stopped serving");
                }
            }));
        }
        Ok(serving)
    }

    /// The environment that points the programs at a served sandbox.
    pub fn environment(serving: &Serving) -> Vec<(&'static str, String)> {
        let Credentials { okki_client_id, okki_client_secret, .. } = serving.credentials.clone();
        let Credentials { qeasy_app_key, qeasy_app_secret, scheme_id, target_token, .. } =
            serving.credentials.clone();
        vec![
            ("OKKI_BASE_URL", serving.okki_url.clone()),
            ("OKKI_CLIENT_ID", okki_client_id),
            ("OKKI_CLIENT_SECRET", okki_client_secret),
            ("TARGET_BASE_URL", serving.target_url.clone()),
            ("QEASY_APP_KEY", qeasy_app_key),
            ("QEASY_APP_SECRET", qeasy_app_secret),
            ("QEASY_SCHEME_ID", scheme_id),
            ("TARGET_TOKEN", target_token),
        ]
    }

    /// Changes the catalogue as a working day does: renames, moves, new prices, new and lost products.
    pub fn change_as_people_do(&self) {
        let now = self.now_s();
        self.with_rng(|catalogue, rng| catalogue.change_as_people_do(rng, now));
    }

    /// Direct access to the catalogue. As in OKKI, a product that was changed is one that was updated now.
    pub fn edit(&self, f: impl FnOnce(&mut Catalogue)) {
        let now = self.now_s();
        self.with_rng(|catalogue, _| {
            let look = |product: &catalogue::Product| (product.product_id.clone(), format!("{product:?}"));
            let before: HashMap<String, String> = catalogue.products.iter().map(look).collect();
            f(catalogue);
            for product in &mut catalogue.products {
                let (id, looks) = look(product);
                if before.get(&id).is_none_or(|before| *before != looks) {
                    product.update_time = now;
                }
            }
        });
    }

    /// Queues a fault.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets all queued faults and ends lockouts.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.okki.locked_until = 0;
        state.target.locked_until = 0;
    }

    /// Changes how the sandbox behaves from now on.
    pub fn set_options(&self, f: impl FnOnce(&mut Options)) {
        f(&mut self.state().options);
    }

    /// Revokes every token of both sides before its time.
    pub fn revoke_tokens(&self) {
        let mut state = self.state();
        state.okki.token = None;
        state.target.tokens.clear();
    }

    /// Gives one side new secrets and revokes its tokens; returns the credentials that are valid now.
    pub fn rotate_credentials(&self, side: Side) -> Credentials {
        let mut state = self.state();
        let fresh = random_hex(&mut state.rng, 20);
        match side {
            Side::Okki => {
                state.credentials.okki_client_secret = fresh;
                state.okki.token = None;
            }
            Side::Target => {
                state.credentials.target_token = format!("target-{fresh}");
                state.credentials.qeasy_app_secret = fresh;
                state.target.tokens.clear();
            }
        }
        let fresh = secrets_of(&state.credentials);
        state.issued.extend(fresh);
        state.credentials.clone()
    }

    /// What the Qeasy scheme holds, by id, byte for byte as received.
    pub fn target_rows(&self) -> IndexMap<String, Box<RawValue>> {
        self.state().target.scheme.rows()
    }

    /// What the plain HTTP target holds, by id, byte for byte as received.
    pub fn http_rows(&self) -> IndexMap<String, Box<RawValue>> {
        self.state().target.http.rows()
    }

    /// What the sandbox has seen so far.
    pub fn stats(&self) -> Stats {
        self.state().stats.clone()
    }

    /// Every secret that opened a door of this sandbox once: credentials and tokens, old ones included.
    pub fn issued(&self) -> Vec<String> {
        self.state().issued.clone()
    }

    /// The rows that the targets took since the first `skip` of them, in their order (see [`Options::journal`]).
    pub fn journal(&self, skip: usize) -> Vec<(String, Box<RawValue>)> {
        self.state().journal.get(skip..).unwrap_or_default().to_vec()
    }

    /// A copy of the catalogue.
    pub fn catalogue(&self) -> Catalogue {
        self.state().catalogue.clone()
    }

    /// Counts changes of the catalogue.
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked inside `edit` has not broken the sandbox for the others.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        (self.inner.now_ms)()
    }

    fn now_s(&self) -> i64 {
        (self.now_ms() / 1000) as i64
    }

    fn with_rng(&self, f: impl FnOnce(&mut Catalogue, &mut Rng)) {
        let mut guard = self.state();
        let state = &mut *guard;
        f(&mut state.catalogue, &mut state.rng);
        state.revision += 1;
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

    /// Counts a call to the target as under way until it is dropped.
    fn under_way(&self) -> InFlight {
        let mut guard = self.state();
        let state = &mut *guard;
        state.target_calls_under_way += 1;
        let most = state.stats.max_target_calls_at_once.max(state.target_calls_under_way);
        state.stats.max_target_calls_at_once = most;
        InFlight(self.clone())
    }

    /// Counts a call and takes its time.
    async fn enter(&self, at: Endpoint) {
        let now = self.now_ms();
        let latency = {
            let mut guard = self.state();
            let state = &mut *guard;
            *state.stats.calls.entry(at).or_default() += 1;
            if !at.is_okki() && at != Endpoint::QeasyToken {
                state.recent_target_calls.push_back(now);
                while state.recent_target_calls.front().is_some_and(|call| now - call >= 60_000) {
                    state.recent_target_calls.pop_front();
                }
                let most = state.stats.max_target_calls_per_minute.max(state.recent_target_calls.len());
                state.stats.max_target_calls_per_minute = most;
            }
            state.options.latency
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    /// The control endpoints, for tests that run another process. They are no part of either service.
    fn control(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Option<Response> {
        let path = path.strip_prefix("/_sandbox/")?;
        let body = match (method, path) {
            (&Method::POST, "faults") => match serde_json::from_slice(body) {
                Ok(fault) => {
                    self.fault(fault);
                    Ok("{}".to_owned())
                }
                Err(error) => return Some(json(StatusCode::BAD_REQUEST, format!("{:?}", error.to_string()))),
            },
            // Answers the new credentials: they open nothing but this sandbox.
            (&Method::POST, "rotate") => {
                self.rotate_credentials(Side::Okki);
                let fresh = self.rotate_credentials(Side::Target);
                Ok(serde_json::json!({
                    "okki_client_id": fresh.okki_client_id,
                    "okki_client_secret": fresh.okki_client_secret,
                    "qeasy_app_key": fresh.qeasy_app_key,
                    "qeasy_app_secret": fresh.qeasy_app_secret,
                    "target_token": fresh.target_token,
                })
                .to_string())
            }
            (&Method::POST, "change") => {
                self.change_as_people_do();
                Ok("{}".to_owned())
            }
            (&Method::POST, "revoke") => {
                self.revoke_tokens();
                Ok("{}".to_owned())
            }
            (&Method::GET, "rows") => {
                // One kind is in use at a time; `?kind=http` or `?kind=qeasy` settles it otherwise.
                let qeasy = self.target_rows();
                let http = query == "kind=http" || (qeasy.is_empty() && query != "kind=qeasy");
                serde_json::to_string(&if http { self.http_rows() } else { qeasy })
            }
            (&Method::GET, "stats") => serde_json::to_string(&self.stats()),
            (&Method::GET, "catalogue") => Ok(okki::whole_catalogue(&mut self.state())),
            _ => return Some(json(StatusCode::NOT_FOUND, "{}".into())),
        };
        Some(body.map_or_else(
            |error| json(StatusCode::INTERNAL_SERVER_ERROR, format!("{:?}", error.to_string())),
            |text| json(StatusCode::OK, text),
        ))
    }
}

fn secrets_of(known: &Credentials) -> Vec<String> {
    [&known.okki_client_secret, &known.qeasy_app_key, &known.qeasy_app_secret, &known.target_token]
        .map(Clone::clone)
        .to_vec()
}

fn random_hex(rng: &mut Rng, digits: usize) -> String {
    (0..digits).map(|_| rng.digit(16)).collect()
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use axum::body::Body;
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
        for kind in [faults::Kind::LostAfter, faults::Kind::Truncated, faults::Kind::NotJson] {
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
        assert_eq!(Sandbox::environment(&serving).len(), 8);
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
