//! The rows that a catalogue makes: which there are, in what order, and how each is written or rejected.

use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN, Reason, Rejected, id_order};
use crate::transform::{Former, Misfit, Renderer, RowMap, RowUnit};

/// Which row of the catalogue, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RowRef {
    /// A group, by index.
    Group(usize),
    /// A product, by its group's index and its row.
    Product(usize, u32),
    /// The source no longer has it.
    Gone,
}

impl RowRef {
    /// The row's id; empty for a row that is gone, since the catalogue does not know it.
    pub(crate) fn id(self, catalogue: &Catalogue) -> &str {
        match self {
            Self::Group(group) => catalogue.groups.get(group).map_or("", |of| of.id.as_str()),
            Self::Product(_, product) => catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN),
            Self::Gone => "",
        }
    }

    /// The group that a row is shown under; rows that are gone come under none, at the end.
    fn group(self) -> usize {
        match self {
            Self::Group(group) | Self::Product(group, _) => group,
            Self::Gone => usize::MAX,
        }
    }
}

/// All rows in the order in which they are written: groups as in the tree, products in the order of their table. (By
/// group they would be read from all over the table, which costs more than comparing them.)
pub(crate) fn rows(catalogue: &Catalogue, unit: RowUnit) -> impl Iterator<Item = RowRef> {
    let (groups, products) = match unit {
        RowUnit::Group => (catalogue.groups.len(), None),
        RowUnit::Product => (0, Some(catalogue.placed_products())),
    };
    let products = products.into_iter().flatten().map(|(group, product)| RowRef::Product(group, product));
    (0..groups).map(RowRef::Group).chain(products)
}

/// All rows as people look for them: products under their group, by their ids.
pub(crate) fn rows_in_tree(catalogue: &Catalogue, unit: RowUnit) -> Vec<RowRef> {
    let mut rows: Vec<_> = rows(catalogue, unit).collect();
    rows.sort_by(|a, b| in_tree((*a, a.id(catalogue)), (*b, b.id(catalogue))));
    rows
}

/// The order of two rows in the tree. Groups and rows that are gone are in their order already.
pub(crate) fn in_tree((row, id): (RowRef, &str), (other, other_id): (RowRef, &str)) -> std::cmp::Ordering {
    row.group().cmp(&other.group()).then_with(|| match row {
        RowRef::Product(..) => id_order(id, other_id),
        RowRef::Group(_) | RowRef::Gone => std::cmp::Ordering::Equal,
    })
}

/// A row does not fit the field map; it is among [`RowWriter::rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit;

/// Writes rows of a catalogue, and collects those that do not fit the field map.
pub(crate) struct RowWriter<'a> {
    map: &'a RowMap,
    catalogue: &'a Catalogue,
    renderer: Renderer<'a>,
    /// Rows, and items of rows, that were left out.
    pub rejected: Vec<Rejected>,
}

impl<'a> RowWriter<'a> {
    /// `former`: what the target has acknowledged, for value guards that look at it.
    pub(crate) fn new(map: &'a RowMap, catalogue: &'a Catalogue, former: Option<&'a dyn Former>) -> Self {
        Self { map, catalogue, renderer: Renderer::new(map, catalogue, former), rejected: Vec::new() }
    }

    /// Appends a row to `out`; a tombstone, of the given id, if the row is gone. An unfit row leaves its first bytes.
    pub(crate) fn write(&mut self, row: RowRef, id: &str, out: &mut Vec<u8>) -> Result<(), Unfit> {
        match row {
            RowRef::Group(group) => match self.renderer.group(group, out) {
                Ok(misfits) => {
                    misfits.into_iter().for_each(|misfit| self.reject(group, misfit));
                    Ok(())
                }
                Err(misfit) => Err(self.unfit(group, misfit)),
            },
            RowRef::Product(group, product) => {
                self.renderer.product(group, product, out).map_err(|misfit| self.unfit(group, misfit))
            }
            RowRef::Gone => {
                self.map.write_tombstone(id, out);
                Ok(())
            }
        }
    }

    /// Rejects a product whose group has a field that does not fit; its own fields were checked when it was read.
    pub(super) fn check_group_of(&mut self, group: usize, product: u32) -> Result<(), Unfit> {
        let Some(reason) = self.renderer.misfit_of_group(group) else { return Ok(()) };
        let misfit = Misfit { product: Some(product), reason: Reason::misfit(reason) };
        Err(self.unfit(group, misfit))
    }

    fn unfit(&mut self, group: usize, misfit: Misfit) -> Unfit {
        self.reject(group, misfit);
        Unfit
    }

    fn reject(&mut self, group: usize, misfit: Misfit) {
        self.rejected.push(match misfit.product {
            Some(product) => Rejected::from_product(self.catalogue, group, product, misfit.reason),
            None => Rejected::from_group(self.catalogue, group, misfit.reason),
        });
    }
}
