//! `preview`: rows of the source beside the rows that the pipeline makes of them, and a test of a mapping.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use okki_sync::app::{App, PipelineSource, PreviewRequest};
use okki_sync::testing::config::Env;
use okki_sync::testing::error::ErrorKind;
use serde_json::Value;

use crate::support::{World, http, qeasy, small};

fn from(world: &World) -> PipelineSource {
    PipelineSource::Text { name: "t.toml".to_owned(), text: world.text.clone() }
}

fn first(limit: usize) -> PreviewRequest {
    PreviewRequest { limit, ..PreviewRequest::default() }
}

fn of_ids(ids: &[&str]) -> PreviewRequest {
    PreviewRequest { ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..first(5) }
}

#[tokio::test(start_paused = true)]
async fn a_preview_calls_the_source_a_few_times_and_keeps_nothing() {
    for (shape, calls) in [("groups", 2), ("groups-with-items", 3), ("products", 3)] {
        let world = World::new(small(), qeasy(shape, ""));
        let preview = world.app.preview(from(&world), &first(5), &|_| {}).await.unwrap();
        assert_eq!((world.source.seen().len(), world.target_calls()), (calls, 0), "{shape}");
        for path in ["state/it.state", "state/it.run", "cache/it.products"] {
            assert_eq!(world.stored(path).await, None, "{path}");
        }
        let most = if shape == "products" { 100 } else { 40 };
        assert_eq!((preview.rows.len(), preview.rejected.len()), (most, 0));
        world.sync_well().await;
        let rows = world.rows();
        for made in preview.rows.iter().filter(|_| shape != "groups-with-items") {
            assert_eq!(made.row.get(), rows[&made.id].get());
            let key = if shape == "products" { "product_id" } else { "id" };
            let source: Value = serde_json::from_str(made.source.get()).unwrap();
            assert_eq!(source[key].to_string().trim_matches('"'), made.id);
            assert!(source.get("create_user").is_some(), "the source's row is whole: {source}");
        }
        let with_items = |row: &Value| row["items"].as_array().is_some_and(|items| !items.is_empty());
        if shape == "groups-with-items" {
            let row: Value = serde_json::from_str(preview.rows[0].row.get()).unwrap();
            assert!(with_items(&row) && preview.note.is_some(), "groups with products come first");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_named_by_its_id_or_an_item_of_it_is_what_a_sync_sends() {
    for shape in ["groups", "groups-with-items", "products"] {
        let world = World::new(small(), qeasy(shape, ""));
        world.sync_well().await;
        let (calls, kept) = (world.target_calls(), world.stored("cache/it.products").await);
        let product = world.catalogue().products[7].clone();
        let id = if shape == "products" { &product.product_id } else { &product.group_id };
        // Where products are items, they stand for the row of their group.
        let named = if shape == "groups-with-items" { &product.product_id } else { id };
        let preview = world.app.preview(from(&world), &of_ids(&[named]), &|_| {}).await.unwrap();
        assert_eq!(preview.rows.len(), 1, "{shape}");
        assert_eq!(preview.rows[0].row.get(), world.rows()[id.as_str()].get());
        if shape != "groups" {
            assert!(preview.rows[0].source.get().contains(&format!("\"{}\"", product.product_id)));
        }
        let error =
            world.app.preview(from(&world), &of_ids(&[&format!("{id}9")]), &|_| {}).await.unwrap_err();
        assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::BadEvent, 2));
        assert!(
            error.to_string().contains("the nearest ids are") && error.to_string().contains(id.as_str()),
            "{error}"
        );
        assert_eq!((world.target_calls(), world.stored("cache/it.products").await), (calls, kept));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_out_of_a_text_need_no_credentials_and_no_call() {
    const SAMPLE: &str = r#"{"productGroups":[{"groupId":"123","groupName":"电子产品","products":[
        {"productId":"001","productName":"手机","price":2999},{"productId":"","productName":"x","price":1}]}]}"#;
    let app = App::new(Env::of([("OKKI_SYNC_STORE", "memory:")]));
    let text = http("groups-with-items", "");
    let pipeline = PipelineSource::Text { name: "t.toml".to_owned(), text };
    let request = PreviewRequest { from: Some((SAMPLE.to_owned(), "s.json".to_owned())), ..first(5) };
    let preview = app.preview(pipeline.clone(), &request, &|_| {}).await.unwrap();
    let row = r#"{"id":"123","name":"电子产品","items":[{"id":"001","name":"手机","cost":2999}]}"#;
    assert_eq!(preview.rows[0].row.get(), row);
    assert!(preview.rows[0].source.get().contains("\"groupName\":\"电子产品\""));
    assert_eq!(preview.rejected.len(), 1);
    assert!(preview.rejected[0].reason.contains("missing or blank"), "{}", preview.rejected[0].reason);
    let error = app.preview(pipeline, &first(5), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::MissingCredentials);
    assert!(error.to_string().contains("OKKI_CLIENT_ID"), "{error}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn preview(arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okki-sync"));
    command.arg("preview").args(arguments).current_dir(std::env::temp_dir()).env_clear().output().unwrap()
}

/// Runs the example's pair with these expected rows.
fn example(expected: &Path, more: &[&str]) -> Output {
    let (pipeline, sample) =
        (root().join("examples/own-fields.toml"), root().join("examples/own-fields/okki.json"));
    let mut arguments = vec![Path::new("--pipeline"), &pipeline, Path::new("--from"), &sample];
    arguments.extend([Path::new("--expect"), expected]);
    arguments.extend(more.iter().map(Path::new));
    preview(&arguments)
}

#[test]
fn the_mapping_of_the_example_makes_the_rows_that_its_pair_expects() {
    let output = example(&root().join("examples/own-fields/expected.json"), &["--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.trim()), (Some(0), "as expected: 2 rows"));
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let rejected: Vec<&Value> = entries.iter().filter(|entry| entry.get("rejected").is_some()).collect();
    assert_eq!((entries.len(), rejected.len()), (4, 2), "{entries:?}");
    assert_eq!(entries[0]["source"]["id"], 123);
    assert_eq!(entries[0]["row"]["goods"][1]["sku"], "9007199254740993");
    assert!(rejected.iter().any(|entry| entry["rejected"].as_str().unwrap().contains("on request")));
    assert!(rejected.iter().all(|entry| entry["source"].is_object() && entry.get("row").is_none()));
}

#[test]
fn a_difference_is_shown_by_row_and_field_and_ends_with_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("expected.json");
    let right = std::fs::read_to_string(root().join("examples/own-fields/expected.json")).unwrap();
    std::fs::write(&file, right.replace("410.50", "400").replace("\"code\": \"100\"", "\"code\": \"101\""))
        .unwrap();
    let output = example(&file, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    for line in [
        "row 101 is missing",
        "row 123",
        "  goods[1].fob: expected 400, is 410.50",
        "row 100 was not expected",
    ] {
        assert!(said.lines().any(|told| told.starts_with(line)), "{line}\n{said}");
    }
}

#[test]
fn a_malformed_file_is_one_line_with_its_place_and_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = root().join("examples/own-fields.toml");
    let file = directory.path().join("rows.json");
    for (text, words) in [
        ("{\"id\":1}\n{\"id\":", "rows.json:2:6 is not JSON"),
        ("[3]", "neither an answer nor a row"),
        ("", "holds no row of OKKI"),
        ("{\"code\":40001,\"data\":[]}", "an answer that failed, with code \"40001\""),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = preview(&[Path::new("--pipeline"), &pipeline, Path::new("--from"), &file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.starts_with("error: BadEvent: ") && said.contains(words), "{said}");
    }
    let none = directory.path().join("none.json");
    let output = preview(&[Path::new("--pipeline"), &pipeline, Path::new("--from"), &none]);
    assert_eq!(output.status.code(), Some(2));
}
