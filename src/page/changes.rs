//! What a run changed: a tree of actions, rows, items and values.

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, text, words};
use crate::changes::{ChangeAction as Action, FieldChange, RowChange};
use crate::report::Report;

/// Rows of one action that a page shows.
const MOST_ROWS: usize = 5_000;
/// Fields of all rows together: some 200 bytes each, so that a page stays below 10 MB.
const MOST_FIELDS: usize = 40_000;
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
                    ul.tree {
                        @for row in of_action.iter().take(MOST_ROWS) { (row_item(words, row, &mut fields_left)) }
                    }
                    (more(words, of_action.len().saturating_sub(MOST_ROWS)))
                }
            }
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

fn row_item(words: &Words, row: &RowChange, fields_left: &mut usize) -> Markup {
    let title = html! {
        bdi { (text::cut(if row.name.is_empty() { &row.id } else { &row.name }, NAME_CHARS)) }
        @if !row.name.is_empty() { " " span.id { (text::cut(&row.id, NAME_CHARS)) } }
    };
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
