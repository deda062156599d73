//! Which rows go next: a row never stands at the target before its ancestors.
//!
//! Batches are under way side by side. So a row goes only if none of its ancestors is in a batch that is under way; one
//! that is in the same batch stands before it. Four batches of two rows, of which two may be under way at a time:
//!
//! ```text
//! Lamps           1     Lamps, LED Lamps    under way first
//!   LED Lamps     1
//!     Bulbs         3   Bulbs, Tubes        wait for their ancestors, and go when batch 1 has been answered
//!     Tubes         3
//! Tools            2    Tools, Wrenches     pass them and go beside batch 1
//!   Wrenches       2
//! ```
//!
//! Rows are taken in the order of the tree, so that a batch holds as much of one branch as it can. Deletions wait for all
//! other rows: a group may leave its parent before the parent goes. Deliberately absent: an order among products, and
//! waiting for an ancestor that was refused. It may stay refused, and others would be delayed by it.

use std::collections::VecDeque;

use crate::catalogue::Catalogue;
use crate::plan::{Change, RowRef};
use crate::testing::Mutant;

/// The rows of a plan that were not sent yet.
pub(super) struct Queue<'a> {
    catalogue: &'a Catalogue,
    rest: Box<dyn Iterator<Item = Change<'a>> + Send + 'a>,
    /// Rows that come before the rest.
    earlier: VecDeque<Change<'a>>,
    /// Rows that come before those, and were found to wait.
    waiting: VecDeque<Change<'a>>,
    /// By the group's index: whether its row is under way.
    is_under_way: Vec<bool>,
    /// How many are.
    under_way: usize,
}

impl<'a> Queue<'a> {
    /// These rows, a parent before its children and deletions last.
    pub(super) fn new(catalogue: &'a Catalogue, rows: impl Iterator<Item = Change<'a>> + Send + 'a) -> Self {
        Self {
            catalogue,
            rest: Box::new(rows),
            earlier: VecDeque::new(),
            waiting: VecDeque::new(),
            is_under_way: vec![false; catalogue.groups.len()],
            under_way: 0,
        }
    }

    /// The next row that may go; `None` if there is none before a batch has been answered.
    pub(super) fn next(&mut self) -> Option<Change<'a>> {
        loop {
            let change = self.earlier.pop_front().or_else(|| self.rest.next())?;
            if !self.must_wait(change.row) {
                return Some(change);
            }
            self.waiting.push_back(change);
        }
    }

    /// Whether rows wait for a batch that is under way.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A row for which the batch had no room: it is the next one.
    pub(super) fn put_back(&mut self, change: Change<'a>) {
        self.earlier.push_front(change);
    }

    /// These groups go out.
    pub(super) fn begin(&mut self, groups: &[usize]) {
        self.mark(groups, true);
        self.under_way += groups.len();
    }

    /// The batch of these groups was answered: rows that waited are looked at again.
    pub(super) fn end(&mut self, groups: &[usize]) {
        self.mark(groups, false);
        self.under_way -= groups.len();
        self.waiting.append(&mut self.earlier);
        std::mem::swap(&mut self.waiting, &mut self.earlier);
    }

    fn mark(&mut self, groups: &[usize], is_under_way: bool) {
        for group in groups {
            if let Some(mark) = self.is_under_way.get_mut(*group) {
                *mark = is_under_way;
            }
        }
    }

    fn must_wait(&self, row: RowRef) -> bool {
        match row {
            RowRef::Group(group) => {
                self.ancestor_is_under_way(group) && !Mutant::ChildrenBesideParents.is_active()
            }
            RowRef::Product(..) => false,
            RowRef::Gone => self.under_way > 0 || self.has_waiting(),
        }
    }

    fn ancestor_is_under_way(&self, group: usize) -> bool {
        let parent = |group: usize| self.catalogue.groups.get(group).and_then(|group| group.parent);
        std::iter::successors(parent(group), |above| parent(*above))
            .any(|above| self.is_under_way.get(above) == Some(&true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Group;
    use crate::plan::Action;

    fn catalogue(parents: &[Option<usize>]) -> Catalogue {
        let groups = parents.iter().enumerate().map(|(at, parent)| Group {
            id: at.to_string().as_str().into(),
            name: String::new(),
            parent: *parent,
            layer: 1,
            path: String::new(),
        });
        Catalogue { groups: groups.collect(), ..Catalogue::default() }
    }

    /// Takes up to two rows.
    fn take(queue: &mut Queue<'_>) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < 2 {
            match queue.next().map(|change| change.row) {
                Some(RowRef::Group(group)) => taken.push(group),
                Some(_) => taken.push(usize::MAX),
                None => break,
            }
        }
        taken
    }

    #[test]
    fn rows_wait_for_their_ancestors_and_others_pass_them() {
        // 0 ─ 1 ─ (2, 3), 4 ─ 5; group 1 has not changed. A row is gone.
        let catalogue = catalogue(&[None, Some(0), Some(1), Some(1), None, Some(4)]);
        let there =
            [0, 2, 3, 4, 5].map(|group| Change { id: "", action: Action::Create, row: RowRef::Group(group) });
        let gone = Change { id: "9", action: Action::Delete, row: RowRef::Gone };
        let mut queue = Queue::new(&catalogue, there.into_iter().chain([gone]));
        assert_eq!(take(&mut queue), [0, 2], "what stands behind its ancestor in one batch does not wait");
        queue.begin(&[0, 2]);
        assert_eq!(take(&mut queue), [4, 5]);
        queue.begin(&[4, 5]);
        assert!(
            take(&mut queue).is_empty(),
            "a row whose ancestor is under way waits, and a deletion for all"
        );
        assert!(queue.has_waiting());
        queue.end(&[4, 5]);
        assert!(take(&mut queue).is_empty());
        queue.end(&[0, 2]);
        assert_eq!(take(&mut queue), [3, usize::MAX]);
        assert!(!queue.has_waiting() && queue.next().is_none());
    }

    #[test]
    fn a_row_without_room_is_the_next_one() {
        let catalogue = catalogue(&[None, None]);
        let rows = [0, 1].map(|group| Change { id: "", action: Action::Create, row: RowRef::Group(group) });
        let mut queue = Queue::new(&catalogue, rows.into_iter());
        let first = queue.next();
        first.into_iter().for_each(|first| queue.put_back(first));
        assert_eq!(take(&mut queue), [0, 1]);
    }
}
