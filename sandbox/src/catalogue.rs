//! The sandbox's catalogue: a seeded foreign-trade assortment of any size, and how people change it.

use std::collections::HashMap;

use fastrand::Rng;
use serde_json::{Map, Value};

/// What the sandbox sells: top group, then middle group, then its leaves, each "Chinese|English".
const ASSORTMENT: &str = "\
LED灯具|LED Lighting
 户外照明|Outdoor Lighting
  太阳能路灯|Solar Street Lights;投光灯|Flood Lights;草坪灯|Lawn Lights;庭院灯|Garden Lights
 室内照明|Indoor Lighting
  面板灯|Panel Lights;筒灯|Downlights;灯带|Strip Lights;吊灯|Pendant Lamps
 工业照明|Industrial Lighting
  高棚灯|High Bay Lights;防爆灯|Explosion-Proof Lights;三防灯|Tri-Proof Lights;隧道灯|Tunnel Lights
五金工具|Hardware & Tools
 手动工具|Hand Tools
  扳手|Wrenches;螺丝刀|Screwdrivers;钳子|Pliers;锤子|Hammers
 电动工具|Power Tools
  电钻|Electric Drills;角磨机|Angle Grinders;电锯|Circular Saws;热风枪|Heat Guns
 紧固件|Fasteners
  螺栓|Bolts;螺母|Nuts;自攻螺钉|Self-Tapping Screws;铆钉|Rivets
厨房用品|Kitchenware
 炊具|Cookware
  不粘锅|Non-Stick Pans;汤锅|Stock Pots;压力锅|Pressure Cookers;烤盘|Baking Trays
 餐具|Tableware
  不锈钢刀叉|Stainless Steel Cutlery;骨瓷餐盘|Bone China Plates;玻璃杯|Glass Tumblers;竹筷|Bamboo Chopsticks
 小家电|Small Appliances
  电热水壶|Electric Kettles;空气炸锅|Air Fryers;搅拌机|Blenders;咖啡机|Coffee Makers
纺织品|Textiles
 家纺|Home Textiles
  床上四件套|Bedding Sets;窗帘|Curtains;毛巾|Towels;地毯|Carpets
 面料|Fabrics
  棉布|Cotton Fabric;牛仔布|Denim;涤纶布|Polyester Fabric;亚麻布|Linen Fabric
 工作服|Workwear
  反光背心|Safety Vests;劳保手套|Work Gloves;连体服|Coveralls;安全鞋|Safety Shoes
消费电子|Consumer Electronics
 手机配件|Phone Accessories
  充电器|Chargers;数据线|USB-C Cables;手机壳|Phone Cases;移动电源|Power Banks
 音频设备|Audio
  蓝牙耳机|Bluetooth Earphones;便携音箱|Portable Speakers;麦克风|Microphones;回音壁|Soundbars
 智能家居|Smart Home
  智能插座|Smart Plugs;智能门锁|Smart Locks;摄像头|IP Cameras;温控器|Thermostats
汽配|Auto Parts
 制动系统|Brake Systems
  刹车片|Brake Pads;刹车盘|Brake Discs;制动软管|Brake Hoses;卡钳|Calipers
 滤清器|Filters
  机油滤清器|Oil Filters;空气滤清器|Air Filters;燃油滤清器|Fuel Filters;空调滤芯|Cabin Filters
 车灯|Vehicle Lamps
  大灯总成|Headlight Assemblies;尾灯|Tail Lamps;雾灯|Fog Lamps;工作灯|Work Lamps
包装材料|Packaging
 纸包装|Paper Packaging
  瓦楞纸箱|Corrugated Boxes;礼品盒|Gift Boxes;牛皮纸袋|Kraft Paper Bags;蜂窝纸|Honeycomb Paper
 塑料包装|Plastic Packaging
  拉链袋|Zip-Lock Bags;缠绕膜|Stretch Film;气泡膜|Bubble Wrap;吸塑盒|Blister Trays
 标签|Labels
  热敏标签|Thermal Labels;RFID标签|RFID Labels;防伪标签|Security Labels;吊牌|Hang Tags
泵阀管件|Pumps & Valves
 水泵|Water Pumps
  离心泵|Centrifugal Pumps;潜水泵|Submersible Pumps;增压泵|Booster Pumps;隔膜泵|Diaphragm Pumps
 阀门|Valves
  球阀|Ball Valves;蝶阀|Butterfly Valves;闸阀|Gate Valves;电磁阀|Solenoid Valves
 管件|Pipe Fittings
  PPR管件|PPR Fittings;法兰|Flanges;快速接头|Quick Couplings;软管|Flexible Hoses";

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
const FIRST_GROUP_ID: u64 = 5_203_320_130;
const FIRST_PRODUCT_ID: u64 = 37_004_000_100;
const DAY: i64 = 86_400;

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

/// A leaf of the assortment, from which product names are made.
struct Kind {
    group_id: String,
    name: String,
    initials: String,
}

impl Catalogue {
    /// The same catalogue for the same seed, sizes and time.
    pub fn generate(seed: u64, groups: usize, products: usize, dirty: bool, now: i64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut catalogue = Self::default();
        let kinds = catalogue.grow_tree(&mut rng, groups, now);
        catalogue.products.reserve(products);
        for number in 0..products {
            let Some(kind) = rng.choice(&kinds) else {
                // Without a single group every product would be an orphan; a clean catalogue has none.
                break;
            };
            let product = make_product(&mut rng, kind, number, now);
            catalogue.products.push(product);
        }
        if dirty {
            catalogue.soil(now);
        }
        catalogue
    }

    fn grow_tree(&mut self, rng: &mut Rng, wanted: usize, now: i64) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let mut series = 1_u32;
        while self.groups.len() < wanted {
            let mut path = [String::from("0"), String::from("0")];
            for line in ASSORTMENT.lines() {
                let depth = line.len() - line.trim_start().len();
                for entry in line.trim_start().split(';') {
                    if self.groups.len() == wanted {
                        break;
                    }
                    let (chinese, english) = entry.split_once('|').unwrap_or((entry, entry));
                    let name = if series == 1 {
                        format!("{chinese} {english}")
                    } else {
                        // The words run out at 128 groups; later rounds are further product lines.
                        format!("{chinese}{series}系 {english} Series {series}")
                    };
                    let parent = match depth {
                        0 => "0".to_owned(),
                        1 => path[0].clone(),
                        _ => path[1].clone(),
                    };
                    let id = (FIRST_GROUP_ID + self.groups.len() as u64 * 13).to_string();
                    let created = now - DAY * rng.i64(400..900) - rng.i64(0..DAY);
                    if depth == 0 {
                        path[0].clone_from(&id);
                    } else if depth == 1 {
                        path[1].clone_from(&id);
                    }
                    if depth == 2 || rng.u8(0..20) == 0 || kinds.is_empty() {
                        let initials =
                            english.split([' ', '-']).filter_map(|word| word.chars().next()).collect();
                        kinds.push(Kind { group_id: id.clone(), name: name.clone(), initials });
                    }
                    self.groups.push(Group {
                        id,
                        parent_id: parent,
                        name,
                        create_time: created,
                        update_time: created + rng.i64(0..DAY * 200),
                        ..Group::default()
                    });
                }
            }
            series += 1;
        }
        kinds
    }

    /// Adds the offenders that a real catalogue collects over the years.
    fn soil(&mut self, now: i64) {
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
        let lost = Kind {
            group_id: "5999999998".into(),
            name: "无此分组 No Such Group".into(),
            initials: "X".into(),
        };
        let known = Kind { group_id: repeated, name: "样品 Sample".into(), initials: "Y".into() };
        let mut rng = Rng::with_seed(0);
        let count = self.products.len();
        self.products.push(make_product(&mut rng, &lost, count, now));
        let mut nameless = make_product(&mut rng, &known, count + 1, now);
        nameless.name.clear();
        self.products.push(nameless);
        let mut without_id = make_product(&mut rng, &known, count + 2, now);
        without_id.product_id.clear();
        self.products.push(without_id);
    }

    /// One working day in the shop: a group renamed, one moved, one added; about 15 prices changed;
    /// products added, marked deleted, and gone without a word.
    pub(super) fn change_as_people_do(&mut self, rng: &mut Rng, now: i64) {
        let names: HashMap<&str, &str> =
            self.groups.iter().map(|group| (group.parent_id.as_str(), group.id.as_str())).collect();
        let leaf = self
            .groups
            .iter()
            .rposition(|group| !group.id.is_empty() && !names.contains_key(group.id.as_str()));
        let root = self.groups.iter().find(|group| group.parent_id == "0" && !group.id.is_empty()).cloned();
        if let (Some(leaf), Some(root)) = (leaf.and_then(|at| self.groups.get_mut(at)), &root)
            && leaf.id != root.id
        {
            // Moved to the top if it already hangs there, so that something always moves.
            leaf.parent_id = if leaf.parent_id == root.id { "0".into() } else { root.id.clone() };
            leaf.update_time = now;
        }
        if !self.groups.is_empty() {
            let at = rng.usize(0..self.groups.len());
            if let Some(group) = self.groups.get_mut(at) {
                group.name.push_str("（新）");
                group.update_time = now;
            }
        }
        let next = self.groups.iter().filter_map(|group| group.id.parse::<u64>().ok()).max();
        let added = Group {
            id: next.map_or(FIRST_GROUP_ID, |id| id + 13).to_string(),
            parent_id: root.map_or_else(|| "0".into(), |group| group.id),
            name: "展会新品 Trade Fair Novelties".into(),
            create_time: now,
            update_time: now,
            ..Group::default()
        };
        let kind = Kind { group_id: added.id.clone(), name: added.name.clone(), initials: "TFN".into() };
        self.groups.push(added);

        for _ in 0..2.min(self.products.len().saturating_sub(20)) {
            let at = rng.usize(0..self.products.len());
            self.products.remove(at);
        }
        for turn in 0..17.min(self.products.len()) {
            let at = rng.usize(0..self.products.len());
            if let Some(product) = self.products.get_mut(at) {
                product.update_time = now;
                if turn < 15 {
                    let old = product.cost.take().unwrap_or_else(|| "9.90".into());
                    product.cost_with_tax = Some(scaled(&old, 118));
                    product.cost = Some(scaled(&old, 104));
                } else {
                    product.enable_flag = 0;
                }
            }
        }
        for _ in 0..3 {
            self.add_product(&kind, rng, now);
        }
    }

    fn add_product(&mut self, kind: &Kind, rng: &mut Rng, now: i64) {
        let last = self.product_ids().max().unwrap_or(FIRST_PRODUCT_ID);
        let mut product = make_product(rng, kind, self.products.len(), now);
        product.product_id = (last + 7).to_string();
        product.create_time = now;
        product.update_time = now;
        self.products.push(product);
    }

    fn product_ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.products.iter().filter_map(|product| product.product_id.parse().ok())
    }

    /// Moves the page borders under a reader. A new first product and the loss of the last one makes rows
    /// come twice under an unchanged total; the loss of the first one alone makes a row be skipped.
    pub(super) fn shift_pages(&mut self, overlap: bool, rng: &mut Rng, now: i64) {
        let Some(first) = self.product_ids().min() else { return };
        if !overlap {
            self.products.retain(|product| product.product_id != first.to_string());
            return;
        }
        let last = self.product_ids().max().unwrap_or(first);
        let group_id = self.products.first().map(|product| product.group_id.clone()).unwrap_or_default();
        let kind = Kind { group_id, name: "补录产品 Late Entry".into(), initials: "LE".into() };
        let mut product = make_product(rng, &kind, self.products.len(), now);
        product.product_id = first.saturating_sub(1).to_string();
        product.update_time = now;
        self.products.push(product);
        self.products.retain(|product| product.product_id != last.to_string());
    }

    /// The first product goes and another comes at the end: every row between moves up by one place, and the
    /// total stays what it was.
    pub(super) fn swap_rows(&mut self, rng: &mut Rng, now: i64) {
        let Some(first) = self.product_ids().min() else { return };
        let group_id = self.products.first().map(|product| product.group_id.clone()).unwrap_or_default();
        let kind = Kind { group_id, name: "替换产品 Replacement".into(), initials: "RP".into() };
        self.add_product(&kind, rng, now);
        self.products.retain(|product| product.product_id != first.to_string());
    }
}

fn make_product(rng: &mut Rng, kind: &Kind, number: usize, now: i64) -> Product {
    let model = format!(
        "{}-{}{}",
        kind.initials,
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
        product_id: (FIRST_PRODUCT_ID + number as u64 * 7).to_string(),
        product_no: format!("P{:06}", number + 1),
        name: format!("{} {model}{finish}", kind.name),
        model,
        group_id: kind.group_id.clone(),
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
fn price(rng: &mut Rng) -> String {
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
fn scaled(digits: &str, percent: u64) -> String {
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

    #[test]
    fn changes_work_on_catalogues_of_any_size() {
        for size in [0, 1, 5, 200] {
            let mut catalogue = Catalogue::generate(1, size, size, size == 5, 1_800_000_000);
            let before = format!("{catalogue:?}");
            catalogue.change_as_people_do(&mut Rng::with_seed(2), 1_800_000_100);
            catalogue.shift_pages(true, &mut Rng::with_seed(2), 1_800_000_200);
            catalogue.shift_pages(false, &mut Rng::with_seed(2), 1_800_000_200);
            assert_ne!(before, format!("{catalogue:?}"));
            let (total, first) = (catalogue.products.len(), catalogue.product_ids().min());
            catalogue.swap_rows(&mut Rng::with_seed(2), 1_800_000_300);
            assert_eq!(catalogue.products.len(), total);
            assert!(first.is_none() || catalogue.product_ids().min() != first);
        }
    }
}
