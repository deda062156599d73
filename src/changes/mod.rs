//! What changed in a row: field by field, the old value and the new one. Pure.
//!
//! A value is the JSON text of its side, so that `2999.10` stays `2999.10`. Plans and verifications show such changes,
//! and each run that changes rows keeps a file of them (`file.rs`): the history of a row, and what an undo restores.
//! Deliberately absent: how two rows are compared. That is the plan's (`plan/diff.rs`).

mod file;

use std::fmt;

use crate::words::{Message, Words, say};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub(crate) use file::{ACCEPTED, ChangeLine, ChangesWriter, read};

/// A JSON value as its text: numbers keep their digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The value of this text; `None` if it is not JSON.
    pub fn parse(text: &str) -> Option<Self> {
        RawValue::from_string(text.to_owned()).ok().map(Self)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl From<&RawValue> for Json {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

/// What happens, or happened, to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeAction {
    /// The target did not have it.
    Create,
    /// The target had it with other content.
    Update,
    /// It is deleted: sent as a tombstone.
    Delete,
}

impl ChangeAction {
    /// The word used in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Words for ChangeAction {
    fn words(&self) -> Message {
        match self {
            Self::Create => say!("create"),
            Self::Update => say!("update"),
            Self::Delete => say!("delete"),
        }
    }
}

impl fmt::Display for ChangeAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One field of a row that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// `cost`, or `items[50001].cost`: elements of a list by their id.
    pub path: String,
    /// Its value before; `None` if there was none, or if it is not known.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub old: Option<Json>,
    /// Its value now; `None` if there is none.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub new: Option<Json>,
    /// Whether nobody knows what was there before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub old_unknown: bool,
}

/// A value that is there may be `null`.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl FieldChange {
    /// The way back.
    pub(crate) fn reversed(&self) -> Self {
        Self { path: self.path.clone(), old: self.new.clone(), new: self.old.clone(), old_unknown: false }
    }
}

/// A row that changes, with its fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// The row.
    pub id: String,
    /// Its name for people; empty if it is not known.
    pub name: String,
    /// What happens to it.
    pub action: ChangeAction,
    /// What changes in it.
    pub fields: Vec<FieldChange>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_keeps_digits_and_tells_null_from_nothing() {
        let text = concat!(
            r#"{"id":"7","name":"灯","action":"update","fields":["#,
            r#"{"path":"cost","old":2999.10,"new":3099.00},{"path":"note","old":null,"new":""},"#,
            r#"{"path":"unit","new":"PCS","old_unknown":true}]}"#
        );
        let change: RowChange = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&change).unwrap(), text);
        let olds: Vec<_> = change.fields.iter().map(|field| field.old.as_ref().map(Json::text)).collect();
        assert_eq!(olds, [Some("2999.10"), Some("null"), None]);
    }
}
