//! A day of virtual time: people change a product every second, and a run begins every hour.
//!
//! `make day` runs it in full, at 200,000 products, and the read of 1,000,000 products at five calls a second.

use std::collections::HashMap;
use std::time::Duration;

use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::RunRequest;
use okki_sync_sandbox::catalogue::Product;
use okki_sync_sandbox::{ListOrder, Options, PastChange, Sandbox};
use tokio::time::Instant;

use crate::support::{World, env, http, wall};

const RUN: Duration = Duration::from_secs(900);
/// When the day begins, so that it is the same one each time.
const MORNING_MS: u64 = 1_800_000_000_000;

fn busy(products: usize, edits_per_minute: f64, list_order: ListOrder) -> World {
    let options = Options {
        groups: 120,
        products,
        edits_per_minute,
        change_log: true,
        journal: edits_per_minute > 0.0,
        row_times: false,
        list_order,
        latency: Duration::from_millis(100),
        ..Options::default()
    };
    let clock = Clock::starting_at_ms(MORNING_MS);
    World::of(Sandbox::new(options, wall(clock)), None, env(), http("products", ""), clock)
}

/// What the target must hold of a product.
fn piece(product: &Product) -> String {
    let name = serde_json::to_string(&product.name).unwrap();
    let cost = product.cost.as_deref().unwrap_or("null");
    format!("\"id\":\"{}\",\"name\":{name},\"cost\":{cost}", product.product_id)
}

/// The last change of each product before `start_ms`, unless another one followed while the run went on.
fn settled(changes: &[PastChange], start_ms: u64) -> HashMap<&str, Option<&Product>> {
    let mut last: HashMap<&str, Option<&Product>> = HashMap::new();
    let (before, since) = changes.split_at(changes.partition_point(|change| change.at_ms < start_ms));
    last.extend(before.iter().map(|change| (change.product_id.as_str(), change.product.as_ref())));
    last.retain(|id, _| since.iter().all(|change| change.product_id != *id));
    last
}

async fn a_day(products: usize, hours: u32, calls_per_second: &str) {
    let world = busy(products, 60.0, ListOrder::NewestUpdateFirst);
    let text = world.text.replace("per_second = 5.0", &format!("per_second = {calls_per_second}"));
    let world = World { text, ..world };
    let mut whole_runs = 0;
    let (mut was_deleted, mut seen) = (std::collections::HashSet::new(), 0);
    for hour in 0..hours {
        let start_ms = world.clock.now_ms();
        let before = world.sandbox.journal(0).len();
        let deadline = Some(Instant::now() + RUN);
        let request = RunRequest { deadline, allow_mass_delete: true, ..RunRequest::new(Mode::Sync) };
        let outcome = world.run(&request, |_| {}).await;
        let report = &outcome.report;
        eprintln!(
            "hour {hour}: {} {:?} {} written, {} deleted, {} s {}",
            report.status.as_str(),
            report.source,
            report.target.written,
            report.target.deleted,
            report.duration_ms / 1_000,
            report.error.as_deref().unwrap_or(""),
        );
        let moved = report.target.written + report.target.deleted + report.source.newly_read.unwrap_or(0);
        assert!(moved > 0, "a run without progress: {report:?}");
        let changes = world.sandbox.changes(0);
        was_deleted.extend(
            changes[seen..]
                .iter()
                .filter(|change| change.product.is_none())
                .map(|change| change.product_id.clone()),
        );
        seen = changes.len();
        for (id, row) in world.sandbox.journal(before) {
            let is_right = !row.get().ends_with(",\"deleted\":true}") || was_deleted.contains(&id);
            assert!(is_right, "product {id} was deleted at the target, and never at the source");
        }
        if matches!(report.status, Status::Succeeded | Status::Partial) {
            whole_runs += 1;
            let rows = world.rows();
            for (id, product) in settled(&changes, start_ms) {
                let theirs = rows.get(id).map(|row| row.get());
                match product {
                    Some(product) => assert!(
                        theirs.is_some_and(|row| row.contains(&piece(product))),
                        "hour {hour}: {id} is {theirs:?} at the target, {product:?} was said before the run"
                    ),
                    None => assert!(
                        theirs.is_none_or(|row| row.ends_with(",\"deleted\":true}")),
                        "hour {hour}: {id} was deleted before the run: {theirs:?}"
                    ),
                }
            }
        }
        let spent = Duration::from_millis(world.clock.now_ms() - start_ms);
        tokio::time::sleep(Duration::from_secs(3_600).saturating_sub(spent)).await;
    }
    assert!(whole_runs * 2 >= hours, "{whole_runs} of {hours} runs came to an end");
}

#[tokio::test(start_paused = true)]
async fn a_working_day_of_an_edit_each_second_arrives() {
    a_day(5_000, 8, "5.0").await;
}

/// A read of everything takes most of a run, and more is deleted in an hour than can be searched for.
#[tokio::test(start_paused = true)]
async fn deletions_are_found_where_comparing_takes_most_of_a_run() {
    a_day(20_000, 3, "0.7").await;
}

#[tokio::test(start_paused = true)]
#[ignore = "make day"]
async fn a_day_of_an_edit_each_second_arrives_in_full() {
    a_day(200_000, 24, "5.0").await;
}

#[tokio::test(start_paused = true)]
#[ignore = "make day"]
async fn a_million_products_are_read_in_three_runs() {
    // Rows of one update second come in the same order each time. Where they do not, it takes a run or two more.
    let world = busy(1_000_000, 0.0, ListOrder::NewestUpdateFirstStable);
    let (mut requests, mut runs) = (0, 0);
    loop {
        runs += 1;
        let deadline = Some(Instant::now() + RUN);
        let request = RunRequest { deadline, ..RunRequest::new(Mode::Sync) };
        let report = world.run(&request, |_| {}).await.report;
        requests += report.source.requests;
        eprintln!("run {runs}: {} {:?}", report.status.as_str(), report.source);
        if report.source.newly_read.is_none() {
            break;
        }
        assert!(runs < 3, "three runs do not read it");
    }
    // A read in one run takes 1.07 calls a page; at most a twentieth of them may be made twice.
    assert!(requests <= 10_700 * 21 / 20, "{requests} calls for 10,000 pages");
}
