//! A target that takes more than one run to read back: `verify` and `state rebuild` go on where the last run ended.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use okki_sync::app::PipelineSource;
use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Extras, Outcome, RunRequest};
use okki_sync_sandbox::Options;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::{World, pipeline, qeasy, small};

const CHECKPOINT: &str = "cache/it.read-back";
/// A run of 40 s reads six pages.
const ROWS: u64 = 2_000;
const PAGES: u64 = ROWS / 100;

/// A target of twenty pages that may be called six times a minute, synced.
async fn synced() -> World {
    let options = Options { groups: 20, products: ROWS as usize, ..Options::default() };
    let world = World::new(options, qeasy("products", "requests_per_minute = 6"));
    world.sync_well().await;
    world.wind(120).await;
    world
}

fn from(world: &World) -> PipelineSource {
    PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() }
}

async fn verify_for(world: &World, seconds: u64) -> Outcome {
    let deadline = Some(Instant::now() + Duration::from_secs(seconds));
    world.run(&RunRequest { deadline, ..RunRequest::new(Mode::Verify) }, |_| {}).await
}

/// Verifies in runs of 40 s until one does not pause, and returns what remained after each.
async fn verify_on(world: &World) -> (Outcome, Vec<u64>) {
    let mut remaining = Vec::new();
    loop {
        let outcome = verify_for(world, 40).await;
        if outcome.report.status != Status::Paused {
            return (outcome, remaining);
        }
        let resume_after = outcome.report.resume_after_seconds.unwrap();
        assert!((1..=60).contains(&resume_after), "{:?}", outcome.report);
        world.wind(resume_after).await;
        remaining.push(outcome.report.remaining);
        assert!(remaining.len() < 20, "{remaining:?}");
    }
}

/// How often each page was asked for since call `first`.
fn pages_asked(world: &World, first: usize) -> BTreeMap<u64, usize> {
    let mut pages = BTreeMap::new();
    for body in world.target.bodies("/query").iter().skip(first) {
        let asked: serde_json::Value = serde_json::from_str(body).unwrap();
        if asked.as_object().unwrap().len() == 2 {
            *pages.entry(asked["page"].as_u64().unwrap()).or_default() += 1;
        }
    }
    pages
}

fn asked_by_id(world: &World) -> usize {
    world.target.bodies("/query").iter().filter(|body| body.contains("$in")).count()
}

fn each_page_once() -> BTreeMap<u64, usize> {
    (1..=PAGES).map(|page| (page, 1)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_target_larger_than_a_run_is_verified_in_several() {
    let world = synced().await;
    let (outcome, remaining) = verify_on(&world).await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    assert_eq!((outcome.report.plan.unchanged, outcome.report.remaining), (ROWS, 0));
    assert!(remaining.len() >= 2, "{remaining:?}");
    assert!(remaining.windows(2).all(|two| two[1] < two[0]), "{remaining:?}");
    assert!(remaining.iter().all(|left| (1..ROWS).contains(left) && left % 100 == 0), "{remaining:?}");
    assert_eq!(pages_asked(&world, 0), each_page_once());
    assert_eq!(asked_by_id(&world), 0);
    assert_eq!(world.stored(CHECKPOINT).await.as_deref(), Some(""), "the next one begins anew");
}

#[tokio::test(start_paused = true)]
async fn a_verification_says_how_much_of_the_target_is_not_read_yet() {
    let world = synced().await;
    let outcome = verify_for(&world, 70).await;
    let left = outcome.report.remaining;
    let error = outcome.error.unwrap();
    assert_eq!(error.kind, ErrorKind::Throttled(Side::Target), "its calls of the minute are used up");
    assert!(
        error.message.ends_with(&format!("; rows of the target that are not read yet: {left}")),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_killed_verification_goes_on_from_its_last_checkpoint() {
    let world = synced().await;
    // What was read in the first two minutes is kept.
    let killed = tokio::time::timeout(Duration::from_secs(150), world.verify()).await;
    assert!(killed.is_err());
    let read = pages_asked(&world, 0).len();
    let calls = world.target.bodies("/query").len();
    // The dead run's lease.
    world.wind(120).await;
    let (outcome, _) = verify_on(&world).await;
    assert_eq!(outcome.report.plan.unchanged, ROWS, "{:?}", outcome.report);
    let again = pages_asked(&world, calls);
    assert!(read >= 10 && again.len() < PAGES as usize, "read {read}, then {again:?}");
    assert!(again.values().all(|times| *times == 1), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_used_is_set_aside_and_all_is_read_anew() {
    for spoil in ["damaged", "another version", "another target", "a day old"] {
        let world = synced().await;
        assert_eq!(verify_for(&world, 70).await.report.status, Status::Paused);
        let store = world.app.store().await.unwrap();
        let (bytes, _) = store.load(CHECKPOINT).await.unwrap().unwrap();
        let mut bytes = bytes.to_vec();
        let replaced = |bytes: &[u8], old: &str, new: &str| {
            let (line, body) = bytes.split_at(bytes.iter().position(|byte| *byte == b'\n').unwrap());
            let line = std::str::from_utf8(line).unwrap();
            assert!(line.contains(old), "{line}");
            [line.replace(old, new).as_bytes(), body].concat()
        };
        match spoil {
            "damaged" => *bytes.last_mut().unwrap() ^= 1,
            "another version" => bytes = replaced(&bytes, "\"version\":1", "\"version\":2"),
            "another target" => bytes = replaced(&bytes, "\"target\":\"qeasy ", "\"target\":\"other "),
            _ => world.wind(24 * 3600).await,
        }
        store.put(CHECKPOINT, bytes).await.unwrap();
        let calls = world.target.bodies("/query").len();
        let (outcome, _) = verify_on(&world).await;
        assert_eq!(outcome.report.plan.unchanged, ROWS, "{spoil}: {:?}", outcome.report);
        assert_eq!(pages_asked(&world, calls), each_page_once(), "{spoil}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_sync_wrote_meanwhile_is_not_called_different() {
    let world = synced().await;
    assert_eq!(verify_for(&world, 70).await.report.status, Status::Paused);
    // Of the rows that were read: one changes, one goes. And one comes.
    let rows = world.rows();
    let [changed, gone] = [0, 1].map(|at| rows.get_index(at).unwrap().0.clone());
    world.sandbox.edit(|catalogue| {
        catalogue.products.iter_mut().find(|p| p.product_id == changed).unwrap().name.push('!');
        catalogue.products.retain(|product| product.product_id != gone);
        let mut product = catalogue.products[2].clone();
        product.product_id = "99999999999".to_owned();
        catalogue.products.push(product);
    });
    world.wind(60).await;
    let report = world.sync_well().await.report;
    assert_eq!((report.target.written, report.target.deleted), (2, 1));
    world.wind(60).await;
    let (outcome, _) = verify_on(&world).await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    assert_eq!((outcome.report.plan.unchanged, asked_by_id(&world)), (ROWS, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_taken_back_is_not_the_same_because_it_once_was() {
    let world = synced().await;
    assert_eq!(verify_for(&world, 70).await.report.status, Status::Paused);
    let name = world.catalogue().products[0].name.clone();
    world.sandbox.edit(|catalogue| catalogue.products[0].name.push('!'));
    world.wind(60).await;
    world.sync_well().await;
    world.wind(60).await;
    // The row was read with this name; the target has the other one now.
    world.sandbox.edit(|catalogue| catalogue.products[0].name = name);
    let (outcome, _) = verify_on(&world).await;
    let counts = &outcome.report.plan;
    assert_eq!((counts.create, counts.update, counts.delete, counts.unchanged), (0, 1, 0, ROWS - 1));
}

/// The sandbox's target behind a gap: after page 3 was asked for, a row of page 1 is gone for the pages that follow.
fn shifting(world: &World) -> Router {
    let sandbox = world.sandbox.target();
    Router::new().fallback(move |request: Request| {
        let sandbox = sandbox.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let mut asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let page = asked["page"].as_u64().filter(|_| !body.windows(3).any(|three| three == b"$in"));
            let forward = |body: Vec<u8>| {
                let mut parts = parts.clone();
                parts.headers.remove("content-length");
                sandbox.clone().oneshot(http::Request::from_parts(parts, Body::from(body)))
            };
            let answer = forward(body.to_vec()).await.unwrap();
            let Some(page @ 4..) = page else { return answer };
            // One row further: what the next page begins with ends this one.
            let rows = async |answer: axum::response::Response| -> serde_json::Value {
                serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
            };
            let mut shown = rows(answer).await;
            asked["page"] = (page + 1).into();
            let next = rows(forward(asked.to_string().into_bytes()).await.unwrap()).await;
            let list = shown["content"]["list"].as_array_mut().unwrap();
            list.remove(0);
            list.extend(next["content"]["list"].as_array().and_then(|rows| rows.first().cloned()));
            shown["content"]["total"] = (shown["content"]["total"].as_u64().unwrap() - 1).into();
            crate::support::answer(shown.to_string())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_row_that_slipped_from_page_to_page_is_not_called_missing() {
    let options = Options { groups: 20, products: 700, calls_per_minute: 1_000, ..Options::default() };
    let world = World::new(options, qeasy("products", "requests_per_minute = 50"));
    let world = {
        let target = shifting(&world);
        world.with_target(target)
    };
    world.sync_well().await;
    let outcome = world.verify().await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    assert_eq!((outcome.report.plan.unchanged, asked_by_id(&world)), (700, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_is_stopped_leaves_the_state_and_goes_on_later() {
    let world = synced().await;
    let store = world.app.store().await.unwrap();
    let good = world.state().await.unwrap();
    store.put("state/it.state", "damaged").await.unwrap();
    let rebuild = async |world: &World| world.app.rebuild_state(from(world), Extras::Leave, &|_| {}).await;
    let stop = async {
        tokio::time::sleep(Duration::from_secs(70)).await;
        world.app.stop();
    };
    let (stopped, ()) = tokio::join!(rebuild(&world), stop);
    let error = stopped.unwrap_err();
    assert_eq!((error.kind, error.resume_after), (ErrorKind::Interrupted, Some(Duration::from_secs(1))));
    assert!(error.message.contains("rows of the target that are not read yet: "), "{error}");
    assert_eq!(world.state().await.as_deref(), Some("damaged"));
    let read = pages_asked(&world, 0);

    let world = world.again_on(store.clone());
    let found = rebuild(&world).await.unwrap();
    assert_eq!((found.same, found.differing, found.missing, found.extra), (ROWS, 0, 0, 0));
    let again = pages_asked(&world, 0);
    assert!(again.keys().all(|page| !read.contains_key(page)), "{read:?} and {again:?}");
    let rows = |state: &str| {
        let mut rows: Vec<String> = state.lines().skip(1).map(str::to_owned).collect();
        rows.sort();
        rows
    };
    assert_eq!(rows(&world.state().await.unwrap()), rows(&good));
    assert_eq!(world.stored(CHECKPOINT).await.as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_reads_anew_after_a_sync_wrote() {
    let world = synced().await;
    assert_eq!(verify_for(&world, 70).await.report.status, Status::Paused);
    world.sandbox.edit(|catalogue| catalogue.products[0].name.push('!'));
    world.wind(60).await;
    world.sync_well().await;
    world.wind(60).await;
    let calls = world.target.bodies("/query").len();
    let found = world.app.rebuild_state(from(&world), Extras::Leave, &|_| {}).await.unwrap();
    assert_eq!((found.same, found.differing, found.missing, found.extra), (ROWS, 0, 0, 0));
    assert_eq!(pages_asked(&world, calls), each_page_once());
}

#[tokio::test(start_paused = true)]
async fn a_small_target_needs_no_checkpoint() {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    assert_eq!(world.verify().await.report.status, Status::Succeeded);
    assert_eq!(world.stored(CHECKPOINT).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_no_longer_fits_is_not_extra_and_a_rebuild_keeps_it() {
    let text = pipeline(
        "[record.fields]\nid = \"id\"\nrank = { from = \"order_rank\", as = \"integer\" }",
        "kind = \"qeasy\"",
    );
    let world = World::new(small(), text);
    let rank = |world: &World, at: usize, rank: &str| {
        let rank = rank.into();
        world
            .sandbox
            .edit(|catalogue| drop(catalogue.groups[at].extra.insert("order_rank".to_owned(), rank)));
    };
    world.sync_well().await;
    rank(&world, 7, "abc");
    let id = world.catalogue().groups[7].id.clone();
    let outcome = world.verify().await;
    let line = outcome.lines.iter().find(|line| line.id == id).unwrap();
    assert_eq!((line.kind.mark(), line.why), ('!', "in the quarantine, cannot be compared"));
    assert_eq!((outcome.report.plan.delete, outcome.report.quarantined), (0, 1), "{:?}", outcome.report);

    world.app.store().await.unwrap().put("state/it.state", "damaged").await.unwrap();
    let found = world.app.rebuild_state(from(&world), Extras::Leave, &|_| {}).await.unwrap();
    assert_eq!((found.same, found.differing, found.missing, found.extra), (39, 0, 0, 0));
    let report = world.sync().await.report;
    assert_eq!((report.plan.delete, report.quarantined), (0, 1), "{report:?}");
    world.sandbox.edit(|catalogue| drop(catalogue.groups.remove(7)));
    assert_eq!(world.sync_well().await.report.target.deleted, 1, "no orphan stays at the target");
}
