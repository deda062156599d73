//! The tree of a plan or a verification.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::term::{Style, count, sanitize};
use super::values;
use crate::report::Mode;
use crate::sync::{ChangeAction, DiffKind, DiffLine, RowChange};
use crate::words::{Message, say};

/// Lines that are shown unless all were asked for.
const FIRST_LINES: usize = 200;
/// Characters of a name or an id that are shown.
const TEXT_CHARS: usize = 80;
/// Levels that are drawn; deeper rows are drawn at the last one.
const LEVELS: usize = 16;

/// How much of a tree is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    First,
    All,
}

impl Lines {
    /// What `--all` means.
    pub(super) fn asked(all: bool) -> Self {
        if all { Self::All } else { Self::First }
    }

    fn cap(self) -> usize {
        match self {
            Self::First => FIRST_LINES,
            Self::All => usize::MAX,
        }
    }
}

/// The tree of a plan or a verification, with a legend. Unchanged rows are left out, except those above a change.
/// What changed in a row stands in the place of its reason, where it is among `changes`.
pub(super) fn tree(
    mode: Mode,
    lines: &[DiffLine],
    changes: &[RowChange],
    shown: Lines,
    style: Style,
) -> String {
    let changes: HashMap<&str, &RowChange> = changes
        .iter()
        .filter(|change| change.action == ChangeAction::Update && !change.fields.is_empty())
        .map(|change| (change.id.as_str(), change))
        .collect();
    let cap = shown.cap();
    let shown = changed_and_above(lines);
    if shown.is_empty() {
        return String::new();
    }
    let mut text = format!("{}\n", style.dim(&style.say(&legend(mode))));
    for (line, guide) in shown.iter().zip(guides(&shown)).take(cap) {
        row(line, changes.get(line.id.as_str()).copied(), &guide, style, &mut text);
    }
    let more = shown.iter().skip(cap).filter(|line| line.kind != DiffKind::Same).count();
    if more > 0 {
        let more = style.say(&say!("… and {more} more; --all shows them", more = count(more as u64)));
        let _ = writeln!(text, "{}", style.dim(&more));
    }
    text
}

fn legend(mode: Mode) -> Message {
    match mode {
        Mode::Verify => {
            say!("= same   + missing at the target   - extra at the target   * differs   ! could not be read")
        }
        Mode::Sync | Mode::Plan | Mode::Undo => say!("+ create   * update   - delete   = unchanged"),
    }
}

fn row(line: &DiffLine, change: Option<&RowChange>, guide: &str, style: Style, text: &mut String) {
    let name = sanitize(&line.name, TEXT_CHARS);
    let id = sanitize(&line.id, TEXT_CHARS);
    let _ = write!(text, "{} {}", style.mark(line.kind), style.dim(guide));
    let _ = match (name.is_empty(), line.kind) {
        (true, _) => write!(text, "{id}"),
        (false, DiffKind::Same) => write!(text, "{} {}", style.dim(&name), style.dim(&id)),
        (false, _) => write!(text, "{name} {}", style.dim(&id)),
    };
    if let Some(change) = change.filter(|_| line.kind == DiffKind::Differs) {
        let _ = writeln!(text, "  {}", values::fields(change, style));
        return;
    }
    // An unchanged row only shows where the others are: it needs no reason.
    if line.kind != DiffKind::Same && !line.why.is_empty() {
        let why = style.say(&say!("({why})", why = Message::from(line.why)));
        let _ = write!(text, "  {}", style.dim(&why));
    }
    text.push('\n');
}

/// The changed lines and the unchanged ones above them in the tree.
fn changed_and_above(lines: &[DiffLine]) -> Vec<&DiffLine> {
    let mut shown = Vec::new();
    // Backwards, the first line that is less deep than the one shown last is its parent.
    let mut below = 0;
    for line in lines.iter().rev() {
        if line.kind != DiffKind::Same || line.depth < below {
            below = line.depth;
            shown.push(line);
        }
    }
    shown.reverse();
    shown
}

/// The `│ ├─ └─` before each line. They depend on levels only: terminals disagree about the width of Chinese names.
fn guides(lines: &[&DiffLine]) -> Vec<String> {
    let mut guides = Vec::with_capacity(lines.len());
    // Whether a line at that level follows below, before the tree goes up past it.
    let mut follows = [false; LEVELS];
    for line in lines.iter().rev() {
        let depth = line.depth.min(LEVELS - 1);
        let mut guide = String::new();
        for (level, &follows) in follows.iter().enumerate().take(depth + 1).skip(1) {
            guide.push_str(match (level == depth, follows) {
                (true, true) => "├─ ",
                (true, false) => "└─ ",
                (false, true) => "│  ",
                (false, false) => "   ",
            });
        }
        for (level, follows) in follows.iter_mut().enumerate().skip(depth) {
            *follows = level == depth;
        }
        guides.push(guide);
    }
    guides.reverse();
    guides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(depth: usize, mark: char, name: &str, id: &str, why: &'static str) -> DiffLine {
        let kind = match mark {
            '+' => DiffKind::OnlySource,
            '*' => DiffKind::Differs,
            '-' => DiffKind::OnlyTarget,
            '!' => DiffKind::NotComparable,
            _ => DiffKind::Same,
        };
        DiffLine { depth, kind, name: name.to_owned(), id: id.to_owned(), why }
    }

    #[test]
    fn a_tree_shows_changes_and_what_is_above_them() {
        let lines = [
            line(0, '=', "电子产品", "1", ""),
            line(1, '=', "没变", "2", ""),
            line(1, '=', "手机", "3", ""),
            line(2, '+', "新款", "4", "new"),
            line(2, '*', "旧款\u{1b}[31m\n红", "5", "name differs"),
            line(1, '*', "电脑", "6", "items differ"),
            line(0, '=', "家具", "7", ""),
            line(0, '-', "", "8", "gone at the source"),
        ];
        insta::assert_snapshot!(tree(Mode::Plan, &lines, &[], Lines::First, Style::PLAIN), @r"
        + create   * update   - delete   = unchanged
        = 电子产品 1
        = ├─ 手机 3
        + │  ├─ 新款 4  (new)
        * │  └─ 旧款 红 5  (name differs)
        * └─ 电脑 6  (items differ)
        - 8  (gone at the source)
        ");
    }

    #[test]
    fn a_tree_without_changes_is_empty() {
        assert_eq!(tree(Mode::Verify, &[line(0, '=', "a", "1", "")], &[], Lines::All, Style::PLAIN), "");
    }

    #[test]
    fn a_long_tree_is_cut_unless_all_is_asked_for() {
        let lines: Vec<DiffLine> = (0..1_500).map(|n| line(0, '+', "a", &n.to_string(), "new")).collect();
        let cut = tree(Mode::Verify, &lines, &[], Lines::First, Style::PLAIN);
        assert!(cut.ends_with("… and 1,300 more; --all shows them\n"), "{cut}");
        assert_eq!(tree(Mode::Verify, &lines, &[], Lines::All, Style::PLAIN).lines().count(), 1_501);
    }

    #[test]
    fn depth_is_bounded_and_may_jump() {
        let lines = [line(9_999, '+', "a", "1", ""), line(3, '+', "b", "2", ""), line(0, '+', "c", "3", "")];
        let text = tree(Mode::Plan, &lines, &[], Lines::First, Style::PLAIN);
        assert!(text.lines().all(|line| line.chars().count() < 3 * LEVELS + 10), "{text}");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let lines = [line(0, '+', "a", "1", "new")];
        assert!(
            tree(Mode::Plan, &lines, &[], Lines::First, Style { colour: true, ..Style::PLAIN })
                .contains("\u{1b}[32m+")
        );
        assert!(!tree(Mode::Plan, &lines, &[], Lines::First, Style::PLAIN).contains('\u{1b}'));
    }
}
