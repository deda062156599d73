//! JSON written by hand: prices keep their digits, and a page of 100 rows costs one string.

use serde_json::{Map, Value};

/// Writes one JSON object. A field of `extra` replaces the field of the same name.
pub(crate) struct ObjectWriter<'a> {
    out: &'a mut String,
    extra: &'a Map<String, Value>,
    empty: bool,
}

impl<'a> ObjectWriter<'a> {
    pub(crate) fn new(out: &'a mut String, extra: &'a Map<String, Value>) -> Self {
        out.push('{');
        Self { out, extra, empty: true }
    }

    fn key(&mut self, name: &str) -> bool {
        if !self.extra.is_empty() && self.extra.contains_key(name) {
            return false;
        }
        self.out.push_str(if self.empty { "\"" } else { ",\"" });
        self.empty = false;
        self.out.push_str(name);
        self.out.push_str("\":");
        true
    }

    pub(crate) fn raw(&mut self, name: &str, value: &str) {
        if self.key(name) {
            self.out.push_str(value);
        }
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        if self.key(name) {
            push_text(self.out, value);
        }
    }

    pub(crate) fn number(&mut self, name: &str, digits: Option<&str>) {
        if self.key(name) {
            push_number(self.out, digits);
        }
    }

    /// An id as an integer, unless it is not one or strings are asked for.
    pub(crate) fn id(&mut self, name: &str, id: &str, as_string: bool) {
        let integer = !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_digit())
            && (id == "0" || !id.starts_with('0'));
        if self.key(name) {
            if integer && !as_string { self.out.push_str(id) } else { push_text(self.out, id) }
        }
    }

    pub(crate) fn end(mut self) {
        let extra = self.extra;
        for (name, value) in extra {
            self.out.push_str(if self.empty { "" } else { "," });
            self.empty = false;
            push_text(self.out, name);
            self.out.push(':');
            self.out.push_str(&value.to_string());
        }
        self.out.push('}');
    }
}

pub(crate) fn push_text(out: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// The digits as they are: `2999.10` stays `2999.10`. Text that is not a JSON number becomes a string.
pub(crate) fn push_number(out: &mut String, digits: Option<&str>) {
    match digits {
        None => out.push_str("null"),
        Some(digits) if serde_json::from_str::<serde_json::Number>(digits).is_ok() => out.push_str(digits),
        Some(text) => push_text(out, text),
    }
}
