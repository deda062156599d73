//! What goes wrong on the wire, one fault at a time: a run ends with everything delivered, or says what is missing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use okki_sync::testing::error::{ErrorKind, Side};
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Outcome, Progress};
use okki_sync_sandbox::CodeReading::{A, B, C};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{IdCheck, Options};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::{World, expected, http, qeasy, request};

const ALWAYS: u32 = 1_000_000;
const SHAPE: &str = "groups-with-items";

/// The size that the peers were measured with: 20 pages, and with 25 rows a batch 8 batches.
fn world(change: impl FnOnce(&mut Options)) -> World {
    let mut options = Options { groups: 200, products: 2000, ..Options::default() };
    change(&mut options);
    World::new(options, qeasy(SHAPE, "max_rows_per_batch = 25"))
}

fn http_world() -> World {
    let options = Options { groups: 200, products: 2000, ..Options::default() };
    World::new(options, http(SHAPE, "max_rows_per_batch = 25"))
}

fn assert_calm(world: &World) {
    let stats = world.sandbox.stats();
    assert_eq!(stats.lockouts, 0);
    assert!(stats.max_target_calls_per_minute <= 60, "{}", stats.max_target_calls_per_minute);
}

/// A fault that passes: the run succeeds with every row at the target.
async fn survives(world: World, at: Endpoint, fault: FaultKind, times: u32, after: u32) -> (World, Outcome) {
    let name = format!("{fault:?}");
    world.fault(at, fault, times, after);
    let outcome = world.sync().await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{name}: {:?}", outcome.report);
    assert_eq!((outcome.report.plan.create, outcome.report.target.written), (200, 200), "{name}");
    world.assert_complete();
    assert_calm(&world);
    assert_eq!(world.sync_well().await.report.target.requests, 0, "{name}");
    (world, outcome)
}

/// A fault that stays: the run fails and says so, and the run after the repair delivers everything.
async fn fails(world: World, at: Endpoint, fault: FaultKind, words: &[&str]) -> Outcome {
    let name = format!("{fault:?}");
    world.fault(at, fault, ALWAYS, 0);
    let outcome = world.sync().await;
    let error = outcome.error.clone().unwrap_or_else(|| panic!("{name}: no error, {:?}", outcome.report));
    assert_eq!(outcome.report.status, Status::Failed, "{name}: {error}");
    assert_eq!(outcome.report.error, Some(error.line()));
    for word in words {
        assert!(error.line().contains(word), "{name}: \"{word}\" is not in: {}", error.line());
    }
    world.sandbox.clear_faults();
    world.wind(3600).await;
    let after = world.sync_well().await;
    assert_eq!(after.report.target.written + outcome.report.target.written, 200);
    world.assert_complete();
    assert_calm(&world);
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_throttling_source_is_waited_for_as_long_as_it_says() {
    let started = Instant::now();
    let fault = FaultKind::Throttle { retry_after_seconds: Some(30) };
    let (_, outcome) = survives(world(|_| ()), Endpoint::OkkiProducts, fault, 1, 5).await;
    assert!(started.elapsed() >= Duration::from_secs(30));
    assert_eq!((outcome.report.source.throttled, outcome.report.source.retries), (1, 1));
    let fault = FaultKind::Throttle { retry_after_seconds: None };
    survives(world(|_| ()), Endpoint::OkkiGroups, fault, 2, 0).await;
}

/// The waits that a person who watches a run is told of.
async fn waits(world: &World) -> Vec<(Side, Duration)> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let outcome = world
        .run(&request(Mode::Sync), move |progress| {
            if let Progress::Waiting { side, wait } = progress {
                heard.lock().unwrap().push((side, wait));
            }
        })
        .await;
    assert_eq!(outcome.report.status, Status::Succeeded, "{:?}", outcome.report);
    std::mem::take(&mut *told.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_person_who_watches_is_told_of_each_wait_once_with_side_and_time() {
    let calm = world(|_| ());
    assert_eq!(waits(&calm).await, []);

    let throttled = world(|_| ());
    let fault = FaultKind::Throttle { retry_after_seconds: Some(30) };
    throttled.fault(Endpoint::OkkiProducts, fault, 1, 5);
    assert_eq!(waits(&throttled).await, [(Side::Source, Duration::from_secs(30))]);

    // Of sixteen batches, of which four wait at a time, six calls fit into the first minute.
    let options = Options { groups: 160, products: 160, ..Options::default() };
    let target = "max_rows_per_batch = 10\nmax_concurrency = 4\nrequests_per_minute = 6";
    let full = World::new(options, qeasy("products", target));
    let waits = waits(&full).await;
    assert_eq!(waits.len(), 2, "seventeen calls are three minutes' worth: {waits:?}");
    for (side, wait) in waits {
        assert_eq!(side, Side::Target);
        assert!(wait > Duration::from_secs(55) && wait <= Duration::from_secs(60), "{wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_wants_an_hour_of_silence_pauses_the_run() {
    let world = world(|_| ());
    let fault = FaultKind::Throttle { retry_after_seconds: Some(3600) };
    world.fault(Endpoint::OkkiProducts, fault, 1, 5);
    let outcome = world.sync().await;
    assert_eq!(
        (outcome.report.status, outcome.error.unwrap().kind),
        (Status::Paused, ErrorKind::Throttled(Side::Source))
    );
    assert_eq!(outcome.report.resume_after_seconds, Some(3600));
    assert!(outcome.report.remaining > 0);
    assert_eq!(world.target_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_source_that_pass_cost_no_row() {
    for at in [Endpoint::OkkiGroups, Endpoint::OkkiProducts, Endpoint::OkkiToken] {
        for fault in [
            FaultKind::Status(500),
            FaultKind::Status(502),
            FaultKind::LostBefore,
            FaultKind::LostAfter,
            FaultKind::NotJson,
            FaultKind::Truncated,
            FaultKind::Slow(Duration::from_secs(90)),
        ] {
            let after = if at == Endpoint::OkkiProducts { 5 } else { 0 };
            survives(world(|_| ()), at, fault, 1, after).await;
        }
    }
    survives(world(|_| ()), Endpoint::OkkiProducts, FaultKind::BodyCode(500, "繁忙".to_owned()), 1, 5).await;
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_target_that_pass_cost_no_row() {
    let passing = || {
        [
            FaultKind::Status(500),
            FaultKind::Status(503),
            FaultKind::LostBefore,
            FaultKind::LostAfter,
            FaultKind::NotJson,
            FaultKind::Truncated,
            FaultKind::Slow(Duration::from_secs(90)),
            FaultKind::Throttle { retry_after_seconds: Some(7) },
        ]
    };
    for fault in passing() {
        let (_, outcome) = survives(world(|_| ()), Endpoint::QeasyStore, fault, 1, 3).await;
        assert_eq!(outcome.report.target.retries, 1);
    }
    for fault in passing() {
        survives(http_world(), Endpoint::HttpTarget, fault, 1, 3).await;
    }
    for fault in passing() {
        survives(world(|_| ()), Endpoint::QeasyToken, fault, 1, 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_batch_whose_answer_was_lost_is_read_back_and_not_sent_twice() {
    for fault in [FaultKind::LostBefore, FaultKind::LostAfter] {
        let (world, _) = survives(world(|_| ()), Endpoint::QeasyStore, fault, 1, 3).await;
        assert_eq!((world.sandbox.stats().rows_written, world.calls(Endpoint::QeasyQuery)), (200, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_whose_answer_was_lost_is_sent_again_in_one_call() {
    let options = Options { groups: 200, products: 2000, ..Options::default() };
    let world = World::new(options, qeasy(SHAPE, "max_rows_per_batch = 150"));
    let (world, _) = survives(world, Endpoint::QeasyStore, FaultKind::LostAfter, 1, 0).await;
    assert_eq!((world.sandbox.stats().rows_written, world.calls(Endpoint::QeasyQuery)), (350, 0));
}

#[tokio::test(start_paused = true)]
async fn a_source_token_that_expires_in_the_middle_is_replaced() {
    for expires_in in [true, false] {
        let world = world(|options| {
            options.token_lifetime = Duration::from_secs(2);
            options.expires_in = expires_in;
        });
        world.sync_well().await;
        world.assert_complete();
        assert!(world.calls(Endpoint::OkkiToken) > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_or_expired_target_token_is_replaced_in_every_reading() {
    for codes in [A, B, C] {
        let world = world(|options| options.codes = codes);
        let sandbox = world.sandbox.clone();
        let outcome = world
            .run(&request(okki_sync::testing::report::Mode::Sync), move |progress| {
                if matches!(progress, Progress::Writing { acknowledged: 75, .. }) {
                    sandbox.revoke_tokens();
                }
            })
            .await;
        assert_eq!(outcome.report.status, Status::Succeeded, "{codes:?}: {:?}", outcome.report);
        world.assert_complete();
        assert_eq!(world.calls(Endpoint::QeasyToken), 2);
        assert_eq!(world.sandbox.stats().rows_written, 200);
        world.wind(7200).await;
        world.sandbox.simulate_edits();
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_whose_pages_shift_is_read_again_and_nothing_is_lost() {
    for (times, after) in [(1, 0), (1, 7), (2, 3), (3, 10)] {
        let world = world(|_| ());
        world.fault(Endpoint::OkkiProducts, FaultKind::ShiftPages, times, after);
        let outcome = world.sync_well().await;
        world.assert_complete();
        assert_eq!(outcome.report.source.products as usize, world.catalogue().products.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_that_moves_after_each_page_is_read_all_the_same() {
    let world = world(|_| ());
    world.fault(Endpoint::OkkiProducts, FaultKind::ShiftPages, ALWAYS, 0);
    let moved = world.sandbox.revision();
    world.sync_well().await;
    assert!(world.sandbox.revision() > moved + 5);
    world.sandbox.clear_faults();
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn rows_that_the_target_leaves_out_are_quarantined_and_delivered_later() {
    for codes in [A, B, C] {
        for query_shape in 1..=4 {
            let world = world(|options| {
                options.codes = codes;
                options.query_shape = query_shape;
            });
            let catalogue = world.catalogue();
            let ids: Vec<String> =
                [3, 4, 60, 199].iter().map(|at| catalogue.groups[*at].id.clone()).collect();
            world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(ids.clone()), ALWAYS, 0);
            let outcome = world.sync().await;
            let report = &outcome.report;
            assert_eq!(report.status, Status::Partial, "{codes:?} {query_shape}: {report:?}");
            assert_eq!((report.target.written, report.quarantined, report.remaining), (196, 4, 0));
            let mut refused: Vec<&str> =
                outcome.rejected.iter().filter_map(|row| row.id.as_deref()).collect();
            refused.sort_unstable();
            let mut wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
            wanted.sort_unstable();
            assert_eq!(refused, wanted);
            let rows = expected(&catalogue, &world.text);
            for row in &outcome.rejected {
                assert!(row.reason.contains("failed"), "{}", row.reason);
                assert_eq!(row.raw.get(), rows[row.id.as_deref().unwrap()]);
            }
            assert_eq!(world.quarantine(&outcome).await.len(), 4);
            assert_eq!(world.rows().len(), 196);

            world.sandbox.clear_faults();
            world.wind(60).await;
            let later = world.sync_well().await;
            assert_eq!((later.report.plan.create, later.report.plan.unchanged), (4, 196));
            world.assert_complete();
            assert_calm(&world);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_check_that_excludes_changed_rows_is_reported_and_not_believed() {
    for id_check in [IdCheck::CountedAsFailed, IdCheck::Excluded] {
        let world = world(|_| ());
        world.sync_well().await;
        world.sandbox.set_options(|options| options.id_check = id_check);
        world.sandbox.edit(|catalogue| catalogue.groups[9].name.push('!'));
        let outcome = world.sync().await;
        assert_eq!(
            (outcome.report.status, outcome.report.target.written),
            (Status::Partial, 0),
            "{id_check:?}: {:?}",
            outcome.report
        );
        assert_eq!(outcome.rejected.len(), 1);
        let reason = &outcome.rejected[0].reason;
        assert!(reason.contains("switch idCheck off on the scheme"), "{reason}");
        world.sandbox.set_options(|options| options.id_check = IdCheck::Off);
        assert_eq!(world.sync_well().await.report.target.written, 1);
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_scheme_silently_leaves_out_never_count_as_written() {
    let world = world(|_| ());
    world.sync_well().await;
    world.sandbox.set_options(|options| options.id_check = IdCheck::Excluded);
    let fresh = world.catalogue().groups[0].id.clone();
    world.sandbox.edit(|catalogue| {
        catalogue.groups.iter_mut().take(40).for_each(|group| group.name.push('!'));
        let mut group = catalogue.groups[0].clone();
        group.id = format!("{fresh}9");
        catalogue.groups.push(group);
    });
    let second = world.sync().await.report;
    assert_eq!((second.status, second.target.written, second.quarantined), (Status::Partial, 1, 40));
    let third = world.sync().await.report;
    assert_eq!((third.plan.update, third.plan.unchanged, third.target.written), (40, 161, 0));
    assert_eq!(world.verify().await.report.remaining, 40);
    world.sandbox.set_options(|options| options.id_check = IdCheck::Off);
    world.wind(60).await;
    let (mut written, mut runs) = (0, 0);
    while written < 40 && runs < 3 {
        written += world.sync().await.report.target.written;
        runs += 1;
    }
    assert_eq!(written, 40);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_a_firewall_dislikes_is_found_and_delays_no_other() {
    let text = |kind: fn(&str, &str) -> String| kind(SHAPE, "max_rows_per_batch = 25");
    for (text, status) in [(text(qeasy), 403), (text(qeasy), 405), (text(http), 403)] {
        let world = World::new(Options { groups: 200, products: 2000, ..Options::default() }, text);
        world.sandbox.edit(|catalogue| catalogue.groups[30].name.push_str("<script>"));
        let id = world.catalogue().groups[30].id.clone();
        let inner = world.sandbox.target();
        let world = world.with_target(firewall(inner, status));
        let outcome = world.sync().await;
        let report = &outcome.report;
        assert_eq!((report.status, report.target.written), (Status::Partial, 199), "{report:?}");
        let refused = &outcome.rejected[0];
        assert_eq!((outcome.rejected.len(), refused.id.as_deref()), (1, Some(id.as_str())));
        let words = format!("HTTP {status} with a page");
        assert!(refused.reason.contains(&words) && refused.reason.contains("Blocked"), "{}", refused.reason);
    }
}

/// Refuses each body that holds a tag.
fn firewall(inner: axum::Router, status: u16) -> axum::Router {
    axum::Router::new().fallback(move |request: axum::extract::Request| {
        let inner = inner.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            if body.windows(7).any(|part| part == b"<script") {
                let page = axum::body::Body::from("<html><title>Blocked</title></html>");
                return Ok(::http::Response::builder().status(status).body(page).unwrap());
            }
            inner.oneshot(::http::Request::from_parts(parts, axum::body::Body::from(body))).await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn success_false_under_http_200_is_no_success() {
    let refusal = || FaultKind::BodyCode(49_999, "方案已停用".to_owned());
    survives(world(|_| ()), Endpoint::QeasyStore, refusal(), 1, 2).await;
    survives(http_world(), Endpoint::HttpTarget, refusal(), 1, 2).await;
    survives(world(|_| ()), Endpoint::QeasyStore, FaultKind::BodyCode(50_001, "系统错误".to_owned()), 1, 2)
        .await;
    for (world, at) in [(world(|_| ()), Endpoint::QeasyStore), (http_world(), Endpoint::HttpTarget)] {
        let outcome = fails(world, at, refusal(), &["方案已停用", "TargetBadAnswer"]).await;
        assert_eq!(outcome.report.target.written, 0);
        assert!(outcome.report.remaining > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lockout_pauses_runs_until_it_is_over() {
    for codes in [A, B, C] {
        let world = world(|options| options.codes = codes);
        world.fault(Endpoint::QeasyStore, FaultKind::Lockout, 1, 3);
        let outcome = world.sync().await;
        let report = outcome.report;
        assert_eq!(report.status, Status::Paused, "{codes:?}: {report:?}");
        assert_eq!(outcome.error.unwrap().kind, ErrorKind::Throttled(Side::Target));
        assert_eq!(
            (report.target.written, report.remaining, report.resume_after_seconds),
            (75, 125, Some(300))
        );

        let calls = world.target_calls();
        world.wind(200).await;
        let early = world.sync().await;
        assert_eq!(
            (early.report.status, world.target_calls()),
            (Status::Paused, calls),
            "no call before its time"
        );
        let resume = early.report.resume_after_seconds.unwrap();
        assert!((80..=100).contains(&resume), "{resume}");

        world.wind(resume).await;
        let last = world.sync_well().await;
        assert_eq!((last.report.target.written, last.report.plan.unchanged), (125, 75));
        world.assert_complete();
        assert_calm(&world);
        assert_eq!(world.sandbox.stats().rows_written, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_json_ends_the_run() {
    let source = ["source", "not its JSON", "系统维护中"];
    fails(world(|_| ()), Endpoint::OkkiGroups, FaultKind::NotJson, &source).await;
    fails(world(|_| ()), Endpoint::OkkiProducts, FaultKind::NotJson, &source).await;
    fails(world(|_| ()), Endpoint::QeasyStore, FaultKind::NotJson, &["target", "not JSON", "系统维护中"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_always_breaks_off_ends_the_run() {
    fails(world(|_| ()), Endpoint::OkkiProducts, FaultKind::Truncated, &["SourceUnavailable", "broke off"])
        .await;
    fails(http_world(), Endpoint::HttpTarget, FaultKind::Truncated, &["TargetUnavailable", "broke off"])
        .await;
    fails(world(|_| ()), Endpoint::QeasyStore, FaultKind::LostBefore, &["TargetUnavailable", "broke"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let giant = || FaultKind::Giant(65 << 20);
    let outcome =
        fails(world(|_| ()), Endpoint::OkkiGroups, giant(), &["source", "larger than 64 MiB"]).await;
    assert_eq!(outcome.report.source.retries, 0, "it would be as large again");
    fails(world(|_| ()), Endpoint::OkkiProducts, giant(), &["source", "larger than 16 MiB"]).await;
    fails(world(|_| ()), Endpoint::QeasyStore, giant(), &["target", "larger than 1 MiB"]).await;
    fails(world(|_| ()), Endpoint::QeasyToken, giant(), &["target", "larger than 1 MiB"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_named_and_not_followed() {
    let away = || FaultKind::Redirect("https://evil.example/collect".to_owned());
    fails(world(|_| ()), Endpoint::OkkiGroups, away(), &["source", "302", "redirect"]).await;
    fails(world(|_| ()), Endpoint::QeasyStore, away(), &["target", "302", "redirect"]).await;
    fails(http_world(), Endpoint::HttpTarget, away(), &["target", "302", "redirect"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_http_target_that_always_answers_html_is_not_believed() {
    let options = || Options { groups: 200, products: 2000, ..Options::default() };
    for target in ["max_rows_per_batch = 25", "max_rows_per_batch = 25\nsuccess = { \"/code\" = 0 }"] {
        let world = World::new(options(), http(SHAPE, target));
        let outcome = fails(world, Endpoint::HttpTarget, FaultKind::NotJson, &["target", "not JSON"]).await;
        assert_eq!(outcome.report.target.written, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn small_batches_of_many_products_never_pass_the_limit_of_calls() {
    for codes in [A, B, C] {
        let options = Options { groups: 50, products: 1500, codes, ..Options::default() };
        let world = World::new(options, qeasy("products", "max_rows_per_batch = 5"));
        let outcome = world.sync_well().await;
        assert_eq!((outcome.report.target.batches, outcome.report.target.written), (300, 1500));
        world.sandbox.edit(|catalogue| {
            for product in &mut catalogue.products {
                product.name.push('!');
            }
        });
        // A new program right after the first one: it knows the calls of the last minute from the store.
        world.sync_well().await;
        world.assert_complete();
        assert_calm(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lower_than_ours_pauses_and_loses_nothing() {
    let options = Options { groups: 50, products: 500, calls_per_minute: 30, ..Options::default() };
    let world = World::new(options, qeasy("products", "max_rows_per_batch = 10"));
    let mut written = 0;
    for _ in 0..10 {
        let outcome = world.sync().await;
        written += outcome.report.target.written;
        match outcome.report.status {
            Status::Paused => world.wind(outcome.report.resume_after_seconds.unwrap()).await,
            status => {
                assert_eq!(status, Status::Succeeded, "{:?}", outcome.report);
                break;
            }
        }
    }
    assert_eq!(written, 500);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_answer_was_lost_goes_again_if_the_target_cannot_be_asked() {
    for cannot in [
        FaultKind::Status(404),
        FaultKind::Status(403),
        FaultKind::Status(500),
        FaultKind::NotJson,
        FaultKind::BodyCode(40_001, "不支持查询".to_owned()),
    ] {
        for fault in [FaultKind::LostBefore, FaultKind::LostAfter] {
            let world = world(|_| ());
            world.fault(Endpoint::QeasyQuery, cannot.clone(), ALWAYS, 0);
            let (world, outcome) = survives(world, Endpoint::QeasyStore, fault, 2, 3).await;
            assert!(world.calls(Endpoint::QeasyQuery) > 0, "{cannot:?}");
            assert_eq!(outcome.report.quarantined, 0, "{cannot:?}");
        }
        // It is sent again as often as any other call, and no more.
        let world = world(|_| ());
        world.fault(Endpoint::QeasyQuery, cannot.clone(), ALWAYS, 0);
        world.fault(Endpoint::QeasyStore, FaultKind::LostAfter, ALWAYS, 3);
        let outcome = world.sync().await;
        assert_eq!(outcome.error.unwrap().kind, ErrorKind::Unavailable(Side::Target), "{cannot:?}");
        assert_eq!((outcome.report.status, world.calls(Endpoint::QeasyStore)), (Status::Failed, 3 + 1 + 6));
        assert_calm(&world);
    }
}
