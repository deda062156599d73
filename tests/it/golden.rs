//! The document's own pairs, and own fields: what goes in, and what must come out to the digit.

use axum::Router;
use axum::extract::Request;
use okki_sync::testing::report::Status;
use serde_json::{Value, json};

use crate::support::{World, answer, http_target, pipeline, qeasy, small};

const SAMPLE: &str = r#"{"productGroups":[
  {"groupId":"123","groupName":"电子产品","products":[{"productId":"001","productName":"手机","price":2999},{"productId":"002","productName":"笔记本电脑","price":5999}]},
  {"groupId":"124","groupName":"家用电器","products":[{"productId":"003","productName":"冰箱","price":1999},{"productId":"004","productName":"洗衣机","price":2999}]}]}"#;
const SAMPLE_TARGET: &str = r#"{"groups":[
  {"id":"123","name":"电子产品","items":[{"id":"001","name":"手机","cost":2999},{"id":"002","name":"笔记本电脑","cost":5999}]},
  {"id":"124","name":"家用电器","items":[{"id":"003","name":"冰箱","cost":1999},{"id":"004","name":"洗衣机","cost":2999}]}]}"#;
const TWO_GROUPS: &str = r#"[{"id":123,"parent_id":0,"name":"Group A","layer":1},{"id":456,"parent_id":123,"name":"Group B","layer":2}]"#;

/// A source that answers these groups, and these products two a page.
fn source(groups: &'static str, products: &'static [&'static str]) -> Router {
    Router::new().fallback(move |request: Request| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        match request.uri().path() {
            "/v1/oauth2/access_token" => {
                answer(r#"{"token_type":"Bearer","expires_in":28800,"access_token":"golden-token"}"#)
            }
            "/v1/product/groups" if groups.starts_with('[') => answer(format!(
                r#"{{"code":200,"message":"ok","now":"2026-11-23 10:00:00","data":{groups}}}"#
            )),
            "/v1/product/groups" => answer(groups),
            "/v1/product/list" => {
                let page: usize = url::form_urlencoded::parse(query.as_bytes())
                    .find(|(key, _)| key == "start_index")
                    .map(|(_, value)| value.parse().unwrap())
                    .unwrap();
                let rows: Vec<&str> = products.iter().skip((page - 1) * 2).take(2).copied().collect();
                let (total, rows) = (products.len(), rows.join(","));
                answer(format!(r#"{{"code":200,"message":"ok","data":{{"count":{total},"list":[{rows}]}}}}"#))
            }
            path => panic!("unexpected call of {path}"),
        }
    })
}

fn as_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_documents_first_pair_goes_out_as_a_bare_list_of_groups() {
    let world = World::fed_by(source(TWO_GROUPS, &[]), pipeline("shape = \"groups\"", &http_target("")));
    let outcome = world.sync_well().await;
    let bodies = world.target.bodies("/v1/productGroups/batchInsert");
    assert_eq!(
        bodies,
        [
            r#"[{"productGroupId":"123","productName":"Group A"},{"productGroupId":"456","productName":"Group B"}]"#
        ]
    );
    assert_eq!(outcome.report.target.written, 2);
    assert_eq!((outcome.report.source.groups, outcome.report.source.products), (2, 0));
    assert!(
        world.source.seen().iter().all(|seen| !seen.uri.contains("/product/list")),
        "no product is needed"
    );
}

#[tokio::test(start_paused = true)]
async fn the_documents_second_pair_is_a_join_of_flat_groups_and_product_pages() {
    let groups = r#"[{"id":123,"parent_id":0,"name":"电子产品"},{"id":124,"parent_id":0,"name":"家用电器"}]"#;
    let products = &[
        r#"{"product_id":"001","name":"手机","group_id":123,"cost":2999,"enable_flag":1}"#,
        r#"{"product_id":"003","name":"冰箱","group_id":124,"cost":1999,"enable_flag":1}"#,
        r#"{"product_id":"002","name":"笔记本电脑","group_id":123,"cost":5999,"enable_flag":1}"#,
        r#"{"product_id":"004","name":"洗衣机","group_id":124,"cost":2999,"enable_flag":1}"#,
    ];
    let text = pipeline("shape = \"groups-with-items\"", &http_target("wrap = \"groups\""))
        .replace("[record]", "page_size = 2\n[record]");
    let world = World::fed_by(source(groups, products), text);
    let outcome = world.sync_well().await;
    let bodies = world.target.bodies("/v1/productGroups/batchInsert");
    assert_eq!(bodies.len(), 1);
    assert_eq!(as_value(&bodies[0]), as_value(SAMPLE_TARGET));
    assert_eq!((outcome.report.source.groups, outcome.report.source.products), (2, 4));
    assert_eq!(outcome.report.plan.create, 2);
}

#[tokio::test(start_paused = true)]
async fn the_documents_sample_body_itself_is_taken_from_the_groups_endpoint() {
    let text = pipeline("shape = \"groups-with-items\"", &http_target("wrap = \"groups\""));
    let world = World::fed_by(source(SAMPLE, &[]), text);
    let outcome = world.sync_well().await;
    let bodies = world.target.bodies("/v1/productGroups/batchInsert");
    assert_eq!(bodies.len(), 1);
    assert_eq!(as_value(&bodies[0]), as_value(SAMPLE_TARGET));
    assert!(bodies[0].contains(r#""name":"手机","cost":2999}"#));
    assert_eq!((outcome.report.source.groups, outcome.report.source.products), (2, 4));
    assert_eq!(world.sync_well().await.report.plan.unchanged, 2);
}

#[tokio::test(start_paused = true)]
async fn digits_leave_as_they_came_and_large_ids_stay_exact() {
    let groups = r#"[{"id":9007199254740993,"parent_id":0,"name":"大 \"id\" \\ \u4e2d"},{"id":"0012","parent_id":"0","name":"text id"}]"#;
    let products = &[
        r#"{"product_id":9007199254740995,"name":"a","group_id":9007199254740993,"cost":2999.10}"#,
        r#"{"product_id":"007","name":"b","group_id":"9007199254740993","cost":"0.0350"}"#,
        r#"{"product_id":12,"name":"c","group_id":"0012","cost":2999}"#,
        r#"{"product_id":13,"name":"d","group_id":"0012","cost":null}"#,
        r#"{"product_id":14,"name":"e","group_id":"0012","cost":12345678901234567890.1234567890}"#,
    ];
    let world = World::fed_by(
        source(groups, products),
        pipeline("shape = \"groups-with-items\"", &http_target(""))
            .replace("[record]", "page_size = 2\n[record]"),
    );
    world.sync_well().await;
    let rows = world.sandbox.http_rows();
    let big = rows["9007199254740993"].get();
    assert!(big.starts_with(r#"{"id":"9007199254740993","name":"#), "{big}");
    assert_eq!(as_value(big)["name"], "大 \"id\" \\ 中");
    assert!(big.contains(r#"{"id":"9007199254740995","name":"a","cost":2999.10}"#), "{big}");
    assert!(big.contains(r#"{"id":"007","name":"b","cost":0.0350}"#), "{big}");
    let other = rows["0012"].get();
    assert!(other.contains(r#""cost":2999}"#) && other.contains(r#""cost":null}"#), "{other}");
    assert!(other.contains(r#""cost":12345678901234567890.1234567890}"#), "{other}");
}

#[tokio::test(start_paused = true)]
async fn own_fields_take_types_defaults_lists_paths_and_layers() {
    let record = r#"
[record.fields]
productGroupId = "id"
productName = "{{name}}"
parent = { from = "parent_id", as = "string" }
level = "layer"
where = "path"
note = { from = "description", default = "none" }
extra = "raw.colour"
label = "name_info.info_label"
items = { each = "products", fields = { id = "product_id", name = "name", cost = { from = "cost", as = "number", default = 0 }, min = "fob.price_min", on = { from = "enable_flag", as = "boolean" }, kind = { from = "product_type", as = "integer" }, of = "group.path" } }
"#;
    let groups = r#"[{"id":5,"parent_id":0,"name":"LED","description":null,"raw":1},
        {"id":6,"parent_id":5,"name":"户外","description":"d","colour":{"r":1.50},"name_info":{"info_label":"L","info_value":"V"}}]"#;
    let products = &[
        r#"{"product_id":1,"name":"x","group_id":6,"cost":null,"fob":{"price_min":1.10},"enable_flag":1,"product_type":"2"}"#,
        r#"{"product_id":2,"name":"y","group_id":6,"cost":"7.50","enable_flag":1,"product_type":3.00}"#,
    ];
    let world = World::fed_by(source(groups, products), pipeline(record, &http_target("")));
    world.sync_well().await;
    let rows = world.sandbox.http_rows();
    assert_eq!(
        as_value(rows["5"].get()),
        json!({"productGroupId": "5", "productName": "LED", "parent": "0", "level": 1, "where": "LED", "note": "none",
               "extra": null, "label": null, "items": []})
    );
    assert_eq!(
        as_value(rows["6"].get()),
        json!({"productGroupId": "6", "productName": "户外", "parent": "5", "level": 2, "where": "LED/户外", "note": "d",
               "extra": {"r": 1.5}, "label": "L",
               "items": [{"id": "1", "name": "x", "cost": 0, "min": 1.1, "on": true, "kind": 2, "of": "LED/户外"},
                         {"id": "2", "name": "y", "cost": 7.5, "min": null, "on": true, "kind": 3, "of": "LED/户外"}]})
    );
    let raw = rows["6"].get();
    assert!(raw.contains(r#""cost":7.50"#) && raw.contains(r#""min":1.10"#) && raw.contains("1.50"), "{raw}");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_does_not_fit_is_quarantined_and_its_neighbours_go_on() {
    let groups = r#"[{"id":5,"parent_id":0,"name":"LED"}]"#;
    let products = &[
        r#"{"product_id":1,"name":"x","group_id":5,"cost":"on request"}"#,
        r#"{"product_id":2,"name":"y","group_id":5,"cost":7.50}"#,
    ];
    let world =
        World::fed_by(source(groups, products), pipeline("shape = \"groups-with-items\"", &http_target("")));
    let outcome = world.sync().await;
    assert_eq!((outcome.report.status, outcome.report.quarantined), (Status::Partial, 1));
    assert!(outcome.rejected[0].reason.contains("on request"), "{}", outcome.rejected[0].reason);
    assert_eq!(outcome.rejected[0].id.as_deref(), Some("1"));
    assert_eq!(
        world.sandbox.http_rows()["5"].get(),
        r#"{"id":"5","name":"LED","items":[{"id":"2","name":"y","cost":7.50}]}"#
    );
}

#[tokio::test(start_paused = true)]
async fn the_products_shape_writes_one_row_per_product_with_its_group() {
    let world = World::new(small(), qeasy("products", ""));
    let outcome = world.sync_well().await;
    assert_eq!((outcome.report.plan.create, outcome.report.target.written), (300, 300));
    world.assert_complete();
    assert_eq!(world.rows().len(), 300);
}

#[tokio::test(start_paused = true)]
async fn every_group_arrives_byte_for_byte_in_the_other_shapes_and_wrappers() {
    for text in [
        qeasy("groups", ""),
        qeasy("groups-with-items", "token_in = \"query\""),
        crate::support::http("groups", "wrap = \"content\"\nsuccess = { \"/code\" = 0 }"),
        crate::support::http("groups-with-items", "wrap = \"groups\""),
        crate::support::http("products", ""),
    ] {
        let world = World::new(small(), text);
        world.sync_well().await;
        world.assert_complete();
        assert_eq!(world.verify().await.report.status, Status::Succeeded);
    }
}
