//! The source's own time: seconds without a zone, and ranges of them. Pure.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";

/// Seconds since 1970-01-01 00:00:00 of the source's own clock, whatever its zone.
pub(crate) type Seconds = i64;

/// No product is older. (A blank time may be kept as this very second.)
pub(crate) const OLDEST: Seconds = 0;

/// No product is newer: the end of year 9999, the last that has four digits.
pub(crate) const LATEST: Seconds = 253_402_300_799;

/// A year at most.
pub(crate) const YEAR_SECONDS: i64 = 366 * 86_400;

/// After this wait the second that was going on is over, by any clock that counts seconds.
pub(crate) const SECOND_IS_OVER: Duration = Duration::from_millis(1_100);

/// No time zone is farther ahead, or farther behind.
pub(crate) const FARTHEST_ZONE_SECONDS: i64 = 54_000;

/// Reads `YYYY-MM-DD HH:mm:ss`; `None` if it is anything else.
pub(crate) fn from_text(text: &str) -> Option<Seconds> {
    let time = DateTime::strptime(TIME_FORMAT, text.trim()).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Writes `YYYY-MM-DD HH:mm:ss`.
pub(crate) fn to_text(time: Seconds) -> String {
    let time = jiff::Timestamp::from_second(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).strftime(TIME_FORMAT).to_string()
}

/// Which time of a product a filter asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeAxis {
    Creation,
    Update,
}

impl TimeAxis {
    /// The value of `time_type`.
    pub(crate) fn time_type(self) -> &'static str {
        match self {
            Self::Update => "1",
            Self::Creation => "2",
        }
    }
}

/// A range of seconds, both ends included; an open one has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TimeRange {
    pub from: Seconds,
    pub to: Option<Seconds>,
}

impl TimeRange {
    pub(crate) fn new(from: Seconds, to: Seconds) -> Self {
        Self { from, to: Some(to) }
    }

    pub(crate) fn since(from: Seconds) -> Self {
        Self { from, to: None }
    }

    /// Whether it cannot be split by time.
    pub(crate) fn is_one_second(&self) -> bool {
        self.to.is_some_and(|to| to <= self.from)
    }

    /// How many seconds it holds until `now`, at least one.
    pub(crate) fn seconds(&self, now: Seconds) -> i64 {
        self.to.unwrap_or_else(|| now.max(self.from)).saturating_sub(self.from).max(0) + 1
    }

    /// Cuts it after the first `seconds` (at least one): that part, and the rest if there is one. The last part of an
    /// open range begins after `now` at the latest and stays open.
    pub(crate) fn cut(self, seconds: i64, now: Seconds) -> (Self, Option<Self>) {
        let middle = self.from.saturating_add(seconds.max(1) - 1);
        let end = self.to.unwrap_or(now);
        if middle >= end {
            return (self, None);
        }
        (Self::new(self.from, middle), Some(Self { from: middle + 1, to: self.to }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        for text in ["1970-01-01 00:00:00", "2026-11-24 23:59:59", "2024-02-29 08:00:00"] {
            assert_eq!(to_text(from_text(text).unwrap()), text);
        }
        assert_eq!(from_text("1970-01-01 00:01:00"), Some(60));
        for text in ["yesterday", "", "2026-13-01 00:00:00", "2026-11-24"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_range_share_no_second_and_leave_none_out() {
        let whole = TimeRange::new(10, 19);
        assert_eq!(whole.cut(4, 0), (TimeRange::new(10, 13), Some(TimeRange::new(14, 19))));
        assert_eq!(whole.cut(10, 0), (whole, None));
        assert_eq!(whole.cut(0, 0), (TimeRange::new(10, 10), Some(TimeRange::new(11, 19))));
        let open = TimeRange::since(10);
        assert_eq!(open.cut(4, 30), (TimeRange::new(10, 13), Some(TimeRange::since(14))));
        assert_eq!(open.cut(21, 30), (open, None));
        assert_eq!((whole.seconds(0), open.seconds(30), TimeRange::new(5, 5).seconds(0)), (10, 21, 1));
    }
}
