//! The rows of the target: which are of groups and which of products, and what they show. Pure.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::compare::{Side, Source};

/// What the target says of a group or a product.
#[derive(Debug, Default, Clone)]
pub(super) struct Told {
    pub(super) side: Side,
    /// The id of the group that it says the product belongs to.
    pub(super) group: Option<String>,
}

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// Keys under which rows usually show a name, a cost and a group.
const NAMES: [&str; 3] = ["name", "productName", "product_name"];
const COSTS: [&str; 1] = ["cost"];
const GROUPS: [&str; 2] = ["groupId", "group_id"];
const ITEM_IDS: [&str; 3] = ["id", "product_id", "productId"];

/// The target's rows, sorted by what their ids are.
#[derive(Default)]
pub(super) struct Target {
    pub(super) groups: HashMap<String, Told>,
    pub(super) products: HashMap<String, Told>,
    pub(super) rows: usize,
    has_items: bool,
}

impl Target {
    pub(super) fn read<'a>(rows: impl Iterator<Item = (&'a str, &'a RawValue)>, source: &Source<'_>) -> Self {
        let mut target = Self::default();
        for (id, row) in rows {
            // Rows are objects: the target took them by a key.
            let Ok(fields) = serde_json::from_str::<Fields<'_>>(row.get()) else { continue };
            if fields.get("deleted").is_some_and(|deleted| deleted.get() == "true") {
                continue;
            }
            target.rows += 1;
            let items: Vec<Fields<'_>> =
                fields.values().find_map(|value| serde_json::from_str(value.get()).ok()).unwrap_or_default();
            let lists_items = fields.values().any(|value| value.get().starts_with('['));
            target.has_items |= lists_items;
            let told = Told { side: side(&fields), group: GROUPS.iter().find_map(|key| text(&fields, key)) };
            let is_group = source.groups.contains_key(id)
                || (!source.products.contains_key(id) && (lists_items || told.group.is_none()));
            if !is_group {
                target.products.insert(id.to_owned(), told);
                continue;
            }
            target.groups.insert(id.to_owned(), told);
            for item in items {
                let Some(item_id) = ITEM_IDS.iter().find_map(|key| text(&item, key)) else { continue };
                target.products.insert(item_id, Told { side: side(&item), group: Some(id.to_owned()) });
            }
        }
        target
    }

    pub(super) fn has_products(&self) -> bool {
        self.has_items || !self.products.is_empty()
    }
}

fn side(fields: &Fields<'_>) -> Side {
    let first = |keys: &[&str]| keys.iter().find_map(|key| text(fields, key));
    Side { name: first(&NAMES), cost: first(&COSTS) }
}

/// A value as text: a string without its quotes, a number with its digits. `None` for anything else.
fn text(fields: &Fields<'_>, key: &str) -> Option<String> {
    let raw = fields.get(key)?.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'-' | b'0'..=b'9' => Some(raw.to_owned()),
        _ => None,
    }
}
