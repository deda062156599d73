//! The long bad day: refused rows, outages that flicker, sources that shrink, states that are lost, limits shared with others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use okki_sync::app::PipelineSource;
use okki_sync::testing::clock::Clock;
use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Extras, RunRequest};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{IdCheck, Options, Sandbox};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::{World, answer, env, http, qeasy, request, small, wall};

const ALWAYS: u32 = 1_000_000;

/// A router before another: it sees each request with its number (from 1) and may answer in its place.
pub(crate) fn before(
    inner: Router,
    see: impl Fn(u32, &str) -> Option<axum::response::Response> + Send + Sync + 'static,
) -> Router {
    let (calls, see) = (Arc::new(AtomicU32::new(0)), Arc::new(see));
    Router::new().fallback(move |request: axum::extract::Request| {
        let (calls, see, inner) = (Arc::clone(&calls), Arc::clone(&see), inner.clone());
        async move {
            let number = calls.fetch_add(1, Ordering::Relaxed) + 1;
            match see(number, &request.uri().to_string()) {
                Some(response) => Ok(response),
                None => inner.oneshot(request).await,
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_row_refused_repeatedly_is_tried_less_often_and_delays_no_other() {
    let world = World::new(small(), qeasy("groups", ""));
    let id = world.catalogue().groups[3].id.clone();
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), ALWAYS, 0);
    let mut tried = Vec::new();
    for run in 1..=20 {
        let calls = world.calls(Endpoint::QeasyStore);
        let outcome = world.sync().await;
        assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1), "run {run}");
        assert_eq!(outcome.report.remaining, 0, "run {run}: {:?}", outcome.report);
        assert_eq!(world.quarantine(&outcome).await[0]["id"], id.as_str());
        if world.calls(Endpoint::QeasyStore) > calls {
            tried.push(run);
        }
        assert_eq!(world.rows().len(), 39);
        world.wind(60).await;
    }
    assert_eq!(tried, [1, 2, 4, 8, 16]);
    // A change of the row is a new reason to try.
    world.sandbox.clear_faults();
    world.sandbox.edit(|catalogue| catalogue.groups[3].name.push('!'));
    world.sync_well().await;
    world.assert_complete();
    assert!(!world.state().await.unwrap().contains("\n! "), "the refusal is over");
}

#[tokio::test(start_paused = true)]
async fn a_scheme_that_counts_every_repeat_as_failed_does_not_loop() {
    let world = World::new(Options { id_check: IdCheck::CountedAsFailed, ..small() }, qeasy("groups", ""));
    world.sync_well().await;
    world.sandbox.edit(|catalogue| catalogue.groups.iter_mut().for_each(|group| group.name.push('!')));
    let calls = world.target_calls();
    for _ in 0..6 {
        let outcome = world.sync().await;
        assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 40));
        assert!(outcome.rejected[0].reason.contains("idCheck"), "{}", outcome.rejected[0].reason);
        world.wind(60).await;
    }
    // Tried in the runs 1, 2 and 4, each with one store and one query.
    assert_eq!(world.target_calls() - calls, 6);
}

#[tokio::test(start_paused = true)]
async fn a_scheme_that_takes_no_change_is_named_once_in_the_log_of_a_run() {
    for id_check in [IdCheck::CountedAsFailed, IdCheck::Excluded] {
        let world = World::new(Options { id_check, ..small() }, qeasy("groups", "max_rows_per_batch = 5"));
        world.sync_well().await;
        world.sandbox.edit(|catalogue| catalogue.groups.iter_mut().for_each(|group| group.name.push('!')));
        let lines = crate::secrets::Lines::default();
        let _guard = lines.listen_to_the_program();
        let outcome = world.sync().await;
        assert_eq!((outcome.report.target.written, outcome.report.quarantined), (0, 40));
        let log = lines.text();
        let warnings =
            |words: &str| log.lines().filter(|line| line.contains(" WARN ") && line.contains(words)).count();
        assert_eq!((warnings("switch idCheck off"), warnings("only in part")), (1, 1), "{log}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_flickers_costs_minutes_and_not_hours() {
    // Of six calls five fail: each page would come through at its last attempt.
    let sandbox =
        Sandbox::new(Options { groups: 10, products: 5000, ..Options::default() }, wall(Clock::pinned()));
    let flickering = before(sandbox.okki(), |number, _| {
        (number % 6 != 0)
            .then(|| http::Response::builder().status(502).body(Body::from("bad gateway")).unwrap())
    });
    let world = World::of(sandbox, Some(flickering), env(), qeasy("groups-with-items", ""), Clock::pinned());
    let started = Instant::now();
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::Unavailable(Side::Source));
    // Ten minutes of backoff, and the slowest pace between the calls that come through.
    assert!(started.elapsed() < Duration::from_secs(45 * 60), "{:?}", started.elapsed());
    assert_eq!(world.target_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_the_deadline_pauses_the_run_at_once() {
    for fault in [FaultKind::Throttle { retry_after_seconds: Some(70) }, FaultKind::Lockout] {
        let world = World::new(small(), qeasy("groups", ""));
        let limited =
            RunRequest { deadline: Some(Instant::now() + Duration::from_secs(60)), ..request(Mode::Sync) };
        world.fault(Endpoint::QeasyStore, fault, 1, 0);
        let started = Instant::now();
        let outcome = world.run(&limited, |_| {}).await;
        assert_eq!(outcome.report.status, Status::Paused, "{:?}", outcome.report);
        assert!(outcome.report.resume_after_seconds.unwrap() >= 70);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        world.wind(400).await;
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_error_near_the_deadline_pauses_the_run_instead_of_failing_it() {
    // Six attempts take 0.8 s at least, whatever the jitter, and the last 5 s are for saving.
    const NEAR: Duration = Duration::from_millis(5_600);
    let world = World::new(small(), qeasy("groups", ""));
    world.fault(Endpoint::QeasyStore, FaultKind::Status(500), ALWAYS, 0);
    let limited = RunRequest { deadline: Some(Instant::now() + NEAR), ..request(Mode::Sync) };
    let outcome = world.run(&limited, |_| {}).await;
    assert_eq!(
        (outcome.report.status, outcome.error.unwrap().kind),
        (Status::Paused, ErrorKind::Interrupted)
    );
    assert_eq!(outcome.report.remaining, 40);
}

#[tokio::test(start_paused = true)]
async fn a_product_list_that_shrank_or_is_empty_is_refused() {
    let world = World::new(small(), qeasy("groups-with-items", ""));
    world.sync_well().await;
    let rows = format!("{:?}", world.rows());
    for (keep, words) in [(100, "100 products"), (0, "0 products")] {
        world.sandbox.edit(|catalogue| catalogue.products.truncate(keep));
        world.wind(5).await;
        let outcome = world.sync().await;
        let error = outcome.error.unwrap();
        assert_eq!(error.kind, ErrorKind::GuardRefused, "{error}");
        for word in [words, "saw 300", "--allow-mass-delete"] {
            assert!(error.to_string().contains(word), "{word} is not in: {error}");
        }
        assert_eq!(format!("{:?}", world.rows()), rows);
    }
    let allowed = RunRequest { allow_mass_delete: true, ..request(Mode::Sync) };
    assert_eq!(world.run(&allowed, |_| {}).await.report.status, Status::Succeeded);
    world.assert_complete();
    world.sync_well().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_and_a_creation_between_two_pages_hide_no_third_row() {
    for shape in ["products", "groups-with-items"] {
        let sandbox =
            Sandbox::new(Options { groups: 5, products: 250, ..Options::default() }, wall(Clock::pinned()));
        let (edited, clock) = (sandbox.clone(), Clock::pinned());
        let armed = Arc::new(AtomicU32::new(0));
        let strike = Arc::clone(&armed);
        let source = before(sandbox.okki(), move |_, uri| {
            if uri.contains("start_index=2") && strike.swap(0, Ordering::Relaxed) == 1 {
                edited.edit(|catalogue| {
                    let now_s = i64::try_from(clock.now_ms() / 1000).unwrap();
                    let mut new = catalogue.products[200].clone();
                    catalogue.products.remove(0);
                    new.product_id = "99999999999".to_owned();
                    (new.create_time, new.update_time) = (now_s, now_s);
                    catalogue.products.push(new);
                });
            }
            None
        });
        let text = qeasy(shape, "").replace("[source]\n", "[source]\nproducts = \"full\"\n");
        let world = World::of(sandbox, Some(source), env(), text, Clock::pinned());
        world.sync_well().await;
        let tombstones = |world: &World| {
            world.rows().values().filter(|row| row.get().contains("\"deleted\":true")).count()
        };
        world.wind(60).await;
        armed.store(1, Ordering::Relaxed);
        world.sync_well().await;
        assert_eq!(armed.load(Ordering::Relaxed), 0, "the catalogue changed between the pages");
        world.assert_complete();
        assert!(tombstones(&world) <= 1, "{shape}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_that_the_pages_never_hold_deletes_nothing_and_costs_little() {
    for total in [251, u64::MAX] {
        let sandbox =
            Sandbox::new(Options { groups: 5, products: 250, ..Options::default() }, wall(Clock::pinned()));
        let lying = Arc::new(AtomicU32::new(0));
        let (lies, inner) = (Arc::clone(&lying), sandbox.okki());
        let source = Router::new().fallback(move |request: axum::extract::Request| {
            let (lies, inner) = (Arc::clone(&lies), inner.clone());
            async move {
                let response = inner.oneshot(request).await.unwrap();
                let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                let text = String::from_utf8(body.to_vec()).unwrap();
                let said = if lies.load(Ordering::Relaxed) == 1 { total } else { 250 };
                answer(text.replace("\"count\":250", &format!("\"count\":{said}")))
            }
        });
        let text = qeasy("products", "").replace("[source]\n", "[source]\nproducts = \"full\"\n");
        let world = World::of(sandbox, Some(source), env(), text, Clock::pinned());
        world.sync_well().await;
        lying.store(1, Ordering::Relaxed);
        world.sandbox.edit(|catalogue| catalogue.products[0].name.push('!'));
        let calls = world.calls(Endpoint::OkkiProducts);
        let outcome = world.sync_well().await;
        assert_eq!((outcome.report.plan.update, outcome.report.plan.delete), (1, 0));
        let calls = world.calls(Endpoint::OkkiProducts) - calls;
        assert!(calls < 120, "{calls}");
        world.assert_complete();
        lying.store(0, Ordering::Relaxed);
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_others_make_with_the_same_key_are_left_to_them() {
    let sandbox = Sandbox::new(small(), wall(Clock::pinned()));
    let inner = sandbox.target();
    let busy = Router::new().fallback(move |request: axum::extract::Request| {
        let inner = inner.clone();
        async move {
            let mut response = inner.oneshot(request).await.unwrap();
            // Somebody else has used 55 of the 60 calls.
            let headers = response.headers_mut();
            headers.insert("x-ratelimit-remaining", 5.into());
            headers.insert("x-ratelimit-reset", 40.into());
            response
        }
    });
    let world = World::of(sandbox, None, env(), qeasy("groups", "max_rows_per_batch = 20"), Clock::pinned())
        .with_target(busy);
    let started = Instant::now();
    world.sync_well().await;
    assert!(started.elapsed() >= Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_previous_state_is_kept_and_a_lost_one_is_rebuilt() {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    let first = world.state().await.unwrap();
    world.sandbox.edit(|catalogue| catalogue.groups[0].name.push('!'));
    world.sync_well().await;
    assert_eq!(world.stored("cache/it.state.previous").await.unwrap(), first);

    // Damaged, with a change that nobody has synced yet and a row of somebody else's at the target.
    world.sandbox.edit(|catalogue| catalogue.groups[1].name.push('?'));
    let store = world.app.store().await.unwrap();
    store.put("state/it.state", "damaged").await.unwrap();
    assert_eq!(world.sync().await.error.unwrap().kind, ErrorKind::BadState);
    let from = || PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    let found = world.app.rebuild_state(from(), Extras::Leave, &|_| {}).await.unwrap();
    assert_eq!((found.same, found.differing, found.missing, found.extra), (39, 1, 0, 0));
    assert_eq!(world.stored("cache/it.state.previous").await.unwrap(), "damaged");
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.update, outcome.report.plan.unchanged), (1, 39));
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_rebuilt_state_takes_over_extra_rows_only_when_it_is_told_to() {
    let world = World::new(small(), qeasy("groups", ""));
    world.sync_well().await;
    world.app.store().await.unwrap().put("state/it.state", "damaged").await.unwrap();
    world.sandbox.edit(|catalogue| drop(catalogue.groups.pop()));
    let from = || PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    assert_eq!(world.app.rebuild_state(from(), Extras::Leave, &|_| {}).await.unwrap().extra, 1);
    assert_eq!(world.sync_well().await.report.plan.delete, 0);
    assert_eq!(world.app.rebuild_state(from(), Extras::Own, &|_| {}).await.unwrap().extra, 1);
    assert_eq!(world.sync_well().await.report.target.deleted, 1);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn after_a_rebuild_the_guard_sees_items_that_are_gone() {
    let world = World::new(small(), qeasy("groups-with-items", ""));
    world.sync_well().await;
    world.app.store().await.unwrap().put("state/it.state", "damaged").await.unwrap();
    let from = PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    world.app.rebuild_state(from, Extras::Leave, &|_| {}).await.unwrap();
    world.sandbox.edit(|catalogue| catalogue.products.truncate(100));
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::GuardRefused, "{:?}", outcome.report);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_change_that_people_took_back_is_taken_back_at_the_target() {
    let world = World::new(small(), qeasy("groups", "max_rows_per_batch = 500"));
    world.sync_well().await;
    let name = world.catalogue().groups[0].name.clone();
    world.sandbox.edit(|catalogue| catalogue.groups[0].name.push('!'));
    // The row is stored; every answer, and the answer to what is stored, is lost.
    world.fault(Endpoint::QeasyStore, FaultKind::LostAfter, ALWAYS, 0);
    world.fault(Endpoint::QeasyQuery, FaultKind::LostAfter, ALWAYS, 0);
    assert_eq!(world.sync().await.report.status, Status::Failed);
    world.sandbox.clear_faults();
    world.sandbox.edit(|catalogue| catalogue.groups[0].name.clone_from(&name));
    world.wind(60).await;
    assert_eq!(world.sync_well().await.report.plan.update, 1);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_rows_lost_their_ids_deletes_nothing() {
    let world = World::new(Options { groups: 8, ..small() }, qeasy("groups", ""));
    world.sync_well().await;
    let rows = format!("{:?}", world.rows());
    world.sandbox.edit(|catalogue| catalogue.groups.iter_mut().for_each(|group| group.id = " ".to_owned()));
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::GuardRefused);
    assert_eq!(format!("{:?}", world.rows()), rows);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_asked_for_changes_is_read_in_full() {
    let sandbox = Sandbox::new(small(), wall(Clock::pinned()));
    let source = before(sandbox.okki(), |_, uri| {
        uri.contains("time_type=1").then(|| answer(r#"{"code":400,"message":"end_time is required"}"#))
    });
    let world = World::of(sandbox, Some(source), env(), qeasy("products", ""), Clock::pinned());
    world.sync_well().await;
    world.wind(3600).await;
    world.sandbox.edit(|catalogue| catalogue.products[0].name.push('!'));
    assert!(world.sync_well().await.report.source.full_read);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_proxys_page_is_not_taken_for_a_source_without_a_filter() {
    let sandbox = Sandbox::new(small(), wall(Clock::pinned()));
    let proxy_is_there = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&proxy_is_there);
    let source = before(sandbox.okki(), move |_, uri| {
        let is_there = seen.load(Ordering::Relaxed) == 1 && uri.contains("time_type=1");
        is_there.then(|| answer("<html>please log in</html>"))
    });
    let world = World::of(sandbox, Some(source), env(), qeasy("products", ""), Clock::pinned());
    world.sync_well().await;
    proxy_is_there.store(1, Ordering::Relaxed);
    world.wind(3600).await;
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::BadAnswer(Side::Source));
    assert_eq!(outcome.report.target.requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_is_only_a_word_may_stand_in_the_answer_too() {
    let world = World::new(
        small(),
        http("groups", "headers = { \"X-Upsert\" = \"true\" }\nsuccess = { \"/code\" = 0 }"),
    );
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_success_that_says_neither_success_nor_a_count_is_not_believed() {
    let world = World::new(small(), qeasy("groups", ""));
    world.fault(Endpoint::QeasyStore, FaultKind::AccessDenied, ALWAYS, 0);
    let outcome = world.sync().await;
    assert_eq!(outcome.error.unwrap().kind, ErrorKind::BadAnswer(Side::Target));
    assert_eq!((outcome.report.target.written, world.rows().len()), (0, 0));
    world.sandbox.clear_faults();
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_scheme_that_cannot_be_asked_is_searched_by_halves() {
    let sandbox = Sandbox::new(small(), wall(Clock::pinned()));
    let id = {
        let mut id = String::new();
        sandbox.edit(|catalogue| id.clone_from(&catalogue.groups[7].id));
        id
    };
    let inner = sandbox.target();
    let closed = Router::new().fallback(move |request: axum::extract::Request| {
        let inner = inner.clone();
        async move {
            if request.uri().path().ends_with("/query") {
                return answer(r#"{"success":false,"code":40003,"message":"无此接口","content":null}"#);
            }
            inner.oneshot(request).await.unwrap()
        }
    });
    let world = World::of(sandbox, None, env(), qeasy("groups", ""), Clock::pinned()).with_target(closed);
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), ALWAYS, 0);
    let outcome = world.sync().await;
    assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1));
    assert_eq!((outcome.rejected[0].id.as_deref(), world.rows().len()), (Some(id.as_str()), 39));
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_asked_less_often() {
    let slow = Options { latency: Duration::from_secs(12), products: 2000, ..small() };
    let world = World::new(slow, http("products", ""));
    let started = Instant::now();
    world.sync_well().await;
    // 20 pages, four at a time of 12 s each, would take a minute; halved they take longer.
    assert!(started.elapsed() > Duration::from_secs(120), "{:?}", started.elapsed());
}

/// A plain target that merges the fields of a row into those that it has.
fn merging(rows: &Arc<Mutex<BTreeMap<String, Value>>>) -> Router {
    let rows = Arc::clone(rows);
    Router::new().fallback(move |request: Request| {
        let rows = Arc::clone(&rows);
        async move {
            let is_read = request.method() == ::http::Method::GET;
            let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let mut rows = rows.lock().unwrap();
            if is_read {
                return answer(Value::from_iter(rows.values().cloned()).to_string());
            }
            let sent: Vec<Value> = serde_json::from_slice(&body).unwrap();
            for row in sent {
                let id = row["productGroupId"].as_str().unwrap().to_owned();
                let held = rows.entry(id).or_insert_with(|| serde_json::json!({}));
                let fields = row.as_object().unwrap().clone();
                held.as_object_mut().unwrap().extend(fields);
            }
            answer("{}")
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_target_that_merges_is_told_that_a_row_is_no_longer_deleted() {
    for is_rebuilt in [false, true] {
        let rows = Arc::new(Mutex::new(BTreeMap::new()));
        let world = World::new(small(), http("groups", "")).with_target(merging(&rows));
        world.sync_well().await;
        let leaf = world.catalogue().groups.pop().unwrap();
        let deleted =
            |rows: &Mutex<BTreeMap<String, Value>>| rows.lock().unwrap()[&leaf.id]["deleted"].clone();
        world.sandbox.edit(|catalogue| drop(catalogue.groups.pop()));
        assert_eq!(world.sync_well().await.report.target.deleted, 1);
        assert_eq!(deleted(&rows), true);
        if is_rebuilt {
            world.app.store().await.unwrap().put("state/it.state", "damaged").await.unwrap();
            let from = PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
            world.app.rebuild_state(from, Extras::Leave, &|_| {}).await.unwrap();
        }
        world.sandbox.edit(|catalogue| catalogue.groups.push(leaf.clone()));
        assert_eq!(world.sync_well().await.report.target.written, 1);
        assert_eq!(deleted(&rows), false);
        assert_eq!(world.verify().await.report.status, Status::Succeeded);
        // Once, and of other rows the target hears nothing new.
        assert_eq!(world.sync_well().await.report.plan.unchanged, 40);
        world.sandbox.edit(|catalogue| catalogue.groups.last_mut().unwrap().name.push('!'));
        world.sync_well().await;
        let bodies = world.target.bodies("/batchInsert");
        let revived: Vec<_> = bodies.iter().filter(|body| body.contains("\"deleted\":false")).collect();
        assert_eq!((revived.len(), revived[0].matches("productGroupId").count()), (1, 1));
    }
}
