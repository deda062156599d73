//! What a run asks, call for call, as time goes on: recorded under `snapshots/`, where a change of the traffic shows as
//! such. CONTRIBUTING.md, Snapshots, says how a change on purpose is accepted.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::Mode;
use okki_sync::testing::sync::RunRequest;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use okki_sync_sandbox::{ChangeMix, ListOrder, Options, Sandbox, TimeFilter, Total};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::support::{World, env, qeasy, request, wall};

/// A source, and all that is asked of it and told to its target.
struct Story {
    world: World,
    began: Instant,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    lines: String,
}

/// A question as a line: `updated 2027-01-15 23:59:00.. page 1 of 20`.
fn question(uri: &str) -> String {
    let url = url::Url::parse(uri).unwrap();
    let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
    let of = |key: &str| query.get(key).map_or("", String::as_str);
    if !url.path().ends_with("/product/list") {
        return url.path().to_owned();
    }
    let time = match of("time_type") {
        "" => "all".to_owned(),
        kind => {
            let name = if kind == "1" { "updated" } else { "created" };
            format!("{name} {}..{}", of("start_time"), of("end_time"))
        }
    };
    let kind = query.get("product_type").map_or(String::new(), |kind| format!(" type {kind}"));
    format!("{time}{kind} page {} of {}", of("start_index"), of("count"))
}

/// What was answered, in short.
fn answer(status: http::StatusCode, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match (body["data"]["list"].as_array(), body["data"].as_array()) {
        (Some(rows), _) => {
            let total = body["data"].get("count").unwrap_or(&body["data"]["totalItem"]);
            format!("{total} in all, {} rows", rows.len())
        }
        (None, Some(groups)) => format!("{} groups", groups.len()),
        _ => status.as_str().to_owned(),
    }
}

/// A router before another that notes questions and answers.
fn noted(inner: Router, asked: &Arc<Mutex<Vec<(Instant, String)>>>) -> Router {
    let asked = Arc::clone(asked);
    Router::new().fallback(move |request: axum::extract::Request| {
        let (inner, asked) = (inner.clone(), Arc::clone(&asked));
        async move {
            let (at, question) = (Instant::now(), question(&request.uri().to_string()));
            let (parts, body) = inner.oneshot(request).await.unwrap().into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let answer = answer(parts.status, &body);
            asked.lock().unwrap().push((at, format!("{question}: {answer}")));
            axum::response::Response::from_parts(parts, Body::from(body))
        }
    })
}

impl Story {
    /// In pages of ten rows, five calls a second.
    fn of(options: Options) -> Self {
        Self::with(options, "page_size = 10\n")
    }

    /// `source`: further lines of `[source]`.
    fn with(options: Options, source: &str) -> Self {
        // Waits have a random part.
        fastrand::seed(7);
        let clock = Clock::pinned();
        let sandbox = Sandbox::new(options, wall(clock));
        let asked = Arc::default();
        let router = noted(sandbox.okki(), &asked);
        let text = qeasy("products", "max_rows_per_batch = 40\n[guard]\nmax_delete_ratio = 1.0\n")
            .replace("[source]\n", &format!("[source]\n{source}"));
        let world = World::of(sandbox, Some(router), env(), text, clock);
        Self { world, began: Instant::now(), asked, lines: String::new() }
    }

    fn ids(&self) -> Vec<String> {
        self.world.sandbox.catalogue().products.into_iter().map(|product| product.product_id).collect()
    }

    async fn run(&mut self, what: &str) {
        self.run_for(what, None).await;
    }

    /// A run, and what was asked in it. `seconds`: it has no more time.
    async fn run_for(&mut self, what: &str, seconds: Option<u64>) {
        let told = self.world.target.seen().len();
        let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let report = self.world.run(&RunRequest { deadline, ..request(Mode::Sync) }, |_| {}).await.report;
        let mut calls: Vec<(Instant, String)> = std::mem::take(&mut *self.asked.lock().unwrap());
        calls.extend(self.world.target.seen().into_iter().skip(told).map(|seen| {
            let body: Value = serde_json::from_str(&seen.body).unwrap_or_default();
            let rows = body["content"].as_array().or(body.as_array()).map_or(0, Vec::len);
            let path = seen.uri.split('?').next().unwrap().rsplit('/').next().unwrap();
            (seen.at, format!("target {path}: {rows} rows"))
        }));
        calls.sort_by_key(|(at, _)| *at);
        writeln!(self.lines, "# {what}").unwrap();
        for (at, call) in calls {
            writeln!(self.lines, "{:>10.3} {call}", at.duration_since(self.began).as_secs_f64()).unwrap();
        }
        let (plan, source, target) = (report.plan, report.source, report.target);
        writeln!(
            self.lines,
            "{:?}: {plan:?}\n{source:?}\n{target:?} quarantined {} remaining {}\n",
            report.status, report.quarantined, report.remaining
        )
        .unwrap();
        if let Some(error) = report.error {
            writeln!(self.lines, "{error}\n").unwrap();
        }
        self.world.wind(600).await;
    }
}

fn small() -> Options {
    Options { groups: 8, products: 120, list_order: ListOrder::ById, ..Options::default() }
}

/// A day in which people change this and that.
async fn day(mut story: Story) -> String {
    story.run("the first run").await;
    story.run("nothing has changed").await;
    let ids = story.ids();
    let people = story.world.sandbox.clone();
    assert!(people.update(&ids[3], |product| product.name = "OEM".to_owned()));
    story.run("one is edited").await;
    assert!(people.remove(&ids[40]));
    story.run("one is deleted").await;
    people.import(13);
    assert!(people.remove(&ids[7]) && people.remove(&ids[90]));
    story.run("a second of 13 is imported, and two are deleted").await;
    assert!(people.restore(&ids[40]) && people.remove(&ids[60]));
    story.run("one is brought back, and another one deleted").await;
    ids[100..112].iter().for_each(|id| assert!(people.remove(id)));
    story.run("twelve are deleted").await;
    story.world.assert_complete();
    story.lines
}

#[tokio::test(start_paused = true)]
async fn a_day_of_a_quiet_source_is_asked_for_as_recorded() {
    insta::assert_snapshot!(day(Story::of(small())).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_a_source_in_another_zone_is_asked_for_as_recorded() {
    let options = Options { filter_clock_offset_s: -28_800, filter: TimeFilter::BothExclusive, ..small() };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_a_source_ahead_of_now_is_asked_for_as_recorded() {
    let options = Options {
        filter_clock_offset_s: 28_800,
        filter: TimeFilter::StartExclusive,
        list_order: ListOrder::NewestUpdateFirst,
        total_item: true,
        ..small()
    };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_small_pages_and_bad_rows_is_asked_for_as_recorded() {
    let options = Options { max_page_size: 7, dirty: true, filter: TimeFilter::EndExclusive, ..small() };
    insta::assert_snapshot!(day(Story::with(options, "page_size = 50\n")).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_totals_that_are_too_large_is_asked_for_as_recorded() {
    let options = Options { total: Total::OneTooMany, ..small() };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_products_without_a_time_is_asked_for_as_recorded() {
    insta::assert_snapshot!(day(Story::of(Options { untimed_rows: 5, ..small() })).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_page_by_page_is_asked_for_as_recorded() {
    let options = Options { filter: TimeFilter::Ignored, synthetic_group: true, ..small() };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_page_by_page_newest_first_is_asked_for_as_recorded() {
    let options =
        Options { filter: TimeFilter::Refused, list_order: ListOrder::NewestUpdateFirstStable, ..small() };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

#[tokio::test(start_paused = true)]
async fn a_day_without_creation_times_is_asked_for_as_recorded() {
    let options = Options { filter: TimeFilter::CreationMeansUpdate, ..small() };
    insta::assert_snapshot!(day(Story::of(options)).await);
}

/// Runs while people change twenty products a minute.
async fn busy(options: Options, source: &str, runs: usize) -> String {
    let edit_mix = ChangeMix { edits: 50, creations: 20, deletions: 20, restores: 10 };
    let mut story = Story::with(Options { edits_per_minute: 20.0, edit_mix, ..options }, source);
    for run in 1..=runs {
        story.run(&format!("run {run}")).await;
    }
    story.lines
}

#[tokio::test(start_paused = true)]
async fn a_busy_source_is_asked_as_recorded() {
    insta::assert_snapshot!(busy(small(), "page_size = 10\n", 3).await);
}

#[tokio::test(start_paused = true)]
async fn a_busy_source_whose_rows_show_late_is_asked_as_recorded() {
    let options = Options {
        visible_late_s: 40,
        late_now_and_then: true,
        list_order: ListOrder::NewestUpdateFirst,
        ..small()
    };
    insta::assert_snapshot!(busy(options, "page_size = 10\nmax_concurrency = 1\n", 3).await);
}

#[tokio::test(start_paused = true)]
async fn a_busy_source_page_by_page_is_asked_as_recorded() {
    let options = Options { filter: TimeFilter::Ignored, ..small() };
    insta::assert_snapshot!(busy(options, "page_size = 40\n", 2).await);
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_too_short_ask_as_recorded() {
    let mut story =
        Story::with(Options { products: 400, edits_per_minute: 1.0, ..small() }, "page_size = 10\n");
    for run in 1..=9 {
        story.run_for(&format!("run {run}"), Some(20)).await;
    }
    insta::assert_snapshot!(story.lines);
}

#[tokio::test(start_paused = true)]
async fn a_second_of_many_products_is_asked_for_as_recorded() {
    let mut story = Story::of(small());
    story.run("the first run").await;
    story.world.sandbox.import(45);
    story.run("a second of 45 is imported").await;
    let ids = story.ids();
    assert!(story.world.sandbox.remove(&ids[130]));
    story.run("one of them is deleted").await;
    insta::assert_snapshot!(story.lines);
}

#[tokio::test(start_paused = true)]
async fn deletions_among_many_windows_are_searched_for_as_recorded() {
    let mut story = Story::with(Options { products: 600, ..small() }, "page_size = 5\n");
    story.run("the first run").await;
    story.lines.clear();
    let ids = story.ids();
    let people = story.world.sandbox.clone();
    assert!(people.remove(&ids[300]));
    story.run("one is deleted").await;
    [20, 310, 590].iter().for_each(|at| assert!(people.remove(&ids[*at])));
    story.run("three are deleted").await;
    assert!(people.restore(&ids[300]) && people.remove(&ids[301]) && people.remove(&ids[450]));
    people.import(1);
    story.run("one is brought back, one created, and two are deleted").await;
    ids[100..230].iter().for_each(|id| assert!(people.remove(id)));
    story.run("130 are deleted").await;
    story.world.assert_complete();
    insta::assert_snapshot!(story.lines);
}

#[tokio::test(start_paused = true)]
async fn a_source_in_trouble_is_asked_again_as_recorded() {
    let mut story = Story::of(small());
    let throttle = |seconds| FaultKind::Throttle { retry_after_seconds: seconds };
    story.world.fault(Endpoint::OkkiGroups, FaultKind::Status(502), 1, 0);
    story.world.fault(Endpoint::OkkiProducts, throttle(Some(9)), 1, 3);
    story.world.fault(Endpoint::OkkiProducts, throttle(None), 2, 6);
    story.world.fault(Endpoint::OkkiProducts, FaultKind::BodyCode(500, "busy".to_owned()), 3, 9);
    story.world.fault(Endpoint::QeasyStore, FaultKind::Status(504), 1, 1);
    story.world.fault(Endpoint::QeasyStore, throttle(None), 1, 2);
    story.run("the first run").await;
    story.run("nothing has changed").await;
    insta::assert_snapshot!(story.lines);
}
