//! The one thing that a first read cannot see, as the reference says: between two pages of one window people delete a
//! product and bring another one back. Then the total stays, each row comes once, and a third product is in no page.
//!
//! Found here by what passes over the wire: all pages of one question came with one total and as many different ids; of
//! these ids one was deleted meanwhile, and one brought back; and a product that was there throughout is not among them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::HttpBody as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::past::{Past, Span};

/// No page of a world is longer.
const LONGEST_PAGE_BYTES: u64 = 1 << 20;

/// The pages of one question so far.
#[derive(Debug, Default)]
struct Pages {
    question: String,
    began_ms: u64,
    next: u64,
    total: u64,
    rows: usize,
    ids: HashSet<String>,
}

/// A page of products as it came.
struct Page {
    question: String,
    number: u64,
    total: u64,
    ids: Vec<String>,
}

/// Looks at the pages that come from a source in a first read.
pub fn watching(
    inner: Router,
    past: Arc<Mutex<Past>>,
    now_ms: impl Fn() -> u64 + Clone + Send + Sync + 'static,
) -> Router {
    let pages = Arc::new(Mutex::new(Vec::<Pages>::new()));
    Router::new().fallback(move |request: axum::extract::Request| {
        let (inner, past, pages, now_ms) = (inner.clone(), past.clone(), pages.clone(), now_ms.clone());
        async move {
            let (uri, asked_ms) = (request.uri().to_string(), now_ms());
            let response = inner.oneshot(request).await.unwrap();
            let is_short =
                response.body().size_hint().upper().is_some_and(|bytes| bytes < LONGEST_PAGE_BYTES);
            if !uri.contains("/product/list") || !is_short || !past.lock().unwrap().is_first_read {
                return Ok::<_, std::convert::Infallible>(response);
            }
            let (head, body) = response.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            if let Some(page) = page(&uri, &body) {
                let span = Span { from_ms: asked_ms, to_ms: now_ms() };
                take(&mut pages.lock().unwrap(), page, span, &mut past.lock().unwrap());
            }
            Ok(axum::response::Response::from_parts(head, axum::body::Body::from(body)))
        }
    })
}

/// `None` if the answer is no page of a question with a filter.
fn page(uri: &str, body: &[u8]) -> Option<Page> {
    let (_, query) = uri.split_once('?')?;
    let (number, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|part| part.starts_with("start_index="));
    let number = number.first()?.trim_start_matches("start_index=").parse().ok()?;
    let question = rest.join("&");
    let answer: Value = serde_json::from_slice(body).ok().filter(|_| question.contains("end_time="))?;
    let data = &answer["data"];
    let total = data["count"].as_u64().or(data["totalItem"].as_u64())?;
    let id =
        |row: &Value| row["product_id"].as_str().map_or_else(|| row["product_id"].to_string(), str::to_owned);
    Some(Page { question, number, total, ids: data["list"].as_array()?.iter().map(id).collect() })
}

fn take(all: &mut Vec<Pages>, page: Page, span: Span, past: &mut Past) {
    if page.number == 1 {
        all.retain(|pages| pages.question != page.question);
        let (question, total) = (page.question.clone(), page.total);
        all.push(Pages { question, total, began_ms: span.from_ms, next: 1, ..Pages::default() });
    }
    let Some(pages) = all.iter_mut().find(|pages| pages.question == page.question) else { return };
    if page.total != pages.total || page.number != pages.next {
        return;
    }
    pages.next += 1;
    pages.rows += page.ids.len();
    pages.ids.extend(page.ids);
    let is_proven = pages.rows as u64 == pages.total && pages.ids.len() == pages.rows;
    if is_proven && page.number > 1 {
        let span = Span { from_ms: pages.began_ms, to_ms: span.to_ms };
        past.has_traceless |= hides_one(&pages.ids, span, past);
    }
}

/// Ids ascend with the times of creation: what lies between two ids of a window belongs to it.
fn hides_one(ids: &HashSet<String>, span: Span, past: &Past) -> bool {
    let is_gone = ids.iter().any(|id| past.was_deleted(id, span));
    let is_back = ids.iter().any(|id| past.was_brought_back(id, span));
    if !is_gone || !is_back {
        return false;
    }
    let (first, last) = (ids.iter().min(), ids.iter().max());
    past.product_ids().any(|id| {
        let is_within = first < Some(id) && Some(id) < last && !ids.contains(id);
        is_within && past.product(id, span).all(|rows| !rows.is_empty())
    })
}
