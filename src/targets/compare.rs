//! Whether the target holds a row: compares a row that was read back with the row as it was sent.

use serde_json::Value;

use super::held::is_tombstone;

/// Whether the target's row contains what ours says. Fields that only the target has do not count, but for one that calls
/// the row deleted: a target that merges fields keeps it when the row comes back.
pub(crate) fn contains(theirs: &Value, ours: &[u8]) -> bool {
    let Ok(Value::Object(ours)) = serde_json::from_slice::<Value>(ours) else { return false };
    if is_tombstone(theirs) && !ours.contains_key("deleted") {
        return false;
    }
    ours.iter().all(|(key, value)| theirs.get(key).is_some_and(|their| same(their, value)))
}

/// Equal as values: `2999.10` equals `2999.1`, in case the target has rewritten its numbers. Two integers are equal
/// only digit for digit, since as floating-point numbers many long ids are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.as_f64().is_some() && a.as_f64() == b.as_f64() && !(a.is_i64() && b.is_i64()))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_contained_if_all_its_fields_are_there_with_equal_values() {
        for (theirs, ours, expected) in [
            (r#"{"id":"7","cost":2999.1,"extra":1}"#, r#"{"id":"7","cost":2999.10}"#, true),
            (r#"{"id":"7"}"#, r#"{"id":"7","cost":null}"#, false),
            (r#"{"id":9007199254740993}"#, r#"{"id":9007199254740992}"#, false),
            (r#"{"items":[{"a":1.0}]}"#, r#"{"items":[{"a":1}]}"#, true),
            (r#"{"items":[{"a":1,"b":2}]}"#, r#"{"items":[{"a":1}]}"#, false),
            (r#"{"items":[1,2]}"#, r#"{"items":[2,1]}"#, false),
            (r#"{"id":"7","deleted":true}"#, r#"{"id":"7"}"#, false),
            (r#"{"id":"7","deleted":true}"#, r#"{"id":"7","deleted":false}"#, false),
            (r#"{"id":"7","deleted":true}"#, r#"{"id":"7","deleted":true}"#, true),
            (r#"{"id":"7","deleted":false}"#, r#"{"id":"7"}"#, true),
            (r#"{"id":"7"}"#, r#"{"id":"7""#, false),
            (r#"{"id":"7"}"#, r#"[]"#, false),
        ] {
            let theirs: Value = serde_json::from_str(theirs).unwrap_or_default();
            assert_eq!(contains(&theirs, ours.as_bytes()), expected, "{theirs} {ours}");
        }
    }
}
