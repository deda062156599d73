//! A preview: rows of the source beside the rows that the pipeline makes of them. Nothing is called but the source,
//! and nothing is kept.
//!
//! - **From a text** nothing is called at all.
//! - **A few rows** are those of the groups call and of the first page of products. Groups that these products fill come
//!   first; their lists hold no other product.
//! - **Rows by their ids** need the whole catalogue, since OKKI's list has no filter by id: it is read as a plan reads it,
//!   on top of the products that the last sync kept. Of such rows the fields that the pipeline names are shown.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{NO_FORMER, RunSettings};
use crate::budget::Budget;
use crate::catalogue::{Catalogue, PRODUCT_EXTRA_COLUMNS, PRODUCT_ID_COLUMN, Rejected};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::okki::{Cache, Keep, Okki, RawRows, ReadStart, Sample, SourceSettings};
use crate::plan::{RowRef, RowWriter, Selection, rows};
use crate::report::Watch;
use crate::store::{Store, paths};
use crate::transform::{RowMap, RowUnit};
use crate::words::phrase;

/// What a preview shows.
#[derive(Debug, Default)]
pub struct Preview {
    /// Rows that the pipeline makes, in order.
    pub rows: Vec<PreviewRow>,
    /// Rows that cannot go through.
    pub rejected: Vec<Rejected>,
    /// The target field that holds a row's id.
    pub id_field: String,
    /// What a reader should know of these rows.
    pub note: Option<&'static str>,
}

/// A row of the source, and of the target.
#[derive(Debug)]
pub struct PreviewRow {
    /// Its id at the target.
    pub id: String,
    /// As OKKI sends it; a group with its products where they are part of its row.
    pub source: Box<RawValue>,
    /// As it would be sent.
    pub row: Box<RawValue>,
}

/// What a preview that reads the source works with.
pub(crate) struct PreviewSource<'a> {
    pub connection: &'a str,
    pub okki: &'a Okki,
    pub store: &'a Store,
    pub rows: &'a RowMap,
    pub clock: Clock,
}

/// Keeps nothing.
struct KeepNothing;

impl Keep for KeepNothing {
    fn keeps_complete(&self) -> bool {
        false
    }

    async fn keep(&self, _: Vec<Bytes>) {}
}

/// The rows in a text that OKKI sent; those of these ids, or (none named) all.
pub(crate) fn of_text(
    settings: &SourceSettings,
    map: &RowMap,
    (text, name): (&str, &str),
    ids: &[String],
) -> Result<Preview> {
    let sample = Sample::from_text(text, name).map_err(|why| Error::new(ErrorKind::BadEvent, why))?;
    of_sample(settings, map, &sample, ids)
}

/// The first rows of the source.
pub(crate) async fn of_first_rows(
    from: &PreviewSource<'_>,
    budget: &Budget,
    limit: usize,
) -> Result<Preview> {
    from.okki.start_run();
    let sample = from.okki.sample(budget, from.rows, limit).await?;
    let mut preview = of_sample(from.okki.settings(), from.rows, &sample, &[])?;
    if sample.is_cut && from.rows.unit() == RowUnit::Group {
        preview.note =
            Some(phrase!("lists hold the products of the first page only; --id shows a whole row"));
    }
    Ok(preview)
}

/// The rows of these ids.
pub(crate) async fn of_ids(
    from: &PreviewSource<'_>,
    settings: &RunSettings,
    budget: &Budget,
    watch: &Watch,
    ids: &[String],
) -> Result<Preview> {
    let PreviewSource { connection, okki, store, rows, clock } = *from;
    okki.start_run();
    if !rows.uses_products() {
        let sample = okki.sample(budget, rows, 0).await?;
        return of_sample(okki.settings(), rows, &sample, ids);
    }
    let kept = store.load(&paths::products(connection)).await?;
    let cache = kept.filter(|_| settings.full_read_every.is_some());
    let cache = cache.and_then(|(bytes, _)| Cache::from_bytes(bytes, &okki.cache_key(rows)).ok());
    let start = ReadStart { cache, full_read_every: settings.full_read_every, clock };
    let read = okki.read(budget, rows, start, &KeepNothing, watch).await;
    let (catalogue, _) = read.map_err(|unfinished| unfinished.error)?;
    let mut preview = of_catalogue(rows, &catalogue, None, ids)?;
    preview.note = Some(phrase!("of the source's rows the fields are shown that the pipeline names"));
    Ok(preview)
}

fn of_sample(settings: &SourceSettings, map: &RowMap, sample: &Sample, ids: &[String]) -> Result<Preview> {
    let catalogue = sample.catalogue(settings, map)?;
    let raw = sample.raw_rows(settings, map);
    of_catalogue(map, &catalogue, Some(&raw), ids)
}

fn of_catalogue(
    map: &RowMap,
    catalogue: &Catalogue,
    raw: Option<&RawRows<'_>>,
    ids: &[String],
) -> Result<Preview> {
    let mut wanted: Vec<RowRef> = rows(catalogue, map.unit()).collect();
    let mut rejected = catalogue.rejected.clone();
    if ids.is_empty() {
        // Groups with products first: they show what becomes of both.
        let is_empty = |row: &RowRef| match row {
            RowRef::Group(group) => catalogue.products_of.get(*group).is_none_or(Vec::is_empty),
            _ => false,
        };
        wanted.sort_by_key(is_empty);
    } else {
        let selection = Selection::of(catalogue, map.unit(), ids, &[])?;
        wanted.retain(|row| selection.rows.contains(row));
        rejected.retain(|row| row.id.as_ref().is_some_and(|id| selection.rejected.contains(id)));
    }
    let mut writer = RowWriter::new(map, catalogue, NO_FORMER);
    let mut preview = Preview { id_field: map.id_name(), ..Preview::default() };
    for row in wanted {
        let (id, mut out) = (row.id(catalogue), Vec::new());
        if writer.write(row, id, &mut out).is_ok() {
            let (source, made) = (source_of(map, catalogue, raw, row), as_raw(out));
            preview.rows.push(PreviewRow {
                id: id.to_owned(),
                source: as_raw(source.into_bytes()),
                row: made,
            });
        }
    }
    rejected.append(&mut writer.rejected);
    preview.rejected = rejected;
    Ok(preview)
}

/// Rows that are written are JSON; `null` is for what can never be.
fn as_raw(json: Vec<u8>) -> Box<RawValue> {
    let text = String::from_utf8(json).unwrap_or_default();
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The source's row.
fn source_of(map: &RowMap, catalogue: &Catalogue, raw: Option<&RawRows<'_>>, row: RowRef) -> String {
    let id = row.id(catalogue);
    match row {
        RowRef::Group(group) => {
            let known = raw.and_then(|raw| raw.groups.get(id)).map(|raw| (*raw).to_owned());
            let own = known.unwrap_or_else(|| group_from_cells(map, catalogue, group));
            let products = catalogue.products_of.get(group).map_or(&[][..], Vec::as_slice);
            if !map.uses_products() || own.contains("\"products\"") {
                return own;
            }
            let products: Vec<String> =
                products.iter().map(|product| product_of(map, catalogue, raw, group, *product)).collect();
            let body = own.trim_end().strip_suffix('}').unwrap_or(&own).trim_end();
            let comma = if body.ends_with('{') { "" } else { "," };
            format!("{body}{comma}\"products\":[{}]}}", products.join(","))
        }
        RowRef::Product(group, product) => product_of(map, catalogue, raw, group, product),
        RowRef::Gone => "null".to_owned(),
    }
}

fn product_of(
    map: &RowMap,
    catalogue: &Catalogue,
    raw: Option<&RawRows<'_>>,
    group: usize,
    product: u32,
) -> String {
    let (table, row) = (&catalogue.product_cells, product as usize);
    let id = table.cell(row, PRODUCT_ID_COLUMN);
    if let Some(raw) = raw.and_then(|raw| raw.products.get(id)) {
        return (*raw).to_owned();
    }
    let named = table.width().saturating_sub(PRODUCT_EXTRA_COLUMNS);
    let cells: Vec<&str> = table.row(row).take(named).collect();
    let group = catalogue.groups.get(group).map(|of| of.id.as_str()).unwrap_or_default();
    map.product_columns.as_object(&[("product_id", id), ("group_id", group)], &cells)
}

fn group_from_cells(map: &RowMap, catalogue: &Catalogue, group: usize) -> String {
    let cells: Vec<&str> = catalogue.group_cells.row(group).collect();
    let Some(of) = catalogue.groups.get(group) else { return "{}".to_owned() };
    let parent = of.parent.and_then(|at| catalogue.groups.get(at)).map_or("0", |parent| parent.id.as_str());
    map.group_columns.as_object(&[("id", &of.id), ("name", &of.name), ("parent_id", parent)], &cells)
}
