//! Pipelines that were found in the store: the hosts that they may name, and the connection that they belong to.

use okki_sync::app::{Judge, PipelineSource};
use okki_sync::testing::config::Env;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::Outcome;

use crate::support::{World, env, qeasy, request, small};

/// No variable overrides the pipeline's addresses.
fn no_overrides() -> Env {
    env().with("OKKI_BASE_URL", "").with("TARGET_BASE_URL", "")
}

fn filed() -> PipelineSource {
    PipelineSource::Connection("it".to_owned())
}

fn key(name: &str) -> PipelineSource {
    PipelineSource::File(name.to_owned())
}

async fn put(world: &World, name: &str, text: &str) {
    world.app.store().await.unwrap().put(name, text.as_bytes().to_vec()).await.unwrap();
}

async fn run(world: &World, from: PipelineSource) -> Outcome {
    world.app.run(from, &request(Mode::Sync), &|_| {}).await
}

#[tokio::test(start_paused = true)]
async fn a_stored_pipeline_cannot_send_the_credentials_elsewhere() {
    let world = World::new(small(), "").again(no_overrides());
    for (source, target) in [
        ("https://mine.example", "https://api.qeasy.cloud"),
        ("https://api-sandbox.xiaoman.cn", "https://mine.example"),
        ("http://127.0.0.1:9001", "https://api.qeasy.cloud"),
        ("file:///proc/self/environ", "https://api.qeasy.cloud"),
    ] {
        let text = qeasy("groups", &format!("base_url = \"{target}\""))
            .replace("[source]", &format!("[source]\nbase_url = \"{source}\""));
        put(&world, "pipelines/it.toml", &text).await;
        for from in [filed(), key("pipelines/it.toml")] {
            let outcome = run(&world, from.clone()).await;
            let error = outcome.error.unwrap().line();
            assert!(error.starts_with("BadPipeline: pipelines/it.toml:"), "{error}");
            assert!(error.contains("base_url: ") && error.contains("OKKI_SYNC_HOSTS"), "{error}");
            assert_eq!(world.app.check(from, Judge::AsFound).await.mistakes.len(), 1);
        }
    }
    assert!(world.source.seen().is_empty() && world.target.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_listed_and_a_variable_are_trusted() {
    let text = qeasy("groups", "base_url = \"http://127.0.0.1:2\"")
        .replace("[source]", "[source]\nbase_url = \"http://127.0.0.1:1\"");
    let listed = no_overrides().with("OKKI_SYNC_HOSTS", "127.0.0.1:1, 127.0.0.1:2");
    for env in [listed, env()] {
        let world = World::new(small(), "").again(env);
        put(&world, "pipelines/it.toml", &text).await;
        let report = run(&world, filed()).await.report;
        assert_eq!(report.status, Status::Succeeded, "{:?}", report.error);
    }
}

#[tokio::test]
async fn a_check_judges_a_local_pipeline_as_if_it_were_stored() {
    let world = World::new(small(), "").again(no_overrides());
    let text = qeasy("groups", "base_url = \"https://mine.example\"");
    let from = PipelineSource::Text { name: "t.toml".to_owned(), text };
    assert_eq!(world.app.check(from.clone(), Judge::AsFound).await.mistakes, Vec::new());
    let mistakes = world.app.check(from, Judge::AsStored).await.mistakes;
    assert_eq!(mistakes.len(), 1);
    assert!(mistakes[0].1.place.ends_with(" target.base_url"), "{mistakes:?}");
}

#[tokio::test]
async fn an_error_about_a_source_file_shows_nothing_of_its_content() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("environ");
    let world = World::new(small(), "").again(no_overrides());
    for content in ["SECRET=hunter2", r#"{"code": 500, "message": "hunter2"}"#, r#"{"hunter2": 1}"#] {
        std::fs::write(&file, content).unwrap();
        let text = qeasy("groups", "")
            .replace("[source]", &format!("[source]\nbase_url = \"file://{}\"", file.display()));
        let outcome = run(&world, PipelineSource::Text { name: "t.toml".to_owned(), text }).await;
        let error = outcome.error.unwrap().line();
        assert!(error.starts_with("SourceBadAnswer: source file file:///"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// The function's own pipeline is warmed by its key, and an event names its connection: both mean one state.
#[tokio::test(start_paused = true)]
async fn a_stored_pipeline_has_one_name_however_it_is_called_and_when() {
    let unnamed = qeasy("groups", "").replace("connection = \"it\"\n", "");
    let misfiled = qeasy("groups", "");
    for warm in [false, true] {
        let world = World::new(small(), "");
        put(&world, "pipelines/acme.toml", &unnamed).await;
        put(&world, "pipelines/other.toml", &misfiled).await;
        if warm {
            assert_eq!(run(&world, key("pipelines/acme.toml")).await.report.connection, "acme");
            run(&world, key("pipelines/other.toml")).await;
        }
        let named = run(&world, PipelineSource::Connection("acme".to_owned())).await.report;
        assert_eq!((named.connection.as_str(), named.plan.create == 0), ("acme", warm));
        let refused = run(&world, PipelineSource::Connection("other".to_owned())).await.error.unwrap().line();
        assert!(refused.contains("is filed under \"other\""), "{refused}");
        assert!(world.stored("state/default.state").await.is_none() && world.state().await.is_none());
    }
}
