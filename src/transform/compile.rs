//! Compiles `[record]` into a field map, and finds every mistake in it.

use indexmap::IndexMap;

use super::fields::{
    GROUP_FIELDS, GROUP_PREFIX, ID_FIELDS, PRODUCT_FIELDS, RAW_PREFIX, canonical_group_key,
    canonical_product_key, known, nearest,
};
use super::guards::ValueGuards;
use super::map::{Columns, Field, FieldSource, FieldValue, RowMap, RowUnit, checks};
use super::shapes::shape_fields;
use super::spec::{As, FieldSpec, FieldTable, RecordSpec, Shape};
use super::value::{write_json_string, write_value};
use crate::error::Diagnostic;
use crate::words::{Message, say};

/// Where fields are compiled: it decides what their names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Fields of a row that is a group.
    Group,
    /// Fields of a row that is a product.
    Product,
    /// Fields of a product inside a group's row.
    Item,
}

impl From<RowUnit> for Scope {
    fn from(unit: RowUnit) -> Self {
        match unit {
            RowUnit::Group => Self::Group,
            RowUnit::Product => Self::Product,
        }
    }
}

struct Compiler<'a> {
    id: &'a str,
    groups: Columns,
    products: Columns,
    mistakes: Vec<Diagnostic>,
    uses_products: bool,
}

impl RowMap {
    /// Compiles `[record]`. `id_field` and `number_field` are the source metadata's `id` and `number`.
    pub fn compile(spec: &RecordSpec, id_field: &str, number_field: &str) -> Result<Self, Vec<Diagnostic>> {
        let shape =
            spec.shape.unwrap_or(if spec.fields.is_some() { Shape::Groups } else { Shape::GroupsWithItems });
        let unit = if shape == Shape::Products { RowUnit::Product } else { RowUnit::Group };
        let id = canonical_group_key(id_field);
        let number = canonical_group_key(number_field);
        let mut compiler = Compiler {
            id,
            groups: Columns::default(),
            products: Columns::default(),
            mistakes: Vec::new(),
            uses_products: unit == RowUnit::Product,
        };
        compiler.check_metadata("source.id", id);
        compiler.check_metadata("source.number", number);
        compiler.products.column("product_id");
        compiler.products.column("name");

        let built_in;
        let (specs, path) = match &spec.fields {
            Some(fields) => (fields, "record.fields"),
            None => {
                built_in = shape_fields(shape, id, number);
                (&built_in, "record.shape")
            }
        };
        if specs.is_empty() {
            compiler.mistake(
                path,
                say!("no field is given"),
                say!("name at least the field that holds the row's id"),
            );
        }
        let fields = compiler.fields(specs, path, unit.into());
        let id_key = fields.iter().find_map(|field| match &field.value {
            FieldValue::From { source: FieldSource::GroupId, .. } if unit == RowUnit::Group => {
                Some(field.key.clone())
            }
            FieldValue::From { source: FieldSource::ProductId, .. } if unit == RowUnit::Product => {
                Some(field.key.clone())
            }
            _ => None,
        });
        let name_key = name_key(specs, unit, number);
        let wanted = if unit == RowUnit::Product { "product_id" } else { id };
        if id_key.is_none() && compiler.mistakes.is_empty() {
            compiler.mistake(
                path,
                say!("no field takes the row's id (source field \"{wanted}\")", wanted),
                say!("add a field such as id = \"{wanted}\": rows are told apart by it", wanted),
            );
        }
        if !compiler.mistakes.is_empty() {
            return Err(compiler.mistakes);
        }
        let mut map = Self {
            unit,
            checks: checks(&fields, unit),
            fields,
            id_key: id_key.unwrap_or_default(),
            name_key,
            group_columns: compiler.groups,
            product_columns: compiler.products,
            uses_products: compiler.uses_products,
            fingerprint: String::new(),
            guards: ValueGuards::default(),
        };
        map.fingerprint = map.compute_fingerprint();
        Ok(map)
    }
}

/// The target field that takes the row's name.
fn name_key(specs: &IndexMap<String, FieldSpec>, unit: RowUnit, number: &str) -> Option<String> {
    let (key, _) = specs.iter().find(|(_, spec)| {
        let from = match spec {
            FieldSpec::Name(name) => Some(name),
            FieldSpec::Table(table) => table.from.as_ref(),
        };
        from.is_some_and(|from| match unit {
            RowUnit::Group => canonical_group_key(from) == number,
            RowUnit::Product => canonical_product_key(from) == "name",
        })
    })?;
    Some(key.clone())
}

impl Compiler<'_> {
    fn mistake(&mut self, path: &str, what: Message, help: Message) {
        self.mistakes.push(Diagnostic::new(path, what, help));
    }

    fn check_metadata(&mut self, path: &str, name: &str) {
        if !known(name, GROUP_FIELDS) {
            self.unknown(path, name, GROUP_FIELDS, say!("a product group"));
        }
    }

    fn unknown(&mut self, path: &str, name: &str, fields: &[&str], of: Message) {
        let near = nearest(name, fields.iter().copied()).unwrap_or("name");
        self.mistake(
            path,
            say!("\"{name}\" is not a field of {of}", name, of),
            say!("did you mean \"{near}\"? Write \"raw.{name}\" if OKKI really sends it", near, name),
        );
    }

    fn fields(&mut self, specs: &IndexMap<String, FieldSpec>, path: &str, scope: Scope) -> Vec<Field> {
        let mut fields = Vec::new();
        for (key, spec) in specs {
            let path = format!("{path}.{key}");
            let table = match spec {
                FieldSpec::Name(name) => FieldTable { from: Some(name.clone()), ..FieldTable::default() },
                FieldSpec::Table(table) => table.clone(),
            };
            if let Some(value) = self.value(&table, &path, scope) {
                let mut out = Vec::new();
                write_json_string(key, &mut out);
                out.push(b':');
                fields.push(Field { key: String::from_utf8(out).unwrap_or_default(), value });
            }
        }
        fields
    }

    fn value(&mut self, table: &FieldTable, path: &str, scope: Scope) -> Option<FieldValue> {
        match (&table.from, &table.each) {
            (Some(_), Some(_)) => {
                self.mistake(
                    path,
                    say!("has both from and each"),
                    say!("use from for a value, each for a list"),
                );
                None
            }
            (None, None) => {
                self.mistake(path, say!("has neither from nor each"), say!("add from = \"<source field>\""));
                None
            }
            (None, Some(each)) => self.each(each, table, path, scope),
            (Some(from), None) => self.from(from, table, path, scope),
        }
    }

    fn each(&mut self, each: &str, table: &FieldTable, path: &str, scope: Scope) -> Option<FieldValue> {
        if scope != Scope::Group {
            self.mistake(path, say!("each inside a product"), say!("a product has no list; use from"));
            return None;
        }
        if each != "products" {
            self.mistake(
                &format!("{path}.each"),
                say!("\"{each}\" is not a list of a product group", each),
                say!("write each = \"products\""),
            );
            return None;
        }
        if table.kind.is_some() || table.default.is_some() {
            self.mistake(
                path,
                say!("each takes no as and no default"),
                say!("put them on the fields inside"),
            );
        }
        let Some(specs) = &table.fields else {
            self.mistake(path, say!("each without fields"), say!("add fields = { id = \"product_id\", … }"));
            return None;
        };
        self.uses_products = true;
        Some(FieldValue::Each(self.fields(specs, &format!("{path}.fields"), Scope::Item)))
    }

    fn from(&mut self, from: &str, table: &FieldTable, path: &str, scope: Scope) -> Option<FieldValue> {
        if table.fields.is_some() {
            self.mistake(
                path,
                say!("fields without each"),
                say!("add each = \"products\", or remove fields"),
            );
        }
        let name = from.trim().strip_prefix("{{").and_then(|n| n.strip_suffix("}}")).unwrap_or(from).trim();
        let at = format!("{path}.from");
        let source = match scope {
            Scope::Group => self.group_source(name, &at)?,
            Scope::Product | Scope::Item => self.product_source(name, &at)?,
        };
        let plain = name.strip_prefix(GROUP_PREFIX).unwrap_or(name);
        let is_id = ID_FIELDS.contains(&canonical_product_key(canonical_group_key(plain)))
            || matches!(source, FieldSource::GroupId);
        let kind = table.kind.or(is_id.then_some(As::String));
        let default = match &table.default {
            None | Some(serde_json::Value::Null) => "null".to_owned(),
            Some(value) => self.default(value, kind, path)?,
        };
        Some(FieldValue::From { source, kind, default, name: name.to_owned() })
    }

    fn default(&mut self, value: &serde_json::Value, kind: Option<As>, path: &str) -> Option<String> {
        let raw = value.to_string();
        let mut out = Vec::new();
        match write_value(&raw, kind, &mut out) {
            Ok(()) => String::from_utf8(out).ok(),
            Err(why) => {
                self.mistake(
                    &format!("{path}.default"),
                    why.into(),
                    say!("give a default of the field's own type"),
                );
                None
            }
        }
    }

    fn group_source(&mut self, name: &str, path: &str) -> Option<FieldSource> {
        let name = canonical_group_key(name);
        if name == self.id {
            return Some(FieldSource::GroupId);
        }
        match name {
            "parent_id" => return Some(FieldSource::GroupParent),
            "layer" => return Some(FieldSource::GroupLayer),
            "path" => return Some(FieldSource::GroupPath),
            _ => {}
        }
        if name == "products" {
            self.mistake(
                path,
                say!("\"products\" is a list"),
                say!("use { each = \"products\", fields = { … } }"),
            );
            return None;
        }
        match name.strip_prefix(RAW_PREFIX) {
            Some(raw) => Some(FieldSource::GroupCell(self.groups.column(raw))),
            None if known(name, GROUP_FIELDS) => Some(FieldSource::GroupCell(self.groups.column(name))),
            None => {
                self.unknown(path, name, GROUP_FIELDS, say!("a product group"));
                None
            }
        }
    }

    fn product_source(&mut self, name: &str, path: &str) -> Option<FieldSource> {
        if let Some(of_group) = name.strip_prefix(GROUP_PREFIX) {
            return self.group_source(of_group, path);
        }
        let name = canonical_product_key(name);
        match name.strip_prefix(RAW_PREFIX) {
            Some(raw) => Some(FieldSource::ProductCell(self.products.column(raw))),
            None if name == "product_id" => Some(FieldSource::ProductId),
            // The join is by id, so the group's own id is exact even where the product spells it otherwise.
            None if name == "group_id" => Some(FieldSource::GroupId),
            None if known(name, PRODUCT_FIELDS) => Some(FieldSource::ProductCell(self.products.column(name))),
            None => {
                self.unknown(path, name, PRODUCT_FIELDS, say!("a product"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unknown_field_names_the_nearest_and_a_map_without_id_is_refused() {
        let spec = |toml: &str| toml::from_str::<RecordSpec>(toml).unwrap();
        let unknown = spec(
            "fields = { id = \"id\", n = \"nmae\", items = { each = \"products\", fields = { c = \"costs\" } } }",
        );
        let mistakes = RowMap::compile(&unknown, "id", "name").unwrap_err();
        let told: Vec<_> =
            mistakes.iter().map(|m| format!("{}: {}; {}", m.place, m.message, m.help)).collect();
        assert_eq!(
            told,
            [
                "record.fields.n.from: \"nmae\" is not a field of a product group; did you mean \"name\"? Write \"raw.nmae\" if OKKI really sends it",
                "record.fields.items.fields.c.from: \"costs\" is not a field of a product; did you mean \"cost\"? Write \"raw.costs\" if OKKI really sends it",
            ]
        );
        let mistakes = RowMap::compile(&spec("fields = { n = \"name\" }"), "id", "name").unwrap_err();
        assert!(mistakes.first().unwrap().message.contains("no field takes the row's id"));
    }
}
