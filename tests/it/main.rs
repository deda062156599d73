//! Whole runs in one process: the program on one side, the sandbox (or a router of the test's own) on the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod cleaning;
mod documents;
mod endurance;
mod envelopes;
mod faults;
mod golden;
mod harness;
mod incremental;
mod large;
mod notify;
mod plan;
mod program;
mod runs;
mod secrets;
mod several;
