//! The plan (or a verification) for people: lines of a tree, products under their group.

use std::fmt;

use super::rows::in_tree;
use super::{Action, Change, Plan, RowRef};
use crate::catalogue::{Catalogue, Group, PRODUCT_NAME_COLUMN};
use crate::words::phrase;

/// How a row differs between source and target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// A group whose rows follow; it is not a row itself.
    Heading,
    /// Only the source has it: a plan creates it, a verification misses it.
    OnlySource,
    /// Both have it, with different content.
    Differs,
    /// Only the target has it: a plan deletes it, a verification finds it extra.
    OnlyTarget,
    /// Both have it with the same content.
    Same,
    /// It is in the quarantine, so that there is nothing to compare.
    NotComparable,
}

impl DiffKind {
    /// The sign in front of a line.
    pub fn mark(self) -> char {
        match self {
            Self::Heading => ' ',
            Self::OnlySource => '+',
            Self::Differs => '*',
            Self::OnlyTarget => '-',
            Self::Same => '=',
            Self::NotComparable => '!',
        }
    }
}

/// One line of the plan or of a verification. Groups come in tree order, products under their group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// Depth in the tree, 0 = top.
    pub depth: usize,
    /// How it differs.
    pub kind: DiffKind,
    /// Name for people; empty if it is not known (a row that only the target has).
    pub name: String,
    /// The row's id.
    pub id: String,
    /// Why, in a few words.
    pub why: &'static str,
}

impl DiffLine {
    /// The line of a row.
    pub(crate) fn of(
        row: RowRef,
        id: &str,
        catalogue: &Catalogue,
        kind: DiffKind,
        why: &'static str,
    ) -> Self {
        let (name, depth) = describe(row, catalogue);
        Self { depth, kind, name, id: id.to_owned(), why }
    }

    /// The line of a row that only the target knows.
    pub(crate) fn of_target(id: impl Into<String>, kind: DiffKind, why: &'static str) -> Self {
        Self { depth: 0, kind, name: String::new(), id: id.into(), why }
    }

    fn heading(group: &Group) -> Self {
        Self {
            depth: depth_of(group),
            kind: DiffKind::Heading,
            name: group.name.clone(),
            id: group.id.to_string(),
            why: "",
        }
    }

    fn of_change(change: Change<'_>, catalogue: &Catalogue) -> Self {
        let (kind, why) = match change.action {
            Action::Create => (DiffKind::OnlySource, phrase!("not at the target yet")),
            Action::Update => (DiffKind::Differs, phrase!("differs from what the target acknowledged")),
            Action::Delete => (DiffKind::OnlyTarget, phrase!("no longer in the source")),
            Action::Unchanged | Action::Skip => (DiffKind::Same, ""),
        };
        Self::of(change.row, change.id, catalogue, kind, why)
    }
}

impl fmt::Display for DiffLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { depth, kind, name, id, why } = self;
        write!(f, "{} {:indent$}", kind.mark(), "", indent = depth * 2)?;
        if !name.is_empty() {
            write!(f, "{name} ")?;
        }
        f.write_str(id)?;
        if why.is_empty() { Ok(()) } else { write!(f, "  ({why})") }
    }
}

impl Plan {
    /// The plan as a tree: rows under their group, deletions at the end.
    pub(crate) fn lines(&self, catalogue: &Catalogue) -> Vec<DiffLine> {
        let mut changes: Vec<_> = self.changes(catalogue).collect();
        changes.sort_by(|a, b| in_tree((a.row, a.id), (b.row, b.id)));
        let mut lines = Vec::with_capacity(changes.len());
        let mut last_group = None;
        for change in changes {
            if let RowRef::Product(group, _) = change.row
                && last_group != Some(group)
            {
                last_group = Some(group);
                lines.extend(catalogue.groups.get(group).map(DiffLine::heading));
            }
            lines.push(DiffLine::of_change(change, catalogue));
        }
        lines
    }
}

fn depth_of(group: &Group) -> usize {
    group.layer.saturating_sub(1) as usize
}

/// The name of a row; empty for one that is gone.
pub(crate) fn name_of(row: RowRef, catalogue: &Catalogue) -> String {
    describe(row, catalogue).0
}

/// Name and depth of a row.
fn describe(row: RowRef, catalogue: &Catalogue) -> (String, usize) {
    let depth = |group: usize| catalogue.groups.get(group).map_or(0, depth_of);
    match row {
        RowRef::Group(group) => {
            (catalogue.groups.get(group).map(|of| of.name.clone()).unwrap_or_default(), depth(group))
        }
        RowRef::Product(group, product) => {
            let raw = catalogue.product_cells.cell(product as usize, PRODUCT_NAME_COLUMN);
            (serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()), depth(group) + 1)
        }
        RowRef::Gone => (String::new(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_alone() {
        let line = |depth, kind, name: &str, why| {
            DiffLine { depth, kind, name: name.to_owned(), id: "7".to_owned(), why }.to_string()
        };
        assert_eq!(line(0, DiffKind::Heading, "手机", ""), "  手机 7");
        assert_eq!(
            line(1, DiffKind::OnlySource, "新款", phrase!("not at the target yet")),
            "+   新款 7  (not at the target yet)"
        );
        assert_eq!(
            line(0, DiffKind::OnlyTarget, "", phrase!("no longer in the source")),
            "- 7  (no longer in the source)"
        );
    }
}
