//! Judges a value in the bytes that were written for it, by the guards of its field.

use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::{Compiled, ItemGuards, Pattern, ValueGuard};
use crate::catalogue::{Reason, ReasonKind, short};
use crate::testing::Mutant;
use crate::words::{Message, say, written};

/// A row as the target has acknowledged it.
#[derive(Debug, Default)]
pub(in crate::transform) struct FormerRow {
    own: HashMap<String, Value>,
    /// The elements of guarded lists by list and id.
    items: HashMap<(String, String), FormerItem>,
}

#[derive(Debug)]
struct FormerItem {
    fields: Value,
    /// As it was sent, digit by digit.
    text: Box<RawValue>,
}

impl FormerRow {
    /// Reads the content of a row; `None` if it is no JSON object.
    pub(super) fn read<'g>(content: &[u8], guards: impl Iterator<Item = &'g ItemGuards>) -> Option<Self> {
        let mut fields: HashMap<String, &RawValue> = serde_json::from_slice(content).ok()?;
        let mut former = Self::default();
        for ItemGuards { list, id_key, .. } in guards {
            let (Some(id_key), Some(elements)) = (id_key, fields.remove(list)) else { continue };
            // What is no list has no elements.
            let elements: Vec<&RawValue> = serde_json::from_str(elements.get()).unwrap_or_default();
            for text in elements {
                let fields: Value = serde_json::from_str(text.get()).unwrap_or_default();
                let id =
                    fields.get(id_key).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
                if let Some(id) = id {
                    former.items.insert((list.clone(), id), FormerItem { fields, text: text.to_owned() });
                }
            }
        }
        let value = |(key, raw): (String, &RawValue)| Some((key, serde_json::from_str(raw.get()).ok()?));
        former.own = fields.into_iter().filter_map(value).collect();
        Some(former)
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
        self.element(guards, id)?.fields.get(&guard.key)
    }

    /// An element as it was sent.
    pub(in crate::transform) fn item_text(&self, guards: &ItemGuards, id: &str) -> Option<&str> {
        Some(self.element(guards, id)?.text.get())
    }

    fn element(&self, guards: &ItemGuards, id: &str) -> Option<&FormerItem> {
        self.items.get(&(guards.list.clone(), id.to_owned()))
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
            let text =
                written!("held back by a value guard: {field} is {why}", field = guard.rules.field, why);
            return Err(Reason::new(ReasonKind::Held, text));
        }
    }
    Ok(())
}

impl Compiled {
    /// Why the value is held back: what it is, and the rule.
    fn objection(&self, value: &Value, written: &str, former: Option<&Value>) -> Option<Message> {
        let rules = &self.rules;
        if rules.not_empty && is_empty(value) {
            return Some(say!("empty ({value})", value = shown(written)));
        }
        if value.is_null() {
            return None;
        }
        let shown = shown(written);
        self.range(value, &shown)
            .or_else(|| self.listed(value, &shown))
            .or_else(|| self.matched(value, &shown))
            .or_else(|| change(rules.max_change?, value, former?, &shown))
    }

    fn range(&self, value: &Value, shown: &str) -> Option<Message> {
        let ValueGuard { min, max, .. } = self.rules;
        if min.is_none() && max.is_none() {
            return None;
        }
        let Some(number) = number_of(value) else {
            return Some(say!("{value}, which is not a number", value = shown));
        };
        if let Some(min) = min.filter(|min| number < *min) {
            return Some(say!("{value}, less than min {min}", value = shown, min));
        }
        // A planted bug.
        let max = max.filter(|max| number > *max && !Mutant::LetHeldValuesThrough.is_active());
        max.map(|max| say!("{value}, more than max {max}", value = shown, max))
    }

    fn listed(&self, value: &Value, shown: &str) -> Option<Message> {
        let allowed = self.rules.one_of.as_ref()?;
        let is_it = |allowed: &Value| match (allowed, value) {
            (Value::Number(allowed), Value::Number(value)) => allowed.as_f64() == value.as_f64(),
            _ => allowed == value,
        };
        if allowed.iter().any(is_it) {
            return None;
        }
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        Some(say!("{value}, not one of {allowed}", value = shown, allowed = allowed.join(", ")))
    }

    fn matched(&self, value: &Value, shown: &str) -> Option<Message> {
        let Pattern(pattern) = self.pattern.as_ref()?;
        let is_found = match value {
            Value::String(text) => pattern.is_match(text),
            other => pattern.is_match(&other.to_string()),
        };
        (!is_found).then(|| {
            let pattern = pattern.as_str();
            say!("{value}, which pattern {pattern} does not match", value = shown, pattern)
        })
    }
}

/// Whether a number changed by more than this share of what the target has acknowledged, in words.
fn change(max_change: f64, value: &Value, former: &Value, shown: &str) -> Option<Message> {
    let (now, before) = (number_of(value)?, number_of(former)?);
    if before == 0.0 {
        return None;
    }
    let change = (now - before).abs() / before.abs();
    let percent = |share: f64| (share * 10_000.0).round() / 100.0;
    (change > max_change).then(|| {
        say!(
            "{value}, it was {before}: a change of {percent} %, max_change allows {allowed} %",
            value = shown,
            before = former,
            percent = percent(change),
            allowed = percent(max_change),
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
