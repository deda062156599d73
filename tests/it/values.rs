//! Old and new values: the row ledger, plans by field, digests, and what each run leaves in its file of changes.

use bytes::Bytes;
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Digest, Outcome, RunRequest};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use serde_json::Value;

use crate::support::{World, http, qeasy, request, small};

const LEDGER: [&str; 3] = ["state/it.ledger.latest", "state/it.ledger.recent", "state/it.ledger"];

/// A catalogue that was synced once.
async fn synced(shape: &str) -> World {
    let world = World::new(small(), qeasy(shape, ""));
    world.sync_well().await;
    world
}

/// Gives a product another cost and returns its id, its group and the former cost.
fn reprice(world: &World, place: usize, cost: &str) -> (String, String, String) {
    let mut before = Default::default();
    let id = world.catalogue().products[place].product_id.clone();
    let is_there = world.sandbox.update(&id, |product| {
        let former = product.cost.replace(cost.to_owned()).unwrap_or_else(|| "null".to_owned());
        before = (product.product_id.clone(), product.group_id.clone(), former);
    });
    assert!(is_there);
    before
}

/// Somebody changes the cost of a row at the target.
fn tamper(world: &World, id: &str, cost: &str) {
    let mut row: Value = serde_json::from_str(world.rows()[id].get()).unwrap();
    row["cost"] = cost.parse().unwrap();
    assert!(world.sandbox.overwrite_target_row(&row.to_string()));
}

async fn bytes(world: &World, path: &str) -> Option<Bytes> {
    world.app.store().await.unwrap().load(path).await.unwrap().map(|(bytes, _)| bytes)
}

/// The lines of a run's file of changes, as any program with zstd reads them.
async fn changes(world: &World, outcome: &Outcome) -> Vec<Value> {
    let path = format!("changes/it/{}.jsonl.zst", outcome.report.run_id);
    let Some(file) = bytes(world, &path).await else { return Vec::new() };
    let text = zstd::stream::decode_all(file.as_ref()).unwrap();
    String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn told(outcome: &Outcome) -> Vec<String> {
    let rows = outcome.changes.iter();
    rows.map(|row| format!("{} {}", row.id, serde_json::to_string(&row.fields).unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_plan_tells_each_changed_field_with_its_old_value() {
    let world = synced("products").await;
    let (id, _, before) = reprice(&world, 7, "3099.00");
    let planned = world.plan().await;
    let expected = format!(r#"{id} [{{"path":"cost","old":{before},"new":3099.00}}]"#);
    assert_eq!(told(&planned), std::slice::from_ref(&expected));
    let json = serde_json::to_string(&planned.report).unwrap();
    assert!(
        json.contains(&format!(r#""old":{before},"new":3099.00"#)) && json.contains(r#""digest":"0-1-0-"#),
        "{json}"
    );
    let done = world.sync_well().await;
    assert_eq!(told(&done), [expected]);
    assert_eq!(done.report.changes, None);
}

#[tokio::test(start_paused = true)]
async fn an_item_of_a_group_s_row_is_told_by_its_id() {
    let world = synced("groups-with-items").await;
    let (id, group, before) = reprice(&world, 7, "3099.00");
    let planned = told(&world.plan().await);
    assert_eq!(planned, [format!(r#"{group} [{{"path":"items[{id}].cost","old":{before},"new":3099.00}}]"#)]);
}

#[tokio::test(start_paused = true)]
async fn a_run_keeps_what_it_changed_with_the_rows_as_they_were() {
    let world = synced("products").await;
    let (id, ..) = reprice(&world, 7, "3099.00");
    let before = world.rows()[&id].get().to_owned();
    let gone = world.catalogue().products[9].product_id.clone();
    let removed = world.rows()[&gone].get().to_owned();
    assert!(world.sandbox.remove(&gone));
    let lines = changes(&world, &world.sync_well().await).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    let of = |id: &str| lines.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!((&of(&id)["action"], &of(&id)["answer"]), (&"update".into(), &"accepted".into()));
    assert_eq!((of(&id)["was"].to_string(), of(&gone)["was"].to_string()), (before, removed));
    assert_eq!(of(&gone)["action"], "delete");
    assert!(!of(&gone)["name"].as_str().unwrap().is_empty());
    assert!(changes(&world, &world.sync_well().await).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_is_in_the_changes_with_what_the_target_said() {
    let world = World::new(small(), qeasy("groups", ""));
    let id = world.catalogue().groups[3].id.clone();
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), 1_000, 0);
    let lines = changes(&world, &world.sync().await).await;
    let refused: Vec<&Value> = lines.iter().filter(|line| line["answer"] != "accepted").collect();
    assert_eq!((refused.len(), &refused[0]["id"]), (1, &id.as_str().into()));
    assert!(
        refused[0]["answer"].as_str().unwrap().starts_with("refused: ") && refused[0].get("was").is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn without_its_ledger_a_plan_says_that_old_values_are_not_known() {
    let damaged = b"{\"format\":\"okki-sync ledger\",\"version\":1}\n".to_vec();
    for (name, content) in [("damaged", damaged), ("empty", Vec::new())] {
        let world = synced("products").await;
        let store = world.app.store().await.unwrap();
        for path in LEDGER {
            store.put(path, content.clone()).await.unwrap();
        }
        let (id, ..) = reprice(&world, 7, "3099.00");
        let planned = world.plan().await;
        assert_eq!((planned.report.status, planned.changes[0].id.as_str()), (Status::Succeeded, id.as_str()));
        assert!(
            planned.changes[0].fields.iter().all(|field| field.old_unknown && field.old.is_none()),
            "{name}"
        );
        let lines = changes(&world, &world.sync_well().await).await;
        assert_eq!(
            (lines.len(), lines[0].get("was"), &lines[0]["fields"][0]["old_unknown"]),
            (1, None, &true.into())
        );
        // What was sent since is known again.
        reprice(&world, 7, "3199.00");
        assert_eq!(
            told(&world.plan().await),
            [format!(r#"{id} [{{"path":"cost","old":3099.00,"new":3199.00}}]"#)]
        );
    }
}

/// Half of a file, nothing but zeros, blocks overwritten, a table that speaks of more than there is: each of them costs
/// former values and nothing else.
#[tokio::test(start_paused = true)]
async fn whatever_lies_in_a_ledger_s_place_no_row_is_lost_by_it() {
    type Spoil = fn(&[u8]) -> Vec<u8>;
    let spoils: [(&str, Spoil); 5] = [
        ("cut", |file| file[..file.len() / 2].to_vec()),
        ("zeros", |file| vec![0; file.len()]),
        ("blocks", |file| [&file[..file.len() - 500], &[0; 500]].concat()),
        ("immense", |file| {
            let end = file.iter().position(|byte| *byte == b'\n').unwrap();
            let mut header: Value = serde_json::from_slice(&file[..end]).unwrap();
            header["rows"] = 1_000_000_000_000_u64.into();
            [header.to_string().as_bytes(), &file[end..]].concat()
        }),
        ("unended", |file| vec![b' '; file.len()]),
    ];
    for (name, spoil) in spoils {
        let world = synced("products").await;
        let file = bytes(&world, LEDGER[0]).await.unwrap();
        let store = world.app.store().await.unwrap();
        store.put(LEDGER[0], spoil(&file)).await.unwrap();
        let (id, ..) = reprice(&world, 7, "3099.00");
        let planned = world.plan().await;
        let shown = &planned.changes[0];
        assert!(shown.id == id && shown.fields.iter().all(|field| field.old_unknown), "{name}: {shown:?}");
        assert_eq!(world.sync_well().await.report.target.written, 1, "{name}");
        reprice(&world, 7, "3199.00");
        let expected = format!(r#"{id} [{{"path":"cost","old":3099.00,"new":3199.00}}]"#);
        assert_eq!(told(&world.plan().await), [expected], "{name}");
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_state_has_its_ledger_too() {
    let world = synced("products").await;
    let store = world.app.store().await.unwrap();
    for path in LEDGER {
        store.put(path, Bytes::new()).await.unwrap();
    }
    store.put("state/it.state", Bytes::from_static(b"damaged")).await.unwrap();
    let from = okki_sync::app::PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    world.app.rebuild_state(from, okki_sync::testing::sync::Extras::Leave, &|_| {}).await.unwrap();
    let (id, _, before) = reprice(&world, 7, "3099.00");
    assert_eq!(
        told(&world.plan().await),
        [format!(r#"{id} [{{"path":"cost","old":{before},"new":3099.00}}]"#)]
    );
}

/// What the ledger holds is not believed by itself: an older one says nothing about newer rows.
#[tokio::test(start_paused = true)]
async fn an_older_ledger_makes_values_unknown_and_never_wrong() {
    let world = synced("products").await;
    let mut older = Vec::new();
    for path in LEDGER {
        older.push((path, bytes(&world, path).await.unwrap_or_default()));
    }
    let (id, ..) = reprice(&world, 7, "3099.00");
    world.sync_well().await;
    for (path, content) in older {
        world.app.store().await.unwrap().put(path, content).await.unwrap();
    }
    reprice(&world, 7, "3199.00");
    let planned = world.plan().await;
    assert_eq!(planned.changes[0].id, id);
    assert!(planned.changes[0].fields.iter().all(|field| field.old_unknown), "{:?}", planned.changes);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_comes_back_and_changes_again_has_its_old_value() {
    let world = synced("products").await;
    let id = world.catalogue().products[9].product_id.clone();
    assert!(world.sandbox.remove(&id));
    world.sync_well().await;
    assert!(world.sandbox.restore(&id));
    world.sync_well().await;
    let place = world.catalogue().products.iter().position(|product| product.product_id == id).unwrap();
    let (_, _, before) = reprice(&world, place, "3099.00");
    assert_eq!(
        told(&world.plan().await),
        [format!(r#"{id} [{{"path":"cost","old":{before},"new":3099.00}}]"#)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_plan_from_the_target_tells_what_is_really_there() {
    for text in [qeasy("products", ""), http("products", "")] {
        let world = World::new(small(), text);
        world.sync_well().await;
        let (id, ..) = reprice(&world, 7, "3099.00");
        tamper(&world, &id, "5");
        let asked = RunRequest { from_target: true, ..request(Mode::Plan) };
        let planned = world.run(&asked, |_| {}).await;
        assert_eq!(told(&planned), [format!(r#"{id} [{{"path":"cost","old":5,"new":3099.00}}]"#)]);
        let calls = world.target_calls();
        world.plan().await;
        assert_eq!(world.target_calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_read_back_is_named() {
    let text = http("products", "").replace("read_url = \"https://example.com/v1/productGroups\"\n", "");
    let world = World::new(small(), text);
    world.sync_well().await;
    reprice(&world, 7, "3099.00");
    let asked = RunRequest { from_target: true, ..request(Mode::Plan) };
    let error = world.run(&asked, |_| {}).await.error.unwrap();
    assert_eq!(error.kind, ErrorKind::BadPipeline);
    assert!(error.to_string().contains("read_url") && error.to_string().contains("--from-target"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_verification_tells_both_sides_values() {
    let world = synced("products").await;
    let product = world.catalogue().products[7].clone();
    tamper(&world, &product.product_id, "5");
    let found = world.verify().await;
    let cost = product.cost.unwrap();
    assert_eq!(told(&found), [format!(r#"{} [{{"path":"cost","old":5,"new":{cost}}}]"#, product.product_id)]);
    assert_eq!(found.report.changes.map(|changes| changes.len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_rows_are_told_and_the_others_are_counted() {
    let world = synced("products").await;
    (0..9).for_each(|place| drop(reprice(&world, place, "1.5")));
    let planned = world.run(&RunRequest { changes: 4, ..request(Mode::Plan) }, |_| {}).await;
    assert_eq!((planned.changes.len(), planned.report.more_changes), (4, Some(5)));
    assert_eq!(planned.report.plan.update, 9);
}

fn digest(outcome: &Outcome) -> Digest {
    Digest::parse(outcome.report.digest.as_ref().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_approved_plan_lifts_the_guard_for_itself_and_for_no_other() {
    let world = synced("products").await;
    world.sandbox.edit(|catalogue| catalogue.products.truncate(20));
    let planned = world.plan().await;
    assert_eq!(planned.error.as_ref().unwrap().kind, ErrorKind::GuardRefused);
    let other = world.again_on(world.app.store().await.unwrap().clone());
    assert_eq!(digest(&other.plan().await), digest(&planned));
    let approved = RunRequest { approve: Some(digest(&planned)), ..request(Mode::Sync) };

    let (id, ..) = reprice(&world, 7, "3099.00");
    let written = world.sandbox.stats().rows_written;
    let refused = world.run(&approved, |_| {}).await.error.unwrap();
    assert_eq!((refused.kind, refused.kind.exit_code()), (ErrorKind::GuardRefused, 1));
    assert!(refused.to_string().contains("now: 0 to create, 1 to update, 280 to delete"), "{refused} {id}");
    assert_eq!(world.sandbox.stats().rows_written, written);

    let planned = world.plan().await;
    let done = world.run(&RunRequest { approve: Some(digest(&planned)), ..approved.clone() }, |_| {}).await;
    assert_eq!(
        (done.report.status, done.report.target.deleted),
        (Status::Succeeded, 280),
        "{:?}",
        done.error
    );
    assert!(world.run(&approved, |_| {}).await.error.is_some(), "it is done: another plan");
}

#[tokio::test(start_paused = true)]
async fn a_digest_does_not_depend_on_how_the_source_was_read() {
    let world = synced("products").await;
    world.sandbox.simulate_edits();
    let some = world.plan().await;
    let all = world.run(&RunRequest { full: true, ..request(Mode::Plan) }, |_| {}).await;
    assert!(all.report.source.full_read && !some.report.source.full_read);
    assert_eq!(digest(&some), digest(&all));
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_change_asks_the_store_for_nothing_of_this() {
    let world = World::new(small(), qeasy("products", ""));
    let store = crate::support::Counted::new(std::time::Duration::ZERO);
    let world = world.again_on(store.store());
    world.sync_well().await;
    let of_ledger = |calls: Vec<String>| {
        calls
            .into_iter()
            .filter(|call| call.contains("ledger") || call.contains("changes/"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_ledger(store.take_calls()).len(), 3, "one slot is read and written, and the changes");
    world.sync_well().await;
    assert_eq!(of_ledger(store.take_calls()), Vec::<String>::new());
    reprice(&world, 7, "3099.00");
    world.sync_well().await;
    let calls = of_ledger(store.take_calls());
    assert_eq!(calls.iter().filter(|call| call.starts_with("PUT")).count(), 2, "{calls:?}");
    assert!(calls.len() <= 6, "{calls:?}");
    assert_eq!(world.calls(Endpoint::QeasyQuery), 0);
}
