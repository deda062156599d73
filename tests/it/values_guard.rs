//! Value guards: what looks wrong is held back, and stays at the target as it is; the rest goes on.

use okki_sync::app::{PipelineSource, PreviewRequest};
use okki_sync::testing::catalogue::ReasonKind;
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Only, RunRequest};
use serde_json::Value;

use crate::support::{World, qeasy, request, small};

/// A pipeline with these guards.
fn guarded(shape: &str, guards: &str) -> String {
    format!("{}{guards}", qeasy(shape, ""))
}

const COST: &str = "[[guard.values]]\nfield = \"cost\"\nmin = 0.0005\n";
const ITEM_COST: &str = "[[guard.values]]\nfield = \"items.cost\"\nmin = 0.0005\n";

async fn set_cost(world: &World, id: &str, cost: &str) {
    world.wind(60).await;
    world.sandbox.update(id, |product| product.cost = Some(cost.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_held_row_stays_at_the_target_as_it_is_and_goes_on_when_mended() {
    let world = World::new(small(), guarded("products", COST));
    world.sync_well().await;
    let products = world.catalogue().products;
    let (held, other) = (&products[0].product_id, &products[1].product_id);
    let before = world.rows()[held.as_str()].clone();
    set_cost(&world, held, "0").await;
    set_cost(&world, other, "7.50").await;
    for run in 0..2 {
        let outcome = world.sync().await;
        let report = &outcome.report;
        assert_eq!((report.status, report.quarantined), (Status::Partial, 1), "{report:?}");
        assert_eq!((report.target.written, report.target.deleted), (u64::from(run == 0), 0));
        assert_eq!(report.quarantined_by_kind.get("held"), Some(&1));
        let row = &outcome.rejected[0];
        assert_eq!((row.id.as_deref(), row.reason_kind), (Some(held.as_str()), ReasonKind::Held));
        assert_eq!(row.reason, "held back by a value guard: cost is 0, less than min 0.0005");
        assert_eq!(world.quarantine(&outcome).await[0]["reason_kind"], "held");
        assert_eq!(world.rows()[held.as_str()].get(), before.get());
        assert!(world.rows()[other.as_str()].get().contains("7.50"));
    }
    let verified = world.verify().await;
    assert_eq!((verified.report.plan.update, verified.report.plan.delete), (0, 0));
    assert!(verified.lines.iter().any(|line| line.kind.mark() == '!' && line.id == *held));
    // Named or not, it is held back.
    let only = Only { ids: vec![held.clone()], groups: Vec::new() };
    let named = world.run(&RunRequest { only, ..request(Mode::Sync) }, |_| {}).await;
    assert_eq!((named.report.quarantined, named.report.target.requests), (1, 0));
    set_cost(&world, held, "0.02").await;
    assert_eq!(world.sync_well().await.report.target.written, 1);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_price_that_moves_too_far_from_the_acknowledged_one_is_held_back() {
    for (shape, field) in [("products", "cost"), ("groups-with-items", "items.cost")] {
        let guards = format!("[[guard.values]]\nfield = \"{field}\"\nmax_change = 0.5\n");
        let world = World::new(small(), guarded(shape, &guards));
        world.sandbox.edit(|catalogue| catalogue.products[3].cost = Some("100".to_owned()));
        world.sync_well().await;
        let product = world.catalogue().products[3].clone();
        let row = if shape == "products" { &product.product_id } else { &product.group_id };
        set_cost(&world, &product.product_id, "149.50").await;
        assert_eq!(world.sync_well().await.report.target.written, 1, "{shape}: half as much again at most");
        assert!(world.rows()[row.as_str()].get().contains("149.50"));
        // Measured against what was acknowledged last, not against the first value.
        set_cost(&world, &product.product_id, "300").await;
        let planned = world.run(&request(Mode::Plan), |_| {}).await;
        assert_eq!(planned.report.quarantined, 1, "{shape}: {:?}", planned.report);
        for _ in 0..3 {
            let outcome = world.sync().await;
            assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1), "{shape}");
            assert!(world.rows()[row.as_str()].get().contains("\"cost\":149.50"), "{shape}");
        }
        // It is set aside on purpose: the verification shows no difference.
        let verified = world.verify().await.report;
        assert_eq!((verified.quarantined, verified.plan.update, verified.remaining), (1, 0, 0), "{shape}");
        set_cost(&world, &product.product_id, "200").await;
        world.sync_well().await;
        assert!(world.rows()[row.as_str()].get().contains("\"cost\":200"), "{shape}");
    }
}

/// `max_change` looks up the rows that differ, not all of them.
#[tokio::test(start_paused = true)]
async fn a_guard_on_changes_reads_the_ledger_only_where_rows_differ() {
    let guards = "[[guard.values]]\nfield = \"cost\"\nmax_change = 0.5\n";
    let world = World::new(small(), guarded("products", guards));
    let store = crate::support::Counted::new(std::time::Duration::ZERO);
    let world = world.again_on(store.store());
    world.sandbox.edit(|catalogue| catalogue.products[3].cost = Some("100".to_owned()));
    let of_ledger =
        || store.take_calls().into_iter().filter(|call| call.contains(".ledger")).collect::<Vec<_>>();
    world.sync_well().await;
    assert_eq!(
        of_ledger().len(),
        2,
        "a first sync has nothing to look up: the latest slot is read and written"
    );
    world.sync_well().await;
    assert_eq!(of_ledger(), Vec::<String>::new());
    let product = world.catalogue().products[3].product_id.clone();
    set_cost(&world, &product, "300").await;
    for _ in 0..2 {
        let outcome = world.sync().await;
        assert_eq!((outcome.report.quarantined, outcome.report.target.written), (1, 0));
        let calls = of_ledger();
        assert!(calls.len() == 3 && calls.iter().all(|call| call.starts_with("GET")), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_held_back_stays_in_its_row_while_others_change() {
    for rule in ["min = 0.0005", "max_change = 0.5"] {
        let world = World::new(
            small(),
            guarded("groups-with-items", &format!("[[guard.values]]\nfield = \"items.cost\"\n{rule}\n")),
        );
        world.sandbox.edit(|catalogue| catalogue.products[3].cost = Some("77.70".to_owned()));
        world.sync_well().await;
        let held = world.catalogue().products[3].clone();
        let other = world
            .catalogue()
            .products
            .into_iter()
            .find(|other| other.group_id == held.group_id && other.product_id != held.product_id);
        let other = other.unwrap().product_id;
        let row = || world.rows()[held.group_id.as_str()].get().to_owned();
        let before = row();
        set_cost(&world, &held.product_id, "0").await;
        assert_eq!(world.sync().await.report.target.written, 0, "{rule}: as it was");
        for name in ["新 One", "新 Two"] {
            world.wind(60).await;
            world.sandbox.update(&other, |product| product.name = name.to_owned());
            let outcome = world.sync().await;
            assert_eq!((outcome.report.quarantined, outcome.report.target.written), (1, 1), "{rule}");
            assert!(row().contains(name) && row().contains("77.70"), "{rule}: {}", row());
        }
        assert_eq!(row().matches("\"id\"").count(), before.matches("\"id\"").count());
        let verified = world.verify().await.report;
        assert_eq!((verified.quarantined, verified.plan.update, verified.remaining), (1, 0, 0), "{rule}");
        // Nobody knows any more what was acknowledged: it is left out, as on the first day.
        let store = world.app.store().await.unwrap();
        for slot in ["state/it.ledger.latest", "state/it.ledger.recent", "state/it.ledger"] {
            store.put(slot, "").await.unwrap();
        }
        let lost = world.sync().await.report;
        let expected = if rule.starts_with("min") { 1 } else { 0 };
        assert_eq!((lost.quarantined, lost.target.written), (expected, 1), "{rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_row_that_is_held_back_is_not_sent_at_all() {
    for shape in ["products", "groups-with-items"] {
        let guards = if shape == "products" { COST } else { ITEM_COST };
        let world = World::new(small(), guarded(shape, guards));
        world.sandbox.edit(|catalogue| catalogue.products[5].cost = Some("-1".to_owned()));
        let held = world.catalogue().products[5].clone();
        let outcome = world.sync().await;
        assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1));
        assert!(world.sandbox.journal(0).iter().all(|(id, _)| *id != held.product_id));
        assert!(!world.rows().contains_key(&held.product_id));
        if shape == "groups-with-items" {
            // The group's row goes on without the item.
            let row: Value = serde_json::from_str(world.rows()[&held.group_id].get()).unwrap();
            let ids: Vec<&str> =
                row["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
            assert!(!ids.is_empty() && !ids.contains(&held.product_id.as_str()), "{ids:?}");
            assert_eq!(outcome.report.target.written, 40);
        } else {
            assert_eq!(outcome.report.target.written, 299);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_rule_judges_the_target_s_row_and_a_list_can_be_empty() {
    let guards = "[guard]\nmax_held_ratio = 1.0\n\
                  [[guard.values]]\nfield = \"name\"\npattern = \"[^?]\"\nnot_empty = true\n\
                  [[guard.values]]\nfield = \"id\"\none_of = [\"1\", \"2\", \"3\"]\n\
                  [[guard.values]]\nfield = \"items\"\nnot_empty = true\n";
    let pipeline =
        PipelineSource::Text { name: "t.toml".to_owned(), text: guarded("groups-with-items", guards) };
    let sample = r#"[{"id":1,"name":"??"},{"id":2,"name":"two"},{"id":3,"name":"three"},{"id":4,"name":"four"},
        {"product_id":7,"name":"x","group_id":2},{"product_id":8,"name":"y","group_id":4}]"#;
    let world = World::new(small(), qeasy("groups", ""));
    let request =
        PreviewRequest { from: Some((sample.to_owned(), "s".to_owned())), ..PreviewRequest::default() };
    let preview = world.app.preview(pipeline, &request, &|_| {}).await.unwrap();
    let rows: Vec<&str> = preview.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(rows, ["2"]);
    let mut reasons: Vec<String> =
        preview.rejected.iter().map(|row| row.reason.replace("held back by a value guard: ", "")).collect();
    reasons.sort();
    let expected = [
        "id is \"4\", not one of \"1\", \"2\", \"3\"",
        "items is empty ([])",
        "name is \"??\", which pattern [^?] does not match",
    ];
    assert_eq!(reasons, expected);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_would_hold_back_too_much_is_refused_with_numbers() {
    let world = World::new(small(), guarded("products", "[[guard.values]]\nfield = \"cost\"\nmax = 0\n"));
    let outcome = world.sync().await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::HeldBackTooMany, 1));
    for part in ["of 300 products", "guard.max_held_ratio allows 20 %", "cost is ", "more than max 0"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!((outcome.report.status, world.target_calls(), world.state().await), (Status::Failed, 0, None));
    assert!(
        !outcome.rejected.is_empty() && world.plan().await.error.unwrap().kind == ErrorKind::HeldBackTooMany
    );
    // A few are never refused.
    let few = "[guard]\nmax_held_ratio = 0.0\n[[guard.values]]\nfield = \"cost\"\nmin = 0.0\n";
    let world = World::new(small(), guarded("products", few));
    world.sandbox.edit(|catalogue| {
        catalogue.products[..10].iter_mut().for_each(|product| product.cost = Some("-1".to_owned()));
    });
    assert_eq!(world.sync().await.report.quarantined, 10);
}
