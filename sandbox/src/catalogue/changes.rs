//! How people change a catalogue, and how pages move under a reader.

use std::collections::HashMap;

use fastrand::Rng;

use super::generate::{FIRST_GROUP_ID, ProductLine, new_product, scaled};
use super::{Catalogue, Group, Product};

impl Catalogue {
    /// Applies an edit and sets the update time of each product that it changed or added.
    pub(crate) fn edit(&mut self, f: impl FnOnce(&mut Self), now: i64) {
        let before: HashMap<String, Product> =
            self.products.iter().map(|product| (product.product_id.clone(), product.clone())).collect();
        f(self);
        for product in &mut self.products {
            if before.get(&product.product_id) != Some(product) {
                product.update_time = now;
            }
        }
    }

    /// One working day in the shop: a group renamed, one moved, one added; about 15 prices changed; products added,
    /// marked as deleted, and removed without a trace.
    pub(crate) fn simulate_edits(&mut self, rng: &mut Rng, now: i64) {
        let is_root = |group: &&Group| group.parent_id == "0" && !["", "0"].contains(&group.id.as_str());
        let root = self.groups.iter().find(is_root).cloned();
        self.move_a_leaf(root.as_ref(), now);
        self.rename_a_group(rng, now);
        let line = self.add_group(root, now);
        for _ in 0..2.min(self.products.len().saturating_sub(20)) {
            let at = rng.usize(0..self.products.len());
            self.products.remove(at);
        }
        self.edit_products(rng, now);
        for _ in 0..3 {
            self.add_product(&line, rng, now);
        }
    }

    fn move_a_leaf(&mut self, root: Option<&Group>, now: i64) {
        let children: HashMap<&str, &str> =
            self.groups.iter().map(|group| (group.parent_id.as_str(), group.id.as_str())).collect();
        let leaf = self
            .groups
            .iter()
            .rposition(|group| !group.id.is_empty() && !children.contains_key(group.id.as_str()));
        if let (Some(leaf), Some(root)) = (leaf.and_then(|at| self.groups.get_mut(at)), root)
            && leaf.id != root.id
        {
            // Moved to the top if it is already below the first root, so that something always moves.
            leaf.parent_id = if leaf.parent_id == root.id { "0".into() } else { root.id.clone() };
            leaf.update_time = now;
        }
    }

    fn rename_a_group(&mut self, rng: &mut Rng, now: i64) {
        if self.groups.is_empty() {
            return;
        }
        let at = rng.usize(0..self.groups.len());
        // Nobody can rename 未分组.
        if let Some(group) = self.groups.get_mut(at).filter(|group| group.id != "0") {
            group.name.push_str("（新）");
            group.update_time = now;
        }
    }

    fn add_group(&mut self, root: Option<Group>, now: i64) -> ProductLine {
        let last = self.groups.iter().filter_map(|group| group.id.parse::<u64>().ok()).max();
        let group = Group {
            id: last.map_or(FIRST_GROUP_ID, |id| id + 13).to_string(),
            parent_id: root.map_or_else(|| "0".into(), |group| group.id),
            name: "展会新品 Trade Fair Novelties".into(),
            create_time: now,
            update_time: now,
            ..Group::default()
        };
        let line =
            ProductLine { group_id: group.id.clone(), name: group.name.clone(), initials: "TFN".into() };
        self.groups.push(group);
        line
    }

    /// 15 new prices and two deletions, at random.
    fn edit_products(&mut self, rng: &mut Rng, now: i64) {
        for turn in 0..17.min(self.products.len()) {
            let at = rng.usize(0..self.products.len());
            let Some(product) = self.products.get_mut(at) else { continue };
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

    fn add_product(&mut self, line: &ProductLine, rng: &mut Rng, now: i64) {
        let mut product = new_product(rng, line, self.products.len(), now);
        product.product_id = self.new_product_id();
        product.create_time = now;
        product.update_time = now;
        self.products.push(product);
    }

    /// A new product in the group of a random one; `None` if there is no group.
    pub(crate) fn draw_product(&mut self, rng: &mut Rng, now: i64) -> Option<Product> {
        let group_id = match rng.choice(&self.products) {
            Some(product) => product.group_id.clone(),
            None => self.groups.first()?.id.clone(),
        };
        let line = ProductLine { group_id, name: "新产品 New Arrival".into(), initials: "NA".into() };
        let id = self.new_product_id();
        let mut product = new_product(rng, &line, self.given_ids.count(), now);
        product.product_id = id;
        product.create_time = now;
        product.update_time = now;
        Some(product)
    }

    fn product_ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.products.iter().filter_map(|product| product.product_id.parse().ok())
    }

    /// Moves the page borders under a reader. A new first product and the loss of the last one makes rows
    /// come twice under an unchanged total; the loss of the first one alone makes a row be skipped.
    pub(crate) fn shift_pages(&mut self, overlap: bool, rng: &mut Rng, now: i64) {
        let Some(first) = self.product_ids().min() else { return };
        if !overlap {
            self.products.retain(|product| product.product_id != first.to_string());
            return;
        }
        let last = self.product_ids().max().unwrap_or(first);
        let group_id = self.products.first().map(|product| product.group_id.clone()).unwrap_or_default();
        let line = ProductLine { group_id, name: "补录产品 Late Entry".into(), initials: "LE".into() };
        let mut product = new_product(rng, &line, self.products.len(), now);
        product.product_id = self.new_lowest_product_id();
        product.update_time = now;
        self.products.push(product);
        self.products.retain(|product| product.product_id != last.to_string());
    }

    /// The first product goes and another comes at the end: every row between moves up by one place, and the
    /// total stays what it was.
    pub(crate) fn swap_rows(&mut self, rng: &mut Rng, now: i64) {
        let Some(first) = self.product_ids().min() else { return };
        let group_id = self.products.first().map(|product| product.group_id.clone()).unwrap_or_default();
        let line = ProductLine { group_id, name: "替换产品 Replacement".into(), initials: "RP".into() };
        self.add_product(&line, rng, now);
        self.products.retain(|product| product.product_id != first.to_string());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn changes_work_on_catalogues_of_any_size() {
        for size in [0, 1, 5, 200] {
            let mut catalogue = Catalogue::generate(1, size, size, size == 5, 1_800_000_000);
            let before = format!("{catalogue:?}");
            catalogue.simulate_edits(&mut Rng::with_seed(2), 1_800_000_100);
            catalogue.shift_pages(true, &mut Rng::with_seed(2), 1_800_000_200);
            catalogue.shift_pages(false, &mut Rng::with_seed(2), 1_800_000_200);
            assert_ne!(before, format!("{catalogue:?}"));
            let (total, first) = (catalogue.products.len(), catalogue.product_ids().min());
            catalogue.swap_rows(&mut Rng::with_seed(2), 1_800_000_300);
            assert_eq!(catalogue.products.len(), total);
            assert!(first.is_none() || catalogue.product_ids().min() != first);
        }
    }

    #[test]
    fn the_id_of_a_deleted_product_does_not_come_again() {
        let mut catalogue = Catalogue::generate(1, 5, 200, false, 1_800_000_000);
        let mut rng = Rng::with_seed(2);
        let mut seen: HashSet<u64> = catalogue.product_ids().collect();
        for round in 0..40 {
            let before: HashSet<u64> = catalogue.product_ids().collect();
            match round % 4 {
                0 => {
                    let product = catalogue.draw_product(&mut rng, 1_800_000_100).unwrap();
                    catalogue.products.push(product);
                }
                1 => catalogue.simulate_edits(&mut rng, 1_800_000_100),
                2 => catalogue.shift_pages(true, &mut rng, 1_800_000_100),
                _ => catalogue.swap_rows(&mut rng, 1_800_000_100),
            }
            let new: Vec<u64> = catalogue.product_ids().filter(|id| !before.contains(id)).collect();
            assert!(!new.is_empty() && new.into_iter().all(|id| seen.insert(id)), "round {round}");
            let (oldest, newest) = (catalogue.product_ids().min(), catalogue.product_ids().max());
            catalogue.products.retain(|product| {
                let id = product.product_id.parse().ok();
                id != oldest && id != newest
            });
        }
    }

    #[test]
    fn an_earlier_catalogue_put_back_does_not_free_the_ids_of_the_later_one() {
        let sandbox = crate::tests::small(|_| ());
        let before = sandbox.catalogue();
        let first = sandbox.import(1);
        sandbox.edit(|catalogue| *catalogue = before);
        assert_ne!(sandbox.import(1), first);
    }
}
