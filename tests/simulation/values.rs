//! Old values and undos: nothing is shown as a former row that the target did not hold.

use std::collections::BTreeMap;

use okki_sync::app::PipelineSource;
use okki_sync::testing::ledger;
use okki_sync::testing::report::Status;
use okki_sync::testing::state::{Acknowledged, Fingerprint, State};
use okki_sync::testing::sync::{Outcome, UndoRequest};
use serde_json::value::RawValue;

use crate::invariants::{Before, rows_at_the_target};
use crate::world::World;

const SLOTS: [&str; 3] = ["state/it.ledger.latest", "state/it.ledger.recent", "state/it.ledger"];
const CHANGES: &str = "changes/it/";

/// The lines of a run's file of changes; one that is cut off ends where it ends.
pub fn lines(file: &[u8]) -> Vec<String> {
    let mut text = Vec::new();
    let _ = std::io::copy(&mut zstd::stream::Decoder::new(file).unwrap(), &mut text);
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

#[derive(serde::Deserialize)]
struct Line {
    #[serde(default)]
    id: String,
    answer: String,
    was: Option<Box<RawValue>>,
}

/// After a run that had the world to itself: each former row that it shows is what the target held before it.
pub async fn former_rows_are_true(world: &World, before: &Before, outcome: &Outcome) -> Result<(), String> {
    let path = format!("{CHANGES}{}.jsonl.zst", outcome.report.run_id);
    let Some(file) = world.objects.look(&path).await else { return Ok(()) };
    for line in lines(&file) {
        let line: Line =
            serde_json::from_str(&line).map_err(|error| format!("a line of changes: {error}: {line}"))?;
        let Some(was) = line.was.filter(|_| line.answer == "accepted") else { continue };
        let theirs = before.rows().get(&line.id).map(|row| row.get());
        if theirs != Some(was.get()) {
            return Err(format!(
                "a former row that the target did not hold: row {} was {theirs:?}, the changes say {was}",
                line.id
            ));
        }
    }
    Ok(())
}

/// After any run: what the ledger would show of a row is what the target has acknowledged of it.
pub async fn the_ledger_is_true(
    world: &World,
    state: &State,
    taken: impl Fn(&str, &Fingerprint) -> bool,
) -> Result<(), String> {
    let mut slots = Vec::new();
    for slot in SLOTS {
        slots.extend(world.objects.look(slot).await);
    }
    for (_, id, acknowledged) in state.rows.iter() {
        let Acknowledged::Known(fingerprint) = acknowledged else { continue };
        let found = slots.iter().find_map(|slot| ledger::find(slot, "it", id, fingerprint));
        let Some(content) = found.as_deref().map(Fingerprint::of) else { continue };
        if content != fingerprint || !taken(id, &content) {
            return Err(format!(
                "ledger ahead of the target: it shows of row {id} what the target did not acknowledge"
            ));
        }
    }
    Ok(())
}

/// Somebody takes back what one of the last runs changed.
pub async fn undo_some_run(world: &mut World) -> Result<String, String> {
    let mut runs: Vec<String> = world
        .objects
        .all()
        .await
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with(CHANGES))
        .collect();
    runs.sort();
    let newest = runs.len().saturating_sub(3);
    let Some(path) = world.rng.choice(&runs[newest..]).cloned() else {
        return Ok("nothing to undo".to_owned());
    };
    let run_id = path.trim_start_matches(CHANGES).trim_end_matches(".jsonl.zst").to_owned();
    let request = UndoRequest { run_id, send: world.rng.u8(0..4) > 0, deletes: world.rng.u8(0..4) == 0 };
    let from = PipelineSource::Text { name: "sim.toml".to_owned(), text: world.pipeline.text.clone() };
    let written = world.sandbox.stats().rows_written;
    let undone = match world.process.app.undo(from, &request, &|_| {}).await {
        Ok(undone) => undone,
        Err(error) => return Ok(format!("undo of {}: {}", request.run_id, error.line())),
    };
    let Some(outcome) = &undone.outcome else {
        return match world.sandbox.stats().rows_written == written {
            true => Ok(format!("undo planned: {} rows", undone.changes.len())),
            false => Err("an undo that only looks has written".to_owned()),
        };
    };
    let report = &outcome.report;
    if report.status == Status::Succeeded
        && report.target.written + report.target.deleted != undone.changes.len() as u64
    {
        return Err(format!("an undo that succeeded sent other rows than it showed: {report:?}"));
    }
    Ok(format!("undo of {} ({request:?}): {} {report:?}", request.run_id, report.status.as_str()))
}

/// The target's rows by their ids.
pub fn rows_now(world: &World) -> BTreeMap<String, Box<RawValue>> {
    rows_at_the_target(world).into_iter().collect()
}
