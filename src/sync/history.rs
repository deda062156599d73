//! What runs have changed, read from their files.

use futures::{StreamExt as _, stream};

use super::RunContext;
use crate::changes::{self, ChangeLine};
use crate::error::{Error, ErrorKind, Result};
use crate::store::paths;
use crate::words::{Message, say};

/// Files that are read at a time.
const AT_ONCE: usize = 16;
/// Runs that an error names.
const NAMED_RUNS: usize = 5;

/// The runs that changed rows and whose files are kept, newest first.
pub(super) async fn runs(context: &RunContext<'_>) -> Result<Vec<String>> {
    let names = context.store.names_after(&paths::changes_folder(context.connection), "").await?;
    Ok(names.iter().rev().filter_map(|name| paths::run_of_changes(name)).map(str::to_owned).collect())
}

/// All that a run changed; an error names the newest runs if there is no such file.
pub(super) async fn changes_of(context: &RunContext<'_>, run_id: &str) -> Result<Vec<ChangeLine>> {
    let file = match paths::is_run_id(run_id) {
        true => context.store.load(&paths::changes(context.connection, run_id)).await?,
        false => None,
    };
    let Some((file, _)) = file else { return Err(unknown_run(context, run_id).await?) };
    let mut lines = Vec::new();
    changes::read(&file, |line| lines.extend(serde_json::from_str::<ChangeLine>(line))).map_err(|why| {
        let path = paths::changes(context.connection, run_id);
        let why = Message::from(why);
        let what = say!("store {name}: {path}: {why}", name = context.store.name(), path, why);
        Error::new(ErrorKind::BadState, what)
            .help(say!("take it from a backup, or send the rows again with okki-sync sync"))
    })?;
    Ok(lines)
}

async fn unknown_run(context: &RunContext<'_>, run_id: &str) -> Result<Error> {
    let newest: Vec<String> = runs(context).await?.into_iter().take(NAMED_RUNS).collect();
    let run_id = crate::catalogue::short(run_id);
    let connection = context.connection;
    let what = say!("no changes are kept of a run {run_id} of connection {connection}", run_id, connection);
    Ok(Error::new(ErrorKind::BadEvent, what).help(match newest.is_empty() {
        true => say!("no run of this connection has changed rows yet"),
        false => say!("the newest that changed rows: {newest}", newest = newest.join(", ")),
    }))
}

/// The lines about one row with the run of each, newest first: at most `most`. A file that cannot be read is left out.
pub(super) async fn of_row(
    context: &RunContext<'_>,
    id: &str,
    most: usize,
) -> Result<Vec<(String, ChangeLine)>> {
    let runs = runs(context).await?;
    let mut files = stream::iter(runs)
        .map(async |run_id| {
            let file = context.store.load(&paths::changes(context.connection, &run_id)).await;
            (run_id, file)
        })
        .buffered(AT_ONCE);
    let quoted = serde_json::Value::from(id).to_string();
    let mut found = Vec::new();
    while let Some((run_id, file)) = files.next().await {
        let Some((file, _)) = file? else { continue };
        let mut lines = Vec::new();
        let read = changes::read(&file, |line| {
            // Most lines are of other rows: those are not parsed.
            let line =
                line.contains(&quoted).then(|| serde_json::from_str::<ChangeLine>(line).ok()).flatten();
            lines.extend(line.filter(|line| line.id == id || line.ids.iter().any(|one| one == id)));
        });
        if let Err(why) = read {
            tracing::warn!(run_id, why, "the changes of this run are left out");
        }
        found.extend(lines.into_iter().rev().map(|line| (run_id.clone(), line)));
        if found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}
