//! A catalogue as years leave it: what cannot go through is set aside with its reason, and all the rest arrives.

use okki_sync::testing::report::Status;
use okki_sync_sandbox::{ListOrder, Options, TimeFilter};

use crate::support::{World, expected, pipeline, qeasy, small};

const SHAPE: &str = "groups-with-items";

fn dirty() -> Options {
    Options { dirty: true, ..small() }
}

#[tokio::test(start_paused = true)]
async fn every_offender_is_in_the_quarantine_with_its_reason_and_its_row() {
    for shape in [SHAPE, "products"] {
        let world = World::new(dirty(), qeasy(shape, ""));
        let outcome = world.sync().await;
        assert_eq!(outcome.report.status, Status::Partial, "{:?}", outcome.report);
        let wanted = [
            ("没有编号", "id is missing"),
            ("5903320001", "missing or blank"),
            ("重复编号", "repeated"),
            ("父级缺失", "does not exist"),
            ("循环甲", "cycle"),
            ("循环乙", "cycle"),
            ("5999999998", "unknown"),
            ("\"name\":\"\"", "name of product"),
            ("\"product_id\":null", "product_id is missing"),
        ];
        assert_eq!(outcome.rejected.len(), wanted.len(), "{:#?}", outcome.rejected);
        assert_eq!(outcome.report.quarantined, wanted.len() as u64);
        let lines = world.quarantine(&outcome).await;
        assert_eq!(lines.len(), wanted.len());
        for (raw, reason) in wanted {
            let found = outcome
                .rejected
                .iter()
                .find(|row| row.reason.contains(reason) && row.raw.get().contains(raw));
            let Some(found) = found else {
                // A row without an id may come as null, as "" or without the key.
                assert_eq!(raw, "\"product_id\":null", "{:#?}", outcome.rejected);
                assert!(outcome.rejected.iter().any(|row| row.reason.contains(reason)));
                continue;
            };
            let kept = lines.iter().any(|line| {
                line["reason"] == found.reason.as_str()
                    && line["raw"] == serde_json::from_str::<serde_json::Value>(found.raw.get()).unwrap()
            });
            assert!(kept, "{reason} is not in the quarantine file");
        }
        world.assert_complete();
        assert_eq!(world.rows().len(), expected(&world.catalogue(), &world.text).len());
        assert_eq!(outcome.report.remaining, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dirty_catalogue_is_written_once_and_stays_partial() {
    let world = World::new(dirty(), qeasy(SHAPE, ""));
    world.sync().await;
    let before = world.target_calls();
    let second = world.sync().await;
    assert_eq!((second.report.status, second.report.plan.unchanged), (Status::Partial, 40));
    assert_eq!((world.target_calls(), second.report.target.written), (before, 0));
    assert_eq!(world.quarantine(&second).await.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_really_repeats_is_believed_where_one_page_holds_both_rows() {
    let list_order = ListOrder::ById;
    let world = World::new(Options { list_order, ..small() }, qeasy(SHAPE, ""));
    world.sandbox.edit(|catalogue| {
        let mut copy = catalogue.products[7].clone();
        copy.name = "the second of the same id".to_owned();
        catalogue.products.push(copy);
    });
    let outcome = world.sync().await;
    assert_eq!(
        (outcome.report.status, outcome.report.quarantined),
        (Status::Partial, 1),
        "{:?}",
        outcome.report
    );
    assert!(outcome.rejected[0].reason.contains("repeated"), "{}", outcome.rejected[0].reason);
    assert!(outcome.rejected[0].raw.get().contains("the second of the same id"));
    world.assert_complete();
    // Both rows are known from now on: a run without a change costs what it costs anyone.
    world.wind(3600).await;
    let next = world.sync().await;
    assert_eq!((next.report.source.requests, next.report.quarantined), (3, 1), "{:?}", next.report);
    // With the first row gone, the other one has the id to itself.
    world.wind(3600).await;
    world.sandbox.edit(|catalogue| drop(catalogue.products.remove(7)));
    let after = world.sync_well().await;
    assert_eq!((after.report.plan.update, after.report.plan.delete), (1, 0), "{:?}", after.report);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn id_check_tells_which_of_two_rows_counts_that_pages_bring_with_one_id() {
    for (id_check, quarantined) in [(true, 1), (false, 0)] {
        let options = Options { list_order: ListOrder::ById, filter: TimeFilter::Ignored, ..small() };
        let source = format!("[source]\npage_size = 20\nidCheck = {id_check}\n");
        let world = World::new(options, qeasy("products", "").replace("[source]\n", &source));
        world.sandbox.edit(|catalogue| {
            let mut copy = catalogue.products[7].clone();
            copy.name = "the second of the same id".to_owned();
            catalogue.products.push(copy);
        });
        let outcome = world.sync().await;
        assert_eq!(outcome.report.quarantined, quarantined, "{:?}", outcome.report);
        let id = &world.catalogue().products[7].product_id;
        let is_second = world.rows()[id].get().contains("the second of the same id");
        assert_eq!((world.rows().len(), is_second), (world.catalogue().products.len() - 1, !id_check));
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_without_an_id_that_comes_later_is_in_the_quarantine_once() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    world.wind(3600).await;
    world.sandbox.edit(|catalogue| {
        let mut nameless = catalogue.products[7].clone();
        nameless.product_id = " ".to_owned();
        catalogue.products.push(nameless);
    });
    for run in 1..=3 {
        let report = world.sync().await.report;
        assert_eq!((report.status, report.quarantined), (Status::Partial, 1), "run {run}: {report:?}");
        world.wind(600).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_becomes_dirty_after_its_write_is_not_deleted() {
    for shape in ["groups", SHAPE] {
        let world = World::new(small(), qeasy(shape, ""));
        world.sync_well().await;
        let mut held = String::new();
        world.sandbox.edit(|catalogue| {
            let leaf = catalogue.groups.iter().rposition(|group| group.parent_id != "0").unwrap();
            catalogue.groups[leaf].name = "  ".to_owned();
            held = catalogue.groups[leaf].id.clone();
        });
        let before = world.rows()[&held].clone();
        let outcome = world.sync().await;
        assert_eq!(
            (outcome.report.status, outcome.report.plan.delete),
            (Status::Partial, 0),
            "{:?}",
            outcome.report
        );
        assert_eq!((outcome.report.target.written, outcome.report.target.deleted), (0, 0));
        assert_eq!(world.rows()[&held].get(), before.get());
        let verified = world.verify().await;
        assert!(verified.lines.iter().any(|line| line.kind.mark() == '!' && line.id == held));
    }
}

#[tokio::test(start_paused = true)]
async fn products_of_a_group_in_the_quarantine_are_not_deleted_at_the_target() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    let mut held = String::new();
    world.sandbox.edit(|catalogue| {
        held = catalogue.products[0].group_id.clone();
        catalogue.groups.iter_mut().find(|group| group.id == held).unwrap().name.clear();
    });
    let products = world.catalogue().products.iter().filter(|product| product.group_id == held).count();
    let outcome = world.sync().await;
    assert_eq!((outcome.report.status, outcome.report.plan.delete), (Status::Partial, 0));
    assert_eq!(outcome.report.quarantined as usize, products + 1);
    assert!(world.rows().values().all(|row| !row.get().contains("\"deleted\"")));
}

#[tokio::test(start_paused = true)]
async fn the_synthetic_group_zero_is_above_nothing_but_its_own_products() {
    let record = "fields.id = \"id\"\nfields.path = \"path\"\nfields.items.each = \"products\"\n\
                  fields.items.fields.id = \"product_id\"";
    for ids_as_strings in [false, true] {
        let options = Options { synthetic_group: true, ids_as_strings, ..small() };
        let world = World::new(options, pipeline(record, "kind = \"qeasy\""));
        world.sync_well().await;
        let catalogue = world.catalogue();
        let mut ungrouped: Vec<String> = catalogue
            .products
            .iter()
            .filter(|product| product.group_id == "0")
            .map(|product| product.product_id.clone())
            .collect();
        ungrouped.sort();
        assert_eq!(ungrouped.len(), 12);
        let mut seen = 0;
        for (id, row) in &world.rows() {
            let row: serde_json::Value = serde_json::from_str(row.get()).unwrap();
            let path = row["path"].as_str().unwrap();
            if id == "0" {
                assert_eq!(path, "未分组");
                let items = row["items"].as_array().unwrap();
                let ids: Vec<&str> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
                assert_eq!(ids, ungrouped);
            } else {
                assert!(!path.starts_with("未分组"), "{path}");
            }
            seen += 1;
        }
        assert_eq!((seen, catalogue.groups.len()), (40, 40));
    }
}
