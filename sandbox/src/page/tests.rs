//! The page as a browser meets it, in process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use tower::ServiceExt as _;

use super::*;
use crate::tests::{call, small};

const HOST: &str = "127.0.0.1:9";

async fn ask(
    sandbox: &Sandbox,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, String, String) {
    let mut request = Request::builder().method(method).uri(uri).header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router(sandbox, Addresses::default()).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), format!("{:?}", parts.headers), String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(sandbox: &Sandbox, uri: &str) -> String {
    let (status, _, text) = ask(sandbox, "GET", uri, &[], "").await;
    assert_eq!(status, 200, "{uri}");
    text
}

#[tokio::test]
async fn the_page_is_in_the_language_of_address_cookie_or_browser() {
    let sandbox = small(|_| ());
    assert!(get(&sandbox, "/").await.contains("<html lang=\"en\">"));
    let (_, _, text) = ask(&sandbox, "GET", "/", &[("accept-language", "zh-CN,zh;q=0.9")], "").await;
    assert!(text.contains("<html lang=\"zh-CN\">") && text.contains("两端对比"));
    let (_, headers, text) = ask(&sandbox, "GET", "/?lang=zh", &[], "").await;
    assert!(
        text.contains("<html lang=\"zh-CN\">") && headers.contains("okki-sandbox-lang=zh; SameSite=Strict")
    );
    let cookie = ("cookie", "a=b; okki-sandbox-lang=en");
    let (_, _, text) = ask(&sandbox, "GET", "/", &[cookie, ("accept-language", "zh")], "").await;
    assert!(text.contains("<html lang=\"en\">"));
}

#[tokio::test]
async fn names_are_text_and_no_markup() {
    let sandbox = small(|_| ());
    sandbox.edit(|catalogue| {
        catalogue.groups[0].name = "<script>alert(1)</script>".to_owned();
        catalogue.groups[1].id = "\"><img src=x>".to_owned();
    });
    let row = r#"[{"id":"<b>x</b>","name":"<i>\u202e"}]"#;
    call(sandbox.target(), "POST", "/v1/productGroups/batchInsert", "sandbox-target-token", row).await;
    for uri in ["/", "/tree", "/?open=%22%3E%3Cimg%20src%3Dx%3E"] {
        let text = get(&sandbox, uri).await;
        assert!(text.contains("&lt;script&gt;alert(1)"), "{uri}: {text}");
        for markup in ["<script>", "<img", "<b>x", "<i>", "\u{202e}"] {
            assert!(!text.contains(markup), "{uri}: {markup}");
        }
    }
}

#[tokio::test]
async fn a_button_changes_the_sandbox_and_leads_back() {
    let sandbox = small(|_| ());
    let own = [("origin", "http://127.0.0.1:9"), ("sec-fetch-site", "same-origin")];
    let (status, headers, _) = ask(&sandbox, "POST", "/do", &own, "do=import&rows=3").await;
    assert!(status == 303 && headers.contains("\"location\": \"/\""), "{status} {headers}");
    assert_eq!(sandbox.catalogue().products.len(), 253);
    let json = [("accept", "application/json")];
    let (status, _, text) = ask(&sandbox, "POST", "/do", &json, "do=import&rows=x").await;
    assert_eq!((status, text.contains("not a number")), (400, true));
    let (status, _, text) = ask(&sandbox, "POST", "/do", &[("accept-language", "zh")], "do=restore").await;
    assert!(status == 400 && text.contains("没有可以恢复的已删除产品"), "{text}");
}

#[tokio::test]
async fn another_site_can_neither_look_nor_change() {
    let sandbox = small(|_| ());
    for headers in
        [&[("origin", "http://evil.example")][..], &[("origin", "null")], &[("sec-fetch-site", "cross-site")]]
    {
        let (status, _, _) = ask(&sandbox, "POST", "/do", headers, "do=import&rows=3").await;
        assert_eq!(status, 403, "{headers:?}");
    }
    assert_eq!(sandbox.catalogue().products.len(), 250);
    for uri in ["/", "/tree", "/now", "/do"] {
        let request = Request::get(uri).header("host", "evil.example:9").body(Body::empty()).unwrap();
        let response = router(&sandbox, Addresses::default()).oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), 403, "{uri}");
    }
    assert_eq!(ask(&sandbox, "GET", "/do", &[], "do=import&rows=3").await.0, 404, "a GET changes nothing");
    let (status, headers, _) = ask(&sandbox, "POST", "/do", &[], &"x".repeat(70_000)).await;
    assert_eq!(status, 413);
    assert!(headers.contains("frame-ancestors 'none'") && headers.contains("nosniff"), "{headers}");
}

#[tokio::test]
async fn a_large_catalogue_is_a_small_page() {
    let sandbox = small(|options| (options.groups, options.products) = (5_000, 20_000));
    let text = get(&sandbox, "/").await;
    assert!(text.len() < 400_000, "{}", text.len());
    sandbox.edit(|catalogue| {
        let group = catalogue.groups[0].id.clone();
        catalogue.products.iter_mut().for_each(|product| product.group_id = group.clone());
    });
    let group = sandbox.catalogue().groups[0].id.clone();
    let text = get(&sandbox, &format!("/tree?open={group}")).await;
    assert!(text.contains("… and 19800 more") || text.contains("more</li>"), "the rest is counted");
    assert!(text.len() < 1_000_000, "{}", text.len());
}

#[tokio::test]
async fn what_the_script_asks_for_follows_both_sides_and_the_calls() {
    let sandbox = small(|_| ());
    let now = async || serde_json::from_str::<serde_json::Value>(&get(&sandbox, "/now").await).unwrap();
    let first = now().await;
    assert!(first["calls"].as_str().unwrap().contains("No call yet"));
    call(sandbox.okki(), "GET", "/v1/product/groups", "", "").await;
    let second = now().await;
    assert_eq!(first["version"], second["version"]);
    assert!(second["calls"].as_str().unwrap().contains("GET /v1/product/groups"));
    sandbox.import(1);
    assert_ne!(now().await["version"], first["version"]);
}
