//! Holds a value against the JSON Schema of the pipeline file. The schema is derived from the types, so what
//! the types say, what `okki-sync schema` prints and what is checked here cannot diverge.
//!
//! Messages name keys and allowed values, never the value that was found unless it is a number or close to an
//! allowed one: somebody may have pasted a credential into the wrong line.

use serde_json::{Map, Value};

use super::file::one_line;
use super::type_words::{list, type_text, value_text};
use super::types::CONNECTION_PATTERN;
use super::url_mistake;
use crate::error::Diagnostic;
use crate::words::{Message, say};

type Schema = Map<String, Value>;

/// What was found, and the key paths of the values that do not fit.
#[derive(Debug, Default)]
pub(super) struct SchemaCheck {
    pub(super) findings: Vec<Diagnostic>,
    pub(super) offenders: Vec<Vec<String>>,
}

/// All the places where the value does not fit the schema.
pub(super) fn check(schema: &Value, value: &Value) -> SchemaCheck {
    let mut walker =
        Walker { root: schema, keys: Vec::new(), example: None, outcome: SchemaCheck::default() };
    walker.visit(schema, value);
    walker.outcome
}

struct Walker<'s> {
    root: &'s Value,
    keys: Vec<String>,
    /// The default of the key at hand: what the help can offer.
    example: Option<&'s Value>,
    outcome: SchemaCheck,
}

impl<'s> Walker<'s> {
    fn visit(&mut self, schema: &'s Value, value: &Value) {
        // `true` accepts anything.
        let Value::Object(schema) = schema else { return };
        if let Some(target) = schema.get("$ref") {
            if let Some(target) = self.resolve(target) {
                self.visit(target, value);
            }
            return;
        }
        if let Some(Value::Array(branches)) = schema.get("anyOf") {
            return self.visit_any(branches, value);
        }
        let allowed = allowed_values(schema);
        if !allowed.is_empty() {
            return self.one_of(schema, &allowed, value);
        }
        let types = type_names(schema);
        if !types.is_empty() && !types.iter().any(|name| has_type(value, name)) {
            return self.wrong_type(&types, value);
        }
        match value {
            Value::Object(map) => self.object(schema, map),
            Value::Array(list) => self.array(schema, list),
            Value::String(text) => self.string(schema, text),
            Value::Number(_) => self.number(schema, value),
            _ => {}
        }
    }

    /// Looks into the branch for the value's type. Not for unions whose branches share a type.
    fn visit_any(&mut self, branches: &'s [Value], value: &Value) {
        let mut names = Vec::new();
        for branch in branches {
            let found = self.types_of(branch);
            if found.is_empty() || found.iter().any(|name| has_type(value, name)) {
                return self.visit(branch, value);
            }
            names.extend(found);
        }
        self.wrong_type(&names, value);
    }

    fn types_of(&self, schema: &'s Value) -> Vec<&'s str> {
        let schema = match schema.get("$ref") {
            Some(target) => self.resolve(target).unwrap_or(schema),
            None => schema,
        };
        let Value::Object(schema) = schema else { return Vec::new() };
        if allowed_values(schema).is_empty() { type_names(schema) } else { vec!["string"] }
    }

    fn resolve(&self, target: &Value) -> Option<&'s Value> {
        self.root.pointer(target.as_str()?.strip_prefix('#')?)
    }

    fn object(&mut self, schema: &'s Schema, map: &Map<String, Value>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (key, value) in map {
            let inner = properties.and_then(|properties| properties.get(key));
            self.keys.push(key.clone());
            match (inner, others) {
                (Some(inner), _) => self.property(inner, value),
                (None, Some(Value::Bool(false))) => self.unknown_key(key, properties),
                (None, Some(others)) => self.property(others, value),
                (None, None) => {}
            }
            self.keys.pop();
        }
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !map.contains_key(name) {
                self.keys.push(name.to_owned());
                let help = properties.and_then(|known| known.get(name)).map(|schema| self.wanted(schema));
                let help = help.unwrap_or_else(|| say!("it"));
                self.add(say!("is missing"), say!("add {help}", help));
                self.keys.pop();
            }
        }
    }

    /// The elements of a list, each by its place: `values[0]`.
    fn array(&mut self, schema: &'s Schema, list: &[Value]) {
        let Some(items) = schema.get("items") else { return };
        let Some(name) = self.keys.pop() else { return };
        for (at, value) in list.iter().enumerate() {
            self.keys.push(format!("{name}[{at}]"));
            self.property(items, value);
            self.keys.pop();
        }
        self.keys.push(name);
    }

    fn property(&mut self, schema: &'s Value, value: &Value) {
        let outer =
            std::mem::replace(&mut self.example, schema.get("default").filter(|value| !value.is_null()));
        self.visit(schema, value);
        self.example = outer;
    }

    /// What a missing key wants.
    fn wanted(&self, schema: &'s Value) -> Message {
        let schema = schema.get("$ref").and_then(|target| self.resolve(target)).unwrap_or(schema);
        let Value::Object(schema) = schema else { return say!("it") };
        let allowed = allowed_values(schema);
        if !allowed.is_empty() {
            return say!("one of {allowed}", allowed = list(&allowed));
        }
        let keys: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if keys.is_empty() {
            say!("it")
        } else {
            say!("the table, with at least {keys}", keys = keys.join(", "))
        }
    }

    fn unknown_key(&mut self, key: &str, known: Option<&Schema>) {
        let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let help = if let Some(home) = self.home_of(key) {
            home
        } else if let Some(name) = nearest(key, &names) {
            say!("did you mean {near}?", near = name)
        } else {
            say!("remove it; known here: {names}", names = names.join(", "))
        };
        self.add(say!("unknown key {key}", key = one_line(key)), help);
    }

    /// Where a key of the wrong table belongs.
    fn home_of(&self, key: &str) -> Option<Message> {
        let sections = self.root.get("properties")?.as_object()?;
        if sections.contains_key(key) {
            return Some(say!("move it out of this table, to the top of the file"));
        }
        let (table, _) = sections.iter().find(|(_, schema)| {
            let section = schema.get("$ref").and_then(|target| self.resolve(target));
            section.and_then(|section| section.get("properties")?.get(key)).is_some()
        })?;
        Some(say!("it belongs in [{table}]", table))
    }

    fn wrong_type(&mut self, names: &[&str], value: &Value) {
        let types = names.iter().filter(|name| **name != "null").map(|name| type_text(name));
        let wanted =
            types.reduce(|one, other| say!("{one} or {other}", one, other)).unwrap_or_else(|| say!("null"));
        let quoted = value.as_str().is_some_and(|text| {
            serde_json::from_str::<Value>(text)
                .is_ok_and(|inner| !inner.is_string() && names.iter().any(|name| has_type(&inner, name)))
        });
        let help = match self.example {
            _ if quoted => say!("write it without the quotes"),
            Some(example) if !example.is_object() => {
                say!("write {wanted}, for example {example}", wanted, example)
            }
            _ => say!("write {wanted}", wanted),
        };
        self.add(say!("is {value}, not {wanted}", value = value_text(value), wanted), help);
    }

    fn one_of(&mut self, schema: &Schema, allowed: &[&'s Value], value: &Value) {
        if allowed.contains(&value) {
            return;
        }
        let Value::String(text) = value else { return self.wrong_type(&["string"], value) };
        let names: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
        let near = nearest(text, &names);
        let what = match (schema.get("$comment").and_then(Value::as_str), near) {
            (Some(comment), _) => Message::from(comment),
            (None, Some(_)) => {
                say!("{text} is not one of {allowed}", text = format!("{:?}", text), allowed = list(allowed))
            }
            (None, None) => say!("is not one of {allowed}", allowed = list(allowed)),
        };
        let help = match (allowed, near) {
            ([only], _) => say!("write {only}, or leave the key out", only),
            (_, Some(near)) => say!("did you mean {near}?", near = format!("{near:?}")),
            _ => say!("write one of them"),
        };
        self.add(what, help);
    }

    fn string(&mut self, schema: &Schema, text: &str) {
        let shortest = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0);
        if shortest > 0 && text.trim().is_empty() {
            return self.add(say!("is empty"), say!("fill it in"));
        }
        if schema.get("pattern").and_then(Value::as_str) == Some(CONNECTION_PATTERN)
            && !super::is_connection_name(text)
        {
            self.add(say!("is not a connection name"), say!("use 1 to 64 characters of a-z, 0-9 and -"));
        }
        match schema.get("format").and_then(Value::as_str) {
            Some("uri") => {
                // A file may stand for the source: its groups bring their products along.
                let is_source_file = self.keys.join(".") == "source.base_url" && text.starts_with("file:///");
                if let Some((what, help)) = url_mistake(text).filter(|_| !is_source_file) {
                    self.add(what, help);
                }
            }
            Some(format) => {
                if let Some((what, help)) = super::formats::mistake(format, text) {
                    self.add(what, help);
                }
            }
            None => {}
        }
    }

    fn number(&mut self, schema: &Schema, value: &Value) {
        let Some(number) = value.as_f64() else { return };
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (above, least, most) = (limit("exclusiveMinimum"), limit("minimum"), limit("maximum"));
        let fits = above.is_none_or(|above| number > above)
            && least.is_none_or(|least| number >= least)
            && most.is_none_or(|most| number <= most);
        if fits {
            return;
        }
        let range = match (above, least, most) {
            (Some(above), _, Some(most)) => say!("more than {above} and at most {most}", above, most),
            (None, Some(least), Some(most)) => say!("from {least} to {most}", least, most),
            (None, Some(least), None) => say!("of {least} or more", least),
            _ => say!("within its limits"),
        };
        self.add(say!("{value} is out of range", value), say!("write a number {range}", range));
    }

    fn add(&mut self, what: impl Into<Message>, help: impl Into<Message>) {
        self.outcome.findings.push(Diagnostic::new(self.keys.join("."), what, help));
        self.outcome.offenders.push(self.keys.clone());
    }
}

/// The values of an enumeration: `enum`, `const`, or a `oneOf` of them; empty if it is not an enumeration.
fn allowed_values(schema: &Schema) -> Vec<&Value> {
    if let Some(value) = schema.get("const") {
        return vec![value];
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().collect();
    }
    let variants = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    variants.filter_map(Value::as_object).flat_map(allowed_values).collect()
}

fn type_names(schema: &Schema) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// The known name that somebody most likely meant.
pub(super) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    const ALIKE: f64 = 0.6;
    let lower = name.to_lowercase();
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&lower, &known.to_lowercase());
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(*best)
}
