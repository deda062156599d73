//! Whole runs in one process: the program on one side, the sandbox (or a router of the test's own) on the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

mod accounts;
mod architecture;
mod cleaning;
mod cli;
mod concurrency;
mod cost;
mod day;
mod documents;
mod endurance;
mod envelopes;
mod faults;
mod golden;
mod incremental;
mod large_catalogue;
mod notify;
mod plan;
mod read;
mod read_back;
mod released;
mod runs;
mod secrets;
mod stored;
mod test_names;
mod undo;
mod values;

use okki_sync_test_support as support;
