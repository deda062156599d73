//! `runs`: what a store holds of a connection's last runs. And what shells and `man` are told of the command line.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const PIPELINE: &str = "connection = \"acme\"\n[target]\nkind = \"qeasy\"\nscheme_id = \"s\"\n";

/// A directory with a pipeline and a store.
fn desk() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pipeline.toml"), PIPELINE).unwrap();
    directory
}

fn okki_sync(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.args(arguments).current_dir(directory).env_clear().output().unwrap()
}

fn stdout(directory: &Path, arguments: &[&str]) -> String {
    let output = okki_sync(directory, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn report(run_id: &str, started_at: &str, status: &str) -> Value {
    let error = (status == "failed").then_some("StoreUnavailable: no answer");
    json!({
        "run_id": run_id, "connection": "acme", "mode": "sync", "status": status, "started_at": started_at,
        "duration_ms": 1500, "later_field": {"kept": true},
        "source": {"groups": 3, "products": 5, "requests": 3, "retries": 0, "throttled": 0, "full_read": true},
        "plan": {"create": 3, "update": 0, "delete": 0, "unchanged": 0},
        "target": {"written": 3, "deleted": 0, "batches": 1, "requests": 2, "retries": 0, "throttled": 0},
        "quarantined": 0, "remaining": 0, "resume_after_seconds": null, "error": error,
    })
}

fn keep(directory: &Path, name: &str, text: &str) {
    let folder = directory.join(".okki-sync/reports/acme");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

/// A run of every day, the fourth one failed.
fn days(directory: &Path, days: usize) {
    for day in 1..=days {
        let run_id = format!("202611{day:02}T060000000Z-0000000{}", day % 10);
        let status = if day == 4 { "failed" } else { "succeeded" };
        let one = report(&run_id, &format!("2026-11-{day:02}T06:00:00.000Z"), status);
        keep(directory, &format!("{run_id}.json"), &one.to_string());
    }
}

fn ids(text: &str) -> Vec<String> {
    let reports: Vec<Value> = serde_json::from_str(text).unwrap();
    reports.iter().map(|report| report["run_id"].as_str().unwrap()[..8].to_owned()).collect()
}

#[test]
fn runs_lists_what_a_sync_has_kept_as_it_was_kept() {
    let desk = desk();
    let store = format!("file://{}", desk.path().join(".okki-sync").display());
    let sync = |pipeline: &str| {
        let arguments =
            ["sync", "--sandbox", "--groups", "4", "--products", "9", "--json", "--pipeline", pipeline];
        let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
        command.args(arguments).current_dir(desk.path()).env_clear().env("OKKI_SYNC_STORE", &store);
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap()
    };
    let first = sync("pipeline.toml");
    assert_eq!(first["status"], "succeeded");
    let listed: Value = serde_json::from_str(&stdout(desk.path(), &["runs", "--json"])).unwrap();
    assert_eq!(listed, json!([first]));
    let table = stdout(desk.path(), &["runs"]);
    assert!(table.contains(first["run_id"].as_str().unwrap()) && table.contains("succeeded"), "{table}");
}

#[test]
fn runs_are_the_newest_first_and_as_many_as_asked_for() {
    let desk = desk();
    days(desk.path(), 28);
    keep(desk.path(), "latest.html", "<p>");
    let runs = |more: &[&str]| ids(&stdout(desk.path(), &[&["runs", "--json"], more].concat()));
    assert_eq!(runs(&[]).len(), 20);
    assert_eq!(runs(&["--limit", "3"]), ["20261128", "20261127", "20261126"]);
    assert_eq!(runs(&["--since", "2026-11-26T06:00:00Z"]), ["20261128", "20261127", "20261126"]);
    assert_eq!(runs(&["--since", "2026-11-28"]), ["20261128"]);
    assert_eq!(runs(&["--failed"]), ["20261104"]);
    assert_eq!(runs(&["--failed", "--since", "2026-11-05"]), [""; 0]);
    let whole: Value = serde_json::from_str(&stdout(desk.path(), &["runs", "--failed", "--json"])).unwrap();
    assert_eq!(whole[0]["later_field"]["kept"], true, "fields of a later version stay");
    let table = stdout(desk.path(), &["runs", "--failed"]);
    assert!(table.contains("StoreUnavailable: no answer"), "{table}");
}

#[test]
fn a_file_that_is_no_report_is_named_and_left_out() {
    let desk = desk();
    days(desk.path(), 2);
    keep(desk.path(), "20261103T060000000Z-00000003.json", "{\"run_id\": 1}");
    let output = okki_sync(desk.path(), &["runs", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(ids(&String::from_utf8(output.stdout).unwrap()), ["20261102", "20261101"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("reports/acme/20261103T060000000Z-00000003.json is not a run report"), "{said}");
}

#[test]
fn a_connection_without_runs_says_so_and_bad_usage_is_refused() {
    let desk = desk();
    assert!(stdout(desk.path(), &["runs"]).starts_with("no run of connection acme in file://"));
    assert_eq!(stdout(desk.path(), &["runs", "--json"]), "[]\n");
    for wrong in [
        &["runs", "--since", "yesterday"][..],
        &["runs", "--limit", "0"],
        &["runs", "--limit", "1001"],
        &["runs", "--pipeline", "none.toml"],
        &["completions", "powershell"],
        &["man", "nonsense"],
    ] {
        assert_eq!(okki_sync(desk.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn every_shell_completes_every_command() {
    let desk = desk();
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(desk.path(), &["completions", shell]);
        for word in ["verify", "rebuild", "allow-mass-delete", "completions"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let bash = Command::new("bash").arg("-n").arg("/dev/stdin").stdin(std::process::Stdio::piped()).spawn();
    if let Ok(mut bash) = bash {
        let script = stdout(desk.path(), &["completions", "bash"]);
        std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(bash.wait().unwrap().success(), "bash cannot read its completions");
    }
}

#[test]
fn the_man_pages_tell_of_the_program_and_of_each_command() {
    let desk = desk();
    let page = stdout(desk.path(), &["man"]);
    assert!(page.contains(".TH okki-sync 1") && page.contains("okki\\-sync\\-verify(1)"), "{page}");
    let inner = stdout(desk.path(), &["man", "state", "show"]);
    assert!(inner.contains(".TH okki-sync-state-show 1") && inner.contains("\\-\\-json"), "{inner}");
}
