//! What one answer must not decide: how everything is read, for a day.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::Status;
use okki_sync_sandbox::{ChangeMix, ListOrder, Options, Sandbox, TimeFilter};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::endurance::before;
use crate::read::{fast, fast_in_pages_of, ledger};
use crate::support::{World, answer, env, wall};

fn options() -> Options {
    Options { groups: 20, products: 3_000, ..Options::default() }
}

/// The sandbox's OKKI; what `answer` returns to the question of this number (from 1) for changes comes instead of its own.
fn asked_for_changes(
    sandbox: &Sandbox,
    answer: impl Fn(u32) -> Option<Response> + Send + Sync + 'static,
) -> Router {
    let questions = AtomicU32::new(0);
    before(sandbox.okki(), move |_, uri| {
        let is_asked = uri.contains("time_type=1");
        is_asked.then(|| answer(questions.fetch_add(1, Ordering::Relaxed) + 1)).flatten()
    })
}

fn refusal() -> Response {
    (http::StatusCode::BAD_REQUEST, r#"{"code":400,"message":"参数错误"}"#).into_response()
}

/// A page of products as text.
async fn list_text(source: Router, request: Request) -> String {
    let page = source.oneshot(request).await.unwrap().into_body();
    String::from_utf8(to_bytes(page, usize::MAX).await.unwrap().to_vec()).unwrap()
}

/// A page of products.
async fn list(source: Router, request: Request) -> Value {
    serde_json::from_str(&list_text(source, request).await).unwrap()
}

async fn read_whole_because(world: &World) -> Value {
    ledger(world).await["whole_because"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_refused_once_is_asked_again_before_it_is_believed() {
    let sandbox = Sandbox::new(options(), wall(Clock::pinned()));
    let refused = |number| [1, 7].contains(&number).then(refusal);
    let source = asked_for_changes(&sandbox, refused);
    let world = World::of(sandbox, Some(source), env(), fast("products"), Clock::pinned());
    let report = world.sync_well().await.report;
    assert_eq!(report.source.retries, 2);
    assert_eq!(read_whole_because(&world).await, Value::Null);
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_busy_catalogue_that_was_read_page_by_page_is_tried_in_windows_again() {
    for text in [fast("products"), fast("products").replace("[source]", "[source]\nproducts = \"full\"")] {
        let list_order = ListOrder::NewestUpdateFirstStable;
        let sandbox = Sandbox::new(Options { list_order, ..options() }, wall(Clock::pinned()));
        let is_refused = Arc::new(AtomicBool::new(true));
        let refuses = Arc::clone(&is_refused);
        let source = asked_for_changes(&sandbox, move |_| refuses.load(Ordering::Relaxed).then(refusal));
        let world = World::of(sandbox, Some(source), env(), text, Clock::pinned());
        world.sync_well().await;
        assert!(read_whole_because(&world).await.is_string());
        is_refused.store(false, Ordering::Relaxed);
        world.sandbox.set_options(|options| {
            options.edits_per_minute = 600.0;
            options.edit_mix = ChangeMix { edits: 20, creations: 50, deletions: 30, restores: 0 };
        });
        world.wind(600).await;
        let report = world.sync().await.report;
        assert_eq!(report.status, Status::Succeeded, "{report:?}");
        assert_eq!(read_whole_because(&world).await, Value::Null);
        world.sandbox.set_options(|options| options.edits_per_minute = 0.0);
        world.wind(120).await;
        world.sync().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn the_ends_of_a_range_are_found_although_the_row_that_shows_them_goes() {
    let (clock, filter) = (Clock::pinned(), TimeFilter::EndExclusive);
    let sandbox = Sandbox::new(Options { filter, ..options() }, wall(clock));
    // Imports: seconds with many products, on whose borders windows begin and end.
    let last = sandbox.clone();
    let source = asked_for_changes(&sandbox, move |number| {
        if number == 8 {
            let newest = last.catalogue().products.iter().max_by_key(|product| product.update_time).cloned();
            assert!(last.remove(&newest.unwrap().product_id));
        }
        None
    });
    let world = World::of(sandbox, Some(source), env(), fast("products"), clock);
    for _ in 0..5 {
        world.sandbox.import(700);
        world.wind(1).await;
    }
    world.wind(200).await;
    world.sandbox.import(1);
    world.wind(100).await;
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_product_created_between_two_pages_hides_no_other_one_from_them() {
    for was_created_lately in [false, true] {
        // By id: where the first one goes and another one comes at the end, the total stays, and page 2 begins a row late.
        let options = Options { products: 60, list_order: ListOrder::ById, ..options() };
        let sandbox = Sandbox::new(options, wall(Clock::pinned()));
        let products = sandbox.catalogue().products;
        let first = products.into_iter().map(|product| product.product_id).min().unwrap();
        let (people, goes, is_due) = (sandbox.clone(), first.clone(), Arc::new(AtomicBool::new(false)));
        let due = Arc::clone(&is_due);
        let source = before(sandbox.okki(), move |_, uri| {
            if uri.contains("time_type=1") {
                return Some(refusal());
            }
            if uri.ends_with("start_index=2&count=20") && due.swap(false, Ordering::Relaxed) {
                assert!(people.remove(&goes));
                people.import(1);
            }
            None
        });
        let text = fast_in_pages_of(20, "products");
        let world = World::of(sandbox, Some(source), env(), text, Clock::pinned());
        if was_created_lately {
            world.sandbox.import(1);
            world.wind(60).await;
        }
        world.sync_well().await;
        is_due.store(true, Ordering::Relaxed);
        world.sync_well().await;
        assert!(!is_due.load(Ordering::Relaxed));
        let rows = world.rows().into_iter();
        let gone: Vec<String> =
            rows.filter(|(_, row)| row.get().contains("\"deleted\":true")).map(|(id, _)| id).collect();
        assert_eq!(gone, [first]);
        world.sync_well().await;
        world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_counts_all_products_in_each_range_is_read_whole() {
    let sandbox = Sandbox::new(Options { products: 300, ..options() }, wall(Clock::pinned()));
    let (inner, people) = (sandbox.okki(), sandbox.clone());
    let source = Router::new().fallback(move |request: Request| {
        let (inner, people) = (inner.clone(), people.clone());
        async move {
            if !request.uri().path().ends_with("/product/list") {
                return inner.oneshot(request).await.unwrap();
            }
            // As text: a number keeps its digits.
            let page = list_text(inner, request).await;
            let (before, count) = page.split_once("\"count\":").unwrap();
            let after = count.trim_start_matches(|digit: char| digit.is_ascii_digit());
            answer(format!("{before}\"count\":{}{after}", people.catalogue().products.len()))
        }
    });
    let world = World::of(sandbox, Some(source), env(), fast_in_pages_of(20, "products"), Clock::pinned());
    world.sync_well().await;
    assert!(world.source.seen().iter().any(|seen| seen.uri.ends_with("start_index=15&count=20")));
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_hides_at_a_border_of_two_pages_is_found_in_other_pages() {
    // Two rows of one second change places each time that the border between them is asked for.
    let sandbox = Sandbox::new(
        Options { products: 60, filter: TimeFilter::Ignored, ..options() },
        wall(Clock::pinned()),
    );
    let inner = sandbox.okki();
    let source = Router::new().fallback(move |request: Request| {
        let inner = inner.clone();
        async move {
            let uri = request.uri().to_string();
            if !uri.contains("start_index=3&count=20") {
                return inner.oneshot(request).await.unwrap();
            }
            let mut page_2 = Request::new(Body::empty());
            *page_2.headers_mut() = request.headers().clone();
            *page_2.uri_mut() = uri.replace("start_index=3", "start_index=2").parse().unwrap();
            let before = list(inner.clone(), page_2).await;
            let mut page = list(inner, request).await;
            page["data"]["list"][0] = before["data"]["list"][19].clone();
            answer(page.to_string())
        }
    });
    let text = fast_in_pages_of(20, "products");
    let world = World::of(sandbox, Some(source), env(), text, Clock::pinned());
    world.sync_well().await;
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_empty_has_its_filters_checked_when_it_is_not() {
    let (filter, list_order) = (TimeFilter::CreationIgnored, ListOrder::ById);
    let world = World::new(Options { products: 0, filter, list_order, ..options() }, fast("products"));
    world.sync().await;
    world.wind(600).await;
    world.sandbox.import(300);
    world.wind(600).await;
    let report = world.sync_well().await.report;
    assert!(report.source.requests < 60, "{report:?}");
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_product_twice_in_a_second_of_many_pages_costs_later_runs_nothing() {
    let options = Options { list_order: ListOrder::ById, max_page_size: 20, ..options() };
    let world = World::new(options, fast_in_pages_of(20, "products"));
    world.sync_well().await;
    world.wind(3_600).await;
    let id = world.sandbox.import(90)[40].clone();
    world.sandbox.edit(|catalogue| {
        let twin = catalogue.products.iter().find(|product| product.product_id == id).cloned();
        catalogue.products.extend(twin);
    });
    world.wind(180).await;
    let outcome = world.sync().await;
    assert_eq!((outcome.report.plan.create, outcome.report.quarantined), (90, 1), "{:?}", outcome.report);
    assert!(outcome.report.source.requests <= 182, "{:?}", outcome.report);
    assert!(outcome.rejected[0].reason.contains("repeated"), "{}", outcome.rejected[0].reason);
    world.wind(180).await;
    world.sync().await;
    world.wind(180).await;
    let report = world.sync().await.report;
    assert_eq!((report.source.requests, report.quarantined, report.plan.delete), (3, 1, 0), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_rows_with_one_id_the_one_created_earlier_stays_whenever_it_comes() {
    let options = Options { list_order: ListOrder::ById, ..options() };
    let world = World::new(options, fast_in_pages_of(20, "products"));
    world.sync_well().await;
    let mut later = String::new();
    world.sandbox.edit(|catalogue| {
        let mut twin = catalogue.products[2_000].clone();
        later.clone_from(&twin.name);
        (twin.name, twin.create_time) = ("the earlier one".to_owned(), catalogue.products[20].create_time);
        catalogue.products.push(twin);
    });
    world.wind(26 * 3_600).await;
    let outcome = world.sync().await;
    assert_eq!((outcome.report.plan.update, outcome.report.quarantined), (1, 1), "{:?}", outcome.report);
    let [rejected] = outcome.rejected.as_slice() else { panic!("one row is set aside") };
    let id = rejected.id.as_deref().unwrap();
    assert!(world.rows()[id].get().contains("the earlier one"), "{}", world.rows()[id]);
    // Of the row that was known, what the pipeline uses is left.
    let raw = rejected.raw.get();
    assert!(raw.contains(&later) && raw.contains(id) && raw.contains("group_id"), "{raw}");
}
