//! Several processes with one OKKI app: together they keep the pace of one.

use std::time::Duration;

use futures::future::join_all;
use okki_sync::app::PipelineSource;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::Outcome;
use okki_sync_sandbox::Options;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use tokio::time::Instant;

use crate::support::{Counted, Seen, World, qeasy, request};

/// What a call to the store takes on S3.
const STORE: Duration = Duration::from_millis(30);
/// At five calls a second.
const INTERVAL: Duration = Duration::from_millis(200);

fn world(products: usize) -> World {
    let options = Options { groups: 20, products, latency: Duration::from_millis(100), ..Options::default() };
    World::new(options, qeasy("products", "requests_per_minute = 1000"))
}

/// So many programs of their own on one store.
fn processes<const N: usize>(world: &World, store: &Counted) -> [World; N] {
    std::array::from_fn(|_| world.again_on(store.store()))
}

/// A connection of this name runs in this process.
async fn run(process: &World, connection: &str, mode: Mode) -> Outcome {
    let text = process.text.replace("\"it\"", &format!("\"{connection}\""));
    let from = PipelineSource::Text { name: format!("{connection}.toml"), text };
    process.app.run(from, &request(mode), &|_| {}).await
}

async fn well(process: &World, connection: &str, mode: Mode) -> Outcome {
    let outcome = run(process, connection, mode).await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{connection}: {:?}", outcome.report);
    outcome
}

async fn sync_well(process: &World, connection: &str) -> Outcome {
    well(process, connection, Mode::Sync).await
}

/// The source's calls of all processes, in order of time.
fn calls(processes: &[World]) -> Vec<Seen> {
    let mut calls: Vec<Seen> = processes.iter().flat_map(|process| process.source.seen()).collect();
    calls.sort_by_key(|seen| seen.at);
    calls
}

/// No two calls came closer to each other than the pace allows.
fn assert_in_step(processes: &[World]) {
    for two in calls(processes).windows(2) {
        let apart = two[1].at - two[0].at;
        assert!(apart + Duration::from_millis(1) >= INTERVAL, "{apart:?} between {two:?}");
    }
}

/// The calls to the store that are of the source's pace.
fn of_pace(calls: Vec<String>, pace: &str) -> Vec<String> {
    calls.into_iter().filter(|call| call.contains(pace)).map(|call| call[..3].to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn side_by_side_two_processes_keep_the_pace_of_one() {
    let (world, store) = (world(2_000), Counted::new(STORE));
    let both: [World; 2] = processes(&world, &store);
    tokio::join!(sync_well(&both[0], "a"), sync_well(&both[1], "b"));
    assert_in_step(&both);
    let calls = calls(&both);
    let took = calls[calls.len() - 1].at - calls[0].at;
    // Next to nothing of the pace is lost between the stretches.
    let most = INTERVAL.mul_f64(calls.len() as f64 * 1.1);
    assert!(calls.len() > 80 && took <= most, "{} calls in {took:?}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_processes_keep_the_pace_of_one() {
    let (world, store) = (world(300), Counted::new(STORE));
    let all: [World; 4] = processes(&world, &store);
    for (process, connection) in all.iter().zip(["a", "b", "a", "a"]) {
        sync_well(process, connection).await;
    }
    assert_in_step(&all);
}

#[tokio::test(start_paused = true)]
async fn of_five_processes_none_starves_and_all_keep_the_pace_of_one() {
    let (world, store) = (world(3_000), Counted::new(STORE));
    let all: [World; 5] = processes(&world, &store);
    let runs =
        join_all(all.iter().zip(["a", "b", "c", "d", "e"]).map(|(process, name)| sync_well(process, name)));
    let watched = async {
        for seconds in (10..=50).step_by(10) {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let calls: Vec<usize> = all.iter().map(|process| process.source.seen().len()).collect();
            let (least, most) = (calls.iter().min().unwrap(), calls.iter().max().unwrap());
            // Each has one call a second of the five; the first one had two seconds for itself.
            assert!(*least + 8 >= seconds && most - least <= 10, "after {seconds} s: {calls:?}");
        }
    };
    tokio::join!(runs, watched);
    assert_in_step(&all);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_of_twenty_that_begins_at_once_takes_turns_of_a_second() {
    let (world, store) = (world(100), Counted::new(STORE));
    let all: [World; 20] = processes(&world, &store);
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let warm: [World; 1] = processes(&world, &store);
    for name in &names {
        sync_well(&warm[0], name).await;
    }
    world.wind(3_600).await;
    store.take_calls();
    let started = Instant::now();
    join_all(all.iter().zip(&names).map(|(process, name)| sync_well(process, name))).await;
    assert_in_step(&all);
    // Four calls each with the login, which fit into a second.
    let (took, calls) = (started.elapsed().as_secs(), calls(&all).len());
    assert!(calls == 80 && took <= 25, "{calls} calls in {took} s");
    let of_pace = store.take_calls().into_iter().filter(|call| call.contains("limits/")).count();
    assert!(of_pace <= 20 * 40, "{of_pace} calls to the store");
}

#[tokio::test(start_paused = true)]
async fn a_small_run_does_not_wait_for_a_long_read_to_end() {
    let (world, store) = (world(10_000), Counted::new(STORE));
    let both: [World; 2] = processes(&world, &store);
    sync_well(&both[1], "small").await;
    let late = async {
        tokio::time::sleep(Duration::from_secs(15)).await;
        let started = Instant::now();
        sync_well(&both[1], "small").await;
        started.elapsed()
    };
    let (_, took) = tokio::join!(sync_well(&both[0], "large"), late);
    // Ten seconds are the longest stretch of one who is alone.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_in_step(&both);
}

#[tokio::test(start_paused = true)]
async fn a_plan_beside_a_sync_shares_its_pace_and_lets_go_at_its_end() {
    let (world, store) = (world(1_000), Counted::new(STORE));
    let both: [World; 2] = processes(&world, &store);
    tokio::join!(sync_well(&both[0], "a"), well(&both[1], "a", Mode::Plan));
    assert_in_step(&both);
    world.wind(3_600).await;
    let [plan, sync]: [World; 2] = processes(&world, &store);
    well(&plan, "a", Mode::Plan).await;
    let started = Instant::now();
    sync_well(&sync, "a").await;
    let first = sync.source.seen()[0].at - started;
    assert!(first < Duration::from_millis(500), "{first:?}");
    assert_in_step(&[plan, sync]);
}

#[tokio::test(start_paused = true)]
async fn on_a_directory_two_programs_share_the_pace_too() {
    let directory = tempfile::tempdir().unwrap();
    let world = world(300);
    let store = || okki_sync::testing::store::Store::directory(directory.path().to_owned()).unwrap();
    let both = [world.again_on(store()), world.again_on(store())];
    tokio::join!(sync_well(&both[0], "a"), sync_well(&both[1], "b"));
    assert_in_step(&both);
}

#[tokio::test(start_paused = true)]
async fn a_killed_process_costs_the_others_its_stretch_and_no_more() {
    let (world, store) = (world(2_000), Counted::new(STORE));
    let both: [World; 2] = processes(&world, &store);
    let killed = tokio::time::timeout(Duration::from_millis(6_500), sync_well(&both[0], "a")).await;
    assert!(killed.is_err());
    let started = Instant::now();
    sync_well(&both[1], "b").await;
    let first = both[1].source.seen()[0].at - started;
    assert!(first < Duration::from_secs(10), "{first:?}");
    assert_in_step(&both);
}

#[tokio::test(start_paused = true)]
async fn a_silence_that_one_process_met_is_known_to_the_others_at_once() {
    let (world, store) = (world(2_000), Counted::new(STORE));
    let both: [World; 2] = processes(&world, &store);
    let met = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        world.fault(Endpoint::OkkiProducts, FaultKind::Throttle { retry_after_seconds: Some(20) }, 1, 0);
    };
    let (one, two, ()) = tokio::join!(sync_well(&both[0], "a"), sync_well(&both[1], "b"), met);
    assert_eq!(one.report.source.throttled + two.report.source.throttled, 1);
    let calls = calls(&both);
    let gaps: Vec<Duration> = calls.windows(2).map(|two| two[1].at - two[0].at).collect();
    let longest = gaps.iter().max().unwrap();
    assert!((Duration::from_millis(18_500)..Duration::from_secs(25)).contains(longest), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lockout_of_the_app_stops_every_process_before_its_next_call() {
    let (world, store) = (world(300), Counted::new(STORE));
    let all: [World; 4] = processes(&world, &store);
    for (process, connection) in all.iter().zip(["a", "b"]) {
        sync_well(process, connection).await;
    }
    world.wind(600).await;
    world.fault(Endpoint::OkkiProducts, FaultKind::Lockout, 1, 0);
    let first = run(&all[0], "a", Mode::Sync).await.report;
    assert_eq!((first.status, first.resume_after_seconds), (Status::Paused, Some(300)));
    for (process, connection) in all.iter().zip(["a", "b", "a", "c"]) {
        let report = run(process, connection, Mode::Sync).await.report;
        assert_eq!((report.status, report.source.requests), (Status::Paused, 0), "{connection}: {report:?}");
        assert!(report.resume_after_seconds.is_some_and(|wait| (1..=300).contains(&wait)), "{report:?}");
    }
    world.wind(301).await;
    for (process, connection) in all.iter().zip(["a", "b", "a", "c"]) {
        sync_well(process, connection).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_alone_pays_a_read_and_a_write_more_at_most() {
    let (world, store) = (world(300), Counted::new(STORE));
    let pace = {
        let [process]: [World; 1] = processes(&world, &store);
        well(&process, "a", Mode::Plan).await;
        let first =
            store.take_calls().into_iter().find_map(|call| Some(call.split_once("limits/")?.1.to_owned()));
        first.unwrap()
    };
    let [process]: [World; 1] = processes(&world, &store);
    world.wind(600).await;
    sync_well(&process, "a").await;
    for (warm, expected) in [(true, &["PUT"][..]), (false, &["GET", "PUT"])] {
        let [cold]: [World; 1] = processes(&world, &store);
        let process = if warm { &process } else { &cold };
        world.wind(600).await;
        store.take_calls();
        let report = sync_well(process, "a").await.report;
        assert_eq!(report.target.written, 0);
        assert_eq!(of_pace(store.take_calls(), &pace), expected, "warm {warm}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_read_alone_saves_its_stretch_every_ten_seconds() {
    let (world, store) = (world(20_000), Counted::new(STORE));
    let [process]: [World; 1] = processes(&world, &store);
    let started = Instant::now();
    well(&process, "a", Mode::Plan).await;
    let took = started.elapsed().as_secs();
    let calls = store.take_calls();
    let pace = calls.iter().find_map(|call| Some(call.split_once("limits/")?.1.to_owned())).unwrap();
    let calls = of_pace(calls, &pace);
    // One look; 2, 4 and 8 s; what is left is given back.
    let most = 1 + 3 + (took - 14).div_ceil(10) + 1;
    assert!(took > 40 && calls.len() as u64 <= most, "{took} s: {calls:?}");
    assert_in_step(&[process]);
}

#[tokio::test(start_paused = true)]
async fn calls_to_the_source_share_one_pace_in_a_process() {
    let world = world(2_000);
    tokio::join!(sync_well(&world, "a"), sync_well(&world, "b"));
    assert!(world.source.seen().len() > 40);
    assert_in_step(&[world]);
}
