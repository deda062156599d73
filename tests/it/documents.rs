//! The documents are true: commands run, pipelines load, both languages say the same, tables know every key, kind and variable.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

mod both_languages;

/// Each document in English and in Chinese.
const BOTH_LANGUAGES: [(&str, &str); 3] = [
    ("README.md", "README.zh-CN.md"),
    ("docs/reference.md", "docs/reference.zh-CN.md"),
    ("infra/README.md", "infra/README.zh-CN.md"),
];
const REFERENCE: &str = "docs/reference.md";
const README_LINES: usize = 180;

const FORMATS: &str = "docs/formats.md";
const DESIGN: &str = "docs/design.md";

/// Enough for any pipeline of a document to be checked; they open nothing.
const CREDENTIALS: [(&str, &str); 6] = [
    ("OKKI_CLIENT_ID", "x"),
    ("OKKI_CLIENT_SECRET", "x"),
    ("QEASY_APP_KEY", "x"),
    ("QEASY_APP_SECRET", "x"),
    ("TARGET_TOKEN", "x"),
    ("OKKI_SYNC_STORE", "memory:"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A document without its fenced blocks, and the blocks with their languages.
fn parts(document: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        match line.trim().strip_prefix("```") {
            Some(language) => {
                let block = lines.by_ref().take_while(|line| line.trim() != "```");
                blocks.push((language.to_owned(), block.collect::<Vec<_>>().join("\n")));
            }
            None => prose = prose + line + "\n",
        }
    }
    (prose, blocks)
}

/// The fenced blocks of a document, in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let all = parts(document).1.into_iter();
    all.filter(|(of, _)| of == language).map(|(_, block)| block).collect()
}

/// The code in a document's sentences and tables.
fn code_spans(document: &str) -> BTreeSet<String> {
    let prose = parts(document).0;
    prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The lines of a block without their comments.
fn without_comments(block: &str) -> Vec<String> {
    block.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned()).collect()
}

/// The arguments of each `cargo run -q -- …` line in the document's shell blocks.
fn commands(document: &str) -> Vec<Vec<String>> {
    let lines = blocks(document, "sh").iter().flat_map(|block| without_comments(block)).collect::<Vec<_>>();
    let arguments = lines.iter().filter_map(|line| line.strip_prefix("cargo run -q -- "));
    arguments.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn okki_sync<S: AsRef<std::ffi::OsStr>>(arguments: &[S], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.args(arguments).current_dir(directory).env_clear();
    command
}

fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S], directory: &Path) -> Output {
    okki_sync(arguments, directory).output().unwrap()
}

fn stdout<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> String {
    String::from_utf8(run(arguments, &std::env::temp_dir()).stdout).unwrap()
}

/// What `okki-sync check` says against a pipeline file.
fn mistakes(file: &Path) -> Option<String> {
    let arguments = [Path::new("check"), Path::new("--pipeline"), file];
    let output = okki_sync(&arguments, &std::env::temp_dir()).envs(CREDENTIALS).output().unwrap();
    (!output.status.success()).then(|| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    })
}

#[test]
fn the_commands_of_the_documents_run_in_an_empty_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (readme, reference) = (commands(&read("README.md")), commands(&read(REFERENCE)));
    assert!(readme.len() >= 3 && reference.len() >= 4, "{readme:?} {reference:?}");
    for arguments in readme.into_iter().chain(reference) {
        if arguments[0] == "sandbox" {
            serves_until_it_is_told_to_stop(&arguments, directory.path());
            continue;
        }
        let output = run(&arguments, directory.path());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        if arguments.contains(&"--json".to_owned()) {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["status"], "succeeded");
        }
    }
}

fn serves_until_it_is_told_to_stop(arguments: &[String], directory: &Path) {
    let file = directory.join("dev.env");
    let _ = std::fs::remove_file(&file);
    // A port of a document may be taken on this machine.
    let is_port = |word: &String| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let arguments: Vec<_> =
        arguments.iter().map(|word| if is_port(word) { "0" } else { word.as_str() }).collect();
    let mut child = okki_sync(&arguments, directory)
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
fn the_plan_that_the_readme_shows_is_the_demo_s() {
    for (readme, lang) in [("README.md", "en"), ("README.zh-CN.md", "zh")] {
        let told = stdout(&["demo", "--lang", lang]);
        let shown = blocks(&read(readme), "text");
        assert_eq!(shown.len(), 1, "{readme}");
        for part in shown[0].split("…\n") {
            assert!(told.contains(part), "{readme} shows what the demo does not print:\n{part}\n\n{told}");
        }
    }
}

#[test]
fn every_make_target_that_a_document_names_is_in_the_makefile() {
    let makefile = read("Makefile");
    let mut seen = 0;
    for path in documents() {
        let (prose, blocks) = parts(&read(&path));
        let shell = blocks.iter().filter(|(language, _)| language == "sh").map(|(_, block)| block.as_str());
        let code = code_spans(&prose).into_iter().chain(shell.flat_map(str::lines).map(str::to_owned));
        for code in code.filter(|code| code.starts_with("make ")) {
            for target in code.split_whitespace().nth(1).unwrap_or_default().split('|') {
                assert!(makefile.contains(&format!("\n{target}: ")), "{path}: make {target}");
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn every_pipeline_in_the_documents_loads() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pipeline.toml");
    // The runbook has none.
    for path in BOTH_LANGUAGES.iter().take(2).flat_map(|(english, chinese)| [english, chinese]) {
        let all = blocks(&read(path), "toml");
        assert!(!all.is_empty(), "{path}");
        for text in all {
            let target = if text.contains("[target]") {
                ""
            } else {
                "\n[target]\nkind = \"qeasy\"\nscheme_id = \"x\"\n"
            };
            std::fs::write(&file, text + target).unwrap();
            assert_eq!(mistakes(&file), None, "{path}");
        }
    }
}

#[test]
fn every_example_loads_and_plans_and_names_the_schema() {
    let mut files = vec![root().join("pipeline.toml")];
    // A folder beside a pipeline holds the rows of its test.
    let examples = std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(examples.filter(|path| path.is_file()));
    assert!(files.len() >= 5);
    for file in files {
        assert_eq!(mistakes(&file), None, "{}", file.display());
        let plan = ["plan", "--sandbox", "--groups", "4", "--products", "9", "--pipeline"];
        let plan: Vec<&Path> = plan.iter().map(Path::new).chain([file.as_path()]).collect();
        let output = run(&plan, &std::env::temp_dir());
        assert!(output.status.success(), "{}: {output:?}", file.display());
        if file.extension().is_some_and(|ending| ending == "toml") {
            let text = std::fs::read_to_string(&file).unwrap();
            let schema =
                text.lines().next().and_then(|line| line.strip_prefix("#:schema ")).unwrap_or_default();
            let schema = file.parent().unwrap().join(schema);
            assert!(schema.ends_with("schema/pipeline.schema.json"), "{}", file.display());
            assert!(schema.is_file(), "{}", schema.display());
        }
    }
}

#[test]
fn the_schema_file_is_what_okki_sync_schema_prints() {
    let same = read("schema/pipeline.schema.json") == stdout(&["schema"]);
    assert!(same, "schema/pipeline.schema.json is out of date: run `make schema`");
}

#[test]
fn the_readme_is_a_front_door() {
    for path in ["README.md", "README.zh-CN.md"] {
        let lines = read(path).lines().count();
        assert!(
            lines < README_LINES,
            "{path} has {lines} lines; what people look up belongs into {REFERENCE}"
        );
    }
}

/// The row of the reference's tables that explains this.
fn row(reference: &str, key: &str) -> Option<Vec<String>> {
    let line = reference.lines().find(|line| line.starts_with(&format!("| `{key}` |")))?;
    Some(line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
}

#[test]
fn every_key_is_in_the_reference_with_its_values_range_and_default() {
    let schema: Value = serde_json::from_str(&stdout(&["schema"])).unwrap();
    let reference = read(REFERENCE);
    let keys = keys(&schema);
    assert!(keys.len() > 35, "{}", keys.len());
    for (key, property) in keys {
        let row = row(&reference, &key).unwrap_or_else(|| panic!("{REFERENCE} has no row for {key}"));
        for value in values(&schema, property).iter().chain(&range(property)) {
            assert!(row[1].contains(value.as_str()), "{key}: the values lack {value}: {}", row[1]);
        }
        if let Some(default) = default(property) {
            assert!(row[2].contains(&default), "{key}: the default is {default}, not {}", row[2]);
        }
    }
}

/// Every key of the schema with its path: `source.page_size`. The keys of a field, which people name, go by themselves.
fn keys(schema: &Value) -> Vec<(String, &Value)> {
    let mut keys = Vec::new();
    let mut tables = BTreeSet::new();
    for (table, property) in schema["properties"].as_object().unwrap() {
        keys.push((table.clone(), property));
        let Some(name) = definition(property) else { continue };
        let inner = schema["$defs"][name]["properties"].as_object();
        keys.extend(inner.into_iter().flatten().map(|(key, of)| (format!("{table}.{key}"), of)));
        tables.insert(name);
    }
    let fields =
        schema["$defs"].as_object().unwrap().iter().filter(|(name, _)| !tables.contains(name.as_str()));
    keys.extend(
        fields
            .filter_map(|(_, of)| of["properties"].as_object())
            .flatten()
            .map(|(key, of)| (key.clone(), of)),
    );
    keys
}

/// The definition that a property refers to.
fn definition(property: &Value) -> Option<&str> {
    let choices = property["anyOf"].as_array().into_iter().flatten();
    let name = std::iter::once(property).chain(choices).find_map(|choice| choice["$ref"].as_str())?;
    name.strip_prefix("#/$defs/")
}

/// The words that a key may hold, in quotes.
fn values(schema: &Value, property: &Value) -> Vec<String> {
    let Some(name) = definition(property) else { return Vec::new() };
    let choices = schema["$defs"][name]["oneOf"].as_array().into_iter().flatten();
    choices.filter_map(|choice| choice.get("const")).map(Value::to_string).collect()
}

fn range(property: &Value) -> Vec<String> {
    let limits =
        ["minimum", "exclusiveMinimum", "maximum"].iter().filter_map(|limit| property[*limit].as_f64());
    limits.map(|limit| limit.to_string()).collect()
}

/// The default as a pipeline file spells it; where the schema has none, the one that its description names.
fn default(property: &Value) -> Option<String> {
    match &property["default"] {
        Value::Null | Value::Object(_) => {
            let described = property["description"].as_str()?.split("Default: `").nth(1)?;
            described.split('`').next().map(str::to_owned)
        }
        // A URL that was parsed has a path, which nobody writes.
        default => Some(format!("`{}`", default.to_string().replace("/\"", "\""))),
    }
}

/// The part of a source file before its tests.
fn product_code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The string literals of a source file that are one word of these characters.
fn words_in_code(code: &str, is_part: fn(char) -> bool) -> BTreeSet<String> {
    let literals = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // What the compiler fills in is no variable of the process.
    let literals = literals.filter(|line| !line.contains("env!("));
    let literals = literals.flat_map(|line| line.split('"').skip(1).step_by(2));
    literals.filter(|word| !word.is_empty() && word.chars().all(is_part)).map(str::to_owned).collect()
}

fn source_files() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root().join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The part of a document below this heading, up to the next one like it.
fn section<'d>(document: &'d str, heading: &str) -> &'d str {
    let (_, below) = document.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    below.split("\n## ").next().unwrap_or_default()
}

#[test]
fn every_kind_of_error_is_in_the_reference() {
    let reference = read(REFERENCE);
    let errors = section(&reference, "## Errors");
    let code = product_code(&root().join("src/error.rs"));
    let kinds = words_in_code(&code, |c| c.is_ascii_alphanumeric());
    let kinds: Vec<_> = kinds.iter().filter(|word| word.starts_with(char::is_uppercase)).collect();
    assert!(kinds.len() >= 18, "{kinds:?}");
    for kind in kinds {
        assert!(row(errors, kind).is_some_and(|row| row.len() == 4), "{REFERENCE} does not explain {kind}");
    }
}

/// The review's numbers, in their order.
const FINDINGS: [(&str, usize); 3] = [("H", 5), ("M", 10), ("L", 15)];

/// Each finding is in the table with the tests that hold it. One that is open has a test that is ignored, and says so.
#[test]
fn every_finding_of_the_review_names_tests_that_exist() {
    let sources: String =
        ["src", "tests", "sandbox/src"].iter().map(|folder| all_text_below(folder)).collect();
    for (path, heading) in
        [(REFERENCE, "### What a review found"), ("docs/reference.zh-CN.md", "### 一次审查发现的问题")]
    {
        let reference = read(path);
        let table = section(&reference, heading);
        for (letter, count) in FINDINGS {
            for number in 1..=count {
                let finding = format!("{letter}{number}");
                let line = table.lines().find(|line| line.starts_with(&format!("| {finding} |")));
                let line = line.unwrap_or_else(|| panic!("{path} does not tell of {finding}"));
                let tests = code_spans(line.trim_end_matches('|').rsplit('|').next().unwrap_or_default());
                assert!(!tests.is_empty(), "{path}: nothing holds {finding}");
                for test in tests {
                    let there = [format!("fn {test}("), format!("def {test}(")];
                    assert!(
                        there.iter().any(|name| sources.contains(name)),
                        "{path}: {finding}: no test {test}"
                    );
                    let is_left_out = sources.split("#[ignore").skip(1).any(|after| {
                        after.split("fn ").nth(1).is_some_and(|name| name.starts_with(&format!("{test}(")))
                    });
                    assert!(!is_left_out || line.contains("**"), "{path}: {finding} is not called open");
                }
            }
        }
    }
}

fn all_text_below(folder: &str) -> String {
    let mut text = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_code = path.extension().is_some_and(|ending| ending == "rs" || ending == "py");
            if path.is_dir() {
                folders.push(path);
            } else if is_code {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_environment_variable_that_the_code_reads_is_in_the_reference() {
    let reference = read(REFERENCE);
    let table = section(&reference, "## Environment");
    let mut variables = BTreeSet::new();
    for file in source_files() {
        let code = product_code(&file);
        let names = words_in_code(&code, |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        // A word of capitals with an underscore is a variable's name; without one it is if it is asked for.
        let is_asked_for =
            |name: &str| ["get", "var"].iter().any(|ask| code.contains(&format!("{ask}(\"{name}\")")));
        let is_variable = |name: &str| (name.contains('_') && !name.ends_with('_')) || is_asked_for(name);
        variables.extend(names.into_iter().filter(|name| is_variable(name)));
    }
    assert!(variables.len() >= 18, "{variables:?}");
    for variable in variables {
        let is_told =
            table.lines().any(|line| line.starts_with("| `") && line.contains(&format!("`{variable}`")));
        assert!(is_told, "{REFERENCE} does not tell of {variable}");
    }
}

#[test]
fn every_metric_and_every_source_field_is_in_the_reference() {
    let spans = code_spans(&read(REFERENCE));
    let metrics = words_in_code(&product_code(&root().join("src/metrics.rs")), |c| c.is_ascii_alphabetic());
    // Names of two words or more; the format of the line itself is CloudWatch's.
    let metrics =
        metrics.into_iter().filter(|name| name.chars().filter(char::is_ascii_uppercase).count() > 1);
    let metrics: Vec<_> = metrics.filter(|name| name != "CloudWatchMetrics").collect();
    let fields = product_code(&root().join("src/transform/fields.rs"));
    let fields = words_in_code(&fields, |c| c.is_ascii_lowercase() || c == '_' || c == '.');
    let fields: Vec<_> = fields.into_iter().filter(|name| !name.ends_with('.')).collect();
    assert!(metrics.len() >= 27 && fields.len() >= 50, "{metrics:?} {fields:?}");
    for name in metrics.iter().chain(&fields) {
        assert!(spans.contains(name), "{REFERENCE} does not name {name}");
    }
}

#[test]
fn every_field_of_the_run_report_is_in_the_reference() {
    let spans = code_spans(&read(REFERENCE));
    let small = ["--sandbox", "--groups", "3", "--products", "3", "--json"];
    let reports = ["plan", "sync"].map(|command| stdout(&[&[command], &small[..]].concat()));
    let reports: Vec<Value> = reports.iter().map(|report| serde_json::from_str(report).unwrap()).collect();
    assert!(reports[1]["timeline"].is_object(), "{reports:?}");
    for (field, value) in reports.iter().flat_map(|report| report.as_object().unwrap()) {
        let inner = value.as_object().into_iter().flat_map(|inner| inner.keys());
        let names: Vec<_> = inner.map(|name| format!("{field}.{name}")).collect();
        for name in if names.is_empty() { vec![field.clone()] } else { names } {
            assert!(spans.contains(&name), "{REFERENCE} does not explain {name}");
        }
    }
}

#[test]
fn every_command_and_option_is_in_the_reference() {
    let spans = code_spans(&read(REFERENCE));
    let mut waiting = vec![Vec::new()];
    let mut seen = 0;
    while let Some(command) = waiting.pop() {
        let help = stdout(&[command.clone(), vec!["--help".to_owned()]].concat());
        let commands = help.split("Commands:\n").nth(1).and_then(|below| below.split("\n\n").next());
        let lines = commands.into_iter().flat_map(str::lines);
        // What is further in goes on with the line above.
        let lines = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        let names = lines.filter_map(|line| line.split_whitespace().next());
        let inner: Vec<Vec<String>> = names
            .filter(|name| *name != "help")
            .map(|name| [command.clone(), vec![name.to_owned()]].concat())
            .collect();
        let name = format!("okki-sync {}", command.join(" "));
        assert!(!inner.is_empty() || spans.contains(&name), "{REFERENCE} does not tell of {name}");
        let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let options = options.flat_map(str::split_whitespace).filter(|word| word.starts_with("--"));
        for option in options {
            let told = spans.iter().any(|span| span.split(' ').next() == Some(option));
            assert!(told, "{REFERENCE} does not tell of {option} of {name}");
            seen += 1;
        }
        waiting.extend(inner);
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn every_key_of_the_store_is_in_the_formats() {
    let spans = code_spans(&read(FORMATS));
    let code = product_code(&root().join("src/store/paths.rs"));
    let is_part = |c: char| c.is_ascii_lowercase() || "<>/._".contains(c);
    let mut keys = words_in_code(&code, is_part);
    keys.retain(|word| word.contains('<') && !(word.starts_with('<') && word.ends_with('>')));
    assert!(keys.len() >= 10, "{keys:?}");
    for key in keys {
        assert!(spans.contains(&key), "{FORMATS} does not tell of {key}");
    }
}

/// The value of a constant in a source file, as it is written there.
fn constant<'c>(code: &'c str, declaration: &str) -> Option<&'c str> {
    code.split_once(declaration)?.1.split(';').next().map(|value| value.trim_matches('"'))
}

#[test]
fn every_format_is_in_the_formats_with_its_version_and_a_sample() {
    let formats = read(FORMATS);
    let mut seen = 0;
    for file in source_files() {
        let code = product_code(&file);
        let Some(name) = constant(&code, "const FORMAT_NAME: &str = ") else { continue };
        let version = constant(&code, "const FORMAT_VERSION: u32 = ").unwrap_or_default();
        assert!(formats.contains(&format!("`{name}`, {version} ")), "{FORMATS} lacks {name}, {version}");
        let header = format!(r#"{{"format":"{name}","version":{version},"#);
        assert!(formats.contains(&header), "{FORMATS} has no sample of {name}, {version}");
        seen += 1;
    }
    assert_eq!(seen, 8, "state, run, limits, pace, products, read-back, row ledger, changes");
}

/// The samples of a document that name their file: `<!-- key -->` above the block.
fn samples(document: &str) -> Vec<(String, String)> {
    let parts = document.split("<!-- ").skip(1);
    let samples = parts.filter_map(|part| {
        let (key, below) = part.split_once(" -->\n")?;
        Some((key.to_owned(), parts_of(below)?))
    });
    samples.collect()
}

/// The fenced block that a text begins with.
fn parts_of(text: &str) -> Option<String> {
    text.starts_with("```").then(|| parts(text).1.into_iter().next())?.map(|(_, block)| block)
}

#[test]
fn the_samples_of_state_and_run_are_read_by_this_program() {
    let directory = tempfile::tempdir().unwrap();
    let samples = samples(&read(FORMATS));
    assert_eq!(samples.len(), 2, "{samples:?}");
    for (key, text) in samples {
        let file = directory.path().join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text + "\n").unwrap();
    }
    let pipeline = directory.path().join("acme.toml");
    std::fs::write(&pipeline, &blocks(&read(FORMATS), "toml")[0]).unwrap();
    let output = okki_sync(&["state", "show", "--json", "--pipeline", "acme.toml"], directory.path())
        .env("OKKI_SYNC_STORE", format!("file://{}", directory.path().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    // One row is known, two may have changed, two may be there, one of them was refused.
    assert_eq!((&shown["state"]["acknowledged"], &shown["state"]["announced"]), (&1.into(), &4.into()));
    assert_eq!(shown["state"]["refused"][0]["refusal"]["times"], 2);
    assert_eq!(shown["lease"]["target_calls_ms"].as_array().map(Vec::len), Some(13));
}

/// The fields of a JSON object, and those of the objects in it as `outer.inner`. What a row holds is not ours.
fn fields(object: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let inner = value.as_object().filter(|_| name != "raw" && name != "was").into_iter().flatten();
        let inner: Vec<_> = inner.map(|(inner, _)| format!("{name}.{inner}")).collect();
        if inner.is_empty() { names.push(name.clone()) } else { names.extend(inner) }
    }
    names
}

#[test]
fn every_field_of_the_samples_is_explained() {
    let formats = read(FORMATS);
    let spans = &code_spans(&formats) | &code_spans(&read(REFERENCE));
    let blocks = parts(&formats).1.into_iter().filter(|(language, _)| language != "toml");
    let mut seen = BTreeSet::new();
    for (_, block) in blocks {
        let whole = serde_json::from_str::<Value>(&block).into_iter();
        let lines = block.lines().map(|line| line.trim_start_matches("! "));
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        seen.extend(whole.chain(lines).flat_map(|object| fields(&object)));
    }
    assert!(seen.len() >= 45, "{seen:?}");
    for field in seen {
        assert!(spans.contains(&field), "{FORMATS} does not explain {field}");
    }
}

/// The names in a folder without their endings.
fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_room_is_in_the_design_and_every_file_of_the_largest_ones() {
    let design = read(DESIGN);
    let rooms = code_spans(section(&design, "## Rooms"));
    for room in names_in("src") {
        let is_there = [format!("{room}/"), format!("{room}.rs")].iter().any(|name| rooms.contains(name));
        assert!(is_there, "{DESIGN} does not tell of src/{room}");
    }
    for folder in ["src/sync", "src/okki"] {
        for file in names_in(folder) {
            assert!(rooms.contains(&file), "{DESIGN} does not tell of {folder}/{file}.rs");
        }
    }
}

#[test]
fn every_path_that_a_document_names_is_there() {
    const FOLDERS: [&str; 11] = [
        "src/",
        "tests/",
        "sandbox/",
        "infra/",
        "docs/",
        "benches/",
        "fuzz/",
        "events/",
        "examples/",
        "schema/",
        ".ci/",
    ];
    let mut seen = 0;
    // A changelog names what was there once.
    for document in documents().into_iter().filter(|name| name != "CHANGELOG.md") {
        for span in code_spans(&read(&document)) {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder));
            if is_path && !span.contains(|c: char| c.is_whitespace() || "<>*{}…".contains(c)) {
                assert!(root().join(&span).exists(), "{document} names {span}, which is not there");
                seen += 1;
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

/// All documents of the repository, as paths below its root.
fn documents() -> Vec<String> {
    let (mut folders, mut files) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Hidden folders and build output hold other people's documents.
            if name.starts_with('.') || name == "target" || name == "corpus" || name == "node_modules" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".md") {
                files.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_link_between_documents_leads_to_a_file_and_a_heading() {
    let all = documents();
    assert!(all.len() >= 9, "{all:?}");
    for document in &all {
        let (prose, _) = parts(&read(document));
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let beside = Path::new(document).parent().unwrap();
            let path = if file.is_empty() { PathBuf::from(document) } else { clean(&beside.join(file)) };
            let path = path.to_string_lossy().into_owned();
            assert!(root().join(&path).exists(), "{document} links to {link}, which is not there");
            let is_there = heading.is_empty() || anchors(&read(&path)).iter().any(|name| name == heading);
            assert!(is_there, "{document} links to {link}, but {path} has no such heading");
        }
    }
}

/// A path without `..`.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

/// The names under which GitHub links to a document's headings, in their order.
fn anchors(document: &str) -> Vec<String> {
    let (prose, _) = parts(document);
    let headings =
        prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let name = |heading: &str| {
        heading.chars().filter(|c| kept(*c)).collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(name).collect()
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
