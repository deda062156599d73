//! The house keeps its shape: who may import whom, how long a file may be, what every file begins with.
//!
//! The rules are about folders, so a new file needs no entry here. Every `crate::…` path counts, in a `use` or inline;
//! comments and unit tests do not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each subject of `src/` may name, besides itself. `testing` (the planted bugs) and `words` (what people read) may be
/// named by all.
const MAY_IMPORT: [(&str, &[&str]); 22] = [
    ("words", &[]),
    // Core: no async, no clock, no I/O.
    ("error", &[]),
    ("report", &["changes", "error"]),
    ("changes", &[]),
    ("catalogue", &["error"]),
    ("transform", &["catalogue", "error"]),
    ("state", &["catalogue", "error"]),
    ("ledger", &["catalogue", "state"]),
    ("page", &["catalogue", "changes", "error", "report"]),
    ("plan", &["catalogue", "changes", "error", "report", "state", "transform"]),
    // Edges. The source and the target do not know each other.
    ("clock", &[]),
    ("budget", &["error", "report"]),
    ("net", &["budget", "clock", "error", "report"]),
    ("store", &["clock", "error", "net"]),
    ("okki", &["budget", "catalogue", "clock", "error", "net", "report", "state", "transform"]),
    ("targets", &["budget", "catalogue", "clock", "error", "net", "report", "state"]),
    ("notify", &["catalogue", "clock", "error", "net", "report", "store"]),
    ("metrics", &["clock", "error", "report"]),
    // The story: the only place that knows the order of things.
    (
        "sync",
        &[
            "budget",
            "catalogue",
            "changes",
            "clock",
            "error",
            "ledger",
            "net",
            "okki",
            "plan",
            "report",
            "state",
            "store",
            "targets",
            "transform",
        ],
    ),
    // Wiring. `Config` stops at `app`: edges take plain values.
    ("config", &["catalogue", "error", "net", "notify", "plan", "targets", "transform"]),
    ("logging", &["config"]),
    (
        "handler",
        &[
            "app",
            "catalogue",
            "clock",
            "config",
            "error",
            "logging",
            "metrics",
            "report",
            "sync",
            "transform",
        ],
    ),
];
/// They put everything together and may name everything, except each other against the arrow.
const WIRING: [(&str, &[&str]); 3] = [("app", &["cli", "handler"]), ("cli", &["handler"]), ("testing", &[])];
/// At this length a file is asked whether it has two subjects. Its unit tests do not count.
const MOST_LINES: usize = 350;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with its path from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push((name_of(&path), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!files.is_empty(), "{folder}");
    files
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// The subject that a file of `src/` belongs to: its folder, or its own name at the top.
fn subject(file: &str) -> &str {
    let rest = file.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The file's code: what stands before its unit tests, without comments.
fn code(text: &str) -> String {
    let before_tests = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every subject that the code names as `crate::subject`, or inside of `use crate::{…}`.
fn named_subjects(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut named = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split(';').next().unwrap_or_default();
                named.extend(list.split(',').map(|item| word(item.trim())));
            }
            None => drop(named.insert(word(rest))),
        }
    }
    named.remove("");
    named
}

#[test]
fn every_folder_imports_only_what_its_place_allows() {
    let mut wrong = Vec::new();
    for (file, text) in sources("src") {
        let subject = subject(&file).to_owned();
        if ["lib", "main", "bin"].contains(&subject.as_str()) || file.ends_with("/tests.rs") {
            continue;
        }
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == subject).map(|(_, allowed)| *allowed);
        let refused = WIRING.iter().find(|(name, _)| *name == subject).map(|(_, refused)| *refused);
        for named in named_subjects(&code(&text)) {
            let fits = match (allowed, refused) {
                (Some(allowed), _) => allowed.contains(&named.as_str()),
                (None, Some(refused)) => !refused.contains(&named.as_str()),
                (None, None) => false,
            };
            if named != subject && named != "testing" && named != "words" && named != "Env" && !fits {
                wrong.push(format!("{file} names {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_command_line_names_the_sandbox_and_it_names_no_program() {
    for (file, text) in sources("src") {
        let names_it = code(&text).contains("okki_sync_sandbox");
        assert!(!names_it || file.starts_with("src/cli/"), "{file}");
    }
    let manifest = std::fs::read_to_string(root().join("sandbox/Cargo.toml")).unwrap();
    assert!(!manifest.contains("path ="), "the sandbox is to know nothing of the client");
}

#[test]
fn the_test_detects_an_inline_path_and_a_list() {
    let text = "use crate::{error::Error, net};\nfn f() { crate::store::open(); }\n// crate::app\n";
    let named = named_subjects(&code(text));
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["error", "net", "store"]);
}

#[test]
fn no_file_is_longer_than_350_lines_without_its_tests() {
    let mut long = Vec::new();
    for (file, text) in sources("src").into_iter().chain(sources("sandbox/src")) {
        let lines = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        if lines > MOST_LINES && !file.ends_with("/tests.rs") {
            long.push(format!("{file}: {lines}"));
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_source_file_tells_its_purpose_in_its_first_line() {
    for folder in ["src", "sandbox/src", "tests", "benches/src", "fuzz/fuzz_targets"] {
        for (file, text) in sources(folder) {
            assert!(text.starts_with("//! ") || text.starts_with("#!["), "{file}");
        }
    }
}

/// Tests and simulation wind the clock; a second one would be the hour at which they are run.
#[test]
fn only_the_clock_asks_the_system_for_the_time() {
    for folder in ["src", "sandbox/src", "tests/simulation", "tests/support/src"] {
        for (file, text) in sources(folder) {
            let asks = text.contains("SystemTime::now") || text.contains("Timestamp::now");
            assert!(!asks || file == "src/clock.rs", "{file} asks the system for the time");
        }
    }
    for folder in ["sandbox/src", "tests/simulation", "tests/support/src"] {
        for (file, text) in sources(folder) {
            assert!(!text.contains("Clock::System") && !text.contains("Clock::system"), "{file}");
        }
    }
}
