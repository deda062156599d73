//! The program: what is shared by all runs, and the way from a pipeline to a run's outcome. The only module that knows everybody.

mod accounts;
mod connections;
mod freshness;
mod inspect;
mod notices;
mod online;
mod pages;
mod pipelines;
mod preview;
mod quarantine;
mod records;
mod wiring;

use std::collections::HashMap;
use std::sync::Arc;

use aws_config::SdkConfig;
use tokio::sync::{Mutex, OnceCell, watch};
use tokio::time::Instant;

use self::accounts::Accounts;
use self::connections::Connection;
pub use self::freshness::Freshness;
pub use self::inspect::{Checked, Judge, Part, StoredState};
pub use self::online::{Online, SourceTotals, TargetTotals};
pub use self::pages::RunAsPage;
pub use self::pipelines::PipelineSource;
use self::pipelines::{PipelineKey, from_connection};
pub use self::preview::PreviewRequest;
pub use self::records::{Runs, RunsAsked, StoredReport};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::net::{Network, Wire};
use crate::report::Mode;
use crate::store::{Address, Store};
use crate::sync::{self, Outcome, RunRequest, Watch};

/// Where state and reports go unless `OKKI_SYNC_STORE` says otherwise.
pub(crate) const DEFAULT_STORE: &str = "file://./.okki-sync";

/// What goes over which wire; `None` is the network, and the store that the environment names.
#[derive(Clone, Default)]
pub struct Wires {
    /// To OKKI.
    pub source: Option<Wire>,
    /// To the target.
    pub target: Option<Wire>,
    /// The store.
    pub store: Option<Store>,
}

/// The program: environment, store, and per connection a warm source and target.
pub struct App {
    env: Env,
    wires: Wires,
    network: Network,
    clock: Clock,
    aws: OnceCell<SdkConfig>,
    /// Opened before anybody is called.
    store: Arc<OnceCell<Store>>,
    connections: Mutex<HashMap<PipelineKey, Arc<Connection>>>,
    accounts: Accounts,
    stop: watch::Sender<bool>,
}

impl App {
    /// An app on this environment, over the network.
    pub fn new(env: Env) -> Self {
        Self::with_wires(env, Wires::default(), Clock::system())
    }

    /// An app whose wires and clock are given.
    pub fn with_wires(env: Env, wires: Wires, clock: Clock) -> Self {
        Self {
            env,
            wires,
            network: Network::default(),
            clock,
            aws: OnceCell::new(),
            store: Arc::default(),
            connections: Mutex::new(HashMap::new()),
            accounts: Accounts::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// Asks the run that is going on to stop soon; it ends as paused.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The environment that it was made with.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Prepares what every run needs, so that the first run does not wait for it. Errors show again in the run.
    pub async fn warm_up(&self) {
        let from = self.default_pipeline();
        // The store and Secrets Manager are two hosts: neither handshake waits for the other.
        let (_, pipeline, credentials) =
            tokio::join!(self.store(), self.pipeline_file(&from), self.read_credentials_ahead());
        if let Ok(pipeline) = pipeline {
            let _ = self.connection_from(pipeline, credentials).await;
        }
    }

    /// Runs, and tells the group what it should know. The outcome holds what went wrong.
    pub async fn run(&self, from: PipelineSource, request: &RunRequest, watch: &Watch) -> Outcome {
        let started = Instant::now();
        let (outcome, connection) = match self.connection(&from).await {
            // In a box: the run's future is as deep as the compiler can lay out.
            Ok(connection) => {
                (Box::pin(self.run_renewing(&from, &connection, request, watch)).await, Some(connection))
            }
            Err(error) => {
                let name = from_connection(&from).unwrap_or("default");
                (self.never_began(name, request, error, started), None)
            }
        };
        // Before the notice, which people may follow to the page.
        if let Some(connection) = &connection {
            Box::pin(self.keep_page(connection, request, &outcome)).await;
        }
        Box::pin(self.notify(&from, connection.as_deref(), request, &outcome)).await;
        outcome
    }

    /// Runs; once more if the credentials were refused and the secret holds new ones.
    async fn run_renewing(
        &self,
        from: &PipelineSource,
        connection: &Connection,
        request: &RunRequest,
        watch: &Watch,
    ) -> Outcome {
        let outcome = self.run_on(connection, request, watch).await;
        let refused = outcome
            .error
            .as_ref()
            .is_some_and(|error| matches!(error.kind, ErrorKind::CredentialsRefused(_)));
        if !refused || self.env.secret().is_none() {
            return outcome;
        }
        match self.refreshed(from, connection).await {
            Some(renewed) => {
                tracing::info!(
                    "the credentials were refused and have changed in Secrets Manager; running with the new ones"
                );
                self.run_on(&renewed, request, watch).await
            }
            None => outcome,
        }
    }

    async fn run_on(&self, connection: &Connection, request: &RunRequest, watch: &Watch) -> Outcome {
        let store = match self.store().await {
            Ok(store) => store,
            Err(error) => {
                return self.never_began(&connection.config.connection, request, error, Instant::now());
            }
        };
        let context = wiring::context(connection, store, self.clock);
        let budget = Budget::new(request.deadline, self.stop.subscribe());
        let outcome = sync::run(&context, request, &budget, watch).await;
        // A person who looks at a plan syncs next, perhaps.
        connection.source_pace.give_back_stretch(request.mode != Mode::Sync).await;
        outcome
    }

    /// The store, opened once.
    pub async fn store(&self) -> Result<&Store> {
        self.store
            .get_or_try_init(async || {
                if let Some(store) = &self.wires.store {
                    return Ok(store.clone());
                }
                let address = self.env.store().unwrap_or_else(|| DEFAULT_STORE.to_owned());
                match Address::parse(&address)? {
                    Address::Memory => Ok(Store::memory()),
                    Address::Directory(path) => Store::directory(path),
                    Address::S3 { bucket, prefix } => Ok(Store::s3(
                        crate::net::aws::s3(self.aws().await, self.env.get("AWS_ENDPOINT_URL_S3"), &bucket)?,
                        &bucket,
                        &prefix,
                    )),
                }
            })
            .await
    }

    fn never_began(&self, connection: &str, request: &RunRequest, error: Error, started: Instant) -> Outcome {
        Outcome::not_begun(connection, request.mode, self.clock, started.elapsed(), error)
    }
}
