//! What a process knows of an account's object, and of its own runs that use the account.

use std::collections::HashMap;

use super::Who;
use super::file::LimitsFile;
use crate::error::{Error, ErrorKind, Result};
use crate::net::limit::Account;
use crate::store::Version;
use crate::words::say;

#[derive(Debug, Default)]
pub(super) struct Known {
    /// The object as it was last seen or saved.
    pub file: LimitsFile,
    pub version: Option<Version>,
    pub seen_at_ms: u64,
    /// The runs of this process, by connection.
    pub runs: HashMap<String, RunHere>,
}

#[derive(Debug, Default)]
pub(super) struct RunHere {
    pub run_id: String,
    /// Whether its name is in the object.
    pub is_stored: bool,
    /// Another run of the same connection has stored its name since.
    pub is_taken_over: bool,
    /// The save of an earlier run whose calls were taken over.
    pub earlier_at_ms: Option<u64>,
    /// Another run's name stands in the object that was not there when this one began.
    pub is_doubtful: bool,
}

impl Known {
    pub(super) fn has_others(&self, connection: &str) -> bool {
        self.file.callers.keys().any(|name| name != connection)
    }

    pub(super) fn knows_silence(&self, account: &Account) -> bool {
        account.blocked_until_ms().is_none_or(|until_ms| self.file.blocked_until_ms >= Some(until_ms))
    }

    pub(super) fn ensure_goes_on(&self, who: Who<'_>) -> Result<()> {
        let run = self.runs.get(who.connection).filter(|run| run.run_id == who.run_id);
        if run.is_some_and(|run| !run.is_taken_over) {
            return Ok(());
        }
        let connection = who.connection;
        Err(Error::new(
            ErrorKind::StateConflict,
            say!(
                "another run of connection \"{connection}\" calls the target; that run goes on, this one ends",
                connection
            ),
        ))
    }
}
