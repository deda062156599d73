//! What the group knows of a connection: a small file, `notices/<connection>.json`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Ended, Notice};
use crate::report::Report;

/// Whether a connection works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
    #[default]
    Well,
    Failed,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    #[serde(rename = "health")]
    pub(super) condition: Condition,
    /// The name of the error that was told last.
    pub(super) kind: Option<String>,
    /// The names of all errors that were told since it began to fail.
    #[serde(default)]
    pub(super) told: Vec<String>,
    /// When this condition began: the start of the run that found it.
    pub(super) since: String,
    pub(super) run_id: String,
}

impl Health {
    /// A file that cannot be read says nothing; it is replaced.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// What the group knows once it has read this notice.
    pub(super) fn after(&self, notice: Notice, ended: Ended, report: &Report) -> Self {
        let (condition, kind) = match ended {
            Ended::Failed(kind) => (Condition::Failed, Some(kind.name().to_owned())),
            Ended::Well | Ended::Otherwise => (Condition::Well, None),
        };
        let still_fails = notice == Notice::FailedOtherwise;
        let mut told = if still_fails { self.told.clone() } else { Vec::new() };
        told.extend(kind.clone());
        let since = if still_fails { &self.since } else { &report.started_at };
        Self { condition, kind, told, since: since.clone(), run_id: report.run_id.clone() }
    }

    pub(super) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use insta::assert_snapshot;

    use super::super::tests::report;
    use super::*;
    use crate::error::ErrorKind;
    use crate::report::Status;

    #[test]
    fn the_record_remembers_since_when_and_what_was_told() {
        let (one, other) = (Ended::Failed(ErrorKind::Store), Ended::Failed(ErrorKind::GuardRefused));
        let mut earlier = report(Status::Failed, None);
        "2026-01-01T00:00:00.000Z".clone_into(&mut earlier.started_at);
        let first = Health::default().after(Notice::Failed, one, &earlier);
        let second = first.after(Notice::FailedOtherwise, other, &report(Status::Failed, None));
        assert_snapshot!(String::from_utf8(second.bytes().to_vec()).unwrap(), @r#"{"health":"failed","kind":"GuardRefused","told":["StoreUnavailable","GuardRefused"],"since":"2026-01-01T00:00:00.000Z","run_id":"run-2"}"#);
        let well = second.after(Notice::Recovered, Ended::Well, &report(Status::Succeeded, None));
        assert_snapshot!(String::from_utf8(well.bytes().to_vec()).unwrap(), @r#"{"health":"well","kind":null,"told":[],"since":"2026-01-02T00:00:00.000Z","run_id":"run-2"}"#);
    }
}
