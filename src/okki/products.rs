//! The products' table while it grows: rows, the group of each, and what is known about their ids.

use super::cache::RowStatus;
use super::dedup::{Duplicates, SeenIds};
use crate::catalogue::{GroupRef, PRODUCT_ID_COLUMN, Placement, Table, TableFull, id_order};

#[derive(Debug)]
pub(super) struct ProductTable {
    table: Table,
    groups: Vec<GroupRef>,
    seen: SeenIds,
    /// The first row whose id comes before that of the previous row; `None`: all rows are in order.
    first_unordered: Option<usize>,
}

impl ProductTable {
    pub(super) fn new(width: usize) -> Self {
        Self::from_cache(Table::new(width), Vec::new())
    }

    /// Starts from the rows of a cache. The rows that follow have other ids than those of the cache that still count.
    pub(super) fn from_cache(table: Table, groups: Vec<GroupRef>) -> Self {
        let first_unordered = (1..table.len()).find(|row| !is_ordered(&table, *row));
        Self { seen: SeenIds::starting_at(table.len()), table, groups, first_unordered }
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn reserve(&mut self, rows: usize, bytes: usize) {
        self.table.reserve(rows, bytes);
        self.groups.reserve(rows);
        self.seen.expect_rows(rows);
    }

    /// Whether an earlier row has this id. If not, or with [`Duplicates::KeepLast`], the next row gets the id.
    pub(super) fn is_repeated(&mut self, id: &str, hash: u64, duplicates: Duplicates) -> bool {
        let Some(before) = self.seen.find_or_insert(id, hash, &self.table, duplicates) else { return false };
        if duplicates == Duplicates::KeepLast
            && let Some(group) = self.groups.get_mut(before as usize)
        {
            *group = GroupRef::REPLACED;
        }
        true
    }

    /// Adds a row: the cells that the pipeline names, and what the cache must know of it.
    pub(super) fn push<'c>(
        &mut self,
        group: GroupRef,
        cells: impl Iterator<Item = &'c str>,
        status: RowStatus<'_>,
    ) -> Result<(), TableFull> {
        let (group_id, status) = status.to_cells();
        self.groups.push(group);
        self.table.push(cells.map(|cell| -> &str { cell }).chain([group_id, &status]))?;
        let row = self.table.len() - 1;
        if self.first_unordered.is_none() && !is_ordered(&self.table, row) {
            self.first_unordered = Some(row);
        }
        Ok(())
    }

    /// The rows of each group by their ids, so that the same content gives the same list in whatever order pages came.
    pub(super) fn by_group(&self, groups: usize) -> Vec<Vec<u32>> {
        let mut rows_of = vec![Vec::new(); groups];
        for (group, row) in self.groups.iter().zip(0_u32..) {
            if let Placement::InGroup(group) = group.placement()
                && let Some(rows) = rows_of.get_mut(group)
            {
                rows.push(row);
            }
        }
        // Comparing ids jumps about in the table; most rows come in order, and groups of such rows are sorted already.
        let first_unordered = self.first_unordered.unwrap_or(usize::MAX);
        let is_sorted = |rows: &Vec<u32>| rows.last().is_none_or(|last| (*last as usize) < first_unordered);
        let id = |row: u32| self.table.cell(row as usize, PRODUCT_ID_COLUMN);
        for rows in rows_of.iter_mut().filter(|rows| !is_sorted(rows)) {
            rows.sort_unstable_by(|&a, &b| id_order(id(a), id(b)));
        }
        rows_of
    }

    pub(super) fn into_parts(self) -> (Table, Vec<GroupRef>) {
        (self.table, self.groups)
    }
}

fn is_ordered(table: &Table, row: usize) -> bool {
    let id = |row: usize| table.cell(row, PRODUCT_ID_COLUMN);
    row.checked_sub(1).is_none_or(|before| id_order(id(before), id(row)).is_le())
}
