//! Notices to a chat robot (WeCom, DingTalk or Feishu): one for each change of a connection's state, not one for each run.
//!
//! A change is saved with its notice *before* anything is sent, on top of what was read ([`known`]): of two runs that end
//! together only one finds it to be news, and a run that is killed loses none. The notice stays there until the robot has
//! taken it. One that was perhaps taken is told again by the next run, [`known::MOST_TRIES`] times in all.

mod decide;
mod known;
mod letter;
mod notice;
mod times;
mod webhook;

use std::time::Duration;

use crate::catalogue::Rejected;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Report, Status};
use crate::store::{Store, Version, paths};
use crate::words::Lang;
use decide::decide;
use known::{Attempt, Known, MOST_TRIES};
use letter::Letter;
use notice::{Notice, Topic, Writer};
pub(crate) use times::{QuietHours, TimeOfDay};
use webhook::Sent;
pub(crate) use webhook::Webhook;

/// All that a notice may take: some calls to the store and two to the robot.
pub(crate) const LIMIT: Duration = Duration::from_secs(6);
/// Less is not worth beginning.
pub(crate) const LEAST: Duration = Duration::from_secs(3);
/// Two periods of the schedule that a stack has by default: one run may fail or pause, two in a row are told.
pub(crate) const STALE_AFTER: Duration = Duration::from_hours(2);
/// Two runs that end together rarely meet twice.
const CONFLICTS: u32 = 3;

/// `[notify]` of a pipeline: what is told, when and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub lang: Lang,
    /// A connection that has not completed a run for this long is told. `None`: [`STALE_AFTER`].
    pub stale_after: Option<Duration>,
    /// What is not urgent waits until they end.
    pub quiet_hours: Option<QuietHours>,
    /// When a digest is told.
    pub daily_digest: Option<TimeOfDay>,
    /// Where a run's report can be looked at; `{connection}` and `{run_id}` in it are filled in.
    pub report_url: Option<String>,
}

impl Default for Settings {
    /// Chinese, as the people who read these groups do.
    fn default() -> Self {
        Self { lang: Lang::Zh, stale_after: None, quiet_hours: None, daily_digest: None, report_url: None }
    }
}

impl Settings {
    fn stale_after(&self) -> Duration {
        self.stale_after.unwrap_or(STALE_AFTER)
    }
}

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

/// A sync run that has ended.
pub(crate) struct Seen<'a> {
    /// The connection's name, or the pipeline file's where the connection is not known.
    pub name: &'a str,
    pub report: &'a Report,
    pub error: Option<&'a Error>,
    pub rejected: &'a [Rejected],
    /// When a run last completed, wall-clock milliseconds; `None` if nobody knows of one.
    pub completed_at_ms: Option<u64>,
}

impl Seen<'_> {
    fn ended(&self) -> Ended {
        match (self.report.status, self.error.map(|error| error.kind)) {
            (Status::Succeeded | Status::Partial, _) => Ended::Well,
            (Status::Failed, Some(ErrorKind::Busy | ErrorKind::StateConflict | ErrorKind::Interrupted)) => {
                Ended::Otherwise
            }
            (Status::Failed, Some(kind)) => Ended::Failed(kind),
            (Status::Failed, None) | (Status::Paused, _) => Ended::Otherwise,
        }
    }
}

/// Where notices go, and where it is kept what was told.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    pub webhook: &'a Webhook,
    pub store: &'a Store,
    pub clock: Clock,
    pub settings: &'a Settings,
}

impl Group<'_> {
    /// Tells the group what it does not know yet of a connection. A failure is a warning in the log.
    pub(crate) async fn tell(self, seen: &Seen<'_>) {
        if let Err(error) = self.tell_news(seen).await {
            tracing::warn!(error = %error.line(), "no notice can be sent: what was told already is not known");
        }
    }

    /// Tells that a failure which was told under another name is over, if there was one.
    pub(crate) async fn tell_recovery(self, seen: &Seen<'_>) {
        match self.load(seen.name).await {
            Ok((known, Some(_))) if known.is_in_trouble() || !known.waiting.is_empty() => {
                self.tell(&Seen { rejected: &[], ..*seen }).await;
            }
            _ => {}
        }
    }

    async fn load(self, name: &str) -> Result<(Known, Option<Version>)> {
        Ok(match self.store.load(&paths::notice(name)).await? {
            Some((bytes, version)) => (Known::from_bytes(&bytes), Some(version)),
            None => (Known::default(), None),
        })
    }

    async fn tell_news(self, seen: &Seen<'_>) -> Result<()> {
        for _ in 0..CONFLICTS {
            match self.tell_once(seen).await {
                Err(Error { kind: ErrorKind::StateConflict, .. }) => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// One try; `StateConflict` if another run has saved meanwhile, which may change what is news.
    async fn tell_once(self, seen: &Seen<'_>) -> Result<()> {
        let path = paths::notice(seen.name);
        let (known, read) = self.load(seen.name).await?;
        let now_ms = self.clock.now_ms();
        let decided = decide(&known, &Writer { seen, settings: self.settings, now_ms });
        let due = due(&decided, self.settings, now_ms);
        // Whoever began to send lately may still be at it, and says what became of it.
        if due.is_empty() || is_being_sent(&known, now_ms) {
            if decided != known {
                self.store.save_if_unchanged(&path, decided.bytes(), read.as_ref()).await?;
            }
            return Ok(());
        }
        let tries = known.attempt.map_or(0, |attempt| attempt.tries) + 1;
        if tries > MOST_TRIES {
            tracing::warn!("a notice is given up: the robot never said whether it took it");
            let given_up = decided.told(&due);
            self.store.save_if_unchanged(&path, given_up.bytes(), read.as_ref()).await?;
            return Ok(());
        }
        let topics: Vec<Topic> = due.iter().map(|notice| notice.topic).collect();
        let sending = decided.sending(&topics, Attempt { at_ms: now_ms, tries });
        let ours = self.store.save_if_unchanged(&path, sending.bytes(), read.as_ref()).await?;
        let robot = self.webhook.robot;
        let letter = Letter::of(&due, self.settings.lang);
        match self.webhook.send(&letter, now_ms).await {
            Sent::Taken => {
                tracing::info!(?robot, ?topics, "notice sent");
                self.settle(&path, &due, sending.told(&due), &ours).await
            }
            Sent::Perhaps(why) => {
                tracing::warn!(
                    ?robot,
                    ?topics,
                    why,
                    tries,
                    "the robot did not answer; the next run tells it again"
                );
                Ok(())
            }
            Sent::Not(why) | Sent::Refused(why) => {
                tracing::warn!(
                    ?robot,
                    ?topics,
                    why,
                    "the robot did not take the notice; the next run tells it"
                );
                match self.store.save_if_unchanged(&path, decided.bytes(), Some(&ours)).await {
                    Ok(_) | Err(Error { kind: ErrorKind::StateConflict, .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Notes that these notices have arrived, on top of whatever another run has saved meanwhile.
    async fn settle(self, path: &str, sent: &[Notice], told: Known, ours: &Version) -> Result<()> {
        let mut saved = self.store.save_if_unchanged(path, told.bytes(), Some(ours)).await;
        for _ in 0..CONFLICTS {
            let Err(Error { kind: ErrorKind::StateConflict, .. }) = saved else { break };
            let Some((bytes, version)) = self.store.load(path).await? else { return Ok(()) };
            let told = Known::from_bytes(&bytes).told(sent);
            saved = self.store.save_if_unchanged(path, told.bytes(), Some(&version)).await;
        }
        saved.map(drop)
    }
}

/// What may be told now, the most urgent first.
fn due(known: &Known, settings: &Settings, now_ms: u64) -> Vec<Notice> {
    let is_quiet = settings.quiet_hours.is_some_and(|hours| hours.contain(now_ms));
    let mut due: Vec<Notice> =
        known.waiting.iter().filter(|notice| notice.urgent || !is_quiet).cloned().collect();
    due.sort_by_key(|notice| !notice.urgent);
    due
}

/// An attempt in the future comes from a clock that was set back.
fn is_being_sent(known: &Known, now_ms: u64) -> bool {
    known.attempt.is_some_and(|attempt| {
        now_ms.checked_sub(attempt.at_ms).is_some_and(|age_ms| u128::from(age_ms) < LIMIT.as_millis())
    })
}

#[cfg(test)]
mod tests;
