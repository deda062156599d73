//! What the sandbox's OKKI holds: a seeded foreign-trade assortment of any size, and how people change it.

mod changes;
mod generate;

use std::collections::HashMap;

use serde_json::{Map, Value, json};

pub(crate) use generate::price;
use generate::{FIRST_PRODUCT_ID, ID_STEP};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Unix seconds of creation; [`Product::UNTIMED`] if there is none.
    pub create_time: i64,
    /// Unix seconds of the last change.
    pub update_time: i64,
    /// More fields of the row; a key that the row has anyway replaces that field.
    pub extra: Map<String, Value>,
}

impl Product {
    /// A `create_time` that no range of times holds.
    pub const UNTIMED: i64 = i64::MIN;

    pub(crate) fn is_timed(&self) -> bool {
        self.create_time != Self::UNTIMED
    }
}

/// All groups and products, in no particular order.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Product groups.
    pub groups: Vec<Group>,
    /// Products.
    pub products: Vec<Product>,
    /// Which product ids there have been.
    pub(crate) given_ids: GivenIds,
}

/// The lowest and the highest product id that there ever was. As in OKKI, the id of a deleted product does not come again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GivenIds {
    lowest: u64,
    highest: u64,
}

impl Default for GivenIds {
    fn default() -> Self {
        Self { lowest: FIRST_PRODUCT_ID, highest: FIRST_PRODUCT_ID }
    }
}

impl GivenIds {
    /// How many products there have been, if none was given an id out of turn.
    fn count(self) -> usize {
        ((self.highest - FIRST_PRODUCT_ID) / ID_STEP) as usize
    }

    fn add(&mut self, id: u64) {
        self.lowest = self.lowest.min(id);
        self.highest = self.highest.max(id);
    }
}

/// Every so many products one belongs to the synthetic group.
const UNGROUPED_SHARE: usize = 25;

impl Catalogue {
    /// Returns an id above every one that there ever was, and takes it.
    pub fn new_product_id(&mut self) -> String {
        self.given_ids.highest = self.given_ids.highest.saturating_add(ID_STEP);
        self.given_ids.highest.to_string()
    }

    /// Returns an id below every one that there ever was, and takes it.
    fn new_lowest_product_id(&mut self) -> String {
        self.given_ids.lowest = self.given_ids.lowest.saturating_sub(1);
        self.given_ids.lowest.to_string()
    }

    /// Notes the ids of the products, and those that were given before.
    pub(crate) fn remember_ids(&mut self, before: GivenIds) {
        self.given_ids.add(before.lowest);
        self.given_ids.add(before.highest);
        for id in self.products.iter().filter_map(|product| product.product_id.parse().ok()) {
            self.given_ids.add(id);
        }
    }

    /// Adds the synthetic group 0 as OKKI's tree of customer groups has it, and moves some products there.
    pub(crate) fn add_synthetic_group(&mut self) {
        // Mixed types, and no creation time: so OKKI sends it.
        let extra = json!({"layer": "1", "prefix": "0-", "create_time": "", "system_flag": 1, "is_sys": 1});
        self.groups.push(Group {
            id: "0".into(),
            parent_id: "0".into(),
            name: "未分组".into(),
            extra: extra.as_object().cloned().unwrap_or_default(),
            ..Group::default()
        });
        for product in self.products.iter_mut().skip(UNGROUPED_SHARE - 1).step_by(UNGROUPED_SHARE) {
            product.group_id = "0".into();
        }
    }

    /// Takes the creation time from so many products, the first by id.
    pub(crate) fn forget_creation_times(&mut self, count: usize) {
        let mut products: Vec<&mut Product> = self.products.iter_mut().collect();
        products.sort_by_key(|product| product.product_id.parse::<u64>().unwrap_or(0));
        products.into_iter().take(count).for_each(|product| product.create_time = Product::UNTIMED);
    }

    /// Names by id. Of two groups with one id the first gives the name.
    pub(crate) fn group_names(&self) -> HashMap<String, String> {
        self.groups.iter().rev().map(|group| (group.id.clone(), group.name.clone())).collect()
    }
}
