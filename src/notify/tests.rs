//! What the unit tests of this folder share: a connection's runs, and a group that reads what a robot takes.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::{Reason, ReasonKind, RowKind};
use crate::error::Side;
use crate::report::{Mode, PlanCounts, SourceCounts, TargetCounts};

/// How a run ended.
#[derive(Clone, Copy)]
pub(super) enum Ran<'a> {
    /// With these ids in the quarantine.
    Well(&'a [&'a str]),
    Paused,
    Failed(ErrorKind),
}

/// A connection and its group. The clock stands still unless a test moves it.
pub(super) struct Told {
    pub known: Known,
    pub settings: Settings,
    pub robot_takes: bool,
    pub now_ms: u64,
    pub completed_at_ms: Option<u64>,
    /// Of the notices that the last run tried to tell.
    pub lines: Vec<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            known: Known::default(),
            settings: Settings { lang: Lang::En, ..Settings::default() },
            robot_takes: true,
            now_ms: 1_767_312_000_000,
            completed_at_ms: None,
            lines: Vec::new(),
        }
    }
}

pub(super) fn minutes(count: u64) -> u64 {
    count * 60_000
}

impl Told {
    pub(super) fn later(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self
    }

    pub(super) fn at(&mut self, time: &str) -> &mut Self {
        let at: jiff::Timestamp = time.parse().unwrap();
        self.now_ms = at.as_millisecond().try_into().unwrap();
        self
    }

    /// The titles that the group is told after this run, without the program's name.
    pub(super) fn after(&mut self, ran: Ran<'_>) -> Vec<String> {
        let (status, error, rejected) = match ran {
            Ran::Well(ids) => (Status::Partial, None, ids.iter().map(|id| rejected(id)).collect()),
            Ran::Paused => (Status::Paused, Some(ErrorKind::Throttled(Side::Target)), Vec::new()),
            Ran::Failed(kind) => (Status::Failed, Some(kind), Vec::new()),
        };
        let error = error.map(|kind| Error::new(kind, "it said <@all>"));
        let report = Report { quarantined: rejected.len() as u64, ..report(status) };
        if status == Status::Partial {
            self.completed_at_ms = Some(self.now_ms);
        }
        let seen = Seen {
            name: "acme",
            report: &report,
            error: error.as_ref(),
            rejected: &rejected,
            completed_at_ms: self.completed_at_ms,
        };
        let writer = Writer { seen: &seen, settings: &self.settings, now_ms: self.now_ms };
        let decided = decide(&self.known, &writer);
        let due = due(&decided, &self.settings, self.now_ms);
        let topics: Vec<Topic> = due.iter().map(|notice| notice.topic).collect();
        self.known = if self.robot_takes {
            decided.sending(&topics, Attempt { at_ms: self.now_ms, tries: 1 }).told(&due)
        } else {
            decided
        };
        self.lines = due.iter().flat_map(|notice| notice.lines.clone()).collect();
        due.iter().map(|notice| notice.title.strip_prefix("okki-sync ").unwrap().to_owned()).collect()
    }
}

pub(super) fn rejected(id: &str) -> Rejected {
    let reason = Reason { kind: ReasonKind::default(), text: "no group [x](y) <@all>".to_owned() };
    let raw = format!(r#"{{"product_id":"{id}","name":"螺丝 *M4*"}}"#);
    Rejected::new(RowKind::Product, Some(id.to_owned()), reason, &raw)
}

pub(super) fn report(status: Status) -> Report {
    Report {
        run_id: "run-2".to_owned(),
        connection: "acme".to_owned(),
        mode: Mode::Sync,
        status,
        started_at: "2026-01-02T00:00:00.000Z".to_owned(),
        duration_ms: 1,
        source: SourceCounts::default(),
        plan: PlanCounts::default(),
        target: TargetCounts::default(),
        quarantined: 0,
        quarantined_by_kind: Default::default(),
        dismissed: 0,
        remaining: 0,
        resume_after_seconds: None,
        error: None,
        only: Vec::new(),
        digest: None,
        changes: None,
        more_changes: None,
        timeline: None,
    }
}
