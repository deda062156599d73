//! The catalogue that the benchmark's OKKI serves: rendered once, held as one text, sliced into pages.
//!
//! A row has the same fields, in the same order and of about the same length, as a row of `okki-sync sandbox`.

use std::fmt::Write as _;

use bytes::Bytes;
use fastrand::Rng;

const KINDS: [&str; 12] = [
    "太阳能路灯 Solar Street Lights",
    "高棚灯 High Bay Lights",
    "扳手 Wrenches",
    "自攻螺钉 Self-Tapping Screws",
    "不粘锅 Non-Stick Pans",
    "竹筷 Bamboo Chopsticks",
    "床上四件套 Bedding Sets",
    "反光背心 Safety Vests",
    "蓝牙耳机 Bluetooth Earphones",
    "刹车片 Brake Pads",
    "热敏标签 Thermal Labels",
    "PPR管件 PPR Fittings",
];
const FINISHES: [&str; 10] = [
    "",
    " IP65",
    " 不锈钢 Stainless Steel",
    " 黑色 Black",
    " 304",
    " \\\"Pro\\\"",
    " 1/2\\\"",
    " CE/RoHS",
    " 加厚 Heavy-Duty",
    " OEM",
];
const UNITS: [&str; 6] = ["PCS", "SET", "KG", "M", "CTN", "PAIR"];
const FIRST_GROUP_ID: u64 = 5_203_320_130;
const FIRST_PRODUCT_ID: u64 = 37_004_000_100;
const DAY: i64 = 86_400;
const UPDATED: &str = "\"update_time\":\"";

/// Where a row stands in the text, and its times as OKKI writes them (they compare as they sort).
#[derive(Clone)]
pub struct Place {
    pub from: usize,
    pub to: usize,
    pub created: String,
    pub updated: String,
}

#[derive(Clone)]
pub struct Catalogue {
    pub groups: Bytes,
    /// All products in the order of their ids, with commas between them: any page is one slice.
    pub products: Bytes,
    pub places: Vec<Place>,
}

impl Catalogue {
    /// The same text for the same sizes and time.
    pub fn generate(groups: usize, products: usize, made_at: i64) -> Self {
        let mut rng = Rng::with_seed(7);
        let mut text = String::from("[");
        let mut leaves: Vec<(u64, String)> = Vec::new();
        for number in 0..groups {
            // Of sixteen groups one is a root, three hang below it, and twelve leaves below those.
            let (root, at) = (number - number % 16, number % 16);
            let id = |number: usize| FIRST_GROUP_ID + number as u64 * 13;
            let above = |middle: usize| format!("0-{}-{}-", id(root), id(root + middle));
            let (parent, layer, prefix) = match at {
                0 => (0, 1, "0-".to_owned()),
                1..=3 => (id(root), 2, format!("0-{}-", id(root))),
                _ => (id(root + 1 + at % 3), 3, above(1 + at % 3)),
            };
            let name = format!("{} Series {}", KINDS[number % KINDS.len()], 1 + number / KINDS.len());
            let created = made_at - DAY * rng.i64(400..900) - rng.i64(0..DAY);
            let updated = created + rng.i64(0..DAY * 200);
            let comma = if number > 0 { "," } else { "" };
            let _ = write!(
                text,
                r#"{comma}{{"id":{},"parent_id":{parent},"layer":{layer},"prefix":"{prefix}","name":"{name}","name_info":{{"info_label":"{name}","info_value":"{name}"}},"client_id":"365249","user_id":"0","create_user":"249525942","create_time":"{}","update_time":"{}","description":"","order_rank":"0","relate_id":"0","system_flag":"0","is_sys":"0","rank":"0"}}"#,
                id(number),
                beijing(created),
                beijing(updated),
            );
            if at > 3 || groups < 5 {
                leaves.push((id(number), name));
            }
        }
        text.push(']');

        let mut rows = String::with_capacity(products * 1_000);
        let mut places = Vec::with_capacity(products);
        for number in 0..products {
            if number > 0 {
                rows.push(',');
            }
            let from = rows.len();
            let (group_id, group) = &leaves[rng.usize(..leaves.len())];
            let created = made_at - DAY * rng.i64(30..900) - rng.i64(0..DAY);
            let updated = rng.i64(created..made_at);
            let (created, updated) = (beijing(created), beijing(updated));
            product(&mut rows, &mut rng, number, *group_id, group, &created, &updated);
            places.push(Place { from, to: rows.len(), created, updated });
        }
        Self { groups: text.into(), products: rows.into(), places }
    }

    /// The text of the rows of a page, numbered from 1.
    pub fn page(&self, page: usize, size: usize) -> Bytes {
        let first = (page - 1).saturating_mul(size);
        match self.places.get(first..self.places.len().min(first + size)) {
            Some([first, .., last]) => self.products.slice(first.from..last.to),
            Some([only]) => self.products.slice(only.from..only.to),
            _ => Bytes::new(),
        }
    }

    /// Renames the product in the middle, as a person would: the row keeps its length, `update_time` moves.
    pub fn change_one(&mut self, now: i64) {
        let Some(place) = self.places.len().checked_div(2).and_then(|at| self.places.get_mut(at)) else {
            return;
        };
        let mut text = self.products.to_vec();
        let row = &mut text[place.from..place.to];
        let name = memchr::memmem::find(row, b"\"name\":\"").map(|at| at + 8);
        let updated = memchr::memmem::find(row, UPDATED.as_bytes()).map(|at| at + UPDATED.len());
        if let (Some(name), Some(updated)) = (name, updated) {
            // The first letter of a name is three bytes of Chinese or one of ASCII; both give way to the next round.
            let length = if row[name] < 0x80 { 1 } else { 3 };
            let other = if length == 1 {
                "Q"
            } else if row[name..].starts_with("新".as_bytes()) {
                "旧"
            } else {
                "新"
            };
            row[name..name + length].copy_from_slice(other.as_bytes());
            place.updated = beijing(now);
            row[updated..updated + 19].copy_from_slice(place.updated.as_bytes());
        }
        self.products = text.into();
    }
}

fn product(
    out: &mut String,
    rng: &mut Rng,
    number: usize,
    group_id: u64,
    group: &str,
    created: &str,
    updated: &str,
) {
    let id = FIRST_PRODUCT_ID + number as u64 * 7;
    let model = format!("{}-{}{}", &group[group.len() - 3..].trim(), 1000 + number % 9000, rng.alphabetic());
    let finish = FINISHES[rng.usize(..FINISHES.len())];
    let unit = UNITS[rng.usize(..UNITS.len())];
    let (cost, with_tax) =
        if rng.u8(0..20) > 0 { (price(rng), price(rng)) } else { ("null".to_owned(), "null".to_owned()) };
    let (fob_min, fob_max) =
        if rng.u8(0..10) > 0 { (price(rng), price(rng)) } else { ("null".to_owned(), "null".to_owned()) };
    let kind = if rng.u8(0..12) == 0 { 2 } else { 1 };
    let _ = write!(
        out,
        r#"{{"product_id":{id},"product_no":"P{:06}","product_type":{kind},"name":"{group} {model}{finish}","model":"{model}","group_id":{group_id},"group_name":"{group}","category_ids":[],"unit":"{unit}","cost":{cost},"cost_currency":"CNY","cost_with_tax":{with_tax},"cost_unit":"{unit}","fob":{{"price_currency":"USD","price_min":{fob_min},"price_max":{fob_max},"price_unit":"{unit}"}},"minimum_order_quantity":100,"enable_flag":1,"disable_flag":0,"image":"","images":[],"description":"","product_remark":"","hs_code":"","from_url":"","package_remark":"","info_json":[],"package_gross_weight":0.500,"count_per_package":10,"source_type":"1","create_user":"249525942","create_time":"{created}",{UPDATED}{updated}"}}"#,
        number + 1,
    );
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

/// A time as OKKI writes it: Beijing, `YYYY-MM-DD HH:MM:SS`.
pub fn beijing(unix: i64) -> String {
    let local = unix + 8 * 3600;
    let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    // Days to a date, by eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}
