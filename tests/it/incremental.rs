//! Incremental reads: cost follows change, and what was not announced is found all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse as _;
use http::StatusCode;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Outcome, RunRequest};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{ListOrder, Options, Sandbox, Total};

use crate::endurance::before;
use crate::read::{fast, ledger};
use crate::support::{World, env, qeasy, request, wall};

fn options() -> Options {
    let list_order = ListOrder::NewestUpdateFirstStable;
    Options { groups: 20, products: 950, list_order, ..Options::default() }
}

/// A world after its first sync, an hour later.
async fn synced(shape: &str) -> World {
    let world = World::new(options(), qeasy(shape, ""));
    assert!(world.sync_well().await.report.source.full_read);
    world.wind(3600).await;
    world
}

/// Syncs and says how: (source calls, full read).
async fn sync(world: &World) -> (Outcome, u64, bool) {
    let outcome = world.sync_well().await;
    world.assert_complete();
    let (requests, full) = (outcome.report.source.requests, outcome.report.source.full_read);
    (outcome, requests, full)
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_change_makes_four_source_calls_and_no_target_call() {
    for shape in ["products", "groups-with-items"] {
        let world = synced(shape).await;
        // A new program: its token is cold.
        let store = world.app.store().await.unwrap().clone();
        let again = world.again_on(store);
        let (outcome, requests, full) = sync(&again).await;
        assert_eq!((requests, full, outcome.report.target.requests), (4, false, 0), "{shape}");
        assert_eq!(outcome.report.source.products, 950);
    }
}

#[tokio::test(start_paused = true)]
async fn changed_new_and_flagged_products_come_without_a_full_read() {
    let world = synced("products").await;
    world.sandbox.edit(|catalogue| {
        catalogue.products[3].name.push('!');
        catalogue.products[4].enable_flag = 0;
        let mut new = catalogue.products[5].clone();
        new.product_id = "99999999999".to_owned();
        catalogue.products.push(new);
    });
    let (outcome, requests, full) = sync(&world).await;
    // Groups, changes, how far the filter's clock is behind; where the new row is: a window up to now, the total of all
    // windows, changes since, the tail; in none of them, so whether it is still there; and the total.
    assert_eq!((requests, full), (9, false));
    let plan = outcome.report.plan;
    assert_eq!((plan.create, plan.update, plan.delete), (1, 1, 1));
    world.wind(3600).await;
    assert_eq!(sync(&world).await.0.report.plan.unchanged, 950);
}

/// From when on the next run asks for changes, Unix seconds of the source's clock.
async fn cursor(world: &World) -> i64 {
    ledger(world).await["changes_from"].as_i64().unwrap()
}

/// A moment as OKKI's filters write it.
fn in_beijing(at_ms: u64) -> String {
    let at = Timestamp::from_millisecond(at_ms.try_into().unwrap()).unwrap();
    at.to_zoned(TimeZone::fixed(jiff::tz::offset(8))).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[tokio::test(start_paused = true)]
async fn changes_that_were_read_before_a_failure_are_not_asked_for_again() {
    // Two imports an hour apart are more than a page: windows of their own. The later one cannot be read for a while.
    let sandbox = Sandbox::new(options(), wall(Clock::pinned()));
    let (is_down, later) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(String::new())));
    let (down, after) = (Arc::clone(&is_down), Arc::clone(&later));
    let source = before(sandbox.okki(), move |_, uri| {
        let uri = uri.replace('+', " ").replace("%3A", ":");
        let start = uri.split("start_time=").nth(1).unwrap_or_default();
        let is_page = uri.contains("count=100&time_type=1") && start > after.lock().unwrap().as_str();
        (down.load(Ordering::Relaxed) && is_page).then(|| StatusCode::SERVICE_UNAVAILABLE.into_response())
    });
    let world = World::of(sandbox, Some(source), env(), fast("products"), Clock::pinned());
    world.sync_well().await;
    let before_imports = cursor(&world).await;
    world.wind(3_600).await;
    world.sandbox.import(300);
    world.wind(3_600).await;
    world.sandbox.import(300);
    *later.lock().unwrap() = in_beijing(world.clock.now_ms() - 600_000);
    is_down.store(true, Ordering::Relaxed);
    assert_ne!(world.sync().await.report.status, Status::Succeeded);
    assert!(cursor(&world).await > before_imports + 3_000, "the first import was read");
    is_down.store(false, Ordering::Relaxed);
    world.wind(600).await;
    sync(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_product_gone_without_notice_is_found_by_the_total_and_a_full_read() {
    let world = synced("products").await;
    world.sandbox.edit(|catalogue| drop(catalogue.products.remove(7)));
    let (outcome, _, _) = sync(&world).await;
    assert_eq!(outcome.report.target.deleted, 1);
    // One gone and another come: the total is as it was, the cache is not.
    world.wind(3600).await;
    world.sandbox.edit(|catalogue| {
        let mut new = catalogue.products.remove(8);
        new.product_id = "99999999999".to_owned();
        catalogue.products.push(new);
    });
    let (outcome, _, full) = sync(&world).await;
    assert_eq!((full, outcome.report.target.deleted, outcome.report.plan.create), (true, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn more_than_a_page_updated_in_one_second_is_read_whole_and_once() {
    let world = synced("products").await;
    world.sandbox.edit(|catalogue| catalogue.products.iter_mut().take(350).for_each(|p| p.name.push('!')));
    world.wind(60).await;
    let (outcome, requests, full) = sync(&world).await;
    assert_eq!((full, outcome.report.plan.update), (false, 350));
    assert!(requests < 40, "{requests}");
    // The overlap reads them once more, and moves on.
    world.wind(180).await;
    sync(&world).await;
    world.wind(180).await;
    assert_eq!(sync(&world).await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn every_part_is_read_again_within_the_time_that_the_guard_says() {
    let world = World::new(Options { products: 9_000, ..options() }, qeasy("products", ""));
    assert!(world.sync_well().await.report.source.full_read);
    let (mut calls, mut oldest) = (Vec::new(), 0);
    for _ in 0..48 {
        world.wind(3600).await;
        let (outcome, requests, full) = sync(&world).await;
        assert!(!full, "no run reads everything");
        calls.push(requests);
        oldest = oldest.max(outcome.report.source.oldest_read_age_seconds.unwrap());
    }
    assert!(oldest <= 24 * 3600, "{oldest} s");
    // Nine of ten windows' pages are spread over twenty hours: some six a run, and never many more.
    assert!(calls.iter().all(|calls| *calls <= 3 + 20), "{calls:?}");
    let full = RunRequest { full: true, ..request(Mode::Sync) };
    assert!(world.run(&full, |_| {}).await.report.source.full_read);
    assert!(world.verify().await.report.source.full_read, "a verification reads everything");
}

#[tokio::test(start_paused = true)]
async fn old_parts_that_cannot_be_read_again_do_not_stop_the_changes() {
    let world = synced("products").await;
    world.wind(30 * 3600).await;
    world.sandbox.edit(|catalogue| catalogue.products[3].name.push('!'));
    world.fault(Endpoint::OkkiProducts, FaultKind::Status(500), 6, 0);
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.update, outcome.report.source.full_read), (1, false));
    assert!(outcome.report.source.oldest_read_age_seconds.unwrap() > 24 * 3600, "{:?}", outcome.report);
    world.assert_complete();
    world.wind(60).await;
    let outcome = world.sync_well().await;
    assert!(outcome.report.source.oldest_read_age_seconds.unwrap() < 60, "{:?}", outcome.report);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_with_other_fields_reads_everything_again() {
    let mut world = synced("products").await;
    world.text = qeasy("groups-with-items", "");
    // The state is of rows of another kind; what counts here is the read.
    assert!(world.plan().await.report.source.full_read);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_cache_costs_a_full_read_and_nothing_else() {
    let world = synced("products").await;
    world.app.store().await.unwrap().put("cache/it.products", "damaged").await.unwrap();
    assert!(sync(&world).await.2);
    assert!(!sync(&world).await.2);
}

#[tokio::test(start_paused = true)]
async fn a_product_whose_group_comes_later_leaves_the_quarantine() {
    let sandbox = Sandbox::new(options(), wall(Clock::pinned()));
    let mut group = None;
    sandbox.edit(|catalogue| group = catalogue.groups.pop());
    let world = World::of(sandbox, None, env(), qeasy("products", ""), Clock::pinned());
    let quarantined = world.sync().await.report.quarantined;
    assert!(quarantined > 0);
    world.wind(3600).await;
    assert_eq!(world.sync().await.report.quarantined, quarantined, "an incremental read knows of them too");
    world.sandbox.edit(|catalogue| catalogue.groups.extend(group.take()));
    let (outcome, requests, full) = sync(&world).await;
    assert_eq!((requests, full, outcome.report.plan.create), (3, false, quarantined));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_gone_takes_its_products_into_the_quarantine() {
    let world = synced("groups-with-items").await;
    world.sandbox.edit(|catalogue| drop(catalogue.groups.pop()));
    let outcome = world.sync().await;
    assert!(!outcome.report.source.full_read && outcome.report.quarantined > 0, "{:?}", outcome.report);
    let row = &world.quarantine(&outcome).await[0];
    assert!(row["reason"].as_str().unwrap().contains("is unknown"), "{row}");
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn changes_whose_pages_shift_are_read_again_and_lose_nothing() {
    let world = synced("products").await;
    world.sandbox.edit(|catalogue| catalogue.products.iter_mut().take(350).for_each(|p| p.name.push('!')));
    world.fault(Endpoint::OkkiProducts, FaultKind::ShiftPages, 1, 1);
    world.sync().await;
    world.wind(3600).await;
    sync(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_clock_is_hours_away_from_ours_is_asked_in_its_own_time() {
    for hours in [-7, 7] {
        let theirs = Clock::pinned();
        let ours = Clock::starting_at_ms(theirs.now_ms().saturating_add_signed(hours * 3_600_000));
        let world =
            World::of(Sandbox::new(options(), wall(theirs)), None, env(), qeasy("products", ""), ours);
        sync(&world).await;
        tokio::time::advance(Duration::from_secs(600)).await;
        world.sandbox.edit(|catalogue| catalogue.products[3].name.push('!'));
        let (outcome, requests, full) = sync(&world).await;
        assert_eq!((requests, full, outcome.report.plan.update), (4, false, 1), "{hours} h");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_total_is_one_too_many_can_be_read() {
    for products in ["incremental", "full"] {
        let options = Options { groups: 40, products: 1_500, total: Total::OneTooMany, ..Options::default() };
        let text = qeasy("groups-with-items", "")
            .replace("[source]", &format!("[source]\nproducts = \"{products}\""));
        let world = World::new(options, text);
        let mut ended = Vec::new();
        for _ in 0..6 {
            let outcome = world.sync().await;
            ended.push((outcome.report.status, outcome.report.error));
            world.wind(3600).await;
        }
        let last = ended.last().unwrap();
        assert_eq!(last.0, Status::Succeeded, "{products}: {ended:?}");
        world.assert_complete();
        // What changes, goes and comes still arrives.
        world.sandbox.edit(|catalogue| {
            catalogue.products[3].name.push('!');
            catalogue.products.remove(700);
        });
        world.wind(24 * 3600).await;
        for _ in 0..6 {
            world.sync().await;
            world.wind(3600).await;
        }
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_brings_a_change_lets_the_next_one_begin_later() {
    let world = synced("products").await;
    for _ in 0..3 {
        let before = cursor(&world).await;
        world.wind(3_600).await;
        world.sandbox.edit(|catalogue| catalogue.products[3].name.push('!'));
        sync(&world).await;
        assert!(cursor(&world).await >= before + 3_600, "{before}");
    }
}
