//! Rows that a person names are sent again, and nothing else happens.

use std::collections::BTreeSet;
use std::time::Duration;

use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Only, Outcome, RunRequest};
use okki_sync_sandbox::Options;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};

use crate::support::{World, qeasy, request, small};

const SHAPES: [&str; 3] = ["groups", "groups-with-items", "products"];

fn ids(ids: &[&str]) -> Only {
    Only { ids: ids.iter().map(|id| (*id).to_owned()).collect(), groups: Vec::new() }
}

fn journalled() -> Options {
    Options { journal: true, ..small() }
}

async fn send(world: &World, only: Only) -> Outcome {
    world.run(&RunRequest { only, ..request(Mode::Sync) }, |_| {}).await
}

/// Ids of the rows that the target took since the `from`th.
fn sent(world: &World, from: usize) -> Vec<String> {
    world.sandbox.journal(from).into_iter().map(|(id, _)| id).collect()
}

/// The stored file without the lines of these rows.
fn without(text: &str, ids: &[&str]) -> BTreeSet<String> {
    let of_others = |line: &&str| !ids.iter().any(|id| line.ends_with(&format!(" \"{id}\"")));
    text.lines().skip(1).filter(of_others).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn named_rows_are_sent_unchanged_as_they_are_and_nothing_else_moves() {
    for shape in SHAPES {
        let world = World::new(journalled(), qeasy(shape, ""));
        world.sync_well().await;
        let product = world.catalogue().products[7].clone();
        let (row, named) = match shape {
            "groups" => (&product.group_id, &product.group_id),
            // A product that is an item stands for the row of its group.
            "groups-with-items" => (&product.group_id, &product.product_id),
            _ => (&product.product_id, &product.product_id),
        };
        let other = world.rows().keys().find(|id| *id != row).unwrap().clone();
        // A row goes and another one changes: both are for the next run.
        world.sandbox.edit(|catalogue| {
            let gone = catalogue.products.iter().position(|product| product.product_id != *named).unwrap();
            catalogue.products.remove(gone);
            catalogue.groups.last_mut().unwrap().name.push('!');
        });
        world.wind(60).await;
        let (state, kept) = (world.state().await.unwrap(), world.stored("cache/it.products").await);
        let (from, rows) = (world.sandbox.journal(0).len(), world.rows());
        let outcome = send(&world, ids(&[named, &other, named])).await;
        assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
        let (report, two): (_, BTreeSet<String>) = (&outcome.report, [row.clone(), other.clone()].into());
        assert_eq!(sent(&world, from).into_iter().collect::<BTreeSet<_>>(), two);
        assert_eq!((report.plan.update, report.plan.unchanged, report.plan.delete), (2, 0, 0));
        assert_eq!((report.target.written, report.remaining), (2, 0));
        assert_eq!(report.only, [named.as_str(), &other, named]);
        assert_eq!(world.stored("cache/it.products").await, kept, "no cursor moves");
        let after = world.state().await.unwrap();
        assert_eq!(without(&after, &[row, &other]), without(&state, &[row, &other]));
        for count in ["\"runs\":", "\"source_products\":"] {
            let of = |text: &str| text.split(count).nth(1).unwrap().split(',').next().unwrap().to_owned();
            assert_eq!(of(&after), of(&state), "{count}");
        }
        for (id, row) in rows.iter().filter(|(id, _)| !two.contains(*id)) {
            assert_eq!(world.rows()[id].get(), row.get());
        }
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_rows_that_changed_only_the_named_one_is_sent() {
    let world = World::new(journalled(), qeasy("products", ""));
    world.sync_well().await;
    world.wind(60).await;
    world
        .sandbox
        .edit(|catalogue| catalogue.products[..2].iter_mut().for_each(|product| product.name.push('!')));
    let (named, other) = (world.catalogue().products[0].clone(), world.catalogue().products[1].clone());
    for id in [&named.product_id, &other.product_id] {
        world.sandbox.update(id, |product| product.name.push('?'));
    }
    let from = world.sandbox.journal(0).len();
    let planned = RunRequest { only: ids(&[&named.product_id]), ..request(Mode::Plan) };
    let planned = world.run(&planned, |_| {}).await;
    assert_eq!((planned.report.plan.update, planned.lines.len()), (1, 2), "its group, and the row");
    assert_eq!(send(&world, ids(&[&named.product_id])).await.report.target.written, 1);
    assert_eq!(sent(&world, from), [named.product_id]);
    assert!(world.rows()[&named_id(&world, 0)].get().contains('?'));
    let next = world.sync_well().await;
    assert_eq!((next.report.plan.update, next.report.target.written), (1, 1));
    assert_eq!(sent(&world, from + 1), [other.product_id]);
}

fn named_id(world: &World, at: usize) -> String {
    world.catalogue().products[at].product_id.clone()
}

#[tokio::test(start_paused = true)]
async fn a_group_named_as_a_group_stands_for_its_row_or_its_products() {
    for shape in SHAPES {
        let world = World::new(journalled(), qeasy(shape, ""));
        world.sync_well().await;
        let group = world.catalogue().products[7].group_id.clone();
        let from = world.sandbox.journal(0).len();
        let only = Only { ids: Vec::new(), groups: vec![group.clone()] };
        assert_eq!(send(&world, only).await.report.status, Status::Succeeded);
        let products = world.catalogue().products.into_iter();
        let products = products.filter(|product| product.group_id == group && product.enable_flag == 1);
        let expected: BTreeSet<String> = match shape {
            "products" => products.map(|product| product.product_id).collect(),
            _ => [group].into(),
        };
        assert_eq!(sent(&world, from).into_iter().collect::<BTreeSet<_>>(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_names_the_nearest_and_nothing_is_sent() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    let (calls, state) = (world.target_calls(), world.state().await);
    let id = named_id(&world, 0);
    let typed = format!("{}x", &id[..id.len() - 1]);
    let outcome = send(&world, ids(&[&id, &typed])).await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, outcome.report.status), (ErrorKind::BadEvent, Status::Failed));
    let said = error.to_string();
    assert!(
        said.starts_with(&format!("only: no row has the id \"{typed}\"; the nearest ids are ")),
        "{said}"
    );
    assert!(said.contains(&id[..id.len() - 1]), "{said}");
    // The nearest ids of a group are those of groups.
    let group = world.catalogue().groups[0].id.clone();
    let typed = format!("{group}0");
    let only = Only { groups: vec![typed.clone()], ..Only::default() };
    let said = send(&world, only).await.error.unwrap().to_string();
    let nearest = format!("only: no group has the id \"{typed}\"; the nearest ids are ");
    assert!(said.starts_with(&nearest) && said.contains(&group), "{said}");
    assert_eq!((world.target_calls(), world.state().await), (calls, state));
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_that_is_named_is_sent_before_its_turn() {
    let world = World::new(small(), qeasy("products", ""));
    let id = named_id(&world, 0);
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), 3, 0);
    for _ in 0..2 {
        assert_eq!(world.sync().await.report.status, Status::Partial);
    }
    world.sandbox.clear_faults();
    // Refused twice: a run would pass before its next turn.
    let deferred = world.sync().await;
    assert_eq!((deferred.report.quarantined, deferred.report.target.requests), (1, 0));
    let outcome = send(&world, ids(&[&id])).await;
    assert_eq!((outcome.report.status, outcome.report.target.written), (Status::Succeeded, 1));
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_named_row_in_the_quarantine_is_reported_and_no_other_one() {
    let world = World::new(Options { dirty: true, ..small() }, qeasy("products", ""));
    let all = world.sync().await;
    let named = all.rejected.iter().find(|row| row.reason.contains("name of product")).unwrap();
    let outcome = send(&world, ids(&[named.id.as_deref().unwrap()])).await;
    assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1));
    assert_eq!(outcome.rejected[0].id, named.id);
    assert_eq!(outcome.report.target.requests, 0);
}

/// A call that was given up is worked off minutes later: nobody can know it, but everybody can find it.
#[tokio::test(start_paused = true)]
async fn what_a_late_call_overwrites_is_found_by_verify_and_sent_again_by_name() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    let id = world.catalogue().products[7].product_id.clone();
    let rename = |name: &'static str| {
        world.sandbox.edit(|catalogue| catalogue.products[7].name = name.to_owned());
    };
    rename("older");
    // Each try of the first run is late; it ends without an answer.
    world.wind(60).await;
    world.fault(Endpoint::QeasyStore, FaultKind::LostLate(Duration::from_secs(900)), 6, 0);
    let outcome = world.sync().await;
    assert_ne!(outcome.report.status, Status::Failed, "{:?}", outcome.report);
    world.sandbox.clear_faults();
    rename("newer");
    world.wind(60).await;
    world.sync_well().await;
    world.assert_complete();
    world.wind(1_000).await;
    // What was due meanwhile gets its turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(world.rows()[&id].get().contains("older"), "the late call had its effect");
    let verified = world.verify().await;
    assert_eq!(verified.report.remaining, 1, "{:?}", verified.report);
    assert_eq!(world.sync_well().await.report.target.written, 0, "the state knows the newer row");
    send(&world, ids(&[&id])).await;
    world.assert_complete();
    assert_eq!(world.verify().await.report.remaining, 0);
}
