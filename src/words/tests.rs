//! The mechanism, and the catalogue held against the source: every sentence has its Chinese, with the same placeholders.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::catalogue::{ZH, chinese};
use super::message::{Part, parts};
use super::{Lang, Language, Message, Words as _, recognise, recognise_line};
use crate::error::{Error, ErrorKind, Side};

fn chosen(flag: Option<&str>, variables: &[(&str, &str)]) -> Language {
    Language::choose(flag, |name| {
        variables.iter().find(|(named, _)| *named == name).map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn a_flag_goes_before_the_variable_and_that_before_the_locale() {
    let zh = [("OKKI_SYNC_LANG", "zh"), ("LC_ALL", "en_US.UTF-8")];
    assert_eq!(chosen(Some("en"), &zh).lang, Lang::En);
    assert_eq!(chosen(None, &zh).lang, Lang::Zh);
    for (variables, lang) in [
        (&[("LANG", "zh_CN.UTF-8")][..], Lang::Zh),
        (&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")], Lang::En),
        (&[("LC_MESSAGES", "zh_TW"), ("LANG", "en_US.UTF-8")], Lang::Zh),
        (&[("LC_ALL", "zh-Hans-CN"), ("LC_MESSAGES", "en_US")], Lang::Zh),
        (&[("LANG", "de_DE.UTF-8")], Lang::En),
        (&[], Lang::En),
    ] {
        assert_eq!(chosen(None, variables), Language { lang, unknown: None }, "{variables:?}");
    }
}

#[test]
fn a_language_that_is_not_known_is_named_and_english_is_used() {
    let asked = |name: &str| Some(Language { lang: Lang::En, unknown: Some(name.to_owned()) });
    let zh = [("OKKI_SYNC_LANG", "zh")];
    assert_eq!(Some(chosen(Some("fr"), &zh)), asked("fr"));
    assert_eq!(Some(chosen(None, &[("OKKI_SYNC_LANG", "klingon"), ("LANG", "zh_CN")])), asked("klingon"));
    assert_eq!(Some(chosen(Some(""), &zh)), asked(""));
    assert_eq!(chosen(Some("ZH_cn.UTF-8"), &[]).lang, Lang::Zh);
}

#[test]
fn a_message_is_english_until_chinese_is_asked_for() {
    let message =
        say!("{side} answered HTTP {status}: {said}", side = Side::Target, status = 500, said = "no");
    assert_eq!(message.to_string(), "target answered HTTP 500: no");
    assert_eq!(message.in_language(Lang::Zh), "目标端应答 HTTP 500：no");
    assert_eq!(format!("{message:?}"), "\"target answered HTTP 500: no\"");
}

#[test]
fn a_message_inside_of_a_message_is_translated_with_it() {
    let inner = say!("is not a URL: {error}", error = "empty host");
    let error = Error::new(
        ErrorKind::BadPipeline,
        say!("{first}; and {more} more: okki-sync check lists all", first = inner, more = 2),
    )
    .help(say!("take it out"));
    assert_eq!(
        error.line(),
        "BadPipeline: is not a URL: empty host; and 2 more: okki-sync check lists all; take it out"
    );
    assert_eq!(
        error.line_in(Lang::Zh),
        "BadPipeline：不是 URL：empty host；另有 2 处：okki-sync check 会全部列出；请去掉"
    );
}

#[test]
fn what_somebody_else_said_stays_as_it_is() {
    for text in ["Connection refused (os error 111)", "手机", "no group", "", "}{"] {
        assert_eq!(Message::from(text).in_language(Lang::Zh), text);
        assert_eq!(say!("({why})", why = text).in_language(Lang::Zh), format!("（{text}）"));
    }
    // The name of a product may be a word of ours.
    assert_eq!(say!("({why})", why = "source").in_language(Lang::Zh), "（source）");
}

#[test]
fn a_brace_that_opens_no_placeholder_is_a_brace() {
    let message = say!("add fields = { id = \"product_id\", … }");
    assert_eq!(message.to_string(), "add fields = { id = \"product_id\", … }");
    assert_eq!(message.in_language(Lang::Zh), "请补上 fields = { id = \"product_id\", … }");
}

#[test]
fn only_what_others_said_is_redacted() {
    let inner = say!("is not a URL: {error}", error = "secret");
    let message =
        say!("{side} answered HTTP {status}: {said}", side = Side::Source, status = 400, said = inner);
    let clean = message.map_text(&|text| text.replace("secret", "…").replace("source", "?"));
    assert_eq!(clean.to_string(), "source answered HTTP 400: is not a URL: …");
    assert_eq!(Message::from("a secret").map_text(&|text| text.replace("secret", "…")), "a …");
}

#[test]
fn english_text_of_a_file_is_recognised_with_what_fills_it() {
    let zh = |text: &str| recognise(text, Lang::Zh);
    assert_eq!(zh("not at the target yet"), "目标端还没有");
    assert_eq!(zh("the total moved from 12 to 13 while reading"), "读取期间总数从 12 变为 13");
    assert_eq!(
        zh(
            "source: 3 reads in a row did not agree (the last: the total moved from 1 to 2 while reading); nothing was written"
        ),
        "数据源：连续 3 次读取不一致（最后一次：读取期间总数从 1 变为 2）；没有写入任何内容"
    );
    assert_eq!(zh("target answered HTTP 500: source"), "目标端应答 HTTP 500：source");
    assert_eq!(zh("a wholly different sentence: of somebody"), "a wholly different sentence: of somebody");
    assert_eq!(recognise("not at the target yet", Lang::En), "not at the target yet");
}

#[test]
fn a_stored_error_line_is_recognised_part_by_part() {
    let line = "BadPipeline: p.toml:2 source.base_url: is neither https nor http; write a URL that starts with https://";
    assert_eq!(
        recognise_line(line, Lang::Zh),
        "BadPipeline：p.toml:2 source.base_url：既不是 https 也不是 http；请写以 https:// 开头的 URL"
    );
    assert_eq!(recognise_line(line, Lang::En), line);
    assert_eq!(recognise_line("Busy: who knows; why", Lang::Zh), "Busy: who knows; why");
}

/// Every sentence of the source, with the file that says it.
fn sentences() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("words/mod.rs")
            {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                if !name.ends_with("tests.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    found.extend(said_in(&text).into_iter().map(|sentence| (sentence, name.clone())));
                }
            }
        }
    }
    #[cfg(feature = "cli")]
    found.extend(crate::cli::sentences().into_iter().map(|sentence| (sentence, "cli/args.rs".to_owned())));
    found
}

/// The sentences of `say!`, `phrase!` and `counted!`, and the schema's comments, which are told as they are.
fn said_in(text: &str) -> Vec<String> {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .fold(String::new(), |code, line| code + line + "\n");
    let mut found = Vec::new();
    for (start, all) in [
        ("say!(", false),
        ("phrase!(", false),
        ("written!(", false),
        ("counted!(", true),
        ("\"$comment\" = ", false),
    ] {
        for (at, _) in code.match_indices(start) {
            let literals = literals(&code[at + start.len()..]);
            found.extend(literals.into_iter().take(if all { usize::MAX } else { 1 }));
        }
    }
    found
}

/// The string literals up to the parenthesis that closes the call.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut depth, mut chars) = (Vec::new(), 1, code.chars());
    while let Some(c) = chars.next() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 1 => break,
            ')' | ']' | '}' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match (c, if c == '\\' { chars.next() } else { None }) {
                        (_, None) => literal.push(c),
                        (_, Some('n')) => literal.push('\n'),
                        (_, Some('\n')) => {
                            let rest = chars.as_str();
                            chars = rest.trim_start().chars();
                        }
                        (_, Some(escaped)) => literal.push(escaped),
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}

fn placeholders(template: &str) -> BTreeSet<&str> {
    parts(template)
        .filter_map(|part| match part {
            Part::Hole(name) => Some(name),
            Part::Text(_) => None,
        })
        .collect()
}

#[test]
fn every_sentence_has_its_chinese_and_the_other_way_round() {
    let sentences = sentences();
    assert!(sentences.len() > 200 && toml::from_str::<BTreeMap<String, String>>(ZH).is_ok());
    let missing: Vec<_> = sentences.iter().filter(|(english, _)| !chinese().contains_key(*english)).collect();
    assert!(missing.is_empty(), "write these into zh.toml: {missing:#?}");
    let unused: Vec<_> = chinese().keys().filter(|english| !sentences.contains_key(*english)).collect();
    assert!(unused.is_empty(), "nobody says: {unused:#?}");
}

#[test]
fn a_sentence_has_the_same_placeholders_in_every_language() {
    for (english, here) in chinese() {
        assert_eq!(placeholders(english), placeholders(here), "{english}");
        let names = placeholders(english);
        assert!(
            names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')),
            "no format in a placeholder: {english}"
        );
    }
}

#[test]
fn chinese_is_set_as_chinese() {
    let is_han = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for here in chinese().values() {
        let chars: Vec<char> = here.chars().collect();
        for pair in chars.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let latin = |c: char| c.is_ascii_alphanumeric();
            assert!(
                !(is_han(before) && latin(after) || latin(before) && is_han(after)),
                "a space between Han and Latin: {here}"
            );
            assert!(
                !(is_han(before) && ",;:?!()".contains(after) || ",;:?!()".contains(before) && is_han(after)),
                "full-width punctuation beside Han: {here}"
            );
            let wide = |c: char| "，。；：、（）“”！？".contains(c);
            // A label may be followed by two spaces of indentation, a bullet by one.
            assert!(
                !(wide(before) && after == ' ' && !here.contains("）· ")),
                "no space after full-width punctuation: {here}"
            );
            assert!(
                !(is_han(before) && after == ' ' && chars.iter().filter(|c| **c == ' ').count() == 0),
                "{here}"
            );
        }
    }
}

#[test]
fn the_scan_finds_what_is_said() {
    let code = r#"let a = say!("one {x}", x = f("no")); phrase!("two \"q\" \
        more"); counted!(n, "{n} a", "{n} b"); // say!("kept: only whole lines are comments")
        // say!("not this")
"#;
    assert_eq!(
        said_in(code),
        ["one {x}", "kept: only whole lines are comments", "two \"q\" more", "{n} a", "{n} b"]
    );
}

#[test]
fn the_words_of_a_side_are_the_glossarys() {
    assert_eq!(
        [Side::Source, Side::Target].map(|side| side.words().in_language(Lang::Zh)),
        ["数据源", "目标端"]
    );
}

/// Files keep English. What they hold of any sentence is found again with what fills it, whichever other sentences there are.
#[test]
fn every_sentence_is_recognised_once_it_is_filled() {
    let value = |name: &str| match name {
        "n" | "rows" | "times" | "runs" => "1,204".to_owned(),
        "text" => "\"x\"".to_owned(),
        "pointer" => "/code".to_owned(),
        "time" => "3.2s".to_owned(),
        name => format!("‹{name}›"),
    };
    let filled = |template: &str| -> String {
        parts(template)
            .map(|part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Hole(name) => value(name),
            })
            .collect()
    };
    // These are only put together of other parts: each part is found by itself.
    let letters = |template: &&String| template.chars().filter(char::is_ascii_alphabetic).count();
    let told = |template: &&String| {
        let names: usize = placeholders(template).iter().map(|name| name.len()).sum();
        letters(template) >= names + 4
    };
    let wrong: Vec<_> = chinese()
        .iter()
        .filter(|(english, _)| told(english))
        .filter(|(english, here)| recognise(&filled(english), Lang::Zh) != filled(here))
        .map(|(english, _)| (english, recognise(&filled(english), Lang::Zh)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
