//! okki-sync: OKKI CRM (小满) product groups to Qeasy (轻易云) and other targets.
pub mod client;
pub mod clock;
pub mod error;
pub mod http;
pub mod metrics;
pub mod model;
pub mod okki;
pub mod pace;
pub mod plan;
pub mod report;
pub mod retry;
pub mod state;
pub mod store;
pub mod sync;
pub mod target;
pub mod transform;
