//! A run as a page: what `report --html` writes, and what `report.html = true` leaves in the store.
//!
//! The last test writes sample pages for the tests in a browser, which `make browser` runs after it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::{Attribute, ObjectStore as _, ObjectStoreExt as _};
use okki_sync::testing::catalogue::{Reason, Rejected, RowKind};
use okki_sync::testing::page::{Lang, RunPage};
use okki_sync::testing::report::{Report, Status};
use okki_sync::testing::store::Store;
use okki_sync::testing::sync::{ChangeAction, FieldChange, Json, RowChange};
use okki_sync_sandbox::faults::{Endpoint, FaultKind};

use crate::support::{World, env, qeasy, small};

const LATEST: &str = "reports/it/latest.html";

fn with_page() -> String {
    qeasy("groups-with-items", "") + "[report]\nhtml = true\n"
}

#[tokio::test(start_paused = true)]
async fn a_sync_leaves_its_page_where_the_pipeline_asks_for_it() {
    let silent = World::new(small(), qeasy("groups-with-items", ""));
    silent.sync_well().await;
    assert_eq!(silent.stored(LATEST).await, None, "off by default");
    let world = World::new(small(), with_page());
    let run_id = world.sync_well().await.report.run_id;
    let page = world.stored(LATEST).await.unwrap();
    assert!(page.contains("<html lang=\"en\">") && page.contains(&run_id), "{page}");
    world.plan().await;
    assert_eq!(world.stored(LATEST).await.unwrap(), page, "a plan leaves none");
    let next = world.sync_well().await.report.run_id;
    let page = world.stored(LATEST).await.unwrap();
    assert!(page.contains(&next), "the page is the last run's");
    assert_eq!(page.matches("<text class=\"sign\"").count(), 2, "both runs are in the strip");
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_failed_run_advises_in_the_language_of_the_environment() {
    let world = World::new(small(), with_page()).again(env().with("OKKI_SYNC_LANG", "zh"));
    world.fault(Endpoint::OkkiGroups, FaultKind::Status(500), 99, 0);
    let outcome = world.sync().await;
    assert_eq!(outcome.report.status, Status::Failed, "{:?}", outcome.report);
    let page = world.stored(LATEST).await.unwrap();
    assert!(page.contains("<html lang=\"zh-CN\">") && page.contains("SourceUnavailable"), "{page}");
    assert!(page.contains("检查 OKKI；下次运行会再试"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_the_rows_that_were_set_aside() {
    let world = World::new(small(), with_page());
    world.sandbox.edit(|catalogue| {
        catalogue.groups[3].name = String::new();
        catalogue.groups[3].description = "<img src=x onerror=alert(1)>".to_owned();
    });
    let outcome = world.sync().await;
    assert!(outcome.report.quarantined > 0, "{:?}", outcome.report);
    let page = world.stored(LATEST).await.unwrap();
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;") && !page.contains("<img"), "{page}");
}

#[tokio::test(start_paused = true)]
async fn a_run_keeps_when_it_called_and_waited_and_its_page_draws_it() {
    let world = World::new(small(), with_page());
    world.fault(Endpoint::OkkiGroups, FaultKind::Throttle { retry_after_seconds: Some(20) }, 1, 0);
    world.fault(Endpoint::QeasyStore, FaultKind::Status(503), 1, 0);
    let report = world.sync_well().await.report;
    let timeline = report.timeline.clone().unwrap();
    for (times, requests, throttled) in [
        (&timeline.source, report.source.requests, report.source.throttled),
        (&timeline.target, report.target.requests, report.target.throttled),
    ] {
        assert_eq!(times.calls.iter().sum::<u64>(), requests, "{timeline:?}");
        assert_eq!(times.throttled.iter().sum::<u64>(), throttled, "{timeline:?}");
        assert!(times.waited_ms.len() <= 60 && times.calls.len() <= 60, "{timeline:?}");
    }
    assert!(timeline.source.waited_ms.iter().sum::<u64>() >= 20_000, "{timeline:?}");
    assert_eq!(
        (timeline.source.failed.len(), timeline.target.failed.iter().sum::<u64>()),
        (0, 1),
        "{timeline:?}"
    );
    assert!(timeline.bucket_ms * 60 >= report.duration_ms, "the whole run fits: {timeline:?}");

    let path = format!("reports/it/{}.json", report.run_id);
    let stored = world.stored(&path).await.unwrap();
    assert_eq!(serde_json::from_str::<Report>(&stored).unwrap(), report);
    let line = stored.lines().find(|line| line.contains("\"timeline\"")).unwrap();
    assert!(line.contains("\"calls\":[") && stored.len() < 2_000, "{stored}");
    let page = world.stored(LATEST).await.unwrap();
    assert!(
        page.contains("<svg class=\"timeline\"") && page.contains("and 1 were answered with the wish"),
        "{page}"
    );
    assert_eq!(world.plan().await.report.timeline, None, "a plan is kept nowhere");
}

#[tokio::test(start_paused = true)]
async fn a_page_goes_to_an_object_store_as_html() {
    let objects = Arc::new(InMemory::new());
    let world = World::new(small(), with_page());
    let world = world.again_on(Store::of(objects.clone(), "memory:"));
    world.sync_well().await;
    let found = objects.get(&LATEST.into()).await.unwrap();
    let kind = found.attributes.get(&Attribute::ContentType).map(AsRef::as_ref);
    assert_eq!(kind, Some("text/html; charset=utf-8"));
    drop(objects.list(None));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_kept_changes_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join(LATEST).join("in the way")).unwrap();
    let store = Store::directory(directory.path().to_owned()).unwrap();
    let world = World::new(small(), with_page()).again_on(store);
    world.sync_well().await;
    world.assert_complete();
}

/// A directory with a pipeline and a store in which a real sync has left a report.
fn desk() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = "connection = \"acme\"\n[target]\nkind = \"qeasy\"\nscheme_id = \"s\"\n";
    std::fs::write(directory.path().join("pipeline.toml"), pipeline).unwrap();
    let sync = ["sync", "--sandbox", "--dirty", "--groups", "12", "--products", "60", "--json"];
    let output = okki_sync(directory.path(), &[&sync[..], &["--pipeline", "pipeline.toml"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    directory
}

fn okki_sync(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let store = format!("file://{}", directory.join("store").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.args(arguments).current_dir(directory).env_clear().env("OKKI_SYNC_STORE", store);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn report_writes_the_last_run_as_a_page_in_either_language() {
    let desk = desk();
    let output = okki_sync(desk.path(), &["report", "--html", "run.html"], &[]);
    assert_eq!(said(&output), (Some(0), String::new()));
    let english = std::fs::read_to_string(desk.path().join("run.html")).unwrap();
    assert!(english.contains("<html lang=\"en\">") && english.contains("done in part"), "{english}");
    for variable in [("OKKI_SYNC_LANG", "zh"), ("LANG", "zh_CN.UTF-8")] {
        let json = okki_sync(desk.path(), &["report", "--html", "run.html", "--json"], &[variable]);
        let report: Report = serde_json::from_slice(&json.stdout).unwrap();
        let chinese = std::fs::read_to_string(desk.path().join("run.html")).unwrap();
        assert!(chinese.contains("<html lang=\"zh-CN\">") && chinese.contains(&report.run_id), "{chinese}");
    }
    assert_eq!(std::fs::read_dir(desk.path()).unwrap().count(), 3, "no part of a file is left behind");
    let shown = okki_sync(desk.path(), &["report"], &[]);
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("sync partial · connection acme"));
}

#[test]
fn a_run_that_is_gone_is_an_error_that_names_the_newest_ones() {
    let desk = desk();
    let last = okki_sync(desk.path(), &["report", "--json"], &[]);
    let last: Report = serde_json::from_slice(&last.stdout).unwrap();
    for gone in ["20200101T000000000Z-00000000", "../../etc/passwd", "yesterday"] {
        let (code, error) = said(&okki_sync(desk.path(), &["report", gone, "--html", "x.html"], &[]));
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(&format!("the newest runs are {}", last.run_id)), "{error}");
    }
    let (code, error) = said(&okki_sync(desk.path(), &["report", "--html", "no/such/x.html"], &[]));
    assert_eq!(code, Some(2));
    assert!(error.contains("there is no directory no/such"), "{error}");
    std::fs::remove_dir_all(desk.path().join("store/reports")).unwrap();
    let (code, error) = said(&okki_sync(desk.path(), &["report"], &[]));
    assert_eq!(code, Some(2));
    assert!(error.contains("holds no report of connection acme"), "{error}");
    assert!(!desk.path().join("x.html").exists());
}

/// When a run of 62 s called.
fn timeline() -> serde_json::Value {
    let calls: Vec<u64> = (0..56).map(|n| if n < 50 { 5 } else { 0 }).collect();
    let waited: Vec<u64> = (0..56).map(|n| if n % 7 < 4 { 1_000 } else { 250 }).collect();
    let (written, lost) = ([vec![0; 50], vec![3, 3, 3, 2, 1]].concat(), [vec![0; 53], vec![1]].concat());
    serde_json::json!({
        "bucket_ms": 1_000,
        "source": {"calls": calls, "throttled": [0, 1, 0, 2], "failed": [0, 0, 3, 4, 2], "waited_ms": waited},
        "target": {"calls": written, "failed": lost},
    })
}

/// A failed run with everything that a page can show.
fn sample(status: &str, error: Option<&str>) -> Report {
    serde_json::from_value(serde_json::json!({
        "run_id": "20261124T184316080Z-0dd1ac67", "connection": "acme", "mode": "sync", "status": status,
        "started_at": "2026-11-24T18:43:16.080Z", "duration_ms": 62_403,
        "source": {"groups": 5000, "products": 20_000, "requests": 245, "retries": 12, "throttled": 3, "full_read": true},
        "plan": {"create": 1000, "update": 3900, "delete": 100, "unchanged": 1_234},
        "target": {"written": 4_900, "deleted": 100, "batches": 10, "requests": 12, "retries": 1, "throttled": 0},
        "quarantined": 2, "remaining": 0, "resume_after_seconds": null, "error": error,
        "timeline": timeline(),
    }))
    .unwrap()
}

fn changes(groups: usize) -> Vec<RowChange> {
    let change = |n: usize| {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let field = |path: String, old: Option<&str>, new: &str| FieldChange {
            path,
            old: old.and_then(Json::parse),
            new: Json::parse(new),
            old_unknown: false,
        };
        let former = text("Old <b>name</b>");
        let (action, old) = match n % 50 {
            0 => (ChangeAction::Delete, Some(former.as_str())),
            1..=10 => (ChangeAction::Create, None),
            _ => (ChangeAction::Update, Some(former.as_str())),
        };
        let cost = |at: usize| field(format!("items[{at}].cost"), Some("2999.10"), "3099.00");
        RowChange {
            id: (5_203_320_130 + n).to_string(),
            name: if n == 20 {
                "<script>document.title='owned'</script>".into()
            } else {
                format!("户外照明 Outdoor {n}")
            },
            action,
            fields: vec![
                field("name".into(), old, &text("New name")),
                cost(50_001),
                FieldChange { old_unknown: true, ..field("items[50001].name".into(), None, &text("手机")) },
                cost(50_002),
            ],
        }
    };
    (0..groups).map(change).collect()
}

#[test]
fn sample_pages_are_written_for_the_browser() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).unwrap();
    let aside = [
        Rejected::new(
            RowKind::Group,
            Some("5903320002".into()),
            Reason::misfit("parent 5999999999 does not exist"),
            r#"{"id":5903320002,"name":"<script>alert(1)</script>"}"#,
        ),
        Rejected::new(
            RowKind::Product,
            None,
            Reason::misfit("no id"),
            &format!("{{\"name\":\"{}\"}}", "长".repeat(3_000)),
        ),
    ];
    let failed =
        sample("failed", Some("TargetUnavailable: https://api.qeasy.cloud: no answer after 6 attempts"));
    let partial = sample("partial", None);
    let before = |n: usize| {
        let status = ["partial", "succeeded", "paused", "failed"][n % 4];
        let mut run = sample(status, (status == "failed").then_some("Busy: another run goes on"));
        if n > 0 {
            run.run_id = format!("20261124T1843{n:02}080Z-0dd1ac67");
            run.duration_ms = 1_000 * (n as u64 * 7 % 60);
        }
        run
    };
    let recent: Vec<Report> = (0..30).map(before).collect();
    let (few, many) = (changes(60), changes(5_000));
    for (name, report, changes) in [
        ("failed", &failed, None),
        ("partial", &partial, Some(few.as_slice())),
        ("large", &partial, Some(many.as_slice())),
    ] {
        for lang in Lang::ALL {
            let page = RunPage { lang, report, changes, set_aside: &aside, recent: &recent };
            let html = page.html();
            assert!(!html.contains("<script") && html.len() < 10_000_000, "{name}: {}", html.len());
            std::fs::write(folder.join(format!("{name}.{}.html", lang.tag())), html).unwrap();
        }
    }
}
