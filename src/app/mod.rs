//! Builds the context from the configuration and keeps them warm; the only module that knows everybody.

mod settings;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use secrecy::ExposeSecret as _;
use tokio::sync::{Mutex, OnceCell, watch};
use tokio::time::Instant;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::credentials::{Credentials, Notify};
use crate::config::{self, Config, Env};
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::net::{Network, Wire};
use crate::notify;
use crate::okki::Okki;
use crate::plan::OnDelete;
use crate::report::{Mode, Status};
use crate::state::State;
use crate::store::lease::LeaseFile;
use crate::store::{Address, Store, paths};
use crate::sync::{self, Extras, Outcome, Rebuilt, RunContext, RunRequest, RunSettings, Watch};
use crate::targets::{self, Target};

/// A secret is read again after this long, so that a rotation takes effect also where nobody refuses the old one.
pub const CREDENTIALS_KEPT_FOR: Duration = Duration::from_secs(15 * 60);
/// Where state and reports go unless `OKKI_SYNC_STORE` says otherwise.
const DEFAULT_STORE: &str = "file://./.okki-sync";
/// Kept free before the deadline when a notice is sent, so that the report still goes out.
const NOTICE_RESERVE: Duration = Duration::from_secs(1);
/// In `OKKI_SYNC_SECRET`, stands for the connection's name: one secret per connection.
const CONNECTION_PLACEHOLDER: &str = "{connection}";

/// Where the pipeline comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PipelineSource {
    /// A path, or a key in the store.
    File(String),
    /// `pipelines/<connection>.toml` (or `.json`) in the store.
    Connection(String),
    /// A text that is at hand, with a name for messages.
    Text {
        /// Name for messages; its ending tells TOML from JSON.
        name: String,
        /// The pipeline file's text.
        text: String,
    },
}

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
    store: OnceCell<Store>,
    ready: Mutex<HashMap<String, Arc<Connection>>>,
    stop: watch::Sender<bool>,
}

/// What the store holds of a connection.
#[derive(Debug)]
pub struct StoredState {
    /// The connection's name.
    pub connection: String,
    /// Where the state stands.
    pub at: String,
    /// The state and the target that it speaks of; none before the first run.
    pub state: Option<(State, String)>,
    /// Who runs, and the target's limits.
    pub lease: LeaseFile,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The pipeline; `None` if it has mistakes.
    pub pipeline: Option<config::Pipeline>,
    /// Every mistake, and the part of the setup that it is in.
    pub mistakes: Vec<(Part, Diagnostic)>,
}

/// The part of the setup that a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The pipeline file, with the environment's overrides.
    Pipeline,
    /// The credentials, including the robot's.
    Credentials,
    /// The store.
    Store,
}

impl Checked {
    fn add(&mut self, part: Part, found: impl IntoIterator<Item = Diagnostic>) {
        self.mistakes.extend(found.into_iter().map(|mistake| (part, mistake)));
    }
}

/// A connection that is ready to run.
struct Connection {
    config: Config,
    /// The pipeline file's text: another text means another `Connection`.
    text: String,
    okki: Okki,
    target: Target,
    credentials: Credentials,
    /// When the credentials were last read.
    read_at: std::sync::Mutex<Instant>,
}

impl Connection {
    fn is_fresh(&self) -> bool {
        self.read_at.lock().is_ok_and(|read_at| read_at.elapsed() < CREDENTIALS_KEPT_FOR)
    }

    fn was_read_now(&self) {
        if let Ok(mut read_at) = self.read_at.lock() {
            *read_at = Instant::now();
        }
    }
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
            store: OnceCell::new(),
            ready: Mutex::new(HashMap::new()),
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

    /// Where the pipeline comes from unless somebody says otherwise.
    pub fn default_pipeline(&self) -> PipelineSource {
        PipelineSource::File(self.env.pipeline().unwrap_or_else(|| "pipeline.toml".to_owned()))
    }

    /// Prepares what every run needs, so that the first run does not wait for it. Errors show again in the run.
    pub async fn warm_up(&self) {
        let from = self.default_pipeline();
        // The store and Secrets Manager are two hosts: neither handshake waits for the other.
        let (_, pipeline, credentials) =
            tokio::join!(self.store(), self.pipeline_text(&from), self.credentials_of_all());
        if let Ok(pipeline) = pipeline {
            let _ = self.ready_from(&from, pipeline, credentials).await;
        }
    }

    /// Runs, and tells the group what it should know. What goes wrong stands in the outcome.
    pub async fn run(&self, from: PipelineSource, request: &RunRequest, watch: &Watch) -> Outcome {
        let started = Instant::now();
        let ready = self.ready(&from).await;
        let (outcome, ready) = match ready {
            // In a box: the run's future is as deep as the compiler can lay out.
            Ok(ready) => (Box::pin(self.run_renewing(&from, &ready, request, watch)).await, Some(ready)),
            Err(error) => (self.failed(&from, request, error, started), None),
        };
        Box::pin(self.notify(&from, ready.as_deref(), request, &outcome)).await;
        outcome
    }

    /// Runs; once more if the credentials were refused and the secret holds new ones.
    async fn run_renewing(
        &self,
        from: &PipelineSource,
        ready: &Connection,
        request: &RunRequest,
        watch: &Watch,
    ) -> Outcome {
        let outcome = self.run_ready(ready, request, watch).await;
        let refused = outcome
            .error
            .as_ref()
            .is_some_and(|error| matches!(error.kind, ErrorKind::CredentialsRefused(_)));
        if !refused || self.env.secret().is_none() {
            return outcome;
        }
        match self.refreshed(from, ready).await {
            Some(renewed) => {
                tracing::info!(
                    "the credentials were refused and have changed in Secrets Manager; running with the new ones"
                );
                self.run_ready(&renewed, request, watch).await
            }
            None => outcome,
        }
    }

    async fn run_ready(&self, ready: &Connection, request: &RunRequest, watch: &Watch) -> Outcome {
        let store = match self.store().await {
            Ok(store) => store,
            Err(error) => {
                let from = PipelineSource::Connection(ready.config.pipeline.connection.clone());
                return self.failed(&from, request, error, Instant::now());
            }
        };
        let context = self.context(ready, store);
        let budget = Budget::new(request.deadline, self.stop.subscribe());
        sync::run(&context, request, &budget, watch).await
    }

    /// Tells the group how a sync run ended, where somebody asked for it and there is time for it. It changes
    /// nothing of the outcome.
    async fn notify(
        &self,
        from: &PipelineSource,
        ready: Option<&Connection>,
        request: &RunRequest,
        outcome: &Outcome,
    ) {
        let budget = Budget::new(request.deadline, self.stop.subscribe());
        let left = request
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if request.mode != Mode::Sync || left < notify::LIMIT || *self.stop.borrow() {
            return;
        }
        let limit = notify::LIMIT.min(left.saturating_sub(NOTICE_RESERVE));
        let told = tokio::time::timeout(limit, self.tell(from, ready, outcome));
        if let Ok(Err(_)) = budget.unless_stopped(told).await {
            tracing::warn!("the notice took too long and was given up");
        }
    }

    async fn tell(&self, from: &PipelineSource, ready: Option<&Connection>, outcome: &Outcome) {
        let (name, notify) = match ready {
            Some(ready) => (ready.config.pipeline.connection.clone(), ready.credentials.notify.clone()),
            None => {
                let in_env = Notify::from_env(&self.env);
                if self.env.secret().is_none() && in_env.is_none() {
                    return;
                }
                let name = self.name_of(from).await;
                let known = self.credentials(&name).await;
                (name, known.map_or(in_env, |known| known.notify))
            }
        };
        let webhook = match notify.webhook() {
            Ok(Some(webhook)) => webhook,
            Ok(None) => return,
            Err(mistake) => {
                tracing::warn!(%mistake, "no notices are sent");
                return;
            }
        };
        let Ok(store) = self.store().await else { return };
        let kind = outcome.error.as_ref().map(|error| error.kind);
        notify::tell(&webhook, store, self.clock, &name, &outcome.report, kind).await;
        // Of a failure before its connection was known the group heard under the file's name.
        if let (Some(file), Status::Succeeded | Status::Partial) = (file_name(from), outcome.report.status) {
            notify::tell(&webhook, store, self.clock, file, &outcome.report, kind).await;
        }
    }

    /// The connection's name, or where nothing tells it the pipeline file's.
    async fn name_of(&self, from: &PipelineSource) -> String {
        let Some(file) = file_name(from) else {
            return from_connection(from).unwrap_or("default").to_owned();
        };
        let config = match self.pipeline_text(from).await {
            Ok((name, text)) => config::parse(&text, &name, &self.env).ok(),
            Err(_) => None,
        };
        config.map_or_else(|| file.to_owned(), |config| config.pipeline.connection)
    }

    fn context<'a>(&self, ready: &'a Connection, store: &'a Store) -> RunContext<'a> {
        let pipeline = &ready.config.pipeline;
        RunContext {
            connection: &pipeline.connection,
            okki: &ready.okki,
            target: &ready.target,
            store,
            rows: &ready.config.rows,
            clock: self.clock,
            settings: RunSettings {
                on_delete: match pipeline.target.on_delete {
                    config::OnDelete::Ignore => OnDelete::Ignore,
                    config::OnDelete::Tombstone => OnDelete::Tombstone,
                },
                max_delete_ratio: pipeline.guard.max_delete_ratio,
                full_read_every: (ready.config.products() == config::Products::Incremental)
                    .then_some(pipeline.guard.full_read_every),
                max_rows_per_batch: pipeline.target.max_rows_per_batch,
                max_bytes_per_batch: pipeline.target.max_bytes_per_batch,
                max_concurrency: pipeline.target.max_concurrency.unwrap_or(pipeline.source.max_concurrency),
            },
        }
    }

    /// Makes a connection's state anew from its target; see [`sync::rebuild`].
    pub async fn rebuild_state(
        &self,
        from: PipelineSource,
        extras: Extras,
        watch: &Watch,
    ) -> Result<Rebuilt> {
        let ready = self.ready(&from).await?;
        let context = self.context(&ready, self.store().await?);
        let budget = Budget::new(None, self.stop.subscribe());
        sync::rebuild(&context, &budget, watch, extras).await
    }

    /// A connection's state and lease as they are stored. Needs no credentials.
    pub async fn stored_state(&self, from: PipelineSource) -> Result<StoredState> {
        let (name, text) = self.pipeline_text(&from).await?;
        let mut config =
            config::parse(&text, &name, &self.env).map_err(|mistakes| config::error_of(&mistakes))?;
        name_connection(&mut config, &from, &name)?;
        let connection = config.pipeline.connection;
        let store = self.store().await?;
        let path = paths::state(&connection);
        let state = match store.load(&path).await? {
            Some((bytes, _)) => Some(State::with_target(&bytes, &connection)?),
            None => None,
        };
        let lease = LeaseFile::load(store, &connection).await?;
        Ok(StoredState { connection, at: format!("{}/{path}", store.name()), state, lease })
    }

    /// Every mistake in pipeline, credentials and store, without a call to source or target.
    pub async fn check(&self, from: PipelineSource) -> Checked {
        let mut checked = Checked::default();
        let as_mistake = |place: &str, error: &Error| Diagnostic {
            place: place.to_owned(),
            message: error.message.clone(),
            help: format!("see above ({})", error.kind.name()),
        };
        let store = match self.store().await {
            Ok(store) => Some(store),
            Err(error) => {
                checked.add(Part::Store, [as_mistake("store", &error)]);
                None
            }
        };
        let (name, text) = match self.pipeline_text(&from).await {
            Ok(found) => found,
            Err(error) => {
                checked.add(Part::Pipeline, [as_mistake("pipeline", &error)]);
                return checked;
            }
        };
        let credentials = self.credentials(from_connection(&from).unwrap_or("default")).await;
        let notify = match &credentials {
            Ok(known) => known.notify.clone(),
            Err(_) => Notify::from_env(&self.env),
        };
        match config::parse(&text, &name, &self.env) {
            Err(found) => checked.add(Part::Pipeline, found),
            Ok(config) => {
                if let Ok(credentials) = &credentials {
                    checked.add(Part::Credentials, credentials.require(&config.pipeline.target));
                }
                if let Some(store) = store
                    && let Err(error) = store.load(&paths::state(&config.pipeline.connection)).await
                {
                    checked.add(Part::Store, [as_mistake("store", &error)]);
                }
                checked.pipeline = Some(config.pipeline);
            }
        }
        checked.add(Part::Credentials, credentials.err().map(|error| as_mistake("credentials", &error)));
        checked.add(Part::Credentials, notify.webhook().err());
        checked
    }

    async fn aws(&self) -> &SdkConfig {
        self.aws.get_or_init(crate::net::aws::load).await
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
                        crate::net::aws::s3(self.aws().await, &self.env, &bucket)?,
                        &bucket,
                        &prefix,
                    )),
                }
            })
            .await
    }

    async fn pipeline_text(&self, from: &PipelineSource) -> Result<(String, String)> {
        match from {
            PipelineSource::Text { name, text } => Ok((name.clone(), text.clone())),
            PipelineSource::File(name) => {
                if let Some(text) = read_local(name)? {
                    return Ok((name.clone(), text));
                }
                self.stored_text(name).await?.map(|text| (name.clone(), text)).ok_or_else(|| {
                    Error::new(
                        ErrorKind::BadPipeline,
                        format!("pipeline file \"{name}\" does not exist here, nor in the store; name one with --pipeline or OKKI_SYNC_PIPELINE"),
                    )
                })
            }
            PipelineSource::Connection(connection) => {
                for name in paths::pipelines(connection) {
                    if let Some(text) = self.stored_text(&name).await? {
                        return Ok((name, text));
                    }
                }
                let store = self.store().await?.name();
                Err(Error::new(
                    ErrorKind::BadPipeline,
                    format!(
                        "connection \"{connection}\": the store {store} holds no pipelines/{connection}.toml; put it there"
                    ),
                ))
            }
        }
    }

    async fn stored_text(&self, key: &str) -> Result<Option<String>> {
        if object_store::path::Path::parse(key).is_err() {
            return Ok(None);
        }
        let Some((bytes, _)) = self.store().await?.load(key).await? else { return Ok(None) };
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| {
            Error::new(ErrorKind::BadPipeline, format!("{key} in the store is not UTF-8 text"))
        })?;
        Ok(Some(text))
    }

    async fn credentials(&self, connection: &str) -> Result<Credentials> {
        match self.env.secret() {
            None => Ok(Credentials::from_env(&self.env)),
            Some(id) => {
                let id = id.replace(CONNECTION_PLACEHOLDER, connection);
                let json = crate::net::aws::secret(self.aws().await, &id).await?;
                let known = Credentials::from_secret_json(&json)?;
                Ok(Credentials { notify: known.notify.or(Notify::from_env(&self.env)), ..known })
            }
        }
    }

    /// The credentials, unless each connection has its own.
    async fn credentials_of_all(&self) -> Option<Result<Credentials>> {
        if self.env.secret().is_some_and(|id| id.contains(CONNECTION_PLACEHOLDER)) {
            return None;
        }
        Some(self.credentials("").await)
    }

    /// The connection's warm context, or new ones where pipeline or credentials call for them.
    async fn ready(&self, from: &PipelineSource) -> Result<Arc<Connection>> {
        let pipeline = self.pipeline_text(from).await?;
        self.ready_from(from, pipeline, None).await
    }

    /// The same of a pipeline whose name and text are at hand, and perhaps its credentials.
    async fn ready_from(
        &self,
        from: &PipelineSource,
        (name, text): (String, String),
        credentials: Option<Result<Credentials>>,
    ) -> Result<Arc<Connection>> {
        let warm = self.ready.lock().await.get(&name).filter(|warm| warm.text == text).cloned();
        if let Some(warm) = warm.as_ref().filter(|warm| warm.is_fresh()) {
            return Ok(Arc::clone(warm));
        }
        let mut config =
            config::parse(&text, &name, &self.env).map_err(|mistakes| config::error_of(&mistakes))?;
        name_connection(&mut config, from, &name)?;
        let credentials = match credentials {
            Some(read) => read?,
            None => self.credentials(&config.pipeline.connection).await?,
        };
        // The same credentials: tokens and connections stay warm.
        if let Some(warm) = warm.filter(|warm| same_credentials(&warm.credentials, &credentials)) {
            warm.was_read_now();
            return Ok(warm);
        }
        let ready = Arc::new(self.build(config, text, credentials)?);
        self.ready.lock().await.insert(name, Arc::clone(&ready));
        Ok(ready)
    }

    /// New context with the secret as it is now; none if it is still the one that was refused.
    async fn refreshed(&self, from: &PipelineSource, old: &Connection) -> Option<Arc<Connection>> {
        let (name, _) = self.pipeline_text(from).await.ok()?;
        self.ready.lock().await.remove(&name);
        let renewed = self.ready(from).await.ok()?;
        (!same_credentials(&renewed.credentials, &old.credentials)).then_some(renewed)
    }

    fn build(&self, config: Config, text: String, credentials: Credentials) -> Result<Connection> {
        let missing = credentials.require(&config.pipeline.target);
        if let Some(first) = missing.first() {
            let more = if missing.len() > 1 {
                format!(" (and {} more: okki-sync check lists all)", missing.len() - 1)
            } else {
                String::new()
            };
            return Err(Error::new(ErrorKind::MissingCredentials, format!("{first}{more}")));
        }
        let source = settings::source(&config, &credentials);
        let source_wire = self.wire(self.wires.source.as_ref(), &source.base_url)?;
        let okki = Okki::new(source, source_wire, self.clock)?;
        let target = settings::target(&config, &credentials)?;
        let target_wire = self.wire(self.wires.target.as_ref(), target.address())?;
        let target = Target::new(
            target,
            config.rows.id_name(),
            targets::Limit {
                requests_per_minute: config.pipeline.target.requests_per_minute,
                reserve_ratio: config.pipeline.target.reserve_ratio,
            },
            target_wire,
            self.clock,
        )?;
        Ok(Connection {
            config,
            text,
            okki,
            target,
            credentials,
            read_at: std::sync::Mutex::new(Instant::now()),
        })
    }

    fn wire(&self, given: Option<&Wire>, to: &url::Url) -> Result<Wire> {
        match given {
            Some(wire) => Ok(wire.clone()),
            None => self.network.wire(to).map_err(|lost| Error::new(ErrorKind::BadPipeline, lost.message)),
        }
    }

    /// The outcome of a run that never began.
    fn failed(&self, from: &PipelineSource, request: &RunRequest, error: Error, started: Instant) -> Outcome {
        let connection = from_connection(from).unwrap_or("default");
        Outcome::not_begun(connection, request.mode, self.clock, started.elapsed(), error)
    }
}

fn from_connection(from: &PipelineSource) -> Option<&str> {
    match from {
        PipelineSource::Connection(connection) => Some(connection),
        _ => None,
    }
}

/// The pipeline file's name with its ending; the dot keeps it apart from every connection's name.
fn file_name(from: &PipelineSource) -> Option<&str> {
    match from {
        PipelineSource::File(name) | PipelineSource::Text { name, .. } => {
            Some(Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or("pipeline.toml"))
        }
        PipelineSource::Connection(_) => None,
    }
}

/// A pipeline of the store belongs to the connection that it is filed under.
fn name_connection(config: &mut Config, from: &PipelineSource, name: &str) -> Result<()> {
    let Some(wanted) = from_connection(from) else { return Ok(()) };
    let named = &config.pipeline.connection;
    if named != wanted && named != "default" {
        return Err(Error::new(
            ErrorKind::BadPipeline,
            format!(
                "{name} says connection = \"{named}\"; it is filed under \"{wanted}\": make them the same, since the state goes by this name"
            ),
        ));
    }
    wanted.clone_into(&mut config.pipeline.connection);
    Ok(())
}

fn read_local(name: &str) -> Result<Option<String>> {
    match std::fs::read(Path::new(name)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
            Error::new(ErrorKind::BadPipeline, format!("{name} is not UTF-8 text; save it as UTF-8"))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::new(ErrorKind::BadPipeline, format!("{name}: {error}"))),
    }
}

fn same_credentials(a: &Credentials, b: &Credentials) -> bool {
    let all = |c: &Credentials| {
        [
            Some(&c.okki_client_id),
            Some(&c.okki_client_secret),
            c.qeasy_app_key.as_ref(),
            c.qeasy_app_secret.as_ref(),
            c.target_token.as_ref(),
        ]
        .map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
    };
    all(a) == all(b)
}
