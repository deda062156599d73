//! What the test suites share: a world to run the program in, wires to listen on, and an independent idea of what the
//! target must hold.
//!
//! It is a crate, so that each suite uses what it needs and nothing has to be marked as unused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod expected;
mod pipelines;
mod store;
mod wires;
mod world;

pub use expected::{assert_rows, clean_groups, clean_products, expected, without_revival};
pub use pipelines::{http, http_target, pipeline, qeasy};
pub use store::Counted;
pub use wires::{Seen, Tap, answer, in_process};
pub use world::{World, env, env_with, request, small, wall};
