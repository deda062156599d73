//! A world: a sandbox, an app on it, and the questions that tests ask of both.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use indexmap::IndexMap;
use okki_sync::app::{App, PipelineSource, Wires};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::config::Env;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::store::Store;
use okki_sync::testing::sync::{Outcome, Progress, RunRequest};
use okki_sync_sandbox::catalogue::Catalogue;
use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};
use okki_sync_sandbox::{Credentials, Options, Sandbox};
use serde_json::value::RawValue;

use crate::{Tap, assert_rows, expected, in_process};

pub fn small() -> Options {
    Options { groups: 40, products: 300, ..Options::default() }
}

pub fn env() -> Env {
    env_with(Sandbox::credentials()).with("OKKI_SYNC_STORE", "memory:")
}

/// The environment of a program that knows these credentials. Its addresses are closed ports.
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

pub fn request(mode: Mode) -> RunRequest {
    RunRequest::new(mode)
}

/// A clock as the sandbox reads it.
pub fn wall(clock: Clock) -> impl Fn() -> u64 + Send + Sync + 'static {
    move || clock.now_ms()
}

pub struct World {
    pub sandbox: Sandbox,
    pub app: Arc<App>,
    pub clock: Clock,
    pub text: String,
    pub source: Tap,
    pub target: Tap,
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

    pub async fn run(
        &self,
        request: &RunRequest,
        watch: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Outcome {
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

    /// Every clean row is at the target, byte for byte; every other row there is a tombstone.
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
