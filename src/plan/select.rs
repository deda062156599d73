//! Which rows are meant by ids that a person names.
//!
//! An id is that of a row at the target. A product that is an item stands for the row of its group; a group whose
//! products are rows, named as a group, stands for these rows. A row in the quarantine is known, and has nothing to send.

use std::collections::{HashMap, HashSet};

use super::nearest_ids;
use super::rows::{RowRef, rows};
use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN};
use crate::error::{Error, ErrorKind, Result};
use crate::transform::RowUnit;

/// Ids that look like an unknown one, named in its error.
pub(crate) const NEAREST: usize = 3;

/// The rows that are meant.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub rows: HashSet<RowRef>,
    /// Ids of rows in the quarantine that are meant.
    pub rejected: HashSet<String>,
}

impl Selection {
    /// The rows of these ids, and those of these groups. An id that nobody knows is an error that names the nearest.
    pub(crate) fn of(
        catalogue: &Catalogue,
        unit: RowUnit,
        ids: &[String],
        groups: &[String],
    ) -> Result<Self> {
        let index = Index::of(catalogue, unit);
        let mut selection = Self::default();
        for id in ids {
            match index.row(id) {
                Some(row) => drop(selection.rows.insert(row)),
                None if index.rejected.contains(id.as_str()) => drop(selection.rejected.insert(id.clone())),
                None => return Err(index.unknown(id, "row")),
            }
        }
        for id in groups {
            match index.groups.get(id.as_str()) {
                Some(group) if unit == RowUnit::Group => drop(selection.rows.insert(RowRef::Group(*group))),
                Some(group) => {
                    let of_group = rows(catalogue, unit)
                        .filter(|row| matches!(row, RowRef::Product(of, _) if of == group));
                    selection.rows.extend(of_group);
                }
                None if index.rejected.contains(id.as_str()) => drop(selection.rejected.insert(id.clone())),
                None => return Err(index.unknown(id, "group")),
            }
        }
        Ok(selection)
    }
}

struct Index<'c> {
    unit: RowUnit,
    groups: HashMap<&'c str, usize>,
    /// The group and the row of each product.
    products: HashMap<&'c str, (usize, u32)>,
    rejected: HashSet<&'c str>,
}

impl<'c> Index<'c> {
    fn of(catalogue: &'c Catalogue, unit: RowUnit) -> Self {
        let groups = catalogue.groups.iter().enumerate().map(|(at, group)| (group.id.as_str(), at));
        let product = |(group, row): (usize, u32)| {
            (catalogue.product_cells.cell(row as usize, PRODUCT_ID_COLUMN), (group, row))
        };
        let rejected = catalogue.rejected.iter().filter_map(|row| row.id.as_deref());
        Self {
            unit,
            groups: groups.collect(),
            products: catalogue.placed_products().map(product).collect(),
            rejected: rejected.chain(catalogue.quarantined_ids.iter().map(|id| id.as_str())).collect(),
        }
    }

    fn row(&self, id: &str) -> Option<RowRef> {
        let product = self.products.get(id);
        match self.unit {
            RowUnit::Product => product.map(|(group, row)| RowRef::Product(*group, *row)),
            RowUnit::Group => {
                self.groups.get(id).or(product.map(|(group, _)| group)).map(|group| RowRef::Group(*group))
            }
        }
    }

    fn unknown(&self, id: &str, what: &str) -> Error {
        let is_group = what == "group" || self.unit == RowUnit::Group;
        let groups = self.groups.keys().filter(|_| is_group).copied();
        let products = self.products.keys().filter(|_| what == "row").copied();
        let near = nearest_ids(id, groups.chain(products).chain(self.rejected.iter().copied()), NEAREST);
        unknown_id(id, what, &near)
    }
}

/// The error for an id that nobody knows.
pub(crate) fn unknown_id(id: &str, what: &str, near: &[&str]) -> Error {
    let id = crate::catalogue::short(id);
    let error = Error::new(ErrorKind::BadEvent, format!("no {what} has the id {id}"));
    if near.is_empty() { error } else { error.help(format!("the nearest ids are {}", near.join(", "))) }
}
