//! The real program in Chinese and English: what people read changes, what programs read does not.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use okki_sync::testing::clock::Clock;
use okki_sync_sandbox::{Options, Sandbox};
use serde_json::Value;

/// Runs the program in this directory, with these variables and no others.
fn run(directory: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.current_dir(directory).env_clear().stdin(Stdio::null()).args(arguments);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn is_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

/// A small catalogue with a row of each flaw.
const DIRTY: [&str; 6] = ["--sandbox", "--dirty", "--groups", "30", "--products", "120"];
const WRONG: &str = "connection = \"A B\"\nsorce = 1\n[source]\npage_size = \"5\"\nproducts = \"incremntal\"\n\
    base_url = \"ftp://x\"\n[target]\nkind = \"http\"\nbase_url = \"https://x\"\nmax_rows_per_batch = 0\n\
    [target.success]\ncode = 0\n";

#[test]
fn flag_variable_and_locale_choose_in_this_order() {
    let directory = tempfile::tempdir().unwrap();
    for (variables, arguments, chinese) in [
        (&[][..], &["--help"][..], false),
        (&[("LANG", "zh_CN.UTF-8")], &["--help"], true),
        (&[("LC_ALL", "C.UTF-8"), ("LANG", "zh_CN.UTF-8")], &["--help"], false),
        (&[("LC_MESSAGES", "zh_CN"), ("LANG", "en_US.UTF-8")], &["--help"], true),
        (&[("OKKI_SYNC_LANG", "en"), ("LANG", "zh_CN.UTF-8")], &["--help"], false),
        (&[("OKKI_SYNC_LANG", "zh")], &["--help"], true),
        (&[("OKKI_SYNC_LANG", "zh")], &["--lang", "en", "--help"], false),
        (&[("OKKI_SYNC_LANG", "en")], &["sync", "--help", "--lang=zh"], true),
        (&[("LANG", "fr_FR.UTF-8")], &["--help"], false),
    ] {
        let output = run(directory.path(), variables, arguments);
        let help = stdout(&output);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(help.contains("用法："), chinese, "{variables:?} {arguments:?}\n{help}");
        assert_eq!(help.contains("Usage: "), !chinese, "{variables:?} {arguments:?}\n{help}");
        assert_eq!(stderr(&output), "", "{variables:?} {arguments:?}");
    }
}

#[test]
fn an_unknown_language_is_named_in_one_line_and_english_is_used() {
    let directory = tempfile::tempdir().unwrap();
    for (variables, arguments) in [
        (&[("LANG", "zh_CN.UTF-8")][..], &["schema", "--lang", "fr"][..]),
        (&[("OKKI_SYNC_LANG", "fr"), ("LANG", "zh_CN.UTF-8")], &["schema"]),
    ] {
        let output = run(directory.path(), variables, arguments);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stderr(&output), "language \"fr\" is not known (zh or en); English is used\n");
    }
    let bad_usage = run(directory.path(), &[("OKKI_SYNC_LANG", "fr")], &["snyc"]);
    assert_eq!(bad_usage.status.code(), Some(2));
    assert!(stderr(&bad_usage).contains("\nerror: unrecognized subcommand"), "{}", stderr(&bad_usage));
}

#[test]
fn bad_usage_has_the_same_code_in_both_languages() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["snyc"][..], &["sync", "--nonsense"], &["sync", "--groups", "7"], &["state"]] {
        let codes = ["en", "zh"].map(|lang| {
            let output = run(directory.path(), &[("OKKI_SYNC_LANG", lang)], arguments);
            assert_eq!(is_chinese(&stderr(&output)), lang == "zh", "{arguments:?} {}", stderr(&output));
            assert!(output.stdout.is_empty());
            output.status.code()
        });
        assert_eq!(codes, [Some(2); 2], "{arguments:?}");
    }
}

#[test]
fn a_run_is_told_in_chinese_with_the_reasons_of_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let store = [("OKKI_SYNC_LANG", "zh"), ("OKKI_SYNC_STORE", "file://./store")];
    let plan = run(directory.path(), &store, &[&["plan"], &DIRTY[..]].concat());
    assert_eq!(plan.status.code(), Some(3), "{}", stderr(&plan));
    let told = stdout(&plan);
    assert!(told.starts_with("+ 新增   * 更新   - 删除   = 无变更\n"), "{told}");
    assert!(told.contains("（目标端还没有）") && told.contains("\n计划部分完成 · 连接 sandbox · "), "{told}");
    for line in told.lines().filter(|line| line.starts_with("  ")) {
        assert!(is_chinese(line), "{line}");
    }
    assert!(stderr(&plan).contains("计划完成："), "{}", stderr(&plan));

    let sync = stdout(&run(directory.path(), &store, &[&["sync"], &DIRTY[..]].concat()));
    let labels: Vec<&str> = sync.lines().filter_map(|line| line.get(..12)).collect();
    assert!(sync.contains("\n  数据源     ") && sync.contains("\n  隔离区     "), "{labels:?}");
    assert!(sync.contains("进入隔离区，原因见存储中的 quarantine/sandbox/"), "{sync}");
    for reason in sync.lines().filter(|line| line.trim_start().starts_with("- ")) {
        assert!(is_chinese(reason.split('：').next_back().unwrap()), "{reason}");
    }
}

#[test]
fn what_is_stored_and_what_programs_read_has_one_language() {
    let told = ["en", "zh"].map(|lang| {
        let directory = tempfile::tempdir().unwrap();
        let variables = [("OKKI_SYNC_LANG", lang), ("OKKI_SYNC_STORE", "file://./store")];
        let output = run(directory.path(), &variables, &[&["sync", "--json"], &DIRTY[..]].concat());
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let run_id = report["run_id"].as_str().unwrap();
        let file = directory.path().join(format!("store/quarantine/sandbox/{run_id}.jsonl"));
        let reasons: Vec<Value> = std::fs::read_to_string(file)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["reason"].clone())
            .collect();
        (output.status.code(), report["plan"].clone(), report["status"].clone(), reasons, stderr(&output))
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0].3.len() > 3);
}

#[test]
fn check_names_every_mistake_in_chinese_and_its_json_in_english() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pipeline.toml"), WRONG).unwrap();
    let checked = |lang: &str, more: &[&str]| {
        let output = run(directory.path(), &[("OKKI_SYNC_LANG", lang)], &[&["check"], more].concat());
        assert_eq!(output.status.code(), Some(2));
        stdout(&output)
    };
    assert_eq!(checked("en", &["--json"]), checked("zh", &["--json"]));
    let (english, chinese) = (checked("en", &[]), checked("zh", &[]));
    assert_eq!(english.lines().count(), chinese.lines().count());
    assert!(english.lines().count() >= 7, "{english}");
    for line in chinese.lines() {
        let (place, rest) = line.split_once('：').unwrap();
        let (what, help) = rest.split_once('；').unwrap();
        assert!(is_chinese(what) && is_chinese(help) && !place.is_empty(), "{line}");
    }
    assert!(
        chinese.contains("pipeline.toml:4 source.page_size：是字符串，不是整数；请去掉引号\n"),
        "{chinese}"
    );
}

#[test]
fn an_error_is_told_in_the_language_and_reported_in_english() {
    let directory = tempfile::tempdir().unwrap();
    let zh = [("OKKI_SYNC_LANG", "zh")];
    let lost = run(directory.path(), &zh, &["sync", "--pipeline", "none.toml", "--json"]);
    assert_eq!(lost.status.code(), Some(2));
    assert_eq!(
        stderr(&lost),
        "错误：BadPipeline：管道文件 \"none.toml\" 不存在，本地和存储中都没有；请用 --pipeline 或 OKKI_SYNC_PIPELINE 指定\n"
    );
    let report: Value = serde_json::from_str(&stdout(&lost)).unwrap();
    assert_eq!(
        report["error"],
        "BadPipeline: pipeline file \"none.toml\" does not exist here, nor in the store; name one with --pipeline or \
         OKKI_SYNC_PIPELINE"
    );

    // Nobody listens at this port.
    std::fs::write(
        directory.path().join("pipeline.toml"),
        "[source]\nbase_url = \"http://127.0.0.1:1\"\n[target]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/x\"\n",
    )
    .unwrap();
    let known = [("OKKI_SYNC_LANG", "zh"), ("OKKI_CLIENT_ID", "id-1"), ("OKKI_CLIENT_SECRET", "secret-1")];
    let unreachable = run(directory.path(), &known, &["plan", "--deadline", "4s"]);
    let told = stderr(&unreachable) + &stdout(&unreachable);
    assert!(told.contains("数据源 127.0.0.1：无法连接：") || told.contains("运行的时间已用完"), "{told}");
}

#[test]
fn the_state_is_shown_in_the_language_with_its_columns_aligned() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("pipeline.toml"),
        "[target]\nkind = \"http\"\nurl = \"https://a.example/x\"\n",
    )
    .unwrap();
    let shown = |lang: &str| stdout(&run(directory.path(), &[("OKKI_SYNC_LANG", lang)], &["state", "show"]));
    let (english, chinese) = (shown("en"), shown("zh"));
    assert!(english.starts_with("connection   default\nstate        file://"), "{english}");
    assert!(chinese.starts_with("连接         default\n状态         file://"), "{chinese}");
    assert!(chinese.ends_with("             尚无内容：下次同步会写入每一行\n运行         无\n"), "{chinese}");
}

/// The commands that look at rows and runs, against a served sandbox with a store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_runs_and_the_quarantine_are_told_in_the_language() {
    let options = Options { groups: 12, products: 40, dirty: true, ..Options::default() };
    let sandbox = Sandbox::new(options, || Clock::system().now_ms());
    let serving = sandbox.serve(0, 0).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("pipeline.toml"), okki_sync_sandbox::PIPELINE).unwrap();
    let known = Sandbox::environment(&serving);
    let told = |lang: &str, code: i32, arguments: &[&str]| {
        let mut variables: Vec<(&str, &str)> = known.iter().map(|(key, value)| (*key, &**value)).collect();
        variables.extend([("OKKI_SYNC_LANG", lang), ("OKKI_SYNC_STORE", "file://./store")]);
        let output = run(directory.path(), &variables, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {}", stderr(&output));
        (stdout(&output), stderr(&output))
    };
    let zh = |arguments: &[&str]| told("zh", 0, arguments).0;
    told("zh", 3, &["sync"]);

    let preview = zh(&["preview"]);
    let halves: Vec<(&str, &str)> = preview.lines().filter_map(|line| line.split_once("│")).collect();
    assert!(
        halves.first().is_some_and(|(left, right)| left.trim() == "数据源" && right.trim() == "行"),
        "{preview}"
    );
    assert!(preview.contains("用 --limit 显示更多\n"), "{preview}");
    let rejected = halves.windows(2).filter(|lines| lines[0].1.trim() == "不合格");
    let reasons: Vec<&str> = rejected.map(|lines| lines[1].1).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|why| is_chinese(why)), "{preview}");

    let listed = zh(&["quarantine", "list"]);
    let (rows, count) = listed.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(count, format!("{} 行，其中 0 行被忽略", rows.lines().count()));
    for line in rows.lines() {
        let parts: Vec<&str> = line.splitn(5, " · ").collect();
        assert!(is_chinese(parts[1]) && parts[2].starts_with("始于 ") && is_chinese(parts[4]), "{line}");
        assert_eq!(parts[3], "已尝试 1 次，下次运行时再试");
    }
    let handle = rows.split(" · ").next().unwrap();
    let shown = zh(&["quarantine", "show", handle]);
    assert!(shown.contains("\n原因      ") && shown.contains("\n被忽略    否\n"), "{shown}");
    assert!(zh(&["quarantine", "dismiss", handle]).contains("：已忽略，直到内容变化；用 retry 重新计入\n"));

    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&told("zh", 0, arguments).0).unwrap() };
    let sent = &json(&["preview", "--json"])[0]["row"]["id"];
    let id = sent.as_str().unwrap();
    let row = zh(&["row", id]);
    assert!(row.contains("\n  数据源       {") && row.contains("\n  已确认       2"), "{row}");
    let history = row.lines().find(|line| line.starts_with("  历史         ")).unwrap();
    assert!(history.contains(" 新增 已接收 ") && history.contains("  运行 "), "{history}");
    let unknown = told("zh", 2, &["row", "no-such-id"]).1;
    assert!(unknown.contains("错误：BadEvent：\"no-such-id\" 既不是数据源的 id"), "{unknown}");
    assert!(unknown.contains("；最接近的有："), "{unknown}");

    let runs = zh(&["runs"]);
    assert!(runs.contains("，新的在前\n开始（UTC）") && runs.contains("  部分完成  "), "{runs}");
    let run_id = json(&["runs", "--json"])[0]["run_id"].as_str().unwrap().to_owned();
    let undo = zh(&["undo", &run_id]);
    assert!(undo.contains("（由这次运行新增；用 --deletes 删除）\n"), "{undo}");
    assert!(undo.ends_with("没有可以撤销的内容\n"), "{undo}");
    let undo = zh(&["undo", &run_id, "--deletes"]);
    assert!(undo.contains(" 行；用 --yes 发送。但请注意，以数据源为准："), "{undo}");
    let refused = told("zh", 2, &["undo", "20200101T000000000Z-00000000"]).1;
    assert!(refused.contains("没有保存连接 ") && refused.contains("；最近改动过行的运行："), "{refused}");
    for arguments in [&["row", id, "--json"][..], &["quarantine", "list", "--json"], &["runs", "--json"]] {
        assert_eq!(told("en", 0, arguments).0, told("zh", 0, arguments).0, "{arguments:?}");
    }
}

/// Words of English sentences; names of products and what programs print of themselves have none of them.
const ENGLISH: [&str; 13] =
    ["the", "is", "are", "of", "to", "not", "with", "was", "has", "cannot", "rows", "this", "one"];

/// The lines of a text with a word of an English sentence in them.
fn english_sentences(text: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_english = |line: &&str| line.split(|c| !is_part(c)).any(|word| ENGLISH.contains(&word));
    text.lines().filter(is_english).collect()
}

/// Text of a page, without its tags and its style.
fn text_of(html: &str) -> String {
    let body = html.split_once("<body>").unwrap().1;
    body.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| format!("{text}\n")).collect()
}

/// What a person who reads no English meets between the README and a first plan, sync and page of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_hour_of_the_chinese_readme_meets_no_english_sentence() {
    assert_eq!(english_sentences("正常：store\nthe store 正常\n").len(), 1, "the test sees one");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.zh-CN.md")).unwrap();
    let (_, pipeline) = readme.split_once("```toml\n").unwrap();
    let pipeline: String = pipeline
        .lines()
        .take_while(|line| !line.contains("```"))
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    let options = Options { groups: 12, products: 40, dirty: true, ..Options::default() };
    let sandbox = Sandbox::new(options, || Clock::system().now_ms());
    let serving = sandbox.serve(0, 0).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let known = Sandbox::environment(&serving);
    let told = |code: i32, line: &str| {
        let mut variables: Vec<(&str, &str)> = known.iter().map(|(key, value)| (*key, &**value)).collect();
        variables.extend([("LANG", "zh_CN.UTF-8"), ("OKKI_SYNC_STORE", "file://./store")]);
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = run(directory.path(), &variables, &arguments);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert_eq!(english_sentences(&said), [""; 0], "{line}: {said}");
        said
    };
    for command in
        ["plan", "check", "preview", "runs", "snyc", "plan --nonsense", "row", "man nonsense", "sync --only"]
    {
        assert!(is_chinese(&told(2, command)), "{command} before there is a pipeline, or called wrongly");
    }
    std::fs::write(directory.path().join("pipeline.toml"), &pipeline).unwrap();
    for (code, command) in [
        (2, "report"),
        (2, "undo 20200101T000000000Z-00000000"),
        (0, "check"),
        (0, "check --online"),
        (0, "preview"),
        (3, "plan"),
        (3, "sync"),
        (3, "sync"),
        (3, "verify"),
        (0, "quarantine list"),
        (0, "report"),
        (0, "report --html run.html"),
        (0, "runs"),
        (0, "state show"),
        (0, "state rebuild"),
        (2, "row nosuch"),
        (2, "quarantine show nosuch"),
        (2, "plan --approve nonsense"),
    ] {
        told(code, command);
    }
    let page = std::fs::read_to_string(directory.path().join("run.html")).unwrap();
    let shown = text_of(&page);
    assert!(page.contains("<svg class=\"timeline\"") && shown.contains("次调用，其中 0 次失败"), "{shown}");
    assert_eq!(english_sentences(&shown), [""; 0]);

    std::fs::write(directory.path().join("pipeline.toml"), WRONG).unwrap();
    told(2, "check");
    for help in ["--help", "sync --help", "sandbox --help", "quarantine --help", "report --help"] {
        told(0, help);
    }
}

#[test]
fn man_pages_and_completions_are_in_the_language() {
    let directory = tempfile::tempdir().unwrap();
    let shown = |lang: &str, arguments: &[&str]| {
        stdout(&run(directory.path(), &[("OKKI_SYNC_LANG", lang)], arguments))
    };
    let page = shown("zh", &["man", "sync"]);
    assert!(
        page.contains(".SH 名称\n") && page.contains(".SH 选项\n") && page.contains(".SH 沙箱\n"),
        "{page}"
    );
    assert!(page.contains("\n读取、转换、计划、分批写入、记录状态\n"), "{page}");
    assert!(
        page.contains("\n在此时限之内有序结束，例如 15m；下次运行从该处继续\n"),
        "one line, which man breaks: {page}"
    );
    let whole = shown("zh", &["man"]);
    assert!(whole.contains(".SH 命令\n") && whole.contains("退出码：0 完成"), "{whole}");
    for page in [&page, &whole] {
        let headings: Vec<&str> = page.lines().filter(|line| line.starts_with(".SH ")).collect();
        assert!(headings.iter().all(|heading| is_chinese(heading)), "{headings:?}");
        assert_eq!(english_sentences(page), [""; 0], "{page}");
    }
    assert!(shown("en", &["man", "sync"]).contains(".SH NAME\n"));

    for shell in ["zsh", "fish"] {
        let (english, chinese) = (shown("en", &["completions", shell]), shown("zh", &["completions", shell]));
        assert!(chinese.contains("回读目标端并与数据源比对"), "{shell}");
        assert!(!is_chinese(&english));
        assert_eq!(english.lines().count(), chinese.lines().count(), "{shell}: a text is one line");
    }
    assert_eq!(
        shown("en", &["completions", "bash"]),
        shown("zh", &["completions", "bash"]),
        "bash shows no help"
    );
}

#[test]
fn a_locale_without_unicode_gets_english_and_signs_of_ascii() {
    let directory = tempfile::tempdir().unwrap();
    let plan = ["plan", "--sandbox", "--groups", "8", "--products", "40"];
    for (locale, ascii) in
        [("C", true), ("POSIX", true), ("zh_CN.GBK", true), ("C.UTF-8", false), ("en_US.utf8", false)]
    {
        let output = run(directory.path(), &[("LC_ALL", locale), ("TERM", "dumb")], &plan);
        let told = stdout(&output);
        assert!(told.contains("not at the target yet"), "{locale}: {told}");
        assert_eq!(told.contains("+ |- "), ascii, "{locale}: {told}");
        assert_eq!(told.contains(['├', '└', '│', '·']), !ascii, "{locale}: {told}");
        assert!(told.contains("LED灯具") && !told.contains('\u{1b}'), "a name stays as it is: {told}");
    }
    let json = run(
        directory.path(),
        &[("LC_ALL", "C")],
        &["plan", "--sandbox", "--groups", "4", "--products", "9", "--json"],
    );
    assert!(serde_json::from_str::<Value>(&stdout(&json)).is_ok());
}
