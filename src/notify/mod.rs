//! Notices to a chat robot (WeCom, DingTalk or Feishu): one when a connection starts to fail, one when it recovers.
//!
//! Each error is told once until the connection works again. What was told is saved *before* the message is sent, on top
//! of what was read: of two runs that end together only one tells. A message that certainly did not arrive takes that
//! back, so the next run tells it. Deliberately absent: retries, and notices of pauses, which are how a limit is kept.

mod health;
mod webhook;

use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Mode, Report, Status};
use crate::store::{Store, paths};
use crate::words::{Lang, recognise_line};
use health::{Condition, Health};
use webhook::Sent;
pub(crate) use webhook::Webhook;

/// All that a notice may take: two calls to the store and one to the robot.
pub(crate) const LIMIT: Duration = Duration::from_secs(6);
/// DingTalk and WeCom take little more than 2,000 bytes.
const TEXT_BYTES: usize = 1_500;

/// How a run ended, as far as notices go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It did what it could.
    Well,
    /// An error that people should hear of.
    Failed(ErrorKind),
    /// Neither: the next run goes on, or another run is in charge.
    Otherwise,
}

impl Ended {
    /// How a sync run with this status and error ended.
    pub(crate) fn of(status: Status, kind: Option<ErrorKind>) -> Self {
        match (status, kind) {
            (Status::Succeeded | Status::Partial, _) => Self::Well,
            (Status::Failed, Some(ErrorKind::Busy | ErrorKind::StateConflict | ErrorKind::Interrupted)) => {
                Self::Otherwise
            }
            (Status::Failed, Some(kind)) => Self::Failed(kind),
            (Status::Failed, None) | (Status::Paused, _) => Self::Otherwise,
        }
    }
}

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The connection began to fail.
    Failed,
    /// It still fails, with an error that was not told yet.
    FailedOtherwise,
    /// It works again.
    Recovered,
}

/// What a run has to tell to a group that knows `previous`.
pub(crate) fn decide(previous: &Health, ended: Ended) -> Option<Notice> {
    match (previous.condition, ended) {
        (Condition::Well, Ended::Failed(_)) => Some(Notice::Failed),
        (Condition::Failed, Ended::Failed(kind)) => {
            (!previous.told.iter().any(|told| told == kind.name())).then_some(Notice::FailedOtherwise)
        }
        (Condition::Failed, Ended::Well) => Some(Notice::Recovered),
        (Condition::Well, Ended::Well) | (_, Ended::Otherwise) => None,
    }
}

/// The message. The program's name comes first: it can be the keyword that a DingTalk robot asks for.
fn text(notice: Notice, name: &str, since: &str, report: &Report) -> String {
    let (chinese, english) = match notice {
        Notice::Failed => ("同步失败", "The sync fails"),
        Notice::FailedOtherwise => {
            ("同步仍然失败，出现新的错误", "The sync still fails, now with another error")
        }
        Notice::Recovered => ("同步已恢复正常", "The sync works again"),
    };
    let began = match notice {
        Notice::Failed | Notice::FailedOtherwise => "开始时间 since",
        Notice::Recovered => "曾失败自 failed since",
    };
    let mut text = format!(
        "okki-sync {chinese}\n{english}\n连接 connection: {name}\n{began}: {since}\n运行 run: {}",
        report.run_id
    );
    if let (Notice::Failed | Notice::FailedOtherwise, Some(error)) = (notice, &report.error) {
        // A server's words stand in it: the robots read <@…> and <at …> as a call to somebody.
        let error = error.replace('<', "‹").replace('>', "›");
        let chinese = recognise_line(&error, Lang::Zh);
        for line in [Some(&chinese), (chinese != error).then_some(&error)].into_iter().flatten() {
            text.push('\n');
            text.push_str(line);
        }
    }
    cut(text)
}

fn cut(text: String) -> String {
    if text.len() <= TEXT_BYTES {
        return text;
    }
    let end = text.floor_char_boundary(TEXT_BYTES - '…'.len_utf8());
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Tells the group what it does not know yet of the connection `name`. A failure is a warning in the log.
pub(crate) async fn tell(
    webhook: &Webhook,
    store: &Store,
    clock: Clock,
    name: &str,
    report: &Report,
    kind: Option<ErrorKind>,
) {
    let ended = match report.mode {
        Mode::Sync => Ended::of(report.status, kind),
        Mode::Plan | Mode::Verify | Mode::Undo => Ended::Otherwise,
    };
    if ended == Ended::Otherwise {
        return;
    }
    if let Err(error) = tell_news(webhook, store, clock, name, report, ended).await {
        tracing::warn!(error = %error.line(), "no notice can be sent: what was told already is not known");
    }
}

async fn tell_news(
    webhook: &Webhook,
    store: &Store,
    clock: Clock,
    name: &str,
    report: &Report,
    ended: Ended,
) -> Result<()> {
    let path = paths::notice(name);
    let (previous, read) = match store.load(&path).await? {
        Some((bytes, version)) => (Health::from_bytes(&bytes), Some(version)),
        None => (Health::default(), None),
    };
    let Some(notice) = decide(&previous, ended) else { return Ok(()) };
    let health = previous.after(notice, ended, report);
    let ours = match store.save_if_unchanged(&path, health.bytes(), read.as_ref()).await {
        Ok(version) => version,
        Err(Error { kind: ErrorKind::StateConflict, .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let since = if notice == Notice::Recovered { &previous.since } else { &health.since };
    let robot = webhook.robot;
    match webhook.send(&text(notice, name, since, report), clock.now_ms()).await {
        Sent::Taken => tracing::info!(?robot, ?notice, "notice sent"),
        Sent::Perhaps(why) => {
            tracing::warn!(?robot, ?notice, why, "the robot did not answer; the notice is not sent again");
        }
        Sent::Not(why) => {
            tracing::warn!(?robot, ?notice, why, "the robot did not take the notice; the next run tells it");
            match store.save_if_unchanged(&path, previous.bytes(), Some(&ours)).await {
                Ok(_) | Err(Error { kind: ErrorKind::StateConflict, .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::error::Side;
    use crate::report::{PlanCounts, SourceCounts, TargetCounts};

    pub(super) fn report(status: Status, error: Option<&str>) -> Report {
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
            error: error.map(str::to_owned),
            only: Vec::new(),
            digest: None,
            changes: None,
            more_changes: None,
        }
    }

    #[test]
    fn an_error_of_ours_is_told_in_both_languages() {
        let failed = report(
            Status::Failed,
            Some("TargetThrottled: store: the calls of this minute are used up; come back in 31 s"),
        );
        let told = text(Notice::Failed, "acme", &failed.started_at, &failed);
        let lines: Vec<&str> = told.lines().skip(5).collect();
        assert_eq!(
            lines,
            [
                "TargetThrottled：store：这一分钟的调用次数已用完；请在 31 秒后再来",
                "TargetThrottled: store: the calls of this minute are used up; come back in 31 s"
            ]
        );
    }

    #[test]
    fn each_error_is_told_once_until_the_connection_works_again() {
        let failed = |told: &[&str]| Health {
            condition: Condition::Failed,
            told: told.iter().map(|&told| told.to_owned()).collect(),
            ..Health::default()
        };
        let store = Ended::of(Status::Failed, Some(ErrorKind::Store));
        let guard = Ended::of(Status::Failed, Some(ErrorKind::GuardRefused));
        let well = Ended::of(Status::Partial, None);
        for (previous, ended, expected) in [
            (Health::default(), well, None),
            (Health::default(), store, Some(Notice::Failed)),
            (failed(&["StoreUnavailable"]), store, None),
            (failed(&["StoreUnavailable"]), guard, Some(Notice::FailedOtherwise)),
            (failed(&["StoreUnavailable", "GuardRefused"]), store, None),
            (failed(&["StoreUnavailable", "GuardRefused"]), guard, None),
            (failed(&["StoreUnavailable"]), Ended::of(Status::Succeeded, None), Some(Notice::Recovered)),
            (failed(&["StoreUnavailable"]), Ended::of(Status::Paused, None), None),
            (Health::default(), Ended::of(Status::Paused, Some(ErrorKind::Throttled(Side::Target))), None),
            (Health::default(), Ended::of(Status::Failed, Some(ErrorKind::Busy)), None),
            (Health::default(), Ended::of(Status::Failed, Some(ErrorKind::StateConflict)), None),
        ] {
            assert_eq!(decide(&previous, ended), expected, "{previous:?} {ended:?}");
        }
    }

    #[test]
    fn the_message_is_clear_short_and_calls_nobody() {
        let failed = report(Status::Failed, Some("SourceUnavailable: it said <@all>"));
        assert_snapshot!(text(Notice::Failed, "acme", &failed.started_at, &failed), @r"
        okki-sync 同步失败
        The sync fails
        连接 connection: acme
        开始时间 since: 2026-01-02T00:00:00.000Z
        运行 run: run-2
        SourceUnavailable: it said ‹@all›
        ");
        assert_snapshot!(text(Notice::Recovered, "acme", "2026-01-01T00:00:00.000Z", &report(Status::Succeeded, None)), @r"
        okki-sync 同步已恢复正常
        The sync works again
        连接 connection: acme
        曾失败自 failed since: 2026-01-01T00:00:00.000Z
        运行 run: run-2
        ");
        for length in 480..490 {
            let long = text(Notice::Failed, "a", "b", &report(Status::Failed, Some(&"错".repeat(length))));
            assert!(long.len() <= TEXT_BYTES && long.ends_with('…'), "{}", long.len());
        }
        assert_eq!(cut("a".repeat(TEXT_BYTES)), "a".repeat(TEXT_BYTES));
    }
}
