//! Source rows → target rows, by a field map that is compiled once when the pipeline is loaded.

mod compile;
mod fields;
mod render;
mod spec;
mod value;

pub use compile::{Columns, Mistake, RowMap};
pub use fields::{GROUP_FIELDS, PRODUCT_FIELDS, canonical_group_key, canonical_product_key, nearest};
pub use render::{Misfit, Renderer};
pub use spec::{As, FieldSpec, FieldTable, RecordSpec, Shape};
