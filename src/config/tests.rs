//! Every mistake a pipeline file can hold, with its message.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::{Map, json};

use super::types::{Products, SourceKeys};
use super::*;
use crate::targets::{TokenIn, Wrap};
use crate::words::Lang;

const QEASY: &str = "[target]\nkind = \"qeasy\"\nscheme_id = \"s\"\n";
const HTTP: &str = "[target]\nkind = \"http\"\nurl = \"https://host/rows?a=1\"\n";

fn none() -> Env {
    Env::of::<&str, &str>([])
}

fn mistakes_under(text: &str, name: &str, env: &Env) -> String {
    match parse(text, name, env) {
        Ok(_) => "no mistake".to_owned(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

fn mistakes(text: &str) -> String {
    mistakes_under(text, "pipeline.toml", &none())
}

/// Mistakes of a good Qeasy pipeline with these lines before its target.
fn qeasy(lines: &str) -> String {
    mistakes(&format!("{lines}\n{QEASY}"))
}

/// Mistakes of a good HTTP pipeline with these lines after its target.
fn http(lines: &str) -> String {
    mistakes(&format!("{HTTP}{lines}"))
}

#[test]
fn text_that_is_neither_toml_nor_json() {
    assert_snapshot!(mistakes("[source]\npage_size = \n"), @"pipeline.toml:2: not TOML: string values must be quoted, expected literal string; correct the syntax; the rest of the file was not looked at");
    assert_snapshot!(mistakes("a = 1\na = 2\n"), @"pipeline.toml:2: not TOML: duplicate key; correct the syntax; the rest of the file was not looked at");
    assert_snapshot!(mistakes_under("{\n\"source\": [1,\n", "p.json", &none()), @"p.json:3: not JSON: EOF while parsing a value; correct the syntax; the rest of the file was not looked at");
    assert_snapshot!(mistakes_under("", "p.yaml", &none()), @"p.yaml: is neither .toml nor .json; name the pipeline file after its format");
}

#[test]
fn json_has_key_paths() {
    assert_snapshot!(mistakes_under(r#"{"source": {"page_size": 0}, "target": {"kind": "qeasy"}, "guard": []}"#, "p.json", &none()), @r#"
    p.json source.page_size: 0 is out of range; write a number from 1 to 1000
    p.json guard: is a list, not a table; write a table
    p.json target.scheme_id: is missing; add the id of the Qeasy scheme, or set QEASY_SCHEME_ID
    "#);
    assert_snapshot!(mistakes_under("[]", "p.json", &none()), @"p.json: is a list, not a table; write a table");
}

#[test]
fn what_is_missing() {
    assert_snapshot!(mistakes(""), @"pipeline.toml target: is missing; add the table, with at least kind");
    assert_snapshot!(mistakes("[target]\n"), @r#"pipeline.toml:1 target.kind: is missing; add one of "qeasy", "http""#);
    assert_snapshot!(mistakes("[target]\nkind = \"qeasy\""), @"pipeline.toml:1 target.scheme_id: is missing; add the id of the Qeasy scheme, or set QEASY_SCHEME_ID");
    assert_snapshot!(qeasy("[source]\nid = \"\"\nnumber = \" \""), @r#"
    pipeline.toml:2 source.id: is empty; fill it in
    pipeline.toml:3 source.number: is empty; fill it in
    "#);
}

#[test]
fn unknown_keys_name_the_nearest_or_their_table() {
    assert_snapshot!(qeasy("[source]\npage_sise = 5"), @"pipeline.toml:2 source.page_sise: unknown key page_sise; did you mean page_size?");
    assert_snapshot!(qeasy("[guard]\nzzz = 5"), @"pipeline.toml:2 guard.zzz: unknown key zzz; remove it; known here: max_delete_ratio, values, max_held_ratio, full_read_every");
    assert_snapshot!(qeasy("[source]\nconnection = \"a\"\nmax_rows_per_batch = 1"), @r#"
    pipeline.toml:2 source.connection: unknown key connection; move it out of this table, to the top of the file
    pipeline.toml:3 source.max_rows_per_batch: unknown key max_rows_per_batch; it belongs in [target]
    "#);
    assert_snapshot!(qeasy("url = \"x\""), @"pipeline.toml:1 url: unknown key url; it belongs in [target]");
    assert_snapshot!(qeasy("[sorce]\nid = 1"), @"pipeline.toml:1 sorce: unknown key sorce; did you mean source?");
    assert_snapshot!(qeasy("\"a\\nb\" = 1"), @r#"pipeline.toml:1 a\nb: unknown key a\nb; remove it; known here: connection, source, record, target, guard, notify, report"#);
}

#[test]
fn wrong_types() {
    assert_snapshot!(qeasy("[source]\npage_size = \"100\"\nidCheck = \"yes\"\nmax_concurrency = 1.5\nid = 5\nmax_requests_per_second = []"), @r#"
    pipeline.toml:2 source.page_size: is a string, not a whole number; write it without the quotes
    pipeline.toml:3 source.idCheck: is a string, not true or false; write true or false, for example true
    pipeline.toml:4 source.max_concurrency: is a number with a fraction, not a whole number; write a whole number, for example 4
    pipeline.toml:5 source.id: is a number, not a string; write a string, for example "id"
    pipeline.toml:6 source.max_requests_per_second: is a list, not a number; write a number, for example 5.0
    "#);
    assert_snapshot!(mistakes("source = 1\nrecord = \"groups\"\ntarget = []\n"), @r#"
    pipeline.toml:1 source: is a number, not a table; write a table
    pipeline.toml:2 record: is a string, not a table; write a table
    pipeline.toml:3 target: is a list, not a table; write a table
    "#);
    assert_snapshot!(qeasy("[record.fields]\na = { from = \"name\", default = nan }\nb = { from = \"name\", default = 2026-01-01 }\n[source]\nmax_requests_per_second = inf"), @r#"
    pipeline.toml:2 record.fields.a.default: is not a finite number; write a number with an end
    pipeline.toml:3 record.fields.b.default: is a date, which JSON does not have; put it in quotes
    pipeline.toml:5 source.max_requests_per_second: is not a finite number; write a number with an end
    "#);
    assert_snapshot!(qeasy("[guard]\nfull_read_every = 24"), @r#"pipeline.toml:2 guard.full_read_every: is a number, not a string; write a string, for example "24h""#);
}

#[test]
fn numbers_out_of_range() {
    assert_snapshot!(qeasy("[source]\npage_size = 1001\nmax_requests_per_second = 0\nmax_concurrency = 65\n[guard]\nmax_delete_ratio = 1.5"), @r#"
    pipeline.toml:2 source.page_size: 1001 is out of range; write a number from 1 to 1000
    pipeline.toml:3 source.max_requests_per_second: 0 is out of range; write a number more than 0 and at most 100000
    pipeline.toml:4 source.max_concurrency: 65 is out of range; write a number from 1 to 64
    pipeline.toml:6 guard.max_delete_ratio: 1.5 is out of range; write a number from 0 to 1
    "#);
    assert_snapshot!(mistakes(&format!("{QEASY}max_rows_per_batch = 0\nmax_bytes_per_batch = 999\nrequests_per_minute = 99999999999999999999999\nmax_concurrency = 65\n")), @r#"
    pipeline.toml:4 target.max_rows_per_batch: 0 is out of range; write a number from 1 to 5000
    pipeline.toml:5 target.max_bytes_per_batch: 999 is out of range; write a number of 1000 or more
    pipeline.toml:6 target.requests_per_minute: is a number that is too large or has a decimal point, not a whole number; write a whole number, for example 50
    pipeline.toml:7 target.max_concurrency: 65 is out of range; write a number from 1 to 64
    "#);
}

#[test]
fn a_plain_target_may_take_more_calls_a_minute_than_qeasy() {
    let http = "[target]\nkind = \"http\"\nurl = \"https://example.com/x\"\nauth = \"none\"\n";
    assert_snapshot!(mistakes(&format!("{http}requests_per_minute = 100000\n")), @"no mistake");
    assert_snapshot!(mistakes(&format!("{http}requests_per_minute = 100001\n")), @"pipeline.toml:5 target.requests_per_minute: 100001 is out of range; write a number from 1 to 100000");
    assert_snapshot!(mistakes(&format!("{QEASY}requests_per_minute = 5000\n")), @"no mistake");
    assert_snapshot!(mistakes(&format!("{QEASY}requests_per_minute = 5001\n")), @"pipeline.toml:4 target.requests_per_minute: 5001 is more than Qeasy's largest plan allows; write a number from 1 to 5000");
}

#[test]
fn values_that_are_not_allowed() {
    assert_snapshot!(mistakes("[source]\nproducts = \"fulll\"\n[record]\nshape = \"group-with-item\"\n[target]\nkind = \"qeesy\"\non_delete = \"drop\"\n"), @r#"
    pipeline.toml:2 source.products: "fulll" is not one of "none", "full", "incremental"; did you mean "full"?
    pipeline.toml:4 record.shape: "group-with-item" is not one of "groups", "groups-with-items", "products"; did you mean "groups-with-items"?
    pipeline.toml:6 target.kind: "qeesy" is not one of "qeasy", "http"; did you mean "qeasy"?
    pipeline.toml:7 target.on_delete: is not one of "ignore", "tombstone"; write one of them
    "#);
    assert_snapshot!(qeasy("[source]\napi = \"/v1/products\"\nmethod = \"POST\""), @r#"
    pipeline.toml:2 source.api: only this API is synced; write "/v1/product/groups", or leave the key out
    pipeline.toml:3 source.method: the source is only read; write "GET", or leave the key out
    "#);
    assert_snapshot!(qeasy("connection = \"Acme Ltd\""), @"pipeline.toml:1 connection: is not a connection name; use 1 to 64 characters of a-z, 0-9 and -");
    assert_snapshot!(qeasy("[guard]\nfull_read_every = \"daily\""), @r#"pipeline.toml:2 guard.full_read_every: is not a duration; write a number with its unit, for example "24h" or "1h 30m""#);
    assert_snapshot!(http("auth = \"hunter2hunter2\""), @r#"pipeline.toml:4 target.auth: is not one of "none", "bearer"; write one of them"#);
}

#[test]
fn mistakes_in_urls_are_named() {
    assert_snapshot!(qeasy("[source]\nbase_url = \"https://me:hunter2hunter2@host\""), @"pipeline.toml:2 source.base_url: holds a user name or password; take it out; credentials come from the environment or the secret");
    assert_snapshot!(qeasy("[source]\nbase_url = \"api.host\""), @r#"pipeline.toml:2 source.base_url: is not a URL: relative URL without a base; write it in full, as in "https://host/path""#);
    assert_snapshot!(qeasy("[source]\nbase_url = \"ftp://host\""), @"pipeline.toml:2 source.base_url: is neither https nor http; write a URL that starts with https://");
    assert_snapshot!(qeasy("[source]\nbase_url = \"http://10.0.0.1:80\""), @"pipeline.toml:2 source.base_url: is plain http to another machine; use https://; http:// is for 127.0.0.1, ::1 and localhost");
    assert_snapshot!(qeasy("[source]\nbase_url = \"https://host/?a=1\""), @"pipeline.toml:2 source.base_url: has a query (?), which calls would lose; write scheme and host only");
}

#[test]
fn mistakes_in_the_record_are_named() {
    assert_snapshot!(qeasy("[record.fields]\na = 5\nb = { from = \"x\", as = \"strin\" }\nc = { form = \"x\" }\nd = { as = \"number\" }\n"), @r#"
    pipeline.toml:2 record.fields.a: is a number, not a string or a table; write a string or a table
    pipeline.toml:3 record.fields.b.as: "strin" is not one of "string", "number", "integer", "boolean"; did you mean "string"?
    pipeline.toml:3 record.fields.b.from: "x" is not a field of a product group; did you mean "rank"? Write "raw.x" if OKKI really sends it
    pipeline.toml:4 record.fields.c.form: unknown key form; did you mean from?
    pipeline.toml:5 record.fields.d: has neither from nor each; add from = "<source field>"
    "#);
    assert_snapshot!(qeasy("[source]\nproducts = \"none\""), @r#"pipeline.toml:2 source.products: is "none", but the record uses products; write "incremental" or "full", or choose record.shape = "groups""#);
}

#[test]
fn keys_of_the_other_kind() {
    assert_snapshot!(mistakes(&format!("{QEASY}url = \"https://host/x\"\nauth = \"bearer\"")), @r#"
    pipeline.toml:4 target.url: belongs to kind "http", and this is "qeasy"; write base_url, scheme and host only
    pipeline.toml:5 target.auth: belongs to kind "http", and this is "qeasy"; remove it, or write kind = "http"
    "#);
    assert_snapshot!(mistakes("[target]\nkind = \"http\"\nbase_url = \"https://host\"\nscheme_id = \"x\""), @r#"
    pipeline.toml:1 target.url: is missing; add the URL that takes the batches, or set TARGET_BASE_URL
    pipeline.toml:3 target.base_url: belongs to kind "qeasy", and this is "http"; write url, the whole URL
    pipeline.toml:4 target.scheme_id: belongs to kind "qeasy", and this is "http"; remove it, or write kind = "qeasy"
    "#);
}

#[test]
fn http_target() {
    assert_snapshot!(http("read_url = \"http://host/x\"\nmethod = \"GET\"\nwrap = \"rows\"\nauth = \"basic\""), @r#"
    pipeline.toml:4 target.read_url: is plain http to another machine; use https://; http:// is for 127.0.0.1, ::1 and localhost
    pipeline.toml:5 target.method: is not one of "POST", "PUT", "PATCH"; write one of them
    pipeline.toml:6 target.wrap: is not one of "", "groups", "content"; write one of them
    pipeline.toml:7 target.auth: is not one of "none", "bearer"; write one of them
    "#);
    assert_snapshot!(http("auth = \"bearer\"\n[target.headers]\nAuthorization = \"hunter2\"\n\"a b\" = \"x\"\nHost = \"x\"\nx-n = 5\nx-l = \"a\\nb\""), @r#"
    pipeline.toml:6 target.headers.Authorization: is sent already because of auth = "bearer"; remove it, or write auth = "none"
    pipeline.toml:7 target.headers.a b: is not a header name; use letters, digits and -
    pipeline.toml:8 target.headers.Host: follows from the request itself; remove it
    pipeline.toml:9 target.headers.x-n: is a number, not a string; write a string
    pipeline.toml:10 target.headers.x-l: is not a header value; use visible characters on one line
    "#);
    assert_snapshot!(http("success = { code = 0, \"/a\" = 0, \"/~2\" = 1 }"), @r#"
    pipeline.toml:4 target.success.code: is not a JSON pointer; start it with /, as in "/code" or "/data/status"
    pipeline.toml:4 target.success./~2: is not a JSON pointer; start it with /, as in "/code" or "/data/status"
    "#);
}

#[test]
fn overrides_name_their_variable() {
    assert_snapshot!(mistakes_under(QEASY, "p.toml", &Env::of([("OKKI_BASE_URL", "http://example.com"), ("TARGET_BASE_URL", "nonsense"), ("QEASY_SCHEME_ID", "")])), @r#"
    environment TARGET_BASE_URL: is not a URL: relative URL without a base; write it in full, as in "https://host/path"
    environment OKKI_BASE_URL: is plain http to another machine; use https://; http:// is for 127.0.0.1, ::1 and localhost
    "#);
    assert_snapshot!(mistakes_under(&format!("{HTTP}read_url = \"https://host/read\""), "p.toml", &Env::of([("TARGET_BASE_URL", "http://example.com")])), @"environment TARGET_BASE_URL: is plain http to another machine; use https://; http:// is for 127.0.0.1, ::1 and localhost");
    assert_snapshot!(mistakes_under(HTTP, "p.toml", &Env::of([("TARGET_BASE_URL", "https://example.com/api")])), @"environment TARGET_BASE_URL: has a path, but an HTTP target keeps the path of its url; give scheme, host and port only");
    assert_snapshot!(mistakes_under("[target]\nkind=\"http\"\nurl=\"https://a:b@host/x\"", "p.toml", &Env::of([("TARGET_BASE_URL", "https://example.com")])), @"p.toml:3 target.url: holds a user name or password; take it out; credentials come from the environment or the secret");
}

#[test]
fn many_mistakes_become_one_line() {
    let mistakes = parse("[source]\npage_size = 0\nid = 1\n", "pipeline.toml", &none()).unwrap_err();
    let error = error_of(&mistakes);
    assert_eq!(error.kind, ErrorKind::BadPipeline);
    assert_snapshot!(error.message, @"pipeline.toml:2 source.page_size: 0 is out of range; write a number from 1 to 1000; and 2 more: okki-sync check lists all");
    assert_eq!(error_of(&mistakes[..1]).message, mistakes[0].to_string());
    assert!(!error_of(&[]).message.is_empty());
}

#[test]
fn the_smallest_pipeline_has_the_defaults() {
    let (pipeline, _) = read(QEASY, "pipeline.toml", &none()).unwrap();
    let config = parse(QEASY, "pipeline.toml", &none()).unwrap();
    assert_eq!(config.source.products, Products::Incremental);
    assert_eq!(config.target.batching.max_concurrency, config.source.max_concurrency);
    assert_snapshot!(serde_json::to_string(&pipeline).unwrap(), @r#"{"connection":"default","source":{"api":"/v1/product/groups","method":"GET","id":"id","number":"name","idCheck":true,"base_url":"https://api-sandbox.xiaoman.cn/","page_size":100,"max_requests_per_second":5.0,"max_concurrency":4},"record":{},"target":{"kind":"qeasy","scheme_id":"s","max_rows_per_batch":500,"max_bytes_per_batch":1000000,"requests_per_minute":50,"reserve_ratio":0.2,"on_delete":"tombstone"},"guard":{"max_delete_ratio":0.2,"max_held_ratio":0.2,"full_read_every":"24h"},"notify":{"lang":"zh"},"report":{"html":false}}"#);
    let Endpoint::Qeasy { base_url, scheme_id, token_in } = config.target.endpoint else {
        panic!("not qeasy")
    };
    assert_eq!(
        (base_url.as_str(), scheme_id.as_str(), token_in),
        ("https://api.qeasy.cloud/", "s", TokenIn::Header)
    );
    let Endpoint::Http { method, auth, wrap, .. } =
        parse(HTTP, "pipeline.toml", &none()).unwrap().target.endpoint
    else {
        panic!("not http")
    };
    assert_eq!((method, auth, wrap), (TargetMethod::Post, TargetAuth::None, Wrap::Array));
}

#[test]
fn the_example_says_what_the_defaults_say() {
    let (example, _) = read(include_str!("../../pipeline.toml"), "pipeline.toml", &none()).unwrap();
    assert_eq!(example.connection, "demo");
    assert_eq!(example.source.products, Some(Products::Incremental));
    let (defaults, _) = read(QEASY, "pipeline.toml", &none()).unwrap();
    let source = SourceKeys { products: None, ..example.source };
    assert_eq!((source, example.guard), (defaults.source, defaults.guard));
}

#[test]
fn json_says_the_same_as_toml_and_keeps_the_order_of_fields() {
    let toml = format!("[record.fields]\nz = \"id\"\na = {{ from = \"name\", default = 1_000 }}\n{QEASY}");
    let json = r#"{"record": {"fields": {"z": "id", "a": {"from": "name", "default": 1000}}},
        "target": {"kind": "qeasy", "scheme_id": "s"}}"#;
    let toml = read(&toml, "a.TOML", &none()).unwrap().0;
    assert_eq!(toml, read(&format!("\u{feff}{json}"), "a.json", &none()).unwrap().0);
    let names: Vec<&String> = toml.record.fields.as_ref().unwrap().keys().collect();
    assert_eq!(names, ["z", "a"]);
    // What is written back is read the same.
    let again = serde_json::to_string(&toml).unwrap();
    assert_eq!(toml, read(&again, "a.json", &none()).unwrap().0);
}

#[test]
fn overrides_replace_what_the_file_says() {
    let env = Env::of([
        ("OKKI_BASE_URL", "http://127.0.0.1:1"),
        ("TARGET_BASE_URL", "http://localhost:2"),
        ("QEASY_SCHEME_ID", "other"),
    ]);
    let qeasy = read("[target]\nkind = \"qeasy\"", "p.toml", &env).unwrap().0;
    assert_eq!(qeasy.source.base_url.as_str(), "http://127.0.0.1:1/");
    assert_eq!(qeasy.target.base_url.unwrap().as_str(), "http://localhost:2/");
    assert_eq!(qeasy.target.scheme_id.unwrap(), "other");

    let text = format!("{HTTP}read_url = \"http://far:8080/read\"");
    let http = read(&text, "p.toml", &env).unwrap().0.target;
    assert_eq!(http.url.unwrap().as_str(), "http://localhost:2/rows?a=1");
    assert_eq!(http.read_url.unwrap().as_str(), "http://localhost:2/read");

    let env = Env::of([("TARGET_BASE_URL", "https://[::1]/rows")]);
    let http = read("[target]\nkind = \"http\"", "p.toml", &env).unwrap().0.target;
    assert_eq!(http.url.unwrap().as_str(), "https://[::1]/rows");
}

#[test]
fn blank_variables_are_unset_and_values_are_not_shown() {
    let env =
        Env::of([("OKKI_SYNC_PIPELINE", ""), ("OKKI_SYNC_STORE", "memory:"), ("OKKI_SYNC_SECRET", " ")]);
    assert_eq!((env.pipeline(), env.store(), env.secret()), (None, Some("memory:".to_owned()), None));
    assert!(!format!("{env:?}").contains("memory:"));
    assert_eq!(Env::process().get("OKKI_SYNC_NO_SUCH_VARIABLE"), None);
}

#[test]
fn headers_show_their_names_only() {
    let text = format!("{HTTP}headers = {{ x-key = \"hunter2\" }}");
    let (as_written, config) =
        (read(&text, "p.toml", &none()).unwrap(), parse(&text, "p.toml", &none()).unwrap());
    let shown = format!("{as_written:?} {config:?}");
    assert!(shown.contains("x-key") && !shown.contains("hunter2"));
}

#[test]
fn loopback_may_be_plain_http() {
    for host in ["127.0.0.1:80", "127.9.9.9", "[::1]:5", "LOCALHOST:1"] {
        assert_eq!(url_mistake(&format!("http://{host}/x")), None, "{host}");
    }
    for host in ["localhost.evil.com", "127.0.0.1.nip.io", "10.0.0.1", "[::2]", "0.0.0.0"] {
        assert!(url_mistake(&format!("http://{host}/x")).is_some(), "{host}");
    }
}

#[test]
fn products_follow_the_record_unless_they_are_set() {
    let groups = format!("[record]\nshape = \"groups\"\n{QEASY}");
    assert_eq!(parse(&groups, "p.toml", &none()).unwrap().source.products, Products::None);
    let none_set = format!("[source]\nproducts = \"none\"\n{groups}");
    assert_eq!(parse(&none_set, "p.toml", &none()).unwrap().source.products, Products::None);
}

#[test]
fn a_value_guard_is_checked_by_its_line_and_its_place() {
    let text = format!(
        "{QEASY}[guard]\nmax_held_ratio = 2\n\n[[guard.values]]\nfield = \"items.cost\"\nmin = 0\n\n[[guard.values]]\nfield = \"items.prize\"\n\
         mim = 1\nmax_change = -1\n\n[[guard.values]]\nmin = 1\n"
    );
    let told = |text: &str| -> String {
        let mistakes = read(text, "p.toml", &none()).unwrap_err();
        mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()
    };
    insta::assert_snapshot!(told(&text), @r"
    p.toml:5 guard.max_held_ratio: 2 is out of range; write a number from 0 to 1
    p.toml:13 guard.values[1].mim: unknown key mim; did you mean min?
    p.toml:14 guard.values[1].max_change: -1 is out of range; write a number of 0 or more
    p.toml:16 guard.values[2].field: is missing; add it
    ");
    let text = format!("{QEASY}[[guard.values]]\nfield = \"items.costs\"\nmin = 1\n");
    insta::assert_snapshot!(told(&text), @r#"p.toml:5 guard.values[0].field: "items.costs" is not a field of the target's row; the nearest are "items.cost", "items", "items.id"; guards name fields as in the target's row"#);
    assert!(
        told(&format!("{QEASY}[guard]\nvalues = [7]")).contains("guard.values[0]: is a number, not a table")
    );
    let fine = format!("{QEASY}[[guard.values]]\nfield = \"items.cost\"\nmin = 0.01\none_of = [1, 2.5]");
    assert!(parse(&fine, "p.toml", &none()).unwrap().rows.has_guards());
}

/// A keyword that the walk does not know would be in the schema and never be checked.
#[test]
fn the_walk_knows_every_keyword_of_the_schema() {
    const KNOWN: [&str; 21] = [
        "$comment",
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "default",
        "description",
        "exclusiveMinimum",
        "format",
        "items",
        "maximum",
        "minLength",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    ];
    let mut used = BTreeSet::new();
    keywords(&schema(), &mut used);
    let unknown: Vec<&String> = used.iter().filter(|keyword| !KNOWN.contains(&keyword.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn keywords(schema: &Value, used: &mut BTreeSet<String>) {
    for (keyword, inner) in schema.as_object().into_iter().flatten() {
        used.insert(keyword.clone());
        match (keyword.as_str(), inner) {
            ("properties" | "$defs", Value::Object(map)) => {
                map.values().for_each(|inner| keywords(inner, used))
            }
            ("anyOf" | "oneOf", Value::Array(list)) => list.iter().for_each(|inner| keywords(inner, used)),
            ("additionalProperties" | "items", inner) => keywords(inner, used),
            _ => {}
        }
    }
}

#[test]
fn every_key_has_a_description() {
    let schema = schema();
    let tables = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for (key, property) in tables.filter_map(|table| table.get("properties")?.as_object()).flatten() {
        assert!(property.get("description").is_some(), "{key}");
    }
}

/// Whatever is put at any key, a mistake has a place and nothing panics; and what the walk lets through, the types take.
#[test]
fn any_value_at_any_key_is_taken_or_a_mistake_of_its_own() {
    let full = serde_json::to_value(read(include_str!("../../pipeline.toml"), "p.toml", &none()).unwrap().0)
        .unwrap();
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0.5),
        json!(7),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!({"a": 1}),
    ];
    for (table, keys) in full.as_object().unwrap() {
        for key in keys.as_object().into_iter().flat_map(Map::keys) {
            for value in &values {
                let mut changed = full.clone();
                changed[table][key] = value.clone();
                let Err(mistakes) = parse(&changed.to_string(), "p.json", &none()) else { continue };
                for mistake in mistakes {
                    assert!(mistake.place.starts_with("p.json "), "{mistake}");
                    assert!(
                        !mistake.message.contains("does not fit the schema") || key == "kind",
                        "{table}.{key} {mistake}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_notify_table_is_checked_and_its_texts_become_times() {
    let of = |keys: &str, env: &Env| parse(&format!("{QEASY}\n[notify]\n{keys}"), "p.toml", env);
    for (keys, place, part) in [
        ("lang = \"fr\"", "notify.lang", "is not one of"),
        ("stale_after = \"soon\"", "notify.stale_after", "is not a duration"),
        ("stale_after = \"59s\"", "notify.stale_after", "shorter than a minute"),
        ("quiet_hours = \"night\"", "notify.quiet_hours", "22:00-07:00 Asia/Shanghai"),
        ("daily_digest = \"9\"", "notify.daily_digest", "09:00"),
        ("report_url = \"https://user:hunter2@host/\"", "notify.report_url", "web page"),
        ("report_url = \"javascript:alert(1)\"", "notify.report_url", "web page"),
        ("report_url = \"https://host/{conection}\"", "notify.report_url", "{connection}"),
        ("robot = \"x\"", "notify.robot", "unknown key"),
    ] {
        let mistakes = of(keys, &none()).unwrap_err();
        let line = mistakes.first().unwrap().to_string();
        assert!(mistakes.len() == 1 && line.contains(place) && line.contains(part), "{keys}: {line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let all = "lang = \"en\"\nstale_after = \"90m\"\nquiet_hours = \"22:00-07:00\"\ndaily_digest = \"09:00 +08:00\"\n\
               report_url = \"https://host/{connection}/{run_id}\"";
    let notify = of(all, &none()).unwrap().notify;
    assert_eq!((notify.lang, notify.stale_after), (Lang::En, Some(Duration::from_mins(90))));
    assert!(notify.quiet_hours.is_some() && notify.daily_digest.is_some() && notify.report_url.is_some());

    let stack = Env::of([("OKKI_SYNC_STALE_AFTER", "5h")]);
    assert_eq!(of("", &stack).unwrap().notify.stale_after, Some(Duration::from_hours(5)));
    assert_eq!(of(all, &stack).unwrap().notify.stale_after, Some(Duration::from_mins(90)));
    let wrong = of("", &Env::of([("OKKI_SYNC_STALE_AFTER", "x")])).unwrap_err();
    assert!(wrong.first().unwrap().to_string().contains("OKKI_SYNC_STALE_AFTER"), "{wrong:?}");
    assert_eq!(of("", &none()).unwrap().notify, crate::notify::Settings::default());
}
