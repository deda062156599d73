//! Several connections with one key: limit and silence belong to the target's account. (`source_pace` has the source's.)
//!
//! The target answers in a reading without `X-RateLimit-*` headers: nothing but our own numbers keeps its limit.

use std::time::Duration;

use okki_sync::app::PipelineSource;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::Outcome;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{CodeReading, Options};
use tokio::time::Instant;

use crate::support::{Counted, World, qeasy, request};

const LIMIT: usize = 50;
/// What a call to the store takes on S3.
const STORE: Duration = Duration::from_millis(30);

/// A target with a limit of [`LIMIT`] calls, and a catalogue of so many batches of ten rows.
fn world(batches: usize) -> World {
    let options = Options {
        groups: 20,
        products: batches * 10,
        calls_per_minute: LIMIT as u32,
        codes: CodeReading::B,
        latency: Duration::from_millis(100),
        ..Options::default()
    };
    let target = format!("max_rows_per_batch = 10\nrequests_per_minute = {LIMIT}");
    // What they wait for is the target.
    World::new(options, qeasy("products", &target).replace("per_second = 5.0", "per_second = 100.0"))
}

/// A program of its own on the world's sandbox and this store.
fn process(world: &World, store: &Counted) -> World {
    world.again_on(store.store())
}

/// A connection of this name runs in this process.
async fn sync(process: &World, connection: &str) -> Outcome {
    let text = process.text.replace("\"it\"", &format!("\"{connection}\""));
    let from = PipelineSource::Text { name: format!("{connection}.toml"), text };
    process.app.run(from, &request(Mode::Sync), &|_| {}).await
}

async fn sync_well(process: &World, connection: &str) -> Outcome {
    let outcome = sync(process, connection).await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{connection}: {:?}", outcome.report);
    outcome
}

/// The target was never asked too often, and never while it wanted silence.
fn assert_inside_the_limit(world: &World) {
    let stats = world.sandbox.stats();
    assert_eq!((stats.lockouts, stats.calls_during_lockout), (0, 0));
    assert!(stats.max_target_calls_per_minute <= LIMIT, "{}", stats.max_target_calls_per_minute);
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_in_one_process_they_share_the_minute() {
    let (world, store) = (world(45), Counted::new(STORE));
    let process = process(&world, &store);
    for connection in ["a", "b", "c"] {
        sync_well(&process, connection).await;
    }
    assert_inside_the_limit(&world);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn side_by_side_in_one_process_they_share_the_minute() {
    let (world, store) = (world(45), Counted::new(STORE));
    let process = process(&world, &store);
    tokio::join!(sync_well(&process, "a"), sync_well(&process, "b"));
    assert_inside_the_limit(&world);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn side_by_side_in_two_processes_they_share_the_minute() {
    let (world, store) = (world(45), Counted::new(STORE));
    let (one, two) = (process(&world, &store), process(&world, &store));
    tokio::join!(sync_well(&one, "a"), sync_well(&two, "b"));
    assert_inside_the_limit(&world);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_in_processes_of_their_own_they_share_the_minute() {
    let (world, store) = (world(20), Counted::new(STORE));
    for connection in ["a", "b", "c", "a", "d"] {
        let process = process(&world, &store);
        sync_well(&process, connection).await;
        world.sandbox.edit(|catalogue| {
            catalogue.products.iter_mut().for_each(|product| product.name.push('x'));
        });
    }
    assert_inside_the_limit(&world);
}

#[tokio::test(start_paused = true)]
async fn of_five_that_need_more_than_the_minute_has_none_starves() {
    let (world, store) = (world(60), Counted::new(STORE));
    let processes: Vec<World> = (0..5).map(|_| process(&world, &store)).collect();
    let started = Instant::now();
    let runs = processes.iter().zip(["a", "b", "c", "d", "e"]);
    let runs = futures::future::join_all(runs.map(|(process, name)| sync_well(process, name)));
    let watched = async {
        // The first minute goes to reading the source, one after the other: the first one has the target to itself.
        tokio::time::sleep(Duration::from_secs(60)).await;
        for minute in 1.. {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let calls = processes[1..].iter().map(|process| process.target.seen().len());
            // Who has sent its sixty batches needs no more.
            let calls: Vec<usize> = calls.filter(|calls| *calls < 60).collect();
            let (least, most) = (calls.iter().min().unwrap_or(&60), calls.iter().max().unwrap_or(&60));
            assert!(*least >= 5 * minute, "minute {minute}: {calls:?}");
            assert!(most - least <= 30, "minute {minute}: {calls:?}");
        }
    };
    tokio::select! {
        _ = runs => {}
        () = watched => {}
    }
    assert_inside_the_limit(&world);
    // 305 calls, 50 of them at once.
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    assert!((5.0..8.0).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_small_one_that_comes_later_does_not_wait_for_a_large_one_to_end() {
    let (world, store) = (world(300), Counted::new(STORE));
    let (large, small) = (process(&world, &store), process(&world, &store));
    let small_text = small.text.replace("max_rows_per_batch = 10", "max_rows_per_batch = 1000");
    let small = World { text: small_text, ..small };
    let late = async {
        tokio::time::sleep(Duration::from_secs(150)).await;
        let started = Instant::now();
        sync_well(&small, "small").await;
        started.elapsed()
    };
    let (_, took) = tokio::join!(sync_well(&large, "large"), late);
    assert!(took < Duration::from_secs(70), "{took:?}");
    assert_inside_the_limit(&world);
}

/// A lockout that one connection met, with what the target says about it.
async fn locked_out(world: &World, process: &World, connection: &str) {
    world.fault(Endpoint::QeasyStore, FaultKind::Lockout, 1, 3);
    let report = sync(process, connection).await.report;
    assert_eq!((report.status, report.resume_after_seconds), (Status::Paused, Some(300)), "{report:?}");
}

async fn no_call_of(process: &World, connection: &str) {
    let report = sync(process, connection).await.report;
    assert_eq!(report.status, Status::Paused, "{connection}: {report:?}");
    assert!(report.resume_after_seconds.is_some_and(|wait| (1..=300).contains(&wait)), "{report:?}");
    assert_eq!(report.target.requests, 0, "not even a login");
}

#[tokio::test(start_paused = true)]
async fn a_lockout_of_one_is_known_to_all_before_their_next_call() {
    let (world, store) = (world(20), Counted::new(STORE));
    let (here, elsewhere) = (process(&world, &store), process(&world, &store));
    // Each has run before, and knows its account at an older version.
    for connection in ["a", "b", "c"] {
        sync_well(&here, connection).await;
        sync_well(&elsewhere, &format!("{connection}2")).await;
    }
    world.wind(120).await;
    world.sandbox.edit(|catalogue| {
        catalogue.products.iter_mut().for_each(|product| product.name.push('x'));
    });
    locked_out(&world, &here, "a").await;
    // Its own calls that were on the way when it struck.
    let refused = world.sandbox.stats().calls_during_lockout;
    no_call_of(&here, "b").await;
    no_call_of(&elsewhere, "a2").await;
    no_call_of(&process(&world, &store), "c").await;
    no_call_of(&process(&world, &store), "never-seen-before").await;
    world.wind(301).await;
    for connection in ["a", "b", "never-seen-before"] {
        sync_well(&elsewhere, connection).await;
    }
    let stats = world.sandbox.stats();
    assert_eq!((stats.lockouts, stats.calls_during_lockout), (0, refused));
}

#[tokio::test(start_paused = true)]
async fn a_lockout_that_version_0_1_0_met_holds_for_all_as_well() {
    let (world, store) = (world(20), Counted::new(STORE));
    let until_ms = world.clock.now_ms() + 200_000;
    let old = format!(
        r#"{{"format":"okki-sync run","version":1,"holder":null,"target_calls_ms":[],"target_blocked_until_ms":{until_ms}}}"#
    );
    store.store().put("state/old.run", old).await.unwrap();
    no_call_of(&process(&world, &store), "old").await;
    no_call_of(&process(&world, &store), "new").await;
    world.wind(201).await;
    sync_well(&process(&world, &store), "new").await;
    assert_inside_the_limit(&world);
}

#[tokio::test(start_paused = true)]
async fn a_lockout_that_comes_while_another_one_writes_stops_that_one_too() {
    let (world, store) = (world(100), Counted::new(STORE));
    let (one, two) = (process(&world, &store), process(&world, &store));
    let met = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        world.fault(Endpoint::QeasyStore, FaultKind::Lockout, 1, 0);
    };
    let (a, b, ()) = tokio::join!(sync(&one, "a"), sync(&two, "b"), met);
    assert_eq!((a.report.status, b.report.status), (Status::Paused, Status::Paused));
    // On the way when it struck: at most four calls each.
    let knocks = world.sandbox.stats().calls_during_lockout;
    assert!(knocks <= 7, "{knocks}");
    for _ in 0..3 {
        no_call_of(&one, "b").await;
        no_call_of(&process(&world, &store), "c").await;
    }
    assert_eq!(world.sandbox.stats().calls_during_lockout, knocks);
}

#[tokio::test(start_paused = true)]
async fn a_killed_run_s_calls_count_for_the_others() {
    let (world, store) = (world(45), Counted::new(STORE));
    let first = process(&world, &store);
    let killed = async {
        while world.calls(Endpoint::QeasyStore) < 30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        outcome = sync(&first, "a") => panic!("it came to its end: {:?}", outcome.report),
        () = killed => {}
    }
    let next = process(&world, &store);
    sync_well(&next, "b").await;
    assert_inside_the_limit(&world);
}

#[tokio::test(start_paused = true)]
async fn a_connection_alone_pays_no_more_calls_to_the_store_than_its_lease_did() {
    let (world, store) = (world(5), Counted::new(STORE));
    let mut pace = None;
    let mut of_limits = |calls: Vec<String>| -> Vec<String> {
        // The first one that a run needs is that of the source.
        let first = || calls.iter().find_map(|call| Some(call.split_once("limits/")?.1.to_owned()));
        let pace = pace.get_or_insert_with(|| first().unwrap()).clone();
        let of_limits = |call: &String| call.contains(".run") || call.contains("limits/");
        let calls = calls.into_iter().filter(|call| of_limits(call) && !call.contains(&pace));
        calls.map(|call| if call.contains("limits/") { call[..10].to_owned() } else { call }).collect()
    };
    let alone = ["GET state/a.run", "PUT state/a.run", "PUT limits", "PUT state/a.run"];
    for run in 0..5 {
        // A new process, as a Lambda function that was cold; then the same once more.
        let process = process(&world, &store);
        for warm in [false, true] {
            store.take_calls();
            sync_well(&process, "a").await;
            assert_eq!(of_limits(store.take_calls()), alone, "run {run}, warm {warm}");
            world.wind(90).await;
            // Nothing to do.
            sync_well(&process, "a").await;
            let idle = ["GET state/a.run", "PUT state/a.run", "PUT state/a.run"];
            assert_eq!(of_limits(store.take_calls()), idle, "run {run}, warm {warm}");
            world.sandbox.edit(|catalogue| {
                catalogue.products.iter_mut().for_each(|product| product.name.push('x'));
            });
            world.wind(1_000).await;
        }
    }
    assert_inside_the_limit(&world);
}
