//! Numbers and times for people.

use super::Lang;
pub(super) use crate::words::count;

/// A duration in the two units that matter: `4 h 2 min`, `12 min 5 s`, `3.2 s`, `80 ms`.
pub(super) fn duration(lang: Lang, ms: u64) -> String {
    let [hours, minutes, seconds, millis] = match lang {
        Lang::En => [" h", " min", " s", " ms"],
        Lang::Zh => [" 小时", " 分", " 秒", " 毫秒"],
    };
    let s = ms / 1000;
    match s {
        0 => format!("{ms}{millis}"),
        1..60 => format!("{s}.{}{seconds}", ms % 1000 / 100),
        60..3600 => format!("{}{minutes} {}{seconds}", s / 60, s % 60),
        _ => format!("{}{hours} {}{minutes}", s / 3600, s % 3600 / 60),
    }
}

/// `2026-11-24T18:43:16.080Z` as `2026-11-24 18:43:16 UTC`; anything else as it is.
pub(super) fn time(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => super::text::visible(at),
    }
}
