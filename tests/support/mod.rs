//! A world for a test: a sandbox, an app on it, and an independent idea of what the target must hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use http::header::AUTHORIZATION;
use http_body_util::BodyExt as _;
use indexmap::IndexMap;
use okki_sync::app::{App, PipelineSource, Wires};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::config::Env;
use okki_sync::testing::net::{TransportError, Wire};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::store::Store;
use okki_sync::testing::sync::{Outcome, Progress, Request};
use okki_sync_sandbox::catalogue::{Catalogue, Group, Product};
use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};
use okki_sync_sandbox::{ConnectionLost, Credentials, Options, Sandbox};
use serde_json::value::RawValue;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

/// One call that a [`Tap`] has seen.
#[derive(Debug, Clone)]
pub struct Seen {
    pub uri: String,
    pub authorization: Option<String>,
    pub body: String,
}

/// Listens on a wire.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Seen>>>);

impl Tap {
    pub fn on(&self, inner: Router) -> Router {
        let tap = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let (tap, inner) = (tap.clone(), inner.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
                tap.0.lock().unwrap().push(Seen {
                    uri: parts.uri.to_string(),
                    authorization: parts
                        .headers
                        .get(AUTHORIZATION)
                        .map(|value| value.to_str().unwrap().to_owned()),
                    body: String::from_utf8(body.to_vec()).unwrap(),
                });
                inner.oneshot(http::Request::from_parts(parts, Body::from(body))).await
            }
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// Bodies of the calls whose path ends like this.
    pub fn bodies(&self, ending: &str) -> Vec<String> {
        self.seen().into_iter().filter(|seen| seen.uri.ends_with(ending)).map(|seen| seen.body).collect()
    }
}

pub struct World {
    pub sandbox: Sandbox,
    pub app: Arc<App>,
    pub clock: Clock,
    pub text: String,
    pub source: Tap,
    pub target: Tap,
}

/// A pipeline to Qeasy: `shape`, and further lines for `[target]`.
pub fn qeasy(shape: &str, target: &str) -> String {
    pipeline(&format!("shape = \"{shape}\""), &format!("kind = \"qeasy\"\n{target}"))
}

/// A pipeline to the sandbox's plain HTTP target.
pub fn http(shape: &str, target: &str) -> String {
    pipeline(&format!("shape = \"{shape}\""), &http_target(target))
}

pub fn http_target(target: &str) -> String {
    format!(
        "kind = \"http\"\nurl = \"https://example.com/v1/productGroups/batchInsert\"\n\
         read_url = \"https://example.com/v1/productGroups\"\nauth = \"bearer\"\n{target}"
    )
}

pub fn pipeline(record: &str, target: &str) -> String {
    format!(
        "connection = \"it\"\n[source]\nmax_requests_per_second = 5.0\n[record]\n{record}\n[target]\n{target}\n"
    )
}

pub fn small() -> Options {
    Options { groups: 40, products: 300, ..Options::default() }
}

pub fn env() -> Env {
    env_with(Sandbox::credentials()).with("OKKI_SYNC_STORE", "memory:")
}

/// The environment of a program that knows these credentials; nobody listens at its addresses.
pub fn env_with(known: Credentials) -> Env {
    Env::of([
        ("OKKI_BASE_URL", "http://127.0.0.1:1".to_owned()),
        ("TARGET_BASE_URL", "http://127.0.0.1:1".to_owned()),
        ("OKKI_CLIENT_ID", known.okki_client_id),
        ("OKKI_CLIENT_SECRET", known.okki_client_secret),
        ("QEASY_APP_KEY", known.qeasy_app_key),
        ("QEASY_APP_SECRET", known.qeasy_app_secret),
        ("QEASY_SCHEME_ID", known.scheme_id),
        ("TARGET_TOKEN", known.target_token),
    ])
}

pub fn request(mode: Mode) -> Request {
    Request { mode, full: false, allow_mass_delete: false, deadline: None }
}

/// A clock as the sandbox reads it.
pub fn wall(clock: Clock) -> impl Fn() -> u64 + Send + Sync + 'static {
    move || clock.now_ms()
}

/// A wire that leads into this router. A lost connection is what it is over TCP: no answer.
pub fn in_process(router: Router) -> Wire {
    Wire::InProcess(BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<Bytes>| {
        let router = router.clone();
        async move {
            let response = match router.oneshot(request.map(Body::from)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<ConnectionLost>().is_some() {
                return Err(TransportError::connection_broke());
            }
            Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
        }
    })))
}

impl World {
    pub fn new(options: Options, text: impl Into<String>) -> Self {
        let clock = Clock::pinned();
        Self::of(Sandbox::new(options, wall(clock)), None, env(), text, clock)
    }

    /// With a source of the test's own.
    pub fn fed_by(source: Router, text: impl Into<String>) -> Self {
        let clock = Clock::pinned();
        Self::of(Sandbox::new(small(), wall(clock)), Some(source), env(), text, clock)
    }

    pub fn of(
        sandbox: Sandbox,
        source: Option<Router>,
        env: Env,
        text: impl Into<String>,
        clock: Clock,
    ) -> Self {
        let (at_source, at_target) = (Tap::default(), Tap::default());
        let wires = Wires {
            source: Some(in_process(at_source.on(source.unwrap_or_else(|| sandbox.okki())))),
            target: Some(in_process(at_target.on(sandbox.target()))),
            store: None,
        };
        let app = Arc::new(App::with_wires(env, wires, clock));
        Self { sandbox, app, clock, text: text.into(), source: at_source, target: at_target }
    }

    /// With a target of the test's own in front of the sandbox.
    pub fn with_target(self, target: Router) -> Self {
        let wires = Wires {
            source: Some(in_process(self.source.on(self.sandbox.okki()))),
            target: Some(in_process(self.target.on(target))),
            store: None,
        };
        Self { app: Arc::new(App::with_wires(env(), wires, self.clock)), ..self }
    }

    /// Another program on the same sandbox and this store.
    pub fn again_on(&self, store: Store) -> Self {
        let (source, target) = (Tap::default(), Tap::default());
        let wires = Wires {
            source: Some(in_process(source.on(self.sandbox.okki()))),
            target: Some(in_process(target.on(self.sandbox.target()))),
            store: Some(store),
        };
        let app = Arc::new(App::with_wires(env(), wires, self.clock));
        Self {
            sandbox: self.sandbox.clone(),
            app,
            clock: self.clock,
            text: self.text.clone(),
            source,
            target,
        }
    }

    /// Another program on the same sandbox, with this environment.
    pub fn again(&self, env: Env) -> Self {
        Self::of(self.sandbox.clone(), None, env, self.text.clone(), self.clock)
    }

    pub async fn run(&self, request: &Request, watch: impl Fn(Progress) + Send + Sync + 'static) -> Outcome {
        let from = PipelineSource::Text { name: "t.toml".to_owned(), text: self.text.clone() };
        self.app.run(from, request, &watch).await
    }

    pub async fn sync(&self) -> Outcome {
        self.run(&request(Mode::Sync), |_| {}).await
    }

    pub async fn plan(&self) -> Outcome {
        self.run(&request(Mode::Plan), |_| {}).await
    }

    pub async fn verify(&self) -> Outcome {
        self.run(&request(Mode::Verify), |_| {}).await
    }

    /// Runs and expects a success without a flaw.
    pub async fn sync_well(&self) -> Outcome {
        let outcome = self.sync().await;
        assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
        assert_eq!((outcome.report.remaining, outcome.report.quarantined), (0, 0), "{:?}", outcome.report);
        outcome
    }

    pub fn rows(&self) -> IndexMap<String, Box<RawValue>> {
        let rows = self.sandbox.target_rows();
        if rows.is_empty() { self.sandbox.http_rows() } else { rows }
    }

    pub fn fault(&self, at: Endpoint, kind: FaultKind, times: u32, after: u32) {
        self.sandbox.fault(Fault { at, kind, times, after });
    }

    pub fn catalogue(&self) -> Catalogue {
        let mut copy = Catalogue::default();
        self.sandbox.edit(|catalogue| copy = catalogue.clone());
        copy
    }

    pub fn calls(&self, at: Endpoint) -> u64 {
        self.sandbox.stats().calls.get(&at).copied().unwrap_or(0)
    }

    /// Calls to the target, tokens included.
    pub fn target_calls(&self) -> u64 {
        [Endpoint::QeasyToken, Endpoint::QeasyStore, Endpoint::QeasyQuery, Endpoint::HttpTarget]
            .map(|at| self.calls(at))
            .iter()
            .sum()
    }

    /// Every clean row is at the target byte for byte; whatever else is there is a tombstone.
    pub fn assert_complete(&self) {
        assert_rows(&self.rows(), &expected(&self.catalogue(), &self.text));
        let stats = self.sandbox.stats();
        assert_eq!(stats.okki_writes, 0);
    }

    pub async fn stored(&self, path: &str) -> Option<String> {
        let found = self.app.store().await.unwrap().load(path).await.unwrap();
        found.map(|(bytes, _)| String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub async fn state(&self) -> Option<String> {
        self.stored("state/it.state").await
    }

    pub async fn quarantine(&self, outcome: &Outcome) -> Vec<serde_json::Value> {
        let path = format!("quarantine/it/{}.jsonl", outcome.report.run_id);
        let text = self.stored(&path).await.unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn wind(&self, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }
}

pub fn assert_rows(rows: &IndexMap<String, Box<RawValue>>, expected: &BTreeMap<String, String>) {
    for (id, row) in expected {
        let theirs = rows.get(id).map(|row| row.get());
        assert_eq!(theirs, Some(row.as_str()), "row {id}");
    }
    for (id, row) in rows.iter().filter(|(id, _)| !expected.contains_key(*id)) {
        assert!(row.get().ends_with(",\"deleted\":true}"), "row {id} should not be there: {row}");
    }
}

/// The clean rows of a catalogue in one of the built-in shapes, worked out without the program's own code.
pub fn expected(catalogue: &Catalogue, text: &str) -> BTreeMap<String, String> {
    let groups = clean_groups(catalogue);
    let products = clean_products(catalogue, &groups);
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let fields = |product: &Product| {
        let cost = product.cost.as_deref().unwrap_or("null");
        format!("\"id\":\"{}\",\"name\":{},\"cost\":{cost}", product.product_id, quoted(&product.name))
    };
    let mut rows = BTreeMap::new();
    if text.contains("shape = \"products\"") {
        for product in products {
            let group = groups[product.group_id.as_str()];
            let (id, name) = (&group.id, quoted(&group.name));
            let row = format!("{{{},\"groupId\":\"{id}\",\"groupName\":{name}}}", fields(product));
            rows.insert(product.product_id.clone(), row);
        }
        return rows;
    }
    let mut items: HashMap<&str, Vec<&Product>> = HashMap::new();
    for product in products {
        items.entry(&product.group_id).or_default().push(product);
    }
    for (id, group) in groups {
        let name = quoted(&group.name);
        let row = if text.contains("shape = \"groups\"") {
            format!("{{\"productGroupId\":\"{id}\",\"productName\":{name}}}")
        } else {
            let mut items = items.remove(id).unwrap_or_default();
            items.sort_by_key(|product| product.product_id.parse::<u64>().unwrap());
            let items: Vec<String> = items.into_iter().map(|item| format!("{{{}}}", fields(item))).collect();
            format!("{{\"id\":\"{id}\",\"name\":{name},\"items\":[{}]}}", items.join(","))
        };
        rows.insert(id.to_owned(), row);
    }
    rows
}

/// The groups that pass cleaning, by id.
pub fn clean_groups(catalogue: &Catalogue) -> BTreeMap<&str, &Group> {
    let mut first: BTreeMap<&str, &Group> = BTreeMap::new();
    for group in &catalogue.groups {
        if !group.id.trim().is_empty() && !group.name.trim().is_empty() {
            first.entry(&group.id).or_insert(group);
        }
    }
    let reaches_the_root = |group: &Group| {
        let (mut at, mut seen) = (group.parent_id.as_str(), HashSet::from([group.id.as_str()]));
        while at != "0" {
            match first.get(at) {
                Some(parent) if seen.insert(at) => at = &parent.parent_id,
                _ => return false,
            }
        }
        true
    };
    first.iter().filter(|(_, group)| reaches_the_root(group)).map(|(id, group)| (*id, *group)).collect()
}

/// The products that pass cleaning.
pub fn clean_products<'a>(catalogue: &'a Catalogue, groups: &BTreeMap<&str, &Group>) -> Vec<&'a Product> {
    let mut seen = HashSet::new();
    let mut clean = |product: &&'a Product| {
        !product.product_id.trim().is_empty()
            && seen.insert(product.product_id.as_str())
            && product.enable_flag == 1
            && !product.name.trim().is_empty()
            && groups.contains_key(product.group_id.as_str())
    };
    catalogue.products.iter().filter(|product| clean(product)).collect()
}

/// A body as text, for routers of a test's own.
pub fn answer(body: impl Into<String>) -> axum::response::Response {
    let body: String = body.into();
    axum::response::Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .body(Body::from(Bytes::from(body)))
        .unwrap()
}
