//! The read that always arrives: over several runs, while people edit, and whatever the source's filters do.

use std::time::Duration;

use okki_sync::testing::clock::Clock;
use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Outcome, Progress, RunRequest};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{ChangeMix, ListOrder, Options, Sandbox, TimeFilter, Total};
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{World, env, qeasy, request, wall};

/// Where a read keeps what it has come to.
const PRODUCTS: &str = "cache/it.products";

fn options() -> Options {
    Options { groups: 20, products: 5_000, ..Options::default() }
}

/// One call a second: a run of a minute reads some 55 pages of 10 rows, of about 500.
fn slow() -> String {
    qeasy("products", "").replace("per_second = 5.0", "per_second = 1.0\npage_size = 10")
}

/// The same at a pace that a test need not wait for.
pub(crate) fn fast(shape: &str) -> String {
    qeasy(shape, "[guard]\nmax_delete_ratio = 1.0\n").replace("per_second = 5.0", "per_second = 50.0")
}

/// The same with pages of so many rows.
pub(crate) fn fast_in_pages_of(rows: u32, shape: &str) -> String {
    fast(shape).replace("[source]\n", &format!("[source]\npage_size = {rows}\n"))
}

async fn for_a_minute(world: &World, request: &RunRequest) -> Outcome {
    let deadline = Some(Instant::now() + Duration::from_secs(65));
    world.run(&RunRequest { deadline, ..request.clone() }, |_| {}).await
}

/// The ledger of the read that is kept.
pub(crate) async fn ledger(world: &World) -> Value {
    let store = world.app.store().await.unwrap();
    let (bytes, _) = store.load(PRODUCTS).await.unwrap().unwrap();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap();
    serde_json::from_slice::<Value>(line).unwrap()["ledger"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_read_that_does_not_fit_into_one_run_goes_on_in_the_next() {
    let world = World::new(options(), slow());
    let (mut read, mut runs, mut calls) = (0, 0, 0);
    loop {
        let outcome = for_a_minute(&world, &request(Mode::Sync)).await;
        let report = &outcome.report;
        (runs, calls) = (runs + 1, calls + report.source.requests);
        if report.status == Status::Succeeded {
            break;
        }
        assert_eq!(report.status, Status::Paused, "{report:?}");
        if report.error.as_ref().is_some_and(|error| error.contains("products are read")) {
            let unread = (5_000 - report.source.products).max(1);
            assert_eq!((report.remaining, report.target.requests), (unread, 0));
            assert_eq!(report.source.newly_read, Some(report.source.products - read));
            assert!(report.source.products > read, "each run comes further: {report:?}");
            assert_eq!(report.resume_after_seconds, Some(1));
            read = report.source.products;
        }
        assert!(runs < 30, "{report:?}");
    }
    world.assert_complete();
    // Each run begins with the groups, and loses the windows that it did not end.
    assert!(calls < 500 * 2, "{calls} calls for 500 pages in {runs} runs");
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_loses_two_minutes_of_reading_at_most() {
    let world = World::new(options(), slow());
    let killed = tokio::time::timeout(Duration::from_secs(300), world.sync());
    assert!(killed.await.is_err());
    let kept = ledger(&world).await["windows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w["rows"].as_u64().unwrap())
        .sum::<u64>();
    assert!(kept > 900, "{kept} rows of some 2,700");
    tokio::time::advance(Duration::from_secs(60)).await;
    let paused = for_a_minute(&world, &request(Mode::Sync)).await;
    assert!(paused.report.source.products > kept, "{:?}", paused.report);
}

#[tokio::test(start_paused = true)]
async fn what_interrupts_the_read_does_not_matter() {
    let list_order = ListOrder::NewestUpdateFirstStable;
    let world = World::new(Options { list_order, ..options() }, fast("products"));
    // The source fails half-way: the run fails, and what it has read is kept.
    world.fault(Endpoint::OkkiProducts, FaultKind::Status(500), 90, 30);
    let failed = world.sync().await;
    assert_eq!(failed.error.unwrap().kind, ErrorKind::Unavailable(Side::Source));
    world.sandbox.clear_faults();
    let calls = world.calls(Endpoint::OkkiProducts);
    world.sync_well().await;
    let calls = world.calls(Endpoint::OkkiProducts) - calls;
    assert!(calls < 120, "{calls}");
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_or_foreign_checkpoint_is_set_aside_and_the_source_read_anew() {
    for foreign in [false, true] {
        let mut world = World::new(options(), slow());
        for_a_minute(&world, &request(Mode::Sync)).await;
        let store = world.app.store().await.unwrap().clone();
        let (bytes, _) = store.load(PRODUCTS).await.unwrap().unwrap();
        let mut bytes = bytes.to_vec();
        if foreign {
            world.text = slow().replace("shape = \"products\"", "shape = \"groups-with-items\"");
        } else {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            store.put(PRODUCTS, bytes).await.unwrap();
        }
        let paused = for_a_minute(&world, &request(Mode::Sync)).await;
        assert_eq!(paused.report.status, Status::Paused);
        assert_eq!(
            paused.report.source.newly_read,
            Some(paused.report.source.products),
            "{:?}",
            paused.report
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_read_that_is_asked_for_again_and_again_still_arrives() {
    let world = World::new(options(), slow());
    let full = RunRequest { full: true, ..request(Mode::Sync) };
    for _ in 0..30 {
        if for_a_minute(&world, &full).await.report.status == Status::Succeeded {
            break;
        }
    }
    world.assert_complete();
    // Complete, it begins anew.
    let again = for_a_minute(&world, &full).await.report;
    assert_eq!((again.status, again.source.newly_read), (Status::Paused, Some(again.source.products)));
}

#[tokio::test(start_paused = true)]
async fn a_verification_that_does_not_fit_into_one_run_goes_on_in_the_next() {
    let world = World::new(Options { products: 1_500, ..options() }, slow());
    world.sync_well().await;
    let mut runs = 0;
    let verified = loop {
        let outcome = for_a_minute(&world, &request(Mode::Verify)).await;
        runs += 1;
        if outcome.report.status != Status::Paused || runs == 20 {
            break outcome.report;
        }
    };
    assert_eq!((verified.status, verified.plan.unchanged), (Status::Succeeded, 1_500), "{verified:?}");
    assert!(runs > 2, "{runs}");
}

#[tokio::test(start_paused = true)]
async fn people_who_never_stop_do_not_stop_the_read() {
    for list_order in [ListOrder::NewestUpdateFirst, ListOrder::Shuffled, ListOrder::ById] {
        let edit_mix = ChangeMix { edits: 60, creations: 20, deletions: 15, restores: 5 };
        let options = Options { list_order, edits_per_minute: 120.0, edit_mix, ..options() };
        let world = World::new(options, fast("products").replace("per_second = 50.0", "per_second = 5.0"));
        for run in 0..4 {
            let outcome = world.sync().await;
            assert_eq!(
                outcome.report.status,
                Status::Succeeded,
                "{list_order:?}, run {run}: {:?}",
                outcome.report
            );
            world.wind(600).await;
        }
        world.sandbox.set_options(|options| options.edits_per_minute = 0.0);
        world.wind(120).await;
        world.sync().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn filters_that_leave_out_an_end_of_their_range_lose_no_product() {
    for filter in [TimeFilter::StartExclusive, TimeFilter::EndExclusive, TimeFilter::BothExclusive] {
        let world = World::new(Options { filter, ..options() }, fast("products"));
        // Imports: seconds with many products, on whose borders windows begin and end.
        for _ in 0..5 {
            world.sandbox.import(700);
            world.wind(1).await;
        }
        world.wind(3_600).await;
        world.sync_well().await;
        world.assert_complete();
        world.wind(3_600).await;
        world.sync_well().await;
        world.wind(3_600).await;
        let later = world.sync_well().await.report.source.requests;
        assert!(later < 40, "{filter:?}: {later}, the parts that are read again included");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_filters_cannot_be_believed_is_read_the_old_way() {
    for filter in [
        TimeFilter::Ignored,
        TimeFilter::CreationIgnored,
        TimeFilter::CreationMeansUpdate,
        TimeFilter::Refused,
    ] {
        let list_order = ListOrder::NewestUpdateFirstStable;
        let world = World::new(Options { filter, list_order, ..options() }, fast("products"));
        world.sync_well().await;
        world.assert_complete();
        world.wind(600).await;
        world.sandbox.edit(|catalogue| {
            catalogue.products[3].name.push('!');
            catalogue.products.remove(4);
        });
        world.sync_well().await;
        world.assert_complete();
    }
    let untimed = Options { untimed_rows: 3, list_order: ListOrder::ById, ..options() };
    let world = World::new(untimed, fast("products"));
    let first = world.sync_well().await.report.source.requests;
    world.assert_complete();
    // It is remembered: changes are read as they come.
    world.wind(600).await;
    world.sandbox.edit(|catalogue| catalogue.products[2].name.push('!'));
    let second = world.sync_well().await.report.source;
    assert!(second.requests < first && !second.full_read, "{second:?}, first {first}");
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn totals_that_are_nonsense_end_in_one_line_and_delete_nothing() {
    for total in [Total::Negative, Total::Word, Total::Falling] {
        let world = World::new(options(), fast("products"));
        world.sync_well().await;
        world.wind(30 * 3600).await;
        world.sandbox.set_options(|options| options.total = total);
        world.sandbox.edit(|catalogue| drop(catalogue.products.remove(4)));
        let outcome = world.sync().await;
        let report = &outcome.report;
        assert_eq!((report.target.deleted, report.target.written), (0, 0), "{total:?}: {report:?}");
        if let Some(error) = &report.error {
            assert!(!error.contains('\n') && error.len() < 300, "{error}");
        }
        world.sandbox.set_options(|options| options.total = Total::Honest);
        for _ in 0..3 {
            world.wind(3600).await;
            world.sync().await;
        }
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_in_another_time_zone_misses_no_edit() {
    for hours in [-8, -1, 1, 8] {
        let clock = Clock::pinned();
        let options = Options { filter_clock_offset_s: hours * 3600, ..options() };
        let world = World::of(Sandbox::new(options, wall(clock)), None, env(), fast("products"), clock);
        world.sync_well().await;
        for minutes in [5, 60, 240, 30] {
            world.wind(minutes * 60).await;
            world.sandbox.edit(|catalogue| catalogue.products[3].name.push('!'));
            let id = world.sandbox.import(1);
            let outcome = world.sync_well().await;
            assert_eq!((outcome.report.plan.create, outcome.report.plan.update), (1, 1), "{hours} h");
            assert!(world.rows().contains_key(&id[0]));
            world.assert_complete();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_second_that_holds_ten_pages_is_read_whole() {
    for (max_page_size, product_type_filter) in [(1_000, true), (100, true), (100, false)] {
        let world = World::new(Options { max_page_size, product_type_filter, ..options() }, fast("products"));
        world.sandbox.import(1_000);
        world.wind(3_600).await;
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_product_that_comes_back_is_neither_lost_nor_deleted() {
    let world = World::new(options(), fast("products"));
    world.sync_well().await;
    let id = world.sandbox.catalogue().products[40].product_id.clone();
    world.wind(3_600).await;
    assert!(world.sandbox.remove(&id));
    assert_eq!(world.sync_well().await.report.target.deleted, 1);
    world.wind(3_600).await;
    assert!(world.sandbox.restore(&id));
    assert_eq!(world.sync_well().await.report.plan.create, 1);
    world.assert_complete();
    // Its place is known again, so that it can be missed again.
    world.wind(26 * 3_600).await;
    world.sync_well().await;
    assert!(world.sandbox.remove(&id));
    assert_eq!(world.sync_well().await.report.target.deleted, 1);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn products_that_came_back_are_missed_when_they_go_again() {
    let world = World::new(options(), fast("products"));
    world.sync_well().await;
    let products = world.sandbox.catalogue().products;
    let ids: Vec<String> = products[40..45].iter().map(|product| product.product_id.clone()).collect();
    world.wind(3_600).await;
    assert!(ids.iter().all(|id| world.sandbox.remove(id)));
    assert_eq!(world.sync_well().await.report.target.deleted, 5);
    world.wind(60).await;
    assert!(ids.iter().all(|id| world.sandbox.restore(id)));
    assert_eq!(world.sync_well().await.report.plan.create, 5);
    for id in &ids {
        // A new product hides in the total that another one is gone.
        world.wind(60).await;
        world.sandbox.import(1);
        assert!(world.sandbox.remove(id));
        let plan = world.sync_well().await.report.plan;
        assert_eq!((plan.create, plan.delete), (1, 1), "{id}");
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_in_another_time_zone_does_not_make_old_products_new() {
    for hours in [-8, 8] {
        let clock = Clock::pinned();
        let list_order = ListOrder::ById;
        let offset = Options { filter_clock_offset_s: hours * 3600, list_order, ..options() };
        let untimed = Options { untimed_rows: 3, ..offset };
        let world = World::of(Sandbox::new(untimed, wall(clock)), None, env(), fast("products"), clock);
        world.sync_well().await;
        world.wind(600).await;
        world.sandbox.import(1);
        assert_eq!(world.sync_well().await.report.plan.create, 1, "{hours} h");
        world.wind(600).await;
        world.sandbox.edit(|catalogue| catalogue.products[2].name.push('!'));
        let request = RunRequest { full: true, ..request(Mode::Sync) };
        let report = world.run(&request, |_| {}).await.report;
        assert_eq!((report.status, report.plan.update), (Status::Succeeded, 1), "{hours} h: {report:?}");
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_product_of_a_group_that_was_created_meanwhile_is_not_set_aside() {
    let world = World::new(options(), fast("products"));
    let sandbox = world.sandbox.clone();
    let request = request(Mode::Sync);
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let outcome = world
        .run(&request, move |progress| {
            let reads = matches!(progress, Progress::Reading { read, .. } if read > 1_000);
            if reads && !is_done.swap(true, std::sync::atomic::Ordering::Relaxed) {
                sandbox.edit(|catalogue| {
                    let mut group = catalogue.groups[0].clone();
                    group.id = "7777777777".to_owned();
                    catalogue.groups.push(group);
                    catalogue.products[3].group_id = "7777777777".to_owned();
                });
            }
        })
        .await;
    assert_eq!(
        (outcome.report.status, outcome.report.quarantined),
        (Status::Succeeded, 0),
        "{:?}",
        outcome.report
    );
    world.assert_complete();
}
