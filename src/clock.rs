//! One clock for the whole run: wall time that follows tokio's timer, so that a paused test clock moves both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Wall-clock time derived from tokio's monotonic timer.
///
/// Reading the system clock directly would leave tests with two clocks that disagree: the timer that
/// they pause and wind on, and the wall that they cannot. `Clock` pins the wall time once and counts on
/// from there with the timer. It is read again for each run, so drift is bounded by the length of a run.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall_at_start_ms: u64,
}

impl Clock {
    /// A clock that starts at the system's time.
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// A clock that starts at a given time, in milliseconds since 1970-01-01 UTC.
    pub fn starting_at_ms(wall_at_start_ms: u64) -> Self {
        Self { started: Instant::now(), wall_at_start_ms }
    }

    /// Now, in milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> u64 {
        self.wall_at_start_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
    }

    /// Now, as a timestamp that prints as RFC 3339 in UTC.
    pub fn now(&self) -> jiff::Timestamp {
        i64::try_from(self.now_ms())
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .unwrap_or(jiff::Timestamp::MAX)
    }

    /// How long until a wall-clock time; zero if it has passed.
    pub fn until_ms(&self, wall_ms: u64) -> Duration {
        Duration::from_millis(wall_ms.saturating_sub(self.now_ms()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_time_follows_the_paused_timer() {
        let clock = Clock::starting_at_ms(1_000);
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(clock.now_ms(), 301_000);
        assert_eq!(clock.until_ms(301_500), Duration::from_millis(500));
        assert_eq!(clock.until_ms(0), Duration::ZERO);
    }
}
