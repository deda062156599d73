//! Reads back what the target holds: all rows, or those of one batch.

use std::collections::HashMap;

use serde_json::Value;

use super::answer::ReadPage;
use super::batch::Batch;
use super::qeasy::{QUERY_PAGE, Qeasy};
use super::{Protocol, TargetRun};
use crate::budget::Budget;
use crate::error::{Error, ErrorKind, Result, Side};

impl TargetRun<'_> {
    /// The rows of this batch as the target holds them, by id.
    pub(super) async fn stored_rows(self, budget: &Budget, batch: &Batch) -> Result<HashMap<String, Value>> {
        let Protocol::Qeasy(qeasy) = &self.target.protocol else {
            let message = "a target of kind http cannot be asked for single rows";
            return Err(Error::new(ErrorKind::NotSupported(Side::Target), message));
        };
        let mut stored = HashMap::new();
        for entries in batch.entries.chunks(QUERY_PAGE) {
            let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
            let rows = qeasy.rows_by_id(self, budget, &self.target.id_field, &ids).await?;
            self.index_by_id(rows, &mut stored);
        }
        Ok(stored)
    }

    /// Reads every row back, by id. Tombstones count as absent.
    pub(crate) async fn read_back(
        self,
        budget: &Budget,
        on_page: impl Fn(u64),
    ) -> Result<HashMap<String, Value>> {
        let mut rows = match &self.target.protocol {
            Protocol::Qeasy(qeasy) => self.read_pages(qeasy, budget, on_page).await?,
            Protocol::Http(http) => {
                let page = http.read_back(self, budget).await?;
                on_page(page.rows.len() as u64);
                let mut rows = HashMap::new();
                self.index_by_id(page.rows, &mut rows);
                rows
            }
        };
        rows.retain(|_, row| row.get("deleted").and_then(Value::as_bool) != Some(true));
        Ok(rows)
    }

    async fn read_pages(
        self,
        qeasy: &Qeasy,
        budget: &Budget,
        on_page: impl Fn(u64),
    ) -> Result<HashMap<String, Value>> {
        let (mut rows, mut read) = (HashMap::new(), 0);
        for number in 1_u64.. {
            let ReadPage { rows: page, total } = qeasy.page(self, budget, number).await?;
            let (known, on_this_page) = (rows.len(), page.len());
            read += on_this_page as u64;
            self.index_by_id(page, &mut rows);
            on_page(read);
            // A page without a new row is the last one, whatever the total promises; a short one need not be.
            if rows.len() == known || on_this_page == 0 || total.is_some_and(|total| read >= total) {
                break;
            }
        }
        Ok(rows)
    }

    fn index_by_id(self, rows: Vec<Value>, by_id: &mut HashMap<String, Value>) {
        for row in rows {
            let id = match row.get(&self.target.id_field) {
                Some(Value::String(id)) => id.clone(),
                Some(Value::Number(id)) => id.to_string(),
                _ => continue,
            };
            by_id.insert(id, row);
        }
    }
}
