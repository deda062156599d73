//! What the test suites and fuzz targets need from the inside; behind the feature `testing`, which no program has.
//!
//! Without the feature only [`Mutant`] is left, and none of the planted bugs can be switched on.

#[cfg(feature = "testing")]
pub mod fuzz;
#[cfg(feature = "testing")]
mod in_process;
mod mutants;

#[cfg(feature = "testing")]
pub use exports::*;
pub use mutants::Mutant;

/// The program's inside, module by module.
#[cfg(feature = "testing")]
mod exports {
    pub use super::in_process::{InProcess, InProcessBody};
    pub use super::mutants::activate;

    /// Files and environment.
    pub mod config {
        pub use crate::config::{Config, Env, parse};
    }
    /// Time.
    pub mod clock {
        pub use crate::clock::Clock;
    }
    /// The row ledger.
    pub mod ledger {
        use bytes::Bytes;

        use crate::ledger::Segment;
        use crate::state::Fingerprint;

        /// The acknowledged content of a row in the file of a slot, if it has it.
        pub fn find(file: &Bytes, connection: &str, id: &str, acknowledged: Fingerprint) -> Option<Bytes> {
            Segment::from_bytes(file, connection).ok()?.find(id, acknowledged)
        }
    }
    /// Rows.
    pub mod catalogue {
        pub use crate::catalogue::{Reason, ReasonKind, Rejected, RowKind};
    }
    /// Errors.
    pub mod error {
        pub use crate::error::{Diagnostic, Error, ErrorKind, Side};
    }
    /// The wire.
    pub mod net {
        pub use crate::net::retry::{RETRY_AFTER_CAP, retry_after};
        pub use crate::net::{TransportError, Wire};
    }
    /// Reports.
    pub mod report {
        pub use crate::report::{Mode, Report, Status};
    }
    /// Reports as pages.
    pub mod page {
        pub use crate::page::RunPage;
        pub use crate::words::Lang;
    }
    /// The state.
    pub mod state {
        pub use crate::state::{Acknowledged, Dismissed, Fingerprint, LONGEST_DISTANCE_RUNS, State};
    }
    /// The store.
    pub mod store {
        pub use crate::store::Store;
    }
    /// Runs.
    pub mod sync {
        pub use crate::report::Progress;
        pub use crate::sync::{
            ChangeAction, Digest, Extras, FieldChange, Json, LeftOut, Only, Outcome, Rebuilt, RowChange,
            RowStory, RunRequest, UndoRequest, Undone,
        };
    }
}
