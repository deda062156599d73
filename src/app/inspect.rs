//! What a person asks without a run: check the setup, look at the stored state, rebuild it.

use super::pipelines::{PipelineSource, from_connection};
use super::{App, Online, wiring};
use crate::budget::Budget;
use crate::config::Config;
use crate::config::credentials::Notify;
use crate::error::{Diagnostic, Error, Result};
use crate::state::State;
use crate::store::lease::LeaseFile;
use crate::store::paths;
use crate::sync::{self, Extras, Rebuilt, RowStory, UndoRequest, Undone, Watch};
use crate::words::{phrase, say};

/// What the store holds of a connection.
#[derive(Debug)]
pub struct StoredState {
    /// The connection's name.
    pub connection: String,
    /// The state's address in the store.
    pub at: String,
    /// The state and the target that it is for; `None` before the first run.
    pub state: Option<(State, String)>,
    /// Who runs, and the target's limits.
    pub lease: LeaseFile,
}

/// How far a check trusts a pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// As the place where it was found.
    AsFound,
    /// As a file of the store, wherever it was found: for a local file that is about to be put there.
    AsStored,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The pipeline; `None` if it has mistakes.
    pub(crate) config: Option<Config>,
    /// Every mistake, and the part of the setup that it is in.
    pub mistakes: Vec<(Part, Diagnostic)>,
    /// What the two sides said, if they were asked.
    pub online: Option<Online>,
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
    /// The source, as it answers.
    Source,
    /// The target, as it answers.
    Target,
}

impl Checked {
    pub(super) fn add(&mut self, part: Part, found: impl IntoIterator<Item = Diagnostic>) {
        self.mistakes.extend(found.into_iter().map(|mistake| (part, mistake)));
    }
}

impl App {
    /// Rebuilds a connection's state from its target.
    pub async fn rebuild_state(
        &self,
        from: PipelineSource,
        extras: Extras,
        watch: &Watch,
    ) -> Result<Rebuilt> {
        let connection = self.connection(&from).await?;
        let context = wiring::context(&connection, self.store().await?, self.clock);
        let budget = Budget::new(None, self.stop.subscribe());
        let done = sync::rebuild(&context, &budget, watch, extras).await;
        connection.source_pace.give_back_stretch(true).await;
        done
    }

    /// Everything that is known of a row. Reads the source; writes nothing.
    pub async fn row(&self, from: PipelineSource, id: &str, watch: &Watch) -> Result<RowStory> {
        let connection = self.connection(&from).await?;
        let context = wiring::context(&connection, self.store().await?, self.clock);
        let budget = Budget::new(None, self.stop.subscribe());
        let done = sync::row(&context, id, &budget, watch).await;
        connection.source_pace.give_back_stretch(true).await;
        done
    }

    /// Plans the undo of a run, and sends it if the request says so.
    pub async fn undo(&self, from: PipelineSource, request: &UndoRequest, watch: &Watch) -> Result<Undone> {
        let connection = self.connection(&from).await?;
        let context = wiring::context(&connection, self.store().await?, self.clock);
        let budget = Budget::new(None, self.stop.subscribe());
        let done = sync::undo(&context, request, &budget, watch).await;
        connection.source_pace.give_back_stretch(true).await;
        done
    }

    /// A connection's state and lease as they are stored. Needs no credentials.
    pub async fn stored_state(&self, from: PipelineSource) -> Result<StoredState> {
        let connection = self.config_of(&self.pipeline_file(&from).await?)?.connection;
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
    pub async fn check(&self, from: PipelineSource, judge: Judge) -> Checked {
        let mut checked = Checked::default();
        let as_mistake = |place: &str, error: &Error| {
            let help = error.help.clone().unwrap_or_else(|| say!("this is {kind}", kind = error.kind.name()));
            Diagnostic::new(place, error.message.clone(), help)
        };
        let store = match self.store().await {
            Ok(store) => Some(store),
            Err(error) => {
                checked.add(Part::Store, [as_mistake(phrase!("store"), &error)]);
                None
            }
        };
        let file = match self.pipeline_file(&from).await {
            Ok(file) if judge == Judge::AsStored => file.judged_as_stored(),
            Ok(file) => file,
            Err(error) => {
                checked.add(Part::Pipeline, [as_mistake(phrase!("pipeline"), &error)]);
                return checked;
            }
        };
        let credentials = self.credentials(from_connection(&from).unwrap_or("default")).await;
        let notify = match &credentials {
            Ok(known) => known.notify.clone(),
            Err(_) => Notify::from_env(&self.env),
        };
        match file.config(&self.env) {
            Err(found) => checked.add(Part::Pipeline, found),
            Ok(config) => {
                if let Ok(credentials) = &credentials {
                    checked.add(Part::Credentials, credentials.require(&config.target.endpoint));
                }
                if let Some(store) = store
                    && let Err(error) = store.load(&paths::state(&config.connection)).await
                {
                    checked.add(Part::Store, [as_mistake(phrase!("store"), &error)]);
                }
                checked.config = Some(config);
            }
        }
        checked.add(
            Part::Credentials,
            credentials.err().map(|error| as_mistake(phrase!("credentials"), &error)),
        );
        checked.add(Part::Credentials, notify.webhook().err());
        checked
    }
}
