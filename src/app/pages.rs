//! A run as a page for people: on demand, and where `report.html` asks for it after each sync.

use std::time::Duration;

use tokio::time::Instant;

use super::App;
use super::connections::Connection;
use super::pipelines::PipelineSource;
use super::records::{self, RunsAsked};
use crate::changes::{self, ChangeLine, RowChange};
use crate::error::{ErrorKind, Result};
use crate::page::RunPage;
use crate::report::{Mode, Report};
use crate::store::{Store, paths};
use crate::sync::{Outcome, RunRequest};
use crate::words::{Lang, Language};

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
    /// The page of a stored run in this language; without an id, of the last one. Needs no credentials.
    pub async fn run_as_page(
        &self,
        from: PipelineSource,
        run_id: Option<&str>,
        lang: Lang,
    ) -> Result<RunAsPage> {
        let connection = self.connection_name(&from).await?;
        let store = self.store().await?;
        let report = records::one_run(store, &connection, run_id, self.clock.now()).await?;
        let html = self.html(store, &connection, &report, lang).await?;
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
            let lang = Language::choose(None, |name| self.env.get(name)).lang;
            let html = self.html(store, &config.connection, &outcome.report, lang).await?;
            store.put_html(&paths::report_page(&config.connection), html).await
        });
        match wrote.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error.line(), "the report's page could not be kept"),
            Err(_) => tracing::warn!("the report's page could not be kept within the time that was left"),
        }
    }

    async fn html(&self, store: &Store, connection: &str, report: &Report, lang: Lang) -> Result<String> {
        let asked = RunsAsked { since: None, failed: false, limit: RECENT_RUNS };
        let (aside, recent) = tokio::try_join!(
            records::set_aside(store, connection, &report.run_id),
            records::last_runs(store, connection.to_owned(), &asked, self.clock.now()),
        )?;
        let recent: Vec<Report> = recent.reports.into_iter().map(|found| found.report).collect();
        let changes = changes_of(store, connection, report).await;
        let page = RunPage { lang, report, changes: changes.as_deref(), set_aside: &aside, recent: &recent };
        Ok(page.html())
    }
}

/// What a run changed; `None` if that is not known.
async fn changes_of(store: &Store, connection: &str, report: &Report) -> Option<Vec<RowChange>> {
    let path = paths::changes(connection, &report.run_id);
    let file = match store.load(&path).await {
        Ok(Some((file, _))) => file,
        Ok(None) => return (report.target.written + report.target.deleted == 0).then(Vec::new),
        Err(error) => {
            tracing::warn!(error = %error.line(), "what the run changed cannot be read; its page is without");
            return None;
        }
    };
    let mut rows = Vec::new();
    let read = changes::read(&file, |line| {
        if let Ok(line) = serde_json::from_str::<ChangeLine>(line) {
            take(line, &mut rows);
        }
    });
    match read {
        Ok(()) => Some(rows),
        Err(why) => {
            tracing::warn!(path, why, "what the run changed cannot be read; its page is without");
            None
        }
    }
}

/// The rows of a line that the target took.
fn take(line: ChangeLine, rows: &mut Vec<RowChange>) {
    if !line.is_accepted() {
        return;
    }
    let ChangeLine { id, name, action, fields, ids, .. } = line;
    rows.extend(ids.into_iter().map(|id| RowChange { id, name: String::new(), action, fields: Vec::new() }));
    if !id.is_empty() {
        rows.push(RowChange { id, name, action, fields });
    }
}
