//! A run as a page for people: on demand, and where `report.html` asks for it after each sync.

use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::connections::Connection;
use super::pipelines::PipelineSource;
use super::records::{self, RunsAsked};
use crate::error::{ErrorKind, Result};
use crate::page::{Lang, RowChange, RunPage};
use crate::report::{Mode, Report};
use crate::store::{Store, paths};
use crate::sync::{Outcome, RunRequest};

/// All that a page may take at the end of a run: two calls to the store, and one for each run of its strip.
const LIMIT: Duration = Duration::from_secs(5);
/// What is left to the run's caller of its time.
const LEFT: Duration = Duration::from_secs(1);
/// Runs in the strip of a page.
const RECENT_RUNS: usize = 30;

/// A stored run, and its page.
#[derive(Debug)]
pub struct RunAsPage {
    /// The run's report.
    pub report: Report,
    /// The page, UTF-8.
    pub html: String,
}

impl App {
    /// The page of a stored run; without an id, of the last one. Needs no credentials.
    pub async fn run_as_page(&self, from: PipelineSource, run_id: Option<&str>) -> Result<RunAsPage> {
        let connection = self.connection_name(&from).await?;
        let store = self.store().await?;
        let report = records::one_run(store, &connection, run_id, self.clock.now()).await?;
        let html = self.html(store, &connection, &report).await?;
        Ok(RunAsPage { report, html })
    }

    /// The report of a stored run; without an id, of the last one. Needs no credentials.
    pub async fn stored_report(&self, from: PipelineSource, run_id: Option<&str>) -> Result<Report> {
        let connection = self.connection_name(&from).await?;
        records::one_run(self.store().await?, &connection, run_id, self.clock.now()).await
    }

    /// Writes the page of a sync that has just ended, if its pipeline asks for it. A page that cannot be written is
    /// logged and changes nothing else: rows and report are safe by now.
    pub(super) async fn keep_page(&self, connection: &Connection, request: &RunRequest, outcome: &Outcome) {
        let config = &connection.config;
        // A run that met another one has nothing to show; the other one writes the page.
        let met_another = outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
        if !config.report.html || request.mode != Mode::Sync || met_another {
            return;
        }
        let time = request.deadline.map_or(LIMIT, |deadline| {
            LIMIT.min(deadline.saturating_duration_since(Instant::now()).saturating_sub(LEFT))
        });
        let wrote = tokio::time::timeout(time, async {
            let store = self.store().await?;
            let html = self.html(store, &config.connection, &outcome.report).await?;
            store.put_html(&paths::report_page(&config.connection), html).await
        });
        match wrote.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.line(), "the report's page could not be kept"),
            Err(_) => tracing::warn!("the report's page could not be kept within the time that was left"),
        }
    }

    async fn html(&self, store: &Store, connection: &str, report: &Report) -> Result<String> {
        let asked = RunsAsked { since: None, failed: false, limit: RECENT_RUNS };
        let (aside, recent) = tokio::try_join!(
            records::set_aside(store, connection, &report.run_id),
            records::last_runs(store, connection.to_owned(), &asked, self.clock.now()),
        )?;
        let recent: Vec<Report> = recent.reports.into_iter().map(|found| found.report).collect();
        // A store has no record of changed rows; the page says so.
        let changes: Option<Vec<RowChange>> = None;
        let page = RunPage {
            lang: self.lang(),
            report,
            changes: changes.as_deref(),
            set_aside: &aside,
            recent: &recent,
        };
        Ok(page.html())
    }

    /// `OKKI_SYNC_LANG`, else the locale, else English.
    fn lang(&self) -> Lang {
        let variables = ["OKKI_SYNC_LANG", "LC_ALL", "LC_MESSAGES", "LANG"];
        let first = variables.iter().find_map(|name| self.env.get(name));
        first.and_then(|name| Lang::named(&name)).unwrap_or_default()
    }
}
