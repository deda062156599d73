//! `check --online`: what both sides say to a setup, at the wire.

use okki_sync::app::{Checked, Judge, Part, PipelineSource};
use okki_sync::testing::clock::Clock;
use okki_sync_sandbox::Sandbox;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};

use crate::support::{World, env, http, qeasy, small, wall};

async fn asked(world: &World) -> Checked {
    let from = PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    let mut checked = world.app.check(from.clone(), Judge::AsFound).await;
    world.app.check_online(&from, &mut checked).await;
    checked
}

fn mistakes(checked: &Checked) -> Vec<(Part, String)> {
    checked.mistakes.iter().map(|(part, mistake)| (*part, mistake.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn both_sides_say_what_they_hold_and_nothing_is_written() {
    let world = World::new(small(), qeasy("groups-with-items", ""));
    let checked = asked(&world).await;
    assert_eq!(mistakes(&checked), []);
    let online = serde_json::to_value(checked.online).unwrap();
    assert_eq!(
        online,
        serde_json::json!({ "source": { "groups": 40, "products": 300 }, "target": { "rows": 0 } })
    );
    assert_eq!(world.state().await, None);
    assert_eq!(world.stored("reports/it").await, None);
    let rows = world.sync_well().await.report.target.written;
    let online = asked(&world).await.online.unwrap();
    assert_eq!(online.target.unwrap().rows, Some(rows));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_and_an_unknown_scheme_are_lines_with_what_to_do() {
    let clock = Clock::pinned();
    let known = env().with("OKKI_CLIENT_SECRET", "wrong").with("QEASY_SCHEME_ID", "no-such-scheme");
    let sandbox = Sandbox::new(small(), wall(clock));
    let world = World::of(sandbox, None, known, qeasy("groups", ""), clock);
    let checked = asked(&world).await;
    let found = mistakes(&checked);
    assert_eq!(found.iter().map(|(part, _)| *part).collect::<Vec<_>>(), [Part::Source, Part::Target]);
    assert!(found[0].1.starts_with("source: ") && found[0].1.contains("OKKI_CLIENT_SECRET"), "{found:?}");
    assert!(found[1].1.starts_with("target: ") && found[1].1.contains("target.scheme_id"), "{found:?}");
    assert!(!format!("{found:?}").contains("wrong"));
    let online = checked.online.unwrap();
    assert_eq!((online.source, online.target), (None, None));
}

#[tokio::test(start_paused = true)]
async fn one_side_is_well_where_the_other_is_not() {
    let world = World::new(small(), qeasy("products", ""));
    world.fault(Endpoint::QeasyQuery, FaultKind::Status(500), 50, 0);
    let checked = asked(&world).await;
    let found = mistakes(&checked);
    assert!(found.len() == 1 && found[0].0 == Part::Target, "{found:?}");
    assert_eq!(checked.online.unwrap().source.unwrap().products, Some(300));
    let http = World::new(small(), http("groups", "").replace("read_url", "# read_url"));
    let found = mistakes(&asked(&http).await);
    assert!(found.len() == 1 && found[0].1.contains("target.read_url"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_setup_with_mistakes_calls_nobody() {
    let world = World::of(
        Sandbox::new(small(), wall(Clock::pinned())),
        None,
        env().with("QEASY_APP_KEY", ""),
        qeasy("groups", ""),
        Clock::pinned(),
    );
    let checked = asked(&world).await;
    assert_eq!((mistakes(&checked).len(), checked.online), (1, None));
    assert_eq!((world.source.seen().len(), world.target.seen().len()), (0, 0));
}
