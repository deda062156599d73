//! Changes instead of everything: products that the source says are new or edited since the last read, merged into the
//! cache of that read.
//!
//! Races and gaps, and what catches them:
//! - The source's clock counts seconds, and rows become visible late: changes are asked for from a minute before the
//!   last read on (`cache::OVERLAP`).
//! - Rows move between pages while people edit: as many different ids must come as the total says, twice at most.
//! - Deletions are not announced, and a row may come without a new update time: cache and changes together must hold
//!   as many products as the source counts.
//!
//! Whatever does not add up means a full read. Deliberately absent: asking which product is missing.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use compact_str::CompactString;

use super::cache::Cache;
use super::page::ProductPage;
use super::row::RowReader;
use super::snapshot::{ReadScope, SnapshotBuilder};
use super::{Okki, ReadInfo};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN};
use crate::error::{ErrorKind, Result};
use crate::net::Call;
use crate::report::{Progress, Watch};
use crate::transform::{Columns, RowMap};

/// More changes than this are not kept in memory in addition to the cache: everything is read, page by page.
const MAX_CHANGES: u64 = 20_000;
/// Attempts at reading the changes before everything is read.
const MAX_CHANGE_READS: u32 = 2;

/// The pages of products that changed.
#[derive(Default)]
struct Changes {
    pages: Vec<ProductPage>,
    ids: HashSet<CompactString>,
    total: u64,
    rows: u64,
    total_moved: bool,
}

impl Changes {
    fn add(&mut self, page: ProductPage) {
        self.total_moved |= !self.pages.is_empty() && self.total != page.total;
        self.total = page.total;
        self.rows += page.rows.len() as u64;
        self.ids.extend(page.rows.iter().filter_map(|row| row.id.clone()));
        self.pages.push(page);
    }

    fn are_too_many(&self) -> bool {
        self.total > MAX_CHANGES
    }

    /// Whether as many rows, all with different ids, came as the total says.
    fn are_consistent(&self) -> bool {
        !self.total_moved && self.rows == self.total && self.ids.len() as u64 == self.total
    }
}

impl Okki {
    /// Reads the groups in full and the products that changed, and merges those into the cache. `None`: read everything.
    pub(super) async fn read_changes(
        &self,
        budget: &Budget,
        map: &RowMap,
        cache: Cache,
        watch: &Watch,
    ) -> Result<Option<(Catalogue, ReadInfo)>> {
        let Some(since) = cache.changes_since() else { return Ok(None) };
        let groups = self.groups(budget).await?;
        let Some(began) = groups.now.clone() else { return Ok(None) };
        let mut builder = SnapshotBuilder::new(&self.settings, map, &groups);
        if builder.has_embedded_products() {
            return Ok(None);
        }
        for _ in 0..MAX_CHANGE_READS {
            let Some(changes) = self.changes(budget, map, &since, watch).await? else { return Ok(None) };
            let total = self.product_total(budget, map).await?;
            if !changes.are_consistent() {
                continue;
            }
            let outdated = cache.rows_with(&changes.ids);
            let cached = cache.table.len() - outdated.len() + changes.ids.len();
            if cached as u64 != total {
                tracing::info!(total, cached, "the cache and the source's total differ");
                continue;
            }
            let fresh = merge(&mut builder, cache, &outdated, &changes)?;
            builder.note_total(total);
            let scope = ReadScope::Changes(fresh);
            let snapshot = builder.finish(scope, Some(began), changes.pages.len() as u64);
            return Ok(snapshot.inconsistency.is_none().then_some((snapshot.catalogue, snapshot.info)));
        }
        tracing::info!("reading all products");
        Ok(None)
    }

    /// The products that changed; `None` if they are too many, or if the source cannot be asked.
    async fn changes(
        &self,
        budget: &Budget,
        map: &RowMap,
        since: &str,
        watch: &Watch,
    ) -> Result<Option<Changes>> {
        let mut changes = Changes::default();
        let filter = [("time_type", "1"), ("start_time", since)];
        let pages = self.read_pages(budget, map, &filter, |page| {
            changes.add(page);
            watch(Progress::Reading { read: changes.ids.len() as u64, total: changes.total });
            Ok(if changes.are_too_many() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        match pages.await {
            Ok(_) => Ok((!changes.are_too_many()).then_some(changes)),
            // A source without such a filter can still be read in full.
            Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                tracing::info!(error = %error.line(), "the source cannot be asked for changes");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The number of all products, in one call of one row.
    async fn product_total(&self, budget: &Budget, map: &RowMap) -> Result<u64> {
        let query = [("start_index", "1"), ("count", "1")];
        let reader = RowReader::products(&map.product_columns);
        Ok(self.list(budget, Call::new("products"), &query, reader).await?.total)
    }

    /// Whether products were created since this read began, by the source's own clock: one call of one row. `None` if
    /// the source has no such filter, or ignores it.
    pub(crate) async fn grew_since(&self, budget: &Budget, read: &ReadInfo) -> Result<Option<bool>> {
        let Some(began) = &read.read_began else { return Ok(Some(false)) };
        let query = [("start_index", "1"), ("count", "1"), ("time_type", "2"), ("start_time", began)];
        let columns = Columns::default();
        let (call, reader) = (Call::new("products").optional(), RowReader::products(&columns));
        let created = match self.list(budget, call, &query, reader).await {
            Ok(page) => page.total,
            Err(error) if matches!(error.kind, ErrorKind::NotSupported(_)) => {
                tracing::debug!(error = %error.line(), "the source cannot be asked for new products");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok((created == 0 || created < read.source_total).then_some(created > 0))
    }
}

/// Adds the cache's rows and the changed ones; returns how many of those differ from the cache.
fn merge(
    builder: &mut SnapshotBuilder<'_>,
    cache: Cache,
    outdated: &[usize],
    changes: &Changes,
) -> Result<u64> {
    let row_of: HashMap<CompactString, usize> =
        outdated.iter().map(|row| (cache.table.cell(*row, PRODUCT_ID_COLUMN).into(), *row)).collect();
    builder.add_cached(cache.table, outdated)?;
    let mut fresh = 0;
    for page in &changes.pages {
        let first = builder.products().len();
        builder.add_rows(page)?;
        let products = builder.products();
        // The overlap makes rows come again that have not changed.
        let is_same = |row: &usize| {
            let before = row_of.get(products.cell(*row, PRODUCT_ID_COLUMN));
            before.is_some_and(|before| products.row(*before).eq(products.row(*row)))
        };
        let same = (first..products.len()).filter(is_same).count();
        fresh += page.rows.len().saturating_sub(same) as u64;
    }
    Ok(fresh)
}
