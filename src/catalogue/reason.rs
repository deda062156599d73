//! Why a row cannot go through: a kind, which can be counted, and words.

use std::fmt;

use crate::words::{Message, Words, say};
use serde::{Deserialize, Serialize};

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// It cannot be read.
    Unreadable,
    /// It has no id.
    MissingId,
    /// It has no name (the source's `number` field).
    MissingName,
    /// Another row has its id.
    RepeatedId,
    /// The group above it does not exist.
    UnknownParent,
    /// It is its own ancestor.
    Cycle,
    /// A group above it is in the quarantine.
    AncestorRejected,
    /// A product that names no group.
    NoGroup,
    /// A product whose group does not exist.
    UnknownGroup,
    /// A product whose group is in the quarantine.
    GroupRejected,
    /// A value does not fit its type.
    Misfit,
    /// A value guard holds it back.
    Held,
    /// The target refused it.
    Refused,
    /// A file of an older program does not say.
    #[default]
    #[serde(other)]
    Other,
}

impl ReasonKind {
    /// The word used in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::MissingId => "missing_id",
            Self::MissingName => "missing_name",
            Self::RepeatedId => "repeated_id",
            Self::UnknownParent => "unknown_parent",
            Self::Cycle => "cycle",
            Self::AncestorRejected => "ancestor_rejected",
            Self::NoGroup => "no_group",
            Self::UnknownGroup => "unknown_group",
            Self::GroupRejected => "group_rejected",
            Self::Misfit => "misfit",
            Self::Held => "held",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

impl Words for ReasonKind {
    fn words(&self) -> Message {
        match self {
            Self::Unreadable => say!("unreadable"),
            Self::MissingId => say!("missing_id"),
            Self::MissingName => say!("missing_name"),
            Self::RepeatedId => say!("repeated_id"),
            Self::UnknownParent => say!("unknown_parent"),
            Self::Cycle => say!("cycle"),
            Self::AncestorRejected => say!("ancestor_rejected"),
            Self::NoGroup => say!("no_group"),
            Self::UnknownGroup => say!("unknown_group"),
            Self::GroupRejected => say!("group_rejected"),
            Self::Misfit => say!("misfit"),
            Self::Held => say!("held"),
            Self::Refused => say!("refused"),
            Self::Other => say!("other"),
        }
    }
}

impl fmt::Display for ReasonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a row cannot go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The kind, to be counted.
    pub kind: ReasonKind,
    /// In words, for people.
    pub text: String,
}

impl Reason {
    /// A reason of this kind in these words.
    pub fn new(kind: ReasonKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A value that does not fit.
    pub fn misfit(text: impl Into<String>) -> Self {
        Self::new(ReasonKind::Misfit, text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kind_is_one_word_everywhere_and_an_unknown_one_is_other() {
        for kind in [ReasonKind::MissingId, ReasonKind::AncestorRejected, ReasonKind::Held, ReasonKind::Other]
        {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(serde_json::from_value::<ReasonKind>(kind.as_str().into()).unwrap(), kind);
        }
        assert_eq!(serde_json::from_str::<ReasonKind>("\"of_tomorrow\"").unwrap(), ReasonKind::Other);
    }
}
