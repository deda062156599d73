//! Which group a product belongs to, or why it goes into the quarantine.

use super::merge::Incoming;
use super::page::ProductRow;
use super::tree::GroupTree;
use crate::catalogue::{
    GroupRef, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Reason, ReasonKind, RecordId, Rejected, RowKind,
    Table, kept_fields,
};
use crate::transform::RowMap;
use crate::words::{phrase, written};

/// Places products into the tree of groups, and collects those that have no place at the end of a read.
pub(super) struct Placer<'a> {
    pub map: &'a RowMap,
    pub tree: GroupTree<'a>,
    pub rejected: Vec<Rejected>,
    /// Ids of rejected products that exist at the source.
    pub quarantined: Vec<RecordId>,
}

impl<'a> Placer<'a> {
    pub(super) fn new(map: &'a RowMap, mut tree: GroupTree<'a>) -> Self {
        let rejected = std::mem::take(&mut tree.rejected);
        Self { map, tree, rejected, quarantined: Vec::new() }
    }

    /// The group of a row, or the reason why it has none. `embedded_in`: the group that brought the row, if it did not come
    /// in a page.
    pub(super) fn place(
        &self,
        incoming: Incoming<'_>,
        embedded_in: Option<&RecordId>,
    ) -> Result<GroupRef, Reason> {
        let Incoming { row, id, .. } = incoming;
        if row.deleted {
            return Ok(GroupRef::DELETED);
        }
        let cell = |column| {
            if column == PRODUCT_ID_COLUMN {
                id.as_str()
            } else {
                incoming.page.cells.cell(incoming.at, column)
            }
        };
        match self.map.product_misfit(id, cell) {
            Some(why) => Err(Reason::misfit(why)),
            None => self.find_group(row, id, embedded_in),
        }
    }

    fn find_group(
        &self,
        row: &ProductRow,
        id: &str,
        embedded_in: Option<&RecordId>,
    ) -> Result<GroupRef, Reason> {
        if !row.named {
            let text = written!("name of product {id} is missing or blank", id);
            return Err(Reason::new(ReasonKind::MissingName, text));
        }
        let Some(group) = embedded_in.or(row.group.as_ref()) else {
            return Err(Reason::new(ReasonKind::NoGroup, written!("product {id} names no group", id)));
        };
        self.tree.find(group).ok_or_else(|| self.no_group(id, group))
    }

    fn no_group(&self, id: &str, group: &str) -> Reason {
        let (kind, condition) = if self.tree.is_quarantined(group) {
            (ReasonKind::GroupRejected, phrase!("in the quarantine"))
        } else {
            (ReasonKind::UnknownGroup, phrase!("unknown"))
        };
        Reason::new(kind, written!("group {group} of product {id} is {condition}", group, id, condition))
    }

    /// A row of the cache whose group is no longer there.
    pub(super) fn reject_groupless(&mut self, table: &Table, row: usize, group: &str) {
        let id = RecordId::from(table.cell(row, PRODUCT_ID_COLUMN));
        let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS + 1);
        let cells: Vec<&str> = table.row(row).skip(1).take(named).collect();
        let raw = kept_fields(&[("product_id", &id), ("group_id", group)], &cells);
        let reason = self.no_group(&id, group);
        self.quarantine(&id, reason, &raw);
    }

    pub(super) fn quarantine(&mut self, id: &RecordId, reason: Reason, raw: &str) {
        self.quarantined.push(id.clone());
        self.reject(Some(id), reason, raw);
    }

    pub(super) fn reject_repeated(&mut self, id: &RecordId, is_deleted: bool, raw: &str) {
        // Keep the id protected even if the first row with it is marked as deleted: this row still exists.
        if !is_deleted {
            self.quarantined.push(id.clone());
        }
        let text = written!("product_id {id} is repeated; the first row stays", id);
        self.reject(Some(id), Reason::new(ReasonKind::RepeatedId, text), raw);
    }

    pub(super) fn reject_without_id(&mut self, row: &ProductRow, raw: &str) {
        let reason = match &row.unreadable {
            Some(why) => Reason::new(ReasonKind::Unreadable, why.clone()),
            None => Reason::new(ReasonKind::MissingId, written!("product_id is missing or blank")),
        };
        self.reject(None, reason, raw);
    }

    fn reject(&mut self, id: Option<&RecordId>, reason: Reason, raw: &str) {
        self.rejected.push(Rejected::new(RowKind::Product, id.map(RecordId::to_string), reason, raw));
    }
}
