//! The head of a page, and its counts.

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, text, tone};
use crate::report::Report;

pub(super) fn head(words: &Words, report: &Report) -> Markup {
    html! {
        p.badge.(tone(report.status)) { (words.status(report.status)) }
        h1 { (words.run_of) " " bdi { (text::visible(&report.connection)) } }
        dl.facts {
            div { dt { (words.started) } dd { time datetime=(text::visible(&report.started_at)) { (numbers::time(&report.started_at)) } } }
            div { dt { (words.took) } dd { (numbers::duration(words.lang, report.duration_ms)) } }
            div { dt { (words.mode) } dd { code { (report.mode.as_str()) } } }
            div { dt { (words.run) } dd { code { (text::visible(&report.run_id)) } } }
        }
    }
}

pub(super) fn counts(words: &Words, report: &Report) -> Markup {
    let (source, plan, target) = (&report.source, &report.plan, &report.target);
    let tiles = [
        (words.groups, source.groups, ""),
        (words.products, source.products, ""),
        (words.create, plan.create, "create"),
        (words.update, plan.update, "update"),
        (words.delete, plan.delete, "delete"),
        (words.unchanged, plan.unchanged, ""),
        (words.written, target.written, ""),
        (words.deleted, target.deleted, ""),
        (words.set_aside, report.quarantined, if report.quarantined > 0 { "warn" } else { "" }),
        (words.remaining, report.remaining, if report.remaining > 0 { "warn" } else { "" }),
    ];
    html! {
        section aria-labelledby="counts" {
            h2 #counts { (words.counts) }
            dl.tiles { @for (label, n, class) in tiles { div class=(class) { dt { (label) } dd { (numbers::count(n)) } } } }
            p.muted { (if source.full_read { words.full_read } else { words.changes_read }) }
        }
    }
}
