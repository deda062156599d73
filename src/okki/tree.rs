//! Cleaning: which rows of the source can go through, and why the others cannot. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::catalogue::{Group, Rejected, RowKind};

/// A group as the source sent it.
#[derive(Debug, Clone)]
pub(super) struct SourceGroup<'a> {
    /// Its id; none if missing or blank.
    pub id: Option<Cow<'a, str>>,
    /// Its display name; none if missing or blank.
    pub name: Option<Cow<'a, str>>,
    /// `parent_id`; none or `0` for a root (unless a group 0 exists).
    pub parent: Option<Cow<'a, str>>,
    /// The row.
    pub raw: &'a str,
}

/// The clean tree.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Groups in tree order, each with its index in the input.
    pub groups: Vec<(usize, Group)>,
    /// The offenders.
    pub rejected: Vec<Rejected>,
}

/// Sorts groups into a tree. Offenders: no id, no name, a repeated id (the first stays; without `id_check` the
/// last), a parent that does not exist, a cycle, and whatever hangs below an offender.
pub(super) fn tree(source: &[SourceGroup<'_>], id_check: bool) -> Tree {
    let mut out = Tree::default();
    let by_id = unique(source, id_check, &mut out.rejected);

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
        // Id 0 is legitimate somewhere in OKKI: it is the root only where no group has it, or for that group itself.
        Some("0") if !by_id.contains_key("0") || group.id.as_deref() == Some("0") => Parent::Root,
        Some(parent) if by_id.contains_key(parent) => Parent::Is(parent),
        Some(parent) => Parent::Missing(parent),
    }
}

fn unique<'a>(
    source: &'a [SourceGroup<'_>],
    id_check: bool,
    rejected: &mut Vec<Rejected>,
) -> HashMap<&'a str, usize> {
    let mut by_id = HashMap::new();
    let order: Box<dyn Iterator<Item = usize>> =
        if id_check { Box::new(0..source.len()) } else { Box::new((0..source.len()).rev()) };
    for at in order {
        let Some(group) = source.get(at) else { continue };
        let Some(id) = group.id.as_deref() else {
            reject(rejected, group, "id is missing or blank".to_owned());
            continue;
        };
        if group.name.is_none() {
            reject(rejected, group, format!("number (the display name) of group {id} is missing or blank"));
        } else if by_id.contains_key(id) {
            let kept = if id_check { "first" } else { "last" };
            reject(rejected, group, format!("id {id} is repeated; the {kept} row stays"));
        } else {
            by_id.insert(id, at);
        }
    }
    by_id
}

/// What no root reaches sits in a cycle, or hangs below a cycle or another offender.
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

    fn ids(tree: &Tree) -> Vec<&str> {
        tree.groups.iter().map(|(_, group)| group.id.as_str()).collect()
    }

    #[test]
    fn a_tree_is_built_parents_first_with_layers_and_paths() {
        let tree = tree(
            &[
                group("3", "路灯", "2"),
                group("1", "LED", "0"),
                group("2", "户外", "1"),
                group("4", "五金", ""),
            ],
            true,
        );
        assert_eq!(ids(&tree), ["1", "2", "3", "4"]);
        let deepest = tree.groups.iter().map(|(_, group)| group).find(|group| group.id == "3");
        assert_eq!(deepest.map(|group| (group.layer, group.path.as_str())), Some((3, "LED/户外/路灯")));
        assert!(tree.rejected.is_empty());
    }

    #[test]
    fn every_offender_is_rejected_with_its_reason_and_the_rest_stays() {
        let tree = tree(
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
            true,
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
        let tree = tree(&[group("0", "zero", "0"), group("1", "child", "0")], true);
        assert_eq!(ids(&tree), ["0", "1"]);
        assert_eq!(tree.groups.last().map(|(_, g)| g.layer), Some(2));
    }

    #[test]
    fn without_id_check_the_last_row_of_an_id_stays() {
        let tree = tree(&[group("1", "old", "0"), group("1", "new", "0")], false);
        assert_eq!(tree.groups.first().map(|(_, g)| g.name.as_str()), Some("new"));
        assert_eq!(tree.rejected.len(), 1);
    }
}
