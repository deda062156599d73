//! Judges a value in the bytes that were written for it, by the guards of its field.

use std::collections::HashMap;

use serde_json::Value;

use super::{Compiled, ItemGuards, Pattern, ValueGuard};
use crate::catalogue::{Reason, ReasonKind, short};
use crate::testing::Mutant;

/// A row as the target has acknowledged it.
#[derive(Debug, Default)]
pub(in crate::transform) struct FormerRow {
    pub(super) own: serde_json::Map<String, Value>,
    /// The elements of guarded lists by list and id.
    pub(super) items: HashMap<(String, String), Value>,
}

impl FormerRow {
    pub(super) fn with_items<'g>(mut self, guards: impl Iterator<Item = &'g ItemGuards>) -> Self {
        for ItemGuards { list, id_key, .. } in guards {
            let Some((id_key, Some(Value::Array(elements)))) =
                id_key.as_ref().zip(Some(self.own.remove(list)))
            else {
                continue;
            };
            for element in elements {
                let id =
                    element.get(id_key).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
                if let Some(id) = id {
                    self.items.insert((list.clone(), id), element);
                }
            }
        }
        self
    }

    /// The former value of a field of the row.
    pub(in crate::transform) fn own(&self, guard: &Compiled) -> Option<&Value> {
        self.own.get(&guard.key)
    }

    /// The former value of a field of an element.
    pub(in crate::transform) fn item(
        &self,
        guards: &ItemGuards,
        id: &str,
        guard: &Compiled,
    ) -> Option<&Value> {
        self.items.get(&(guards.list.clone(), id.to_owned()))?.get(&guard.key)
    }
}

/// Judges a value as it was written. `former` finds what the target has acknowledged of it.
pub(in crate::transform) fn judge<'f>(
    guards: &[Compiled],
    written: &[u8],
    former: impl Fn(&Compiled) -> Option<&'f Value>,
) -> Result<(), Reason> {
    if guards.is_empty() {
        return Ok(());
    }
    // What was written is JSON.
    let value: Value = serde_json::from_slice(written).unwrap_or_default();
    let text = String::from_utf8_lossy(written);
    for guard in guards {
        if let Some(why) = guard.objection(&value, &text, former(guard)) {
            let text = format!("held back by a value guard: {} is {why}", guard.rules.field);
            return Err(Reason::new(ReasonKind::Held, text));
        }
    }
    Ok(())
}

impl Compiled {
    /// Why the value is held back: what it is, and the rule.
    fn objection(&self, value: &Value, written: &str, former: Option<&Value>) -> Option<String> {
        let rules = &self.rules;
        if rules.not_empty && is_empty(value) {
            return Some(format!("empty ({})", shown(written)));
        }
        if value.is_null() {
            return None;
        }
        let shown = shown(written);
        self.range(value).or_else(|| self.listed(value)).or_else(|| self.matched(value)).map_or_else(
            || change(rules.max_change?, value, former?).map(|change| format!("{shown}, {change}")),
            |why| Some(format!("{shown}, {why}")),
        )
    }

    fn range(&self, value: &Value) -> Option<String> {
        let ValueGuard { min, max, .. } = self.rules;
        if min.is_none() && max.is_none() {
            return None;
        }
        let Some(number) = number_of(value) else { return Some("which is not a number".to_owned()) };
        if let Some(min) = min.filter(|min| number < *min) {
            return Some(format!("less than min {min}"));
        }
        // A planted bug.
        let max = max.filter(|max| number > *max && !Mutant::LetHeldValuesThrough.is_active());
        max.map(|max| format!("more than max {max}"))
    }

    fn listed(&self, value: &Value) -> Option<String> {
        let allowed = self.rules.one_of.as_ref()?;
        let is_it = |allowed: &Value| match (allowed, value) {
            (Value::Number(allowed), Value::Number(value)) => allowed.as_f64() == value.as_f64(),
            _ => allowed == value,
        };
        if allowed.iter().any(is_it) {
            return None;
        }
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        Some(format!("not one of {}", allowed.join(", ")))
    }

    fn matched(&self, value: &Value) -> Option<String> {
        let Pattern(pattern) = self.pattern.as_ref()?;
        let is_found = match value {
            Value::String(text) => pattern.is_match(text),
            other => pattern.is_match(&other.to_string()),
        };
        (!is_found).then(|| format!("which pattern {} does not match", pattern.as_str()))
    }
}

/// Whether a number changed by more than this share of what the target has acknowledged, in words.
fn change(max_change: f64, value: &Value, former: &Value) -> Option<String> {
    let (now, before) = (number_of(value)?, number_of(former)?);
    if before == 0.0 {
        return None;
    }
    let change = (now - before).abs() / before.abs();
    let percent = |share: f64| (share * 10_000.0).round() / 100.0;
    (change > max_change).then(|| {
        format!(
            "it was {former}: a change of {} %, max_change allows {} %",
            percent(change),
            percent(max_change)
        )
    })
}

/// A number, or text that is one.
fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A value for a message. Texts have their quotes already.
fn shown(written: &str) -> String {
    let quoted = short(written);
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}
