//! Source rows → target rows, by a field map that is compiled once when the pipeline is loaded.

mod compile;
mod fields;
mod guards;
mod map;
mod render;
mod shapes;
mod spec;
mod value;

pub(crate) use fields::{canonical_group_key, canonical_product_key, nearest};
pub(crate) use guards::{Former, ValueGuard};
pub(crate) use map::{Columns, RowMap, RowUnit};

pub(crate) use render::{Misfit, Renderer};
pub(crate) use spec::RecordSpec;
