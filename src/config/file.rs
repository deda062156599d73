//! Text → one JSON value, with the line of each key.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use crate::error::Diagnostic;
use crate::words::{Message, say};

/// A file that was parsed, and where its keys came from.
#[derive(Debug)]
pub(super) struct Document {
    name: String,
    /// The file's content; the environment's overrides are put into it.
    pub(super) value: Value,
    /// Values that JSON cannot hold.
    pub(super) findings: Vec<Diagnostic>,
    lines: HashMap<String, usize>,
    variables: HashMap<String, &'static str>,
}

impl Document {
    /// Parses TOML or JSON, by the name's ending.
    pub(super) fn parse(text: &str, name: &str) -> Result<Self, Diagnostic> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut document = Self {
            name: name.to_owned(),
            value: Value::Null,
            findings: Vec::new(),
            lines: HashMap::new(),
            variables: HashMap::new(),
        };
        match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
            Some("toml") => document.read_toml(text)?,
            Some("json") => document.read_json(text)?,
            _ => {
                return Err(Diagnostic {
                    place: one_line(name),
                    message: say!("is neither .toml nor .json"),
                    help: say!("name the pipeline file after its format"),
                });
            }
        }
        Ok(document)
    }

    fn read_toml(&mut self, text: &str) -> Result<(), Diagnostic> {
        let root = DeTable::parse(text).map_err(|error| {
            let place = match error.span() {
                Some(span) => format!("{}:{}", one_line(&self.name), line_of(text, span.start)),
                None => one_line(&self.name),
            };
            syntax_mistake(place, "TOML", error.message())
        })?;
        self.value = self.table(text, root.get_ref(), "");
        Ok(())
    }

    fn read_json(&mut self, text: &str) -> Result<(), Diagnostic> {
        self.value = serde_json::from_str(text).map_err(|error| {
            let place = format!("{}:{}", one_line(&self.name), error.line());
            let message = error.to_string();
            // The place has the line already.
            let message = message.split(" at line ").next().unwrap_or_default();
            syntax_mistake(place, "JSON", message)
        })?;
        Ok(())
    }

    fn table(&mut self, text: &str, table: &DeTable<'_>, path: &str) -> Value {
        let mut map = Map::with_capacity(table.len());
        for (key, value) in table {
            let inner = join(path, key.get_ref());
            self.lines.insert(inner.clone(), line_of(text, key.span().start));
            map.insert(key.get_ref().to_string(), self.convert(text, value.get_ref(), &inner));
        }
        Value::Object(map)
    }

    fn convert(&mut self, text: &str, value: &DeValue<'_>, path: &str) -> Value {
        match value {
            DeValue::String(string) => Value::String(string.to_string()),
            DeValue::Integer(integer) => integer_value(integer),
            DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
                Some(number) => Value::Number(number),
                None => self.unfit(path, say!("is not a finite number"), say!("write a number with an end")),
            },
            DeValue::Boolean(boolean) => Value::Bool(*boolean),
            DeValue::Datetime(_) => {
                self.unfit(path, say!("is a date, which JSON does not have"), say!("put it in quotes"))
            }
            DeValue::Array(array) => Value::Array(self.list(text, array, path)),
            DeValue::Table(table) => self.table(text, table, path),
        }
    }

    /// What stands in a list goes by its place: `guard.values[0].min`.
    fn list(&mut self, text: &str, list: &DeArray<'_>, path: &str) -> Vec<Value> {
        let mut values = Vec::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            let place = format!("{path}[{at}]");
            self.lines.insert(place.clone(), line_of(text, item.span().start));
            values.push(self.convert(text, item.get_ref(), &place));
        }
        values
    }

    fn unfit(&mut self, path: &str, message: Message, help: Message) -> Value {
        self.findings.push(Diagnostic::new(path, message, help));
        Value::Null
    }

    /// A table's value, if there is one.
    pub(super) fn get(&self, table: &str, key: &str) -> Option<&Value> {
        self.value.get(table)?.get(key)
    }

    /// Whether a variable put this value.
    pub(super) fn is_from_environment(&self, table: &str, key: &str) -> bool {
        self.variables.contains_key(&join(table, key))
    }

    /// Puts a variable's value over the file's. Where the table is not a table, the file's mistake comes first.
    pub(super) fn put(&mut self, table: &str, key: &str, value: String, variable: &'static str) {
        let Some(root) = self.value.as_object_mut() else { return };
        let entry = root.entry(table).or_insert_with(|| Value::Object(Map::new()));
        if let Some(map) = entry.as_object_mut() {
            map.insert(key.to_owned(), Value::String(value));
            self.variables.insert(join(table, key), variable);
        }
    }

    /// The findings as mistakes with their places: in the file's order, the environment's last, each once.
    pub(super) fn mistakes(&self, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let mut placed: Vec<(usize, Diagnostic)> = findings
            .into_iter()
            .map(|finding| {
                let (line, place) = self.place(&finding.place);
                (line, Diagnostic { place, ..finding })
            })
            .collect();
        placed.sort_by_key(|(line, _)| *line);
        let mut mistakes: Vec<Diagnostic> = Vec::with_capacity(placed.len());
        for (_, mistake) in placed {
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
        mistakes
    }

    /// The place of a key path; its first part is for sorting.
    fn place(&self, path: &str) -> (usize, String) {
        if let Some(variable) = self.variables.get(path) {
            return (usize::MAX, say!("environment {variable}", variable).to_string());
        }
        let line = self.line(path);
        let mut place = one_line(&self.name);
        if let Some(line) = line {
            place.push_str(&format!(":{line}"));
        }
        if !path.is_empty() {
            place.push(' ');
            place.push_str(&one_line(path));
        }
        (line.unwrap_or(usize::MAX - 1), place)
    }

    /// The line of the key, or, where it is missing, of the nearest table around it.
    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.rsplit_once('.')?.0;
        }
    }
}

fn syntax_mistake(place: String, format: &str, message: &str) -> Diagnostic {
    Diagnostic {
        place,
        message: say!("not {format}: {message}", format, message = one_line(message)),
        help: say!("correct the syntax; the rest of the file was not looked at"),
    }
}

fn integer_value(integer: &DeInteger<'_>) -> Value {
    let (digits, radix) = (integer.as_str(), integer.radix());
    if let Ok(number) = i64::from_str_radix(digits, radix) {
        return Value::from(number);
    }
    match u64::from_str_radix(digits, radix) {
        Ok(number) => Value::from(number),
        // Beyond every limit of the pipeline file, so its exact digits do not matter.
        Err(_) => Value::from(if digits.starts_with('-') { f64::MIN } else { f64::MAX }),
    }
}

/// `source` and `page_size` → `source.page_size`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The text with line ends and other control characters escaped, so that a mistake stays one line.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}
