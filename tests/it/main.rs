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
mod doubts;
mod endurance;
mod envelopes;
mod faults;
mod freshness;
mod golden;
mod incremental;
mod languages;
mod large_catalogue;
mod last_runs;
mod meanwhile;
mod notices;
mod notify;
mod online;
mod only;
mod plan;
mod preview;
mod quarantine;
mod read;
mod read_back;
mod released;
mod report_page;
mod runs;
mod sandbox_page;
mod secrets;
mod source_pace;
mod stored;
mod test_names;
mod traffic;
mod undo;
mod values;
mod values_guard;

use okki_sync_test_support as support;
