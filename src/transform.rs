//! Source rows → target rows, by a field map that is compiled once when the pipeline is loaded.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Catalogue, PRODUCT_ID_COLUMN};

/// `[record]`: what one row at the target looks like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordSpec {
    /// What one row is and, without `fields`, which fields it has. Default: `groups-with-items`; with own fields: one row per group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Own fields: target field = source field, or a table. They replace the shape's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<IndexMap<String, FieldSpec>>,
}

/// The three built-in shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// `{"productGroupId": "123", "productName": "电子产品"}`, one row per group.
    Groups,
    /// `{"id": "123", "name": "电子产品", "items": [{"id": "001", "name": "手机", "cost": 2999}]}`, one row per group.
    GroupsWithItems,
    /// `{"id": "001", "name": "手机", "cost": 2999, "groupId": "123", "groupName": "电子产品"}`, one row per product.
    Products,
}

/// Where a target field comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldSpec {
    /// The source field's name, for example `name` or `fob.price_min`. `{{name}}` means the same.
    Name(String),
    /// The source field with a type and a default, or a list of products.
    Table(FieldTable),
}

/// A target field in full: either `from` (with `as`, `default`) or `each` (with `fields`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldTable {
    /// The source field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The type at the target; without it the value goes as the source sent it.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub kind: Option<As>,
    /// What stands for a value that is missing or null; without it, null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// A list with one entry per product of the group: `products`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// The fields of such an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<IndexMap<String, FieldSpec>>,
}

/// The type of a target field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// A JSON string.
    String,
    /// A JSON number with the digits that the source sent.
    Number,
    /// A JSON number without a fraction.
    Integer,
    /// `true` or `false`; 1 and 0 are accepted.
    Boolean,
}

/// A mistake in `[record]`: where, what, and the mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, for example `record.fields.cost.from`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub mend: String,
}

/// Fields of a product group that OKKI documents, and those that we add from the tree (`layer`, `path`).
pub const GROUP_FIELDS: &[&str] = &[
    "id",
    "parent_id",
    "layer",
    "path",
    "prefix",
    "name",
    "name_info",
    "name_info.info_label",
    "name_info.info_value",
    "client_id",
    "user_id",
    "create_user",
    "create_time",
    "update_time",
    "description",
    "order_rank",
    "relate_id",
    "system_flag",
    "is_sys",
    "rank",
];

/// Fields of a product that OKKI documents.
pub const PRODUCT_FIELDS: &[&str] = &[
    "product_id",
    "product_no",
    "name",
    "cn_name",
    "group_id",
    "group_name",
    "cost",
    "cost_currency",
    "cost_with_tax",
    "cost_unit",
    "fob",
    "fob.price_currency",
    "fob.price_min",
    "fob.price_max",
    "fob.price_unit",
    "enable_flag",
    "disable_flag",
    "model",
    "unit",
    "image",
    "images",
    "category_ids",
    "info_json",
    "product_type",
    "description",
    "product_remark",
    "hs_code",
    "sku_id",
    "client_id",
    "user_id",
    "create_user",
    "create_time",
    "update_time",
    "update_user",
    "quantity_per_package",
    "package_unit",
    "package_volume",
    "package_gross_weight",
    "minimum_order_quantity",
    "tax_refund_rate",
];

/// The names of the document's sample, and what OKKI calls the same.
const GROUP_ALIASES: &[(&str, &str)] = &[("groupId", "id"), ("groupName", "name")];
const PRODUCT_ALIASES: &[(&str, &str)] =
    &[("productId", "product_id"), ("productName", "name"), ("price", "cost")];

/// Prefix for a source field that OKKI sends but does not document.
const RAW_PREFIX: &str = "raw.";
/// Prefix for a field of the product's group, in a product's row.
const GROUP_PREFIX: &str = "group.";
/// Ids are strings at the target unless the pipeline says otherwise.
const ID_FIELDS: &[&str] = &["id", "parent_id", "group_id", "product_id"];

fn canonical<'a>(name: &'a str, aliases: &[(&'a str, &'a str)]) -> &'a str {
    aliases.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, real)| real)
}

/// The name that OKKI gives to a key of a group row.
pub fn canonical_group_key(key: &str) -> &str {
    canonical(key, GROUP_ALIASES)
}

/// The name that OKKI gives to a key of a product row.
pub fn canonical_product_key(key: &str) -> &str {
    canonical(key, PRODUCT_ALIASES)
}

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

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether the pipeline names no field.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The columns whose path starts with this key, each with the rest of its path.
    pub fn starting_with<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (usize, &'a [String])> {
        self.paths.iter().enumerate().filter_map(move |(column, path)| match path.split_first() {
            Some((first, rest)) if first == key => Some((column, rest)),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    GroupId,
    GroupParent,
    GroupLayer,
    GroupPath,
    GroupCell(usize),
    ProductId,
    ProductCell(usize),
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    From { source: Source, kind: Option<As>, default: String, name: String },
    Each(Vec<Field>),
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    /// `"name":`, ready to be written.
    key: String,
    value: Value,
}

/// The compiled field map: knows which source fields to keep and how to write a row from them.
#[derive(Debug, Clone, PartialEq)]
pub struct RowMap {
    per_product: bool,
    fields: Vec<Field>,
    id_field: String,
    /// Columns to keep of each group.
    pub group_columns: Columns,
    /// Columns to keep of each product; 0 is the id, 1 the name.
    pub product_columns: Columns,
    uses_products: bool,
    fingerprint: String,
}

struct Compiler<'a> {
    id: &'a str,
    groups: Columns,
    products: Columns,
    mistakes: Vec<Mistake>,
    uses_products: bool,
}

impl RowMap {
    /// Compiles `[record]`. `id_field` and `number_field` are the source metadata's `id` and `number`.
    pub fn compile(spec: &RecordSpec, id_field: &str, number_field: &str) -> Result<Self, Vec<Mistake>> {
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
        let mut out = Vec::new();
        self.product_fields().find_map(|field| {
            let Value::From { source, kind, name, .. } = &field.value else { return None };
            out.clear();
            let fits = match source {
                Source::ProductId => write_text(id, *kind, &mut out),
                Source::ProductCell(column) => write_or(cell(*column), "", *kind, &mut out),
                _ => Ok(()),
            };
            fits.err().map(|why| format!("field {name} of product {id}: {why}"))
        })
    }

    fn product_fields(&self) -> impl Iterator<Item = &Field> {
        let inner = self.fields.iter().filter_map(|field| match &field.value {
            Value::Each(inner) => Some(inner),
            Value::From { .. } => None,
        });
        self.fields.iter().filter(|_| self.per_product).chain(inner.flatten())
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
    fn mistake(&mut self, path: &str, what: &str, mend: &str) {
        self.mistakes.push(Mistake { path: path.to_owned(), what: what.to_owned(), mend: mend.to_owned() });
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

/// A name is known if it is listed, or lies inside `info_json`, whose content is the user's own.
fn known(name: &str, fields: &[&str]) -> bool {
    fields.contains(&name) || (name.starts_with("info_json.") && fields.contains(&"info_json"))
}

/// The candidate that is nearest in spelling.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
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

/// A value that does not fit its field: the product (or, for a field of the group, the row) is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Whether it is the product at this row of the table, rather than the group.
    pub product: Option<u32>,
    /// Why.
    pub reason: String,
}

/// Writes rows of one catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Renderer<'a> {
    map: &'a RowMap,
    catalogue: &'a Catalogue,
}

impl<'a> Renderer<'a> {
    /// A renderer for this catalogue.
    pub fn new(map: &'a RowMap, catalogue: &'a Catalogue) -> Self {
        Self { map, catalogue }
    }

    /// Writes the row of a group. Products that do not fit are left out and given back; a field of the group
    /// that does not fit rejects the whole row.
    pub fn group(&self, group: usize, out: &mut Vec<u8>) -> Result<Vec<Misfit>, Misfit> {
        let mut misfits = Vec::new();
        self.write(&self.map.fields, group, None, out, &mut misfits)
            .map_err(|reason| Misfit { product: None, reason })?;
        Ok(misfits)
    }

    /// Writes the row of a product.
    pub fn product(&self, group: usize, product: u32, out: &mut Vec<u8>) -> Result<(), Misfit> {
        self.write(&self.map.fields, group, Some(product), out, &mut Vec::new())
            .map_err(|reason| Misfit { product: Some(product), reason })
    }

    fn write(
        &self,
        fields: &[Field],
        group: usize,
        product: Option<u32>,
        out: &mut Vec<u8>,
        misfits: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        out.push(b'{');
        for (n, field) in fields.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(field.key.as_bytes());
            match &field.value {
                Value::Each(inner) => self.write_items(inner, group, out, misfits)?,
                Value::From { source, kind, default, name } => {
                    self.write_field(source, *kind, default, group, product, out)
                        .map_err(|why| format!("field {name}: {why}"))?;
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn write_items(
        &self,
        fields: &[Field],
        group: usize,
        out: &mut Vec<u8>,
        misfits: &mut Vec<Misfit>,
    ) -> Result<(), String> {
        out.push(b'[');
        let products = self.catalogue.products_of.get(group).map_or(&[][..], Vec::as_slice);
        let mut first = true;
        for &product in products {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            match self.write(fields, group, Some(product), out, misfits) {
                Ok(()) => first = false,
                Err(reason) => {
                    out.truncate(before);
                    misfits.push(Misfit { product: Some(product), reason });
                }
            }
        }
        out.push(b']');
        Ok(())
    }

    fn write_field(
        &self,
        source: &Source,
        kind: Option<As>,
        default: &str,
        group: usize,
        product: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(of) = self.catalogue.groups.get(group) else { return Err("its group is gone".to_owned()) };
        let row = product.unwrap_or(0) as usize;
        match source {
            Source::GroupId => write_text(&of.id, kind, out),
            Source::GroupParent => {
                let parent =
                    of.parent.and_then(|at| self.catalogue.groups.get(at)).map_or("0", |p| p.id.as_str());
                write_text(parent, kind, out)
            }
            Source::GroupLayer => write_value(&of.layer.to_string(), kind, out),
            Source::GroupPath => write_text(&of.path, kind, out),
            Source::ProductId => {
                write_text(self.catalogue.product_cells.cell(row, PRODUCT_ID_COLUMN), kind, out)
            }
            Source::GroupCell(column) => {
                write_or(self.catalogue.group_cells.cell(group, *column), default, kind, out)
            }
            Source::ProductCell(column) => {
                write_or(self.catalogue.product_cells.cell(row, *column), default, kind, out)
            }
        }
    }
}

fn write_or(raw: &str, default: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    if raw.is_empty() || raw == "null" {
        out.extend_from_slice(default.as_bytes());
        return Ok(());
    }
    write_value(raw, kind, out)
}

fn write_json_string(text: &str, out: &mut Vec<u8>) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn write_text(text: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        None | Some(As::String) => {
            write_json_string(text, out);
            Ok(())
        }
        Some(As::Number | As::Integer | As::Boolean) => write_unquoted(text, kind, out),
    }
}

/// Writes a raw JSON value as the wanted type, digit for digit.
fn write_value(raw: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(wanted) = kind else {
        out.extend_from_slice(raw.as_bytes());
        return Ok(());
    };
    match (wanted, raw.as_bytes().first()) {
        (As::String, Some(b'"')) => out.extend_from_slice(raw.as_bytes()),
        // Numbers, booleans, and whole objects or lists become text as they stand.
        (As::String, _) => write_json_string(raw, out),
        (_, Some(b'"')) => {
            let text: String = serde_json::from_str(raw).map_err(|_| "is not valid text".to_owned())?;
            return write_unquoted(text.trim(), kind, out);
        }
        _ => return write_unquoted(raw, kind, out),
    }
    Ok(())
}

fn write_unquoted(text: &str, kind: Option<As>, out: &mut Vec<u8>) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("{} is not {what}", crate::model::short(text)));
    match kind {
        Some(As::Integer) => match integer_part(text) {
            Some(digits) => out.extend_from_slice(digits.as_bytes()),
            None => return refuse("an integer"),
        },
        Some(As::Boolean) => match text {
            "true" | "1" => out.extend_from_slice(b"true"),
            "false" | "0" => out.extend_from_slice(b"false"),
            _ => return refuse("true or false"),
        },
        _ if is_json_number(text) => out.extend_from_slice(text.as_bytes()),
        _ => return refuse("a number"),
    }
    Ok(())
}

/// Whether a text is a JSON number as it stands (so that it can be copied with all its digits).
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

    #[test]
    fn an_unknown_source_field_names_the_nearest_one_and_a_map_without_an_id_is_refused() {
        let spec = |toml: &str| toml::from_str::<RecordSpec>(toml).unwrap();
        let unknown = spec(
            "fields = { id = \"id\", n = \"nmae\", items = { each = \"products\", fields = { c = \"costs\" } } }",
        );
        let mistakes = RowMap::compile(&unknown, "id", "name").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|m| format!("{}: {}; {}", m.path, m.what, m.mend)).collect();
        assert_eq!(
            told,
            [
                "record.fields.n.from: \"nmae\" is not a field of a product group; did you mean \"name\"? Write \"raw.nmae\" if OKKI really sends it",
                "record.fields.items.fields.c.from: \"costs\" is not a field of a product; did you mean \"cost\"? Write \"raw.costs\" if OKKI really sends it",
            ]
        );
        let mistakes = RowMap::compile(&spec("fields = { n = \"name\" }"), "id", "name").unwrap_err();
        assert!(mistakes.first().unwrap().what.contains("no field takes the row's id"));
    }
}
