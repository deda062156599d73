//! The products' table while it grows: rows, the group of each, the read that found it, and what is known about ids.

use std::sync::Arc;

use super::cache::RowStatus;
use super::seen::SeenIds;
use crate::catalogue::{GroupRef, PRODUCT_ID_COLUMN, Placement, Table, TableFull, id_hash, id_order};

#[derive(Debug)]
pub(super) struct ProductTable {
    /// Shared only while a checkpoint is written from it.
    table: Arc<Table>,
    groups: Vec<GroupRef>,
    /// The number of the read that found each row; see `windows::ledger`.
    numbers: Vec<u32>,
    seen: SeenIds,
}

impl ProductTable {
    pub(super) fn new(width: usize) -> Self {
        let table = Arc::new(Table::new(width));
        Self { table, groups: Vec::new(), numbers: Vec::new(), seen: SeenIds::default() }
    }

    /// Starts from the rows of a cache.
    pub(super) fn from_cache(table: Table, groups: Vec<GroupRef>, numbers: Vec<u32>) -> Self {
        Self { table: Arc::new(table), groups, numbers, seen: SeenIds::unordered() }
    }

    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub(super) fn groups(&self) -> &[GroupRef] {
        &self.groups
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn reserve(&mut self, rows: usize, bytes: usize) {
        Arc::make_mut(&mut self.table).reserve(rows, bytes);
        self.groups.reserve(rows);
        self.numbers.reserve(rows);
        self.seen.expect_rows(rows);
    }

    /// The row that has this id and still counts.
    pub(super) fn find(&mut self, id: &str) -> Option<usize> {
        let row = self.seen.find(id, id_hash(id), &self.table)? as usize;
        self.counts(row).then_some(row)
    }

    /// Whether no later row took its place, and it is not gone.
    pub(super) fn counts(&self, row: usize) -> bool {
        self.groups.get(row).is_some_and(|group| *group != GroupRef::REPLACED)
    }

    pub(super) fn number(&self, row: usize) -> u32 {
        self.numbers.get(row).copied().unwrap_or(0)
    }

    pub(super) fn set_number(&mut self, row: usize, number: u32) {
        if let Some(before) = self.numbers.get_mut(row) {
            *before = number;
        }
    }

    pub(super) fn set_group(&mut self, row: usize, group: GroupRef) {
        if let Some(before) = self.groups.get_mut(row) {
            *before = group;
        }
    }

    /// Adds a row: the cells that the pipeline names, the first of them the id, and what the cache must know of it. An
    /// earlier row with this id no longer counts.
    pub(super) fn push<'c>(
        &mut self,
        id: &str,
        group: GroupRef,
        number: u32,
        cells: impl Iterator<Item = &'c str>,
        status: RowStatus<'_>,
    ) -> Result<(), TableFull> {
        if let Some(before) = self.seen.take(id, id_hash(id), &self.table) {
            self.set_group(before as usize, GroupRef::REPLACED);
        }
        let (group_id, status) = status.to_cells();
        self.groups.push(group);
        self.numbers.push(number);
        let cells = cells.map(|cell| -> &str { cell }).chain([group_id, &status]);
        Arc::make_mut(&mut self.table).push(cells)
    }

    /// Whether a row has these cells and this status.
    pub(super) fn is_same<'c>(
        &self,
        row: usize,
        cells: impl Iterator<Item = &'c str>,
        status: RowStatus<'_>,
    ) -> bool {
        let (group_id, status) = status.to_cells();
        let cells = cells.map(|cell| -> &str { cell }).chain([group_id, &status]);
        self.table.row(row).eq(cells)
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
        let id = |row: u32| self.table.cell(row as usize, PRODUCT_ID_COLUMN);
        for rows in &mut rows_of {
            rows.sort_unstable_by(|&a, &b| id_order(id(a), id(b)));
        }
        rows_of
    }

    pub(super) fn into_parts(self) -> (Arc<Table>, Vec<GroupRef>) {
        (self.table, self.groups)
    }
}
