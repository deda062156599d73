//! A handful of rows as OKKI sends them, and the catalogue that they make: what a preview shows. The rows come from the
//! first pages, or from a text (`sample_text.rs`); they are cleaned like those of any read.
//!
//! Deliberately absent: any claim to be whole. A group's items are those of the sample.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::page::ProductPage;
use super::protocol::GroupList;
use super::row::RowReader;
use super::seen::Duplicates;
use super::snapshot::SnapshotBuilder;
use super::{Okki, SourceSettings};
use crate::budget::Budget;
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::transform::RowMap;

/// No preview needs more calls to the list of products.
const MOST_PAGES: u64 = 20;

/// Rows of the source, each as raw JSON.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub groups: Vec<String>,
    pub products: Vec<String>,
    /// Whether the source holds more products than these.
    pub is_cut: bool,
}

/// The raw rows of a sample by their ids.
#[derive(Debug, Default)]
pub(crate) struct RawRows<'s> {
    pub groups: HashMap<String, &'s str>,
    pub products: HashMap<String, &'s str>,
}

impl Sample {
    /// The clean rows, and the rejected ones.
    pub(crate) fn catalogue(&self, settings: &SourceSettings, map: &RowMap) -> Result<Catalogue> {
        let groups = GroupList::of_rows(&self.groups);
        let mut builder = SnapshotBuilder::new(settings, map, &groups);
        if map.uses_products() {
            builder.add_embedded()?;
            let rows: Vec<&RawValue> =
                self.products.iter().filter_map(|raw| serde_json::from_str(raw).ok()).collect();
            builder.add_page(&ProductPage::from_rows(rows.len() as u64, &rows, builder.reader()))?;
        }
        Ok(builder.finish()?.0)
    }

    /// The raw rows by id; of several with one id the one that counts.
    pub(crate) fn raw_rows<'s>(&'s self, settings: &SourceSettings, map: &RowMap) -> RawRows<'s> {
        let groups = RowReader::groups(&map.group_columns, &settings.id, &settings.number);
        let products = RowReader::products(&map.product_columns);
        let duplicates = settings.duplicates();
        let mut rows = RawRows::default();
        for raw in &self.groups {
            let Ok(row) = groups.read(raw) else { continue };
            let embedded = row.products.and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list).ok());
            for product in embedded.into_iter().flatten() {
                insert(&mut rows.products, products, product.get(), duplicates);
            }
            insert(&mut rows.groups, groups, raw, duplicates);
        }
        for raw in &self.products {
            insert(&mut rows.products, products, raw, duplicates);
        }
        rows
    }
}

fn insert<'s>(
    rows: &mut HashMap<String, &'s str>,
    reader: RowReader<'_>,
    raw: &'s str,
    duplicates: Duplicates,
) {
    let Some(id) = reader.read(raw).ok().and_then(|row| row.id.map(|id| id.into_owned())) else { return };
    match duplicates {
        Duplicates::KeepFirst => drop(rows.entry(id).or_insert(raw)),
        Duplicates::KeepLast => drop(rows.insert(id, raw)),
    }
}

impl Okki {
    /// All groups, and where the rows use products the first of them: at least this many, if there are so many.
    pub(crate) async fn sample(&self, budget: &Budget, map: &RowMap, products: usize) -> Result<Sample> {
        let groups = self.groups(budget).await?;
        let mut sample = Sample { groups: groups.rows().map(str::to_owned).collect(), ..Sample::default() };
        let brings_them = SnapshotBuilder::new(&self.settings, map, &groups).has_embedded_products();
        if !map.uses_products() || brings_them || self.settings.base_url.scheme() == "file" {
            return Ok(sample);
        }
        let reader = RowReader::products(&map.product_columns);
        for number in 1..=MOST_PAGES {
            let page = self.page(budget, number, self.settings.page_size, &[], reader).await?;
            sample.products.extend((0..page.rows.len()).map(|at| page.raw(at)));
            sample.is_cut = (sample.products.len() as u64) < page.total;
            if page.rows.is_empty() || sample.products.len() >= products || !sample.is_cut {
                break;
            }
        }
        Ok(sample)
    }

    /// How this source's rows are read.
    pub(crate) fn settings(&self) -> &SourceSettings {
        &self.settings
    }
}
