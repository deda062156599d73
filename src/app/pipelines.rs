//! Where a pipeline's text comes from: a local file, the store, or a text that is at hand.

use std::path::Path;

use super::App;
use crate::config::{self, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::store::paths;

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

impl App {
    /// Where the pipeline comes from unless somebody says otherwise.
    pub fn default_pipeline(&self) -> PipelineSource {
        PipelineSource::File(self.env.pipeline().unwrap_or_else(|| DEFAULT_PIPELINE.to_owned()))
    }

    pub(super) async fn pipeline_text(&self, from: &PipelineSource) -> Result<(String, String)> {
        match from {
            PipelineSource::Text { name, text } => Ok((name.clone(), text.clone())),
            PipelineSource::File(name) => {
                if let Some(text) = read_local(name)? {
                    return Ok((name.clone(), text));
                }
                self.stored_text(name).await?.map(|text| (name.clone(), text)).ok_or_else(|| {
                    bad(format!("pipeline file \"{name}\" does not exist here, nor in the store"))
                        .help("name one with --pipeline or OKKI_SYNC_PIPELINE")
                })
            }
            PipelineSource::Connection(connection) => {
                for name in paths::pipelines(connection) {
                    if let Some(text) = self.stored_text(&name).await? {
                        return Ok((name, text));
                    }
                }
                let store = self.store().await?.name();
                Err(bad(format!(
                    "connection \"{connection}\": the store {store} holds no pipelines/{connection}.toml"
                ))
                .help("put it there"))
            }
        }
    }

    async fn stored_text(&self, key: &str) -> Result<Option<String>> {
        if object_store::path::Path::parse(key).is_err() {
            return Ok(None);
        }
        let Some((bytes, _)) = self.store().await?.load(key).await? else { return Ok(None) };
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|_| bad(format!("{key} in the store is not UTF-8 text")).help("save it as UTF-8"))?;
        Ok(Some(text))
    }

    /// The connection's name, or where nothing tells it the pipeline file's.
    pub(super) async fn name_of(&self, from: &PipelineSource) -> String {
        let Some(file) = file_name(from) else {
            return from_connection(from).unwrap_or("default").to_owned();
        };
        let config = match self.pipeline_text(from).await {
            Ok((name, text)) => config::parse(&text, &name, &self.env).ok(),
            Err(_) => None,
        };
        config.map_or_else(|| file.to_owned(), |config| config.connection)
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

/// A pipeline of the store belongs to the connection that it is filed under.
pub(super) fn name_connection(config: &mut Config, from: &PipelineSource, name: &str) -> Result<()> {
    let Some(wanted) = from_connection(from) else { return Ok(()) };
    let named = &config.connection;
    if named != wanted && named != "default" {
        return Err(bad(format!("{name} says connection = \"{named}\"; it is filed under \"{wanted}\""))
            .help("make them the same, since the state goes by this name"));
    }
    wanted.clone_into(&mut config.connection);
    Ok(())
}

fn read_local(name: &str) -> Result<Option<String>> {
    match std::fs::read(Path::new(name)) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| bad(format!("{name} is not UTF-8 text")).help("save it as UTF-8")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(format!("{name}: {error}")).caused_by(error)),
    }
}

fn bad(what: String) -> Error {
    Error::new(ErrorKind::BadPipeline, what)
}
