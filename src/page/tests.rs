//! Unit tests of the page: escaping, policy, both languages, bounds.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::{Reason, RowKind};
use crate::changes::{ChangeAction, FieldChange, Json};

const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}gpj";

fn report(status: Status, error: Option<&str>) -> Report {
    serde_json::from_value(serde_json::json!({
        "run_id": "20261124T184316080Z-0dd1ac67", "connection": "acme", "mode": "sync", "status": status,
        "started_at": "2026-11-24T18:43:16.080Z", "duration_ms": 62_403,
        "source": {"groups": 3, "products": 1_234, "requests": 45, "retries": 2, "throttled": 1, "full_read": true},
        "plan": {"create": 3, "update": 0, "delete": 0, "unchanged": 0},
        "target": {"written": 3, "deleted": 0, "batches": 1, "requests": 2, "retries": 0, "throttled": 0},
        "quarantined": 0, "remaining": 0, "resume_after_seconds": null, "error": error,
    }))
    .unwrap()
}

fn page<'a>(report: &'a Report) -> RunPage<'a> {
    RunPage { lang: Lang::En, report, changes: None, set_aside: &[], recent: &[] }
}

fn change(name: &str, fields: Vec<FieldChange>) -> RowChange {
    RowChange { id: "7".to_owned(), name: name.to_owned(), action: ChangeAction::Update, fields }
}

/// Text as it stands in a JSON value.
fn json(text: &str) -> Option<Json> {
    Json::parse(text).or_else(|| Json::parse(&serde_json::Value::from(text).to_string()))
}

fn field(path: &str, old: &str, new: &str) -> FieldChange {
    FieldChange { path: path.to_owned(), old: json(old), new: json(new), old_unknown: false }
}

#[test]
fn whatever_comes_from_outside_is_text_and_no_markup() {
    let mut report = report(Status::Failed, Some(HOSTILE));
    report.connection = HOSTILE.to_owned();
    report.run_id = HOSTILE.to_owned();
    report.started_at = HOSTILE.to_owned();
    let raw = serde_json::to_string(&serde_json::json!({"name": HOSTILE})).unwrap();
    let aside = [Rejected::new(RowKind::Product, Some(HOSTILE.to_owned()), Reason::misfit(HOSTILE), &raw)];
    let changes =
        [RowChange { id: HOSTILE.to_owned(), ..change(HOSTILE, vec![field(HOSTILE, HOSTILE, HOSTILE)]) }];
    let recent = [report.clone()];
    let page = RunPage { changes: Some(&changes), set_aside: &aside, recent: &recent, ..page(&report) };
    for lang in Lang::ALL {
        let html = RunPage { lang, ..page }.html();
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains('\u{202e}'), "a name cannot reorder the page");
        assert!(html.matches("&lt;script&gt;").count() >= 10, "{}", html.matches("&lt;script&gt;").count());
    }
}

#[test]
fn the_policy_lets_nothing_load_and_knows_the_style() {
    let html = page(&report(Status::Succeeded, None)).html();
    assert!(html.contains("default-src 'none'; style-src 'sha256-"), "{html}");
    for outside in [" src=", " href=", "url(", "@import", " style=", " onclick"] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn a_page_is_in_its_language_and_says_what_to_do() {
    let report = report(Status::Failed, Some("GuardRefused: the plan deletes 40 of 100 rows"));
    let english = page(&report).html();
    assert!(english.contains("<html lang=\"en\">") && english.contains("What to do next"));
    assert!(english.contains("look with <code>okki-sync plan</code>; if it is right"), "{english}");
    let chinese = RunPage { lang: Lang::Zh, ..page(&report) }.html();
    assert!(chinese.contains("<html lang=\"zh-CN\">") && chinese.contains("下一步怎么办"));
    assert!(chinese.contains("用 <code>okki-sync plan</code> 查看"), "{chinese}");
}

#[test]
fn a_paused_run_says_when_to_come_back() {
    let mut report = report(Status::Paused, Some("TargetThrottled: the minute's calls are used up"));
    report.resume_after_seconds = Some(305);
    assert!(page(&report).html().contains("5 min 5 s after this one"));
    assert!(RunPage { lang: Lang::Zh, ..page(&report) }.html().contains("5 分 5 秒后"));
}

#[test]
fn values_stand_below_their_row_and_item() {
    let fields = vec![
        field("name", "\"Old\"", "\"New\""),
        field("items[50001].cost", "2999.10", "3099.00"),
        field("items[50001].name", "\"手机\"", "\"手機\""),
        FieldChange { path: "items[9].cost".to_owned(), old: None, new: None, old_unknown: true },
    ];
    let report = report(Status::Succeeded, None);
    let changes = [change("Phones", fields)];
    let html = RunPage { changes: Some(&changes), ..page(&report) }.html();
    assert!(
        html.contains("<code>items[50001]</code><ul class=\"fields\"><li><code class=\"path\">cost</code>"),
        "{html}"
    );
    assert!(html.contains("<del>2999.10</del>") && html.contains("<ins>3099.00</ins>"));
    assert!(
        html.contains("<code class=\"path\">items[9].cost</code> <span class=\"muted\">not known</span>")
    );
}

#[test]
fn what_is_not_recorded_is_said_and_not_shown_as_nothing() {
    let report = report(Status::Succeeded, None);
    let html = page(&report).html();
    assert!(
        html.contains("is not recorded in the store")
            && html.contains("to create <span class=\"count\">3</span>"),
        "{html}"
    );
    let html = RunPage { changes: Some(&[]), ..page(&report) }.html();
    assert!(html.contains("This run changed no row."));
}

#[test]
fn a_page_is_bounded_and_says_what_it_leaves_out() {
    let many: Vec<FieldChange> = (0..30).map(|n| field(&format!("items[{n}].cost"), "1", "2")).collect();
    let changes: Vec<RowChange> = (0..6_000).map(|n| change(&format!("Group {n}"), many.clone())).collect();
    let aside: Vec<Rejected> = (0..1_200)
        .map(|n| Rejected::new(RowKind::Group, None, Reason::misfit(format!("why {n}")), "{}"))
        .collect();
    let mut report = report(Status::Partial, None);
    report.quarantined = 1_200;
    let page = RunPage { changes: Some(&changes), set_aside: &aside, ..page(&report) };
    let html = page.html();
    assert!(html.len() < 10_000_000, "{}", html.len());
    assert!(html.contains("and 1,000 more, which this page") && html.contains("and 200 more, which are in"));
}

/// A page's part from one text on up to another one.
fn between<'h>(html: &'h str, from: &str, to: &str) -> &'h str {
    let (_, rest) = html.split_once(from).unwrap();
    rest.split_once(to).unwrap().0
}

#[test]
fn rows_beyond_a_tree_are_lines_that_show_their_values() {
    let fields = || vec![field("name", HOSTILE, "\"New\""), field("items[9].cost", "1.50", "2")];
    let changes: Vec<RowChange> = (0..600).map(|n| change(&format!("Group {n}"), fields())).collect();
    let report = report(Status::Succeeded, None);
    let html = RunPage { changes: Some(&changes), ..page(&report) }.html();
    assert_eq!((html.matches("<ul class=\"lines\">").count(), html.matches("<del>").count()), (2, 1_000));
    let last = between(&html, "<bdi>Group 599</bdi>", "</li>");
    assert!(last.starts_with(" <span class=\"id\">7</span>\n  name  "), "{last}");
    assert!(last.contains("&lt;script&gt;") && last.ends_with("\n  items[9].cost  1.50 → 2"), "{last}");

    let many = |n: usize| (0..n).map(|n| field(&format!("items[{n}].cost"), "1", "2")).collect();
    let changes = [change("large", many(3_000)), change("next", many(60))];
    let html = RunPage { changes: Some(&changes), ..page(&report) }.html();
    assert!(
        html.contains("<code>items[2999]</code>") || html.contains("items[2999].cost"),
        "a tree, however large"
    );
    let next = between(&html, "<bdi>next</bdi>", "</li>");
    assert_eq!(next.matches(" → ").count(), 40);
    assert!(next.ends_with("\n  … and 20 more, which this page does not show"), "{next}");
}

fn timeline(source: serde_json::Value, bucket_ms: u64) -> Report {
    let mut report = report(Status::Succeeded, None);
    let timeline = serde_json::json!({"bucket_ms": bucket_ms, "source": source, "target": {"calls": [0, 2]}});
    report.timeline = Some(serde_json::from_value(timeline).unwrap());
    report
}

#[test]
fn calls_and_waits_are_drawn_over_time() {
    let source = serde_json::json!({"calls": [4, 0, 8], "throttled": [0, 0, 2], "failed": [1], "waited_ms": [0, 2000, 500]});
    let report = timeline(source, 2_000);
    let html = page(&report).html();
    let picture = between(&html, "<svg class=\"timeline\"", "</svg>");
    assert!(
        picture.contains(
            "OKKI: 12 calls, of which 1 failed and 2 were answered with the wish for a slower pace"
        )
    );
    assert!(picture.contains("waited 2.5 s.") && picture.contains("Target: 2 calls"), "{picture}");
    assert!(picture.contains("OKKI: calls in 2 s") && picture.contains(">1 min</text>"), "{picture}");
    let bars = |class: &str| {
        let path = format!("<path class=\"{class}\" d=\"");
        picture
            .split(&path)
            .skip(1)
            .map(|d| d.split('"').next().unwrap().matches('M').count())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (bars("first"), bars("repeat"), bars("throttled"), bars("wait")),
        (vec![2, 1], vec![1], vec![1], vec![2])
    );
    assert!(
        !html.contains("svg class=\"calls\"") && !html.contains("span class=\"key repeat\"></span>repeats")
    );
    let chinese = RunPage { lang: Lang::Zh, ..page(&report) }.html();
    assert!(chinese.contains("OKKI：每 2 秒的调用") && chinese.contains("等待 2.5 秒。"), "{chinese}");
}

#[test]
fn a_report_without_times_is_a_picture_of_counts() {
    let report = report(Status::Succeeded, None);
    let html = page(&report).html();
    assert!(html.contains("<svg class=\"calls\"") && !html.contains("<svg class=\"timeline\""));
    assert!(html.contains("counts calls and does not say when each one was made"));
}

#[test]
fn a_timeline_of_any_numbers_is_drawn_within_its_bounds() {
    let most = u64::MAX;
    for (source, bucket_ms) in [
        (
            serde_json::json!({"calls": vec![most; 10_000], "throttled": [most], "failed": [most], "waited_ms": [most]}),
            0,
        ),
        (serde_json::json!({"calls": [], "throttled": [9]}), most),
        (serde_json::json!({}), 125),
    ] {
        let html = page(&timeline(source, bucket_ms)).html();
        let picture = between(&html, "<svg class=\"timeline\"", "</svg>");
        assert!(!picture.contains("NaN") && !picture.contains("inf") && picture.len() < 20_000, "{picture}");
        assert!(html.matches("<tr>").count() < 200);
    }
}
