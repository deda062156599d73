//! Notices, to a robot on a real socket of this machine (and therefore in real time, until a robot hangs).
//!
//! Every test here listens to the log: a line that first comes up where nobody listens may be switched off for all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use okki_sync::app::{App, Judge, Part, PipelineSource, Wires};
use okki_sync::testing::clock::Clock;
use okki_sync::testing::config::Env;
use okki_sync::testing::report::{Mode, Status};
use okki_sync::testing::sync::{Outcome, RunRequest};
use okki_sync_sandbox::{Options, Sandbox};
use serde_json::Value;
use tokio::time::Instant;

use crate::secrets::Lines;
use crate::support::{World, answer, env, qeasy, request, wall};

pub const KEY: &str = "hunter2-of-the-robot";
pub const SECRET: &str = "SECthis-is-a-secret";

/// How a robot answers.
#[derive(Clone, Copy)]
pub enum Mood {
    Takes,
    /// Takes plain text only.
    IsPlain,
    Refuses,
    IsBroken,
    Hangs,
}

/// A robot, and what it was sent: address and text.
#[derive(Clone)]
pub struct Robot {
    address: String,
    mood: Arc<Mutex<Mood>>,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
    hangs_since: Arc<Mutex<Option<Instant>>>,
}

impl Robot {
    pub async fn start(mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let robot = Self {
            address,
            mood: Arc::new(Mutex::new(mood)),
            calls: Arc::default(),
            hangs_since: Arc::default(),
        };
        let serving = robot.clone();
        let router = Router::new().fallback(move |request: axum::extract::Request| {
            let robot = serving.clone();
            async move { robot.answer(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        robot
    }

    async fn answer(&self, request: axum::extract::Request) -> Response {
        let uri = request.uri().to_string();
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let is_plain = body["msgtype"] == "text";
        self.calls.lock().unwrap().push((uri.clone(), body));
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Takes => answer(r#"{"errcode":0,"errmsg":"ok"}"#),
            Mood::IsPlain if is_plain => answer(r#"{"errcode":0,"errmsg":"ok"}"#),
            // It shows what it should keep to itself.
            Mood::IsPlain | Mood::Refuses => {
                answer(format!("{{\"errcode\":310000,\"errmsg\":\"no {uri} {KEY} {SECRET}\"}}"))
            }
            Mood::IsBroken => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Mood::Hangs => {
                // From here on nothing can happen but the caller's timers: they need not be waited for.
                tokio::time::pause();
                *self.hangs_since.lock().unwrap() = Some(Instant::now());
                std::future::pending().await
            }
        }
    }

    pub fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn dingtalk(&self) -> String {
        format!("{}/robot/send?access_token={KEY}", self.address)
    }

    pub fn env(&self) -> Env {
        env().with("NOTIFY_WEBHOOK", &self.dingtalk()).with("NOTIFY_SECRET", SECRET)
    }

    /// What was sent, with form or without.
    pub fn texts(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let text = |body: &Value| {
            body["markdown"]["text"].as_str().or(body["text"]["content"].as_str()).map(str::to_owned)
        };
        calls.iter().map(|(_, body)| text(body).unwrap()).collect()
    }

    /// What was sent since this was last asked.
    pub fn news(&self) -> Vec<String> {
        let texts = self.texts();
        self.calls.lock().unwrap().clear();
        texts
    }
}

pub fn tiny() -> Options {
    Options { groups: 3, products: 5, ..Options::default() }
}

/// A connection on this environment.
pub fn world(env: Env) -> World {
    let clock = Clock::pinned();
    World::of(Sandbox::new(tiny(), wall(clock)), None, env, qeasy("products", ""), clock)
}

const STATE: &str = "state/it.state";
pub const HEALTH: &str = "notices/it.json";

/// Damages the state, so that runs fail before they call anybody; gives back what was there.
pub async fn damage(world: &World) -> String {
    let before = world.state().await.unwrap_or_default();
    world.app.store().await.unwrap().put(STATE, "no state").await.unwrap();
    before
}

pub async fn repair(world: &World, state: String) {
    world.app.store().await.unwrap().put(STATE, state).await.unwrap();
}

pub async fn fail(world: &World) -> Outcome {
    let outcome = world.sync().await;
    assert_eq!(outcome.report.status, Status::Failed, "{:?}", outcome.report);
    assert!(outcome.report.error.as_deref().unwrap().starts_with("BadState: "), "{:?}", outcome.report);
    outcome
}

#[tokio::test]
async fn a_failure_and_the_recovery_are_told_once_each() {
    let lines = Lines::default();
    let _guard = lines.listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let world = world(robot.env());
    let mut outcomes = vec![world.sync_well().await];
    assert_eq!(world.stored(HEALTH).await, None, "a connection that works has nothing to note");

    let state = damage(&world).await;
    outcomes.extend([fail(&world).await, fail(&world).await]);
    let texts = robot.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    let error = "BadState：连接 \"it\" 的状态：已损坏";
    for part in ["okki-sync 同步失败\n", "连接：it\n", &outcomes[1].report.run_id, error] {
        assert!(texts[0].contains(part), "{part} is not in {}", texts[0]);
    }
    let uri = robot.calls.lock().unwrap()[0].0.clone();
    assert!(uri.starts_with(&format!("/robot/send?access_token={KEY}&timestamp=")), "{uri}");
    assert!(uri.contains("&sign="), "{uri}");

    repair(&world, state).await;
    outcomes.extend([world.sync_well().await, world.sync_well().await]);
    let texts = robot.texts();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[1].contains("同步已恢复正常") && texts[1].contains(&outcomes[3].report.run_id),
        "{}",
        texts[1]
    );
    assert!(texts[1].contains(&outcomes[1].report.started_at), "since when: {}", texts[1]);
    assert_silent(&world, &robot, &outcomes, &lines).await;
}

#[tokio::test]
async fn a_failure_that_version_0_1_0_told_is_told_to_be_over_once() {
    let lines = Lines::default();
    let _guard = lines.listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let world = world(robot.env());
    let told = include_str!("../fixtures/0.1.0/finished/notices/it.json");
    world.app.store().await.unwrap().put(HEALTH, told).await.unwrap();
    let outcomes = [world.sync_well().await, world.sync_well().await];
    let texts = robot.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(
        texts[0].contains("同步已恢复正常") && texts[0].contains("2026-11-24T18:04:33.483Z"),
        "{texts:?}"
    );
    assert_silent(&world, &robot, &outcomes, &lines).await;
}

/// Neither the log nor anything that is kept shows how to write to the group.
async fn assert_silent(world: &World, robot: &Robot, outcomes: &[Outcome], lines: &Lines) {
    let mut told = lines.text();
    assert!(told.contains("notice"), "the log is not heard: {told}");
    for outcome in outcomes {
        told.push_str(&format!("{outcome:?}"));
        let report = format!("reports/it/{}.json", outcome.report.run_id);
        told.push_str(&world.stored(&report).await.unwrap_or_default());
    }
    told.push_str(&world.stored(HEALTH).await.unwrap());
    for secret in [KEY, SECRET, &robot.address, "access_token"] {
        assert!(!told.contains(secret), "{secret} shows in {told}");
    }
}

#[tokio::test]
async fn a_robot_that_refuses_or_breaks_or_is_away_hears_it_with_the_next_run() {
    let lines = Lines::default();
    let _guard = lines.listen_to_the_program();
    let robot = Robot::start(Mood::Refuses).await;
    let world = world(robot.env());
    damage(&world).await;
    let mut outcomes = vec![fail(&world).await];
    robot.set(Mood::IsBroken);
    outcomes.push(fail(&world).await);
    assert_eq!(robot.texts().len(), 3, "refused with form and without, then broken");
    assert!(lines.text().contains("310000") && lines.text().contains("HTTP 500"), "{}", lines.text());
    robot.set(Mood::Takes);
    outcomes.extend([fail(&world).await, fail(&world).await]);
    assert_eq!(robot.texts().len(), 4);
    assert_silent(&world, &robot, &outcomes, &lines).await;
}

#[tokio::test]
async fn a_robot_that_is_away_changes_nothing_of_the_run() {
    let _guard = Lines::default().listen_to_the_program();
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let away = format!("http://127.0.0.1:{port}/open-apis/bot/v2/hook/{KEY}");
    let world = world(env().with("NOTIFY_WEBHOOK", &away));
    damage(&world).await;
    fail(&world).await;
    let health = world.stored(HEALTH).await.unwrap();
    assert!(health.contains(r#""unheard":true"#), "nobody heard of it: {health}");
}

#[tokio::test]
async fn a_robot_that_hangs_takes_six_seconds_at_most_and_of_three_runs() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Hangs).await;
    let world = world(robot.env());
    damage(&world).await;
    fail(&world).await;
    let since = robot.hangs_since.lock().unwrap().unwrap();
    assert!(since.elapsed() <= Duration::from_secs(6), "{:?}", since.elapsed());
    // It may have been heard: it is told again, but not for ever. (The robot stops the clock when it hangs.)
    for expected in [2, 3] {
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::time::resume();
        fail(&world).await;
        assert_eq!(robot.texts().len(), expected);
    }
    tokio::time::advance(Duration::from_secs(6)).await;
    let again = Instant::now();
    for _ in 0..2 {
        fail(&world).await;
    }
    assert!(again.elapsed() < Duration::from_secs(4), "{:?}", again.elapsed());
    assert_eq!(robot.texts().len(), 3);
    assert!(!world.stored(HEALTH).await.unwrap().contains("waiting"));
}

#[tokio::test]
async fn no_notice_without_time_or_after_a_stop_or_of_another_mode() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let world = world(robot.env());
    damage(&world).await;
    let deadline = Instant::now().checked_add(Duration::from_millis(2_900));
    world.run(&RunRequest { deadline, ..request(Mode::Sync) }, |_| {}).await;
    world.plan().await;
    world.verify().await;
    world.app.stop();
    world.sync().await;
    assert_eq!((robot.texts(), world.stored(HEALTH).await), (Vec::new(), None));
}

#[tokio::test]
async fn an_address_of_no_robot_is_a_warning_and_no_record() {
    let lines = Lines::default();
    let _guard = lines.listen_to_the_program();
    let world = world(env().with("NOTIFY_WEBHOOK", &format!("https://example.com/{KEY}")));
    damage(&world).await;
    fail(&world).await;
    assert_eq!(lines.text().matches("no notices are sent").count(), 1, "{}", lines.text());
    assert!(!lines.text().contains(KEY));
    assert_eq!(world.stored(HEALTH).await, None);
    let from = PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() };
    let mistakes = world.app.check(from, Judge::AsFound).await.mistakes;
    let of_the_robot = mistakes.iter().find(|(_, mistake)| mistake.place == "credentials NOTIFY_WEBHOOK");
    assert_eq!(of_the_robot.map(|(part, _)| *part), Some(Part::Credentials), "{mistakes:?}");
}

#[tokio::test]
async fn a_pipeline_with_a_mistake_is_told_and_its_correction_too() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let mut world = world(robot.env());
    let good = std::mem::replace(&mut world.text, "nonsense = 1".to_owned());
    for _ in 0..2 {
        assert_eq!(world.sync().await.report.status, Status::Failed);
    }
    world.text = good;
    world.sync_well().await;
    let texts = robot.texts();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("连接：t.toml\n") && texts[0].contains("BadPipeline："), "{}", texts[0]);
    assert!(texts[1].contains("连接：t.toml\n") && texts[1].contains("恢复"), "{}", texts[1]);
}

#[tokio::test]
async fn a_connection_without_credentials_is_told_by_its_own_name() {
    let _guard = Lines::default().listen_to_the_program();
    let robot = Robot::start(Mood::Takes).await;
    let app = App::with_wires(robot.env().with("OKKI_CLIENT_ID", ""), Wires::default(), Clock::system());
    let from = PipelineSource::Text { name: "t.toml".to_owned(), text: qeasy("products", "") };
    let outcome = app.run(from, &request(Mode::Sync), &|_| {}).await;
    assert_eq!(outcome.report.status, Status::Failed);
    let texts = robot.texts();
    assert!(texts.len() == 1 && texts[0].contains("连接：it\n"), "{texts:?}");
    assert!(texts[0].contains("MissingCredentials："), "{texts:?}");
}
