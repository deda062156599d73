//! `bare`: the yardstick. reqwest and serde_json, eight calls at once, the same requests and the same rows as okki-sync, and
//! no safety: no retry, no check of a page or an answer, no state, no plan; a wrong answer is a panic or a wrong row.

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use okki_sync_bench::{CONCURRENCY, PAGE_SIZE, ROWS_PER_POST, STORE, option};
use reqwest::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Page<'a> {
    count: usize,
    #[serde(borrow)]
    list: Vec<Product<'a>>,
}

/// Texts and numbers go from the page into the row as they were written.
#[derive(Deserialize)]
struct Product<'a> {
    product_id: u64,
    group_id: u64,
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    cost: &'a RawValue,
}

/// What is sent: full bodies, and the one that is being filled.
#[derive(Default)]
struct Rows {
    bodies: Vec<Vec<u8>>,
    body: Vec<u8>,
    rows: usize,
}

impl Rows {
    fn take(&mut self, page: &[u8], groups: &HashMap<u64, String>) -> usize {
        use std::io::Write as _;
        let page: Envelope<Page> = serde_json::from_slice(page).unwrap();
        for product in &page.data.list {
            self.body.extend_from_slice(if self.rows == 0 { b"{\"content\":[" } else { b"," });
            write!(
                self.body,
                r#"{{"id":"{}","name":{},"cost":{},"groupId":"{}","groupName":{}}}"#,
                product.product_id,
                product.name.get(),
                product.cost.get(),
                product.group_id,
                groups[&product.group_id],
            )
            .unwrap();
            self.rows += 1;
            if self.rows == ROWS_PER_POST {
                self.finish();
            }
        }
        page.data.count
    }

    fn finish(&mut self) {
        if self.rows > 0 {
            self.body.extend_from_slice(b"]}");
            self.bodies.push(std::mem::take(&mut self.body));
            self.rows = 0;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = option("url").expect("--url");
    let client = Client::builder().no_proxy().build().unwrap();

    let login = r#"{"grant_type":"client_credentials","client_id":"bench","client_secret":"bench-secret","scope":"product"}"#;
    let answer = post(&client, format!("{url}/v1/oauth2/access_token"), "", login).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let token = format!("Bearer {}", answer["access_token"].as_str().unwrap());

    let groups = get(&client, format!("{url}/v1/product/groups"), &token).await;
    let groups: Envelope<Vec<Group>> = serde_json::from_slice(&groups).unwrap();
    let groups: HashMap<u64, String> = groups
        .data
        .into_iter()
        .map(|group| (group.id, serde_json::to_string(&group.name).unwrap()))
        .collect();

    let page = |number: usize| {
        get(&client, format!("{url}/v1/product/list?start_index={number}&count={PAGE_SIZE}"), &token)
    };
    let mut rows = Rows::default();
    let total = rows.take(&page(1).await, &groups);
    let mut pages = stream::iter(2..=total.div_ceil(PAGE_SIZE)).map(page).buffered(CONCURRENCY);
    while let Some(page) = pages.next().await {
        rows.take(&page, &groups);
    }
    rows.finish();

    let login = r#"{"app_key":"benchbenchbe","app_secret":"benchbenchbenchbench"}"#;
    let answer = post(&client, format!("{url}/v2/oauth"), "", login).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let token = format!("Bearer {}", answer["content"]["access_token"].as_str().unwrap());
    stream::iter(rows.bodies)
        .for_each_concurrent(CONCURRENCY, |body| {
            let sent = post(&client, format!("{url}{STORE}"), &token, body);
            async { drop(sent.await) }
        })
        .await;
}

async fn get(client: &Client, url: String, token: &str) -> Vec<u8> {
    client.get(url).header("authorization", token).send().await.unwrap().bytes().await.unwrap().into()
}

async fn post(client: &Client, url: String, token: &str, body: impl Into<reqwest::Body>) -> Vec<u8> {
    let request =
        client.post(url).header("authorization", token).header("content-type", "application/json").body(body);
    request.send().await.unwrap().bytes().await.unwrap().into()
}
