//! What the target must hold, worked out from the sandbox's catalogue without the program's own code.

use std::collections::{BTreeMap, HashMap, HashSet};

use okki_sync_sandbox::catalogue::{Catalogue, Group, Product};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::support;

/// The shape of a pipeline's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Groups,
    GroupsWithItems,
    Products,
    /// Own fields: [`OWN_FIELDS`].
    Own,
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
            _ => format!("[record]\n{}", self.line()),
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Groups => "shape = \"groups\"",
            Self::Products => "shape = \"products\"",
            Self::GroupsWithItems | Self::Own => "shape = \"groups-with-items\"",
        }
    }

    /// The rows of a catalogue, by id.
    pub fn rows(self, catalogue: &Catalogue) -> BTreeMap<String, String> {
        if self == Self::Own { own_rows(catalogue) } else { support::expected(catalogue, self.line()) }
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

    fn default_cost(self) -> &'static str {
        if self == Self::Own { "0" } else { "null" }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn item(product: &Product, default_cost: &str) -> String {
    let cost = product.cost.as_deref().unwrap_or(default_cost);
    format!("\"id\":\"{}\",\"name\":{},\"cost\":{cost}", product.product_id, quoted(&product.name))
}

fn own_rows(catalogue: &Catalogue) -> BTreeMap<String, String> {
    let groups = support::clean_groups(catalogue);
    let mut items: HashMap<&str, Vec<&Product>> = HashMap::new();
    for product in support::clean_products(catalogue, &groups) {
        items.entry(&product.group_id).or_default().push(product);
    }
    let row = |group: &Group| {
        let mut path = vec![group.name.trim()];
        let mut at = group;
        while let Some(parent) = groups.get(at.parent_id.as_str()) {
            path.insert(0, parent.name.trim());
            at = parent;
        }
        let mut items = items.get(group.id.as_str()).cloned().unwrap_or_default();
        items.sort_by_key(|product| product.product_id.parse::<u64>().unwrap());
        let items: Vec<String> =
            items.into_iter().map(|product| format!("{{{}}}", item(product, "0"))).collect();
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
    row.ends_with(",\"deleted\":true}")
}

/// All that the source ever said, in pieces: a read may mix two moments, but it invents nothing.
#[derive(Default)]
pub struct Ever {
    revision: u64,
    names: HashMap<String, HashSet<String>>,
    products: HashMap<String, HashSet<String>>,
}

impl Ever {
    /// Notes a version of the catalogue, unless it is the one noted last.
    pub fn note(&mut self, revision: u64, shape: Shape, catalogue: impl FnOnce() -> Catalogue) {
        if revision == self.revision {
            return;
        }
        self.revision = revision;
        let catalogue = catalogue();
        for group in &catalogue.groups {
            self.names.entry(group.id.clone()).or_default().insert(group.name.clone());
        }
        for product in &catalogue.products {
            let text = item(product, shape.default_cost());
            self.products.entry(product.product_id.clone()).or_default().insert(text);
        }
    }

    /// Why a row at the target cannot come from the source, if so.
    pub fn doubt(&self, shape: Shape, id: &str, row: &RawValue) -> Option<String> {
        let known = if shape == Shape::Products {
            self.products.contains_key(id)
        } else {
            self.names.contains_key(id)
        };
        if !known {
            return Some(format!("the source never had {id}, the target holds {row}"));
        }
        if is_tombstone(row.get()) {
            return None;
        }
        let invented = || Some(format!("the source never said what the target holds: {row}"));
        let Ok(fields) = serde_json::from_str::<HashMap<&str, &RawValue>>(row.get()) else {
            return Some(format!("a row that is not JSON: {row}"));
        };
        let text = |key: &str| {
            let value = fields.get(key).and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
            value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let named = |id: &str, name: &str| self.names.get(id).is_some_and(|names| names.contains(name));
        if shape == Shape::Products {
            let said = self.products[id]
                .iter()
                .any(|piece| row.get().starts_with(&format!("{{{piece},\"groupId\"")));
            return if said && named(&text("groupId"), &text("groupName")) { None } else { invented() };
        }
        let name = if matches!(shape, Shape::Groups | Shape::Own) { "productName" } else { "name" };
        if !named(id, &text(name)) {
            return invented();
        }
        let items: Vec<&RawValue> = fields
            .get("items")
            .map(|items| serde_json::from_str(items.get()).unwrap_or_default())
            .unwrap_or_default();
        let said = |item: &&RawValue| {
            let inner = item.get().trim_start_matches('{').trim_end_matches('}');
            let id: Value = serde_json::from_str(item.get()).unwrap_or_default();
            self.products
                .get(id["id"].as_str().unwrap_or_default())
                .is_some_and(|pieces| pieces.contains(inner))
        };
        if items.iter().all(said) { None } else { invented() }
    }
}
