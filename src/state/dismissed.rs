//! Rows of the quarantine that somebody has silenced until their content changes.

use serde::{Deserialize, Serialize};

use crate::catalogue::{Rejected, RowKind};

/// What a row that comes back after its tombstone has at its end when it is sent.
const REVIVAL: &str = ",\"deleted\":false}";

/// A row of the quarantine as it was when somebody silenced it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dismissed {
    /// What it is.
    pub kind: RowKind,
    /// `None` where the row has no id.
    pub id: Option<String>,
    /// Hash of its raw JSON, in 32 hexadecimal digits.
    pub content: String,
}

impl Dismissed {
    /// This row with its content of now.
    pub fn of(row: &Rejected) -> Self {
        Self { kind: row.kind, id: row.id.clone(), content: content(row.raw.get()) }
    }
}

fn content(raw: &str) -> String {
    let hash = match raw.strip_suffix(REVIVAL) {
        Some(row) => xxhash_rust::xxh3::xxh3_128(format!("{row}}}").as_bytes()),
        None => xxhash_rust::xxh3::xxh3_128(raw.as_bytes()),
    };
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_whether_it_is_sent_as_one_that_comes_back_or_not() {
        assert_eq!(content(r#"{"id":"1","deleted":false}"#), content(r#"{"id":"1"}"#));
        assert_ne!(content(r#"{"id":"1","deleted":true}"#), content(r#"{"id":"1"}"#));
    }
}
