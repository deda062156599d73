//! Where a pipeline's text comes from: a local file, the store, or a text that is at hand.
//!
//! What comes from the store is trusted less: it may name only the hosts of `OKKI_SYNC_HOSTS`, so that the right to
//! write `pipelines/` is not the right to read the secret. It belongs to the connection that it is filed under, whether
//! an event names the connection or `OKKI_SYNC_PIPELINE` the key.

use std::path::Path;

use super::App;
use crate::config::{self, Config, Env};
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::store::paths;
use crate::words::{Message, say};

/// The pipeline file unless the caller or `OKKI_SYNC_PIPELINE` names one.
const DEFAULT_PIPELINE: &str = "pipeline.toml";

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

/// A pipeline file as it was found.
pub(super) struct PipelineFile {
    pub(super) key: PipelineKey,
    pub(super) text: String,
}

/// Tells warm connections apart: a local file and a file of the store may have one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PipelineKey {
    name: String,
    origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Origin {
    Local,
    Store {
        /// The connection that it is filed under; `None` elsewhere than in `pipelines/`.
        connection: Option<String>,
    },
}

impl PipelineFile {
    fn local(name: &str, text: String) -> Self {
        Self { key: PipelineKey { name: name.to_owned(), origin: Origin::Local }, text }
    }

    fn stored(name: &str, text: String) -> Self {
        let origin = Origin::Store { connection: filed_under(name) };
        Self { key: PipelineKey { name: name.to_owned(), origin }, text }
    }

    /// The same text, judged as if it were in the store already.
    pub(super) fn judged_as_stored(mut self) -> Self {
        if self.key.origin == Origin::Local {
            self.key.origin = Origin::Store { connection: None };
        }
        self
    }

    /// The pipeline, with the name of the connection that it is filed under.
    pub(super) fn config(&self, env: &Env) -> Result<Config, Vec<Diagnostic>> {
        let PipelineKey { name, origin } = &self.key;
        let Origin::Store { connection } = origin else { return config::parse(&self.text, name, env) };
        let mut config = config::parse_stored(&self.text, name, env)?;
        let Some(wanted) = connection else { return Ok(config) };
        let named = &config.connection;
        if named != wanted && named != "default" {
            return Err(vec![Diagnostic::new(
                name,
                say!("says connection = \"{named}\", but is filed under \"{wanted}\"", named, wanted),
                say!("make them the same, since the state goes by this name"),
            )]);
        }
        wanted.clone_into(&mut config.connection);
        Ok(config)
    }
}

impl App {
    /// Where the pipeline comes from unless somebody says otherwise.
    pub fn default_pipeline(&self) -> PipelineSource {
        PipelineSource::File(self.env.pipeline().unwrap_or_else(|| DEFAULT_PIPELINE.to_owned()))
    }

    pub(super) async fn pipeline_file(&self, from: &PipelineSource) -> Result<PipelineFile> {
        match from {
            PipelineSource::Text { name, text } => Ok(PipelineFile::local(name, text.clone())),
            PipelineSource::File(name) => {
                if let Some(text) = read_local(name)? {
                    return Ok(PipelineFile::local(name, text));
                }
                let stored = self.stored_text(name).await?.map(|text| PipelineFile::stored(name, text));
                stored.ok_or_else(|| {
                    bad(say!("pipeline file \"{name}\" does not exist here, nor in the store", name))
                        .help(say!("name one with --pipeline or OKKI_SYNC_PIPELINE"))
                })
            }
            PipelineSource::Connection(connection) => {
                for name in paths::pipelines(connection) {
                    if let Some(text) = self.stored_text(&name).await? {
                        return Ok(PipelineFile::stored(&name, text));
                    }
                }
                let store = self.store().await?.name();
                Err(bad(say!(
                    "connection \"{connection}\": the store {store} holds no pipelines/{connection}.toml",
                    connection,
                    store
                ))
                .help(say!("put it there")))
            }
        }
    }

    /// The pipeline, or its mistakes as the one error that ends a run.
    pub(super) fn config_of(&self, file: &PipelineFile) -> Result<Config> {
        file.config(&self.env).map_err(|mistakes| config::error_of(&mistakes))
    }

    async fn stored_text(&self, key: &str) -> Result<Option<String>> {
        if object_store::path::Path::parse(key).is_err() {
            return Ok(None);
        }
        let Some((bytes, _)) = self.store().await?.load(key).await? else { return Ok(None) };
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| {
            bad(say!("{key} in the store is not UTF-8 text", key)).help(say!("save it as UTF-8"))
        })?;
        Ok(Some(text))
    }

    /// The connection's name, or where nothing tells it the pipeline file's.
    pub(super) async fn name_of(&self, from: &PipelineSource) -> String {
        let Some(file_name) = file_name(from) else {
            return from_connection(from).unwrap_or("default").to_owned();
        };
        let config = match self.pipeline_file(from).await {
            Ok(file) => file.config(&self.env).ok(),
            Err(_) => None,
        };
        config.map_or_else(|| file_name.to_owned(), |config| config.connection)
    }
}

pub(super) fn from_connection(from: &PipelineSource) -> Option<&str> {
    match from {
        PipelineSource::Connection(connection) => Some(connection),
        _ => None,
    }
}

/// The pipeline file's name with its ending; the dot keeps it apart from every connection's name.
pub(super) fn file_name(from: &PipelineSource) -> Option<&str> {
    match from {
        PipelineSource::File(name) | PipelineSource::Text { name, .. } => {
            Some(Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or("pipeline.toml"))
        }
        PipelineSource::Connection(_) => None,
    }
}

/// The connection whose pipeline a key of the store is.
fn filed_under(key: &str) -> Option<String> {
    let key = key.trim_start_matches('/');
    let (connection, _) = key.strip_prefix("pipelines/")?.rsplit_once('.')?;
    let is_its_key = config::is_connection_name(connection)
        && paths::pipelines(connection).iter().any(|known| known == key);
    is_its_key.then(|| connection.to_owned())
}

fn read_local(name: &str) -> Result<Option<String>> {
    match std::fs::read(Path::new(name)) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| bad(say!("{name} is not UTF-8 text", name)).help(say!("save it as UTF-8"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(say!("{name}: {error}", name, error)).caused_by(error)),
    }
}

fn bad(what: Message) -> Error {
    Error::new(ErrorKind::BadPipeline, what)
}
