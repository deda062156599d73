//! What to do after a call that failed: one pure function, [`after_call`]. What to do after a batch that was refused is
//! `targets::refused`'s decision.

use std::time::Duration;

use crate::testing::Mutant;

/// Attempts per call, the first included.
pub(crate) const MAX_ATTEMPTS: u32 = 6;
/// First backoff; doubles with each attempt.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(250);
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(20);
/// A longer `Retry-After` is taken as this: a server that says "a year" means "not now".
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);
/// Longest wait inside a run. A longer one ends it, since a Lambda function pays for sleeping.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);
/// All backoffs of a run for one side together, so that an outage costs minutes whatever the number of calls.
pub(crate) const RETRY_BUDGET: Duration = Duration::from_secs(300);
/// Pause after a limit that did not say how long it lasts.
const PAUSE_WITHOUT_A_TIME: Duration = Duration::from_secs(60);

/// What is wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No answer, or half of one: the effect is unknown.
    Lost,
    /// The other side failed (HTTP 5xx or its own code for that).
    ServerError,
    /// Slow down (HTTP 429 or its own code), perhaps with the time to wait.
    Throttled(Option<Duration>),
    /// Every call is refused for this long, and calling meanwhile prolongs it.
    LockedOut(Duration),
    /// The token is not accepted (any more).
    Unauthorized,
    /// The request itself is refused: the same request will be refused again.
    Refused,
    /// Refused because the other side does not know such a request: it has no such filter, or no such call.
    NotSupported,
}

impl FailureKind {
    /// Whether the other side asks for fewer calls, rather than refusing this one.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::Throttled(_) | Self::LockedOut(_))
    }
}

/// What the decision depends on, besides the failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallContext {
    /// Attempts made, this one included: from 1.
    pub attempt: u32,
    /// Whether a new token can be had and has not been tried yet.
    pub can_refresh: bool,
    /// Whether the other side may lack what the call asks for, and has not said so before.
    pub can_doubt: bool,
    /// Whether the request may be sent again although it may have had its effect.
    pub idempotent: bool,
    /// Whether reading back is cheaper than sending the request again.
    pub can_read_back: bool,
    /// The run's time left.
    pub left: Duration,
    /// What is left of the run's [`RETRY_BUDGET`].
    pub budget: Duration,
    /// Uniform in 0.0..1.0.
    pub jitter: f64,
}

/// What to do after a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallAction {
    /// Wait this long and send it again.
    Wait(Duration),
    /// Fetch a new token and send it again.
    Refresh,
    /// Wait this long and ask which rows are stored.
    ReadBack(Duration),
    /// End the run as paused, to come back after this long.
    Pause(Duration),
    /// End the run with the call's error.
    Stop,
}

/// What to do when a call's attempts or the run's waits are used up.
#[derive(Clone, Copy)]
enum WhenSpent {
    /// The other side wants calls, only later.
    Pause,
    /// The other side is down.
    Stop,
}

/// Decides what to do after a call that failed. The table in the tests below shows all of it.
pub(super) fn after_call(failure: &FailureKind, now: CallContext) -> CallAction {
    match failure {
        // Much follows from it, and a gateway that hiccups may say it once.
        FailureKind::NotSupported if now.can_doubt => wait_for(backoff(now), WhenSpent::Stop, now),
        FailureKind::Refused | FailureKind::NotSupported => CallAction::Stop,
        FailureKind::Unauthorized if now.can_refresh => CallAction::Refresh,
        FailureKind::Unauthorized => CallAction::Stop,
        FailureKind::LockedOut(_) if Mutant::CallDuringLockout.is_active() => {
            wait_for(backoff(now), WhenSpent::Stop, now)
        }
        FailureKind::LockedOut(wait) => CallAction::Pause((*wait).min(RETRY_AFTER_CAP)),
        FailureKind::Throttled(Some(wait)) => wait_for((*wait).min(RETRY_AFTER_CAP), WhenSpent::Pause, now),
        FailureKind::Throttled(None) => wait_for(backoff(now), WhenSpent::Pause, now),
        FailureKind::Lost if now.can_read_back => match wait_for(backoff(now), WhenSpent::Stop, now) {
            CallAction::Wait(wait) => CallAction::ReadBack(wait),
            other => other,
        },
        FailureKind::Lost | FailureKind::ServerError if !now.idempotent => CallAction::Stop,
        FailureKind::Lost | FailureKind::ServerError => wait_for(backoff(now), WhenSpent::Stop, now),
    }
}

fn wait_for(wait: Duration, when_spent: WhenSpent, now: CallContext) -> CallAction {
    if now.attempt >= MAX_ATTEMPTS || wait > now.budget {
        return match when_spent {
            WhenSpent::Pause => CallAction::Pause(wait.max(PAUSE_WITHOUT_A_TIME)),
            WhenSpent::Stop => CallAction::Stop,
        };
    }
    // The run ends before the wait does: whether the other side comes back is for the next run to see.
    if wait >= now.left || wait > PATIENCE { CallAction::Pause(wait) } else { CallAction::Wait(wait) }
}

/// Exponential backoff with full jitter, but at least a tenth, so that repeats do not come in a burst. Attempt 3 waits
/// 0.1 s to 1 s, attempt 6 0.8 s to 8 s.
fn backoff(now: CallContext) -> Duration {
    let doublings = now.attempt.saturating_sub(1).min(16);
    let ceiling = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_CAP);
    ceiling.mul_f64(now.jitter.clamp(0.1, 1.0))
}

/// Reads `Retry-After`: seconds, or an HTTP date.
pub fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_CAP));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at_ms = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    let wait_ms = u64::try_from(at_ms).ok()?.saturating_sub(now_ms);
    Some(Duration::from_millis(wait_ms).min(RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    const USUAL: CallContext = CallContext {
        attempt: 1,
        can_refresh: true,
        can_doubt: false,
        idempotent: true,
        can_read_back: false,
        left: HOUR,
        budget: RETRY_BUDGET,
        jitter: 1.0,
    };

    #[test]
    fn each_failure_has_its_action() {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        let nth = |attempt| CallContext { attempt, ..USUAL };
        let last = nth(MAX_ATTEMPTS);
        let short = |left| CallContext { left, ..USUAL };
        let spent = CallContext { budget: ms(100), ..USUAL };
        let refreshed = CallContext { can_refresh: false, ..USUAL };
        let doubts = CallContext { can_doubt: true, ..USUAL };
        let doubts_last = CallContext { can_doubt: true, ..last };
        let once_only = CallContext { idempotent: false, ..USUAL };
        let asks = CallContext { can_read_back: true, ..USUAL };
        #[rustfmt::skip]
        let table: &[(FailureKind, CallContext, CallAction)] = &[
            (FailureKind::Lost,                             USUAL,        CallAction::Wait(ms(250))),
            (FailureKind::Lost,                             nth(3),       CallAction::Wait(s(1))),
            (FailureKind::Lost,                             asks,         CallAction::ReadBack(ms(250))),
            (FailureKind::Lost,                             once_only,    CallAction::Stop),
            (FailureKind::Lost,                             short(ms(99)), CallAction::Pause(ms(250))),
            (FailureKind::Lost,                             spent,        CallAction::Stop),
            (FailureKind::Lost,                             last,         CallAction::Stop),
            (FailureKind::ServerError,                      nth(2),       CallAction::Wait(ms(500))),
            (FailureKind::ServerError,                      asks,         CallAction::Wait(ms(250))),
            (FailureKind::ServerError,                      once_only,    CallAction::Stop),
            (FailureKind::ServerError,                      short(ms(99)), CallAction::Pause(ms(250))),
            (FailureKind::ServerError,                      spent,        CallAction::Stop),
            (FailureKind::ServerError,                      last,         CallAction::Stop),
            (FailureKind::Throttled(None),                  USUAL,        CallAction::Wait(ms(250))),
            (FailureKind::Throttled(None),                  spent,        CallAction::Pause(MINUTE)),
            (FailureKind::Throttled(Some(s(3))),            USUAL,        CallAction::Wait(s(3))),
            (FailureKind::Throttled(Some(s(3))),            once_only,    CallAction::Wait(s(3))),
            (FailureKind::Throttled(Some(s(76))),           USUAL,        CallAction::Pause(s(76))),
            (FailureKind::Throttled(Some(s(30))),           short(s(20)), CallAction::Pause(s(30))),
            (FailureKind::Throttled(Some(s(1))),            last,         CallAction::Pause(MINUTE)),
            (FailureKind::Throttled(Some(s(86_400 * 365))), USUAL,        CallAction::Pause(HOUR)),
            (FailureKind::LockedOut(s(300)),                USUAL,        CallAction::Pause(s(300))),
            (FailureKind::LockedOut(s(300)),                short(s(9)),  CallAction::Pause(s(300))),
            (FailureKind::Unauthorized,                     USUAL,        CallAction::Refresh),
            (FailureKind::Unauthorized,                     refreshed,    CallAction::Stop),
            (FailureKind::Refused,                          USUAL,        CallAction::Stop),
            (FailureKind::NotSupported,                     USUAL,        CallAction::Stop),
            (FailureKind::NotSupported,                     doubts,       CallAction::Wait(ms(250))),
            (FailureKind::NotSupported,                     doubts_last,  CallAction::Stop),
            (FailureKind::Refused,                          doubts,       CallAction::Stop),
        ];
        for (failure, context, expected) in table {
            assert_eq!(after_call(failure, *context), *expected, "{failure:?} in {context:?}");
        }
    }

    #[test]
    fn backoff_is_spread_over_all_of_its_range_and_capped() {
        let at = |attempt, jitter| backoff(CallContext { attempt, jitter, ..USUAL });
        assert_eq!(at(3, 0.0), Duration::from_millis(100));
        assert_eq!(at(3, 0.5), Duration::from_millis(500));
        assert_eq!(at(60, 1.0), BACKOFF_CAP);
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date_and_capped() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        assert_eq!(retry_after("3", now_ms), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now_ms), Some(MINUTE));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:37 GMT", now_ms), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999999", now_ms), Some(RETRY_AFTER_CAP));
        assert_eq!(retry_after("soon", now_ms), None);
    }
}
