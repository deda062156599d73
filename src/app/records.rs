//! What earlier runs left in the store: their reports, and the rows that they set aside.
//!
//! Reports are found by listing. A run's name begins with its time, and a listing begins with the smallest name, so the
//! newest runs are looked for in growing stretches of time: one short listing is enough for a connection that runs.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;

use super::App;
use super::pipelines::PipelineSource;
use crate::catalogue::Rejected;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Report, Status};
use crate::store::{Store, paths};
use crate::words::{say, written};

/// Stretches of time in which the newest runs are looked for, before all are listed.
const STRETCHES_HOURS: [u64; 3] = [24, 7 * 24, 60 * 24];
/// Reports that one question reads at most: `--failed` looks further back than it shows.
const MOST_READ: usize = 2_000;
/// Reports that are read side by side.
const READ_AT_ONCE: usize = 16;
/// Runs that an error about a missing one names.
const NEWEST_NAMED: usize = 5;

/// Which runs are asked for.
#[derive(Debug, Clone)]
pub struct RunsAsked {
    /// Only runs that began then or later.
    pub since: Option<Timestamp>,
    /// Only runs that failed.
    pub failed: bool,
    /// At most this number.
    pub limit: usize,
}

/// A report as it is stored.
#[derive(Debug, Clone)]
pub struct StoredReport {
    /// What this program knows of it.
    pub report: Report,
    /// All of it, with fields that another version may have added.
    pub raw: Value,
}

/// The last runs of a connection.
#[derive(Debug)]
pub struct Runs {
    /// The connection's name.
    pub connection: String,
    /// The address of the folder of reports.
    pub at: String,
    /// Newest first.
    pub reports: Vec<StoredReport>,
    /// Files that are no reports, with the reason.
    pub unreadable: Vec<String>,
    /// Whether older runs of this kind may exist that were not looked at.
    pub cut: bool,
}

impl App {
    /// The last runs, newest first. Needs no credentials.
    pub async fn runs(&self, from: PipelineSource, asked: &RunsAsked) -> Result<Runs> {
        let connection = self.connection_name(&from).await?;
        let store = self.store().await?;
        last_runs(store, connection, asked, self.clock.now()).await
    }

    pub(super) async fn connection_name(&self, from: &PipelineSource) -> Result<String> {
        Ok(self.config_of(&self.pipeline_file(from).await?)?.connection)
    }
}

/// The last runs of a connection, newest first.
pub(super) async fn last_runs(
    store: &Store,
    connection: String,
    asked: &RunsAsked,
    now: Timestamp,
) -> Result<Runs> {
    let at = format!("{}/{}", store.name().trim_end_matches('/'), paths::reports(&connection));
    let found = newest_names(store, &connection, asked, now).await?;
    let mut runs =
        Runs { connection, at, reports: Vec::new(), unreadable: Vec::new(), cut: found.len() > MOST_READ };
    let newest = found.iter().rev().take(MOST_READ);
    let mut reads = futures::stream::iter(newest.map(|run_id| load(store, &runs.connection, run_id)))
        .buffered(READ_AT_ONCE);
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    while reports.len() < asked.limit
        && let Some(read) = reads.try_next().await?
    {
        match read {
            // Deleted between the listing and the read.
            Read::Gone => {}
            Read::Unreadable(why) => unreadable.push(why),
            Read::Report(found) if asked.failed && found.report.status != Status::Failed => {}
            Read::Report(found) => reports.push(*found),
        }
    }
    drop(reads);
    (runs.reports, runs.unreadable) = (reports, unreadable);
    Ok(runs)
}

/// The names of runs that may be asked for, oldest first.
async fn newest_names(
    store: &Store,
    connection: &str,
    asked: &RunsAsked,
    now: Timestamp,
) -> Result<Vec<String>> {
    if let Some(since) = asked.since {
        return names_since(store, connection, since).await;
    }
    for hours in STRETCHES_HOURS {
        let since = now.checked_sub(Duration::from_secs(hours * 3600)).unwrap_or(Timestamp::MIN);
        let found = names_since(store, connection, since).await?;
        if !asked.failed && found.len() >= asked.limit {
            return Ok(found);
        }
    }
    names_since(store, connection, Timestamp::MIN).await
}

async fn names_since(store: &Store, connection: &str, since: Timestamp) -> Result<Vec<String>> {
    // Years before 0 have another form, and no run.
    let after = if since < Timestamp::UNIX_EPOCH {
        String::new()
    } else {
        since.strftime("%Y%m%dT%H%M%S%3fZ").to_string()
    };
    let names = store.names_after(&paths::reports(connection), &after).await?;
    Ok(names.iter().filter_map(|name| paths::run_of_report(name)).map(str::to_owned).collect())
}

enum Read {
    Report(Box<StoredReport>),
    Unreadable(String),
    Gone,
}

async fn load(store: &Store, connection: &str, run_id: &str) -> Result<Read> {
    let path = paths::report(connection, run_id);
    let Some((bytes, _)) = store.load(&path).await? else { return Ok(Read::Gone) };
    let read = serde_json::from_slice::<Value>(&bytes)
        .and_then(|raw| Ok(StoredReport { report: serde_json::from_value(raw.clone())?, raw }));
    Ok(match read {
        Ok(report) => Read::Report(Box::new(report)),
        Err(error) => Read::Unreadable(written!("{path} is not a run report: {error}", path, error)),
    })
}

/// The report of one run, or of the last one. The error of a run that is gone names the newest ones.
pub(super) async fn one_run(
    store: &Store,
    connection: &str,
    run_id: Option<&str>,
    now: Timestamp,
) -> Result<Report> {
    if let Some(run_id) = run_id.filter(|run_id| paths::is_run_id(run_id)) {
        match load(store, connection, run_id).await? {
            Read::Report(found) => return Ok(found.report),
            Read::Unreadable(why) => {
                return Err(Error::new(ErrorKind::Store, why)
                    .help(say!("choose another run: okki-sync runs lists them")));
            }
            Read::Gone => {}
        }
    }
    let limit = if run_id.is_some() { NEWEST_NAMED } else { 1 };
    let asked = RunsAsked { since: None, failed: false, limit };
    let runs = last_runs(store, connection.to_owned(), &asked, now).await?;
    let Some(run_id) = run_id else {
        let newest = runs.reports.into_iter().next();
        return newest.map(|found| found.report).ok_or_else(|| no_run(&runs.at, connection));
    };
    if runs.reports.is_empty() {
        return Err(no_run(&runs.at, connection));
    }
    let newest: Vec<&str> = runs.reports.iter().map(|found| found.report.run_id.as_str()).collect();
    let run_id = crate::catalogue::short(run_id);
    let what = say!("{at} holds no report of run {run_id}", at = runs.at, run_id);
    Err(Error::new(ErrorKind::BadEvent, what)
        .help(say!("the newest runs are {newest}", newest = newest.join(", "))))
}

fn no_run(at: &str, connection: &str) -> Error {
    Error::new(ErrorKind::BadEvent, say!("{at} holds no report of connection {connection}", at, connection))
        .help(say!("a sync leaves one; is OKKI_SYNC_STORE the store of its runs?"))
}

/// The rows that a run set aside. Lines that are none are left out: a file is written whole or not at all.
pub(super) async fn set_aside(store: &Store, connection: &str, run_id: &str) -> Result<Vec<Rejected>> {
    let Some((bytes, _)) = store.load(&paths::quarantine(connection, run_id)).await? else {
        return Ok(Vec::new());
    };
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}
