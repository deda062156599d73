//! Everything between a request and its answer.
//!
//! This file sends one request and reads one whole answer, bounded in time and size. [`client`] is the loop around it: it
//! waits for a turn ([`limit`]), fetches a token ([`token`]), judges the answer ([`verdict`]) and decides what to do next
//! ([`retry`]). [`timeline`] records when it called. [`redact`] keeps secrets out of what is reported. [`aws`] sends AWS's
//! calls over the same clients.
//! Deliberately absent: redirects, cookies, and any knowledge of either side's protocol.

pub(crate) mod aws;
mod aws_http;
mod call;
mod client;
mod field;
pub(crate) mod limit;
mod redact;
pub(crate) mod retry;
pub(crate) mod timeline;
mod tls;
mod token;
mod transport;
mod verdict;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

pub(crate) use call::{Call, Counters};
pub(crate) use client::Client;
pub(crate) use field::Field;
pub(crate) use redact::{excerpt, exposed};
pub(crate) use token::{Auth, Login, Token};
pub(crate) use transport::Network;
pub(crate) use transport::root_cause;
use transport::{Overlong, cannot_start, client_builder, network_error, read_body};

use crate::words::{Message, say};
pub(crate) use verdict::{CallError, UNQUOTED, is_page, judge_status, server_message};

/// OKKI documents 60 s for connecting and answering.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A host that does not accept a connection within this is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A login, or a verdict on what was sent. The body of a failure is read up to here, whatever was asked for.
pub(crate) const MAX_VERDICT_BYTES: usize = 1 << 20;
/// A page of rows. One of 1,000 products is under 2 MB.
pub(crate) const MAX_PAGE_BYTES: usize = 16 << 20;
/// A list that comes whole: all groups, or all rows of a plain target.
pub(crate) const MAX_LIST_BYTES: usize = 64 << 20;

/// Where requests go.
#[derive(Clone)]
pub enum Wire {
    /// Over the network.
    Network(reqwest::Client),
    /// Straight into a service in this process: whole runs under tokio's paused clock.
    #[cfg(feature = "testing")]
    InProcess(crate::testing::InProcess),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: Url,
    /// Header names and values; a value that is a secret stays one until it is sent.
    pub headers: Vec<(String, SecretString)>,
    /// JSON body.
    pub body: Option<Bytes>,
    /// Whether it may be sent again although it may have had its effect: always for a read, and for a write whose rows
    /// carry their ids.
    pub idempotent: bool,
    /// A longer answer is none.
    pub max_body_bytes: usize,
}

impl Request {
    /// A GET, answered by a page of rows.
    pub fn get(url: Url) -> Self {
        let max_body_bytes = MAX_PAGE_BYTES;
        Self { method: Method::GET, url, headers: Vec::new(), body: None, idempotent: true, max_body_bytes }
    }

    /// A POST of JSON, answered by a verdict. It is not repeated unless [`Self::idempotent`] allows it.
    pub fn post(url: Url, body: impl Into<Bytes>) -> Self {
        let body = Some(body.into());
        let max_body_bytes = MAX_VERDICT_BYTES;
        Self { method: Method::POST, url, headers: Vec::new(), body, idempotent: false, max_body_bytes }
    }

    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// Reads an answer of at most this many bytes.
    pub(crate) fn answered_by_at_most(self, max_body_bytes: usize) -> Self {
        Self { max_body_bytes, ..self }
    }

    /// Adds `Authorization: Bearer …`.
    pub fn bearer(mut self, token: &SecretString) -> Self {
        self.headers.push(("authorization".to_owned(), format!("Bearer {}", token.expose_secret()).into()));
        self
    }

    fn into_http(self) -> Result<http::Request<Bytes>, TransportError> {
        let mut builder = http::Request::builder().method(self.method).uri(self.url.as_str());
        if self.body.is_some() {
            builder = builder.header("content-type", "application/json; charset=utf-8");
        }
        builder = builder.header("accept", "application/json");
        for (name, value) in &self.headers {
            let value = http::HeaderValue::from_str(value.expose_secret()).map_err(|_| {
                TransportError::permanent(say!(
                    "header {name} holds characters that no header may hold",
                    name
                ))
            })?;
            builder = builder.header(name, value);
        }
        builder.body(self.body.unwrap_or_default()).map_err(|_| {
            TransportError::permanent(say!("the request cannot be built from this URL and these headers"))
        })
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The whole body, or the beginning of a failure's: see [`Overlong`].
    pub body: Bytes,
}

/// No whole answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What failed.
    pub message: Message,
    /// Whether another attempt may end otherwise.
    pub may_pass: bool,
    /// Whether the other side certainly has not seen the request.
    pub not_sent: bool,
}

impl TransportError {
    /// The connection broke. Whether the request had its effect is unknown.
    #[cfg(feature = "testing")]
    pub fn connection_broke() -> Self {
        Self::passing(say!("the connection broke"))
    }

    fn passing(message: impl Into<Message>) -> Self {
        Self { message: message.into(), may_pass: true, not_sent: false }
    }

    fn permanent(message: impl Into<Message>) -> Self {
        Self { message: message.into(), may_pass: false, not_sent: false }
    }
}

impl Wire {
    /// A client for the network. It uses the system's proxy, but not for this machine, which no proxy can reach.
    pub fn network(to: &Url) -> Result<Self, TransportError> {
        client_builder(is_loopback(to), &["h2", "http/1.1"])?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .gzip(true)
            .build()
            .map(Self::Network)
            .map_err(|error| cannot_start(&error))
    }

    /// Sends one request and reads its whole answer, within `limit` of time.
    pub async fn send(&self, request: Request, limit: Duration) -> Result<Answer, TransportError> {
        let limit = limit.min(TIMEOUT);
        match tokio::time::timeout(limit, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(TransportError::passing(say!(
                "no answer within {limit} s",
                limit = limit.as_secs().max(1)
            ))),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Answer, TransportError> {
        let most = request.max_body_bytes;
        let request = request.into_http()?;
        match self {
            Self::Network(client) => {
                let request = reqwest::Request::try_from(request)
                    .map_err(|error| TransportError::permanent(root_cause(&error.without_url())))?;
                let response = client.execute(request).await.map_err(network_error)?;
                let (status, headers) = (response.status(), response.headers().clone());
                let body = read_body(reqwest::Body::from(response), most, Overlong::of(status)).await?;
                Ok(Answer { status, headers, body })
            }
            #[cfg(feature = "testing")]
            Self::InProcess(service) => {
                let response = tower::ServiceExt::oneshot(service.clone(), request).await?;
                let (parts, body) = response.into_parts();
                let body = read_body(body, most, Overlong::of(parts.status)).await?;
                Ok(Answer { status: parts.status, headers: parts.headers, body })
            }
        }
    }
}

/// Appends `path` to the path of `base`, which `Url::join` would drop.
pub(crate) fn join_path(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// A host's name in what is stored: this machine is one name, since a local server changes its port.
pub(crate) fn stored_host(url: &Url) -> &str {
    if is_loopback(url) { "local" } else { url.host_str().unwrap_or_default() }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::error::{ErrorKind, Side};

    const INFLATED_BYTES: usize = 64 << 20;

    /// `[0,0,…]` of 64 MiB: 64 KB on the wire.
    fn zeros() -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"[").unwrap();
        let piece = b"0,".repeat(1 << 19);
        for _ in 0..INFLATED_BYTES / piece.len() {
            gzip.write_all(&piece).unwrap();
        }
        gzip.write_all(b"0]").unwrap();
        gzip.finish().unwrap()
    }

    /// Answers one request with this status and the zeros.
    async fn answered(status: &'static str, most: usize) -> Result<Answer, TransportError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let body = zeros();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            // The reader may have had enough before the end.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
        });
        let request = Request::get(url.clone()).answered_by_at_most(most);
        let answer = Wire::network(&url).unwrap().send(request, TIMEOUT).await;
        serving.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_body_of_a_failure_is_read_no_further_than_its_message_can_be() {
        for most in [MAX_VERDICT_BYTES, MAX_LIST_BYTES] {
            let answer = answered("404 Not Found", most).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.body.len()), (404, MAX_VERDICT_BYTES));
            let error = judge_status(&answer, Side::Target, 0).unwrap();
            assert_eq!(error.kind, ErrorKind::BadAnswer(Side::Target));
            assert!(error.message.starts_with("target answered HTTP 404 Not Found: [0,0,0,"));
            assert!(error.message.len() < 250, "{}", error.message);
        }
    }

    #[tokio::test]
    async fn a_success_that_is_longer_than_its_call_allows_is_no_answer() {
        for (most, words) in
            [(MAX_VERDICT_BYTES, "larger than 1 MiB"), (MAX_PAGE_BYTES, "larger than 16 MiB")]
        {
            let error = answered("200 OK", most).await.unwrap_err();
            assert!(!error.may_pass && error.message.contains(words), "{error}");
        }
    }
}
