//! One clock for the whole run: the system's, or in tests one that follows tokio's timer, so that pausing moves both.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// When a pinned clock starts, 2027-01-15 08:00 UTC: no test depends on the hour at which it is run.
const PINNED_MS: u64 = 1_800_000_000_000;

/// Wall-clock time.
///
/// The program reads the system's clock each time: a frozen Lambda environment stops its monotonic timer and keeps
/// the wall right. A test that read it would have two clocks that disagree, the timer that it pauses and winds,
/// and the wall that it cannot: there the wall is pinned once and counts on with the timer.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's.
    System,
    /// Follows tokio's timer.
    Pinned {
        /// When it was pinned.
        at: Instant,
        /// Milliseconds since 1970-01-01 UTC at that moment.
        wall_ms: u64,
    },
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::System
    }

    /// A test's clock: it starts at the same time each time and follows tokio's timer.
    pub fn pinned() -> Self {
        Self::starting_at_ms(PINNED_MS)
    }

    /// A clock that starts at a given time, in milliseconds since 1970-01-01 UTC, and follows tokio's timer.
    pub fn starting_at_ms(wall_ms: u64) -> Self {
        Self::Pinned { at: Instant::now(), wall_ms }
    }

    /// Now, in milliseconds since 1970-01-01 UTC.
    pub fn now_ms(&self) -> u64 {
        let (since, wall_ms) = match self {
            Self::System => (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), 0),
            Self::Pinned { at, wall_ms } => (at.elapsed(), *wall_ms),
        };
        wall_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
