//! The compiled field map: which source fields to keep, and how a row is written from them.

use std::collections::HashMap;

use serde_json::Value;

use super::guards::ValueGuards;
use super::spec::As;
use super::value::{begins_as_number, write_json_string, write_or, write_text};

use crate::words::written;

/// What one row at the target stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum RowUnit {
    #[default]
    Group,
    Product,
}

/// The source fields that a pipeline names, each with its column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    paths: Vec<Vec<String>>,
}

impl Columns {
    pub(super) fn column(&mut self, path: &str) -> usize {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if let Some(at) = self.paths.iter().position(|known| *known == path) {
            return at;
        }
        self.paths.push(path);
        self.paths.len() - 1
    }

    /// Columns of these paths, in this order.
    #[cfg(any(test, feature = "testing"))]
    pub fn naming<const N: usize>(paths: [&str; N]) -> Self {
        let mut columns = Self::default();
        for path in paths {
            columns.column(path);
        }
        columns
    }

    /// The cells of a row as a JSON object with the keys that OKKI sends; fields that it did not send are left out.
    /// `first` come before them.
    pub(crate) fn as_object(&self, first: &[(&str, &str)], cells: &[&str]) -> String {
        let mut fields: Vec<(&[String], &str)> = Vec::new();
        for (path, cell) in self.paths.iter().zip(cells) {
            let is_first =
                path.len() == 1 && first.iter().any(|(key, _)| path.first().is_some_and(|of| of == key));
            if !cell.is_empty() && !is_first {
                fields.push((path, cell));
            }
        }
        let mut parts: Vec<String> = first
            .iter()
            .map(|(key, value)| {
                format!("{}:{}", serde_json::Value::from(*key), serde_json::Value::from(*value))
            })
            .collect();
        parts.extend(object_parts(&fields));
        format!("{{{}}}", parts.join(","))
    }

    /// The columns' fields, as a pipeline names them.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.paths.iter().map(|path| path.join("."))
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// The columns whose path starts with this key, each with the rest of its path.
    pub fn starting_with<'m>(&'m self, key: &str) -> impl Iterator<Item = (usize, &'m [String])> {
        self.paths.iter().enumerate().filter_map(move |(column, path)| match path.split_first() {
            Some((first, rest)) if first == key => Some((column, rest)),
            _ => None,
        })
    }
}

/// `"fob":{"price_min":1}` and the like: fields whose paths begin alike are one object.
fn object_parts(fields: &[(&[String], &str)]) -> Vec<String> {
    let mut keys: Vec<&str> = Vec::new();
    for key in fields.iter().filter_map(|(path, _)| path.first()) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let part = |key: &str| {
        let inner = fields.iter().filter_map(|(path, cell)| match path.split_first() {
            Some((first, rest)) if first == key => Some((rest, *cell)),
            _ => None,
        });
        let inner: Vec<(&[String], &str)> = inner.collect();
        // A field that is named whole holds what is named inside it.
        let whole = inner.iter().find(|(rest, _)| rest.is_empty());
        let value = whole.map_or_else(
            || format!("{{{}}}", object_parts(&inner).join(",")),
            |(_, cell)| (*cell).to_owned(),
        );
        format!("{}:{value}", serde_json::Value::from(key))
    };
    keys.into_iter().map(part).collect()
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldSource {
    GroupId,
    GroupParent,
    GroupLayer,
    GroupPath,
    GroupCell(usize),
    ProductId,
    ProductCell(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum FieldValue {
    From { source: FieldSource, kind: Option<As>, default: String, name: String },
    Each(Vec<Field>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    /// `"name":`, ready to be written.
    pub(super) key: String,
    pub(super) value: FieldValue,
}

/// The compiled field map: knows which source fields to keep and how to write a row from them.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMap {
    pub(super) unit: RowUnit,
    pub(super) fields: Vec<Field>,
    pub(super) id_key: String,
    /// The target field that holds the row's name, if one does.
    pub(super) name_key: Option<String>,
    /// Columns to keep of each group.
    pub group_columns: Columns,
    /// Columns to keep of each product; 0 is the id, 1 the name.
    pub product_columns: Columns,
    pub(super) uses_products: bool,
    /// Fields of products that not every value fits.
    pub(super) checks: Vec<Check>,
    pub(super) fingerprint: String,
    /// What holds rows back. What was read does not depend on it.
    pub(super) guards: ValueGuards,
}

/// A field of a product that not every value fits: whatever comes can be written as it is, or as text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Check {
    source: FieldSource,
    kind: As,
    name: String,
}

pub(super) fn checks(fields: &[Field], unit: RowUnit) -> Vec<Check> {
    let inner = fields.iter().filter_map(|field| match &field.value {
        FieldValue::Each(inner) => Some(inner),
        FieldValue::From { .. } => None,
    });
    let of_products = fields.iter().filter(|_| unit == RowUnit::Product).chain(inner.flatten());
    let check = |field: &Field| match &field.value {
        FieldValue::From {
            source: source @ (FieldSource::ProductId | FieldSource::ProductCell(_)),
            kind: Some(kind @ (As::Number | As::Integer | As::Boolean)),
            name,
            ..
        } => Some(Check { source: source.clone(), kind: *kind, name: name.clone() }),
        _ => None,
    };
    of_products.filter_map(check).collect()
}

impl RowMap {
    /// Whether rows need the products (else they are not read).
    pub fn uses_products(&self) -> bool {
        self.uses_products
    }

    /// Whether a value guard compares rows with what the target has acknowledged.
    pub(crate) fn asks_former(&self) -> bool {
        self.guards.asks_former()
    }

    /// What one row stands for.
    pub(crate) fn unit(&self) -> RowUnit {
        self.unit
    }

    /// Names what cached products depend on: another map has another fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Computed from the text that version 0.1.0 hashed, so that the products it cached stay valid.
    pub(super) fn compute_fingerprint(&self) -> String {
        #[derive(Debug)]
        #[expect(dead_code, reason = "read through Debug")]
        struct RowMap<'a> {
            per_product: bool,
            fields: &'a [Field],
            id_field: &'a str,
            group_columns: &'a Columns,
            product_columns: &'a Columns,
            uses_products: bool,
            checks: &'a [Check],
            fingerprint: &'a str,
        }
        let as_in_0_1_0 = RowMap {
            per_product: self.unit == RowUnit::Product,
            fields: &self.fields,
            id_field: &self.id_key,
            group_columns: &self.group_columns,
            product_columns: &self.product_columns,
            uses_products: self.uses_products,
            checks: &self.checks,
            fingerprint: "",
        };
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{as_in_0_1_0:?}").as_bytes()))
    }

    /// The target field that holds the row's id.
    pub fn id_name(&self) -> String {
        serde_json::from_str(self.id_key.trim_end_matches(':')).unwrap_or_default()
    }

    /// The name in a finished row, if it has one.
    pub(crate) fn name_in(&self, row: &str) -> Option<String> {
        let mut fields: HashMap<String, Value> = serde_json::from_str(row).ok()?;
        match fields.remove(self.name_key.as_ref()?)? {
            Value::String(name) => Some(name),
            _ => None,
        }
    }

    /// Why a product does not fit its fields, found while its raw row is still at hand. `cell` gives its raw
    /// cells by column.
    pub fn product_misfit<'a>(&self, id: &str, cell: impl Fn(usize) -> &'a str) -> Option<String> {
        self.checks.iter().find_map(|Check { source, kind, name }| {
            let raw = match source {
                FieldSource::ProductCell(column) => cell(*column),
                _ => id,
            };
            // Most values are what they should be at the first look.
            if *kind == As::Number && matches!(source, FieldSource::ProductCell(_)) && begins_as_number(raw) {
                return None;
            }
            let mut out = Vec::new();
            let fits = match source {
                FieldSource::ProductCell(_) => write_or(raw, "", Some(*kind), &mut out),
                _ => write_text(raw, Some(*kind), &mut out),
            };
            fits.err().map(|why| written!("field {name} of product {id}: {why}", name, id, why))
        })
    }

    /// Writes the tombstone of a row: its id, and `"deleted": true`.
    pub fn write_tombstone(&self, id: &str, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(self.id_key.as_bytes());
        write_json_string(id, out);
        out.extend_from_slice(b",\"deleted\":true}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transform::RecordSpec;

    fn fingerprint(record: &str) -> String {
        let spec: RecordSpec = toml::from_str(record).unwrap();
        RowMap::compile(&spec, "id", "name").unwrap().fingerprint().to_owned()
    }

    /// The keys of products that 0.1.0 cached, taken from files that it wrote.
    #[test]
    fn products_that_version_0_1_0_cached_stay_valid() {
        let own = r#"
            [fields]
            productGroupId = "id"
            productName    = "name"
            parent         = { from = "parent_id", as = "string" }
            path           = "path"
            items          = { each = "products", fields = { id = "product_id", name = "name", cost = { from = "cost", as = "number", default = 0 }, low = "fob.price_min" } }
        "#;
        let mixed = r#"
            shape = "products"
            [fields]
            sku = { from = "product_id", as = "integer" }
            title = "name"
            group = "group.path"
            active = { from = "enable_flag", as = "boolean", default = true }
        "#;
        assert_eq!(fingerprint(""), "abb776ce37c4f8f7fb8fdb324e794ea5");
        assert_eq!(fingerprint("shape = \"products\""), "c5bc64a0bfa1cd34ab2bc391c1f56601");
        assert_eq!(fingerprint(own), "1670e79d5a33ac72e2417601637e3b58");
        assert_eq!(fingerprint(mixed), "e5940b986a5eff720fa2ba44e9d0cf80");
    }
}
