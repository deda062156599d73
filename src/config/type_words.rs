//! How the check against the schema names types and values.

use serde_json::Value;

use crate::words::{Message, say};

/// What a key of this JSON type wants.
pub(super) fn type_text(name: &str) -> Message {
    match name {
        "string" => say!("a string"),
        "integer" => say!("a whole number"),
        "number" => say!("a number"),
        "boolean" => say!("true or false"),
        "object" => say!("a table"),
        "array" => say!("a list"),
        _ => say!("null"),
    }
}

/// What was found instead.
pub(super) fn value_text(value: &Value) -> Message {
    match value {
        Value::Null => say!("null"),
        Value::Bool(_) => say!("true or false"),
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() != 0.0) => {
            say!("a number with a fraction")
        }
        Value::Number(number) if number.is_f64() => say!("a number that is too large or has a decimal point"),
        Value::Number(_) => say!("a number"),
        Value::String(_) => say!("a string"),
        Value::Array(_) => say!("a list"),
        Value::Object(_) => say!("a table"),
    }
}

/// Allowed values, as JSON writes them.
pub(super) fn list(values: &[&Value]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
