//! What a mapping was expected to make, against what it makes: by row, and in it by field.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalogue::short;
use crate::sync::preview::Preview;
use crate::words::{Message, say};

/// Digits that a number may have and still be compared as a number: more do not fit into an `f64`.
const EXACT_DIGITS: usize = 15;

/// The rows that somebody expects, each with its place in the file.
#[derive(Debug, Default)]
pub(super) struct Expected(Vec<Box<RawValue>>);

impl Expected {
    /// A list of rows, or a row on each line. The error says where it is not.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self, Message> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rows = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<Box<RawValue>>() {
            let value = value.map_err(|error| {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                let (line, column) = (error.line(), error.column());
                say!("{name}:{line}:{column} is not JSON: {what}", name, line, column, what)
            })?;
            if value.get().starts_with('[') {
                let list: Vec<Box<RawValue>> = serde_json::from_str(value.get()).unwrap_or_default();
                rows.extend(list);
            } else {
                rows.push(value);
            }
        }
        match rows.iter().enumerate().find(|(_, row)| !row.get().starts_with('{')) {
            Some((at, row)) => {
                let (at, row) = (at + 1, short(row.get()));
                Err(say!("{name}: element {at} is not a row but {row}", name, at, row))
            }
            None => Ok(Self(rows)),
        }
    }
}

/// Every difference, a line for each row and, below it, for each field of it; empty if there is none.
pub(super) fn differences(preview: &Preview, expected: &Expected) -> Vec<Message> {
    let id_of = |row: &Fields| row.get(&preview.id_field).map(|id| text_of(id)).unwrap_or_default();
    let mut lines = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for raw in &expected.0 {
        let wanted = fields(raw.get());
        let id = id_of(&wanted);
        if id.is_empty() {
            let (field, row) = (&preview.id_field, short(raw.get()));
            lines.push(say!("an expected row has no {field}: {row}", field, row));
            continue;
        }
        match preview.rows.iter().find(|row| row.id == id) {
            Some(made) => {
                let mut inner = Vec::new();
                compare_fields(&wanted, &fields(made.row.get()), "", &mut inner);
                if !inner.is_empty() {
                    lines.push(say!("row {id}", id));
                    lines.extend(inner);
                }
            }
            None => {
                let why = preview.rejected.iter().find(|row| row.id.as_deref() == Some(&id));
                lines.push(match why.map(|row| Message::from(row.reason.as_str())) {
                    Some(reason) => say!("row {id} is rejected: {reason}", id, reason),
                    None => say!("row {id} is missing", id),
                });
            }
        }
        if !seen.insert(id.clone()) {
            lines.push(say!("row {id} is expected twice", id));
        }
    }
    let surplus = preview.rows.iter().filter(|row| !seen.contains(&row.id));
    lines.extend(
        surplus.map(|row| say!("row {id} was not expected: {row}", id = row.id, row = row.row.get())),
    );
    lines
}

type Fields = indexmap::IndexMap<String, Box<RawValue>>;

fn fields(json: &str) -> Fields {
    serde_json::from_str(json).unwrap_or_default()
}

fn text_of(value: &RawValue) -> String {
    match serde_json::from_str(value.get()) {
        Ok(Value::String(text)) => text,
        _ => value.get().to_owned(),
    }
}

fn compare_fields(wanted: &Fields, made: &Fields, path: &str, lines: &mut Vec<Message>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, wanted) in wanted {
        match made.get(key) {
            Some(made) => compare(wanted.get(), made.get(), &join(key), lines),
            None => lines.push(missing(&join(key), wanted)),
        }
    }
    for (key, made) in made.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        lines.push(surplus(&join(key), made));
    }
}

fn compare(wanted: &str, made: &str, path: &str, lines: &mut Vec<Message>) {
    let first = |json: &str| json.trim_start().chars().next();
    match (first(wanted), first(made)) {
        (Some('{'), Some('{')) => compare_fields(&fields(wanted), &fields(made), path, lines),
        (Some('['), Some('[')) => compare_lists(wanted, made, path, lines),
        _ if is_same(wanted, made) => {}
        _ => lines.push(say!("  {path}: expected {wanted}, is {made}", path, wanted, made)),
    }
}

fn missing(path: &str, wanted: &RawValue) -> Message {
    say!("  {path}: expected {wanted}, is missing", path, wanted)
}

fn surplus(path: &str, made: &RawValue) -> Message {
    say!("  {path}: was not expected, is {made}", path, made)
}

/// Elements are named by their ids where they have them, else by their places from 0.
fn compare_lists(wanted: &str, made: &str, path: &str, lines: &mut Vec<Message>) {
    let list = |json: &str| serde_json::from_str::<Vec<Box<RawValue>>>(json).unwrap_or_default();
    let (wanted, made) = (list(wanted), list(made));
    let name = |at: usize, element: &RawValue| {
        fields(element.get()).get("id").map_or_else(|| at.to_string(), |id| text_of(id))
    };
    let names = |elements: &[Box<RawValue>]| -> Vec<String> {
        elements.iter().enumerate().map(|(at, element)| name(at, element)).collect()
    };
    let (wanted_names, made_names) = (names(&wanted), names(&made));
    for (element, name) in wanted.iter().zip(&wanted_names) {
        let path = format!("{path}[{name}]");
        let there = made.iter().zip(&made_names).find(|(_, other)| *other == name);
        match there {
            Some((there, _)) => compare(element.get(), there.get(), &path, lines),
            None => lines.push(missing(&path, element)),
        }
    }
    for (element, name) in made.iter().zip(&made_names).filter(|(_, name)| !wanted_names.contains(name)) {
        lines.push(surplus(&format!("{path}[{name}]"), element));
    }
    let is_another_order = {
        let common = |names: &[String], others: &[String]| -> Vec<String> {
            names.iter().filter(|name| others.contains(name)).cloned().collect()
        };
        common(&wanted_names, &made_names) != common(&made_names, &wanted_names)
    };
    if is_another_order {
        let names = made_names.join(", ");
        lines.push(say!("  {path}: expected in another order, is {names}", path, names));
    }
}

/// `2999.10` and `2999.1` are one number; texts are compared without their escapes.
fn is_same(wanted: &str, made: &str) -> bool {
    if wanted == made {
        return true;
    }
    let parsed = |json: &str| serde_json::from_str::<Value>(json).ok();
    match (parsed(wanted), parsed(made)) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => {
            let is_exact = |json: &str| json.bytes().filter(u8::is_ascii_digit).count() <= EXACT_DIGITS;
            is_exact(wanted) && is_exact(made) && one.as_f64() == other.as_f64()
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::{Reason, Rejected, RowKind};
    use crate::sync::preview::PreviewRow;

    fn preview(rows: &[(&str, &str)]) -> Preview {
        let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
        let rows = rows.iter().map(|(id, row)| PreviewRow {
            id: (*id).to_owned(),
            source: raw("{}"),
            row: raw(row),
        });
        Preview {
            rows: rows.collect(),
            rejected: vec![Rejected::new(
                RowKind::Group,
                Some("9".to_owned()),
                Reason::misfit("no name"),
                "{}",
            )],
            id_field: "id".to_owned(),
            note: None,
        }
    }

    fn told(made: &[(&str, &str)], expected: &str) -> String {
        differences(&preview(made), &Expected::parse(expected, "e.json").unwrap())
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn rows_that_are_as_expected_differ_in_nothing() {
        let made = [("1", r#"{"id":"1","name":"\u4e2d","cost":2999.10,"items":[{"id":"7"}]}"#)];
        assert_eq!(told(&made, r#"[{"name":"中","id":"1","items":[{"id":"7"}],"cost":2999.1}]"#), "");
        assert_eq!(
            told(&made, "{\"id\":\"1\",\"name\":\"中\",\"cost\":2.9991e3,\"items\":[{\"id\":\"7\"}]}\n"),
            ""
        );
    }

    #[test]
    fn each_difference_is_named_by_row_and_field() {
        let made = [
            ("1", r#"{"id":"1","cost":3099.00,"more":1,"items":[{"id":"7","n":1},{"id":"8"},{"id":"6"}]}"#),
            ("2", r#"{"id":"2"}"#),
        ];
        let expected = r#"[{"id":"1","cost":2999.00,"name":"x","items":[{"id":"8"},{"id":"7","n":2},{"id":"9"}]},
            {"id":"3"},{"id":"9"},{"id":"9"},{"name":"y"}]"#;
        insta::assert_snapshot!(told(&made, expected), @r#"
        row 1
          cost: expected 2999.00, is 3099.00
          name: expected "x", is missing
          items[7].n: expected 2, is 1
          items[9]: expected {"id":"9"}, is missing
          items[6]: was not expected, is {"id":"6"}
          items: expected in another order, is 7, 8, 6
          more: was not expected, is 1
        row 3 is missing
        row 9 is rejected: no name
        row 9 is rejected: no name
        row 9 is expected twice
        an expected row has no id: "{"name":"y"}"
        row 2 was not expected: {"id":"2"}
        "#);
        assert_eq!(
            told(
                &[("1", r#"{"id":"1","n":12345678901234567890}"#)],
                r#"[{"id":"1","n":12345678901234567891}]"#
            )
            .lines()
            .count(),
            2
        );
    }

    #[test]
    fn a_file_of_something_else_is_refused_with_its_place() {
        for (text, expected) in [
            ("[{\"id\":1},\n 7]", "e.json: element 2 is not a row but \"7\""),
            ("[{\"id\":1}\n", "e.json:2:0 is not JSON: EOF while parsing a list"),
        ] {
            assert_eq!(Expected::parse(text, "e.json").unwrap_err(), expected);
        }
    }
}
