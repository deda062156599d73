//! `preview`: source rows beside target rows. It needs the source's credentials only, and none where the rows are at hand.

use std::sync::Arc;

use super::pipelines::PipelineSource;
use super::{App, wiring};
use crate::budget::Budget;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::Pace;
use crate::okki::Okki;
use crate::sync::Watch;
use crate::sync::preview::{self, Preview, PreviewSource};
use crate::words::Words as _;

/// What is to be shown.
#[derive(Debug, Clone, Default)]
pub struct PreviewRequest {
    /// Rows by their ids; empty: the first ones.
    pub ids: Vec<String>,
    /// Rows that are wanted at least.
    pub limit: usize,
    /// The rows as OKKI sends them, and a name for messages: then nothing is called.
    pub from: Option<(String, String)>,
}

impl App {
    /// Rows of the source beside the rows that the pipeline makes of them.
    pub async fn preview(
        &self,
        from: PipelineSource,
        request: &PreviewRequest,
        watch: &Watch,
    ) -> Result<Preview> {
        let config = self.config_of(&self.pipeline_file(&from).await?)?;
        if let Some((text, name)) = &request.from {
            let settings = wiring::source(&config, &Credentials::default());
            return preview::of_text(&settings, &config.rows, (text, name), &request.ids);
        }
        let (okki, pace) = self.source_alone(&config).await?;
        let source = PreviewSource {
            connection: &config.connection,
            okki: &okki,
            store: self.store().await?,
            rows: &config.rows,
            clock: self.clock,
        };
        let budget = Budget::new(None, self.stop.subscribe());
        let preview = if request.ids.is_empty() {
            preview::of_first_rows(&source, &budget, request.limit).await
        } else {
            let settings = wiring::settings(&config);
            Box::pin(preview::of_ids(&source, &settings, &budget, watch, &request.ids)).await
        };
        pace.give_back_stretch(true).await;
        preview
    }

    /// The source of a connection whose target is not needed, and the pace of its account.
    async fn source_alone(&self, config: &Config) -> Result<(Okki, Arc<Pace>)> {
        let credentials = self.credentials(&config.connection).await?;
        let missing = credentials.require(&config.target.endpoint);
        if let Some(first) = missing.iter().find(|missing| missing.place.contains("OKKI_")) {
            return Err(Error::new(ErrorKind::MissingCredentials, first.words()));
        }
        let settings = wiring::source(config, &credentials);
        let wire = self.wire(self.wires.source.as_ref(), &settings.base_url)?;
        let pace = self.accounts.source(&settings, &config.connection, &self.store, self.clock);
        Ok((Okki::new(settings, Arc::clone(&pace), wire, self.clock)?, pace))
    }
}
