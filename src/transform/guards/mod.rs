//! Value guards: rows that look wrong are held back. Pure.
//!
//! A guard judges a field as it would stand in the target's row, in the bytes that were just written for it. A missing
//! value (null) is judged by `not_empty` alone, so that each rule says one thing. Deliberately absent: rules over several
//! fields, and any mending of a value.
//!
//! `max_change` compares with what the target has acknowledged ([`Former`]). Where that is not known, or was 0, there is
//! nothing to compare with. An element of a list that is held back stays in its row as it was acknowledged: without it the
//! target would lose it, and the next run would have nothing to compare with and let the value through.

mod judge;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use regex_lite::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(in crate::transform) use self::judge::{FormerRow, judge};
use super::map::{Field, FieldSource, FieldValue, RowMap};
use crate::catalogue::short;
use crate::error::Diagnostic;
use crate::words::{Message, say};

/// Fields that look like an unknown one, named in its mistake.
const NEAREST: usize = 3;

/// `[[guard.values]]`: a field whose value has to keep some rules, or its row is held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueGuard {
    /// The field, as in the target's row: `name`, or `items.cost` for a field of each element of a list.
    #[schemars(length(min = 1))]
    pub field: String,
    /// A number that is less is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// A number that is more is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// A missing value, blank text, or an empty list or object is held back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_empty: bool,
    /// Any other value is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<Value>>,
    /// Text in which this regular expression is not found is held back; `^` and `$` tie it to the ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// A number that differs by a larger share from what the target has acknowledged is held back: `0.5` allows half as
    /// much and half as much again. 0 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_change: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl ValueGuard {
    fn is_empty(&self) -> bool {
        let Self { field: _, min, max, not_empty, one_of, pattern, max_change } = self;
        min.is_none()
            && max.is_none()
            && !not_empty
            && one_of.is_none()
            && pattern.is_none()
            && max_change.is_none()
    }
}

/// What the target has acknowledged of rows.
pub(crate) trait Former: Sync {
    /// The content of a row as it was sent; `None` where it is not known.
    fn content(&self, id: &str) -> Option<Cow<'_, [u8]>>;
}

/// A regular expression, equal to another one of the same text.
#[derive(Clone)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A guard with its field found in the map.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::transform) struct Compiled {
    rules: ValueGuard,
    pattern: Option<Pattern>,
    /// The field's own name: without that of the list.
    key: String,
}

/// The guards of a field map, by the place of their fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::transform) struct ValueGuards {
    /// Of the row's own fields, by their place; empty where there is no guard at all.
    own: Vec<Vec<Compiled>>,
    /// Of the fields of lists, by the place of the list, then of the field.
    items: HashMap<usize, ItemGuards>,
    /// Whether one of them looks at what was acknowledged.
    asks_former: bool,
}

/// The guards of a list's fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::transform) struct ItemGuards {
    fields: Vec<Vec<Compiled>>,
    /// The list's name, and the name of the field that holds an element's id.
    list: String,
    id_key: Option<String>,
}

impl ItemGuards {
    /// The guards of a field of an element.
    pub(in crate::transform) fn of(&self, place: usize) -> &[Compiled] {
        self.fields.get(place).map_or(&[], Vec::as_slice)
    }
}

impl RowMap {
    /// The same map with these guards; or what is wrong with them, by the place of each in the pipeline file.
    pub fn guarded_by(mut self, guards: &[ValueGuard]) -> Result<Self, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let mut compiled = ValueGuards::default();
        if !guards.is_empty() {
            compiled.own = vec![Vec::new(); self.fields.len()];
        }
        for (at, guard) in guards.iter().enumerate() {
            let place = format!("guard.values[{at}]");
            let wrong = mistakes_of(guard, &place);
            let pattern = guard.pattern.as_deref().and_then(|text| Regex::new(text).ok()).map(Pattern);
            match compiled.add(&self.fields, guard, pattern) {
                Ok(()) => {}
                Err((what, help)) => mistakes.push(Diagnostic::new(format!("{place}.field"), what, help)),
            }
            mistakes.extend(wrong);
        }
        compiled.asks_former = guards.iter().any(|guard| guard.max_change.is_some());
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        self.guards = compiled;
        Ok(self)
    }

    /// Whether rows can be held back.
    pub(crate) fn has_guards(&self) -> bool {
        !self.guards.own.is_empty()
    }

    /// Whether items of rows can be held back.
    pub(crate) fn has_item_guards(&self) -> bool {
        !self.guards.items.is_empty()
    }
}

fn mistakes_of(guard: &ValueGuard, place: &str) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    if guard.is_empty() {
        let help = say!("add min, max, not_empty, one_of, pattern or max_change");
        mistakes.push(Diagnostic::new(place, say!("guards nothing"), help));
    }
    if let (Some(min), Some(max)) = (guard.min, guard.max)
        && min > max
    {
        let what = say!("min {min} is more than max {max}: every number would be held back", min, max);
        mistakes.push(Diagnostic::new(format!("{place}.min"), what, say!("exchange them")));
    }
    if let Some(Err(error)) = guard.pattern.as_deref().map(Regex::new) {
        let what = say!("is not a regular expression: {error}", error);
        let help = say!("look at https://docs.rs/regex-lite/latest/regex_lite/#syntax");
        mistakes.push(Diagnostic::new(format!("{place}.pattern"), what, help));
    }
    let is_scalar = |value: &Value| !value.is_array() && !value.is_object() && !value.is_null();
    if guard.one_of.as_ref().is_some_and(|values| values.is_empty() || !values.iter().all(is_scalar)) {
        let what = say!("is not a list of texts, numbers, or true and false");
        mistakes.push(Diagnostic::new(
            format!("{place}.one_of"),
            what,
            say!("write the allowed values, as in [\"PCS\", \"SET\"]"),
        ));
    }
    mistakes
}

/// The name of a field: its key without quotes and colon.
fn name_of(field: &Field) -> String {
    serde_json::from_str(field.key.trim_end_matches(':')).unwrap_or_default()
}

impl ValueGuards {
    fn add(
        &mut self,
        fields: &[Field],
        guard: &ValueGuard,
        pattern: Option<Pattern>,
    ) -> Result<(), (Message, Message)> {
        let compiled = |key: String| Compiled { rules: guard.clone(), pattern: pattern.clone(), key };
        if let Some((place, field)) =
            fields.iter().enumerate().find(|(_, field)| name_of(field) == guard.field)
        {
            if matches!(field.value, FieldValue::Each(_)) && !is_for_a_list(guard) {
                let field = &guard.field;
                let what = say!("\"{field}\" is a list, which only not_empty can guard", field);
                return Err((what, say!("name a field of its elements, as in \"{field}.…\"", field)));
            }
            if let Some(own) = self.own.get_mut(place) {
                own.push(compiled(guard.field.clone()));
            }
            return Ok(());
        }
        for (place, field) in fields.iter().enumerate() {
            let (FieldValue::Each(inner), list) = (&field.value, name_of(field)) else { continue };
            let Some(key) = guard.field.strip_prefix(&list).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let Some(at) = inner.iter().position(|field| name_of(field) == key) else { continue };
            let items = self.items.entry(place).or_insert_with(|| ItemGuards::new(list, inner));
            if let Some(of_field) = items.fields.get_mut(at) {
                of_field.push(compiled(key.to_owned()));
            }
            return Ok(());
        }
        Err(unknown(fields, &guard.field))
    }

    /// The guards of a field of the row itself.
    pub(in crate::transform) fn own(&self, place: usize) -> &[Compiled] {
        self.own.get(place).map_or(&[], Vec::as_slice)
    }

    /// The guards of the fields of a list.
    pub(in crate::transform) fn items(&self, place: usize) -> Option<&ItemGuards> {
        self.items.get(&place)
    }

    /// Whether a guard looks at what the target has acknowledged.
    pub(in crate::transform) fn asks_former(&self) -> bool {
        self.asks_former
    }

    /// What the target has acknowledged of a row, where there are guards.
    pub(in crate::transform) fn former(&self, former: Option<&dyn Former>, id: &str) -> Option<FormerRow> {
        if self.own.is_empty() {
            return None;
        }
        let content = former?.content(id)?;
        FormerRow::read(&content, self.items.values())
    }
}

impl ItemGuards {
    fn new(list: String, fields: &[Field]) -> Self {
        let is_id =
            |field: &&Field| matches!(&field.value, FieldValue::From { source: FieldSource::ProductId, .. });
        Self { fields: vec![Vec::new(); fields.len()], list, id_key: fields.iter().find(is_id).map(name_of) }
    }
}

fn is_for_a_list(guard: &ValueGuard) -> bool {
    ValueGuard { field: String::new(), not_empty: false, ..guard.clone() }.is_empty()
}

/// The field is none of the row's: what is wrong, and the nearest names.
fn unknown(fields: &[Field], name: &str) -> (Message, Message) {
    let mut known = Vec::new();
    for field in fields {
        let own = name_of(field);
        if let FieldValue::Each(inner) = &field.value {
            known.extend(inner.iter().map(|inner| format!("{own}.{}", name_of(inner))));
        }
        known.push(own);
    }
    known.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)));
    let near: Vec<String> = known.iter().take(NEAREST).map(|name| format!("\"{name}\"")).collect();
    let near = near.join(", ");
    let help = say!("the nearest are {near}; guards name fields as in the target's row", near);
    (say!("{name} is not a field of the target's row", name = short(name)), help)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transform::RecordSpec;

    fn map(record: &str) -> RowMap {
        RowMap::compile(&toml::from_str::<RecordSpec>(record).unwrap(), "id", "name").unwrap()
    }

    fn guard(toml: &str) -> ValueGuard {
        toml::from_str(toml).unwrap()
    }

    /// What a guard says of a value, against what was acknowledged.
    fn said(rules: &str, written: &str, former: Option<&str>) -> String {
        let map = map("").guarded_by(&[guard(&format!("field = \"name\"\n{rules}"))]).unwrap();
        let former: Option<Value> = former.map(|former| serde_json::from_str(former).unwrap());
        match judge(map.guards.own(1), written.as_bytes(), |_| former.as_ref()) {
            Ok(()) => String::new(),
            Err(reason) => reason.text.replace("held back by a value guard: name is ", ""),
        }
    }

    #[test]
    fn each_rule_holds_back_what_it_says_and_nothing_else() {
        for (rules, written, expected) in [
            ("min = 0.01", "0", "0, less than min 0.01"),
            ("min = 0.01", "0.01", ""),
            ("min = 0.01", "\"0.005\"", "\"0.005\", less than min 0.01"),
            ("min = 0.01", "\"on request\"", "\"on request\", which is not a number"),
            ("min = 0.01", "null", ""),
            ("max = 10", "10.5", "10.5, more than max 10"),
            ("max = 10\nmin = 1", "10.0", ""),
            ("not_empty = true", "null", "empty (null)"),
            ("not_empty = true", "\" \"", "empty (\" \")"),
            ("not_empty = true", "[]", "empty ([])"),
            ("not_empty = true", "0", ""),
            ("one_of = [\"PCS\", 2]", "\"SET\"", "\"SET\", not one of \"PCS\", 2"),
            ("one_of = [\"PCS\", 2]", "2.0", ""),
            ("one_of = [\"PCS\"]", "null", ""),
            ("pattern = \"^[A-Z]+$\"", "\"abc\"", "\"abc\", which pattern ^[A-Z]+$ does not match"),
            ("pattern = \"^[A-Z]+$\"", "\"ABC\"", ""),
            ("pattern = \"灯\"", "\"LED 灯\"", ""),
            ("pattern = \"^[0-9]$\"", "7", ""),
        ] {
            assert_eq!(said(rules, written, None), expected, "{rules} {written}");
        }
    }

    #[test]
    fn a_change_is_measured_against_what_was_acknowledged_or_not_at_all() {
        let said = |written, former| said("max_change = 0.5", written, former);
        assert_eq!(
            said("3099.00", Some("2000.00")),
            "3099.00, it was 2000.0: a change of 54.95 %, max_change allows 50 %"
        );
        for (written, former) in [
            ("3000", Some("2000")),
            ("1000", Some("2000")),
            ("\"1500\"", Some("1000")),
            ("5", Some("0")),
            ("5", Some("null")),
            ("5", Some("\"none\"")),
            ("5", None),
            ("null", Some("5")),
        ] {
            assert_eq!(said(written, former), "", "{written} {former:?}");
        }
        assert!(said("999", Some("2000")).contains("a change of 50.05 %"));
        assert!(said("-1", Some("-9")).contains("a change of 88.89 %"));
    }

    #[test]
    fn former_values_of_elements_are_found_by_their_ids() {
        struct Row;
        impl Former for Row {
            fn content(&self, id: &str) -> Option<Cow<'_, [u8]>> {
                let row = br#"{"id":"1","name":"x","items":[{"id":"8","cost":4},{"id":"7","cost":10.0}]}"#;
                (id == "1").then_some(Cow::Borrowed(row))
            }
        }
        let map = map("").guarded_by(&[guard("field = \"items.cost\"\nmax_change = 0.1")]).unwrap();
        let guards = map.guards.items(2).unwrap();
        let former = map.guards.former(Some(&Row), "1").unwrap();
        let cost = guards.of(2).first().unwrap();
        assert_eq!(former.item(guards, "7", cost), Some(&Value::from(10.0)));
        assert_eq!(former.item(guards, "9", cost), None);
        assert!(map.guards.former(Some(&Row), "2").is_none() && map.guards.former(None, "1").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_guard_is_said_with_its_place() {
        let told = |toml: &str| {
            let mistakes = map("").guarded_by(&[guard("field = \"id\"\nmin = 1"), guard(toml)]).unwrap_err();
            mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(told("field = \"items.costs\"\nmin = 1"), @r#"guard.values[1].field: "items.costs" is not a field of the target's row; the nearest are "items.cost", "items", "items.id"; guards name fields as in the target's row"#);
        insta::assert_snapshot!(told("field = \"items\"\nmin = 1"), @r#"guard.values[1].field: "items" is a list, which only not_empty can guard; name a field of its elements, as in "items.…""#);
        insta::assert_snapshot!(told("field = \"name\""), @"guard.values[1]: guards nothing; add min, max, not_empty, one_of, pattern or max_change");
        insta::assert_snapshot!(told("field = \"name\"\nmin = 2\nmax = 1"), @"guard.values[1].min: min 2 is more than max 1: every number would be held back; exchange them");
        insta::assert_snapshot!(told("field = \"name\"\none_of = []"), @r#"guard.values[1].one_of: is not a list of texts, numbers, or true and false; write the allowed values, as in ["PCS", "SET"]"#);
        assert!(
            told("field = \"name\"\npattern = \"(\"")
                .starts_with("guard.values[1].pattern: is not a regular expression: ")
        );
        assert!(map("").guarded_by(&[guard("field = \"items\"\nnot_empty = true")]).is_ok());
    }
}
