//! How fresh the connections of a store are: what a fleet asks for its summary.

use std::time::Duration;

use okki_sync::app::{App, PipelineSource, Wires};
use okki_sync::handler::{self, Answer};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::store::Store;
use okki_sync_sandbox::Sandbox;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};

use crate::support::{World, env, qeasy, request, small, wall};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(start_paused = true)]
async fn a_connection_ages_from_its_last_completed_run_whatever_others_do() {
    let clock = Clock::pinned();
    let known = env().with("OKKI_SYNC_HOSTS", "127.0.0.1:1");
    let world = World::of(Sandbox::new(small(), wall(clock)), None, known, qeasy("groups", ""), clock);
    let store = world.app.store().await.unwrap();
    for name in ["it", "other"] {
        let text = world.text.replace("\"it\"", &format!("\"{name}\""));
        store.put(&format!("pipelines/{name}.toml"), text).await.unwrap();
    }
    store.put("pipelines/README.md", "what stands here").await.unwrap();
    let run = async |name: &str| {
        let from = PipelineSource::Connection(name.to_owned());
        world.app.run(from, &request(Mode::Sync), &|_| {}).await
    };
    assert_eq!(run("it").await.report.status, Status::Succeeded);
    assert_eq!(run("other").await.report.status, Status::Succeeded);
    tokio::time::advance(HOUR).await;
    assert_eq!(run("other").await.report.status, Status::Succeeded);
    let found = world.app.freshness().await.unwrap();
    assert_eq!((found.connections, found.stale, found.oldest_connection.as_deref()), (2, 0, Some("it")));
    assert!((3_600..3_700).contains(&found.oldest_age_seconds.unwrap()), "{found:?}");
    // A run that pauses completes nothing.
    tokio::time::advance(HOUR + HOUR / 2).await;
    let kind = FaultKind::Throttle { retry_after_seconds: Some(3_000) };
    world.fault(Endpoint::OkkiGroups, kind, 1, 0);
    assert_eq!(run("it").await.report.status, Status::Paused);
    let found = world.app.freshness().await.unwrap();
    assert_eq!((found.stale_after_seconds, found.stale_connections), (7_200, vec!["it".to_owned()]));
    tokio::time::advance(HOUR).await;
    run("it").await;
    let found = world.app.freshness().await.unwrap();
    assert_eq!((found.oldest_connection.as_deref(), found.stale_connections.len()), (Some("other"), 1));
}

#[tokio::test]
async fn one_that_never_completed_counts_from_when_its_pipeline_was_saved() {
    let store = Store::memory();
    store.put("pipelines/broken.toml", "connection = 5").await.unwrap();
    store.put("state/broken.run", "damaged").await.unwrap();
    let wires = Wires { store: Some(store), ..Wires::default() };
    let app = App::with_wires(env().with("OKKI_SYNC_STALE_AFTER", "1m"), wires, Clock::system());
    let event = serde_json::json!({ "mode": "freshness" });
    let event = lambda_runtime::LambdaEvent::new(event, lambda_runtime::Context::default());
    let Ok(Answer::Freshness(found)) = handler::handle(&app, event).await else { panic!("no answer") };
    assert_eq!((found.connections, found.stale, found.stale_after_seconds), (1, 0, 60));
    assert!(found.oldest_age_seconds.unwrap() < 60, "{found:?}");
}
