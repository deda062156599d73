//! Changed values for people: `cost 2,999.00 → 3,099.00`, long texts cut in the middle with what differs in brackets.

use std::fmt::Write as _;

use super::term::{Style, count, sanitize};
use crate::sync::{ChangeAction, FieldChange, Json, RowChange};
use crate::words::{self, Message, say};

/// Fields of a row that are shown; the rest is counted.
const FIELDS: usize = 4;
/// Characters of a value that are shown whole.
const WHOLE_CHARS: usize = 40;
/// Characters that are shown on both sides of what differs.
const AROUND_CHARS: usize = 8;
/// Characters of what differs that are shown.
const DIFFERENCE_CHARS: usize = 24;
/// Characters of a path or a name.
const PATH_CHARS: usize = 80;
/// Rows that a sync shows; its file of changes has them all.
const ROWS: usize = 20;

/// The changed fields of a row, in one line; empty where there are none to show.
pub(super) fn fields(change: &RowChange, style: Style) -> String {
    let shown = change.fields.iter().take(FIELDS).map(|field| one(field, style));
    let mut text = shown.collect::<Vec<_>>().join(" · ");
    if let Some(more) = change.fields.len().checked_sub(FIELDS + 1) {
        let more = style.say(&say!("and {more} more", more = count(more as u64 + 1)));
        let _ = write!(text, " · {}", style.dim(&more));
    }
    text
}

/// What a sync (or an undo) has changed, a row a line. Many creations are in the summary's count alone.
pub(super) fn rows(changes: &[RowChange], more: u64, style: Style) -> String {
    let mut text = String::new();
    let created = changes.iter().filter(|change| change.action == ChangeAction::Create).count();
    let is_shown = |change: &&RowChange| created <= ROWS || change.action != ChangeAction::Create;
    let shown: Vec<&RowChange> = changes.iter().filter(is_shown).collect();
    if shown.is_empty() {
        return text;
    }
    for change in shown.iter().take(ROWS) {
        let mark = style.mark(kind(change.action));
        let (name, id) = (sanitize(&change.name, PATH_CHARS), sanitize(&change.id, PATH_CHARS));
        let gap = if name.is_empty() { "" } else { " " };
        let _ = write!(text, "{mark} {name}{gap}{}", style.dim(&id));
        let fields =
            if change.action == ChangeAction::Update { fields(change, style) } else { String::new() };
        let gap = if fields.is_empty() { "" } else { "  " };
        let _ = writeln!(text, "{gap}{fields}");
    }
    let more = more + changes.len().saturating_sub(shown.len().min(ROWS)) as u64;
    if more > 0 {
        let more = style.say(&say!("… and {more} more rows", more = count(more)));
        let _ = writeln!(text, "{}", style.dim(&more));
    }
    text
}

fn kind(action: ChangeAction) -> crate::sync::DiffKind {
    match action {
        ChangeAction::Create => crate::sync::DiffKind::OnlySource,
        ChangeAction::Update => crate::sync::DiffKind::Differs,
        ChangeAction::Delete => crate::sync::DiffKind::OnlyTarget,
    }
}

fn one(field: &FieldChange, style: Style) -> String {
    let path = sanitize(&field.path, PATH_CHARS);
    let (old, new) = (field.old.as_ref().map(plain), field.new.as_ref().map(plain));
    let value = |text: &str| sanitize(text, 2 * WHOLE_CHARS);
    match (old, new) {
        // A path is a name; only the count of the fields that are left out is a sentence.
        (None, None) if path.starts_with('…') => style.say(&Message::from(path)),
        (None, None) => path,
        (Some(old), Some(new)) => {
            let (old, new) = cut(&old, &new);
            format!("{path} {} → {}", style.dim(&value(&old)), value(&new))
        }
        (None, Some(new)) if field.old_unknown => {
            format!("{path} {} → {}", style.dim("?"), value(&shorten(&new)))
        }
        (None, Some(new)) => format!("{path} + {}", value(&shorten(&new))),
        (Some(old), None) => format!("{path} - {}", style.dim(&value(&shorten(&old)))),
    }
}

/// A text without its quotes, a number with its thousands apart, anything else as it is.
fn plain(value: &Json) -> String {
    let text = value.text();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text)
            .map_or_else(|_| text.to_owned(), |text| format!("\"{text}\"")),
        Some(b'0'..=b'9' | b'-') => grouped(text),
        _ => text.to_owned(),
    }
}

/// `2999.10` as `2,999.10`; a number with an exponent stays as it is.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, rest) = digits.find('.').map_or((digits, ""), |at| digits.split_at(at));
    if !whole.bytes().all(|byte| byte.is_ascii_digit()) || rest.contains(['e', 'E']) {
        return number.to_owned();
    }
    format!("{sign}{}{rest}", words::grouped(whole))
}

/// Two values that differ; where one is long, only what differs with a little around it.
fn cut(old: &str, new: &str) -> (String, String) {
    let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    if old.len() <= WHOLE_CHARS && new.len() <= WHOLE_CHARS {
        return (old.iter().collect(), new.iter().collect());
    }
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = (old.len() - same_start).min(new.len() - same_start);
    let same_end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    (around(&old, same_start, same_end), around(&new, same_start, same_end))
}

/// `…before[what differs]after…`
fn around(text: &[char], same_start: usize, same_end: usize) -> String {
    let end = text.len() - same_end;
    let from = same_start.saturating_sub(AROUND_CHARS);
    let to = (end + AROUND_CHARS).min(text.len());
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().iter().collect::<String>();
    let differs = shorten_to(&part(same_start, end), DIFFERENCE_CHARS);
    let (open, close) = (if from > 0 { "…" } else { "" }, if to < text.len() { "…" } else { "" });
    format!("{open}{}[{differs}]{}{close}", part(from, same_start), part(end, to))
}

/// A long value, cut in the middle.
fn shorten(text: &str) -> String {
    shorten_to(text, WHOLE_CHARS)
}

fn shorten_to(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most {
        return text.to_owned();
    }
    let half = most / 2;
    let (start, end) =
        (chars.get(..half).unwrap_or_default(), chars.get(chars.len() - half..).unwrap_or_default());
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(path: &str, old: Option<&str>, new: Option<&str>) -> FieldChange {
        let json = |text: &str| Json::parse(text).unwrap();
        FieldChange { path: path.to_owned(), old: old.map(json), new: new.map(json), old_unknown: false }
    }

    fn row(fields: Vec<FieldChange>) -> RowChange {
        RowChange {
            id: "7".to_owned(),
            name: "LED 投光灯 50W".to_owned(),
            action: ChangeAction::Update,
            fields,
        }
    }

    #[test]
    fn values_are_told_from_old_to_new() {
        let unknown = FieldChange { old_unknown: true, ..change("unit", None, Some("\"PCS\"")) };
        let all = row(vec![
            change("cost", Some("2999.00"), Some("3099.00")),
            change("name", Some("\"a\""), Some("\"b\"")),
            change("items[5]", None, Some("{\"id\":\"5\"}")),
            unknown,
            change("note", Some("null"), None),
            change("more", Some("-1234567.5"), Some("1e9")),
        ]);
        insta::assert_snapshot!(fields(&all, Style::PLAIN), @r#"cost 2,999.00 → 3,099.00 · name "a" → "b" · items[5] + {"id":"5"} · unit ? → "PCS" · and 2 more"#);
        assert_eq!(one(&change("note", Some("null"), None), Style::PLAIN), "note - null");
        assert_eq!(one(&change("n", Some("-1234567.5"), Some("1e9")), Style::PLAIN), "n -1,234,567.5 → 1e9");
    }

    #[test]
    fn long_texts_are_cut_around_what_differs() {
        let long = |middle: &str| {
            format!("\"太阳能路灯 Solar Street Lights SL-1000A {middle} 加厚 Heavy-Duty 不锈钢 304\"")
        };
        let text = one(&change("name", Some(&long("IP65")), Some(&long("IP67"))), Style::PLAIN);
        insta::assert_snapshot!(text, @"name …000A IP6[5] 加厚 Heav… → …000A IP6[7] 加厚 Heav…");
        let added = one(&change("name", None, Some(&long(&"x".repeat(99)))), Style::PLAIN);
        assert!(added.chars().count() < 60 && added.contains('…'), "{added}");
    }

    #[test]
    fn a_sync_shows_its_first_rows_and_counts_the_others() {
        let many: Vec<RowChange> = (0..22).map(|_| row(vec![change("cost", Some("1"), Some("2"))])).collect();
        let text = rows(&many, 3, Style::PLAIN);
        assert!(text.starts_with("* LED 投光灯 50W 7  cost 1 → 2\n"), "{text}");
        assert!(text.ends_with("… and 5 more rows\n"), "{text}");
    }
}
