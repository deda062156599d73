//! `[notify]` of a pipeline file, and what its texts mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notify::{QuietHours, Settings, TimeOfDay};
use crate::words::Lang;

/// `[notify]`: what a chat group is told of this connection, when and how. Its robot is a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NotifyKeys {
    /// The language of the messages.
    pub lang: NotifyLang,
    /// A connection that has completed no run for this long is told, as in `3h` or `1h 30m`; at least a minute. Default:
    /// `OKKI_SYNC_STALE_AFTER`, which a stack sets to its `FreshnessHours`, else `2h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "humantime-minute"))]
    pub stale_after: Option<String>,
    /// What is not urgent waits until these hours end, as in `22:00-07:00 Asia/Shanghai`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "quiet-hours"))]
    pub quiet_hours: Option<String>,
    /// A digest of the day, at this time, as in `09:00` or `09:00 Asia/Shanghai`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "time-of-day"))]
    pub daily_digest: Option<String>,
    /// Where people look at a run's report, linked in each message; `{connection}` and `{run_id}` in it are filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "report-url"))]
    pub report_url: Option<String>,
}

/// The languages of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NotifyLang {
    /// Chinese.
    #[default]
    Zh,
    /// English.
    En,
}

impl NotifyKeys {
    /// The schema's check has seen that each text is what it should be.
    pub(super) fn resolve(self) -> Settings {
        Settings {
            lang: match self.lang {
                NotifyLang::Zh => Lang::Zh,
                NotifyLang::En => Lang::En,
            },
            stale_after: self.stale_after.and_then(|text| humantime::parse_duration(&text).ok()),
            quiet_hours: self.quiet_hours.and_then(|text| QuietHours::parse(&text)),
            daily_digest: self.daily_digest.and_then(|text| TimeOfDay::parse(&text)),
            report_url: self.report_url,
        }
    }
}
