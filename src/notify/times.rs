//! Times of day where people live: quiet hours, and when the daily digest is due.
//!
//! A zone is a distance from UTC (`+08:00`) or one of [`ZONES`], which keep theirs all year. Deliberately absent: zones
//! with summer time, whose tables would be a twentieth of the program.

const MS_PER_MINUTE: u64 = 60_000;
const MINUTES_PER_DAY: u32 = 24 * 60;
/// No clock is farther from UTC.
const FARTHEST: u32 = 14 * 60;
/// Where a time without a zone is.
const HOME: &str = "Asia/Shanghai";
/// Zones that are known by name, in minutes east of UTC.
const ZONES: [(&str, i32); 13] = [
    ("UTC", 0),
    (HOME, 8 * 60),
    ("Asia/Hong_Kong", 8 * 60),
    ("Asia/Macau", 8 * 60),
    ("Asia/Taipei", 8 * 60),
    ("Asia/Singapore", 8 * 60),
    ("Asia/Kuala_Lumpur", 8 * 60),
    ("Asia/Tokyo", 9 * 60),
    ("Asia/Seoul", 9 * 60),
    ("Asia/Bangkok", 7 * 60),
    ("Asia/Ho_Chi_Minh", 7 * 60),
    ("Asia/Kolkata", 5 * 60 + 30),
    ("Asia/Dubai", 4 * 60),
];

/// A time of day in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeOfDay {
    /// Minutes after midnight.
    minute: u32,
    /// Minutes east of UTC.
    east: i32,
}

impl TimeOfDay {
    /// Reads `09:00` or `09:00 Asia/Shanghai`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (time, east) = with_zone(text)?;
        Some(Self { minute: minute_of(time)?, east })
    }

    /// When it is this time next, in wall-clock milliseconds; later than now.
    pub(super) fn next_after(self, now_ms: u64) -> u64 {
        let ahead = (self.minute + MINUTES_PER_DAY - minute_of_day(now_ms, self.east)) % MINUTES_PER_DAY;
        let ahead = if ahead == 0 { MINUTES_PER_DAY } else { ahead };
        let this_minute_ms = now_ms - now_ms % MS_PER_MINUTE;
        this_minute_ms + u64::from(ahead) * MS_PER_MINUTE
    }
}

/// Hours in which only what is urgent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuietHours {
    from: u32,
    /// Not included. Smaller than `from` where midnight lies between.
    to: u32,
    east: i32,
}

impl QuietHours {
    /// Reads `22:00-07:00` or `22:00-07:00 Asia/Shanghai`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (hours, east) = with_zone(text)?;
        let (from, to) = hours.split_once('-')?;
        let (from, to) = (minute_of(from.trim_end())?, minute_of(to.trim_start())?);
        (from != to).then_some(Self { from, to, east })
    }

    pub(super) fn contain(self, now_ms: u64) -> bool {
        let minute = minute_of_day(now_ms, self.east);
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// The text before the zone, and the zone's minutes east of UTC.
fn with_zone(text: &str) -> Option<(&str, i32)> {
    let text = text.trim();
    let is_zone = |word: &str| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '+' || c == '-');
    let (times, zone) = match text.rsplit_once(' ') {
        Some((times, zone)) if is_zone(zone) => (times.trim_end(), zone),
        _ => (text, HOME),
    };
    Some((times, east_of_utc(zone)?))
}

fn east_of_utc(zone: &str) -> Option<i32> {
    if let Some((_, east)) = ZONES.iter().find(|(name, _)| *name == zone) {
        return Some(*east);
    }
    let (sign, distance) = match zone.split_at_checked(1)? {
        ("+", distance) => (1, distance),
        ("-", distance) => (-1, distance),
        _ => return None,
    };
    let minutes = minute_of(distance).filter(|minutes| *minutes <= FARTHEST)?;
    Some(sign * i32::try_from(minutes).ok()?)
}

/// Minutes after midnight of `HH:MM`.
fn minute_of(time: &str) -> Option<u32> {
    let (hour, minute) = time.split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let fits = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (hour, minute) = (number(hour, 1..=2)?, number(minute, 2..=2)?);
    (hour < 24 && minute < 60).then_some(hour * 60 + minute)
}

fn minute_of_day(now_ms: u64, east: i32) -> u32 {
    let minutes = i64::try_from(now_ms / MS_PER_MINUTE).unwrap_or_default() + i64::from(east);
    u32::try_from(minutes.rem_euclid(i64::from(MINUTES_PER_DAY))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> u64 {
        let at: jiff::Timestamp = text.parse().unwrap();
        at.as_millisecond().try_into().unwrap()
    }

    #[test]
    fn quiet_hours_end_where_they_say_also_past_midnight() {
        let night = QuietHours::parse("22:00-07:00 Asia/Shanghai").unwrap();
        assert_eq!(QuietHours::parse(" 22:00 - 07:00 "), Some(night));
        assert_eq!(QuietHours::parse("22:00-07:00 +08:00"), Some(night));
        for (utc, expected) in [
            ("2026-01-02T13:59:59Z", false),
            ("2026-01-02T14:00:00Z", true),
            ("2026-01-02T16:00:00Z", true),
            ("2026-01-02T22:59:59Z", true),
            ("2026-01-02T23:00:00Z", false),
        ] {
            assert_eq!(night.contain(at(utc)), expected, "{utc}");
        }
        let noon = QuietHours::parse("9:30-12:00 -03:30").unwrap();
        for (utc, expected) in
            [("2026-01-02T12:59:00Z", false), ("2026-01-02T13:00:00Z", true), ("2026-01-02T15:30:00Z", false)]
        {
            assert_eq!(noon.contain(at(utc)), expected, "{utc}");
        }
    }

    #[test]
    fn the_next_time_of_day_is_later_than_now_and_at_most_a_day_away() {
        let nine = TimeOfDay::parse("09:00").unwrap();
        for (now, next) in [
            ("2026-01-02T00:59:59.999Z", "2026-01-02T01:00:00Z"),
            ("2026-01-02T01:00:00Z", "2026-01-03T01:00:00Z"),
            ("2026-01-02T01:00:30Z", "2026-01-03T01:00:00Z"),
            ("2026-01-02T23:00:00Z", "2026-01-03T01:00:00Z"),
        ] {
            assert_eq!(nine.next_after(at(now)), at(next), "{now}");
        }
        assert_eq!(TimeOfDay::parse("0:05 UTC").unwrap().next_after(0), 5 * MS_PER_MINUTE);
    }

    #[test]
    fn what_is_no_time_or_no_zone_is_refused() {
        for wrong in
            ["", "9", "24:00", "09:60", "9:5", "+9:00", "09:00 Mars", "09:00 8", "09:00 +8", "09:00 +15:00"]
        {
            assert_eq!(TimeOfDay::parse(wrong), None, "{wrong}");
        }
        for wrong in
            ["22:00", "22:00-22:00", "22-7", "22:00-07:00 Europe/Berlin", "22:00-07:00-08:00", "-", "a-b"]
        {
            assert_eq!(QuietHours::parse(wrong), None, "{wrong}");
        }
    }
}
