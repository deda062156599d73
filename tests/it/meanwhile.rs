//! Products that people bring back, create or delete while a run compares: they hide no other one that goes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use okki_sync::testing::clock::Clock;
use okki_sync_sandbox::catalogue::Product;
use okki_sync_sandbox::{ListOrder, Options, Sandbox};

use crate::endurance::before;
use crate::read::{fast_in_pages_of, ledger};
use crate::support::{World, env, wall};

/// A source in pages of 20 rows where people do something just before a question of some kind is answered.
struct Moment {
    world: World,
    /// Of all products, in a test's order.
    ids: Vec<String>,
    /// How many such questions there were.
    asked: Arc<AtomicU32>,
}

const NOT_YET: u32 = u32::MAX / 2;

fn by_id(product: &Product) -> String {
    product.product_id.clone()
}

impl Moment {
    /// `order`: of the ids. `act` gets the number of each question that `is_meant`, from 1 since [`Moment::begin`].
    fn of<K: Ord>(
        products: usize,
        order: impl Fn(&Product) -> K,
        is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
        act: impl Fn(&Sandbox, &[String], u32) + Send + Sync + 'static,
    ) -> Self {
        let options = Options { groups: 20, products, list_order: ListOrder::ById, ..Options::default() };
        let sandbox = Sandbox::new(options, wall(Clock::pinned()));
        let mut products = sandbox.catalogue().products;
        products.sort_by_key(order);
        let ids: Vec<String> = products.into_iter().map(|product| product.product_id).collect();
        let asked = Arc::new(AtomicU32::new(NOT_YET));
        let (people, known, counter) = (sandbox.clone(), ids.clone(), Arc::clone(&asked));
        let source = before(sandbox.okki(), move |_, uri| {
            if is_meant(uri) {
                act(&people, &known, counter.fetch_add(1, Ordering::Relaxed) + 1);
            }
            None
        });
        let text = fast_in_pages_of(20, "products");
        Self { world: World::of(sandbox, Some(source), env(), text, Clock::pinned()), ids, asked }
    }

    /// From now on questions count.
    fn begin(&self) {
        self.asked.store(0, Ordering::Relaxed);
    }

    /// A product goes, and the next run sees it.
    async fn remove_and_sync(&self, id: &str) {
        assert!(self.world.sandbox.remove(id));
        self.world.wind(3_600).await;
        self.world.sync_well().await;
    }

    fn deleted_at_target(&self) -> Vec<&String> {
        let rows = self.world.rows();
        self.ids.iter().filter(|id| rows[*id].get().contains("\"deleted\":true")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_product_restored_between_two_pages_hides_no_other_one_from_them() {
    // A run looks six times at most, and leaves the rest to the next one.
    for looks in [1, 2, 14] {
        let is_page_2 = |uri: &str| uri.contains("start_index=2&count=20&time_type=2");
        let moment = Moment::of(100, by_id, is_page_2, move |people, ids, asked| {
            // The total stays, and page 2 begins a row late.
            if asked <= looks {
                let at = asked as usize - 1;
                assert!(people.remove(&ids[at]) && people.restore(&ids[80 + at]));
            }
        });
        moment.world.sync_well().await;
        let restored = 80..80 + looks as usize;
        for at in restored.clone() {
            moment.remove_and_sync(&moment.ids[at]).await;
        }
        moment.begin();
        moment.remove_and_sync(&moment.ids[97]).await;
        let asked = moment.asked.load(Ordering::Relaxed);
        assert!(asked >= (looks + 1).min(6), "the window is read again: {asked}");
        let may_be_gone: Vec<&String> =
            (0..looks as usize).chain(restored).chain([97]).map(|at| &moment.ids[at]).collect();
        let gone = moment.deleted_at_target();
        assert!(gone.iter().all(|id| may_be_gone.contains(id)), "{gone:?}");
        moment.world.wind(3_600).await;
        moment.world.sync_well().await;
        moment.world.assert_complete();
    }
}

#[tokio::test(start_paused = true)]
async fn a_product_restored_while_windows_are_searched_hides_no_deletion() {
    let is_part = |uri: &str| uri.contains("count=1&time_type=2&start_time=1970");
    let moment = Moment::of(
        3_000,
        |product| product.create_time,
        is_part,
        |people, ids, asked| {
            // The first is the total of all windows, the second one that of their older half.
            if asked == 2 {
                assert!(people.restore(&ids[0]));
            }
        },
    );
    moment.world.sync_well().await;
    moment.remove_and_sync(&moment.ids[0]).await;
    moment.begin();
    moment.world.sandbox.import(1);
    moment.remove_and_sync(&moment.ids[1_000]).await;
    assert_eq!(moment.deleted_at_target(), [&moment.ids[1_000]]);
    moment.world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_product_that_goes_while_others_come_is_found_in_the_same_run() {
    let is_total = |uri: &str| uri.ends_with("start_index=1&count=1");
    let moment = Moment::of(60, by_id, is_total, |people, ids, asked| {
        // The second total is that of the first: one more has come, and one is gone.
        people.import(usize::from(asked <= 2));
        assert!(asked != 2 || people.remove(&ids[5]));
    });
    moment.world.sync_well().await;
    moment.world.wind(3_600).await;
    moment.begin();
    let plan = moment.world.sync_well().await.report.plan;
    assert_eq!((plan.create, plan.delete), (2, 1));
    moment.world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_product_that_goes_while_its_window_is_read_again_costs_one_more_total() {
    let is_page_1 = |uri: &str| uri.contains("start_index=1&count=20&time_type=2");
    let moment = Moment::of(60, by_id, is_page_1, |people, ids, asked| {
        assert!(asked != 1 || people.remove(&ids[1]));
    });
    moment.world.sync_well().await;
    moment.world.wind(3_600).await;
    moment.begin();
    assert!(moment.world.sandbox.remove(&moment.ids[0]));
    let report = moment.world.sync_well().await.report;
    assert_eq!((report.plan.delete, report.source.requests), (2, 12), "{report:?}");
    assert_eq!(ledger(&moment.world).await["unsettled_runs"], 0);
    moment.world.assert_complete();
}
