//! Rows that cannot go through: each is one line of the quarantine file, with its reason and its raw JSON.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Reason, ReasonKind};
use crate::words::{Message, Words, say};

/// What a rejected row was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// A product group of the source.
    Group,
    /// A product of the source.
    Product,
    /// A finished row that the target refused.
    Record,
}

impl Words for RowKind {
    fn words(&self) -> Message {
        match self {
            Self::Group => say!("group"),
            Self::Product => say!("product"),
            Self::Record => say!("record"),
        }
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().fmt(f)
    }
}

/// A row that cannot go through.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rejected {
    /// What it was.
    pub kind: RowKind,
    /// `None` where the row has no id.
    pub id: Option<String>,
    /// Why it cannot go through, as a kind. Files of older programs do not say it.
    #[serde(default)]
    pub reason_kind: ReasonKind,
    /// Why it cannot go through.
    pub reason: String,
    /// The row as the source sent it (a record: as it was sent to the target).
    pub raw: Box<RawValue>,
    /// Whether somebody has silenced it until its content changes: then it does not count.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dismissed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Rejected {
    /// A rejected row. Raw text that is not JSON is kept as a JSON string.
    pub fn new(kind: RowKind, id: Option<String>, reason: Reason, raw: &str) -> Self {
        let raw = RawValue::from_string(raw.to_owned())
            .or_else(|_| serde_json::value::to_raw_value(raw))
            .unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { kind, id, reason_kind: reason.kind, reason: reason.text, raw, dismissed: false }
    }

    /// A group whose raw JSON is no longer in memory.
    pub(crate) fn from_group(catalogue: &Catalogue, group: usize, reason: Reason) -> Self {
        let (id, name) =
            catalogue.groups.get(group).map(|of| (of.id.to_string(), of.name.as_str())).unwrap_or_default();
        let cells: Vec<&str> = catalogue.group_cells.row(group).collect();
        let raw = kept_fields(&[("id", &id), ("name", name)], &cells);
        Self::new(RowKind::Group, Some(id), reason, &raw)
    }

    /// A product (a row of the products' table) whose raw JSON is no longer in memory.
    pub(crate) fn from_product(catalogue: &Catalogue, group: usize, product: u32, reason: Reason) -> Self {
        let (table, row) = (&catalogue.product_cells, product as usize);
        let id = table.cell(row, PRODUCT_ID_COLUMN);
        let group = catalogue.groups.get(group).map(|of| of.id.as_str()).unwrap_or_default();
        let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
        let cells: Vec<&str> = (1..named).map(|column| table.cell(row, column)).collect();
        let raw = kept_fields(&[("product_id", id), ("group_id", group)], &cells);
        Self::new(RowKind::Product, Some(id.to_owned()), reason, &raw)
    }
}

/// Stands for a row's raw JSON where only the cells that the pipeline names are still in memory.
pub(crate) fn kept_fields(named: &[(&str, &str)], cells: &[&str]) -> String {
    let named = named.iter().map(|(key, value)| format!("\"{key}\":{}", serde_json::Value::from(*value)));
    let kept: Vec<&str> = cells.iter().copied().filter(|cell| !cell.is_empty()).collect();
    let kept = format!("\"kept_values\":[{}]", kept.join(","));
    format!("{{{}}}", named.chain(std::iter::once(kept)).collect::<Vec<_>>().join(","))
}

/// A value for a message: at most 60 characters, on one line, in quotes.
pub(crate) fn short(text: &str) -> String {
    let mut cut: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("\"{cut}\"")
}
