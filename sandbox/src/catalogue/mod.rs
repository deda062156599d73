//! What the sandbox's OKKI holds: a seeded foreign-trade assortment of any size, and how people change it.

mod changes;
mod generate;

use serde_json::{Map, Value};

/// A product group as OKKI keeps it. Layer and prefix follow from the tree when it is served.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Id; digits, served as a JSON integer unless the options say otherwise.
    pub id: String,
    /// Parent's id; "0" for a root.
    pub parent_id: String,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Unix seconds of creation.
    pub create_time: i64,
    /// Unix seconds of the last change.
    pub update_time: i64,
    /// More fields of the row; a key that the row has anyway replaces that field.
    pub extra: Map<String, Value>,
}

/// A product as OKKI keeps it. Prices are digits, so that they leave exactly as they came.
#[derive(Debug, Clone, Default)]
pub struct Product {
    /// Id; digits.
    pub product_id: String,
    /// The company's own number.
    pub product_no: String,
    /// Display name.
    pub name: String,
    /// Model.
    pub model: String,
    /// Id of its group; the group's name is looked up when the row is served.
    pub group_id: String,
    /// Sales unit.
    pub unit: String,
    /// Cost without tax.
    pub cost: Option<String>,
    /// Currency of the costs.
    pub cost_currency: String,
    /// Cost with tax.
    pub cost_with_tax: Option<String>,
    /// Currency of the FOB prices.
    pub fob_currency: String,
    /// Lowest FOB price.
    pub fob_min: Option<String>,
    /// Highest FOB price.
    pub fob_max: Option<String>,
    /// 1 kept, 0 deleted.
    pub enable_flag: u8,
    /// Documented contradictorily; 0 here.
    pub disable_flag: u8,
    /// 1 plain, 2 with variants, 3 a bundle.
    pub product_type: u8,
    /// Unix seconds of creation.
    pub create_time: i64,
    /// Unix seconds of the last change.
    pub update_time: i64,
    /// More fields of the row; a key that the row has anyway replaces that field.
    pub extra: Map<String, Value>,
}

/// All groups and products, in no particular order.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Product groups.
    pub groups: Vec<Group>,
    /// Products.
    pub products: Vec<Product>,
}
