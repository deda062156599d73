//! What to do after a call: one pure function from (what happened, attempt, time left) to the next step.

use std::time::Duration;

/// Attempts per call, the first included.
pub const MAX_ATTEMPTS: u32 = 6;
/// First backoff; doubles with each attempt.
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// No backoff is longer.
pub const BACKOFF_CAP: Duration = Duration::from_secs(20);
/// A `Retry-After` beyond this is taken as this: a server that says "a year" means "not now".
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);
/// Longest wait inside a run; a longer one ends it, since a Lambda function pays for sleeping.
pub const PATIENCE: Duration = Duration::from_secs(75);

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
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
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait that long and send it again.
    Wait(Duration),
    /// Fetch a new token and send it again.
    Refresh,
    /// End the run as paused; come back after that long.
    Pause(Duration),
    /// Give up with the error that happened.
    Stop,
}

/// Decides. `attempt` counts from 1, `left` is the run's time left, `jitter` is uniform in 0.0..1.0.
pub fn decide(happened: &Happened, attempt: u32, refreshed: bool, left: Duration, jitter: f64) -> Next {
    let wait = match happened {
        Happened::Refused => return Next::Stop,
        Happened::Unauthorized if refreshed => return Next::Stop,
        Happened::Unauthorized => return Next::Refresh,
        Happened::LockedOut(wait) => return Next::Pause((*wait).min(RETRY_AFTER_CAP)),
        Happened::Throttled(Some(wait)) => (*wait).min(RETRY_AFTER_CAP),
        Happened::Throttled(None) | Happened::Lost | Happened::ServerError => backoff(attempt, jitter),
    };
    let throttled = matches!(happened, Happened::Throttled(_));
    if attempt >= MAX_ATTEMPTS {
        return if throttled { Next::Pause(wait.max(Duration::from_secs(60))) } else { Next::Stop };
    }
    if wait > PATIENCE || wait >= left {
        return if throttled { Next::Pause(wait) } else { Next::Stop };
    }
    Next::Wait(wait)
}

/// Exponential backoff with full jitter (but never less than a tenth, so that repeats do not come in a burst).
fn backoff(attempt: u32, jitter: f64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(BACKOFF_CAP);
    ceiling.mul_f64(jitter.clamp(0.1, 1.0))
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

    #[test]
    fn the_whole_judgement() {
        let s = Duration::from_secs;
        let ms = Duration::from_millis;
        let last = MAX_ATTEMPTS;
        #[rustfmt::skip]
        let table: &[(Happened, u32, bool, Duration, Next)] = &[
            (Happened::Lost,                       1, false, HOUR,   Next::Wait(ms(250))),
            (Happened::Lost,                       3, false, HOUR,   Next::Wait(s(1))),
            (Happened::Lost,                       3, false, ms(900), Next::Stop),
            (Happened::Lost,                    last, false, HOUR,   Next::Stop),
            (Happened::ServerError,                2, false, HOUR,   Next::Wait(ms(500))),
            (Happened::ServerError,             last, false, HOUR,   Next::Stop),
            (Happened::Throttled(None),            1, false, HOUR,   Next::Wait(ms(250))),
            (Happened::Throttled(Some(s(3))),      1, false, HOUR,   Next::Wait(s(3))),
            (Happened::Throttled(Some(s(300))),    1, false, HOUR,   Next::Pause(s(300))),
            (Happened::Throttled(Some(s(30))),     1, false, s(20),  Next::Pause(s(30))),
            (Happened::Throttled(Some(s(1))),   last, false, HOUR,   Next::Pause(MINUTE)),
            (Happened::Throttled(Some(s(86_400 * 365))), 1, false, HOUR, Next::Pause(HOUR)),
            (Happened::LockedOut(s(300)),          1, false, HOUR,   Next::Pause(s(300))),
            (Happened::Unauthorized,               1, false, HOUR,   Next::Refresh),
            (Happened::Unauthorized,               2, true,  HOUR,   Next::Stop),
            (Happened::Refused,                    1, false, HOUR,   Next::Stop),
        ];
        for (happened, attempt, refreshed, left, expected) in table {
            let next = decide(happened, *attempt, *refreshed, *left, 1.0);
            assert_eq!(next, *expected, "{happened:?}, attempt {attempt}, {left:?} left");
        }
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
