//! Help and bad usage in Chinese.
#![allow(clippy::unwrap_used)]

use insta::assert_snapshot;

use super::*;

/// What the program prints for these words.
fn printed(words: &[&str]) -> String {
    let words = ["okki-sync"].iter().chain(words);
    let error = translated(Args::command(), Lang::Zh).try_get_matches_from(words).unwrap_err();
    said(&error.render(), Lang::Zh, false)
}

#[test]
fn help_is_chinese_to_its_last_heading() {
    assert_snapshot!(printed(&["state", "--help"]), @r"
    显示目标端已确认的内容，或从目标端重建

    用法：okki-sync state [选项] <命令>

    命令：
      show     以便于阅读的形式输出连接的状态
      rebuild  按目标端现有的内容重建状态；旧状态保留为 .state.previous
      help     显示本帮助，或指定子命令的帮助

    选项：
      -v, --verbose      在 stderr 上输出更多日志（此时进度以纯文本行显
                         示）
          --lang <LANG>  显示语言，zh 或 en [默认值：OKKI_SYNC_LANG，否
                         则取系统区域设置]
      -h, --help         显示帮助
      -V, --version      显示版本
    ");
    let english = |line: &&str| line.chars().filter(char::is_ascii_alphabetic).count() > 50;
    for command in ["--help", "sync", "plan", "verify", "sandbox", "check", "state"] {
        let help = printed(&[command, "--help"]);
        assert_eq!(help.lines().find(english), None, "{help}");
    }
}

#[test]
fn no_line_of_help_is_wider_than_a_terminal() {
    for command in ["sync", "plan", "verify", "sandbox", "check", "state"] {
        for line in printed(&[command, "--help"]).lines().filter(|line| !line.contains("用法：")) {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= 80, "{line}");
        }
    }
}

#[test]
fn bad_usage_is_told_in_chinese() {
    for (words, first, last) in [
        (&["sync", "--nonsense"][..], "错误：不认识的参数“--nonsense”", "更多信息请运行“--help”。"),
        (&["snyc"], "错误：不认识的子命令“snyc”", "更多信息请运行“--help”。"),
        (&["sync", "--groups", "7"], "错误：缺少以下必需的参数：", "更多信息请运行“--help”。"),
        (
            &["sync", "--deadline"],
            "错误：“--deadline <DURATION>”需要一个值，但没有给出",
            "更多信息请运行“--help”。",
        ),
        (&["sync", "--json", "--json"], "错误：参数“--json”不能重复使用", "更多信息请运行“--help”。"),
        (
            &["sandbox", "--edits-per-minute", "x"],
            "错误：“--edits-per-minute <N>”的值“x”无效：应为 0 到 60000 之间的数",
            "更多信息请运行“--help”。",
        ),
    ] {
        let told = printed(words);
        assert_eq!((told.lines().next(), told.lines().last()), (Some(first), Some(last)), "{told}");
    }
    assert!(printed(&["snyc"]).contains("  提示：有一个相近的子命令：“sync”\n"));
}

#[test]
fn a_styled_line_keeps_its_style() {
    let line = "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m unexpected argument '\u{1b}[33m--x\u{1b}[0m' found";
    assert_eq!(
        sentence(line, Lang::Zh),
        "\u{1b}[1m\u{1b}[31merror:\u{1b}[0m不认识的参数“\u{1b}[33m--x\u{1b}[0m”"
    );
}

#[test]
fn the_flag_is_found_wherever_it_stands() {
    let flag = |words: &[&str]| flag(words.iter().map(|word| (*word).to_owned()));
    assert_eq!(flag(&["sync", "--lang", "zh"]).as_deref(), Some("zh"));
    assert_eq!(flag(&["--lang=en", "sync"]).as_deref(), Some("en"));
    assert_eq!(flag(&["sync", "--", "--lang", "zh"]), None);
    assert_eq!(flag(&["sync", "--lang"]), None);
}

#[test]
fn han_text_breaks_anywhere_but_before_its_punctuation() {
    let text = "读取".repeat(23) + "，然后 plan";
    assert_eq!(fold(&text, 46), format!("{}读\n取{}读\n取，然后 plan", "读取".repeat(11), "读取".repeat(10)));
    assert_eq!(fold("short", 46), "short");
}
