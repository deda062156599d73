//! The plan, the guard and the verification: what is said before, and what is done.

use std::collections::BTreeSet;

use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::RunRequest;
use okki_sync_sandbox::faults::Endpoint;

use crate::support::{World, http, qeasy, request, small};

const SHAPES: [&str; 3] = ["groups", "groups-with-items", "products"];

#[tokio::test(start_paused = true)]
async fn a_second_run_writes_nothing_and_does_not_even_call_the_target() {
    for shape in SHAPES {
        let world = World::new(small(), qeasy(shape, ""));
        let first = world.sync_well().await;
        let (calls, written) = (world.target_calls(), world.sandbox.stats().rows_written);
        let second = world.sync_well().await;
        assert_eq!((world.target_calls(), world.sandbox.stats().rows_written), (calls, written));
        assert_eq!(second.report.plan.unchanged, first.report.plan.create);
        assert_eq!((second.report.target.requests, second.report.target.written), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_the_sync_then_does_and_writes_nothing_itself() {
    for shape in SHAPES {
        let world = World::new(small(), qeasy(shape, ""));
        let planned = world.plan().await;
        assert_eq!(world.state().await, None);
        assert_eq!((world.sandbox.stats().rows_written, world.target_calls()), (0, 0));
        assert_eq!(world.sync_well().await.report.plan, planned.report.plan);
        for _ in 0..3 {
            world.sandbox.simulate_edits();
            let (state, written) = (world.state().await, world.sandbox.stats().rows_written);
            let planned = world.plan().await;
            assert_eq!((world.state().await, world.sandbox.stats().rows_written), (state, written));
            let done = world.sync_well().await;
            assert_eq!(done.report.plan, planned.report.plan);
            let counts = &planned.report.plan;
            assert!(counts.create + counts.update > 0);
            assert_eq!(done.report.target.written, counts.create + counts.update);
            assert_eq!(done.report.target.deleted, counts.delete);
            let delivered = world.sandbox.stats().rows_written - written;
            assert_eq!(delivered, counts.create + counts.update + counts.delete);
            let marks =
                |mark: char| planned.lines.iter().filter(|line| line.kind.mark() == mark).count() as u64;
            assert_eq!((marks('+'), marks('*'), marks('-')), (counts.create, counts.update, counts.delete));
            world.assert_complete();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_source_lost_become_tombstones_once() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    let mut gone = Vec::new();
    world.sandbox.edit(|catalogue| {
        gone.push(catalogue.products.remove(3).product_id);
        catalogue.products[5].enable_flag = 0;
        gone.push(catalogue.products[5].product_id.clone());
    });
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.delete, outcome.report.target.deleted), (2, 2));
    for id in &gone {
        assert_eq!(world.rows()[id].get(), format!("{{\"id\":\"{id}\",\"deleted\":true}}"));
    }
    world.assert_complete();
    assert_eq!(world.sync_well().await.report.target.requests, 0);
    assert_eq!(world.verify().await.report.status, Status::Succeeded);
    world.sandbox.edit(|catalogue| catalogue.products[5].enable_flag = 1);
    assert_eq!(world.sync_well().await.report.plan.create, 1);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn with_on_delete_ignore_rows_stay_at_the_target() {
    let world = World::new(small(), qeasy("products", "on_delete = \"ignore\""));
    world.sync_well().await;
    world.sandbox.edit(|catalogue| catalogue.products.truncate(200));
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.delete, outcome.report.target.requests), (0, 0));
    assert!(world.rows().values().all(|row| !row.get().contains("deleted")));
    assert_eq!(world.rows().len(), 300);
    assert_eq!(world.verify().await.report.status, Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_delete_guard_refuses_with_numbers_and_is_lifted_for_one_run() {
    let world = World::new(small(), qeasy("products", ""));
    world.sync_well().await;
    world.sandbox.edit(|catalogue| catalogue.products.truncate(200));
    let (state, calls) = (world.state().await, world.target_calls());
    let outcome = world.sync().await;
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::GuardRefused, 1));
    for part in ["100", "300", "33 %", "20 %", "allow"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(outcome.report.status, Status::Failed);
    assert_eq!((world.state().await, world.target_calls()), (state, calls));
    let planned = world.plan().await;
    assert_eq!(planned.lines.iter().filter(|line| line.kind.mark() == '-').count(), 100);

    let lifted = RunRequest { allow_mass_delete: true, ..request(Mode::Sync) };
    let outcome = world.run(&lifted, |_| {}).await;
    assert_eq!((outcome.report.status, outcome.report.target.deleted), (Status::Succeeded, 100));
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_few_deletions_are_never_refused() {
    let world =
        World::new(okki_sync_sandbox::Options { groups: 8, products: 12, ..small() }, qeasy("products", ""));
    world.sync_well().await;
    world.sandbox.edit(|catalogue| catalogue.products.truncate(2));
    assert_eq!(world.sync_well().await.report.target.deleted, 10);
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_row_is_refused_unless_allowed() {
    for target in ["", "on_delete = \"ignore\""] {
        let world = World::new(small(), qeasy("groups", target));
        world.sync_well().await;
        let calls = world.target_calls();
        world.sandbox.edit(|catalogue| *catalogue = Default::default());
        let outcome = world.sync().await;
        assert_eq!(outcome.error.unwrap().kind, ErrorKind::GuardRefused);
        assert_eq!(world.target_calls(), calls);
        assert!(world.rows().values().all(|row| !row.get().contains("deleted")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_source_without_a_row_is_no_error() {
    let world =
        World::new(okki_sync_sandbox::Options { groups: 0, products: 0, ..small() }, qeasy("groups", ""));
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.create, world.target_calls()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn verify_finds_what_was_tampered_with_and_writes_nothing() {
    for text in [qeasy("groups-with-items", ""), http("groups-with-items", "wrap = \"groups\"")] {
        let world = World::new(small(), text);
        world.sync_well().await;
        let same = world.verify().await;
        assert_eq!(same.report.status, Status::Succeeded, "{:?}", same.report);
        assert_eq!(same.lines.iter().filter(|line| line.kind.mark() == '=').count(), 40);
        assert_eq!((same.report.plan.unchanged, same.report.remaining), (40, 0));

        // The source moves on while the target stays: a name, a new group, and a group without products that goes.
        let (mut renamed, mut added, mut removed) = (String::new(), String::new(), String::new());
        world.sandbox.edit(|catalogue| {
            catalogue.groups[0].name.push('!');
            renamed.clone_from(&catalogue.groups[0].id);
            let mut group = catalogue.groups[1].clone();
            group.id = "9999999999".to_owned();
            added.clone_from(&group.id);
            let parents: BTreeSet<String> =
                catalogue.groups.iter().map(|group| group.parent_id.clone()).collect();
            let leaf = catalogue.groups.iter().rposition(|group| !parents.contains(&group.id)).unwrap();
            removed = catalogue.groups.remove(leaf).id;
            catalogue.products.retain(|product| product.group_id != removed);
            catalogue.groups.push(group);
        });
        let (state, written) = (world.state().await, world.sandbox.stats().rows_written);
        let outcome = world.verify().await;
        assert_eq!((world.state().await, world.sandbox.stats().rows_written), (state, written));
        assert_eq!(outcome.report.status, Status::Partial, "{:?}", outcome.report);
        for (mark, id) in [('*', renamed), ('+', added), ('-', removed)] {
            let found: Vec<&str> = outcome
                .lines
                .iter()
                .filter(|line| line.kind.mark() == mark)
                .map(|line| line.id.as_str())
                .collect();
            assert_eq!(found, [id.as_str()], "{mark}");
        }
        let counts = &outcome.report.plan;
        assert_eq!((counts.create, counts.update, counts.delete, counts.unchanged), (1, 1, 1, 38));
        assert_eq!(outcome.report.remaining, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn verify_reads_every_shape_of_qeasys_query() {
    for query_shape in 1..=4 {
        let world = World::new(okki_sync_sandbox::Options { query_shape, ..small() }, qeasy("products", ""));
        world.sync_well().await;
        let outcome = world.verify().await;
        assert_eq!(outcome.report.status, Status::Succeeded, "shape {query_shape}: {:?}", outcome.report);
        assert_eq!(outcome.report.plan.unchanged, 300);
        assert!(world.calls(Endpoint::QeasyQuery) >= 3);
    }
}
