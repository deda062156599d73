//! Source rows → target rows, by a field map that is compiled once when the pipeline is loaded.

mod compile;
mod fields;
mod render;
mod spec;
mod value;

pub(crate) use compile::{Columns, RowMap};
pub(crate) use fields::{canonical_group_key, canonical_product_key, nearest};
pub(crate) use render::{Misfit, Renderer};
pub(crate) use spec::RecordSpec;
