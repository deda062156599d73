//! The filters of Qeasy's `/query`.

use serde_json::{Map, Value};

use crate::stored_rows::{StoredRow, StoredRows, text_of};

/// What `/query` asks for.
pub(crate) struct RowQuery<'a> {
    /// From 1.
    pub(crate) page: u64,
    pub(crate) size: u64,
    /// When rows arrived, in Unix seconds, inclusive.
    begin: u64,
    end: u64,
    conditions: Vec<(&'a str, Test)>,
}

/// What a `CONTENT_<field>` condition asks of a field.
enum Test {
    /// A plain string filter is fuzzy.
    Contains(String),
    In(Vec<String>),
}

impl Test {
    fn passes(&self, text: &str) -> bool {
        match self {
            Self::Contains(part) => text.to_lowercase().contains(part),
            Self::In(values) => values.iter().any(|value| value == text),
        }
    }
}

impl<'a> RowQuery<'a> {
    pub(crate) fn of(asked: &'a Map<String, Value>) -> Result<Self, &'static str> {
        let whole = |name: &str, default: u64| asked.get(name).map_or(Some(default), Value::as_u64);
        let (Some(page), Some(size @ 1..=100)) = (whole("page", 1), whole("pageSize", 20)) else {
            return Err("参数错误: page, pageSize (1-100)");
        };
        let (Some(begin), Some(end)) = (whole("begin_at", 0), whole("end_at", u64::MAX / 1000)) else {
            return Err("参数错误: begin_at, end_at");
        };
        let (Some(conditions), 1..) = (conditions(asked), page) else {
            return Err("参数错误: 过滤条件");
        };
        Ok(Self { page, size, begin, end, conditions })
    }

    fn matches(&self, row: &StoredRow) -> bool {
        if !(self.begin..=self.end).contains(&(row.arrived_ms / 1000)) {
            return false;
        }
        if self.conditions.is_empty() {
            return true;
        }
        let content: Map<String, Value> = serde_json::from_str(row.raw.get()).unwrap_or_default();
        self.conditions
            .iter()
            .all(|(field, test)| content.get(*field).is_some_and(|value| test.passes(&text_of(value))))
    }

    /// All rows that match. Ids that are named are looked up: verification asks for all of them, 100 at a time.
    pub(crate) fn find<'r>(&self, rows: &'r StoredRows) -> Vec<(&'r String, &'r StoredRow)> {
        let named = self.conditions.iter().find_map(|(field, test)| match test {
            Test::In(ids) if rows.is_key(field) => Some(ids),
            _ => None,
        });
        match named {
            Some(ids) => rows.by_ids(ids).filter(|(_, row)| self.matches(row)).collect(),
            None => rows.iter().filter(|(_, row)| self.matches(row)).collect(),
        }
    }
}

fn conditions(asked: &Map<String, Value>) -> Option<Vec<(&str, Test)>> {
    let mut conditions = Vec::new();
    for (name, value) in asked {
        let Some(field) = name.strip_prefix("CONTENT_") else { continue };
        let Value::Object(operators) = value else {
            conditions.push((field, Test::Contains(text_of(value).to_lowercase())));
            continue;
        };
        for (operator, value) in operators {
            let test = match (operator.as_str(), value) {
                ("$eq", value) => Test::In(vec![text_of(value)]),
                ("$in", Value::Array(values)) => Test::In(values.iter().map(text_of).collect()),
                _ => return None,
            };
            conditions.push((field, test));
        }
    }
    Some(conditions)
}
