//! The page's templates. Everything from outside passes through them, and they escape it.

use std::collections::BTreeSet;
use std::sync::Arc;

use maud::{DOCTYPE, Markup, html};

use super::Addresses;
use super::actions::{
    ENDPOINTS, FAULTS, MOST_CHANGES_PER_MINUTE, MOST_IMPORTED, MOST_LATENCY_MS, MOST_TIMES,
};
use super::compare::{Comparison, Line, Mark, Node, Side};
use super::words::{Lang, Words, fill};
use crate::Service;
use crate::calls::Call;

/// Groups and products below one group, and calls, that are shown.
const MOST_LINES: usize = 200;
const MOST_CALLS: usize = 100;
/// Lines of a whole tree, however much is open.
const MOST_IN_TREE: usize = 4_000;
const NAME_CHARS: usize = 120;

/// What the templates show.
pub(super) struct View {
    pub lang: Lang,
    /// Changes with both sides.
    pub version: String,
    pub comparison: Arc<Comparison>,
    /// Ids of the groups that are open, and `p` with the ids of the products whose form is.
    pub open: BTreeSet<String>,
    /// Oldest first.
    pub calls: Vec<Call>,
    pub waiting_faults: usize,
    pub latency_ms: u64,
    pub edits_per_minute: f64,
}

fn shell(lang: Lang, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(lang.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (lang.words().title) " · okki-sync" }
                link rel="stylesheet" href="/style.css";
                script src="/script.js" defer {}
            }
            body { (body) }
        }
    }
}

/// A sentence that says what is wrong, and the way back.
pub(super) fn problem(lang: Lang, what: &str) -> Markup {
    let words = lang.words();
    shell(
        lang,
        html! { main { h1 { (words.title) } p role="alert" { (what) } p { a href="/" { (words.back) } } } },
    )
}

pub(super) fn page(view: &View, addresses: &Addresses) -> Markup {
    let words = view.lang.words();
    let body = html! {
        header {
            h1 { (words.title) }
            nav aria-label=(words.language) {
                a href="/?lang=en" lang="en" aria-current=[(view.lang == Lang::En).then_some("true")] { "English" } " "
                a href="/?lang=zh" lang="zh-CN" aria-current=[(view.lang == Lang::Zh).then_some("true")] { "中文" }
            }
        }
        main {
            p { (with_code(words.addresses)) }
            p { (words.okki) ": " code { (addresses.okki) } " · " (words.target) ": " code { (addresses.target) } }
            p { (with_code(words.try_it)) }
            p #said role="status" data-live=(words.live) data-stopped=(words.stopped) {}
            section aria-labelledby="glance-h" { h2 #glance-h { (words.glance) } div #glance { (glance(view)) } }
            div.controls { (people(view, words)) (trouble(view, words)) }
            section aria-labelledby="tree-h" {
                h2 #tree-h { (words.both_sides) }
                p.muted.legend { (words.legend) }
                div.sides aria-hidden="true" { span {} strong { (words.okki_side) } strong { (words.target_side) } }
                div #tree data-version=(view.version) { (tree(view)) }
            }
            section aria-labelledby="calls-h" {
                h2 #calls-h { (words.calls) }
                p.muted { (words.calls_shown) }
                div #calls tabindex="0" role="group" aria-labelledby="calls-h" { (calls(view)) }
            }
        }
    };
    shell(view.lang, body)
}

/// What stands in backticks is code.
fn with_code(sentence: &str) -> Markup {
    html! {
        @for (at, part) in sentence.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

pub(super) fn glance(view: &View) -> Markup {
    let (words, all) = (view.lang.words(), &view.comparison);
    let tiles = [
        (words.groups, all.source.0, ""),
        (words.products, all.source.1, ""),
        (words.rows, all.target_rows, ""),
        (words.missing, all.missing, "missing"),
        (words.extra, all.extra, "extra"),
        (words.different, all.different, "different"),
    ];
    html! {
        dl.tiles { @for (label, n, class) in tiles { div.(class) { dt { (label) } dd { (n) } } } }
        @if all.target_rows == 0 { p { (with_code(words.empty_target)) } }
        @else if all.missing + all.extra + all.different == 0 { p { (words.in_step) } }
    }
}

/// A form of one button, with what stands before it.
fn form(action: &str, label: &str, fields: &Markup) -> Markup {
    html! {
        form method="post" action="/do" {
            input type="hidden" name="do" value=(action);
            (fields)
            button #{"do-" (action)} type="submit" { (label) }
        }
    }
}

fn number(
    name: &str,
    label: &str,
    value: impl std::fmt::Display,
    least: u32,
    most: impl std::fmt::Display,
) -> Markup {
    html! {
        label { (label) " " input type="number" name=(name) value=(value) min=(least) max=(most) step="any" required; }
    }
}

fn people(view: &View, words: &Words) -> Markup {
    html! {
        section aria-labelledby="people-h" {
            h2 #people-h { (words.people) }
            (form("day", words.working_day, &html! {}))
            (form("import", words.import, &number("rows", words.how_many, 10, 1, MOST_IMPORTED)))
            (form("restore", words.restore, &html! {}))
            (form("people", words.set, &number("rate", words.edits_per_minute, view.edits_per_minute, 0, MOST_CHANGES_PER_MINUTE)))
        }
    }
}

fn trouble(view: &View, words: &Words) -> Markup {
    let fault = html! {
        label { (words.endpoint) " " select name="at" { @for (word, _) in ENDPOINTS { option value=(word) selected[word == "qeasy_store"] { (word) } } } }
        label { (words.fault) " " select name="kind" { @for word in FAULTS { option value=(word) { (word) } } } }
        (number("times", words.times, 1, 1, MOST_TIMES))
    };
    html! {
        section aria-labelledby="trouble-h" {
            h2 #trouble-h { (words.trouble) }
            div.row { (form("lock_okki", words.lock_okki, &html! {})) (form("lock_target", words.lock_target, &html! {})) (form("revoke", words.revoke, &html! {})) }
            (form("latency", words.set, &number("ms", words.latency, view.latency_ms, 0, MOST_LATENCY_MS)))
            (form("break", words.break_next, &fault))
            div #faults { (waiting_faults(view)) }
            (form("mend", words.mend, &html! {}))
        }
    }
}

pub(super) fn waiting_faults(view: &View) -> Markup {
    html! { @if view.waiting_faults > 0 { p { (fill(view.lang.words().waiting_faults, view.waiting_faults)) } } }
}

pub(super) fn tree(view: &View) -> Markup {
    let mut left = MOST_IN_TREE;
    html! { ul.tree { (groups(view, &view.comparison.top, &mut left)) } }
}

/// Groups side by side; what a bound leaves out is counted.
fn groups(view: &View, places: &[usize], left: &mut usize) -> Markup {
    let shown = places.len().min(MOST_LINES).min(*left);
    *left -= shown;
    html! {
        @for node in places.iter().take(shown).filter_map(|place| view.comparison.nodes.get(*place)) {
            (group(view, node, left))
        }
        (more(view, places.len() - shown))
    }
}

fn group(view: &View, node: &Node, left: &mut usize) -> Markup {
    let words = view.lang.words();
    let id = node.line.as_ref().map(|line| line.id.as_str()).unwrap_or_default();
    let open = view.open.contains(if id.is_empty() { "-" } else { id });
    let key = if id.is_empty() { "-" } else { id };
    html! {
        li {
            details data-key=(key) open[open] {
                summary #{"g-" (key)} {
                    @match &node.line {
                        Some(line) => (cells(words, line)),
                        None => { span.mark {} span { (words.no_group) } span {} }
                    }
                    @if node.differing > 0 {
                        span.differing title=(fill(words.differences_below, node.differing)) { (node.differing) span.hidden { " " (words.different) } }
                    }
                }
                @if open {
                    ul.tree { (groups(view, &node.groups, left)) (products(view, &node.products, left)) }
                } @else {
                    p { a href={ "/?open=" (opened(view, key)) } { (words.open) } }
                }
            }
        }
    }
}

/// What is open, and one more.
fn opened(view: &View, key: &str) -> String {
    let keys = view.open.iter().map(String::as_str).chain([key]);
    url::form_urlencoded::byte_serialize(keys.collect::<Vec<_>>().join(",").as_bytes()).collect()
}

fn products(view: &View, products: &[Line], left: &mut usize) -> Markup {
    // What differs is what people look for: it comes first.
    let (mut ahead, rest): (Vec<&Line>, Vec<&Line>) =
        products.iter().partition(|line| !matches!(line.mark, Mark::Same | Mark::Apart));
    ahead.extend(rest);
    let shown = ahead.len().min(MOST_LINES).min(*left);
    *left -= shown;
    html! {
        @for line in ahead.iter().take(shown) { (product(view, line)) }
        (more(view, ahead.len() - shown))
    }
}

fn product(view: &View, line: &Line) -> Markup {
    let words = view.lang.words();
    let key = format!("p{}", line.id);
    html! {
        li.product {
            @match &line.source {
                Some(source) => {
                    details data-key=(key) open[view.open.contains(&key)] {
                        summary #{"g-" (key)} { (cells(words, line)) span.hidden { " " (words.change) } }
                        (edit(words, line, source))
                    }
                }
                None => { div.line { (cells(words, line)) } }
            }
        }
    }
}

fn edit(words: &Words, line: &Line, source: &Side) -> Markup {
    let id = html! { input type="hidden" name="id" value=(line.id); };
    html! {
        div.row {
            form method="post" action="/do" {
                input type="hidden" name="do" value="edit"; (id)
                label { (words.name) " " input name="name" value=(source.name.as_deref().unwrap_or_default()) maxlength="500"; }
                label { (words.cost) " " input name="cost" value=(source.cost.as_deref().unwrap_or_default()) inputmode="decimal" size="10"; }
                button type="submit" { (words.save) }
            }
            form method="post" action="/do" {
                input type="hidden" name="do" value="delete"; (id)
                button.danger type="submit" { (words.delete) }
            }
        }
    }
}

/// Mark, source and target of a line.
fn cells(words: &Words, line: &Line) -> Markup {
    let (sign, class) = match line.mark {
        Mark::Same => ("=", "same"),
        Mark::Missing => ("+", "missing"),
        Mark::Extra => ("-", "extra"),
        Mark::Different => ("*", "different"),
        Mark::Apart => ("·", "same"),
    };
    html! {
        span.mark.(class) aria-hidden="true" { (sign) }
        span { (side(words, line.source.as_ref(), &line.id)) }
        span { span.hidden { " " (words.mark(line.mark)) ": " } (side(words, line.target.as_ref(), "")) }
    }
}

fn side(words: &Words, side: Option<&Side>, id: &str) -> Markup {
    html! {
        @match side {
            Some(side) => {
                bdi { (cut(side.name.as_deref().unwrap_or("✓"))) }
                @if let Some(cost) = &side.cost { " " span.cost { (cut(cost)) } }
                @if !id.is_empty() { " " span.id { (cut(id)) } }
            }
            None => { @if !id.is_empty() { span.id { (cut(id)) } " " } span.muted { "(" (words.nothing) ")" } }
        }
    }
}

/// Text from outside: cut, and without characters that would reorder or hide it.
fn cut(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown: String = text.chars().filter(|c| !hides(*c)).take(NAME_CHARS).collect();
    if text.chars().nth(NAME_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

fn more(view: &View, left_out: usize) -> Markup {
    html! { @if left_out > 0 { li.muted { (fill(view.lang.words().more, left_out)) } } }
}

pub(super) fn calls(view: &View) -> Markup {
    let words = view.lang.words();
    html! {
        @if view.calls.is_empty() { p.muted { (words.no_calls) } } @else {
            table {
                thead { tr { @for heading in [words.time, words.side, words.call, words.status, words.took] { th scope="col" { (heading) } } } }
                tbody { @for call in view.calls.iter().rev().take(MOST_CALLS) { (call_row(words, call)) } }
            }
        }
    }
}

fn call_row(words: &Words, call: &Call) -> Markup {
    let time = i64::try_from(call.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let well = call.status.is_some_and(|status| status < 400);
    html! {
        tr {
            td { (time.map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default()) }
            td { (match call.service { Service::Okki => words.okki, Service::Target => words.target }) }
            td { code { (call.method) " " (cut(&call.path)) } }
            td.bad[!well] { @match call.status { Some(status) => (status), None => (words.lost) } }
            td { (call.took.as_millis()) " ms" }
        }
    }
}
