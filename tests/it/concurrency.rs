//! Several batches of products under way at a time: faster, and as careful as one after the other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::store::Store;
use okki_sync::testing::sync::Progress;
use okki_sync_sandbox::Options;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use tokio::time::Instant;

use crate::support::{World, qeasy, request};

/// 16 batches of products or of groups, each 20 ms away.
fn sixteen_batches(shape: &str, at_once: u32) -> World {
    let latency = Duration::from_millis(20);
    let options = Options { groups: 160, products: 160, latency, ..Options::default() };
    World::new(options, qeasy(shape, &format!("max_rows_per_batch = 10\nmax_concurrency = {at_once}")))
}

/// How long the batches took, and how many calls the target saw at once.
async fn writes(shape: &str, at_once: u32) -> (Duration, usize) {
    let world = sixteen_batches(shape, at_once);
    let planned = Arc::new(Mutex::new(Instant::now()));
    let told = Arc::clone(&planned);
    let outcome = world
        .run(&request(Mode::Sync), move |progress| {
            if matches!(progress, Progress::Planned(_)) {
                *told.lock().unwrap() = Instant::now();
            }
        })
        .await;
    assert_eq!((outcome.report.status, outcome.report.target.batches), (Status::Succeeded, 16));
    world.assert_complete();
    let took = planned.lock().unwrap().elapsed();
    (took, world.sandbox.stats().max_target_calls_at_once)
}

#[tokio::test(start_paused = true)]
async fn batches_of_products_go_side_by_side_and_never_more_than_max_concurrency() {
    let (alone, most) = writes("products", 1).await;
    assert_eq!(most, 1);
    for at_once in [2, 3, 4, 8] {
        let (together, most) = writes("products", at_once).await;
        assert_eq!(most, at_once as usize);
        assert!(together < alone.mul_f64(0.65), "{at_once} at once: {together:?}, alone {alone:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_of_groups_go_one_after_the_other() {
    for shape in ["groups", "groups-with-items"] {
        assert_eq!(writes(shape, 8).await.1, 1, "{shape}");
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
