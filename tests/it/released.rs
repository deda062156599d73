//! What version 0.1.0 stored goes on working: state, lease, cache and notices as its program wrote them.
//!
//! `tests/fixtures/0.1.0` holds two stores, made with that program against its own sandbox (8 groups, 60 products, seed
//! 1): `finished` after two syncs in which the target refused one row, and a third that failed and was told to a robot;
//! `paused` after a sync that a deadline stopped.

use std::path::Path;

use okki_sync::testing::clock::Clock;
use okki_sync::testing::report::Status;
use okki_sync::testing::sync::Outcome;
use okki_sync_sandbox::{Options, Sandbox};

use crate::support::{World, env, request, wall};

/// The fixtures were made a minute before: 2026-11-24T18:05:30Z.
const NOW_MS: u64 = 1_795_543_530_000;
/// The row that the target refused in `finished`.
const REFUSED: &str = "37004000149";

/// A new program on a store of the old one.
async fn going_on_from(store: &str) -> World {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/0.1.0");
    let pipeline = std::fs::read_to_string(fixtures.join("it.toml")).unwrap();
    let clock = Clock::starting_at_ms(NOW_MS);
    let options = Options { groups: 8, products: 60, synthetic_group: false, ..Options::default() };
    let world = World::of(Sandbox::new(options, wall(clock)), None, env(), pipeline, clock);
    for folder in ["state", "notices", "quarantine/it"] {
        let Ok(files) = std::fs::read_dir(fixtures.join(store).join(folder)) else { continue };
        for file in files {
            let file = file.unwrap();
            let key = format!("{folder}/{}", file.file_name().to_str().unwrap());
            world.app.store().await.unwrap().put(&key, std::fs::read(file.path()).unwrap()).await.unwrap();
        }
    }
    world
}

fn sent(outcome: &Outcome) -> (u64, u64) {
    (outcome.report.target.written, outcome.report.target.deleted)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_where_nothing_changed_and_the_cache_of_products_is_used() {
    let world = going_on_from("finished").await;
    let outcome = world.sync().await;
    let report = &outcome.report;
    assert_eq!(report.status, Status::Partial, "{report:?}");
    assert_eq!((report.plan.unchanged, sent(&outcome), report.quarantined), (59, (0, 0), 1), "{report:?}");
    assert!(!report.source.full_read);
    // The refused row's turn is the fourth run. It was new to the target then, and still is.
    let outcome = world.sync().await;
    assert_eq!((outcome.report.status, sent(&outcome)), (Status::Succeeded, (1, 0)), "{:?}", outcome.report);
    assert!(world.rows().contains_key(REFUSED));
}

#[tokio::test(start_paused = true)]
async fn a_paused_run_is_finished() {
    let world = going_on_from("paused").await;
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.unchanged, sent(&outcome)), (10, (50, 0)), "{:?}", outcome.report);
    // What the source removed meanwhile is deleted, also where it is not known whether the target has it.
    let world = going_on_from("paused").await;
    let gone = world.catalogue().products[30].product_id.clone();
    world.sandbox.edit(|catalogue| catalogue.products.retain(|product| product.product_id != gone));
    let outcome = world.run(&request(okki_sync::testing::report::Mode::Sync), |_| {}).await;
    assert_eq!(sent(&outcome), (49, 1), "{:?}", outcome.report);
}

#[tokio::test(start_paused = true)]
async fn the_calls_of_the_old_program_count_against_the_limit() {
    let world = going_on_from("finished").await;
    let run = async || -> serde_json::Value {
        serde_json::from_str(&world.stored("state/it.run").await.unwrap()).unwrap()
    };
    let last = run().await["target_calls_ms"].as_array().unwrap().last().cloned().unwrap();
    assert!(NOW_MS - last.as_u64().unwrap() < 60_000);
    world.sync().await;
    assert!(run().await["target_calls_ms"].as_array().unwrap().contains(&last));
}
