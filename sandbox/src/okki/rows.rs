//! Groups and products as OKKI shows them: about 40 fields, most of which a pipeline ignores.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use crate::beijing;
use crate::catalogue::{Group, Product};
use crate::json::{ObjectWriter, push_number, push_text};
use crate::options::Options;

/// The groups that are wanted, as a JSON array. Layer and prefix are worked out from the tree.
pub(super) fn groups(all: &[Group], wanted: impl Fn(&Group) -> bool, ids_as_strings: bool) -> String {
    let mut parents: HashMap<&str, &str> = HashMap::new();
    for group in all {
        parents.entry(&group.id).or_insert(&group.parent_id);
    }
    let mut out = String::from("[");
    // The synthetic group is the last.
    let is_synthetic = |group: &&Group| group.id == "0";
    let (last, first): (Vec<&Group>, Vec<&Group>) =
        all.iter().filter(|group| wanted(group)).partition(is_synthetic);
    for group in first.into_iter().chain(last) {
        if out.len() > 1 {
            out.push(',');
        }
        group_row(&mut out, group, &ancestors(group, &parents), ids_as_strings);
    }
    out.push(']');
    out
}

/// From the nearest to the root; a cycle or a missing parent ends the walk.
fn ancestors<'a>(group: &'a Group, parents: &HashMap<&'a str, &'a str>) -> Vec<&'a str> {
    let mut ancestors: Vec<&str> = Vec::new();
    let mut seen = HashSet::from([group.id.as_str()]);
    let mut at = group.parent_id.as_str();
    while at != "0" && seen.insert(at) {
        ancestors.push(at);
        match parents.get(at) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    ancestors
}

fn group_row(out: &mut String, group: &Group, ancestors: &[&str], ids_as_strings: bool) {
    let mut prefix = String::from("0-");
    for ancestor in ancestors.iter().rev() {
        prefix.push_str(ancestor);
        prefix.push('-');
    }
    let mut row = ObjectWriter::new(out, &group.extra);
    row.id("id", &group.id, ids_as_strings);
    row.id("parent_id", &group.parent_id, ids_as_strings);
    row.id("layer", &(ancestors.len() + 1).to_string(), ids_as_strings);
    row.text("prefix", &prefix);
    row.text("name", &group.name);
    let info = json!({"info_label": group.name, "info_value": group.name}).to_string();
    row.raw("name_info", &info);
    row.raw("client_id", "\"365249\"");
    row.raw("user_id", "\"0\"");
    row.raw("create_user", "\"249525942\"");
    row.text("create_time", &beijing::to_text(group.create_time));
    row.text("update_time", &beijing::to_text(group.update_time));
    row.text("description", &group.description);
    for name in ["order_rank", "relate_id", "system_flag", "is_sys", "rank"] {
        row.raw(name, "\"0\"");
    }
    row.end();
}

/// Products that follow each other. `group_name` finds the name of a group.
pub(super) fn products<'a>(
    out: &mut String,
    products: impl Iterator<Item = &'a Product>,
    group_name: impl Fn(&str) -> &'a str,
    options: &Options,
) {
    for (place, product) in products.enumerate() {
        if place > 0 {
            out.push(',');
        }
        product_row(out, product, group_name(&product.group_id), options);
    }
}

fn product_row(out: &mut String, product: &Product, group_name: &str, options: &Options) {
    let ids_as_strings = options.ids_as_strings;
    let mut fob = String::from("{\"price_currency\":");
    push_text(&mut fob, &product.fob_currency);
    fob.push_str(",\"price_min\":");
    push_number(&mut fob, product.fob_min.as_deref());
    fob.push_str(",\"price_max\":");
    push_number(&mut fob, product.fob_max.as_deref());
    fob.push_str(",\"price_unit\":");
    push_text(&mut fob, &product.unit);
    fob.push('}');
    let mut row = ObjectWriter::new(out, &product.extra);
    row.id("product_id", &product.product_id, ids_as_strings);
    row.text("product_no", &product.product_no);
    row.raw(
        "product_type",
        match product.product_type {
            2 => "2",
            3 => "3",
            _ => "1",
        },
    );
    row.text("name", &product.name);
    row.text("model", &product.model);
    row.id("group_id", &product.group_id, ids_as_strings);
    row.text("group_name", group_name);
    row.raw("category_ids", "[]");
    row.text("unit", &product.unit);
    row.number("cost", product.cost.as_deref());
    row.text("cost_currency", &product.cost_currency);
    row.number("cost_with_tax", product.cost_with_tax.as_deref());
    row.text("cost_unit", &product.unit);
    row.raw("fob", &fob);
    row.raw("minimum_order_quantity", "100");
    row.raw("enable_flag", if product.enable_flag == 0 { "0" } else { "1" });
    row.raw("disable_flag", if product.disable_flag == 0 { "0" } else { "1" });
    row.raw("image", "\"\"");
    row.raw("images", "[]");
    for name in ["description", "product_remark", "hs_code", "from_url", "package_remark"] {
        row.raw(name, "\"\"");
    }
    row.raw("info_json", "[]");
    row.raw("package_gross_weight", "0.500");
    row.raw("count_per_package", "10");
    row.raw("source_type", "\"1\"");
    row.raw("create_user", "\"249525942\"");
    if options.row_times {
        // As the filter has them.
        let shown = |time: i64| beijing::to_text(time.saturating_add(options.filter_clock_offset_s));
        let created = if product.is_timed() { shown(product.create_time) } else { String::new() };
        row.text("create_time", &created);
        row.text("update_time", &shown(product.update_time));
    }
    row.end();
}
