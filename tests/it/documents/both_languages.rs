//! Both editions of a document say the same, line by line: headings, rows and items in the same order, with the same
//! code, numbers and links. Each line is one paragraph, so that a complaint names the sentence to translate.

use std::collections::BTreeSet;
use std::path::Path;

use super::{BOTH_LANGUAGES, anchors, clean, documents, read, root, without_comments};

/// Where a text stands: its document's path and text, and the text of the other edition.
#[derive(Clone, Copy)]
struct Home<'d> {
    path: &'d str,
    document: &'d str,
    other: &'d str,
}

/// One edition of a document: its lines that are not empty.
struct Edition {
    path: String,
    lines: Vec<Line>,
}

/// A line of text, or a fenced block as a whole.
struct Line {
    number: usize,
    kind: Kind,
    text: String,
    /// What a translation keeps: code, numbers, links. In a row, with their column.
    facts: BTreeSet<String>,
    /// What the line is recognised by: its facts and names; a heading has those of its section too.
    marks: BTreeSet<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Heading { level: usize },
    Row { cells: usize },
    Item,
    Block,
    Prose,
}

impl Edition {
    fn new(home: Home<'_>) -> Self {
        let mut numbered = home.document.lines().zip(1..).map(|(line, number)| (line.trim(), number));
        let mut lines = Vec::new();
        while let Some((text, number)) = numbered.next() {
            let line = match text.strip_prefix("```") {
                Some(language) => {
                    let block: Vec<_> =
                        numbered.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
                    Line::of_block(number, language, &block.join("\n"))
                }
                None if text.is_empty() => continue,
                None => Line::of_text(number, text, home),
            };
            lines.push(line);
        }
        mark_headings(&mut lines);
        Self { path: home.path.to_owned(), lines }
    }
}

impl Line {
    fn of_block(number: usize, language: &str, block: &str) -> Self {
        let code = without_comments(block);
        // What a picture is labelled with is translated, and what a plan prints is in the language of its reader.
        let is_plan = ["+ create ", "+ 新增 "].iter().any(|legend| block.starts_with(legend));
        let is_translated = language == "mermaid" || is_plan;
        let kept = code.iter().zip(1..).filter(|_| !is_translated);
        let mut facts: BTreeSet<_> =
            kept.map(|(line, at)| format!("line {at} of the block: {line}")).collect();
        facts.insert(format!("{} lines of {language}", code.len()));
        let text = format!("```{language}");
        Self { number, kind: Kind::Block, text, marks: facts.clone(), facts }
    }

    fn of_text(number: usize, text: &str, home: Home<'_>) -> Self {
        let kind = Kind::of(text);
        let facts: BTreeSet<String> = match kind {
            Kind::Row { .. } => {
                let columns = cells(text).into_iter().zip(1..);
                let facts = columns.flat_map(|(cell, column)| {
                    let facts = facts(&cell, home).into_iter();
                    facts.map(move |fact| format!("{fact} in column {column}"))
                });
                facts.collect()
            }
            _ => facts(text, home).into_iter().collect(),
        };
        let marks = facts.iter().cloned().chain(names(text)).collect();
        Self { number, kind, text: text.to_owned(), facts, marks }
    }

    /// Columns in a terminal, about: a Han character takes two.
    fn width(&self) -> usize {
        self.text.chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum::<usize>().max(1)
    }

    /// How much speaks for this being the translation of that. `None`: it cannot be.
    fn likeness(&self, other: &Self) -> Option<usize> {
        if self.kind != other.kind {
            return None;
        }
        let shared = self.marks.intersection(&other.marks).count();
        let all = self.marks.union(&other.marks).count();
        let of_marks = (100 * shared).checked_div(all).unwrap_or(50);
        let (one, two) = (self.width(), other.width());
        let of_width = 9 * one.min(two) / one.max(two);
        Some(10 + of_marks + of_width)
    }

    /// The line as a complaint shows it.
    fn shown(&self) -> String {
        let short: String = self.text.chars().take(100).collect();
        if short.len() < self.text.len() { short + "…" } else { short }
    }
}

impl Kind {
    fn of(text: &str) -> Self {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if text.starts_with('#') {
            return Self::Heading { level: text.chars().take_while(|c| *c == '#').count() };
        }
        if text.starts_with('|') {
            return Self::Row { cells: cells(text).len() };
        }
        if text.starts_with("- ") || (digits.len() < text.len() && digits.starts_with(". ")) {
            return Self::Item;
        }
        Self::Prose
    }
}

/// Two sections differ in what stands below their headings, which are translated.
fn mark_headings(lines: &mut [Line]) {
    let mut below = BTreeSet::new();
    for line in lines.iter_mut().rev() {
        if matches!(line.kind, Kind::Heading { .. }) {
            line.marks.append(&mut below);
        } else {
            below.extend(line.marks.iter().cloned());
        }
    }
}

/// The cells of a row; `\|` belongs to a cell.
fn cells(row: &str) -> Vec<String> {
    let escaped = row.replace("\\|", "\u{0}");
    let inner = escaped.strip_prefix('|').unwrap_or(&escaped);
    let inner = inner.strip_suffix('|').unwrap_or(inner);
    inner.split('|').map(|cell| cell.replace('\u{0}', "\\|").trim().to_owned()).collect()
}

/// What a translation of this text keeps.
fn facts(text: &str, home: Home<'_>) -> Vec<String> {
    let mut facts: Vec<String> = text.split('`').skip(1).step_by(2).map(|code| format!("`{code}`")).collect();
    let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let mut parts = prose.split("](");
    facts.extend(parts.next().into_iter().flat_map(numbers));
    for part in parts {
        let (target, rest) = part.split_once(')').unwrap_or((part, ""));
        facts.extend(link(target, home));
        facts.extend(numbers(rest));
    }
    facts
}

/// Names such as OKKI and RunFailed. A sentence may call one of them "it", so they are no facts.
fn names(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.bytes().filter(u8::is_ascii_uppercase).count() > 1).map(str::to_owned)
}

/// The numbers of a text without separators: `200,000` is 200000, as is 20 万.
fn numbers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let from = &rest[start..];
        let end = from.find(|c: char| !(c.is_ascii_digit() || matches!(c, ',' | '.'))).unwrap_or(from.len());
        let digits = from[..end].trim_end_matches([',', '.']).replace(',', "");
        rest = &from[end..];
        let unit = if rest.trim_start().starts_with('万') { 1e4 } else { 1.0 };
        // A version such as 0.1.0 stays as it is.
        found.push(digits.parse::<f64>().map_or(digits, |number| (number * unit).to_string()));
    }
    found
}

/// Where a link leads, as the Chinese edition has it. `None`: to the other edition of this document.
fn link(target: &str, home: Home<'_>) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Some(format!("a link to {target}"));
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let is_here = file.is_empty();
    let beside = Path::new(home.path).parent().unwrap_or(Path::new(""));
    let path =
        if is_here { home.path.to_owned() } else { clean(&beside.join(file)).to_string_lossy().into() };
    if !is_here && english(&path) == english(home.path) {
        return None;
    }
    let has_both = is_here || root().join(chinese(&path)).is_file();
    let is_in_english = english(home.path) == home.path;
    let shown = if has_both && is_in_english { chinese(&path) } else { path.clone() };
    if heading.is_empty() {
        return Some(format!("a link to {shown}"));
    }
    if !has_both {
        return Some(format!("a link to {shown}#{heading}"));
    }
    let both = match is_here {
        true => (home.document.to_owned(), home.other.to_owned()),
        false => (read(&english(&path)), read(&chinese(&path))),
    };
    let place = place_of_heading(heading, &anchors(&both.0), &anchors(&both.1));
    Some(format!("a link to {shown}{place}"))
}

/// Names of headings are translated, so a heading counts by its place, where both editions have all of them.
fn place_of_heading(heading: &str, in_one: &[String], in_the_other: &[String]) -> String {
    if in_one.len() != in_the_other.len() {
        return String::new();
    }
    let at = [in_one, in_the_other].iter().find_map(|names| names.iter().position(|name| name == heading));
    at.map_or(format!("#{heading}"), |at| format!(", heading {}", at + 1))
}

/// The English edition of a document.
fn english(path: &str) -> String {
    path.replace(".zh-CN.md", ".md")
}

fn chinese(path: &str) -> String {
    english(path).replace(".md", ".zh-CN.md")
}

fn editions(path: &str, english: &str, chinese_path: &str, chinese: &str) -> (Edition, Edition) {
    let ours = Edition::new(Home { path, document: english, other: chinese });
    let theirs = Edition::new(Home { path: chinese_path, document: chinese, other: english });
    (ours, theirs)
}

/// Pairs the lines that belong together, in order. `None` stands where one side has no line.
fn pairs<'e>(ours: &'e [Line], theirs: &'e [Line]) -> Vec<(Option<&'e Line>, Option<&'e Line>)> {
    // best[i][j]: how well what follows from i and from j can be paired.
    let mut best = vec![vec![0; theirs.len() + 1]; ours.len() + 1];
    let likeness: Vec<Vec<Option<usize>>> =
        ours.iter().map(|our| theirs.iter().map(|their| our.likeness(their)).collect()).collect();
    for i in (0..ours.len()).rev() {
        for j in (0..theirs.len()).rev() {
            let paired = likeness[i][j].map_or(0, |likeness| likeness + best[i + 1][j + 1]);
            best[i][j] = paired.max(best[i + 1][j]).max(best[i][j + 1]);
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < ours.len() && j < theirs.len() {
        if likeness[i][j].is_some_and(|likeness| likeness + best[i + 1][j + 1] == best[i][j]) {
            pairs.push((Some(&ours[i]), Some(&theirs[j])));
            (i, j) = (i + 1, j + 1);
        } else if best[i + 1][j] >= best[i][j + 1] {
            pairs.push((Some(&ours[i]), None));
            i += 1;
        } else {
            pairs.push((None, Some(&theirs[j])));
            j += 1;
        }
    }
    pairs.extend(ours[i..].iter().map(|line| (Some(line), None)));
    pairs.extend(theirs[j..].iter().map(|line| (None, Some(line))));
    pairs
}

/// One complaint for each line without a partner, and for each pair of lines that tell different facts.
fn complaints(english: &Edition, chinese: &Edition) -> Vec<String> {
    let (mut said, mut last) = (Vec::new(), (0, 0));
    for pair in pairs(&english.lines, &chinese.lines) {
        match pair {
            (Some(one), None) => said.push(lacking(english, one, chinese, last.1)),
            (None, Some(one)) => said.push(lacking(chinese, one, english, last.0)),
            (Some(one), Some(other)) => {
                last = (one.number, other.number);
                said.extend(differing(english, one, chinese, other));
            }
            (None, None) => {}
        }
    }
    said
}

fn lacking(edition: &Edition, line: &Line, other: &Edition, after: usize) -> String {
    let (path, number, shown) = (&edition.path, line.number, line.shown());
    format!("{path}:{number} has no partner in {} (it belongs after line {after} there): {shown}", other.path)
}

fn differing(english: &Edition, one: &Line, chinese: &Edition, other: &Line) -> Option<String> {
    let missing: Vec<_> = one.facts.difference(&other.facts).cloned().collect();
    let extra: Vec<_> = other.facts.difference(&one.facts).cloned().collect();
    if missing.is_empty() && extra.is_empty() {
        return None;
    }
    let place = format!("{}:{} and {}:{} differ", english.path, one.number, chinese.path, other.number);
    let list = |facts: Vec<String>| if facts.is_empty() { "nothing".to_owned() } else { facts.join("; ") };
    Some(format!(
        "{place}: {}\n    only in English: {}\n    only in Chinese: {}",
        one.shown(),
        list(missing),
        list(extra)
    ))
}

#[test]
fn both_languages_say_the_same_line_by_line() {
    let mut said = Vec::new();
    for (english, chinese) in BOTH_LANGUAGES {
        let (english, chinese) = editions(english, &read(english), chinese, &read(chinese));
        assert!(english.lines.len() > 40, "{} has few lines: {}", english.path, english.lines.len());
        said.extend(complaints(&english, &chinese));
    }
    assert!(said.is_empty(), "{} complaints:\n{}", said.len(), said.join("\n"));
}

#[test]
fn every_chinese_document_is_held_and_both_editions_link_at_their_top() {
    let held: BTreeSet<_> = BOTH_LANGUAGES.iter().map(|(_, chinese)| (*chinese).to_owned()).collect();
    let there: BTreeSet<_> = documents().into_iter().filter(|path| path.ends_with(".zh-CN.md")).collect();
    assert_eq!(held, there);
    for (english, chinese) in BOTH_LANGUAGES {
        assert_eq!(self::chinese(english), chinese);
        for (edition, other) in [(english, chinese), (chinese, english)] {
            let name = Path::new(other).file_name().unwrap().to_string_lossy();
            let link = format!("]({name})");
            let is_linked = read(edition).lines().take(6).any(|line| line.contains(&link));
            assert!(is_linked, "the first lines of {edition} do not link to {other}");
        }
    }
}

/// What is said of two small documents.
fn said_of(english: &str, chinese: &str) -> Vec<String> {
    let (english, chinese) = editions("a.md", english, "a.zh-CN.md", chinese);
    complaints(&english, &chinese)
}

const ENGLISH: &str = "\
# Title
中文：[a.zh-CN.md](a.zh-CN.md)

See [below](#two).

## One

It takes 200,000 rows, and `max` of them at once.

| key | meaning |
|---|---|
| `alpha` | the first |
| `beta` | the second, from 1 to 9 |

## Two

- one thing
- another thing, in version 0.1.0

```sh
okki-sync plan   # looks
```
";

const CHINESE: &str = "\
# 标题
English: [a.md](a.md)

见[下文](#第二节)。

## 第一节

它容纳 20 万行，一次最多 `max` 行。

| 键 | 含义 |
|---|---|
| `alpha` | 第一个 |
| `beta` | 第二个，1 到 9 |

## 第二节

- 一件事
- 另一件事，版本 0.1.0

```sh
okki-sync plan   # 查看
```
";

#[test]
fn a_translation_is_the_same() {
    assert_eq!(said_of(ENGLISH, CHINESE), [""; 0]);
}

#[test]
fn a_row_without_a_partner_is_named_with_its_place() {
    let row = "| `alpha` | the first |\n";
    let said = said_of(&ENGLISH.replace(row, &format!("{row}| `gamma` | the third |\n")), CHINESE);
    let told =
        "a.md:13 has no partner in a.zh-CN.md (it belongs after line 12 there): | `gamma` | the third |";
    assert_eq!(said, [told]);
    let said = said_of(ENGLISH, &CHINESE.replace("| `beta` | 第二个，1 到 9 |\n", ""));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("a.md:13 has no partner"), "{said:?}");
}

#[test]
fn a_section_without_a_partner_is_named_and_its_neighbours_are_not() {
    let added = "## Between\n\nA run of `okki-sync rows`.\n\n## Two";
    let said = said_of(&ENGLISH.replace("## Two", added), CHINESE);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("a.md:15 has no partner") && said[0].ends_with(": ## Between"), "{said:#?}");
    assert!(said[1].starts_with("a.md:17 has no partner") && said[1].contains("okki-sync rows"), "{said:#?}");
}

#[test]
fn what_only_one_edition_says_is_named() {
    for (from, to, only) in [
        ("20 万", "30 万", "only in English: 200000\n    only in Chinese: 300000"),
        ("`max`", "`most`", "only in English: `max`\n    only in Chinese: `most`"),
        ("`beta`", "`bet`", "only in English: `beta` in column 1\n    only in Chinese: `bet` in column 1"),
        ("0.1.0", "0.2.0", "only in English: 0.1.0\n    only in Chinese: 0.2.0"),
        ("#第二节", "#第一节", "a.zh-CN.md, heading 3\n    only in Chinese: a link to a.zh-CN.md, heading 2"),
        ("sync plan", "sync sync", "block: okki-sync plan\n    only in Chinese: line 1 of the block"),
    ] {
        let said = said_of(ENGLISH, &CHINESE.replacen(from, to, 1));
        assert_eq!(said.len(), 1, "{to}: {said:#?}");
        assert!(said[0].contains(only), "{to}: {said:#?}");
    }
}

#[test]
fn a_chinese_document_links_to_chinese_documents() {
    let said = said_of("See the [runbook](infra/README.md).", "见[运维手册](infra/README.md)。");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("only in English: a link to infra/README.zh-CN.md"), "{said:?}");
    assert_eq!(said_of("See [it](infra/README.md).", "见[它](infra/README.zh-CN.md)。"), [""; 0]);
}
