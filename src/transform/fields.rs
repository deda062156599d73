//! The source fields that a pipeline may name, and the names that stand for them.

/// Fields of a product group that OKKI documents, and those that we add from the tree (`layer`, `path`).
pub(crate) const GROUP_FIELDS: &[&str] = &[
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
pub(crate) const PRODUCT_FIELDS: &[&str] = &[
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
pub(super) const GROUP_ALIASES: &[(&str, &str)] = &[("groupId", "id"), ("groupName", "name")];
pub(super) const PRODUCT_ALIASES: &[(&str, &str)] =
    &[("productId", "product_id"), ("productName", "name"), ("price", "cost")];

/// Prefix for a source field that OKKI sends but does not document.
pub(super) const RAW_PREFIX: &str = "raw.";
/// Prefix for a field of the product's group, in a product's row.
pub(super) const GROUP_PREFIX: &str = "group.";
/// Ids are strings at the target unless the pipeline says otherwise.
pub(super) const ID_FIELDS: &[&str] = &["id", "parent_id", "group_id", "product_id"];

fn canonical<'a>(name: &'a str, aliases: &[(&'a str, &'a str)]) -> &'a str {
    aliases.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, real)| real)
}

/// The name that OKKI gives to a key of a group row.
pub(crate) fn canonical_group_key(key: &str) -> &str {
    canonical(key, GROUP_ALIASES)
}

/// The name that OKKI gives to a key of a product row.
pub(crate) fn canonical_product_key(key: &str) -> &str {
    canonical(key, PRODUCT_ALIASES)
}

/// A name is known if it is listed, or lies inside `info_json`, whose content is the user's own.
pub(super) fn known(name: &str, fields: &[&str]) -> bool {
    fields.contains(&name) || (name.starts_with("info_json.") && fields.contains(&"info_json"))
}

/// The candidate that is nearest in spelling.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
