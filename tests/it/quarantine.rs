//! The quarantine for people: what is in it, since when, and what can be done about it.

use okki_sync::app::PipelineSource;
use okki_sync::testing::catalogue::{ReasonKind, RowKind};
use okki_sync::testing::error::ErrorKind;
use okki_sync::testing::report::Status;
use okki_sync::testing::sync::Extras;
use okki_sync_sandbox::Options;
use okki_sync_sandbox::faults::{Endpoint, FaultKind};

use crate::support::{World, qeasy, small};

fn from(world: &World) -> PipelineSource {
    PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() }
}

fn words(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// A world whose target refuses this product, so often.
fn refusing(times: u32) -> (World, String) {
    let world = World::new(small(), qeasy("products", ""));
    let id = world.catalogue().products[3].product_id.clone();
    world.fault(Endpoint::QeasyStore, FaultKind::PartlyFailed(vec![id.clone()]), times, 0);
    (world, id)
}

#[tokio::test(start_paused = true)]
async fn the_list_has_every_offender_with_its_kind_since_when_and_how_often() {
    let world = World::new(Options { dirty: true, ..small() }, qeasy("products", ""));
    assert!(world.app.quarantine(from(&world)).await.unwrap().is_empty());
    let first = world.sync().await;
    world.wind(3_600).await;
    world.sandbox.edit(|catalogue| catalogue.products[9].name = " ".to_owned());
    let late = world.catalogue().products[9].product_id.clone();
    world.sandbox.update(&late, |product| product.name = "  ".to_owned());
    let second = world.sync().await;
    let list = world.app.quarantine(from(&world)).await.unwrap();
    assert_eq!(list.len() as u64, second.report.quarantined);
    assert_eq!(second.report.quarantined, first.report.quarantined + 1);
    for row in &list {
        let is_late = row.row.id.as_deref() == Some(&late);
        let (run, tries) = if is_late { (&second, 1) } else { (&first, 2) };
        assert_eq!((row.since.as_ref(), row.tries, row.next_try), (Some(&run.report.started_at), tries, 1));
        assert!(!row.row.dismissed && row.row.reason_kind != ReasonKind::Other, "{row:?}");
    }
    let mut kinds: Vec<&str> = list.iter().map(|row| row.row.reason_kind.as_str()).collect();
    kinds.sort_unstable();
    let counts = &second.report.quarantined_by_kind;
    assert_eq!(counts.values().sum::<u64>(), second.report.quarantined);
    for (kind, count) in counts {
        assert_eq!(kinds.iter().filter(|other| *other == kind).count() as u64, *count, "{kind}");
    }
    for kind in ["missing_id", "missing_name", "repeated_id", "unknown_parent", "cycle", "unknown_group"] {
        assert!(counts.contains_key(kind), "{kind}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_row_says_its_next_try_and_retry_puts_it_into_the_next_run() {
    let (world, id) = refusing(4);
    for _ in 0..4 {
        world.sync().await;
    }
    // Sent in runs 1, 2 and 4; the next turn is in four runs.
    let list = world.app.quarantine(from(&world)).await.unwrap();
    assert_eq!(list.len(), 1);
    let row = &list[0];
    assert_eq!((row.row.id.as_deref(), row.row.kind), (Some(id.as_str()), RowKind::Record));
    assert_eq!((row.row.reason_kind, row.tries, row.next_try), (ReasonKind::Refused, 3, 4));
    assert!(row.row.raw.get().contains(&id) && row.row.reason.starts_with("refused by the target: "));
    world.sandbox.clear_faults();
    assert_eq!(world.sync().await.report.target.requests, 0, "its turn has not come");
    let (lease, calls) = (world.stored("state/it.run").await, world.target_calls());
    let changed = world.app.retry_quarantined(from(&world), &words(&[&id])).await.unwrap();
    assert_eq!((changed.len(), changed[0].next_try), (1, 1));
    assert_eq!((world.stored("state/it.run").await, world.target_calls()), (lease, calls));
    let sent = world.sync_well().await;
    assert_eq!(sent.report.target.written, 1);
    assert!(world.app.quarantine(from(&world)).await.unwrap().is_empty());
    world.assert_complete();
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_row_does_not_count_until_its_content_changes() {
    let world = World::new(small(), qeasy("products", ""));
    let id = world.catalogue().products[3].product_id.clone();
    world.sandbox.edit(|catalogue| catalogue.products[3].name = " ".to_owned());
    assert_eq!(world.sync().await.report.status, Status::Partial);
    let dismissed = world.app.dismiss_quarantined(from(&world), &words(&[&id])).await.unwrap();
    assert_eq!(dismissed.len(), 1);
    assert!(world.state().await.unwrap().contains("\"version\":5,"));
    for _ in 0..2 {
        let silent = world.sync().await;
        assert_eq!((silent.report.status, silent.report.quarantined), (Status::Succeeded, 0));
        assert_eq!((silent.report.dismissed, silent.report.quarantined_by_kind.len()), (1, 0));
        assert!(world.quarantine(&silent).await[0]["dismissed"] == true);
        assert_eq!(world.plan().await.report.status, Status::Succeeded);
        assert_eq!(world.verify().await.report.quarantined, 0);
        let list = world.app.quarantine(from(&world)).await.unwrap();
        assert_eq!((list.len(), list[0].row.dismissed), (1, true));
    }
    world.app.rebuild_state(from(&world), Extras::Leave, &|_| {}).await.unwrap();
    assert_eq!(world.sync_well().await.report.dismissed, 1, "a rebuild forgets no dismissal");
    world.wind(3_600).await;
    world.sandbox.update(&id, |product| product.group_id = "999".to_owned());
    let changed = world.sync().await;
    assert_eq!((changed.report.status, changed.report.quarantined), (Status::Partial, 1));
    assert!(world.state().await.unwrap().contains("\"version\":3,"), "what is over is forgotten");
    assert!(!world.app.quarantine(from(&world)).await.unwrap()[0].row.dismissed);
}

#[tokio::test(start_paused = true)]
async fn a_dismissed_refusal_is_still_tried_and_retry_lets_it_count_again() {
    let (world, id) = refusing(30);
    world.sync().await;
    world.app.dismiss_quarantined(from(&world), &words(&[&id])).await.unwrap();
    let (mut requests, mut statuses) = (0, Vec::new());
    for _ in 0..4 {
        let silent = world.sync().await;
        requests += silent.report.target.requests;
        statuses.push((silent.report.status, silent.report.quarantined));
    }
    assert_eq!(statuses, [(Status::Succeeded, 0); 4]);
    assert!(requests > 0, "it is sent when its turn comes");
    world.app.retry_quarantined(from(&world), &words(&[&id])).await.unwrap();
    let loud = world.sync().await;
    assert_eq!((loud.report.status, loud.report.quarantined), (Status::Partial, 1));
    assert!(loud.report.target.requests > 0);
}

#[tokio::test(start_paused = true)]
async fn a_row_without_an_id_goes_by_its_handle_and_an_unknown_one_is_named() {
    let world = World::new(Options { dirty: true, ..small() }, qeasy("products", ""));
    world.sync().await;
    let list = world.app.quarantine(from(&world)).await.unwrap();
    let nameless = list.iter().find(|row| row.row.id.is_none()).unwrap().handle();
    let known = list.iter().find_map(|row| row.row.id.clone()).unwrap();
    assert!(nameless.starts_with('~') && nameless.len() == 9, "{nameless}");
    let state = world.state().await;
    let typed = format!("{known}0");
    let error = world.app.dismiss_quarantined(from(&world), &words(&[&nameless, &typed])).await.unwrap_err();
    assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::BadEvent, 2));
    assert!(
        error.to_string().contains(&format!("no row in the quarantine has the id \"{typed}\"")),
        "{error}"
    );
    assert!(error.to_string().contains(&known), "{error}");
    assert_eq!(world.state().await, state, "all or nothing");
    world.app.dismiss_quarantined(from(&world), &words(&[&nameless])).await.unwrap();
    assert_eq!(world.sync().await.report.dismissed, 1);
}

#[tokio::test(start_paused = true)]
async fn lines_of_an_older_program_have_no_kind_and_stay_readable() {
    let (world, _) = refusing(2);
    let outcome = world.sync().await;
    // As version 0.1.0 wrote it.
    let path = format!("quarantine/it/{}.jsonl", outcome.report.run_id);
    let old = world.stored(&path).await.unwrap().replace("\"reason_kind\":\"refused\",", "");
    assert!(!old.contains("reason_kind"));
    world.app.store().await.unwrap().put(&path, old).await.unwrap();
    let list = world.app.quarantine(from(&world)).await.unwrap();
    assert_eq!((list.len(), list[0].row.reason_kind), (1, ReasonKind::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_on_is_not_disturbed_by_a_change_of_the_quarantine() {
    let (world, id) = refusing(2);
    world.sync().await;
    world.sandbox.set_options(|options| options.latency = std::time::Duration::from_secs(2));
    let (going_on, refused) = tokio::join!(world.sync(), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        world.app.dismiss_quarantined(from(&world), &words(&[&id])).await
    });
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Busy);
    assert!(going_on.error.is_none(), "{:?}", going_on.report);
}

#[test]
fn the_commands_need_no_credentials_and_print_what_the_contract_says() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = "connection = \"acme\"\n[record]\nshape = \"products\"\n[target]\nkind = \"qeasy\"\nscheme_id = \"s\"\n";
    std::fs::write(directory.path().join("acme.toml"), pipeline).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_okki-sync"));
        let store = format!("file://{}/store", directory.path().display());
        command.args(arguments).args(["--pipeline", "acme.toml"]).current_dir(directory.path());
        command.env_clear().env("OKKI_SYNC_STORE", store).output().unwrap()
    };
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let output = run(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert!(json(&["quarantine", "list"]).is_empty());
    let synced = run(&["sync", "--sandbox", "--groups", "12", "--products", "40", "--dirty"]);
    assert_eq!(synced.status.code(), Some(3));
    let list = json(&["quarantine", "list"]);
    assert_eq!(list.len(), 9);
    let row = list.iter().find(|row| row["kind"] == "missing_name" && row["id"].is_string()).unwrap();
    let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "kind", "reason", "raw", "since", "tries", "next_try", "dismissed"]);
    let nameless = list.iter().find(|row| row["id"].is_null()).unwrap();
    assert!(nameless["handle"].as_str().unwrap().starts_with('~'));
    let id = row["id"].as_str().unwrap();
    assert_eq!(json(&["quarantine", "dismiss", id])[0]["dismissed"], true);
    let shown = json(&["quarantine", "show", id]);
    assert_eq!((shown.len(), &shown[0]["dismissed"], &shown[0]["raw"]), (1, &true.into(), &row["raw"]));
    let text = String::from_utf8(run(&["quarantine", "list"]).stdout).unwrap();
    assert!(text.contains(&format!("{id} (dismissed) · missing_name")), "{text}");
    assert!(text.ends_with("9 rows, 1 of them dismissed\n"), "{text}");
    let unknown = run(&["quarantine", "retry", &format!("{id}1")]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!((unknown.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("error: BadEvent: no row in the quarantine") && said.contains(id), "{said}");
}
