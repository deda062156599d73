//! What the target must hold, worked out without the program's own code.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use okki_sync_sandbox::catalogue::{Catalogue, Group, Product};
use serde_json::value::RawValue;

pub fn assert_rows(rows: &IndexMap<String, Box<RawValue>>, expected: &BTreeMap<String, String>) {
    for (id, row) in expected {
        let theirs = rows.get(id).map(|row| without_revival(row.get()));
        assert_eq!(theirs.as_deref(), Some(row.as_str()), "row {id}");
    }
    for (id, row) in rows.iter().filter(|(id, _)| !expected.contains_key(*id)) {
        assert!(row.get().ends_with(",\"deleted\":true}"), "row {id} should not be there: {row}");
    }
}

/// The row as the pipeline makes it. One that came back after its tombstone was sent with `"deleted": false` at its end.
pub fn without_revival(row: &str) -> Cow<'_, str> {
    row.strip_suffix(",\"deleted\":false}").map_or(row.into(), |row| format!("{row}}}").into())
}

/// The clean rows of a catalogue in one of the built-in shapes, worked out without the program's own code.
pub fn expected(catalogue: &Catalogue, text: &str) -> BTreeMap<String, String> {
    let groups = clean_groups(catalogue);
    let products = clean_products(catalogue, &groups);
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let fields = |product: &Product| {
        let cost = product.cost.as_deref().unwrap_or("null");
        format!("\"id\":\"{}\",\"name\":{},\"cost\":{cost}", product.product_id, quoted(&product.name))
    };
    let mut rows = BTreeMap::new();
    if text.contains("shape = \"products\"") {
        for product in products {
            let group = groups[product.group_id.as_str()];
            let (id, name) = (&group.id, quoted(&group.name));
            let row = format!("{{{},\"groupId\":\"{id}\",\"groupName\":{name}}}", fields(product));
            rows.insert(product.product_id.clone(), row);
        }
        return rows;
    }
    let mut items: HashMap<&str, Vec<&Product>> = HashMap::new();
    for product in products {
        items.entry(&product.group_id).or_default().push(product);
    }
    for (id, group) in groups {
        let name = quoted(&group.name);
        let row = if text.contains("shape = \"groups\"") {
            format!("{{\"productGroupId\":\"{id}\",\"productName\":{name}}}")
        } else {
            let mut items = items.remove(id).unwrap_or_default();
            items.sort_by_key(|product| product.product_id.parse::<u64>().unwrap());
            let items: Vec<String> = items.into_iter().map(|item| format!("{{{}}}", fields(item))).collect();
            format!("{{\"id\":\"{id}\",\"name\":{name},\"items\":[{}]}}", items.join(","))
        };
        rows.insert(id.to_owned(), row);
    }
    rows
}

/// The groups that pass cleaning, by id.
pub fn clean_groups(catalogue: &Catalogue) -> BTreeMap<&str, &Group> {
    let mut first: BTreeMap<&str, &Group> = BTreeMap::new();
    for group in &catalogue.groups {
        if !group.id.trim().is_empty() && !group.name.trim().is_empty() {
            first.entry(&group.id).or_insert(group);
        }
    }
    let reaches_the_root = |group: &Group| {
        let (mut at, mut seen) = (group.parent_id.as_str(), HashSet::from([group.id.as_str()]));
        while at != "0" {
            match first.get(at) {
                Some(parent) if seen.insert(at) => at = &parent.parent_id,
                _ => return false,
            }
        }
        true
    };
    first.iter().filter(|(_, group)| reaches_the_root(group)).map(|(id, group)| (*id, *group)).collect()
}

/// The products that pass cleaning.
pub fn clean_products<'a>(catalogue: &'a Catalogue, groups: &BTreeMap<&str, &Group>) -> Vec<&'a Product> {
    let mut seen = HashSet::new();
    let mut clean = |product: &&'a Product| {
        !product.product_id.trim().is_empty()
            && seen.insert(product.product_id.as_str())
            && product.enable_flag == 1
            && !product.name.trim().is_empty()
            && groups.contains_key(product.group_id.as_str())
    };
    catalogue.products.iter().filter(|product| clean(product)).collect()
}
