//! What a run changed: a tree of actions, rows, items and values.
//!
//! A browser pays for elements, opened or not: 5,000 rows as a tree are 300,000 of them, and a second of its time. So the
//! first rows are a tree, and those after them are lines of text, which show their values at once.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, text, words};
use crate::changes::{ChangeAction as Action, FieldChange, Json, RowChange};
use crate::report::Report;

/// Rows of one action that a page shows.
const MOST_ROWS: usize = 5_000;
/// Fields of all rows together: some 200 bytes each, so that a page stays below 10 MB.
const MOST_FIELDS: usize = 40_000;
/// Fields of an action that are drawn as a tree; its rows beyond are lines of text.
const TREE_FIELDS: usize = 1_000;
/// Fields of a row that is lines of text.
const LINE_FIELDS: usize = 40;
/// Rows that a browser lays out together: only those in sight cost anything.
const LINES_TOGETHER: usize = 50;
/// Characters of a value, and of a name.
const VALUE_CHARS: usize = 400;
const NAME_CHARS: usize = 120;
/// Up to this number of rows an action's list is open from the beginning.
const OPEN_UP_TO: usize = 10;

pub(super) fn section(words: &Words, report: &Report, changes: Option<&[RowChange]>) -> Markup {
    html! {
        section aria-labelledby="changes" {
            h2 #changes { (words.changes) }
            @match changes {
                None => { p.muted { (text::with_code(words.not_recorded)) } (planned(words, report)) }
                Some([]) => { p.muted { (words.no_change) } }
                Some(rows) => (tree(words, rows)),
            }
        }
    }
}

/// What is known without the rows: how many were planned.
fn planned(words: &Words, report: &Report) -> Markup {
    let plan = &report.plan;
    html! {
        ul.plan {
            @for (action, label, n) in [
                (Action::Create, words.create, plan.create),
                (Action::Update, words.update, plan.update),
                (Action::Delete, words.delete, plan.delete),
            ] {
                @if n > 0 { li { (mark(action)) " " (label) " " span.count { (numbers::count(n)) } } }
            }
        }
    }
}

fn tree(words: &Words, rows: &[RowChange]) -> Markup {
    let mut fields_left = MOST_FIELDS;
    html! {
        @for action in [Action::Create, Action::Update, Action::Delete] {
            @let of_action: Vec<&RowChange> = rows.iter().filter(|row| row.action == action).collect();
            @if !of_action.is_empty() {
                details.action open[of_action.len() <= OPEN_UP_TO] {
                    summary { (mark(action)) " " (words.action(action)) " " span.count { (numbers::count(of_action.len() as u64)) } }
                    (list(words, of_action.get(..MOST_ROWS).unwrap_or(&of_action), &mut fields_left))
                    (more(words, of_action.len().saturating_sub(MOST_ROWS)))
                }
            }
        }
    }
}

/// The rows of an action: a tree as far as that goes, then lines.
fn list(words: &Words, rows: &[&RowChange], fields_left: &mut usize) -> Markup {
    let mut fields = 0;
    let beyond = rows.iter().position(|row| {
        fields += row.fields.len().max(1);
        fields > TREE_FIELDS
    });
    // A single row is a tree, however large.
    let in_tree = beyond.map_or(rows.len(), |beyond| beyond.max(1));
    let (tree, lines) = rows.split_at_checked(in_tree).unwrap_or((rows, &[]));
    html! {
        @if !tree.is_empty() { ul.tree { @for row in tree { (row_item(words, row, fields_left)) } } }
        @for together in lines.chunks(LINES_TOGETHER) {
            ul.lines { @for row in together { (row_lines(words, row, fields_left)) } }
        }
    }
}

/// The sign that the tree of `plan` has too; its word follows it.
fn mark(action: Action) -> Markup {
    let (sign, class) = match action {
        Action::Create => ("+", "create"),
        Action::Update => ("*", "update"),
        Action::Delete => ("-", "delete"),
    };
    html! { span.mark.(class) aria-hidden="true" { (sign) } }
}

fn title(row: &RowChange) -> Markup {
    html! {
        bdi { (text::cut(if row.name.is_empty() { &row.id } else { &row.name }, NAME_CHARS)) }
        @if !row.name.is_empty() { " " span.id { (text::cut(&row.id, NAME_CHARS)) } }
    }
}

fn row_item(words: &Words, row: &RowChange, fields_left: &mut usize) -> Markup {
    let title = title(row);
    let shown = row.fields.len().min(*fields_left);
    *fields_left -= shown;
    html! {
        li {
            @if row.fields.is_empty() { (title) } @else {
                details {
                    summary { (title) " " span.count { (numbers::count(row.fields.len() as u64)) } }
                    (fields(words, row.fields.get(..shown).unwrap_or_default()))
                    (more(words, row.fields.len() - shown))
                }
            }
        }
    }
}

/// A row as text: its name, and a line for each field.
fn row_lines(words: &Words, row: &RowChange, fields_left: &mut usize) -> Markup {
    let shown = row.fields.len().min(LINE_FIELDS).min(*fields_left);
    *fields_left -= shown;
    let mut text = String::new();
    for field in row.fields.iter().take(shown) {
        let value = |value: Option<&Json>| value.map(|value| text::cut(value.text(), VALUE_CHARS));
        let old = value(field.old.as_ref())
            .unwrap_or_else(|| (if field.old_unknown { words.old_unknown } else { words.absent }).to_owned());
        let new = value(field.new.as_ref()).unwrap_or_else(|| words.absent.to_owned());
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {}  {old} → {new}", text::cut(&field.path, NAME_CHARS));
    }
    if row.fields.len() > shown {
        let more = words::fill(words.more, &[("n", &numbers::count((row.fields.len() - shown) as u64))]);
        let _ = write!(text, "\n  {more}");
    }
    html! { li { (title(row)) (text) } }
}

/// Fields one below the other; those of one item of a list stand together below the item.
fn fields(words: &Words, fields: &[FieldChange]) -> Markup {
    html! {
        ul.fields {
            @for group in fields.chunk_by(|a, b| item(&a.path).is_some() && item(&a.path) == item(&b.path)) {
                @match group.first().and_then(|first| item(&first.path)) {
                    Some((place, _)) if group.len() > 1 => {
                        li { code { (text::cut(place, NAME_CHARS)) } ul.fields { @for field in group { (value(words, inner(&field.path), field)) } } }
                    }
                    _ => { @for field in group { (value(words, &field.path, field)) } }
                }
            }
        }
    }
}

/// `items[50001].cost` as `items[50001]`, and the `]` that ends it.
fn item(path: &str) -> Option<(&str, usize)> {
    let end = path.find("].")?;
    Some((path.get(..=end)?, end))
}

fn inner(path: &str) -> &str {
    item(path).and_then(|(_, end)| path.get(end + 2..)).unwrap_or(path)
}

fn value(words: &Words, path: &str, field: &FieldChange) -> Markup {
    html! {
        li {
            code.path { (text::cut(path, NAME_CHARS)) } " "
            @match &field.old {
                Some(old) => { del { (text::cut(old.text(), VALUE_CHARS)) } }
                None if field.old_unknown => { span.muted { (words.old_unknown) } }
                None => { span.muted { (words.absent) } }
            }
            span.arrow aria-label=(words.becomes) role="img" { " → " }
            @match &field.new {
                Some(new) => { ins { (text::cut(new.text(), VALUE_CHARS)) } }
                None => { span.muted { (words.absent) } }
            }
        }
    }
}

/// What a bound has left out.
fn more(words: &Words, left_out: usize) -> Markup {
    html! {
        @if left_out > 0 {
            p.muted { (words::fill(words.more, &[("n", &numbers::count(left_out as u64))])) }
        }
    }
}
