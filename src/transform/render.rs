//! Writes the rows of a catalogue by a compiled field map.

use std::collections::HashMap;

use super::guards::{Former, FormerRow, ItemGuards, judge};
use super::map::{Field, FieldSource, FieldValue, RowMap, RowUnit};
use super::spec::As;
use super::value::{write_or, write_text, write_value};
use crate::catalogue::{Catalogue, PRODUCT_ID_COLUMN, Reason, ReasonKind, Table};
use crate::words::written;

/// A value that does not fit its field: the product (or, for a field of the group, the row) is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Whether it is the product at this row of the table, rather than the group.
    pub product: Option<u32>,
    /// Why.
    pub reason: Reason,
}

/// Writes rows of one catalogue.
pub(crate) struct Renderer<'a> {
    map: &'a RowMap,
    catalogue: &'a Catalogue,
    /// Where each product is a row: what it repeats of its group, a row for each group and a column for each such field.
    of_groups: Table,
    /// Why the products of a group cannot be written, by the group.
    misfits: HashMap<usize, String>,
    /// What the target has acknowledged; `None` where nobody knows it.
    former: Option<&'a dyn Former>,
}

impl<'a> Renderer<'a> {
    /// A renderer for this catalogue.
    pub(crate) fn new(map: &'a RowMap, catalogue: &'a Catalogue, former: Option<&'a dyn Former>) -> Self {
        let fields_of_groups = map.fields.iter().filter(|field| is_of_group(field)).count();
        let of_groups = Table::new(fields_of_groups);
        let mut renderer = Self { map, catalogue, of_groups, misfits: HashMap::new(), former };
        if map.unit() == RowUnit::Product && fields_of_groups > 0 {
            (0..catalogue.groups.len()).for_each(|group| renderer.write_group_once(group));
        }
        renderer
    }

    fn write_group_once(&mut self, group: usize) {
        let mut cells = Vec::new();
        for field in self.map.fields.iter().filter(|field| is_of_group(field)) {
            let FieldValue::From { source, kind, default, name } = &field.value else { continue };
            let mut out = Vec::new();
            if let Err(why) = self.write_field(source, *kind, default, group, None, &mut out) {
                self.misfits.entry(group).or_insert(written!("field {name}: {why}", name, why));
            }
            cells.push(String::from_utf8(out).unwrap_or_default());
        }
        if let Err(full) = self.of_groups.push(cells.iter().map(String::as_str)) {
            self.misfits.insert(group, full.to_string());
        }
    }

    /// Writes the row of a group. Products that do not fit are left out, those that a value guard holds back stay as they
    /// were acknowledged, if ever; both are returned. A field of the group that does so rejects the whole row.
    pub(crate) fn group(&self, group: usize, out: &mut Vec<u8>) -> Result<Vec<Misfit>, Misfit> {
        let mut misfits = Vec::new();
        let id = self.catalogue.groups.get(group).map_or("", |of| of.id.as_str());
        let former = self.map.guards.former(self.former, id);
        self.write_group(group, former.as_ref(), out, &mut misfits)
            .map_err(|reason| Misfit { product: None, reason })?;
        Ok(misfits)
    }

    /// Why the products of a group cannot be written: one of its own fields, which all of them repeat, does not fit.
    pub(crate) fn misfit_of_group(&self, group: usize) -> Option<&str> {
        self.misfits.get(&group).map(String::as_str)
    }

    /// Writes the row of a product.
    pub(crate) fn product(&self, group: usize, product: u32, out: &mut Vec<u8>) -> Result<(), Misfit> {
        let misfit = |reason| Misfit { product: Some(product), reason };
        if let Some(why) = self.misfits.get(&group) {
            return Err(misfit(Reason::misfit(why.clone())));
        }
        self.write_product(group, product, out).map_err(misfit)
    }

    fn write_product(&self, group: usize, product: u32, out: &mut Vec<u8>) -> Result<(), Reason> {
        let id = self.catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN);
        let former = self.map.guards.former(self.former, id);
        let mut columns_of_group = 0..;
        for (n, field) in self.map.fields.iter().enumerate() {
            out.push(if n > 0 { b',' } else { b'{' });
            out.extend_from_slice(field.key.as_bytes());
            let start = out.len();
            match &field.value {
                FieldValue::From { .. } if is_of_group(field) => {
                    let column = columns_of_group.next().unwrap_or_default();
                    out.extend_from_slice(self.of_groups.cell(group, column).as_bytes());
                }
                FieldValue::From { source, kind, default, name } => self
                    .write_field(source, *kind, default, group, Some(product), out)
                    .map_err(|why| Reason::misfit(written!("field {name}: {why}", name, why)))?,
                // A product has no list.
                FieldValue::Each(_) => {}
            }
            self.judge_own(n, former.as_ref(), out.get(start..))?;
        }
        out.push(b'}');
        Ok(())
    }

    fn write_group(
        &self,
        group: usize,
        former: Option<&FormerRow>,
        out: &mut Vec<u8>,
        misfits: &mut Vec<Misfit>,
    ) -> Result<(), Reason> {
        out.push(b'{');
        for (n, field) in self.map.fields.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(field.key.as_bytes());
            let start = out.len();
            match &field.value {
                FieldValue::Each(inner) => {
                    let guards = self.map.guards.items(n).map(|guards| (guards, former));
                    self.write_items(inner, group, guards, out, misfits);
                }
                FieldValue::From { source, kind, default, name } => {
                    self.write_field(source, *kind, default, group, None, out)
                        .map_err(|why| Reason::misfit(written!("field {name}: {why}", name, why)))?;
                }
            }
            self.judge_own(n, former, out.get(start..))?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Judges the field at this place of the row, as it was written.
    #[inline]
    fn judge_own(
        &self,
        place: usize,
        former: Option<&FormerRow>,
        written: Option<&[u8]>,
    ) -> Result<(), Reason> {
        let guards = self.map.guards.own(place);
        if guards.is_empty() {
            return Ok(());
        }
        judge(guards, written.unwrap_or_default(), |guard| former.and_then(|former| former.own(guard)))
    }

    /// Elements that do not fit are left out. One that is held back stays as the target has acknowledged it.
    fn write_items(
        &self,
        fields: &[Field],
        group: usize,
        guards: Option<(&ItemGuards, Option<&FormerRow>)>,
        out: &mut Vec<u8>,
        misfits: &mut Vec<Misfit>,
    ) {
        out.push(b'[');
        let products = self.catalogue.products_of.get(group).map_or(&[][..], Vec::as_slice);
        let mut first = true;
        for &product in products {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            match self.write_item(fields, (group, product), guards, out) {
                Ok(()) => first = false,
                Err(reason) => {
                    out.truncate(before);
                    if let Some(kept) = self.kept_item(&reason, product, guards) {
                        out.extend_from_slice(if first { b"" } else { b"," });
                        out.extend_from_slice(kept.as_bytes());
                        first = false;
                    }
                    misfits.push(Misfit { product: Some(product), reason });
                }
            }
        }
        out.push(b']');
    }

    /// What the target has acknowledged of an element that is held back.
    fn kept_item<'f>(
        &self,
        reason: &Reason,
        product: u32,
        guards: Option<(&ItemGuards, Option<&'f FormerRow>)>,
    ) -> Option<&'f str> {
        let (guards, former) = guards.filter(|_| reason.kind == ReasonKind::Held)?;
        let id = self.catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN);
        former?.item_text(guards, id)
    }

    fn write_item(
        &self,
        fields: &[Field],
        (group, product): (usize, u32),
        guards: Option<(&ItemGuards, Option<&FormerRow>)>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let id = self.catalogue.product_cells.cell(product as usize, PRODUCT_ID_COLUMN);
        out.push(b'{');
        for (n, field) in fields.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(field.key.as_bytes());
            // A product has no list.
            let FieldValue::From { source, kind, default, name } = &field.value else { continue };
            let start = out.len();
            self.write_field(source, *kind, default, group, Some(product), out)
                .map_err(|why| Reason::misfit(written!("field {name}: {why}", name, why)))?;
            if let Some((guards, former)) = guards {
                let before = |guard: &_| former.and_then(|former| former.item(guards, id, guard));
                judge(guards.of(n), out.get(start..).unwrap_or_default(), before)?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn write_field(
        &self,
        source: &FieldSource,
        kind: Option<As>,
        default: &str,
        group: usize,
        product: Option<u32>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(of) = self.catalogue.groups.get(group) else { return Err(written!("its group is gone")) };
        let row = product.unwrap_or(0) as usize;
        match source {
            FieldSource::GroupId => write_text(&of.id, kind, out),
            FieldSource::GroupParent => {
                let parent =
                    of.parent.and_then(|at| self.catalogue.groups.get(at)).map_or("0", |p| p.id.as_str());
                write_text(parent, kind, out)
            }
            FieldSource::GroupLayer => write_value(&of.layer.to_string(), kind, out),
            FieldSource::GroupPath => write_text(&of.path, kind, out),
            FieldSource::ProductId => {
                write_text(self.catalogue.product_cells.cell(row, PRODUCT_ID_COLUMN), kind, out)
            }
            FieldSource::GroupCell(column) => {
                write_or(self.catalogue.group_cells.cell(group, *column), default, kind, out)
            }
            FieldSource::ProductCell(column) => {
                write_or(self.catalogue.product_cells.cell(row, *column), default, kind, out)
            }
        }
    }
}

fn is_of_group(field: &Field) -> bool {
    match &field.value {
        FieldValue::From { source, .. } => {
            !matches!(source, FieldSource::ProductId | FieldSource::ProductCell(_))
        }
        FieldValue::Each(_) => false,
    }
}
