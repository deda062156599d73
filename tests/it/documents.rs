//! The documents are true: README commands run, its pipelines load, both languages say the same, imports keep the architecture.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use okki_sync::testing::config::{self, Env};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The fenced blocks of a document, in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if line.trim() == format!("```{language}") {
            blocks
                .push(lines.by_ref().take_while(|line| line.trim() != "```").collect::<Vec<_>>().join("\n"));
        }
    }
    blocks
}

/// The arguments of each `cargo run -q -- …` line in the document's shell blocks.
fn commands(document: &str) -> Vec<Vec<String>> {
    blocks(document, "sh")
        .iter()
        .flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| {
            let (_, arguments) = line.split_once("cargo run -q -- ")?;
            let arguments = arguments.split('#').next().unwrap_or("");
            Some(arguments.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

fn okki_sync(arguments: &[String], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.args(arguments).current_dir(directory);
    command
}

fn run(arguments: &[String], directory: &Path) -> Output {
    okki_sync(arguments, directory).output().unwrap()
}

#[test]
fn the_commands_of_the_readme_run_in_an_empty_directory() {
    let directory = tempfile::tempdir().unwrap();
    let all = commands(&read("README.md"));
    assert!(all.len() >= 4, "{all:?}");
    for arguments in all {
        if arguments[0] == "sandbox" {
            serves_until_it_is_told_to_stop(&arguments, directory.path());
            continue;
        }
        let output = run(&arguments, directory.path());
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        if arguments.contains(&"--json".to_owned()) {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["status"], "succeeded");
        }
    }
}

fn serves_until_it_is_told_to_stop(arguments: &[String], directory: &Path) {
    let file = directory.join("dev.env");
    let _ = std::fs::remove_file(&file);
    let mut child = okki_sync(arguments, directory)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    // Only a program that hangs takes so long, on a machine however slow.
    while !file.exists() && started.elapsed() < Duration::from_secs(600) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let environment = std::fs::read_to_string(&file).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(environment.contains("OKKI_BASE_URL=http://127.0.0.1:"), "{environment}");
}

#[test]
fn every_pipeline_in_the_readme_loads() {
    let env = Env::of([("QEASY_SCHEME_ID", "x")]);
    let all = blocks(&read("README.md"), "toml");
    assert!(all.len() >= 2);
    for text in all {
        let whole =
            if text.contains("[target]") { text } else { format!("{text}\n[target]\nkind = \"qeasy\"\n") };
        let mistakes = config::parse(&whole, "readme.toml", &env).err();
        assert!(mistakes.is_none(), "{whole}\n{mistakes:?}");
    }
}

#[test]
fn both_languages_of_the_readme_show_the_same_commands_keys_and_errors() {
    let (english, chinese) = (read("README.md"), read("README.zh-CN.md"));
    assert_eq!(commands(&english), commands(&chinese));
    for language in ["toml", "sh"] {
        assert_eq!(blocks(&english, language).len(), blocks(&chinese, language).len());
    }
    let code = |text: &str| {
        let mut spans: Vec<String> = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|s| !s.contains('\n') && s.is_ascii())
            .map(str::to_owned)
            .collect();
        spans.sort();
        spans.dedup();
        spans
    };
    let (english, chinese) = (code(&english), code(&chinese));
    let missing: Vec<_> = english.iter().filter(|span| !chinese.contains(span)).collect();
    assert!(missing.is_empty(), "only in English: {missing:?}");
}

#[test]
fn core_imports_no_edge_and_the_two_sides_do_not_know_each_other() {
    let core = ["error", "model", "mutants", "plan", "report", "retry", "state", "transform"];
    let folders = [
        "state/mod",
        "state/rows",
        "okki/row",
        "okki/seen",
        "okki/walk",
        "okki/cache",
        "okki/clean",
        "transform/compile",
        "transform/fields",
        "transform/render",
        "transform/spec",
        "transform/value",
    ];
    let files = core.iter().filter(|name| !["transform", "state"].contains(*name)).chain(&folders);
    let core_files = files.map(|name| format!("src/{name}.rs"));
    for file in core_files {
        for module in imports(&file) {
            assert!(core.contains(&module.as_str()), "{file} is core, but imports {module}");
        }
    }
    let edges = [
        "budget",
        "client",
        "http",
        "lease",
        "pace",
        "store",
        "metrics",
        "notify",
        "okki/mod",
        "okki/page",
        "okki/reading",
        "okki/wire",
        "target/mod",
        "target/wire",
        "target/batch",
    ];
    for edge in edges {
        let file = format!("src/{edge}.rs");
        let known = imports(&file);
        let other = if edge.starts_with("okki") { "target" } else { "okki" };
        for forbidden in ["app", "handler", "config", "secrets", "cli", other] {
            assert!(!known.contains(&forbidden.to_owned()), "{file} imports {forbidden}");
        }
    }
}

/// The modules that a file names in `use crate::…`.
fn imports(file: &str) -> Vec<String> {
    read(file)
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("use crate::"))
        .map(|rest| rest.split([':', ';', ' ']).next().unwrap_or("").to_owned())
        .collect()
}

#[test]
fn every_source_file_tells_its_purpose_in_its_first_line() {
    let mut folders = vec![root().join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("//! "), "{}", path.display());
            }
        }
    }
    assert!(files > 30);
}

#[test]
fn nothing_in_the_programs_unwraps_expects_or_panics_outside_of_tests() {
    let manifest = read("Cargo.toml");
    for lint in ["unwrap_used", "expect_used", "panic"] {
        assert!(manifest.contains(&format!("{lint} = \"deny\"")), "clippy must deny {lint}");
    }
}

#[test]
fn the_lambda_program_has_one_tls_stack_and_no_crates_of_the_command_line() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--no-default-features", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    assert!(tree.contains("lambda_runtime v") && tree.contains("ring v"), "{tree}");
    for absent in ["aws-lc-rs v", "native-tls v", "openssl v", "clap v", "axum v", "indicatif v"] {
        assert!(!tree.lines().any(|line| line.starts_with(absent)), "{absent} is in the Lambda program");
    }
}
