//! okki-sync: OKKI CRM (小满) product groups to Qeasy (轻易云) and other targets.
//!
//! The map, in reading order. A run is one function, [`sync::run`]: load → read → transform → plan → write → save.
//! Core modules are pure (no I/O, no clock); edges do the talking; wiring puts them together.

// Entry and wiring
pub mod app;
pub mod config;
pub mod handler;
pub mod logging;
pub mod secrets;

// The story
pub mod sync;

// Core
pub mod error;
pub mod model;
pub mod mutants;
pub mod plan;
pub mod report;
pub mod retry;
pub mod state;
pub mod transform;

// Edges
pub mod aws;
pub mod aws_http;
pub mod budget;
pub mod client;
pub mod clock;
#[cfg(fuzzing)]
pub mod fuzz_doors;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod notify;
pub mod okki;
pub mod pace;
pub mod store;
pub mod target;
pub mod tls;

// For people at a desk
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod sandbox;
