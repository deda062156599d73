//! JSON for people: a field a line, and one row beside another.

use console::{Alignment, Term, pad_str, truncate_str};
use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::term::{Style, sanitize};
use crate::words::say;

/// Elements of a list that are shown.
const MOST_ELEMENTS: usize = 3;
/// Characters of a value, and of a name.
const VALUE_CHARS: usize = 200;
/// Columns where stdout is no terminal.
const COLUMNS: usize = 120;
/// A narrower column would show next to nothing.
const FEWEST_COLUMNS: usize = 30;
const BORDER: &str = " │ ";

/// Two texts side by side, as wide as the terminal. The right one gets what it needs, up to half of it.
pub(super) fn beside(left: &[String], right: &[String]) -> String {
    // (rows, columns)
    let columns = Term::stdout().size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns));
    beside_in(columns, left, right)
}

fn beside_in(columns: usize, left: &[String], right: &[String]) -> String {
    let widest =
        |lines: &[String]| lines.iter().map(|line| console::measure_text_width(line)).max().unwrap_or(0);
    let border = console::measure_text_width(BORDER);
    let columns = columns.max(2 * FEWEST_COLUMNS + border) - border;
    let for_right = widest(right).min((columns / 2).max(columns.saturating_sub(widest(left))));
    let for_left = widest(left).min(columns - for_right);
    let mut text = String::new();
    for at in 0..left.len().max(right.len()) {
        let line = |lines: &[String], width| {
            lines.get(at).map(|line| truncate_str(line, width, "…").into_owned()).unwrap_or_default()
        };
        let (left, right) = (line(left, for_left), line(right, for_right));
        let left = pad_str(&left, for_left, Alignment::Left, None);
        text.push_str(format!("{left}{BORDER}{right}").trim_end());
        text.push('\n');
    }
    text
}

/// The fields of a JSON text, one a line; what they hold follows them, indented. Values keep their digits and quotes.
pub(super) fn fields(json: &str, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    add("", "", json, style, &mut lines);
    lines
}

/// `name`: what stands before the value, `"cost: "` or `"- "`; `indent`: what stands before both.
fn add(indent: &str, name: &str, json: &str, style: Style, lines: &mut Vec<String>) {
    let inner = if name.is_empty() { String::new() } else { format!("{indent}  ") };
    if let Ok(object) = serde_json::from_str::<IndexMap<String, &RawValue>>(json)
        && !object.is_empty()
    {
        if !name.is_empty() && name != "- " {
            lines.push(format!("{indent}{}", name.trim_end()));
        }
        for (place, (field, value)) in object.iter().enumerate() {
            // The first field of an element stands beside its dash.
            let starts_element = name == "- " && place == 0;
            let dash = if starts_element { "- " } else { "" };
            let field = format!("{dash}{}: ", sanitize(field, VALUE_CHARS));
            add(if starts_element { indent } else { &inner }, &field, value.get(), style, lines);
        }
        return;
    }
    if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(json)
        && !list.is_empty()
    {
        lines.push(format!("{indent}{}", name.trim_end()));
        for element in list.iter().take(MOST_ELEMENTS) {
            add(&inner, "- ", element.get(), style, lines);
        }
        if let Some(more @ 1..) = list.len().checked_sub(MOST_ELEMENTS) {
            lines.push(format!("{inner}{}", style.dim(&style.say(&say!("… and {more} more", more)))));
        }
        return;
    }
    lines.push(format!("{indent}{name}{}", sanitize(json, VALUE_CHARS)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"{"id":7,"name":"投光灯","fob":{"min":1.50,"list":[]},"products":[
        {"no":"a","cost":2999.00},{"no":"b"},{"no":"c"},{"no":"d"},{"no":"e"}],"tags":["x",[1,2]]}"#;

    #[test]
    fn a_field_stands_on_a_line_of_its_own() {
        insta::assert_snapshot!(fields(SOURCE, Style::PLAIN).join("\n"), @r#"
        id: 7
        name: "投光灯"
        fob:
          min: 1.50
          list: []
        products:
          - no: "a"
            cost: 2999.00
          - no: "b"
          - no: "c"
          … and 2 more
        tags:
          - "x"
          -
            - 1
            - 2
        "#);
    }

    #[test]
    fn two_rows_share_the_columns_of_a_terminal() {
        let source = fields(SOURCE, Style::PLAIN);
        let row = fields(r#"{"id":"7","productName":"投光灯"}"#, Style::PLAIN);
        insta::assert_snapshot!(beside_in(40, &source, &row), @r#"
        id: 7             │ id: "7"
        name: "投光灯"    │ productName: "投光灯"
        fob:              │
          min: 1.50       │
          list: []        │
        products:         │
          - no: "a"       │
            cost: 2999.00 │
          - no: "b"       │
          - no: "c"       │
          … and 2 more    │
        tags:             │
          - "x"           │
          -               │
            - 1           │
            - 2           │
        "#);
        let long = vec!["x".repeat(300)];
        for columns in [0, 63, 80, 400] {
            let text = beside_in(columns, &long, &long);
            assert!(console::measure_text_width(text.trim_end()) <= columns.max(63), "{columns}");
        }
    }
}
