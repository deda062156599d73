//! Numbers and times for people.

use super::Lang;
pub(super) use crate::words::count;

fn units(lang: Lang) -> [&'static str; 4] {
    match lang {
        Lang::En => [" h", " min", " s", " ms"],
        Lang::Zh => [" 小时", " 分", " 秒", " 毫秒"],
    }
}

/// A duration in the two units that matter: `4 h 2 min`, `12 min 5 s`, `3.2 s`, `80 ms`.
pub(super) fn duration(lang: Lang, ms: u64) -> String {
    let [hours, minutes, seconds, millis] = units(lang);
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

/// A stretch of time on an axis: `0.125 s`, `4 s`, `2 min`.
pub(super) fn stretch(lang: Lang, ms: u64) -> String {
    let [_, minutes, seconds, _] = units(lang);
    if ms >= 60_000 && ms.is_multiple_of(60_000) {
        return format!("{}{minutes}", ms / 60_000);
    }
    let fraction = format!("{:03}", ms % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{seconds}", ms / 1000)
}

/// Steps that an axis of time may have.
const STEPS_MS: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_800_000, 3_600_000,
];

/// The smallest step that marks this time at most so often.
pub(super) fn step(total_ms: u64, most: u64) -> u64 {
    let fits = |step: &u64| total_ms / step < most.max(1);
    let longest = total_ms.div_ceil(most.max(1)).max(1);
    STEPS_MS.into_iter().find(fits).unwrap_or_else(|| longest.next_multiple_of(3_600_000))
}

/// A mark of an axis whose marks are this far apart: `0`, `0.5 s`, `30 s`, `2 min`, `3 h`.
pub(super) fn mark(lang: Lang, at_ms: u64, step_ms: u64) -> String {
    let [hours, minutes, ..] = units(lang);
    match step_ms {
        _ if at_ms == 0 => "0".to_owned(),
        3_600_000.. => format!("{}{hours}", at_ms / 3_600_000),
        60_000.. => format!("{}{minutes}", at_ms / 60_000),
        _ => stretch(lang, at_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_few_marks_at_round_times() {
        for (total_ms, step_ms, last) in [
            (125, 50, "0.1 s"),
            (7_500, 2_000, "6 s"),
            (62_000, 15_000, "1 min"),
            (900_000, 300_000, "15 min"),
            (36_000_000, 7_200_000, "10 h"),
        ] {
            let step = step(total_ms, 6);
            assert_eq!(step, step_ms, "{total_ms}");
            assert_eq!(mark(Lang::En, total_ms / step * step, step), last);
        }
        assert_eq!(mark(Lang::Zh, 500, 500), "0.5 秒");
        assert!(step(u64::MAX, 6) > 0 && u64::MAX / step(u64::MAX, 6) <= 6);
    }
}
