//! Several batches under way at a time: faster, and as careful as one after the other.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::store::Store;
use okki_sync::testing::sync::Progress;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{Options, Sandbox};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::{World, http, qeasy, request};

/// 16 batches of products or of groups, each 20 ms away.
fn sixteen_batches(shape: &str, at_once: u32) -> World {
    let latency = Duration::from_millis(20);
    let options = Options { groups: 160, products: 160, latency, ..Options::default() };
    World::new(options, qeasy(shape, &format!("max_rows_per_batch = 10\nmax_concurrency = {at_once}")))
}

/// How long the batches took, and how many calls the target saw at once.
async fn writes(shape: &str, at_once: u32) -> (Duration, usize) {
    let world = sixteen_batches(shape, at_once);
    let (took, batches) = time_to_write(&world).await;
    assert_eq!(batches, 16);
    (took, world.sandbox.stats().max_target_calls_at_once)
}

/// How long the batches took, and how many they were.
async fn time_to_write(world: &World) -> (Duration, u64) {
    let planned = Arc::new(Mutex::new(Instant::now()));
    let told = Arc::clone(&planned);
    let outcome = world
        .run(&request(Mode::Sync), move |progress| {
            if matches!(progress, Progress::Planned(_)) {
                *told.lock().unwrap() = Instant::now();
            }
        })
        .await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    world.assert_complete();
    let took = planned.lock().unwrap().elapsed();
    (took, outcome.report.target.batches)
}

#[tokio::test(start_paused = true)]
async fn a_tree_takes_hardly_longer_than_its_batches_would_without_an_order() {
    let latency = Duration::from_millis(20);
    let options = Options { groups: 2_000, products: 2_000, latency, ..Options::default() };
    let target = "requests_per_minute = 5000\nmax_rows_per_batch = 25\nmax_concurrency = 4";
    let world = World::new(options, http("groups-with-items", target));
    let (took, batches) = time_to_write(&world).await;
    assert_eq!(batches, 80);
    // Four at a time without a pause.
    let wire = latency * 80 / 4;
    assert!(took <= wire.mul_f64(1.15), "{took:?}, the wire alone {wire:?}");
}

#[tokio::test(start_paused = true)]
async fn batches_go_side_by_side_and_never_more_than_max_concurrency() {
    for shape in ["products", "groups", "groups-with-items"] {
        let (alone, most) = writes(shape, 1).await;
        assert_eq!(most, 1);
        for at_once in [2, 3, 4, 8] {
            let (together, most) = writes(shape, at_once).await;
            assert!(most <= at_once as usize, "{shape}: {most} at once, {at_once} allowed");
            assert!(most == at_once as usize || shape != "products", "{shape}: {most} of {at_once} at once");
            assert!(
                together < alone.mul_f64(0.65),
                "{shape}, {at_once} at once: {together:?}, alone {alone:?}"
            );
        }
    }
}

/// A call to the target: the rows that it brings, and those that the target holds when it comes.
struct Brought {
    ids: Vec<String>,
    held: HashSet<String>,
}

/// Watches the target's calls.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<Brought>>>);

impl Order {
    fn on(&self, sandbox: &Sandbox) -> Router {
        let (order, sandbox, inner) = (self.clone(), sandbox.clone(), sandbox.target());
        Router::new().fallback(move |request: Request| {
            let (order, sandbox, inner) = (order.clone(), sandbox.clone(), inner.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap();
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let rows = json.get("content").and_then(|rows| rows.as_array()).cloned().unwrap_or_default();
                let ids = rows.iter().map(|row| row["productGroupId"].as_str().unwrap().to_owned());
                let held = sandbox.target_rows().into_keys().collect();
                order.0.lock().unwrap().push(Brought { ids: ids.collect(), held });
                inner.oneshot(::http::Request::from_parts(parts, Body::from(body))).await
            }
        })
    }

    /// No row is sent before the target holds each of its ancestors, unless they stand before it in the same batch.
    fn assert_parents_come_first(&self, world: &World) {
        let groups = world.catalogue().groups;
        let parents: HashMap<&str, &str> =
            groups.iter().map(|group| (group.id.as_str(), group.parent_id.as_str())).collect();
        let mut children_sent = 0;
        for Brought { ids, held } in &*self.0.lock().unwrap() {
            for (at, id) in ids.iter().enumerate() {
                let mut above = parents[id.as_str()];
                while above != "0" {
                    children_sent += 1;
                    let is_first = held.contains(above) || ids[..at].iter().any(|before| before == above);
                    assert!(is_first, "{id} was sent before {above}");
                    above = parents[above];
                }
            }
        }
        assert!(children_sent > 100, "the catalogue has no tree: {children_sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_comes_before_its_children_whatever_happens_to_batches() {
    let faults: [Option<(FaultKind, u32, u32)>; 6] = [
        None,
        Some((FaultKind::LostBefore, 2, 2)),
        Some((FaultKind::LostAfter, 3, 1)),
        Some((FaultKind::Status(500), 2, 4)),
        Some((FaultKind::BodyCode(40_001, "字段错误".to_owned()), 1, 3)),
        Some((FaultKind::Throttle { retry_after_seconds: Some(300) }, 1, 5)),
    ];
    for fault in faults {
        for (rows, at_once) in [(3, 4), (10, 4), (10, 16), (7, 1)] {
            let latency = Duration::from_millis(20);
            let options = Options { groups: 160, products: 20, latency, ..Options::default() };
            let target = format!("max_rows_per_batch = {rows}\nmax_concurrency = {at_once}");
            let (world, order) = (World::new(options, qeasy("groups", &target)), Order::default());
            let target = order.on(&world.sandbox);
            let world = world.with_target(target);
            if let Some((kind, times, after)) = fault.clone() {
                world.fault(Endpoint::QeasyStore, kind, times, after);
            }
            for _ in 0..3 {
                world.sync().await;
                world.wind(301).await;
            }
            world.assert_complete();
            order.assert_parents_come_first(&world);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn side_by_side_no_more_calls_are_made_and_deletions_come_last() {
    for at_once in [1, 4, 16] {
        let options = Options { groups: 160, products: 20, ..Options::default() };
        let world = World::new(
            options,
            qeasy("groups", &format!("max_rows_per_batch = 10\nmax_concurrency = {at_once}")),
        );
        world.sync_well().await;
        assert_eq!(world.calls(Endpoint::QeasyStore), 16);
        world.sandbox.edit(|catalogue| {
            let is_leaf = |id: &str| !catalogue.groups.iter().any(|group| group.parent_id == id);
            let gone: Vec<String> = catalogue
                .groups
                .iter()
                .map(|group| group.id.clone())
                .filter(|id| is_leaf(id))
                .take(8)
                .collect();
            catalogue.groups.retain(|group| !gone.contains(&group.id));
            catalogue.groups.iter_mut().for_each(|group| group.name.push('!'));
        });
        world.wind(60).await;
        let report = world.sync_well().await.report;
        assert_eq!((report.target.written, report.target.deleted, report.target.batches), (152, 8, 16));
        let bodies = world.target.bodies("/store");
        let with_deletions: Vec<usize> = bodies
            .iter()
            .enumerate()
            .filter(|(_, body)| body.contains("deleted"))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(with_deletions, [31], "all in the last batch");
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_lockout_other_batches_are_acknowledged_and_nobody_calls() {
    let world = sixteen_batches("products", 4);
    world.fault(Endpoint::QeasyStore, FaultKind::Throttle { retry_after_seconds: Some(300) }, 1, 9);
    let outcome = world.sync().await;
    let report = &outcome.report;
    assert_eq!(outcome.error.as_ref().unwrap().kind, ErrorKind::Throttled(Side::Target));
    assert_eq!((report.status, report.resume_after_seconds), (Status::Paused, Some(300)), "{report:?}");
    assert_eq!(world.sandbox.stats().max_target_calls_at_once, 4);
    let calls = world.calls(Endpoint::QeasyStore);
    assert!((10..=13).contains(&calls), "{calls}");
    assert_eq!(report.target.written, (calls - 1) * 10, "all but the one that was throttled");
    assert_eq!(world.rows().len() as u64, report.target.written);

    assert_eq!(world.sync().await.report.status, Status::Paused);
    assert_eq!(world.calls(Endpoint::QeasyStore), calls, "no call before its time");
    world.wind(301).await;
    world.sync_well().await;
    assert_eq!(world.sandbox.stats().rows_written, 160, "no row went twice");
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_short_lockout_is_kept_by_every_batch_in_flight() {
    let world = sixteen_batches("products", 4);
    world.fault(Endpoint::QeasyStore, FaultKind::Throttle { retry_after_seconds: Some(30) }, 1, 9);
    let started = Instant::now();
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.target.throttled, outcome.report.target.retries), (1, 1));
    assert!(started.elapsed() >= Duration::from_secs(30));
    assert_eq!(world.sandbox.stats().rows_written, 160);
    world.assert_complete();
}

/// Kills or stops a run this long after it made its plan, and returns how many rows go twice because of that.
async fn sent_twice(world: &World, store: Store, after_ms: u64, is_stopped: bool) -> u64 {
    let rows = |world: &World| world.sandbox.stats().rows_written;
    let (sender, planned) = tokio::sync::oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let first = world.again_on(store.clone());
    let asked = request(Mode::Sync);
    let run = first.run(&asked, move |progress| {
        if matches!(progress, Progress::Planned(_)) {
            let _ = sender.lock().unwrap().take().unwrap().send(());
        }
    });
    let end = async {
        planned.await.unwrap();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        if is_stopped {
            first.app.stop();
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        outcome = run => {
            assert!(is_stopped, "the run came to its end before it was killed");
            assert_eq!(outcome.report.status, Status::Paused, "{:?}", outcome.report);
        }
        () = end => {}
    }
    // The lease of the dead runs out.
    world.wind(61).await;
    let next = world.again_on(store);
    next.sync_well().await;
    next.assert_complete();
    rows(world) - 160
}

#[tokio::test(start_paused = true)]
async fn of_a_run_that_is_killed_or_stopped_only_what_was_under_way_goes_twice() {
    for at_once in [1, 4] {
        let at_most = if at_once == 1 { 20 } else { 40 };
        for after_ms in [25, 30, 45, 61, 75, 90, 105, 120] {
            for is_stopped in [false, true] {
                let world = sixteen_batches("products", at_once);
                let directory = tempfile::tempdir().unwrap();
                let store = Store::directory(directory.path().to_owned()).unwrap();
                let twice = sent_twice(&world, store, after_ms, is_stopped).await;
                assert!(twice <= at_most, "{at_once} at once, {after_ms} ms: {twice} rows went twice");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn on_s3_the_state_is_one_batch_or_two_seconds_behind() {
    // One batch is under way, and of those before it two seconds' worth are not saved.
    for (latency_ms, at_most) in [(500, 10 + 40), (3_000, 10)] {
        for after_ms in [1_100, 2_100, 3_900, 5_600, 6_900] {
            let world = sixteen_batches("products", 1);
            let latency = Duration::from_millis(latency_ms);
            world.sandbox.set_options(|options| options.latency = latency);
            let twice = sent_twice(&world, Store::memory(), after_ms, false).await;
            assert!(twice <= at_most, "{latency_ms} ms, {after_ms} ms: {twice} rows went twice");
        }
    }
}
