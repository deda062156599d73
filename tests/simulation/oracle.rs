//! What the target must hold, worked out from the sandbox's catalogue without the program's own code.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use okki_sync_sandbox::catalogue::{Catalogue, Group, Product};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::past::{Past, Span};
use crate::pipeline::Pipeline;
use crate::support;

/// The shape of a pipeline's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Groups,
    GroupsWithItems,
    Products,
    /// Own fields: [`OWN_FIELDS`].
    Own,
    /// The same with another cost.
    OwnTaxed,
}

pub const OWN_FIELDS: &str = r#"
[record.fields]
productGroupId = "id"
productName = "name"
parent = { from = "parent_id", as = "string" }
path = "path"
layer = "layer"
items = { each = "products", fields = { id = "product_id", name = "name", cost = { from = "cost", as = "number", default = 0 } } }
"#;

impl Shape {
    /// The `[record]` table.
    pub fn record(self) -> String {
        match self {
            Self::Own => OWN_FIELDS.to_owned(),
            Self::OwnTaxed => OWN_FIELDS.replace("from = \"cost\"", "from = \"cost_with_tax\""),
            _ => format!("[record]\n{}", self.line()),
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Groups => "shape = \"groups\"",
            Self::Products => "shape = \"products\"",
            Self::GroupsWithItems | Self::Own | Self::OwnTaxed => "shape = \"groups-with-items\"",
        }
    }

    /// The rows of a catalogue, by id.
    pub fn rows(self, catalogue: &Catalogue) -> BTreeMap<String, String> {
        if self.is_own() { own_rows(catalogue, self) } else { support::expected(catalogue, self.line()) }
    }

    /// Ids that the source has, clean or not: the target's row with such an id is never deleted.
    pub fn known(self, catalogue: &Catalogue) -> HashSet<String> {
        if self == Self::Products {
            let kept = catalogue.products.iter().filter(|product| product.enable_flag == 1);
            kept.map(|product| product.product_id.clone()).collect()
        } else {
            catalogue.groups.iter().map(|group| group.id.clone()).collect()
        }
    }

    fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnTaxed)
    }

    /// A product as a piece of a row.
    fn item(self, product: &Product) -> String {
        let cost = if self == Self::OwnTaxed { &product.cost_with_tax } else { &product.cost };
        let cost = cost.as_deref().unwrap_or(if self.is_own() { "0" } else { "null" });
        format!("\"id\":\"{}\",\"name\":{},\"cost\":{cost}", product.product_id, quoted(&product.name))
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn own_rows(catalogue: &Catalogue, shape: Shape) -> BTreeMap<String, String> {
    let groups = support::clean_groups(catalogue);
    let mut items: HashMap<&str, Vec<&Product>> = HashMap::new();
    for product in support::clean_products(catalogue, &groups) {
        items.entry(&product.group_id).or_default().push(product);
    }
    let row = |group: &Group| {
        let mut path = vec![group.name.trim()];
        let mut at = group;
        while at.parent_id != "0"
            && let Some(parent) = groups.get(at.parent_id.as_str())
        {
            path.insert(0, parent.name.trim());
            at = parent;
        }
        let mut items = items.get(group.id.as_str()).cloned().unwrap_or_default();
        items.sort_by_key(|product| product.product_id.parse::<u64>().unwrap());
        let items: Vec<String> =
            items.into_iter().map(|product| format!("{{{}}}", shape.item(product))).collect();
        format!(
            "{{\"productGroupId\":\"{}\",\"productName\":{},\"parent\":\"{}\",\"path\":{},\"layer\":{},\"items\":[{}]}}",
            group.id,
            quoted(&group.name),
            group.parent_id,
            quoted(&path.join("/")),
            path.len(),
            items.join(",")
        )
    };
    groups.values().map(|group| (group.id.clone(), row(group))).collect()
}

pub fn is_tombstone(row: &str) -> bool {
    // A target that merges keeps the other fields.
    row.contains(",\"deleted\":true")
}

/// Why a row at the target was not true at a moment of the span, if so. A read may mix two moments, but it invents nothing:
/// group and products are looked at apart.
pub fn doubt(past: &Past, pipeline: &Pipeline, id: &str, row: &RawValue, span: Span) -> Option<String> {
    let shape = pipeline.shape;
    let untrue = |what: &str| {
        let Span { from_ms, to_ms } = span;
        let (from_ms, to_ms) = (from_ms.saturating_sub(past.beginning_ms), to_ms - past.beginning_ms);
        Some(format!("{what} between {from_ms} and {to_ms} ms; the target holds {row}"))
    };
    if is_tombstone(row.get()) {
        let is_gone = if shape == Shape::Products {
            past.product(id, span).any(|rows| rows.iter().all(|product| product.enable_flag == 0))
        } else {
            past.group(id, span).any(BTreeSet::is_empty)
        };
        return if is_gone { None } else { untrue(&format!("tombstone: {id} was there at every moment")) };
    }
    let Ok(fields) = serde_json::from_str::<HashMap<&str, &RawValue>>(row.get()) else {
        return Some(format!("a row that is not JSON: {row}"));
    };
    let text = |key: &str| {
        let value = fields.get(key).and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let named = |id: &str, name: &str| past.group(id, span).any(|names| names.contains(name));
    if shape == Shape::Products {
        let group = text("groupId");
        let said = |product: &Arc<Product>| {
            product.group_id == group
                && row.get().starts_with(&format!("{{{},\"groupId\"", shape.item(product)))
        };
        if !past.product(id, span).any(|rows| rows.iter().any(said)) {
            return untrue("the source never said this of the product");
        }
        return if named(&group, &text("groupName")) {
            None
        } else {
            untrue("the source never named the group so")
        };
    }
    let name = if shape == Shape::GroupsWithItems { "name" } else { "productName" };
    if !named(id, &text(name)) {
        return untrue("the source never named the group so");
    }
    let untrue_item = items_of(&fields).into_iter().find(|item| {
        let inner = item.get().trim_start_matches('{').trim_end_matches('}');
        let product = item_id(item);
        let said = |product: &Arc<Product>| product.group_id == id && shape.item(product) == inner;
        // An item that a value guard holds back stays as it was acknowledged, perhaps for another pipeline.
        let ever = Span { from_ms: 0, ..span };
        let was_said = |product: &Arc<Product>| {
            let shapes = [shape, Shape::Own, Shape::OwnTaxed];
            product.group_id == id && shapes.iter().any(|shape| shape.item(product) == inner)
        };
        let is_held = past.product(&product, span).flatten().any(|product| pipeline.holds(product));
        let is_kept = is_held && past.product(&product, ever).flatten().any(was_said);
        !is_kept && !past.product(&product, span).any(|rows| rows.iter().any(said))
    });
    untrue_item.and_then(|item| untrue(&format!("the source never said {item} of this group")))
}

/// Whether a row of a product, or its tombstone, says what the source had there.
pub fn said_of_product(shape: Shape, row: &RawValue, rows: &[Arc<Product>]) -> bool {
    if is_tombstone(row.get()) {
        return rows.iter().all(|product| product.enable_flag == 0);
    }
    let start = |product: &Product| format!("{{{},\"groupId\":\"{}\"", shape.item(product), product.group_id);
    rows.iter().any(|product| row.get().starts_with(&start(product)))
}

fn items_of<'r>(fields: &HashMap<&str, &'r RawValue>) -> Vec<&'r RawValue> {
    let items = fields.get("items").map(|items| serde_json::from_str(items.get()).unwrap_or_default());
    items.unwrap_or_default()
}

fn item_id(item: &RawValue) -> String {
    let value: Value = serde_json::from_str(item.get()).unwrap_or_default();
    value["id"].as_str().unwrap_or_default().to_owned()
}

/// The row of a group without some of its items; `None` if it has no items.
pub fn without_items(row: &str, is_left_out: impl Fn(&str) -> bool) -> Option<String> {
    let fields: HashMap<&str, &RawValue> = serde_json::from_str(row).ok()?;
    let items = fields.get("items")?.get();
    let left: Vec<&str> = items_of(&fields)
        .into_iter()
        .filter(|item| !is_left_out(&item_id(item)))
        .map(RawValue::get)
        .collect();
    Some(row.replacen(items, &format!("[{}]", left.join(",")), 1))
}

/// The products of a row of a group.
pub fn ids_of_items(row: &str) -> HashSet<String> {
    let fields: HashMap<&str, &RawValue> = serde_json::from_str(row).unwrap_or_default();
    items_of(&fields).into_iter().map(item_id).collect()
}
