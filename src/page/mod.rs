//! A run as one HTML page that opens without a network: how it ended, what to do next, what changed, what was set aside.
//! Pure: data in, text out.
//!
//! The page has no script, loads nothing, and its policy (a CSP in its head) lets nothing load. Everything from outside
//! is escaped by the templates (maud), and characters that reorder or hide text are made visible. Trees are `<details>`,
//! which browsers open by mouse and by keyboard. What is long is cut at bounds that are told on the page: a page of 5,000
//! changed rows still opens at once, since a browser lays out only what is open and in sight.

mod advice;
mod changes;
mod numbers;
mod picture;
mod rows;
mod style;
mod summary;
mod text;
mod timeline;
mod words;

use base64::Engine as _;
use maud::{DOCTYPE, Markup, html};

use crate::catalogue::Rejected;
use crate::changes::RowChange;
use crate::report::{Report, Status};
use crate::words::{Lang, recognise_line};
use words::Words;

/// What a page shows.
#[derive(Debug, Clone, Copy)]
pub struct RunPage<'a> {
    /// The language of its texts, reasons and errors. Names and values stay as they are.
    pub lang: Lang,
    /// The run.
    pub report: &'a Report,
    /// What it changed, row by row; `None` where that was not recorded.
    pub changes: Option<&'a [RowChange]>,
    /// The rows that it set aside.
    pub set_aside: &'a [Rejected],
    /// The last runs of the connection, newest first; this one may be among them.
    pub recent: &'a [Report],
}

impl RunPage<'_> {
    /// The whole page, UTF-8.
    pub fn html(&self) -> String {
        let words = Words::of(self.lang);
        let report = self.report;
        let title = format!("{} · {} · okki-sync", words.status(report.status), report.connection);
        let page = html! {
            (DOCTYPE)
            html lang=(self.lang.tag()) {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy());
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { (text::visible(&title)) }
                    style { (maud::PreEscaped(style::CSS)) }
                }
                body {
                    header { (summary::head(words, report)) }
                    main {
                        (self.next(words))
                        (summary::counts(words, report))
                        (changes::section(words, report, self.changes))
                        (rows::section(words, report, self.set_aside))
                        (picture::calls(words, report))
                        (picture::last_runs(words, report, self.recent))
                    }
                    footer { p { (words.footer) " okki-sync " (env!("CARGO_PKG_VERSION")) } }
                }
            }
        };
        page.into_string()
    }

    /// What people do after this run.
    fn next(&self, words: &Words) -> Markup {
        let report = self.report;
        let kind = report.error.as_deref().and_then(|error| error.split(':').next()).unwrap_or_default();
        let known = advice::advice(self.lang, kind);
        let wait = report.resume_after_seconds.map(|seconds| {
            let wait = numbers::duration(self.lang, seconds.saturating_mul(1000));
            words::fill(words.come_back, &[("wait", &wait)])
        });
        html! {
            section.next.(tone(report.status)) aria-labelledby="next" {
                h2 #next { (words.next) }
                @if let Some(error) = &report.error {
                    p.error { bdi { (text::visible(&recognise_line(error, self.lang))) } }
                }
                @if let Some((meaning, advice)) = known {
                    p { strong { code { (kind) } } ": " (text::with_code(meaning)) }
                    p { (text::with_code(advice)) }
                } @else {
                    p { (text::with_code(words.advice(report.status))) }
                }
                @if report.quarantined > 0 { p { (text::with_code(words.look_at_rows)) } }
                @if let Some(wait) = wait { p { (wait) } }
            }
        }
    }
}

/// The class that colours a status.
fn tone(status: Status) -> &'static str {
    match status {
        Status::Succeeded => "good",
        Status::Partial | Status::Paused => "warn",
        Status::Failed => "bad",
    }
}

/// Nothing may load or run; the style is allowed by its hash.
fn policy() -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, style::CSS.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(hash.as_ref());
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

#[cfg(test)]
mod tests;
