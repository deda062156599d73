//! How much the source holds, asked with one row: whether it can be asked at all.

use super::Okki;
use super::row::RowReader;
use crate::budget::Budget;
use crate::error::Result;
use crate::transform::RowMap;

/// What the source says that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct SourceTotals {
    /// Product groups.
    pub groups: u64,
    /// Products; `None` where the pipeline does not read any.
    pub products: Option<u64>,
}

impl Okki {
    /// Logs in, reads the groups, and one product where the pipeline uses products.
    pub(crate) async fn totals(&self, budget: &Budget, map: &RowMap) -> Result<SourceTotals> {
        let groups = self.groups(budget).await?.rows().count() as u64;
        let products = if map.uses_products() && self.settings.base_url.scheme() != "file" {
            let reader = RowReader::products(&map.product_columns);
            Some(self.page(budget, 1, 1, &[], reader).await?.total)
        } else {
            None
        };
        Ok(SourceTotals { groups, products })
    }
}
