//! The size that the project promises.

use okki_sync_sandbox::faults::Endpoint;
use okki_sync_sandbox::{ListOrder, Options};

use crate::support::{World, assert_rows, expected, qeasy};

#[tokio::test(start_paused = true)]
async fn five_thousand_groups_and_two_hundred_thousand_products_arrive_whole() {
    let options = Options {
        groups: 5000,
        products: 200_000,
        max_page_size: 1000,
        list_order: ListOrder::ById,
        ..Options::default()
    };
    let text = qeasy("groups-with-items", "").replace("[record]", "page_size = 1000\n[record]");
    let world = World::new(options, text);
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.source.groups, outcome.report.source.products), (5000, 200_000));
    assert_eq!((outcome.report.plan.create, outcome.report.target.written), (5000, 5000));
    assert_rows(&world.sandbox.target_rows(), &expected(&world.catalogue(), &world.text));
    // 200 pages; the last page of each of some 22 windows is not full.
    assert!(world.calls(Endpoint::OkkiProducts) < 260, "{}", world.calls(Endpoint::OkkiProducts));

    let calls = world.target_calls();
    let second = world.sync_well().await;
    assert_eq!((second.report.plan.unchanged, world.target_calls()), (5000, calls));
    // Groups, changes, total; the token is warm.
    assert_eq!((second.report.source.requests, second.report.source.full_read), (3, false));
    let stats = world.sandbox.stats();
    assert_eq!((stats.rows_written, stats.lockouts), (5000, 0));
}
