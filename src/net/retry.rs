//! What to do after a call: one pure function from (what failure, the situation) to the next step.

use std::time::Duration;

use crate::testing::Mutant;

/// Attempts per call, the first included.
pub(crate) const MAX_ATTEMPTS: u32 = 6;
/// First backoff; doubles with each attempt.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// No backoff is longer.
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(20);
/// A `Retry-After` beyond this is taken as this: a server that says "a year" means "not now".
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);
/// Longest wait inside a run; a longer one ends it, since a Lambda function pays for sleeping.
pub(crate) const PATIENCE: Duration = Duration::from_secs(75);
/// All waits of a run for one side together: an outage costs minutes, whatever the number of calls.
pub(crate) const RETRY_BUDGET: Duration = Duration::from_secs(300);
/// Pause after a limit that did not say how long it lasts.
const PAUSE_WITHOUT_A_WORD: Duration = Duration::from_secs(60);

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// No answer, or half of one: the effect is unknown.
    Lost,
    /// The other side failed (HTTP 5xx or its own code for that).
    ServerError,
    /// Slow down (HTTP 429 or its own code), perhaps with the time to wait.
    Throttled(Option<Duration>),
    /// Every call is refused for this long: knocking only prolongs it.
    LockedOut(Duration),
    /// The token is not accepted (any more).
    Unauthorized,
    /// The request itself is refused: the same request will be refused again.
    Refused,
    /// A batch of so many rows was refused because of a row, or for its size.
    RowsRefused(usize),
    /// A batch of so many rows was stored in part; the answer does not say which part.
    PartlyStored(usize),
}

impl FailureKind {
    /// Whether the other side asks for fewer calls, rather than refusing this one.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::Throttled(_) | Self::LockedOut(_))
    }
}

/// What the decision depends on, besides what failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// Attempts made, this one included: from 1.
    pub attempt: u32,
    /// Whether the token has been replaced for this call already (or cannot be).
    pub refreshed: bool,
    /// Whether the request may be sent again although it may have had its effect.
    pub idempotent: bool,
    /// Whether it is cheap to ask what became of the request.
    pub can_read_back: bool,
    /// The run's time left.
    pub left: Duration,
    /// What is left of the run's [`RETRY_BUDGET`].
    pub budget: Duration,
    /// Calls left for finding refused rows by halving.
    pub split_calls: u32,
    /// Uniform in 0.0..1.0.
    pub jitter: f64,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait that long and send it again.
    Wait(Duration),
    /// Fetch a new token and send it again.
    Refresh,
    /// Wait that long and ask which rows are stored.
    ReadBack(Duration),
    /// Send it again in two halves.
    Split,
    /// Quarantine the row and go on.
    SkipRow,
    /// End the run as paused; come back after that long.
    Pause(Duration),
    /// Give up with the error that failure.
    Stop,
}

/// Decides.
pub(crate) fn decide(failure: &FailureKind, now: Situation) -> Next {
    match failure {
        FailureKind::Refused => Next::Stop,
        FailureKind::Unauthorized if now.refreshed => Next::Stop,
        FailureKind::Unauthorized => Next::Refresh,
        FailureKind::RowsRefused(rows) => smaller(*rows, now),
        FailureKind::PartlyStored(_) if now.can_read_back => Next::ReadBack(Duration::ZERO),
        FailureKind::PartlyStored(rows) => smaller(*rows, now),
        FailureKind::LockedOut(_) if Mutant::CallDuringLockout.is_active() => {
            wait_for(backoff(now), false, now)
        }
        FailureKind::LockedOut(wait) => Next::Pause((*wait).min(RETRY_AFTER_CAP)),
        FailureKind::Throttled(Some(wait)) => wait_for((*wait).min(RETRY_AFTER_CAP), true, now),
        FailureKind::Throttled(None) => wait_for(backoff(now), true, now),
        FailureKind::Lost if now.can_read_back => match wait_for(backoff(now), false, now) {
            Next::Wait(wait) => Next::ReadBack(wait),
            other => other,
        },
        FailureKind::Lost | FailureKind::ServerError if !now.idempotent => Next::Stop,
        FailureKind::Lost | FailureKind::ServerError => wait_for(backoff(now), false, now),
    }
}

fn smaller(rows: usize, now: Situation) -> Next {
    match rows {
        0 | 1 => Next::SkipRow,
        _ if now.split_calls < 2 => Next::Stop,
        _ => Next::Split,
    }
}

fn wait_for(wait: Duration, throttled: bool, now: Situation) -> Next {
    if now.attempt >= MAX_ATTEMPTS || wait > now.budget {
        return if throttled { Next::Pause(wait.max(PAUSE_WITHOUT_A_WORD)) } else { Next::Stop };
    }
    // The run ends before the wait does: whether the other side comes back is for the next run to see.
    if wait >= now.left {
        return Next::Pause(wait);
    }
    if wait > PATIENCE { Next::Pause(wait) } else { Next::Wait(wait) }
}

/// Exponential backoff with full jitter (but never less than a tenth, so that repeats do not come in a burst).
fn backoff(now: Situation) -> Duration {
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

    const USUAL: Situation = Situation {
        attempt: 1,
        refreshed: false,
        idempotent: true,
        can_read_back: false,
        left: HOUR,
        budget: RETRY_BUDGET,
        split_calls: 64,
        jitter: 1.0,
    };

    #[test]
    fn the_whole_judgement() {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        let nth = |attempt| Situation { attempt, ..USUAL };
        let last = nth(MAX_ATTEMPTS);
        let short = |left| Situation { left, ..USUAL };
        let spent = Situation { budget: ms(100), ..USUAL };
        let refreshed = Situation { refreshed: true, ..USUAL };
        let once_only = Situation { idempotent: false, ..USUAL };
        let asks = Situation { can_read_back: true, ..USUAL };
        let no_splits = Situation { split_calls: 1, ..USUAL };
        #[rustfmt::skip]
        let table: &[(FailureKind, Situation, Next)] = &[
            (FailureKind::Lost,                             USUAL,        Next::Wait(ms(250))),
            (FailureKind::Lost,                             nth(3),       Next::Wait(s(1))),
            (FailureKind::Lost,                             asks,         Next::ReadBack(ms(250))),
            (FailureKind::Lost,                             once_only,    Next::Stop),
            (FailureKind::Lost,                             short(ms(99)), Next::Pause(ms(250))),
            (FailureKind::Lost,                             spent,        Next::Stop),
            (FailureKind::Lost,                             last,         Next::Stop),
            (FailureKind::ServerError,                      nth(2),       Next::Wait(ms(500))),
            (FailureKind::ServerError,                      asks,         Next::Wait(ms(250))),
            (FailureKind::ServerError,                      once_only,    Next::Stop),
            (FailureKind::ServerError,                      short(ms(99)), Next::Pause(ms(250))),
            (FailureKind::ServerError,                      spent,        Next::Stop),
            (FailureKind::ServerError,                      last,         Next::Stop),
            (FailureKind::Throttled(None),                  USUAL,        Next::Wait(ms(250))),
            (FailureKind::Throttled(None),                  spent,        Next::Pause(MINUTE)),
            (FailureKind::Throttled(Some(s(3))),            USUAL,        Next::Wait(s(3))),
            (FailureKind::Throttled(Some(s(3))),            once_only,    Next::Wait(s(3))),
            (FailureKind::Throttled(Some(s(76))),           USUAL,        Next::Pause(s(76))),
            (FailureKind::Throttled(Some(s(30))),           short(s(20)), Next::Pause(s(30))),
            (FailureKind::Throttled(Some(s(1))),            last,         Next::Pause(MINUTE)),
            (FailureKind::Throttled(Some(s(86_400 * 365))), USUAL,        Next::Pause(HOUR)),
            (FailureKind::LockedOut(s(300)),                USUAL,        Next::Pause(s(300))),
            (FailureKind::LockedOut(s(300)),                short(s(9)),  Next::Pause(s(300))),
            (FailureKind::Unauthorized,                     USUAL,        Next::Refresh),
            (FailureKind::Unauthorized,                     refreshed,    Next::Stop),
            (FailureKind::Refused,                          USUAL,        Next::Stop),
            (FailureKind::RowsRefused(500),                 USUAL,        Next::Split),
            (FailureKind::RowsRefused(500),                 asks,         Next::Split),
            (FailureKind::RowsRefused(500),                 no_splits,    Next::Stop),
            (FailureKind::RowsRefused(1),                   no_splits,    Next::SkipRow),
            (FailureKind::PartlyStored(500),                asks,         Next::ReadBack(Duration::ZERO)),
            (FailureKind::PartlyStored(500),                USUAL,        Next::Split),
            (FailureKind::PartlyStored(1),                  USUAL,        Next::SkipRow),
        ];
        for (failure, situation, expected) in table {
            assert_eq!(decide(failure, *situation), *expected, "{failure:?} in {situation:?}");
        }
    }

    #[test]
    fn backoff_is_spread_over_all_of_its_range_and_capped() {
        let at = |attempt, jitter| backoff(Situation { attempt, jitter, ..USUAL });
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
