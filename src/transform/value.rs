//! Writes one value as the wanted type, digit for digit.

use super::spec::As;

use crate::words::{phrase, written};

pub(super) fn write_or(raw: &str, default: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    if raw.is_empty() || raw == "null" {
        out.extend_from_slice(default.as_bytes());
        return Ok(());
    }
    write_value(raw, kind, out)
}

pub(super) fn write_json_string(text: &str, out: &mut Vec<u8>) {
    // Ids and numbers.
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

pub(super) fn write_text(text: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        None | Some(As::String) => {
            write_json_string(text, out);
            Ok(())
        }
        Some(As::Number | As::Integer | As::Boolean) => write_unquoted(text, kind, out),
    }
}

/// Writes a raw JSON value as the wanted type, digit for digit.
pub(super) fn write_value(raw: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(wanted) = kind else {
        out.extend_from_slice(raw.as_bytes());
        return Ok(());
    };
    match (wanted, raw.as_bytes().first()) {
        (As::String, Some(b'"')) => out.extend_from_slice(raw.as_bytes()),
        (As::Number, _) if begins_as_number(raw) => out.extend_from_slice(raw.as_bytes()),
        // Numbers, booleans, and whole objects or lists become text as they stand.
        (As::String, _) => write_json_string(raw, out),
        (_, Some(b'"')) => {
            let text: String = serde_json::from_str(raw).map_err(|_| written!("is not valid text"))?;
            return write_unquoted(text.trim(), kind, out);
        }
        _ => return write_unquoted(raw, kind, out),
    }
    Ok(())
}

/// A raw value is JSON: what begins as a number is one.
pub(super) fn begins_as_number(raw: &str) -> bool {
    matches!(raw.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
}

fn write_unquoted(text: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    let refuse =
        |what: &str| Err(written!("{text} is not {what}", text = crate::catalogue::short(text), what));
    match kind {
        Some(As::Integer) => match integer_part(text) {
            Some(digits) => out.extend_from_slice(digits.as_bytes()),
            None => return refuse(phrase!("an integer")),
        },
        Some(As::Boolean) => match text {
            "true" | "1" => out.extend_from_slice(b"true"),
            "false" | "0" => out.extend_from_slice(b"false"),
            _ => return refuse(phrase!("true or false")),
        },
        _ if is_json_number(text) => out.extend_from_slice(text.as_bytes()),
        _ => return refuse(phrase!("a number")),
    }
    Ok(())
}

/// Whether a text is a JSON number already, so that it can be copied with all its digits.
fn is_json_number(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// `"12"` and `"12.00"` are 12; `"12.5"` and `"1e3"` are no integers that we would put into the source's mouth.
fn integer_part(text: &str) -> Option<&str> {
    if !is_json_number(text) {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = !whole.contains(['e', 'E']) && fraction.bytes().all(|b| b == b'0');
    plain.then_some(whole)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(raw: &str, kind: As) -> Result<String, String> {
        let mut out = Vec::new();
        write_value(raw, Some(kind), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn numbers_keep_the_digits_that_the_source_sent() {
        for raw in ["2999.10", "0.035", "1840.000", "9007199254740993", "-1", "1e3"] {
            assert_eq!(write(raw, As::Number).unwrap(), raw);
            assert_eq!(write(&format!("\"{raw}\""), As::Number).unwrap(), raw, "from a string");
            assert_eq!(write(raw, As::String).unwrap(), format!("\"{raw}\""));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_value() {
        #[rustfmt::skip]
        let table = [
            ("\"abc\"", As::Number, "\"abc\" is not a number"),
            ("\"1,000\"", As::Number, "\"1,000\" is not a number"),
            ("\"NaN\"", As::Number, "\"NaN\" is not a number"),
            ("\"\"", As::Number, "\"\" is not a number"),
            ("{}", As::Number, "\"{}\" is not a number"),
            ("12.5", As::Integer, "\"12.5\" is not an integer"),
            ("2", As::Boolean, "\"2\" is not true or false"),
        ];
        for (raw, kind, expected) in table {
            assert_eq!(write(raw, kind).unwrap_err(), expected);
        }
        assert_eq!(write("12.00", As::Integer).unwrap(), "12");
        assert_eq!(write("\"1\"", As::Boolean).unwrap(), "true");
    }
}
