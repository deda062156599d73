//! A plain HTTP target: takes JSON rows, wrapped or not, and shows them again. It has no limit.

use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Sandbox;
use crate::response::{bearer, json_response};
use crate::stored_rows::RowKey;

/// Every path below it is the plain target's.
pub(crate) const PATH: &str = "/v1/productGroups";

/// The wrappers of `wrap = "content"` and `wrap = "groups"`.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow, alias = "groups")]
    content: Vec<&'a RawValue>,
}

pub(crate) fn answer(sandbox: &Sandbox, parts: &Parts, body: &[u8]) -> Response {
    let mut guard = sandbox.state();
    let state = &mut *guard;
    if parts.headers.contains_key(header::AUTHORIZATION)
        && bearer(&parts.headers) != Some(state.credentials.target_token.as_str())
    {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized");
    }
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, PATH) => {
            let rows: Vec<&str> = state.http_rows.iter().map(|(_, row)| row.raw.get()).collect();
            json_response(StatusCode::OK, format!("[{}]", rows.join(",")))
        }
        (&Method::POST, "/v1/productGroups/batchInsert") => {
            let rows = serde_json::from_slice::<Vec<&RawValue>>(body)
                .or_else(|_| serde_json::from_slice::<Wrapped>(body).map(|wrapped| wrapped.content));
            let Ok(rows) = rows else {
                return refuse(StatusCode::BAD_REQUEST, "expected an array of rows");
            };
            let keyed = rows.into_iter().map(|row| RowKey::of(row).map(|key| (key, row)));
            let Some(keyed) = keyed.collect::<Option<Vec<_>>>() else {
                return refuse(StatusCode::BAD_REQUEST, "a row has no id");
            };
            let inserted = keyed.len();
            for (key, row) in keyed {
                state.note_written(&key.id, row);
                let now_ms = sandbox.now_ms();
                if state.options.target_merges {
                    state.http_rows.merge(key, row, now_ms);
                } else {
                    state.http_rows.put(key, row, now_ms);
                }
            }
            let body = json!({"code": 0, "message": "success", "inserted": inserted});
            json_response(StatusCode::OK, body.to_string())
        }
        _ => refuse(StatusCode::NOT_FOUND, "not found"),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    json_response(status, json!({"code": status.as_u16(), "message": message}).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::tests::{call, small, text};

    #[tokio::test]
    async fn the_plain_target_takes_three_wrappers() {
        let sandbox = small(|_| ());
        let insert = |token: &'static str, body: &'static str| {
            call(sandbox.target(), "POST", "/v1/productGroups/batchInsert", token, body)
        };
        let token = "sandbox-target-token";
        assert_eq!(insert("wrong", "[]").await.0, 401);
        let (status, reply) = insert(token, r#"[{"productGroupId":"123","productName":"Group A"}]"#).await;
        assert_eq!((status, &reply["inserted"]), (200, &json!(1)));
        insert(token, r#"{"groups":[{"id":"123","cost":0.035}]}"#).await;
        insert(token, r#"{"content":[{"id":"124"}]}"#).await;
        let (_, all) = text(sandbox.target(), "GET", "/v1/productGroups", token, "").await;
        assert_eq!(all, r#"[{"id":"123","cost":0.035},{"id":"124"}]"#);
        assert_eq!(sandbox.http_rows().len(), 2);
    }

    #[tokio::test]
    async fn a_target_that_merges_keeps_the_fields_that_a_row_lacks() {
        let sandbox = small(|options| options.target_merges = true);
        let rows = r#"[{"id":"7","cost":0.0350},{"id":"7","deleted":true}]"#;
        let insert = "/v1/productGroups/batchInsert";
        call(sandbox.target(), "POST", insert, "sandbox-target-token", rows).await;
        assert_eq!(sandbox.http_rows()["7"].get(), r#"{"id":"7","deleted":true,"cost":0.0350}"#);
    }
}
