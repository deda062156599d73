//! The control endpoints below `/_sandbox/`, for tests and scripts that run another process. Neither service has them.

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use http::{Method, StatusCode};
use serde_json::json;

use crate::response::json_response;
use crate::{Sandbox, Service, okki};

const MAX_BODY_BYTES: usize = 1 << 20;

/// A router that knows the control endpoints and nothing else.
pub(crate) fn router(sandbox: &Sandbox) -> Router {
    let sandbox = sandbox.clone();
    Router::new().route(
        "/_sandbox/{*what}",
        any(move |request: Request| {
            let sandbox = sandbox.clone();
            async move { answer(&sandbox, request).await }
        }),
    )
}

async fn answer(sandbox: &Sandbox, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let done = || Ok("{}".to_owned());
    let text = match (&parts.method, parts.uri.path().trim_start_matches("/_sandbox/")) {
        (&Method::POST, "faults") => {
            let body = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
            match serde_json::from_slice(&body) {
                Ok(fault) => {
                    sandbox.fault(fault);
                    done()
                }
                Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
            }
        }
        (&Method::POST, "rotate") => Ok(rotate(sandbox)),
        (&Method::POST, "change") => {
            sandbox.simulate_edits();
            done()
        }
        (&Method::POST, "release") => {
            sandbox.release();
            done()
        }
        (&Method::POST, "revoke") => {
            sandbox.revoke_tokens();
            done()
        }
        (&Method::GET, "rows") => rows(sandbox, parts.uri.query().unwrap_or_default()),
        (&Method::GET, "stats") => serde_json::to_string(&sandbox.stats()),
        (&Method::GET, "catalogue") => Ok(okki::whole_catalogue(&sandbox.state_now().0)),
        _ => return json_response(StatusCode::NOT_FOUND, "{}".into()),
    };
    match text {
        Ok(text) => json_response(StatusCode::OK, text),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn refuse(status: StatusCode, error: &serde_json::Error) -> Response {
    json_response(status, format!("{:?}", error.to_string()))
}

/// Rotates the credentials of both services and prints the new ones: they open nothing but this sandbox.
fn rotate(sandbox: &Sandbox) -> String {
    sandbox.rotate_credentials(Service::Okki);
    let fresh = sandbox.rotate_credentials(Service::Target);
    json!({
        "okki_client_id": fresh.okki_client_id,
        "okki_client_secret": fresh.okki_client_secret,
        "qeasy_app_key": fresh.qeasy_app_key,
        "qeasy_app_secret": fresh.qeasy_app_secret,
        "target_token": fresh.target_token,
    })
    .to_string()
}

/// The rows of the target in use; `?kind=http` or `?kind=qeasy` names one.
fn rows(sandbox: &Sandbox, query: &str) -> serde_json::Result<String> {
    let qeasy = sandbox.target_rows();
    let http = query == "kind=http" || (qeasy.is_empty() && query != "kind=qeasy");
    serde_json::to_string(&if http { sandbox.http_rows() } else { qeasy })
}
