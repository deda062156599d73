//! The real program over real sockets: exit codes, output, Ctrl-C, `kill -9`, two at once.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use okki_sync::testing::clock::Clock;
use okki_sync_sandbox::faults::{Endpoint, Fault, FaultKind};
use okki_sync_sandbox::{Options, Sandbox, Serving};
use serde_json::Value;

/// Only a program that hangs takes so long, on a machine however slow.
const HANGS: Duration = Duration::from_secs(600);

const PIPELINE: &str = r#"
connection = "acme"
[source]
max_requests_per_second = 100
[record]
shape = "products"
[target]
kind = "qeasy"
requests_per_minute = 5000
max_rows_per_batch = 50
"#;

/// A served sandbox and a working directory with a pipeline and a store.
struct Desk {
    sandbox: Sandbox,
    serving: Serving,
    directory: tempfile::TempDir,
}

async fn desk(options: Options) -> Desk {
    let sandbox = Sandbox::new(options, || Clock::system().now_ms());
    let serving = sandbox.serve(0, 0).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pipeline.toml"), PIPELINE).unwrap();
    Desk { sandbox, serving, directory }
}

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Desk {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(self.directory.path());
        command.args(arguments).envs(Sandbox::environment(&self.serving));
        command
    }

    /// Runs to the end, while the sandbox goes on serving.
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Holds the calls to this endpoint after the first `passing` ones until the sandbox is told to release them.
    fn hold(&self, at: Endpoint, passing: u32) {
        self.sandbox.fault(Fault { at, kind: FaultKind::Hold, times: u32::MAX, after: passing });
    }

    /// Waits until this endpoint has seen this number of calls.
    async fn calls(&self, at: Endpoint, count: u64) {
        let started = Instant::now();
        while self.sandbox.stats().calls.get(&at).copied().unwrap_or(0) < count {
            assert!(started.elapsed() < HANGS, "it did not come to that");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn end(mut child: Child) -> Option<i32> {
    tokio::task::spawn_blocking(move || child.wait().unwrap().code()).await.unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("no report alone on stdout: {:?}\n{}", output, String::from_utf8_lossy(&output.stderr))
    })
}

fn small() -> Options {
    Options { groups: 12, products: 300, calls_per_minute: 100_000, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_puts_its_report_on_stdout_and_a_repeat_writes_nothing() {
    let desk = desk(small()).await;
    let first = desk.run(&["sync", "--json"]).await;
    assert_eq!(first.status.code(), Some(0));
    assert_eq!(report(&first)["target"]["written"], 300);
    let again = report(&desk.run(&["sync", "--json"]).await);
    assert_eq!((&again["plan"]["unchanged"], &again["target"]["requests"]), (&300.into(), &0.into()));
    let run_id = again["run_id"].as_str().unwrap();
    let kept = desk.directory.path().join(format!(".okki-sync/reports/acme/{run_id}.json"));
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(kept).unwrap()).unwrap(), again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_the_system_is_not_asked_for_this_machine() {
    let desk = desk(small()).await;
    let mut command = desk.command(&["sync", "--json"]);
    command.env("http_proxy", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_lines_are_plain_and_the_exit_code_tells_how_it_ended() {
    let desk = desk(Options { dirty: true, ..small() }).await;
    let output = desk.run(&["sync"]).await;
    assert_eq!(output.status.code(), Some(3), "rows in the quarantine");
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "no escape sequences");
    assert!(String::from_utf8_lossy(&output.stdout).contains("in quarantine"));
    assert_eq!(desk.run(&["sync", "--nonsense"]).await.status.code(), Some(2));
    assert_eq!(desk.run(&["sync", "--pipeline", "none.toml"]).await.status.code(), Some(2));
    assert_eq!(desk.run(&["check"]).await.status.code(), Some(0));
    assert_eq!(desk.run(&["schema"]).await.status.code(), Some(0));
}

/// Runs `check --json` on a pipeline file of this text, with these variables and no others.
fn checked(name: &str, text: &str, variables: &[(&str, &str)]) -> (Option<i32>, Value) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(name), text).unwrap();
    let mut command = program(directory.path());
    command.args(["check", "--json", "--pipeline", name]).envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), report(&output))
}

/// FaultKind and place of each diagnostic. Every one has a message and help.
fn diagnostics(answer: &Value) -> Vec<(&str, &str)> {
    let text = |one: &'_ Value, key: &str| one[key].as_str().is_some_and(|text| !text.is_empty());
    let all = answer["diagnostics"].as_array().unwrap();
    assert!(all.iter().all(|one| text(one, "message") && text(one, "help")), "{answer}");
    all.iter().map(|one| (one["kind"].as_str().unwrap(), one["place"].as_str().unwrap())).collect()
}

const OKKI: [(&str, &str); 2] = [("OKKI_CLIENT_ID", "a"), ("OKKI_CLIENT_SECRET", "hunter2")];

#[test]
fn a_check_as_json_names_connection_target_and_needed_credentials() {
    let http = "connection = \"acme\"\n[target]\nkind = \"http\"\nurl = \"https://host/x\"\n";
    assert_eq!(
        checked("acme.toml", http, &OKKI),
        (
            Some(0),
            serde_json::json!({
                "pipeline": "acme.toml",
                "connection": "acme",
                "target": "http",
                "needs": ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET"],
                "optional": ["NOTIFY_WEBHOOK", "NOTIFY_SECRET"],
                "diagnostics": [],
            })
        )
    );
    let (code, bearer) = checked("acme.toml", &format!("{http}auth = \"bearer\""), &OKKI);
    assert_eq!(code, Some(2));
    assert_eq!(bearer["needs"], serde_json::json!(["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "TARGET_TOKEN"]));
    assert_eq!(diagnostics(&bearer), [("credentials", "credentials TARGET_TOKEN")]);
    let json = r#"{"target": {"kind": "http", "url": "https://host/x"}}"#;
    let (code, of_json) = checked("p.json", json, &OKKI);
    assert_eq!((code, &of_json["connection"]), (Some(0), &"default".into()), "{of_json}");
}

#[test]
fn a_check_as_json_knows_a_pipeline_without_credentials_and_store() {
    let robot = ("NOTIFY_WEBHOOK", "https://example.com/hunter2");
    let (code, answer) = checked("acme.toml", PIPELINE, &[robot, ("OKKI_SYNC_STORE", "ftp://x")]);
    assert_eq!(code, Some(2), "{answer}");
    assert_eq!(
        (&answer["connection"], &answer["target"], answer["needs"].as_array().map(Vec::len)),
        (&Value::Null, &Value::Null, Some(0)),
        "PIPELINE lacks scheme_id: {answer}"
    );
    let scheme = ("QEASY_SCHEME_ID", "s");
    let (code, answer) = checked("acme.toml", PIPELINE, &[robot, scheme, ("OKKI_SYNC_STORE", "ftp://x")]);
    assert_eq!((code, &answer["connection"], &answer["target"]), (Some(2), &"acme".into(), &"qeasy".into()));
    let needs = ["OKKI_CLIENT_ID", "OKKI_CLIENT_SECRET", "QEASY_APP_KEY", "QEASY_APP_SECRET"];
    assert_eq!(answer["needs"], serde_json::json!(needs));
    let places: Vec<_> = needs.iter().map(|name| format!("credentials {name}")).collect();
    let mut expected = vec![("store", "store")];
    expected.extend(places.iter().map(|place| ("credentials", place.as_str())));
    expected.push(("credentials", "credentials NOTIFY_WEBHOOK"));
    assert_eq!(diagnostics(&answer), expected);
    assert!(!answer.to_string().contains("hunter2"));
}

#[test]
fn a_check_as_json_of_a_bad_pipeline_says_what_is_wrong_and_knows_no_more() {
    for (name, text, place) in [
        (
            "bad.toml",
            "connection = \"A B\"\n[target]\nkind = \"qeasy\"\nscheme_id = \"s\"",
            "bad.toml:1 connection",
        ),
        ("broken.toml", "connection = [", "broken.toml:1"),
        ("notes.txt", PIPELINE, "notes.txt"),
    ] {
        let (code, answer) = checked(name, text, &OKKI);
        assert_eq!((code, diagnostics(&answer)), (Some(2), vec![("pipeline", place)]), "{answer}");
        assert_eq!((&answer["connection"], &answer["target"]), (&Value::Null, &Value::Null));
        assert_eq!(answer["needs"], serde_json::json!([]));
    }
    let directory = tempfile::tempdir().unwrap();
    let output =
        program(directory.path()).args(["check", "--json", "--pipeline", "none.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(diagnostics(&report(&output)), [("pipeline", "pipeline")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_input_is_one_clear_line_with_its_exit_code() {
    let desk = desk(small()).await;
    let write = |name: &str, text: &str| std::fs::write(desk.directory.path().join(name), text).unwrap();
    write("unknown.toml", &PIPELINE.replace("max_rows_per_batch", "max_row_per_batch"));
    write("broken.toml", "connection = ");
    write("notes.txt", PIPELINE);
    std::fs::write(desk.directory.path().join("binary.toml"), [0xff, 0xfe, 0x00]).unwrap();
    #[expect(clippy::type_complexity, reason = "a table: arguments, variables, exit code, words")]
    let table: &[(&[&str], &[(&str, &str)], i32, &str)] = &[
        (&["sync", "--pipeline", "unknown.toml"], &[], 2, "did you mean max_rows_per_batch"),
        (&["sync", "--pipeline", "broken.toml"], &[], 2, "broken.toml:1"),
        (&["sync", "--pipeline", "notes.txt"], &[], 2, "notes.txt"),
        (&["sync", "--pipeline", "binary.toml"], &[], 2, "not UTF-8"),
        (&["sync"], &[("OKKI_CLIENT_SECRET", "")], 2, "OKKI_CLIENT_SECRET"),
        (&["sync"], &[("OKKI_CLIENT_SECRET", "wrong-secret")], 2, "SourceCredentialsRefused"),
        (&["sync"], &[("QEASY_APP_SECRET", "wrong-secret")], 2, "TargetCredentialsRefused"),
        (&["sync"], &[("OKKI_BASE_URL", "http://192.0.2.1")], 2, "plain http"),
        (&["sync"], &[("OKKI_BASE_URL", "http://127.0.0.1:1")], 1, "cannot connect"),
        (&["sync"], &[("OKKI_SYNC_STORE", "ftp://x")], 2, "OKKI_SYNC_STORE"),
        (&["sync"], &[("OKKI_SYNC_STORE", "file:///proc/none")], 1, "store"),
    ];
    for (arguments, variables, code, words) in table {
        let mut command = desk.command(arguments);
        command.envs(variables.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(
            (output.status.code(), told.len()),
            (Some(*code), 1),
            "{arguments:?} {variables:?}: {said}"
        );
        assert!(told[0].contains(words), "{arguments:?} {variables:?}: {said}");
        assert!(!said.contains("wrong-secret"), "{said}");
    }
    assert_eq!(desk.sandbox.stats().rows_written, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_saves_what_was_acknowledged_and_the_next_run_goes_on_from_there() {
    let desk = desk(small()).await;
    desk.hold(Endpoint::QeasyStore, 2);
    let mut child = desk.command(&["sync"]).spawn().unwrap();
    desk.calls(Endpoint::QeasyStore, 3).await;
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    // The batches in flight are answered after the program has heard the signal.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let heard = tokio::task::spawn_blocking(move || said.any(|line| line.unwrap().starts_with("stopping")));
    assert!(heard.await.unwrap());
    desk.sandbox.release();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\n  remaining "));
    let reports = desk.directory.path().join(".okki-sync/reports/acme");
    let of_the_run = std::fs::read_dir(reports).unwrap().next().unwrap().unwrap().path();
    let paused: Value = serde_json::from_slice(&std::fs::read(of_the_run).unwrap()).unwrap();
    assert_eq!(paused["status"], "paused");
    let written = paused["target"]["written"].as_u64().unwrap();
    assert!((100..300).contains(&written), "{paused}");
    assert_eq!(paused["remaining"].as_u64().unwrap(), 300 - written);
    let next = report(&desk.run(&["sync", "--json"]).await);
    assert_eq!(
        (next["status"].as_str(), next["target"]["written"].as_u64()),
        (Some("succeeded"), Some(300 - written))
    );
    assert_eq!(desk.sandbox.target_rows().len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_pauses_a_rebuild_which_goes_on_when_it_is_called_again() {
    let desk = desk(small()).await;
    assert_eq!(desk.run(&["sync"]).await.status.code(), Some(0));
    let state = desk.directory.path().join(".okki-sync/state/acme.state");
    std::fs::write(&state, "damaged").unwrap();
    desk.hold(Endpoint::QeasyQuery, 1);
    let child = desk.command(&["state", "rebuild"]).spawn().unwrap();
    desk.calls(Endpoint::QeasyQuery, 2).await;
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let paused =
        "paused: Interrupted: the run was asked to stop; rows of the target that are not read yet: 200";
    assert!(said.contains(paused) && said.contains("goes on from here when it is called again"), "{said}");
    assert_eq!(std::fs::read(&state).unwrap(), b"damaged");
    desk.sandbox.release();
    let again = desk.run(&["state", "rebuild"]).await;
    let told = String::from_utf8(again.stdout).unwrap();
    assert!(
        told.starts_with("state rebuilt: 300 rows are as they should be, 0 differ, 0 are missing"),
        "{told}"
    );
    // The second page once more, and the third.
    assert_eq!(desk.sandbox.stats().calls[&Endpoint::QeasyQuery], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_at_any_moment_the_next_run_ends_right() {
    let desk = desk(Options { latency: Duration::from_millis(3), ..small() }).await;
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..50 {
        desk.sandbox.simulate_edits();
        let mut child = desk.command(&["sync", "--json"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
        child.kill().unwrap();
        end(child).await;
    }
    // Where no run came to its end, the removals of 50 rounds have added up to more than the guard lets through.
    let last = report(&desk.run(&["sync", "--json", "--allow-mass-delete"]).await);
    assert_eq!(last["status"], "succeeded", "{last}");
    let verified = desk.run(&["verify", "--json"]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", report(&verified));
    assert_eq!(desk.sandbox.stats().lockouts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_the_second_says_that_the_first_goes_on() {
    let desk = desk(small()).await;
    desk.hold(Endpoint::OkkiGroups, 0);
    let first = desk.command(&["sync", "--json"]).spawn().unwrap();
    desk.calls(Endpoint::OkkiGroups, 1).await;
    let second = desk.run(&["sync", "--json"]).await;
    assert_eq!(second.status.code(), Some(1));
    let error = report(&second)["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("Busy: run 2") && error.contains(" (since 2"), "{error}");
    assert!(error.contains(" of connection \"acme\" is going on"), "{error}");
    desk.sandbox.release();
    assert_eq!(end(first).await, Some(0));
    assert_eq!(desk.sandbox.stats().rows_written, 300);
}
