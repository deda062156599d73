//! Groups into a tree: which rows can go through, and why the others cannot. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use hashbrown::DefaultHashBuilder;

use super::row::{Row, RowReader};
use super::seen::Duplicates;
use crate::catalogue::{Group, GroupRef, RecordId, Rejected, RowKind, Table};

/// The groups of one answer, in tree order.
pub(super) struct GroupTree<'a> {
    pub groups: Vec<Group>,
    /// The fields that the pipeline names, one row per group.
    pub cells: Table,
    pub rejected: Vec<Rejected>,
    /// Ids of rejected groups that exist at the source.
    pub quarantined_ids: Vec<RecordId>,
    /// Products that a group brings itself, as raw JSON, with the group's id.
    pub embedded: Vec<(RecordId, &'a str)>,
    by_id: HashMap<RecordId, GroupRef, DefaultHashBuilder>,
}

impl<'a> GroupTree<'a> {
    pub(super) fn from_rows(
        rows: impl Iterator<Item = &'a str>,
        reader: RowReader<'_>,
        duplicates: Duplicates,
    ) -> Self {
        let mut unreadable = Vec::new();
        let mut source = Vec::new();
        let mut cells_of = Vec::new();
        let mut embedded = Vec::new();
        for raw in rows {
            match reader.read(raw) {
                Ok(row) => {
                    if let (Some(id), Some(products)) = (&row.id, row.products) {
                        embedded.push((RecordId::from(id.as_ref()), products));
                    }
                    let Row { id, name, parent, cells, .. } = row;
                    source.push(SourceGroup { id, name, parent, raw });
                    cells_of.push(cells);
                }
                Err(why) => unreadable.push(Rejected::new(RowKind::Group, None, why, raw)),
            }
        }
        let sorted = sort(&source, duplicates);
        let rejected: Vec<Rejected> = unreadable.into_iter().chain(sorted.rejected).collect();
        let mut cells = Table::new(reader.columns.len());
        let mut groups = Vec::with_capacity(sorted.groups.len());
        for (at, group) in sorted.groups {
            let row = cells_of.get(at).map_or(&[][..], Vec::as_slice);
            // The groups of one answer are far below the table's 4 GiB.
            let _ = cells.push(row.iter().copied());
            groups.push(group);
        }
        let refs = (0..).map(GroupRef::new);
        let by_id: HashMap<RecordId, GroupRef, DefaultHashBuilder> =
            groups.iter().map(|group| group.id.clone()).zip(refs).collect();
        let ids = rejected.iter().filter_map(|row| row.id.as_deref().map(RecordId::from));
        let quarantined_ids = ids.filter(|id| !by_id.contains_key(id)).collect();
        Self { groups, cells, rejected, quarantined_ids, embedded, by_id }
    }

    pub(super) fn find(&self, id: &str) -> Option<GroupRef> {
        self.by_id.get(id).copied()
    }

    pub(super) fn is_quarantined(&self, id: &str) -> bool {
        self.quarantined_ids.iter().any(|quarantined| quarantined == id)
    }
}

/// A group as the source sent it; a field is `None` if it is missing or blank.
#[derive(Debug, Clone)]
struct SourceGroup<'a> {
    id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    /// `None` or `0` for a root (`0` means a group if one has that id).
    parent: Option<Cow<'a, str>>,
    raw: &'a str,
}

#[derive(Debug, Default)]
struct Sorted {
    /// Groups in tree order, each with its index in the input.
    groups: Vec<(usize, Group)>,
    rejected: Vec<Rejected>,
}

/// Sorts groups into a tree. Rejected are groups without id or name, with a repeated id, with a parent that does not
/// exist or in a cycle, and all groups below a rejected one.
fn sort(source: &[SourceGroup<'_>], duplicates: Duplicates) -> Sorted {
    let mut out = Sorted::default();
    let by_id = unique(source, duplicates, &mut out.rejected);

    let mut children: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (at, group) in source.iter().enumerate() {
        let Some(id) = group.id.as_deref().filter(|id| by_id.get(id) == Some(&at)) else { continue };
        match parent_of(group, &by_id) {
            Parent::Root => roots.push(at),
            Parent::Is(parent) => children.entry(parent).or_default().push(at),
            Parent::Missing(parent) => {
                reject(&mut out.rejected, group, format!("parent {parent} of group {id} does not exist"))
            }
        }
    }

    let mut placed = vec![false; source.len()];
    let mut stack: Vec<(usize, Option<usize>)> = roots.into_iter().rev().map(|at| (at, None)).collect();
    while let Some((at, parent)) = stack.pop() {
        let Some(group) = source.get(at) else { continue };
        let (Some(id), Some(name)) = (&group.id, &group.name) else { continue };
        let above = parent.and_then(|index| out.groups.get(index)).map(|(_, group)| group);
        let placed_group = Group {
            id: id.as_ref().into(),
            name: name.clone().into_owned(),
            parent,
            layer: above.map_or(1, |parent| parent.layer + 1),
            path: above.map_or_else(|| name.clone().into_owned(), |parent| format!("{}/{name}", parent.path)),
        };
        out.groups.push((at, placed_group));
        if let Some(mark) = placed.get_mut(at) {
            *mark = true;
        }
        let index = out.groups.len() - 1;
        stack
            .extend(children.get(id.as_ref()).into_iter().flatten().rev().map(|&child| (child, Some(index))));
    }
    reject_unplaced(source, &by_id, &placed, &mut out.rejected);
    out
}

enum Parent<'a> {
    Root,
    Is(&'a str),
    Missing(&'a str),
}

fn parent_of<'a>(group: &'a SourceGroup<'_>, by_id: &HashMap<&'a str, usize>) -> Parent<'a> {
    match group.parent.as_deref() {
        None => Parent::Root,
        // OKKI really has ids 0: parent 0 is the root only where no group has that id, and for that group itself.
        Some("0") if !by_id.contains_key("0") || group.id.as_deref() == Some("0") => Parent::Root,
        Some(parent) if by_id.contains_key(parent) => Parent::Is(parent),
        Some(parent) => Parent::Missing(parent),
    }
}

/// The row that counts of each id, by index.
fn unique<'a>(
    source: &'a [SourceGroup<'_>],
    duplicates: Duplicates,
    rejected: &mut Vec<Rejected>,
) -> HashMap<&'a str, usize> {
    let mut by_id = HashMap::new();
    let order: Box<dyn Iterator<Item = usize>> = match duplicates {
        Duplicates::KeepFirst => Box::new(0..source.len()),
        Duplicates::KeepLast => Box::new((0..source.len()).rev()),
    };
    for at in order {
        let Some(group) = source.get(at) else { continue };
        let Some(id) = group.id.as_deref() else {
            reject(rejected, group, "id is missing or blank".to_owned());
            continue;
        };
        if group.name.is_none() {
            reject(rejected, group, format!("number (the display name) of group {id} is missing or blank"));
        } else if by_id.contains_key(id) {
            let kept = match duplicates {
                Duplicates::KeepFirst => "first",
                Duplicates::KeepLast => "last",
            };
            reject(rejected, group, format!("id {id} is repeated; the {kept} row stays"));
        } else {
            by_id.insert(id, at);
        }
    }
    by_id
}

/// Rejects groups that no root reaches: they are in a cycle, or below a cycle or another rejected group.
fn reject_unplaced(
    source: &[SourceGroup<'_>],
    by_id: &HashMap<&str, usize>,
    placed: &[bool],
    rejected: &mut Vec<Rejected>,
) {
    for (at, group) in source.iter().enumerate() {
        let Some(id) = group.id.as_deref().filter(|id| by_id.get(id) == Some(&at)) else { continue };
        if placed.get(at).copied().unwrap_or(false) || matches!(parent_of(group, by_id), Parent::Missing(_)) {
            continue;
        }
        let reason = if in_cycle(source, by_id, at) {
            format!("group {id} is its own ancestor (a cycle in the tree)")
        } else {
            format!("an ancestor of group {id} is in the quarantine")
        };
        reject(rejected, group, reason);
    }
}

fn in_cycle(source: &[SourceGroup<'_>], by_id: &HashMap<&str, usize>, start: usize) -> bool {
    let mut at = start;
    for _ in 0..source.len() {
        let parent =
            source.get(at).and_then(|group| group.parent.as_deref()).and_then(|parent| by_id.get(parent));
        match parent {
            Some(&next) if next == start => return true,
            Some(&next) => at = next,
            None => return false,
        }
    }
    false
}

fn reject(rejected: &mut Vec<Rejected>, group: &SourceGroup<'_>, reason: String) {
    rejected.push(Rejected::new(RowKind::Group, group.id.as_deref().map(str::to_owned), reason, group.raw));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group<'a>(id: &'a str, name: &'a str, parent: &'a str) -> SourceGroup<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        SourceGroup { id: some(id), name: some(name), parent: some(parent), raw: "{}" }
    }

    fn ids(tree: &Sorted) -> Vec<&str> {
        tree.groups.iter().map(|(_, group)| group.id.as_str()).collect()
    }

    #[test]
    fn a_tree_is_built_parents_first_with_layers_and_paths() {
        let tree = sort(
            &[
                group("3", "路灯", "2"),
                group("1", "LED", "0"),
                group("2", "户外", "1"),
                group("4", "五金", ""),
            ],
            Duplicates::KeepFirst,
        );
        assert_eq!(ids(&tree), ["1", "2", "3", "4"]);
        let deepest = tree.groups.iter().map(|(_, group)| group).find(|group| group.id == "3");
        assert_eq!(deepest.map(|group| (group.layer, group.path.as_str())), Some((3, "LED/户外/路灯")));
        assert!(tree.rejected.is_empty());
    }

    #[test]
    fn each_offender_is_rejected_with_its_reason_and_the_rest_stays() {
        let tree = sort(
            &[
                group("", "no id", "0"),
                group("1", "", "0"),
                group("2", "kept", "0"),
                group("2", "repeated", "0"),
                group("3", "orphan", "99"),
                group("4", "cycle a", "5"),
                group("5", "cycle b", "4"),
                group("6", "below the cycle", "5"),
                group("7", "below the orphan", "3"),
            ],
            Duplicates::KeepFirst,
        );
        assert_eq!(ids(&tree), ["2"]);
        let reasons: Vec<_> = tree.rejected.iter().map(|r| r.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "id is missing or blank",
                "number (the display name) of group 1 is missing or blank",
                "id 2 is repeated; the first row stays",
                "parent 99 of group 3 does not exist",
                "group 4 is its own ancestor (a cycle in the tree)",
                "group 5 is its own ancestor (a cycle in the tree)",
                "an ancestor of group 6 is in the quarantine",
                "an ancestor of group 7 is in the quarantine",
            ]
        );
    }

    #[test]
    fn a_group_with_id_zero_is_a_group_like_any_other() {
        let tree = sort(&[group("0", "zero", "0"), group("1", "child", "0")], Duplicates::KeepFirst);
        assert_eq!(ids(&tree), ["0", "1"]);
        assert_eq!(tree.groups.last().map(|(_, g)| g.layer), Some(2));
    }

    #[test]
    fn without_id_check_the_last_row_of_an_id_stays() {
        let tree = sort(&[group("1", "old", "0"), group("1", "new", "0")], Duplicates::KeepLast);
        assert_eq!(tree.groups.first().map(|(_, g)| g.name.as_str()), Some("new"));
        assert_eq!(tree.rejected.len(), 1);
    }
}
