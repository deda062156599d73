//! What reading costs in calls, at the size that the project promises.

use okki_sync_sandbox::faults::Endpoint;
use okki_sync_sandbox::{ListOrder, Options, Stats};

use crate::support::{World, qeasy};

const PRODUCTS: usize = 200_000;
const PAGES: u64 = 2_000;

fn world(edits_per_minute: f64, list_order: ListOrder) -> World {
    let text = qeasy("products", "max_rows_per_batch = 5000");
    World::new(
        Options { groups: 100, products: PRODUCTS, edits_per_minute, list_order, ..Options::default() },
        text,
    )
}

fn list_calls(stats: &Stats) -> u64 {
    stats.calls[&Endpoint::OkkiProducts]
}

#[tokio::test(start_paused = true)]
async fn reading_200_000_products_costs_little_more_than_their_pages() {
    let world = world(0.0, ListOrder::NewestUpdateFirstStable);
    world.sync_well().await;
    let first = list_calls(&world.sandbox.stats());
    // The parts that are read again by turns come on top: they are the daily full read, spread out.
    let quiet = async |deleted: u64| {
        let report = world.sync_well().await.report;
        assert_eq!((report.plan.delete, report.source.full_read), (deleted, false), "{report:?}");
        report.source.requests
    };
    assert_eq!(quiet(0).await, 3, "no change, and a warm token");
    let ids: Vec<String> = world
        .sandbox
        .catalogue()
        .products
        .iter()
        .step_by(PRODUCTS / 11 + 1)
        .map(|p| p.product_id.clone())
        .collect();
    assert!(world.sandbox.remove(&ids[0]));
    let one = quiet(1).await;
    ids[1..].iter().for_each(|id| assert!(world.sandbox.remove(id)));
    let ten = quiet(ids.len() as u64 - 1).await;
    assert!(first * 1000 <= PAGES * 1075 && one <= 25 && ten <= 160, "{first} {one} {ten}");
}

#[tokio::test(start_paused = true)]
async fn six_hundred_changes_an_hour_make_a_read_a_third_dearer_at_most() {
    let world = world(10.0, ListOrder::NewestUpdateFirstStable);
    world.sync_well().await;
    let first = list_calls(&world.sandbox.stats());
    assert!(first * 10 <= PAGES * 13, "{first}");
}

#[tokio::test(start_paused = true)]
async fn the_first_read_of_400_products_asks_few_questions() {
    let options = Options { groups: 20, products: 400, ..Options::default() };
    let world = World::new(options, qeasy("products", ""));
    world.sync_well().await;
    let first = list_calls(&world.sandbox.stats());
    assert!(first <= 38, "{first} calls for 4 pages");
}
