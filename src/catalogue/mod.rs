//! What the source holds, in the compact form that a run keeps in memory. Pure.
//!
//! 200,000 products fit into a Lambda of 256 MB because a product is cells in one shared text ([`Table`]) and four
//! bytes for its group ([`GroupRef`]). How the catalogue was read is not said here: see `okki::ReadInfo`.

mod ids;
mod reason;
mod rejected;
mod table;

use std::sync::Arc;

pub(crate) use ids::{RecordId, id_hash, id_order};
pub use reason::{Reason, ReasonKind};
pub use rejected::{Rejected, RowKind};
pub(crate) use rejected::{kept_fields, short};
pub(crate) use table::{Table, TableFull};

/// A product group that passed cleaning, with its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub id: RecordId,
    /// The display name (the source's `number` field).
    pub name: String,
    /// Index of the parent in [`Catalogue::groups`]; `None` for a root.
    pub parent: Option<usize>,
    /// Depth in the tree, 1 = top.
    pub layer: u32,
    /// The names from the root down to this group, joined by `/`.
    pub path: String,
}

/// The clean rows of one consistent read, and the rejected ones.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// In tree order: a parent before its children, siblings as the source lists them.
    pub groups: Vec<Group>,
    /// The groups' fields that the pipeline names, one row per group.
    pub group_cells: Table,
    /// The products' fields that the pipeline names; column 0 is the product's id, column 1 its name as raw JSON. The
    /// last two columns, [`PRODUCT_EXTRA_COLUMNS`], are for the cache: the group's id, and the row's status.
    pub product_cells: Arc<Table>,
    /// The group of each row of `product_cells`.
    pub product_groups: Vec<GroupRef>,
    /// The products of each group, as row numbers of `product_cells` in the order of their ids. Empty where each product
    /// is a row at the target: then products are taken in the order of the table.
    pub products_of: Vec<Vec<u32>>,
    pub rejected: Vec<Rejected>,
    /// Ids of rejected groups (or products) that exist at the source: the plan does not delete them at the target.
    pub quarantined_ids: Vec<RecordId>,
}

impl Catalogue {
    /// Number of products that passed cleaning.
    pub(crate) fn product_count(&self) -> usize {
        self.placed_products().count()
    }

    /// The products that passed cleaning, in the order of the table: the index of the group, and the row.
    pub(crate) fn placed_products(&self) -> impl Iterator<Item = (usize, u32)> {
        self.product_groups.iter().zip(0_u32..).filter_map(|(group, row)| match group.placement() {
            Placement::InGroup(group) => Some((group, row)),
            _ => None,
        })
    }
}

/// Where a row of the products' table belongs, in four bytes; [`GroupRef::placement`] says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupRef(u32);

/// What became of a row of the products' table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// It belongs to the group at this index of [`Catalogue::groups`].
    InGroup(usize),
    /// It is in the quarantine.
    Rejected,
    /// The source marks it as deleted (`enable_flag` 0).
    Deleted,
    /// A later row has its id: this one no longer counts.
    Replaced,
}

impl GroupRef {
    pub(crate) const REJECTED: Self = Self(u32::MAX);
    pub(crate) const DELETED: Self = Self(u32::MAX - 1);
    pub(crate) const REPLACED: Self = Self(u32::MAX - 2);

    /// The group at this index. (An index in the range of the three marks would need 4,000,000,000 groups.)
    pub(crate) fn new(index: u32) -> Self {
        Self(index)
    }

    pub(crate) fn placement(self) -> Placement {
        match self {
            Self::REJECTED => Placement::Rejected,
            Self::DELETED => Placement::Deleted,
            Self::REPLACED => Placement::Replaced,
            Self(index) => Placement::InGroup(index as usize),
        }
    }
}

/// Product column: the id, decoded.
pub(crate) const PRODUCT_ID_COLUMN: usize = 0;
/// Product column: the name, raw JSON.
pub(crate) const PRODUCT_NAME_COLUMN: usize = 1;
/// Columns at the end of a product's row that the pipeline does not name.
pub(crate) const PRODUCT_EXTRA_COLUMNS: usize = 2;
