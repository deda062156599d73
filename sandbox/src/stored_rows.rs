//! The rows of a target: by primary key, byte for byte as they came.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Default)]
pub(crate) struct StoredRows {
    rows: IndexMap<String, StoredRow>,
    /// The fields that ids were found in. If there is one, a filter on it needs no scan.
    key_fields: BTreeSet<&'static str>,
}

pub(crate) struct StoredRow {
    pub(crate) raw: Box<RawValue>,
    pub(crate) arrived_ms: u64,
}

/// A row's primary key.
pub(crate) struct RowKey {
    pub(crate) id: String,
    field: &'static str,
}

/// The fields that can be a row's primary key, in this order.
#[derive(Deserialize)]
struct KeyFields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "productGroupId")]
    group: Option<&'a RawValue>,
    #[serde(borrow, rename = "productId")]
    product: Option<&'a RawValue>,
}

impl RowKey {
    /// `None` if the key is missing, null or blank.
    pub(crate) fn of(row: &RawValue) -> Option<Self> {
        let fields: KeyFields = serde_json::from_str(row.get()).ok()?;
        let (raw, field) = fields
            .id
            .map(|raw| (raw, "id"))
            .or(fields.group.map(|raw| (raw, "productGroupId")))
            .or(fields.product.map(|raw| (raw, "productId")))?;
        let id = text_of(&serde_json::from_str(raw.get()).ok()?);
        (!id.trim().is_empty()).then_some(Self { id, field })
    }
}

/// A value as filters and ids compare it: a string without its quotes, anything else as JSON.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Fields in their order, values as they were written.
type Fields = IndexMap<String, Box<RawValue>>;

/// The row, and then what the one before had and this one lacks. `None` if one of them is no object.
fn merged(before: &RawValue, row: &RawValue) -> Option<Box<RawValue>> {
    let mut fields: Fields = serde_json::from_str(row.get()).ok()?;
    for (name, value) in serde_json::from_str::<Fields>(before.get()).ok()? {
        fields.entry(name).or_insert(value);
    }
    serde_json::value::to_raw_value(&fields).ok()
}

impl StoredRows {
    pub(crate) fn put(&mut self, key: RowKey, raw: &RawValue, now_ms: u64) {
        self.key_fields.insert(key.field);
        self.rows.insert(key.id, StoredRow { raw: raw.to_owned(), arrived_ms: now_ms });
    }

    /// Keeps the fields that the row had and that this one lacks.
    pub(crate) fn merge(&mut self, key: RowKey, raw: &RawValue, now_ms: u64) {
        let merged = self.rows.get(&key.id).and_then(|before| merged(&before.raw, raw));
        self.put(key, merged.as_deref().unwrap_or(raw), now_ms);
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&StoredRow> {
        self.rows.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &StoredRow)> {
        self.rows.iter()
    }

    /// The rows with these ids, in the order in which they came.
    pub(crate) fn by_ids(&self, ids: &[String]) -> impl Iterator<Item = (&String, &StoredRow)> {
        let places: BTreeSet<usize> = ids.iter().filter_map(|id| self.rows.get_index_of(id)).collect();
        places.into_iter().filter_map(|at| self.rows.get_index(at))
    }

    /// Whether every row's id is in this field.
    pub(crate) fn is_key(&self, field: &str) -> bool {
        self.key_fields.len() == 1 && self.key_fields.contains(field)
    }

    pub(crate) fn copy(&self) -> IndexMap<String, Box<RawValue>> {
        self.rows.iter().map(|(id, row)| (id.clone(), row.raw.clone())).collect()
    }
}
