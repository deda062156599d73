//! The story of one row, and taking back what a run changed.

use std::collections::BTreeMap;

use okki_sync::app::PipelineSource;
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Outcome, RowStory, UndoRequest, Undone};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use serde_json::{Value, json};

use crate::support::{World, http, qeasy, small};

fn from(world: &World) -> PipelineSource {
    PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() }
}

async fn synced(text: String) -> (World, Outcome) {
    let world = World::new(small(), text);
    let first = world.sync_well().await;
    (world, first)
}

fn reprice(world: &World, place: usize, cost: &str) -> String {
    let id = world.catalogue().products[place].product_id.clone();
    assert!(world.sandbox.update(&id, |product| product.cost = Some(cost.to_owned())));
    id
}

async fn story(world: &World, id: &str) -> Value {
    let story: RowStory = world.app.row(from(world), id, &|_| {}).await.unwrap();
    serde_json::to_value(story).unwrap()
}

async fn undo(world: &World, run: &Outcome, send: bool, deletes: bool) -> Undone {
    let request = UndoRequest { run_id: run.report.run_id.clone(), send, deletes };
    world.app.undo(from(world), &request, &|_| {}).await.unwrap()
}

/// The rows of the target, without those that were deleted.
fn rows(world: &World) -> BTreeMap<String, String> {
    let rows = world.rows().into_iter().map(|(id, row)| (id, row.get().replace(",\"deleted\":false", "")));
    rows.filter(|(_, row)| !row.contains("\"deleted\":true")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_product_s_row_has_its_story_from_the_source_to_its_history() {
    let (world, first) = synced(qeasy("products", "")).await;
    let id = reprice(&world, 7, "3099.00");
    let second = world.sync_well().await;
    reprice(&world, 7, "3199.50");
    let written = world.sandbox.stats().rows_written;
    let story = story(&world, &id).await;
    assert_eq!(world.sandbox.stats().rows_written, written);
    assert_eq!((&story["id"], &story["source"]["product_id"]), (&json!(id), &json!(id)));
    assert!(!story["name"].as_str().unwrap().is_empty());
    assert_eq!(story["row"]["cost"], json!(3199.50));
    assert_eq!(story["acknowledged"]["cost"], json!(3099.00));
    assert_eq!(
        (&story["plan"]["action"], &story["plan"]["fields"][0]["path"]),
        (&json!("update"), &json!("cost"))
    );
    assert_eq!(story["quarantine"], Value::Null);
    let history = story["history"].as_array().unwrap().iter();
    let history: Vec<_> = history.map(|entry| (entry["run_id"].clone(), entry["action"].clone())).collect();
    let runs = [(&second, "update"), (&first, "create")];
    assert_eq!(history, runs.map(|(run, action)| (json!(run.report.run_id), json!(action))));
    // What was created is told by the row that the next change found.
    assert!(story["history"][1]["fields"].as_array().unwrap().len() > 2, "{story}");
}

#[tokio::test(start_paused = true)]
async fn an_item_s_story_is_its_part_of_the_group_s_row() {
    let (world, _) = synced(qeasy("groups-with-items", "")).await;
    let id = reprice(&world, 7, "3099.00");
    world.sync_well().await;
    let other = reprice(&world, 8, "5.5");
    world.sync_well().await;
    let story = story(&world, &id).await;
    assert_eq!((&story["row"]["id"], &story["row"]["cost"]), (&json!(id), &json!(3099.00)));
    assert_eq!((&story["acknowledged"], &story["plan"]["action"]), (&story["row"], &json!("unchanged")));
    assert_eq!(story["item_of"], world.catalogue().products[7].group_id.as_str());
    assert!(!story["history"].to_string().contains(&other), "{story}");
    assert!(story["history"][0]["fields"][0]["path"] == format!("items[{id}].cost"), "{story}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_refused_tells_why_and_when_it_is_tried_again() {
    let world = World::new(small(), qeasy("groups", ""));
    let id = world.catalogue().groups[3].id.clone();
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), 1_000, 0);
    world.sync().await;
    world.sync().await;
    let story = story(&world, &id).await;
    assert_eq!((&story["plan"]["action"], &story["acknowledged"]), (&json!("skip"), &Value::Null));
    assert_eq!((&story["quarantine"]["tries"], &story["quarantine"]["kind"]), (&json!(2), &json!("record")));
    assert!(story["history"][0]["answer"].as_str().unwrap().starts_with("refused: "), "{story}");
}

#[tokio::test(start_paused = true)]
async fn an_id_that_nobody_knows_is_answered_with_the_nearest_ones() {
    let (world, _) = synced(qeasy("products", "")).await;
    let id = world.catalogue().products[7].product_id.clone();
    let error = world.app.row(from(&world), &format!("{id}x"), &|_| {}).await.unwrap_err();
    assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::BadEvent, 2));
    assert!(error.to_string().contains(&id), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_shown_first_and_then_brings_the_former_rows_back() {
    for text in [qeasy("products", ""), qeasy("groups-with-items", ""), http("products", "")] {
        let (world, _) = synced(text).await;
        let before = rows(&world);
        reprice(&world, 7, "3099.00");
        let gone = world.catalogue().products[9].product_id.clone();
        assert!(world.sandbox.remove(&gone));
        let changed = world.sync_well().await;
        let after = rows(&world);
        assert_ne!(before, after);

        let shown = undo(&world, &changed, false, false).await;
        assert!(shown.outcome.is_none() && shown.left_out.is_empty() && rows(&world) == after);
        let undone = undo(&world, &changed, true, false).await;
        let report = undone.outcome.unwrap().report;
        assert_eq!((report.status, report.mode), (Status::Succeeded, Mode::Undo), "{:?}", report.error);
        assert_eq!(rows(&world), before);
        assert_eq!(undone.changes, shown.changes);

        // Nothing is left to undo, and the next sync brings the source's values again.
        let again = undo(&world, &changed, false, false).await;
        assert_eq!((again.changes.len(), again.left_out.len()), (0, shown.changes.len()));
        world.sync_well().await;
        assert_eq!(rows(&world), after);
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_can_be_undone() {
    let (world, _) = synced(qeasy("products", "")).await;
    reprice(&world, 7, "3099.00");
    let changed = world.sync_well().await;
    let after = rows(&world);
    let outcome = undo(&world, &changed, true, false).await.outcome.unwrap();
    undo(&world, &outcome, true, false).await;
    assert_eq!(rows(&world), after);
    assert_eq!(world.plan().await.report.plan.update, 0);
}

#[tokio::test(start_paused = true)]
async fn rows_that_changed_again_are_left_out_and_named() {
    let (world, _) = synced(qeasy("products", "")).await;
    let twice = reprice(&world, 7, "3099.00");
    let once = reprice(&world, 8, "4099.00");
    let changed = world.sync_well().await;
    reprice(&world, 7, "3199.00");
    world.sync_well().await;
    let undone = undo(&world, &changed, true, false).await;
    assert_eq!((undone.changes.len(), undone.changes[0].id.as_str()), (1, once.as_str()));
    assert_eq!(undone.left_out.len(), 1);
    let left = &undone.left_out[0];
    assert_eq!((left.id.as_str(), left.why), (twice.as_str(), "it has changed again since"));
    assert!(rows(&world)[&twice].contains("3199"));
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_run_created_are_deleted_only_if_that_is_asked_for() {
    let (world, first) = synced(qeasy("products", "")).await;
    let kept = undo(&world, &first, true, false).await;
    assert_eq!((kept.changes.len(), kept.left_out.len()), (0, 300));
    assert!(kept.left_out.iter().all(|row| row.why.contains("--deletes")));
    assert_eq!(rows(&world).len(), 300);
    let undone = undo(&world, &first, true, true).await;
    assert_eq!((undone.changes.len(), rows(&world).len()), (300, 0));
    assert_eq!(world.sync_well().await.report.plan.create, 300);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn rows_whose_former_content_is_not_known_are_named() {
    let (world, _) = synced(qeasy("products", "")).await;
    for slot in ["state/it.ledger", "state/it.ledger.recent", "state/it.ledger.latest"] {
        world.app.store().await.unwrap().put(slot, Vec::new()).await.unwrap();
    }
    let id = reprice(&world, 7, "3099.00");
    let changed = world.sync_well().await;
    let undone = undo(&world, &changed, true, false).await;
    let left = &undone.left_out[0];
    assert_eq!((left.id.as_str(), left.why), (id.as_str(), "its former content is not known"));
}

/// A file of changes that a stranger could have put there: 64 MiB in a few kilobytes, half a file, no file of that kind.
#[tokio::test(start_paused = true)]
async fn changes_that_cannot_be_read_are_named_and_nothing_is_sent() {
    let (world, _) = synced(qeasy("products", "")).await;
    reprice(&world, 7, "3099.00");
    let second = world.sync_well().await;
    let path = format!("changes/it/{}.jsonl.zst", second.report.run_id);
    let store = world.app.store().await.unwrap().clone();
    let file = store.load(&path).await.unwrap().unwrap().0;
    let header = 8 + u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let bomb = zstd::bulk::compress(&vec![b' '; 64 << 20], 1).unwrap();
    assert!(bomb.len() < 10_000);
    let before = rows(&world);
    for (spoilt, said) in [
        ([&file[..header], &bomb].concat(), "it is damaged (it unpacks to more than such a file can hold)"),
        ([&file[..header], &[0; 64]].concat(), "it is damaged ("),
        (vec![0; file.len()], "it is not a file of changes"),
        (file[..header / 2].to_vec(), "it is not a file of changes"),
    ] {
        store.put(&path, spoilt).await.unwrap();
        let request = UndoRequest { run_id: second.report.run_id.clone(), send: true, deletes: false };
        let error = world.app.undo(from(&world), &request, &|_| {}).await.unwrap_err();
        let line = error.line();
        assert!(line.contains(&path) && line.contains(said) && !line.contains('\n'), "{line}");
        assert_eq!(rows(&world), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_knows_is_answered_with_the_newest_ones() {
    let (world, first) = synced(qeasy("products", "")).await;
    for run_id in ["20200101T000000000Z-00000000", "../../state/it", ""] {
        for send in [false, true] {
            let request = UndoRequest { run_id: run_id.to_owned(), send, deletes: false };
            let error = world.app.undo(from(&world), &request, &|_| {}).await.unwrap_err();
            assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::BadEvent, 2));
            assert!(error.to_string().contains(&first.report.run_id), "{error}");
        }
    }
}

/// A first sync of more rows than have a line each.
#[tokio::test(start_paused = true)]
async fn a_large_first_sync_is_undone_too_but_for_rows_that_changed_since() {
    let options = okki_sync_sandbox::Options { groups: 20, products: 10_020, ..small() };
    let world = World::new(options, qeasy("products", "max_rows_per_batch = 2000"));
    let first = world.sync_well().await;
    assert_eq!(first.report.target.written, 10_020, "{:?}", first.report);
    let id = reprice(&world, 10_010, "3099.00");
    world.sync_well().await;
    let shown = undo(&world, &first, false, true).await;
    assert_eq!((shown.changes.len(), shown.left_out.len()), (10_019, 1));
    assert_eq!(shown.left_out[0].id, id);
}
