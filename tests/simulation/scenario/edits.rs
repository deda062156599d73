//! What people do to a catalogue, beyond a working day.

use std::collections::HashSet;

use fastrand::Rng;
use okki_sync_sandbox::catalogue::Catalogue;

pub(super) fn rename_everything(catalogue: &mut Catalogue) {
    catalogue.products.iter_mut().for_each(|product| product.name.push('+'));
    catalogue.groups.iter_mut().for_each(|group| group.name.push('+'));
}

pub(super) fn undelete(catalogue: &mut Catalogue) {
    catalogue.products.iter_mut().for_each(|product| product.enable_flag = 1);
}

pub(super) fn remove_some(catalogue: &mut Catalogue, rng: &mut Rng) {
    let share = *rng.choice(&[1, 3, 10, 100]).unwrap();
    catalogue.products.retain(|_| rng.u8(0..100) >= share);
    if rng.bool() {
        catalogue.groups.retain(|_| rng.u8(0..100) >= share);
    }
}

/// Offenders of every sort: repeated ids, blank names, products of no group, orphans.
pub(super) fn add_dirty_rows(catalogue: &mut Catalogue, twins: bool, rng: &mut Rng) {
    for _ in 0..rng.u8(1..4) {
        let (groups, products) = (catalogue.groups.len(), catalogue.products.len());
        match rng.u8(0..6) {
            0 if products > 0 && twins => {
                let mut twin = catalogue.products[rng.usize(0..products)].clone();
                twin.name.push_str(" twin");
                catalogue.products.push(twin);
            }
            1 if products > 0 => catalogue.products[rng.usize(0..products)].name = " ".to_owned(),
            2 if products > 0 => catalogue.products[rng.usize(0..products)].group_id = "999".to_owned(),
            3 if groups > 0 => catalogue.groups[rng.usize(0..groups)].name = "\t".to_owned(),
            4 if groups > 0 => catalogue.groups[rng.usize(0..groups)].parent_id = "998".to_owned(),
            5 if groups > 0 => {
                let mut twin = catalogue.groups[rng.usize(0..groups)].clone();
                twin.name.push_str(" twin");
                catalogue.groups.push(twin);
            }
            _ => {}
        }
    }
}

/// Adds groups and products with new ids.
pub(super) fn grow(catalogue: &mut Catalogue, fresh: Catalogue) {
    let group_id = catalogue.groups.iter().map(|group| group.id.clone()).find(|id| !id.is_empty());
    let known: HashSet<String> = catalogue.groups.iter().map(|group| group.id.clone()).collect();
    for group in fresh.groups {
        if !known.contains(&group.id) && group.parent_id == "0" {
            catalogue.groups.push(group);
        }
    }
    for mut product in fresh.products {
        product.product_id = catalogue.new_product_id();
        if let Some(group_id) = &group_id {
            product.group_id.clone_from(group_id);
        }
        catalogue.products.push(product);
    }
}
