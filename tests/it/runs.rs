//! Runs beside and after each other: locks, states that are not ours to read, deadlines and stops.

use std::time::Duration;

use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Progress, RunRequest};
use okki_sync_sandbox::Options;
use tokio::time::Instant;

use crate::support::{World, env, qeasy, request, small};

fn slow() -> Options {
    Options { latency: Duration::from_millis(200), ..small() }
}

/// A world on a directory, which other apps can share.
fn on_directory(options: Options, text: &str, directory: &tempfile::TempDir) -> World {
    World::new(options, text)
        .again(env().with("OKKI_SYNC_STORE", &format!("file://{}", directory.path().display())))
}

fn another(world: &World, directory: &tempfile::TempDir) -> World {
    world.again(env().with("OKKI_SYNC_STORE", &format!("file://{}", directory.path().display())))
}

#[tokio::test(start_paused = true)]
async fn of_two_programs_on_one_directory_the_second_hears_that_one_is_busy() {
    let directory = tempfile::tempdir().unwrap();
    let one = on_directory(slow(), &qeasy("groups-with-items", ""), &directory);
    let two = another(&one, &directory);
    let (first, second) = tokio::join!(one.sync(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        two.sync().await
    });
    assert_eq!(first.report.status, Status::Succeeded, "{:?}", first.report);
    let error = second.error.unwrap();
    assert_eq!(
        (error.kind, error.kind.exit_code(), second.report.status),
        (ErrorKind::Busy, 1, Status::Failed)
    );
    assert!(error.to_string().contains("\"it\""), "{error}");
    assert_eq!((second.report.source.requests, second.report.target.requests), (0, 0));
    assert_eq!(one.sandbox.stats().rows_written, 40);
    one.assert_complete();
    let third = two.sync_well().await;
    assert_eq!(third.report.plan.unchanged, 40);
}

#[tokio::test(start_paused = true)]
async fn a_plan_may_look_while_a_sync_is_going_on() {
    let directory = tempfile::tempdir().unwrap();
    let one = on_directory(slow(), &qeasy("groups-with-items", ""), &directory);
    let two = another(&one, &directory);
    let (first, second) = tokio::join!(one.sync(), two.plan());
    assert_eq!((first.report.status, second.report.status), (Status::Succeeded, Status::Succeeded));
}

async fn refuses(text: String, word: &str) {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    world.sandbox.simulate_edits();
    let calls = world.target_calls();
    world.app.store().await.unwrap().put("state/it.state", text.clone()).await.unwrap();
    for mode in [Mode::Sync, Mode::Plan, Mode::Verify] {
        let outcome = world.run(&request(mode), |_| {}).await;
        let error = outcome.error.unwrap();
        assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::BadState, 1));
        assert_eq!(outcome.report.status, Status::Failed);
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(world.target_calls(), calls);
    assert_eq!(world.state().await.unwrap(), text);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_state_is_refused_and_left_as_it_is() {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    let state = world.state().await.unwrap();
    refuses(state[..state.len() - 20].to_owned(), "damaged").await;
    refuses(state.replacen('5', "6", 1), "damaged").await;
    refuses(String::new(), "damaged").await;
    refuses("{\"rows\":{}}\n".to_owned(), "damaged").await;
}

#[tokio::test(start_paused = true)]
async fn a_state_of_a_newer_version_is_refused_and_left_as_it_is() {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    let state = world.state().await.unwrap();
    assert!(state.contains("\"version\":3"));
    refuses(state.replacen("\"version\":3", "\"version\":6", 1), "version 6").await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_somebody_else_saved_meanwhile_is_not_overwritten() {
    let world = World::new(small(), qeasy("groups", "max_rows_per_batch = 10"));
    world.sync_well().await;
    let theirs = world.state().await.unwrap();
    world.sandbox.simulate_edits();
    let store = world.app.store().await.unwrap().clone();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
    world.sandbox.set_options(|options| options.latency = Duration::from_secs(1));
    let meddler = async {
        receiver.await.unwrap();
        store.put("state/it.state", theirs.clone()).await.unwrap();
    };
    let told = move |progress| {
        if let (Progress::Planned(_), Some(sender)) = (progress, sender.lock().unwrap().take()) {
            let _ = sender.send(());
        }
    };
    let request = request(Mode::Sync);
    let (outcome, ()) = tokio::join!(world.run(&request, told), meddler);
    let error = outcome.error.unwrap();
    assert_eq!((error.kind, outcome.report.status), (ErrorKind::StateConflict, Status::Failed));
    assert_eq!(world.state().await.unwrap(), theirs);
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_pauses_the_run_and_the_next_one_finishes() {
    for latency in [0, 1, 2, 7] {
        let options = Options { latency: Duration::from_secs(latency), groups: 40, products: 400, ..small() };
        let world = World::new(options, qeasy("products", "max_rows_per_batch = 5"));
        let mut pauses = 0;
        loop {
            // Before the first window some twenty questions go out one after the other.
            let reading = Duration::from_secs(20 + 30 * latency);
            let request = RunRequest {
                deadline: Some(Instant::now() + reading + Duration::from_secs(25)),
                ..request(Mode::Sync)
            };
            let deadline = request.deadline.unwrap();
            let outcome = world.run(&request, |_| {}).await;
            assert!(Instant::now() <= deadline, "{latency}");
            if outcome.report.status == Status::Succeeded {
                break;
            }
            assert_eq!(outcome.report.status, Status::Paused, "latency {latency}: {:?}", outcome.report);
            let report = &outcome.report;
            let planned = report.plan.create + report.plan.update;
            // Before the read is complete: the products that are not read.
            let unread = if planned == 0 { 400 - report.source.products } else { 0 };
            assert_eq!(report.remaining, (planned - report.target.written).max(unread).max(1));
            pauses += 1;
            assert!(pauses < 50, "no progress");
            world.wind(report.resume_after_seconds.unwrap_or(0)).await;
        }
        assert!(pauses > 0, "latency {latency}: the deadline was never met");
        world.assert_complete();
        let written = world.sandbox.stats().rows_written;
        assert!(written <= 400 + 5 * pauses, "{written} rows for 400 in {pauses} pauses");
        assert_eq!(world.sandbox.stats().lockouts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_reading_pauses_the_run_with_nothing_written() {
    let world = World::new(Options { latency: Duration::from_secs(3), ..small() }, qeasy("products", ""));
    let request =
        RunRequest { deadline: Some(Instant::now() + Duration::from_secs(10)), ..request(Mode::Sync) };
    let outcome = world.run(&request, |_| {}).await;
    assert_eq!(outcome.report.status, Status::Paused, "{:?}", outcome.report);
    assert!(outcome.report.remaining > 0);
    assert_eq!(world.target_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_pauses_the_run_and_the_next_one_sends_no_row_again() {
    let directory = tempfile::tempdir().unwrap();
    let world =
        on_directory(slow(), &qeasy("products", "max_rows_per_batch = 20\nmax_concurrency = 1"), &directory);
    let app = std::sync::Arc::clone(&world.app);
    let outcome = world
        .run(&request(Mode::Sync), move |progress| {
            if matches!(progress, Progress::Writing { acknowledged: 100, .. }) {
                app.stop();
            }
        })
        .await;
    assert_eq!(
        (outcome.report.status, outcome.error.unwrap().kind),
        (Status::Paused, ErrorKind::Interrupted)
    );
    assert_eq!((outcome.report.target.written, outcome.report.remaining), (100, 200));
    assert_eq!(world.rows().len(), 100);
    let next = another(&world, &directory);
    let outcome = next.sync_well().await;
    assert_eq!((outcome.report.plan.unchanged, outcome.report.target.written), (100, 200));
    assert_eq!(world.sandbox.stats().rows_written, 300);
    next.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_new_program_remembers_the_calls_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let text = qeasy("products", "max_rows_per_batch = 7");
    let world = on_directory(small(), &text, &directory);
    world.sync_well().await;
    for _ in 0..4 {
        world
            .sandbox
            .edit(|catalogue| catalogue.products.iter_mut().for_each(|product| product.name.push('!')));
        another(&world, &directory).sync_well().await;
    }
    let stats = world.sandbox.stats();
    assert_eq!(stats.lockouts, 0);
    assert!(stats.max_target_calls_per_minute <= 60);
    world.assert_complete();
}
