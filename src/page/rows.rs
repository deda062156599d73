//! The rows that a run set aside, each with its reason and its raw content.

use maud::{Markup, html};

use super::words::Words;
use super::{numbers, text, words};
use crate::catalogue::Rejected;
use crate::report::Report;
use crate::words::recognise;

/// Rows that a page shows; the file in the store has them all.
const MOST_ROWS: usize = 1_000;
/// Characters of a raw row, a reason and an id.
const RAW_CHARS: usize = 8_000;
const REASON_CHARS: usize = 600;
const ID_CHARS: usize = 80;

pub(super) fn section(words: &Words, report: &Report, rows: &[Rejected]) -> Markup {
    let (total, shown) = (report.quarantined, rows.len().min(MOST_ROWS));
    html! {
        section aria-labelledby="aside" {
            h2 #aside { (words.rows_aside) " " span.count { (numbers::count(total)) } }
            @if rows.is_empty() {
                p.muted { @if total > 0 { (text::with_code(words.rows_gone)) } @else { (words.none_aside) } }
            } @else {
                ul.rows { @for row in rows.iter().take(shown) { (item(words, row)) } }
                @if rows.len() > shown {
                    p.muted { (words::fill(words.more_rows, &[("n", &numbers::count((rows.len() - shown) as u64))])) }
                }
            }
        }
    }
}

fn item(words: &Words, row: &Rejected) -> Markup {
    let raw = row.raw.get();
    html! {
        li {
            details {
                summary {
                    span.kind { (words.kind(row.kind)) } " "
                    @match row.id.as_deref() {
                        Some(id) => { bdi.id { (text::cut(id, ID_CHARS)) } }
                        None => { span.muted { (words.no_id) } }
                    }
                    span.reason { bdi { (text::cut(&recognise(&row.reason, words.lang), REASON_CHARS)) } }
                }
                pre { code { (text::cut(raw, RAW_CHARS)) } }
            }
        }
    }
}
