//! `[record]` as the pipeline file spells it.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[record]`: what one row at the target looks like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordSpec {
    /// What one row is and, without `fields`, which fields it has. Default: `groups-with-items`; with own fields: one row per group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Own fields: target field = source field, or a table. They replace the shape's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<IndexMap<String, FieldSpec>>,
}

/// The three built-in shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// `{"productGroupId": "123", "productName": "电子产品"}`, one row per group.
    Groups,
    /// `{"id": "123", "name": "电子产品", "items": [{"id": "001", "name": "手机", "cost": 2999}]}`, one row per group.
    GroupsWithItems,
    /// `{"id": "001", "name": "手机", "cost": 2999, "groupId": "123", "groupName": "电子产品"}`, one row per product.
    Products,
}

/// Where a target field comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FieldSpec {
    /// The source field's name, for example `name` or `fob.price_min`. `{{name}}` means the same.
    Name(String),
    /// The source field with a type and a default, or a list of products.
    Table(FieldTable),
}

/// A target field in full: either `from` (with `as`, `default`) or `each` (with `fields`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FieldTable {
    /// The source field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The type at the target; without it the value goes as the source sent it.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub kind: Option<As>,
    /// What stands for a value that is missing or null; without it, null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<serde_json::Value>,
    /// A list with one entry per product of the group: `products`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// The fields of such an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<IndexMap<String, FieldSpec>>,
}

/// The type of a target field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// A JSON string.
    String,
    /// A JSON number with the digits that the source sent.
    Number,
    /// A JSON number without a fraction.
    Integer,
    /// `true` or `false`; 1 and 0 are accepted.
    Boolean,
}
