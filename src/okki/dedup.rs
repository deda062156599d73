//! Which product ids a read has seen.

use std::cmp::Ordering;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::catalogue::{PRODUCT_ID_COLUMN, Table, id_hash, id_order};

/// The rows of a table by their ids.
///
/// While the rows come in the order of their ids, up or down, none can be there twice, and nothing is kept; the first
/// that does not makes an index of them all.
#[derive(Debug, Default)]
pub(super) struct SeenIds {
    /// Rows before this one are not looked at.
    from: usize,
    direction: Option<Ordering>,
    index: Option<HashTable<u32>>,
}

fn id_at(table: &Table, row: usize) -> &str {
    table.cell(row, PRODUCT_ID_COLUMN)
}

impl SeenIds {
    /// Nothing seen; the table's rows before `from` are known to have other ids.
    pub(super) fn from(from: usize) -> Self {
        Self { from, ..Self::default() }
    }

    /// The row that has this id; none if it is new. Either way the row that the table gets next is the one that has it
    /// from now on, unless `first_stays`.
    pub(super) fn replace(&mut self, id: &str, table: &Table, first_stays: bool) -> Option<u32> {
        let next = table.len();
        if self.index.is_none() && (next <= self.from || self.follows(id_at(table, next - 1), id)) {
            return None;
        }
        let from = self.from;
        let index = self.index.get_or_insert_with(|| index_of(table, from));
        // A table is full before it has so many rows.
        let next = u32::try_from(next).unwrap_or(u32::MAX);
        let text = |row: u32| id_at(table, row as usize);
        match index.entry(id_hash(id), |&row| text(row) == id, |&row| id_hash(text(row))) {
            Entry::Occupied(occupied) if first_stays => Some(*occupied.get()),
            Entry::Occupied(mut occupied) => Some(std::mem::replace(occupied.get_mut(), next)),
            Entry::Vacant(vacant) => {
                vacant.insert(next);
                None
            }
        }
    }

    fn follows(&mut self, before: &str, id: &str) -> bool {
        let step = id_order(before, id);
        step != Ordering::Equal && *self.direction.get_or_insert(step) == step
    }
}

fn index_of(table: &Table, from: usize) -> HashTable<u32> {
    let hash = |row: &u32| id_hash(id_at(table, *row as usize));
    let mut index = HashTable::with_capacity(table.len() - from);
    for row in (0_u32..).take(table.len()).skip(from) {
        index.insert_unique(hash(&row), row, hash);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ids: &[&str], first_stays: bool) -> Vec<Option<u32>> {
        let (mut table, mut seen) = (Table::new(1), SeenIds::default());
        ids.iter()
            .map(|id| {
                let before = seen.replace(id, &table, first_stays);
                if before.is_none() || !first_stays {
                    let _ = table.push([*id]);
                }
                before
            })
            .collect()
    }

    #[test]
    fn ids_in_order_are_new_and_need_no_index() {
        assert_eq!(seen(&["1", "2", "10"], true), [None; 3]);
        assert_eq!(seen(&["10", "2", "1"], true), [None; 3]);
        let (mut table, mut seen) = (Table::new(1), SeenIds::default());
        for id in ["3", "7", "12"] {
            assert_eq!(seen.replace(id, &table, true), None);
            let _ = table.push([id]);
        }
        assert!(seen.index.is_none());
    }

    #[test]
    fn a_repeated_id_is_found_wherever_it_comes_back() {
        assert_eq!(seen(&["1", "1"], true), [None, Some(0)]);
        assert_eq!(seen(&["1", "2", "3", "2", "1", "4"], true), [None, None, None, Some(1), Some(0), None]);
        assert_eq!(seen(&["3", "1", "2", "3"], true), [None, None, None, Some(0)]);
    }

    #[test]
    fn the_last_one_counts_where_it_is_to_stay() {
        assert_eq!(seen(&["1", "2", "1", "1"], false), [None, None, Some(0), Some(2)]);
    }

    #[test]
    fn rows_that_are_known_to_have_other_ids_are_not_looked_at() {
        let mut table = Table::new(1);
        for id in ["5", "4", "9"] {
            let _ = table.push([id]);
        }
        let mut seen = SeenIds::from(3);
        assert_eq!(seen.replace("1", &table, true), None);
        let _ = table.push(["1"]);
        assert_eq!(seen.replace("1", &table, true), Some(3));
    }
}
