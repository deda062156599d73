//! Compiles `[record]` into a field map, and finds every mistake in it.

use indexmap::IndexMap;

use crate::error::Diagnostic;

use super::fields::{
    GROUP_FIELDS, GROUP_PREFIX, ID_FIELDS, PRODUCT_FIELDS, RAW_PREFIX, canonical_group_key,
    canonical_product_key, known, nearest,
};
use super::spec::{As, FieldSpec, FieldTable, RecordSpec, Shape};
use super::value::{begins_as_number, write_json_string, write_or, write_text, write_value};

/// The source fields that a pipeline names, each with its column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    paths: Vec<Vec<String>>,
}

impl Columns {
    fn column(&mut self, path: &str) -> usize {
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

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    GroupId,
    GroupParent,
    GroupLayer,
    GroupPath,
    GroupCell(usize),
    ProductId,
    ProductCell(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    From { source: Source, kind: Option<As>, default: String, name: String },
    Each(Vec<Field>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    /// `"name":`, ready to be written.
    pub(super) key: String,
    pub(super) value: Value,
}

/// The compiled field map: knows which source fields to keep and how to write a row from them.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMap {
    per_product: bool,
    pub(super) fields: Vec<Field>,
    id_field: String,
    /// Columns to keep of each group.
    pub group_columns: Columns,
    /// Columns to keep of each product; 0 is the id, 1 the name.
    pub product_columns: Columns,
    uses_products: bool,
    /// Fields of products that not every value fits.
    checks: Vec<Check>,
    fingerprint: String,
}

/// A field of a product that not every value fits: whatever comes can be written as it is, or as text.
#[derive(Debug, Clone, PartialEq)]
struct Check {
    source: Source,
    kind: As,
    name: String,
}

fn checks(fields: &[Field], per_product: bool) -> Vec<Check> {
    let inner = fields.iter().filter_map(|field| match &field.value {
        Value::Each(inner) => Some(inner),
        Value::From { .. } => None,
    });
    let of_products = fields.iter().filter(|_| per_product).chain(inner.flatten());
    let check = |field: &Field| match &field.value {
        Value::From {
            source: source @ (Source::ProductId | Source::ProductCell(_)),
            kind: Some(kind @ (As::Number | As::Integer | As::Boolean)),
            name,
            ..
        } => Some(Check { source: source.clone(), kind: *kind, name: name.clone() }),
        _ => None,
    };
    of_products.filter_map(check).collect()
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
        let per_product = shape == Shape::Products;
        let id = canonical_group_key(id_field);
        let number = canonical_group_key(number_field);
        let mut compiler = Compiler {
            id,
            groups: Columns::default(),
            products: Columns::default(),
            mistakes: Vec::new(),
            uses_products: per_product,
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
            compiler.mistake(path, "no field is given", "name at least the field that holds the row's id");
        }
        let fields = compiler.fields(specs, path, per_product, false);
        let id_key = fields.iter().find_map(|field| match &field.value {
            Value::From { source: Source::GroupId, .. } if !per_product => Some(field.key.clone()),
            Value::From { source: Source::ProductId, .. } if per_product => Some(field.key.clone()),
            _ => None,
        });
        let wanted = if per_product { "product_id" } else { id };
        if id_key.is_none() && compiler.mistakes.is_empty() {
            compiler.mistake(
                path,
                &format!("no field takes the row's id (source field \"{wanted}\")"),
                &format!("add a field such as id = \"{wanted}\": rows are told apart by it"),
            );
        }
        if !compiler.mistakes.is_empty() {
            return Err(compiler.mistakes);
        }
        let mut map = Self {
            per_product,
            checks: checks(&fields, per_product),
            fields,
            id_field: id_key.unwrap_or_default(),
            group_columns: compiler.groups,
            product_columns: compiler.products,
            uses_products: compiler.uses_products,
            fingerprint: String::new(),
        };
        map.fingerprint = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(format!("{map:?}").as_bytes()));
        Ok(map)
    }

    /// Whether rows need the products (else they are not read).
    pub fn uses_products(&self) -> bool {
        self.uses_products
    }

    /// Whether one row is one product, rather than one group.
    pub fn per_product(&self) -> bool {
        self.per_product
    }

    /// Changes when the map does.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The target field that holds the row's id.
    pub fn id_name(&self) -> String {
        serde_json::from_str(self.id_field.trim_end_matches(':')).unwrap_or_default()
    }

    /// Why a product does not fit its fields, found while its raw row is still at hand. `cell` gives its raw
    /// cells by column.
    pub fn product_misfit<'a>(&self, id: &str, cell: impl Fn(usize) -> &'a str) -> Option<String> {
        self.checks.iter().find_map(|Check { source, kind, name }| {
            let raw = match source {
                Source::ProductCell(column) => cell(*column),
                _ => id,
            };
            // Most values are what they should be at the first look.
            if *kind == As::Number && matches!(source, Source::ProductCell(_)) && begins_as_number(raw) {
                return None;
            }
            let mut out = Vec::new();
            let fits = match source {
                Source::ProductCell(_) => write_or(raw, "", Some(*kind), &mut out),
                _ => write_text(raw, Some(*kind), &mut out),
            };
            fits.err().map(|why| format!("field {name} of product {id}: {why}"))
        })
    }

    /// Writes the tombstone of a row: its id, and `"deleted": true`.
    pub fn write_tombstone(&self, id: &str, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(self.id_field.as_bytes());
        write_json_string(id, out);
        out.extend_from_slice(b",\"deleted\":true}");
    }
}

impl Compiler<'_> {
    fn mistake(&mut self, path: &str, what: &str, help: &str) {
        self.mistakes.push(Diagnostic::new(path, what, help));
    }

    fn check_metadata(&mut self, path: &str, name: &str) {
        if !known(name, GROUP_FIELDS) {
            self.unknown(path, name, GROUP_FIELDS, "a product group");
        }
    }

    fn unknown(&mut self, path: &str, name: &str, fields: &[&str], of: &str) {
        let near = nearest(name, fields.iter().copied()).unwrap_or("name");
        self.mistake(
            path,
            &format!("\"{name}\" is not a field of {of}"),
            &format!("did you mean \"{near}\"? Write \"raw.{name}\" if OKKI really sends it"),
        );
    }

    fn fields(
        &mut self,
        specs: &IndexMap<String, FieldSpec>,
        path: &str,
        product: bool,
        nested: bool,
    ) -> Vec<Field> {
        let mut fields = Vec::new();
        for (key, spec) in specs {
            let path = format!("{path}.{key}");
            let table = match spec {
                FieldSpec::Name(name) => FieldTable { from: Some(name.clone()), ..FieldTable::default() },
                FieldSpec::Table(table) => table.clone(),
            };
            if let Some(value) = self.value(&table, &path, product, nested) {
                let mut out = Vec::new();
                write_json_string(key, &mut out);
                out.push(b':');
                fields.push(Field { key: String::from_utf8(out).unwrap_or_default(), value });
            }
        }
        fields
    }

    fn value(&mut self, table: &FieldTable, path: &str, product: bool, nested: bool) -> Option<Value> {
        match (&table.from, &table.each) {
            (Some(_), Some(_)) => {
                self.mistake(path, "has both from and each", "use from for a value, each for a list");
                None
            }
            (None, None) => {
                self.mistake(path, "has neither from nor each", "add from = \"<source field>\"");
                None
            }
            (None, Some(each)) => self.each(each, table, path, product || nested),
            (Some(from), None) => self.from(from, table, path, product),
        }
    }

    fn each(&mut self, each: &str, table: &FieldTable, path: &str, inside_product: bool) -> Option<Value> {
        if inside_product {
            self.mistake(path, "each inside a product", "a product has no list; use from");
            return None;
        }
        if each != "products" {
            self.mistake(
                &format!("{path}.each"),
                &format!("\"{each}\" is not a list of a product group"),
                "write each = \"products\"",
            );
            return None;
        }
        if table.kind.is_some() || table.default.is_some() {
            self.mistake(path, "each takes no as and no default", "put them on the fields inside");
        }
        let Some(specs) = &table.fields else {
            self.mistake(path, "each without fields", "add fields = { id = \"product_id\", … }");
            return None;
        };
        self.uses_products = true;
        Some(Value::Each(self.fields(specs, &format!("{path}.fields"), true, true)))
    }

    fn from(&mut self, from: &str, table: &FieldTable, path: &str, product: bool) -> Option<Value> {
        if table.fields.is_some() {
            self.mistake(path, "fields without each", "add each = \"products\", or remove fields");
        }
        let name = from.trim().strip_prefix("{{").and_then(|n| n.strip_suffix("}}")).unwrap_or(from).trim();
        let at = format!("{path}.from");
        let source = if product { self.product_source(name, &at)? } else { self.group_source(name, &at)? };
        let plain = name.strip_prefix(GROUP_PREFIX).unwrap_or(name);
        let is_id = ID_FIELDS.contains(&canonical_product_key(canonical_group_key(plain)))
            || matches!(source, Source::GroupId);
        let kind = table.kind.or(is_id.then_some(As::String));
        let default = match &table.default {
            None | Some(serde_json::Value::Null) => "null".to_owned(),
            Some(value) => self.default(value, kind, path)?,
        };
        Some(Value::From { source, kind, default, name: name.to_owned() })
    }

    fn default(&mut self, value: &serde_json::Value, kind: Option<As>, path: &str) -> Option<String> {
        let raw = value.to_string();
        let mut out = Vec::new();
        match write_value(&raw, kind, &mut out) {
            Ok(()) => String::from_utf8(out).ok(),
            Err(why) => {
                self.mistake(&format!("{path}.default"), &why, "give a default of the field's own type");
                None
            }
        }
    }

    fn group_source(&mut self, name: &str, path: &str) -> Option<Source> {
        let name = canonical_group_key(name);
        if name == self.id {
            return Some(Source::GroupId);
        }
        match name {
            "parent_id" => return Some(Source::GroupParent),
            "layer" => return Some(Source::GroupLayer),
            "path" => return Some(Source::GroupPath),
            _ => {}
        }
        if name == "products" {
            self.mistake(path, "\"products\" is a list", "use { each = \"products\", fields = { … } }");
            return None;
        }
        match name.strip_prefix(RAW_PREFIX) {
            Some(raw) => Some(Source::GroupCell(self.groups.column(raw))),
            None if known(name, GROUP_FIELDS) => Some(Source::GroupCell(self.groups.column(name))),
            None => {
                self.unknown(path, name, GROUP_FIELDS, "a product group");
                None
            }
        }
    }

    fn product_source(&mut self, name: &str, path: &str) -> Option<Source> {
        if let Some(of_group) = name.strip_prefix(GROUP_PREFIX) {
            return self.group_source(of_group, path);
        }
        let name = canonical_product_key(name);
        match name.strip_prefix(RAW_PREFIX) {
            Some(raw) => Some(Source::ProductCell(self.products.column(raw))),
            None if name == "product_id" => Some(Source::ProductId),
            // The join is by id, so the group's own id is exact even where the product spells it otherwise.
            None if name == "group_id" => Some(Source::GroupId),
            None if known(name, PRODUCT_FIELDS) => Some(Source::ProductCell(self.products.column(name))),
            None => {
                self.unknown(path, name, PRODUCT_FIELDS, "a product");
                None
            }
        }
    }
}

fn shape_fields(shape: Shape, id: &str, number: &str) -> IndexMap<String, FieldSpec> {
    let field = |from: &str, kind| {
        FieldSpec::Table(FieldTable { from: Some(from.to_owned()), kind, ..FieldTable::default() })
    };
    let named = |list: Vec<(&str, FieldSpec)>| {
        list.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<IndexMap<_, _>>()
    };
    let item = vec![
        ("id", field("product_id", Some(As::String))),
        ("name", field("name", Some(As::String))),
        ("cost", field("cost", Some(As::Number))),
    ];
    match shape {
        Shape::Groups => named(vec![
            ("productGroupId", field(id, Some(As::String))),
            ("productName", field(number, Some(As::String))),
        ]),
        Shape::GroupsWithItems => named(vec![
            ("id", field(id, Some(As::String))),
            ("name", field(number, Some(As::String))),
            (
                "items",
                FieldSpec::Table(FieldTable {
                    each: Some("products".to_owned()),
                    fields: Some(named(item)),
                    ..FieldTable::default()
                }),
            ),
        ]),
        Shape::Products => {
            let mut fields = named(item);
            fields.insert("groupId".to_owned(), field(&format!("group.{id}"), Some(As::String)));
            fields.insert("groupName".to_owned(), field(&format!("group.{number}"), Some(As::String)));
            fields
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
