//! Makes a catalogue from a seed. The order in which the generator draws random numbers is part of its contract: a
//! seed names one catalogue, byte for byte.

use fastrand::Rng;
use serde_json::Map;

use super::{Catalogue, GivenIds, Group, Product};

/// The assortment: groups, indented groups below them, and below these one line of leaves. Each entry is
/// "Chinese|English"; `;` stands between the leaves.
const ASSORTMENT: &str = include_str!("assortment.txt");

const FINISHES: [&str; 10] = [
    "",
    " IP65",
    " 不锈钢 Stainless Steel",
    " 黑色 Black",
    " 304",
    " \"Pro\"",
    " 1/2\"",
    " CE/RoHS",
    " 加厚 Heavy-Duty",
    " OEM",
];
const UNITS: [&str; 6] = ["PCS", "SET", "KG", "M", "CTN", "PAIR"];
pub(super) const FIRST_GROUP_ID: u64 = 5_203_320_130;
pub(super) const FIRST_PRODUCT_ID: u64 = 37_004_000_100;
/// Between one product's id and the next one's.
pub(super) const ID_STEP: u64 = 7;
const DAY: i64 = 86_400;

/// A group that products are made for, with the words of their names.
pub(super) struct ProductLine {
    pub(super) group_id: String,
    pub(super) name: String,
    pub(super) initials: String,
}

/// Where a row of the assortment stands in the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    Middle,
    Leaf,
}

impl Level {
    fn of(line: &str) -> Self {
        match line.len() - line.trim_start().len() {
            0 => Self::Top,
            1 => Self::Middle,
            _ => Self::Leaf,
        }
    }
}

impl Catalogue {
    /// The same catalogue for the same seed, sizes and time.
    pub fn generate(seed: u64, groups: usize, products: usize, dirty: bool, now: i64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut catalogue = Self::default();
        let lines = catalogue.grow_tree(&mut rng, groups, now);
        catalogue.products.reserve(products);
        for number in 0..products {
            let Some(line) = rng.choice(&lines) else {
                // Without a group every product would be an orphan; a clean catalogue has none.
                break;
            };
            let product = new_product(&mut rng, line, number, now);
            catalogue.products.push(product);
        }
        if dirty {
            catalogue.add_dirty_rows(now);
        }
        catalogue.remember_ids(GivenIds::default());
        catalogue
    }

    /// Grows the tree to `wanted` groups and returns the lines that products are made for.
    fn grow_tree(&mut self, rng: &mut Rng, wanted: usize, now: i64) -> Vec<ProductLine> {
        let mut lines = Vec::new();
        // The words run out at 128 groups; each further round is another series of the same lines.
        for series in 1_u32.. {
            let (mut top, mut middle) = (String::from("0"), String::from("0"));
            for row in ASSORTMENT.lines() {
                let level = Level::of(row);
                for entry in row.trim_start().split(';') {
                    if self.groups.len() >= wanted {
                        return lines;
                    }
                    let (chinese, english) = entry.split_once('|').unwrap_or((entry, entry));
                    let parent_id = match level {
                        Level::Top => "0".to_owned(),
                        Level::Middle => top.clone(),
                        Level::Leaf => middle.clone(),
                    };
                    let id = (FIRST_GROUP_ID + self.groups.len() as u64 * 13).to_string();
                    match level {
                        Level::Top => top.clone_from(&id),
                        Level::Middle => middle.clone_from(&id),
                        Level::Leaf => {}
                    }
                    let name = group_name(chinese, english, series);
                    let create_time = now - DAY * rng.i64(400..900) - rng.i64(0..DAY);
                    // Some groups above the leaves have products too, and the first one always.
                    if level == Level::Leaf || rng.u8(0..20) == 0 || lines.is_empty() {
                        let initials =
                            english.split([' ', '-']).filter_map(|word| word.chars().next()).collect();
                        lines.push(ProductLine { group_id: id.clone(), name: name.clone(), initials });
                    }
                    self.groups.push(Group {
                        id,
                        parent_id,
                        name,
                        create_time,
                        update_time: create_time + rng.i64(0..DAY * 200),
                        ..Group::default()
                    });
                }
            }
        }
        lines
    }

    /// Adds the bad rows that a real catalogue collects over the years.
    fn add_dirty_rows(&mut self, now: i64) {
        let group = |id: &str, parent: &str, name: &str| Group {
            id: id.into(),
            parent_id: parent.into(),
            name: name.into(),
            create_time: now - DAY,
            update_time: now - DAY,
            ..Group::default()
        };
        let repeated = self.groups.first().map_or("5203320130", |first| first.id.as_str()).to_owned();
        self.groups.push(group("", "0", "没有编号 Without Id"));
        self.groups.push(group("5903320001", "0", "   "));
        self.groups.push(group(&repeated, "0", "重复编号 Repeated Id"));
        self.groups.push(group("5903320002", "5999999999", "父级缺失 Missing Parent"));
        self.groups.push(group("5903320003", "5903320004", "循环甲 Cycle A"));
        self.groups.push(group("5903320004", "5903320003", "循环乙 Cycle B"));
        let lost = ProductLine {
            group_id: "5999999998".into(),
            name: "无此分组 No Such Group".into(),
            initials: "X".into(),
        };
        let known = ProductLine { group_id: repeated, name: "样品 Sample".into(), initials: "Y".into() };
        let mut rng = Rng::with_seed(0);
        let count = self.products.len();
        self.products.push(new_product(&mut rng, &lost, count, now));
        let mut nameless = new_product(&mut rng, &known, count + 1, now);
        nameless.name.clear();
        self.products.push(nameless);
        let mut without_id = new_product(&mut rng, &known, count + 2, now);
        without_id.product_id.clear();
        self.products.push(without_id);
    }
}

fn group_name(chinese: &str, english: &str, series: u32) -> String {
    match series {
        1 => format!("{chinese} {english}"),
        _ => format!("{chinese}{series}系 {english} Series {series}"),
    }
}

pub(super) fn new_product(rng: &mut Rng, line: &ProductLine, number: usize, now: i64) -> Product {
    let model = format!(
        "{}-{}{}",
        line.initials,
        1000 + number % 9000,
        rng.choice(['A', 'B', 'S', 'X']).unwrap_or('A')
    );
    let finish = rng.choice(FINISHES).unwrap_or("");
    let create_time = now - DAY * rng.i64(30..900) - rng.i64(0..DAY);
    let update_time = if number / 500 % 4 == 1 {
        // An import touches hundreds of rows in one second: more than a page shares an update_time.
        now - DAY * (10 + (number / 500 % 300) as i64)
    } else {
        rng.i64(create_time..now)
    };
    let cost = (rng.u8(0..20) > 0).then(|| price(rng));
    let fob_min = (rng.u8(0..10) > 0).then(|| price(rng));
    Product {
        product_id: (FIRST_PRODUCT_ID + number as u64 * ID_STEP).to_string(),
        product_no: format!("P{:06}", number + 1),
        name: format!("{} {model}{finish}", line.name),
        model,
        group_id: line.group_id.clone(),
        unit: rng.choice(UNITS).unwrap_or("PCS").into(),
        cost_with_tax: cost.as_deref().map(|digits| scaled(digits, 113)),
        cost,
        cost_currency: "CNY".into(),
        fob_currency: rng.choice(["USD", "USD", "USD", "EUR"]).unwrap_or("USD").into(),
        fob_max: fob_min.as_deref().map(|digits| scaled(digits, 125)),
        fob_min,
        enable_flag: 1,
        disable_flag: 0,
        product_type: if rng.u8(0..12) == 0 { 2 } else { 1 },
        create_time: create_time.min(update_time),
        update_time,
        extra: Map::new(),
    }
}

/// Prices as people type them: trailing zeros, three and four decimals, whole numbers.
pub(crate) fn price(rng: &mut Rng) -> String {
    match rng.u8(0..10) {
        0..=3 => format!("{}.{:02}", rng.u32(1..400), rng.u32(0..100)),
        4 => format!("0.{:03}", rng.u32(5..999)),
        5 => format!("{}.000", rng.u32(100..4000)),
        6 => format!("{}.{}0", rng.u32(500..4000), rng.u32(1..10)),
        7 => rng.u32(5..9000).to_string(),
        8 => format!("{}.{:03}", rng.u32(1..60), rng.u32(0..1000)),
        _ => format!("0.{:04}", rng.u32(10..9999)),
    }
}

/// A price times `percent`, with as many decimals as before; always another price than before.
pub(super) fn scaled(digits: &str, percent: u64) -> String {
    let decimals = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let Ok(mantissa) = digits.replace('.', "").parse::<u64>() else {
        return "1.00".into();
    };
    let mut result = mantissa.saturating_mul(percent) / 100;
    if result == mantissa {
        result += 1;
    }
    if decimals == 0 {
        return result.to_string();
    }
    let padded = format!("{result:0>width$}", width = decimals + 1);
    let (whole, fraction) = padded.split_at(padded.len() - decimals);
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_gives_one_catalogue_three_levels_deep() {
        let one = Catalogue::generate(7, 300, 2000, false, 1_800_000_000);
        let two = Catalogue::generate(7, 300, 2000, false, 1_800_000_000);
        assert_eq!(format!("{one:?}"), format!("{two:?}"));
        assert_eq!((one.groups.len(), one.products.len()), (300, 2000));
        let ids: HashSet<&str> = one.groups.iter().map(|group| group.id.as_str()).collect();
        assert_eq!(ids.len(), 300);
        assert!(one.products.iter().all(|product| ids.contains(product.group_id.as_str())));
        let parent =
            |id: &str| one.groups.iter().find(|group| group.id == id).map(|group| group.parent_id.clone());
        assert!(one.groups.iter().any(|leaf| {
            parent(&leaf.parent_id).and_then(|id| parent(&id)).is_some_and(|root| root == "0")
        }));
    }

    #[test]
    fn prices_keep_their_decimals() {
        assert_eq!(scaled("2999.10", 104), "3119.06");
        assert_eq!(scaled("0.035", 104), "0.036");
        assert_eq!(scaled("0.005", 104), "0.006");
        assert_eq!(scaled("1840.000", 113), "2079.200");
        assert_eq!(scaled("5999", 104), "6238");
    }
}
