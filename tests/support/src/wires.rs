//! Wires: into a router of this process, with somebody listening.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use http::header::AUTHORIZATION;
use http_body_util::BodyExt as _;
use okki_sync::testing::net::{TransportError, Wire};
use okki_sync_sandbox::ConnectionLost;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

/// One call that a [`Tap`] has seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it came.
    pub at: Instant,
    pub uri: String,
    pub authorization: Option<String>,
    pub body: String,
}

/// Listens on a wire.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Seen>>>);

impl Tap {
    pub fn on(&self, inner: Router) -> Router {
        let tap = self.clone();
        Router::new().fallback(move |request: axum::extract::Request| {
            let (tap, inner) = (tap.clone(), inner.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
                tap.0.lock().unwrap().push(Seen {
                    at: Instant::now(),
                    uri: parts.uri.to_string(),
                    authorization: parts
                        .headers
                        .get(AUTHORIZATION)
                        .map(|value| value.to_str().unwrap().to_owned()),
                    body: String::from_utf8(body.to_vec()).unwrap(),
                });
                inner.oneshot(http::Request::from_parts(parts, Body::from(body))).await
            }
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// Bodies of the calls whose path ends like this.
    pub fn bodies(&self, ending: &str) -> Vec<String> {
        self.seen().into_iter().filter(|seen| seen.uri.ends_with(ending)).map(|seen| seen.body).collect()
    }
}

/// A wire into this router. A lost connection gives no answer, as over TCP.
pub fn in_process(router: Router) -> Wire {
    Wire::InProcess(BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<Bytes>| {
        let router = router.clone();
        async move {
            let response = match router.oneshot(request.map(Body::from)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<ConnectionLost>().is_some() {
                return Err(TransportError::connection_broke());
            }
            Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
        }
    })))
}

/// A body as text, for routers of a test's own.
pub fn answer(body: impl Into<String>) -> axum::response::Response {
    let body: String = body.into();
    axum::response::Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .body(Body::from(Bytes::from(body)))
        .unwrap()
}
