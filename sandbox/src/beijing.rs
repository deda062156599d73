//! OKKI writes times without a zone; they are Beijing's, which has had no summer time since 1991.

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz};

const BEIJING: tz::Offset = tz::Offset::constant(8);

/// `2027-01-15 16:00:00`, from Unix seconds.
pub(crate) fn to_text(second: i64) -> String {
    let time = BEIJING.to_datetime(Timestamp::from_second(second).unwrap_or_default());
    let (date, time) = (time.date(), time.time());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// Unix seconds of a time or a date. A date means its first second, or its last one where it ends a range.
pub(crate) fn from_text(text: &str, ends_a_range: bool) -> Option<i64> {
    let time = match DateTime::strptime("%Y-%m-%d %H:%M:%S", text) {
        Ok(time) => time,
        Err(_) => {
            let date = Date::strptime("%Y-%m-%d", text).ok()?;
            if ends_a_range { date.at(23, 59, 59, 0) } else { date.at(0, 0, 0, 0) }
        }
    };
    BEIJING.to_timestamp(time).ok().map(Timestamp::as_second)
}
