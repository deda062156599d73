//! Test names are sentences, short enough for one line of any runner.

use std::path::{Path, PathBuf};

const MAX_CHARS: usize = 72;

#[test]
fn every_test_name_is_a_sentence_of_at_most_72_characters() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for folder in ["src", "sandbox/src", "tests"] {
        collect(&root.join(folder), &mut names);
    }
    assert!(names.len() > 300, "the search finds tests: {}", names.len());
    let wrong: Vec<_> =
        names.iter().filter(|(_, name)| name.len() > MAX_CHARS || !name.contains('_')).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The tests below this folder, each with its file.
fn collect(folder: &Path, names: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
            continue;
        }
        let found: fn(&str) -> Vec<String> = match path.extension().and_then(|ending| ending.to_str()) {
            Some("rs") => rust_tests,
            Some("py") => python_tests,
            _ => continue,
        };
        let text = std::fs::read_to_string(&path).unwrap();
        names.extend(found(&text).into_iter().map(|name| (path.clone(), name)));
    }
}

/// The first function after each `#[test]` or `#[tokio::test…]`.
fn rust_tests(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while lines.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
        names.extend(lines.find_map(|line| name_after(line.trim_start_matches("async "), "fn ")));
    }
    names
}

fn python_tests(text: &str) -> Vec<String> {
    let name = |line: &str| name_after(line.trim(), "def ").filter(|name| name.starts_with("test_"));
    text.lines().filter_map(name).collect()
}

fn name_after(line: &str, keyword: &str) -> Option<String> {
    line.strip_prefix(keyword)?.split('(').next().map(str::to_owned)
}
