//! okki-sync: OKKI CRM (小满) product groups to Qeasy (轻易云) and other targets.
//!
//! The map, in reading order. A run is one function, `sync::run`: load → read → transform → plan → write → save.
//! Core modules are pure (no I/O, no clock); edges talk to the outside; wiring puts them together. Who may import
//! whom is in `docs/design.md`, and a test keeps it so.
// Some items are `pub` for `testing` alone, which a program does not have.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

// Programs and wiring
pub mod app;
#[cfg(feature = "cli")]
pub mod cli;
mod config;
pub mod handler;
pub mod logging;

// The story
mod sync;

// What people read, in their language
pub mod words;

// Core
mod catalogue;
mod changes;
mod error;
mod ledger;
mod page;
mod plan;
mod report;
mod state;
mod transform;

// Edges
mod budget;
mod clock;
mod metrics;
mod net;
mod notify;
mod okki;
mod store;
mod targets;

// For the test suites
pub mod testing;

pub use config::Env;
