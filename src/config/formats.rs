//! Texts of a pipeline file that have a form of their own, by the `format` that the schema gives them.

use std::time::Duration;

use crate::notify::{QuietHours, TimeOfDay};
use crate::words::{Message, say};

/// No schedule is finer.
const SHORTEST: Duration = Duration::from_mins(1);

/// What is wrong with the text, and what to do. `None` if it fits, or nobody knows the format.
pub(super) fn mistake(format: &str, text: &str) -> Option<(Message, Message)> {
    match format {
        "humantime" | "humantime-minute" => match humantime::parse_duration(text) {
            Err(_) => Some((
                say!("is not a duration"),
                say!("write a number with its unit, for example \"24h\" or \"1h 30m\""),
            )),
            Ok(duration) if format == "humantime-minute" && duration < SHORTEST => {
                Some((say!("is shorter than a minute"), say!("write at least \"1m\"")))
            }
            Ok(_) => None,
        },
        "quiet-hours" if QuietHours::parse(text).is_none() => Some((
            say!("does not say from when to when"),
            say!(
                "write two times and perhaps a zone, as in \"22:00-07:00 Asia/Shanghai\" or \"22:00-07:00 +08:00\""
            ),
        )),
        "time-of-day" if TimeOfDay::parse(text).is_none() => Some((
            say!("is not a time of day"),
            say!("write it with a zone or without one, as in \"09:00 Asia/Shanghai\" or \"09:00 +08:00\""),
        )),
        "report-url" if !is_web_address(text) => Some((
            say!("is not the address of a web page"),
            say!(
                "write https://host/path; {connection} and {run_id} in it are filled in",
                connection = "{connection}",
                run_id = "{run_id}"
            ),
        )),
        _ => None,
    }
}

/// It is shown to a group: credentials in it would be shown too.
fn is_web_address(text: &str) -> bool {
    let filled = text.replace("{connection}", "c").replace("{run_id}", "r");
    let has_braces = filled.contains(['{', '}', '(', ')', '<', '>', ' ']);
    let url = url::Url::parse(&filled).ok().filter(|_| !has_braces);
    url.is_some_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    })
}
