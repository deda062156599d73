//! Groups into a tree: which rows can go through, and why the others cannot. Pure.

use std::borrow::Cow;
use std::collections::HashMap;

use hashbrown::DefaultHashBuilder;

use super::row::{Row, RowReader};
use super::seen::Duplicates;
use crate::catalogue::{Group, GroupRef, Reason, ReasonKind, RecordId, Rejected, RowKind, Table};
use crate::words::written;

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
                    let Row { id, name, parent, root, system, cells, .. } = row;
                    source.push(SourceGroup { id, name, parent, root, system, raw });
                    cells_of.push(cells);
                }
                Err(why) => {
                    let reason = Reason::new(ReasonKind::Unreadable, why);
                    unreadable.push(Rejected::new(RowKind::Group, None, reason, raw));
                }
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
    /// `None` or `0` for a root. Where a group has id 0, `0` may mean that group: see [`parent_of`].
    parent: Option<Cow<'a, str>>,
    /// Whether the row's `layer` or `prefix` says that it is a root; `None` if it has neither.
    root: Option<bool>,
    /// The row is OKKI's own and nobody's.
    system: bool,
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
        match parent_of(source, &by_id, group) {
            Parent::Root => roots.push(at),
            Parent::Is(parent) => children.entry(parent).or_default().push(at),
            Parent::Missing(parent) => {
                let text = written!("parent {parent} of group {id} does not exist", parent, id);
                reject(&mut out.rejected, group, ReasonKind::UnknownParent, text);
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

/// OKKI may end its tree with a group 0 of its own, 未分组, while every other root has parent 0 too: the parent alone
/// would make all of them its children. Layer and prefix decide there, and in a row that names itself as its parent;
/// a row that names another group as its parent belongs there whatever its layer says.
fn parent_of<'a>(
    source: &[SourceGroup<'_>],
    by_id: &HashMap<&'a str, usize>,
    group: &'a SourceGroup<'_>,
) -> Parent<'a> {
    let Some(parent) = group.parent.as_deref() else { return Parent::Root };
    let names_itself = group.id.as_deref() == Some(parent);
    let says_root = (names_itself || parent == "0").then_some(group.root).flatten();
    let Some(at) = by_id.get(parent) else {
        return if parent == "0" { Parent::Root } else { Parent::Missing(parent) };
    };
    let is_of_okki = parent == "0" && source.get(*at).is_some_and(|zero| zero.system);
    match says_root {
        Some(true) => Parent::Root,
        _ if parent == "0" && names_itself => Parent::Root,
        None if is_of_okki => Parent::Root,
        _ => Parent::Is(parent),
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
            reject(rejected, group, ReasonKind::MissingId, written!("id is missing or blank"));
            continue;
        };
        if group.name.is_none() {
            let text = written!("number (the display name) of group {id} is missing or blank", id);
            reject(rejected, group, ReasonKind::MissingName, text);
        } else if by_id.contains_key(id) {
            let reason = match duplicates {
                Duplicates::KeepFirst => written!("id {id} is repeated; the first row stays", id),
                Duplicates::KeepLast => written!("id {id} is repeated; the last row stays", id),
            };
            reject(rejected, group, ReasonKind::RepeatedId, reason);
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
        if placed.get(at).copied().unwrap_or(false)
            || matches!(parent_of(source, by_id, group), Parent::Missing(_))
        {
            continue;
        }
        let (kind, text) = if in_cycle(source, by_id, at) {
            (ReasonKind::Cycle, written!("group {id} is its own ancestor (a cycle in the tree)", id))
        } else {
            (ReasonKind::AncestorRejected, written!("an ancestor of group {id} is in the quarantine", id))
        };
        reject(rejected, group, kind, text);
    }
}

fn in_cycle(source: &[SourceGroup<'_>], by_id: &HashMap<&str, usize>, start: usize) -> bool {
    let mut at = start;
    for _ in 0..source.len() {
        let Some(Parent::Is(parent)) = source.get(at).map(|group| parent_of(source, by_id, group)) else {
            return false;
        };
        match by_id.get(parent) {
            Some(&next) if next == start => return true,
            Some(&next) => at = next,
            None => return false,
        }
    }
    false
}

fn reject(rejected: &mut Vec<Rejected>, group: &SourceGroup<'_>, kind: ReasonKind, text: String) {
    let (id, reason) = (group.id.as_deref().map(str::to_owned), Reason::new(kind, text));
    rejected.push(Rejected::new(RowKind::Group, id, reason, group.raw));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Columns;

    fn group<'a>(id: &'a str, name: &'a str, parent: &'a str) -> SourceGroup<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        SourceGroup {
            id: some(id),
            name: some(name),
            parent: some(parent),
            root: None,
            system: false,
            raw: "{}",
        }
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

    /// The tree of these rows as JSON, each group by its path.
    fn paths(rows: &[&str]) -> Vec<String> {
        let columns = Columns::default();
        let reader = RowReader::groups(&columns, "id", "name");
        let tree = GroupTree::from_rows(rows.iter().copied(), reader, Duplicates::KeepFirst);
        tree.groups.into_iter().map(|group| group.path).collect()
    }

    #[test]
    fn the_synthetic_group_zero_is_no_ancestor_of_the_tree() {
        for (layer, child) in [("\"layer\":1", "\"layer\":2"), ("\"layer\":\"1\"", "\"layer\":\"2\"")]
            .into_iter()
            .chain([("\"prefix\":\"0-\"", "\"prefix\":\"0-5-\""), ("\"unit\":1", "\"unit\":2")])
        {
            let rows = [
                format!(r#"{{"id":5,"name":"LED","parent_id":0,{layer}}}"#),
                format!(r#"{{"id":6,"name":"户外","parent_id":5,{child}}}"#),
                format!(r#"{{"id":0,"name":"未分组","parent_id":0,{layer},"system_flag":1,"is_sys":1}}"#),
            ];
            assert_eq!(paths(&rows.each_ref().map(String::as_str)), ["LED", "LED/户外", "未分组"], "{layer}");
        }
    }

    #[test]
    fn a_group_zero_of_the_company_has_the_children_that_say_so() {
        let zero = r#"{"id":0,"name":"zero","parent_id":0,"system_flag":"0"}"#;
        let unsaid = r#"{"id":1,"name":"one","parent_id":"0","layer":null,"prefix":""}"#;
        assert_eq!(paths(&[zero, unsaid]), ["zero", "zero/one"]);
        let below = r#"{"id":1,"name":"one","parent_id":0,"layer":2,"prefix":"0-0-"}"#;
        assert_eq!(paths(&[zero, below]), ["zero", "zero/one"]);
        let root = r#"{"id":1,"name":"one","parent_id":0,"layer":1}"#;
        assert_eq!(paths(&[zero, root]), ["zero", "one"]);
        let below_the_system_s = r#"{"id":0,"name":"zero","parent_id":0,"is_sys":"1"}"#;
        assert_eq!(paths(&[below_the_system_s, below]), ["zero", "zero/one"]);
    }

    #[test]
    fn a_row_is_never_its_own_parent() {
        assert_eq!(paths(&[r#"{"id":0,"name":"zero","parent_id":0,"layer":2}"#]), ["zero"]);
        assert_eq!(paths(&[r#"{"id":4,"name":"four","parent_id":4,"layer":1}"#]), ["four"]);
        let tree = sort(&[group("4", "four", "4")], Duplicates::KeepFirst);
        let reasons: Vec<_> = tree.rejected.iter().map(|row| row.reason.as_str()).collect();
        assert_eq!(reasons, ["group 4 is its own ancestor (a cycle in the tree)"]);
    }

    #[test]
    fn a_row_that_names_another_parent_is_below_it_whatever_its_layer_says() {
        let rows = [
            r#"{"id":1,"name":"one","parent_id":0,"layer":0}"#,
            r#"{"id":2,"name":"two","parent_id":1,"layer":1,"prefix":"0-"}"#,
        ];
        assert_eq!(paths(&rows), ["one", "one/two"]);
        assert_eq!(paths(&rows[1..]), [""; 0]);
    }

    #[test]
    fn without_id_check_the_last_row_of_an_id_stays() {
        let tree = sort(&[group("1", "old", "0"), group("1", "new", "0")], Duplicates::KeepLast);
        assert_eq!(tree.groups.first().map(|(_, g)| g.name.as_str()), Some("new"));
        assert_eq!(tree.rejected.len(), 1);
    }
}
