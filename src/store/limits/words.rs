//! What runs, leases and accounts say to each other.

use serde::{Deserialize, Serialize};

use crate::store::Version;

/// The name of an account in the store. It shows neither host nor key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AccountId(pub(super) String);

impl AccountId {
    pub(crate) fn of(side: &str, host: &str, key: &str) -> Self {
        let text = format!("{side}\n{host}\n{key}");
        let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Self(hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    pub(in crate::store) fn name(&self) -> &str {
        &self.0
    }
}

/// What a connection that is alone knows of the object when its run ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAccount {
    pub(super) name: String,
    /// `None`: there is no object.
    pub(super) version: Option<Version>,
}

/// What the last run of a connection left behind.
pub(crate) enum LastRun {
    /// There was none.
    None,
    /// Calls and silence were as it says. `None`: others use the account, or the run did not come to its end.
    Knew(Option<KnownAccount>),
}

/// What came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    Stored,
    /// Others came first; what they have stored is known now.
    OthersFirst,
    /// The same, and a run of the same connection was among them. The lease tells whether it is over.
    SameConnectionFirst,
}

/// A run, as the account knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub connection: &'a str,
    pub run_id: &'a str,
}
