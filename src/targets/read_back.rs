//! Reads back what the target holds: a page of all rows, or the rows with given ids.

use std::collections::HashMap;

use serde_json::Value;

use super::answer::ReadPage;
use super::batch::Batch;
use super::qeasy::QUERY_PAGE;
use super::{Protocol, TargetRun};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result, Side};
use crate::words::say;

/// Rows that a target is asked for by their ids in one call, at most.
pub(crate) const IDS_PER_CALL: usize = QUERY_PAGE;

/// A page of the target's rows.
#[derive(Debug)]
pub(crate) struct Page {
    /// The rows that have an id, by their ids.
    pub rows: Vec<(String, Value)>,
    /// Rows on the page, those without an id included.
    pub length: u64,
    /// How many rows there are in all, if the answer says so.
    pub total: Option<u64>,
    /// Whether this target answers all rows at once.
    pub is_only: bool,
}

impl TargetRun<'_> {
    /// The rows of this batch as the target holds them, by id.
    pub(super) async fn stored_rows(self, budget: &Budget, batch: &Batch) -> Result<HashMap<String, Value>> {
        let Protocol::Qeasy(qeasy) = &self.target.protocol else { return Err(no_single_rows()) };
        let mut stored = HashMap::new();
        for entries in batch.entries.chunks(QUERY_PAGE) {
            let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
            let rows = qeasy.rows_by_id(self, budget, &self.target.id_field, &ids).await?;
            self.index_by_id(rows, &mut stored);
        }
        Ok(stored)
    }

    /// The rows with these ids, by id. An error of kind `NotSupported` means that the target cannot be asked for them.
    pub(crate) async fn rows_by_id(self, budget: &Budget, ids: &[&str]) -> Result<HashMap<String, Value>> {
        let Protocol::Qeasy(qeasy) = &self.target.protocol else { return Err(no_single_rows()) };
        let mut found = HashMap::new();
        self.index_by_id(qeasy.rows_by_id(self, budget, &self.target.id_field, ids).await?, &mut found);
        if found.keys().all(|id| ids.contains(&id.as_str())) {
            return Ok(found);
        }
        let message = say!("target answered other rows than those that it was asked for by their ids");
        Err(Error::new(ErrorKind::NotSupported(Side::Target), message))
    }

    /// A page of all rows, from 1.
    pub(crate) async fn page(self, budget: &Budget, number: u64) -> Result<Page> {
        let (ReadPage { rows, total }, is_only) = match &self.target.protocol {
            Protocol::Qeasy(qeasy) => (qeasy.page(self, budget, number).await?, false),
            Protocol::Http(http) => (http.read_back(self, budget).await?, true),
        };
        let length = rows.len() as u64;
        let rows = rows.into_iter().filter_map(|row| Some((self.id_of(&row)?, row))).collect();
        Ok(Page { rows, length, total, is_only })
    }

    fn id_of(self, row: &Value) -> Option<String> {
        match row.get(&self.target.id_field)? {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        }
    }

    fn index_by_id(self, rows: Vec<Value>, by_id: &mut HashMap<String, Value>) {
        by_id.extend(rows.into_iter().filter_map(|row| Some((self.id_of(&row)?, row))));
    }
}

fn no_single_rows() -> Error {
    let message = say!("a target of kind http cannot be asked for single rows");
    Error::new(ErrorKind::NotSupported(Side::Target), message)
}
