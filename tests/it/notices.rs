//! What a group is told of changes that are no failures: rows set aside, a connection that stands still, and what waits.
//!
//! Every test here listens to the log, as those of `notify.rs` do.

use std::time::Duration;

use okki_sync::testing::report::Status;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};
use serde_json::{Value, json};

use crate::notify::{HEALTH, Mood, Robot, damage, fail, repair, world};
use crate::secrets::Lines;
use crate::support::World;

/// Moves the clock of a test that runs in real time.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Puts the first products into a group that does not exist: they cannot go through.
fn spoil(world: &World, products: usize) {
    world.sandbox.edit(|catalogue| {
        for product in catalogue.products.iter_mut().take(products) {
            product.group_id = "404".to_owned();
        }
    });
}

async fn pause_once(world: &World) {
    let kind = FaultKind::Throttle { retry_after_seconds: Some(3_000) };
    world.fault(Endpoint::OkkiGroups, kind, 1, 0);
    let outcome = world.sync().await;
    assert_eq!(outcome.report.status, Status::Paused, "{:?}", outcome.report);
}

async fn file(world: &World) -> Value {
    serde_json::from_str(&world.stored(HEALTH).await.unwrap()).unwrap()
}

#[tokio::test]
async fn rows_set_aside_are_told_with_name_and_reason_and_so_is_their_end() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let world = world(robot.env());
    world.sync_well().await;
    assert_eq!(robot.news(), [""; 0]);
    let before = world.catalogue();
    spoil(&world, 2);
    for expected in [1, 0] {
        pass(minutes(5)).await;
        assert_eq!(world.sync().await.report.status, Status::Partial);
        let news = robot.news();
        assert_eq!(news.len(), expected, "{news:?}");
        for told in news {
            let name = &before.products[0].name;
            for part in
                ["okki-sync 新增 2 行进入隔离区", "隔离区现有行数：2", name.as_str(), "404", "连接：it"]
            {
                assert!(told.contains(part), "{part} is not in {told}");
            }
        }
    }
    world.sandbox.edit(|catalogue| catalogue.products.clone_from(&before.products));
    pass(minutes(5)).await;
    world.sync_well().await;
    let news = robot.news();
    assert!(news.len() == 1 && news[0].contains("隔离区已清空"), "{news:?}");
    pass(minutes(5)).await;
    world.sync_well().await;
    assert_eq!(robot.news(), [""; 0]);
}

#[tokio::test]
async fn a_connection_that_only_pauses_is_told_and_its_next_good_run_too() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let mut world = world(robot.env());
    world.text.push_str(
        "[notify]\nlang = \"en\"\nstale_after = \"3h\"\nreport_url = \"https://host/{connection}\"\n",
    );
    world.sync_well().await;
    for expected in [0, 0, 1, 0] {
        pass(minutes(61)).await;
        pause_once(&world).await;
        let news = robot.news();
        assert_eq!(news.len(), expected, "{news:?}");
        for told in news {
            for part in [
                "no sync has completed for 3h 3m",
                "last completed run: 20",
                "it only pauses",
                "(https://host/it)",
            ] {
                assert!(told.contains(part), "{part} is not in {told}");
            }
        }
    }
    pass(minutes(61)).await;
    world.sync_well().await;
    let news = robot.news();
    assert!(news.len() == 1 && news[0].contains("the sync works again"), "{news:?}");
}

#[tokio::test]
async fn in_quiet_hours_a_failure_is_told_and_rows_wait_until_they_end() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let mut world = world(robot.env());
    // From a minute ago on, for an hour.
    let minute = world.clock.now_ms() / 60_000 % 1_440;
    let time = |minute: u64| format!("{:02}:{:02}", minute % 1_440 / 60, minute % 60);
    let hours = format!("{}-{} UTC", time(minute + 1_439), time(minute + 59));
    world.text.push_str(&format!("[notify]\nquiet_hours = \"{hours}\"\n"));
    spoil(&world, 1);
    assert_eq!(world.sync().await.report.status, Status::Partial);
    assert_eq!(robot.news(), [""; 0]);
    let state = damage(&world).await;
    fail(&world).await;
    let news = robot.news();
    assert!(news.len() == 1 && news[0].contains("同步失败"), "{news:?}");
    repair(&world, state).await;
    pass(minutes(61)).await;
    world.sync().await;
    let news = robot.news();
    assert_eq!(news.len(), 1, "{news:?}");
    for part in ["同步已恢复正常", "新增 1 行进入隔离区"] {
        assert!(news[0].contains(part), "{part} is not in {}", news[0]);
    }
    world.sync().await;
    assert_eq!(robot.news(), [""; 0]);
}

#[tokio::test]
async fn the_digest_of_a_day_comes_once_with_its_numbers() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let mut world = world(robot.env());
    let minute = world.clock.now_ms() / 60_000 % 1_440 + 30;
    let time = format!("{:02}:{:02} +00:00", minute % 1_440 / 60, minute % 60);
    world.text.push_str(&format!("[notify]\ndaily_digest = \"{time}\"\n"));
    let written = world.sync_well().await.report.target.written;
    assert_eq!(robot.news(), [""; 0]);
    pass(minutes(31)).await;
    world.sync_well().await;
    let news = robot.news();
    assert_eq!(news.len(), 1, "{news:?}");
    for part in ["每日摘要", "完成 2 次，暂停 0 次，失败 0 次", &format!("写入 {written}，删除 0")]
    {
        assert!(news[0].contains(part), "{part} is not in {}", news[0]);
    }
    world.sync_well().await;
    assert_eq!(robot.news(), [""; 0]);
}

#[tokio::test]
async fn a_robot_that_takes_no_form_gets_plain_text_once() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::IsPlain).await;
    let world = world(robot.env());
    damage(&world).await;
    fail(&world).await;
    let news = robot.news();
    assert!(news.len() == 2 && news[1].starts_with("okki-sync 同步失败\n连接：it\n"), "{news:?}");
    fail(&world).await;
    assert_eq!(robot.news(), [""; 0]);
}

#[tokio::test]
async fn a_message_of_a_run_that_was_killed_is_told_by_the_next_one() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Refuses).await;
    let world = world(robot.env());
    damage(&world).await;
    fail(&world).await;
    robot.news();
    robot.set(Mood::Takes);
    let mut known = file(&world).await;
    assert_eq!(known["waiting"][0]["topic"], "failed");
    // Killed after it had claimed the message: nobody knows whether it was sent.
    let claim = |tries: u32, ago: Duration| json!({ "tries": tries, "at_ms": world.clock.now_ms() - u64::try_from(ago.as_millis()).unwrap() });
    let store = world.app.store().await.unwrap();
    for (attempt, expected) in
        [(claim(1, Duration::ZERO), 0), (claim(3, minutes(1)), 0), (claim(2, minutes(1)), 1)]
    {
        known["attempt"] = attempt;
        store.put(HEALTH, known.to_string()).await.unwrap();
        fail(&world).await;
        assert_eq!(robot.news().len(), expected, "{known}");
    }
    assert_eq!(file(&world).await.get("waiting"), None);
    fail(&world).await;
    assert_eq!(robot.news(), [""; 0]);
}

#[tokio::test]
async fn two_runs_that_end_together_tell_one_change_once() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let world = world(robot.env());
    damage(&world).await;
    let outcomes = tokio::join!(world.sync(), world.sync(), world.sync());
    assert!(outcomes.0.error.is_some() && outcomes.1.error.is_some() && outcomes.2.error.is_some());
    assert_eq!(robot.news().len(), 1);
    fail(&world).await;
    assert_eq!(robot.news(), [""; 0]);
}
