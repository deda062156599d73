//! The wire: sends one request and returns a whole answer, bounded in time and size; redacts what it reports.

pub(crate) mod aws;
pub(crate) mod aws_http;
pub(crate) mod client;
pub(crate) mod limit;
pub(crate) mod retry;
pub(crate) mod tls;

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// No answer is read beyond this. A page of 1,000 products is under 2 MB.
pub(crate) const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// No more room than this is made because a server announces a long answer.
const MAX_ANNOUNCED_BYTES: usize = 4 * 1024 * 1024;
/// OKKI documents 60 s for connecting and answering.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// A host that does not accept a connection within this is down.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where requests go.
#[derive(Clone)]
pub enum Wire {
    /// Over the network.
    Network(reqwest::Client),
    /// Straight into a service in this process: whole runs under tokio's paused clock.
    #[cfg(feature = "testing")]
    InProcess(crate::testing::InProcess),
}

/// The network's wires, which all connections share, and with them the open connections.
#[derive(Default)]
pub(crate) struct Network {
    direct: OnceLock<Wire>,
    proxied: OnceLock<Wire>,
}

impl Network {
    /// The wire that leads there.
    pub(crate) fn wire(&self, to: &Url) -> Result<Wire, TransportError> {
        let shared = if is_loopback(to) { &self.direct } else { &self.proxied };
        if let Some(wire) = shared.get() {
            return Ok(wire.clone());
        }
        let wire = Wire::network(to)?;
        Ok(shared.get_or_init(|| wire).clone())
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Header names and values; a value that is a secret stays one until it is sent.
    pub headers: Vec<(String, SecretString)>,
    /// JSON body.
    pub body: Option<Bytes>,
    /// Whether it may be sent again when it may have had its effect: a read always, a write where its rows carry
    /// their ids.
    pub idempotent: bool,
}

impl Request {
    /// A GET.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: Vec::new(), body: None, idempotent: true }
    }

    /// A POST of JSON; it is not repeated unless [`Self::idempotent`] says so.
    pub fn post(url: Url, body: impl Into<Bytes>) -> Self {
        let body = Some(body.into());
        Self { method: Method::POST, url, headers: Vec::new(), body, idempotent: false }
    }

    /// The same, which may be repeated.
    pub fn idempotent(self) -> Self {
        Self { idempotent: true, ..self }
    }

    /// The same with `Authorization: Bearer …`.
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
                TransportError::permanent(format!("header {name} holds characters that no header may hold"))
            })?;
            builder = builder.header(name, value);
        }
        builder.body(self.body.unwrap_or_default()).map_err(|_| {
            TransportError::permanent(
                "the request cannot be built from this URL and these headers".to_owned(),
            )
        })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, at most [`MAX_BODY_BYTES`].
    pub body: Bytes,
}

/// No whole answer came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What failure, in words.
    pub message: String,
    /// Whether another attempt may end otherwise.
    pub may_pass: bool,
    /// Whether the other side certainly has not seen the request.
    pub not_sent: bool,
}

impl TransportError {
    /// The connection broke; what became of the request is not known.
    #[cfg(feature = "testing")]
    pub fn connection_broke() -> Self {
        Self::passing("the connection broke".to_owned())
    }

    fn passing(message: String) -> Self {
        Self { message, may_pass: true, not_sent: false }
    }

    fn permanent(message: String) -> Self {
        Self { message, may_pass: false, not_sent: false }
    }
}

impl Wire {
    /// A client for the network. The system's proxy is used, but not on the way to this machine: it could not reach it.
    pub fn network(to: &Url) -> Result<Self, TransportError> {
        client(is_loopback(to), &["h2", "http/1.1"])?
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
            Err(_) => Err(TransportError::passing(format!("no answer within {} s", limit.as_secs().max(1)))),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Answer, TransportError> {
        let request = request.into_http()?;
        match self {
            Self::Network(client) => {
                let request = reqwest::Request::try_from(request)
                    .map_err(|error| TransportError::permanent(root_cause(&error.without_url())))?;
                let response = client.execute(request).await.map_err(network_error)?;
                let (status, headers) = (response.status(), response.headers().clone());
                let body = read_body(reqwest::Body::from(response)).await?;
                Ok(Answer { status, headers, body })
            }
            #[cfg(feature = "testing")]
            Self::InProcess(service) => {
                let response = tower::ServiceExt::oneshot(service.clone(), request).await?;
                let (parts, body) = response.into_parts();
                Ok(Answer { status: parts.status, headers: parts.headers, body: read_body(body).await? })
            }
        }
    }
}

/// What all clients have in common: rustls with the roots of `tls.rs`, no redirects (a redirect could carry a token
/// elsewhere). `protocols` are offered over TLS, the preferred one first.
pub(crate) fn client(direct: bool, protocols: &[&str]) -> Result<reqwest::ClientBuilder, TransportError> {
    let tls = crate::net::tls::client_config(protocols).map_err(|error| cannot_start(&error))?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("okki-sync/", env!("CARGO_PKG_VERSION")));
    Ok(if direct { builder.no_proxy() } else { builder })
}

/// Nothing can be sent at all.
pub(crate) fn cannot_start(error: &(dyn std::error::Error + 'static)) -> TransportError {
    TransportError::permanent(format!("the HTTP client cannot start: {}", root_cause(error)))
}

/// Reads a whole body, of at most [`MAX_BODY_BYTES`].
pub(crate) async fn read_body<B>(body: B) -> Result<Bytes, TransportError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::error::Error + 'static,
{
    use http_body_util::BodyExt as _;
    let mut body = std::pin::pin!(body);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            TransportError::passing(format!("the answer broke off: {}", root_cause(&error)))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > MAX_BODY_BYTES {
            return Err(TransportError::permanent(format!(
                "the answer is larger than {} MiB",
                MAX_BODY_BYTES >> 20
            )));
        }
        // A body that came in one piece is not copied.
        if read.is_empty() && data.len() == announced && body.is_end_stream() {
            return Ok(data);
        }
        if read.capacity() == 0 {
            read.reserve(announced.min(MAX_ANNOUNCED_BYTES));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// What a client's error means, without the address, which may hold a token.
pub(crate) fn network_error(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection broke"
    };
    TransportError {
        not_sent: error.is_connect(),
        ..TransportError::passing(format!("{what}: {}", root_cause(&error)))
    }
}

/// The innermost cause says what failure ("Connection refused"); the outer ones say which layer noticed.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    excerpt(&cause.to_string(), &[])
}

/// Longest piece of a server's text in an error, in characters.
const EXCERPT_CHARS: usize = 160;

/// A text without these secrets; the longest goes first, since one may be a part of another.
pub(crate) fn redact(text: &str, secrets: &[&SecretString]) -> String {
    let mut secrets: Vec<&str> =
        secrets.iter().map(|secret| secret.expose_secret()).filter(|secret| secret.len() >= 4).collect();
    secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

/// A server's text for an error message: one line, cut short, and without any of our secrets that it may echo.
pub(crate) fn excerpt(text: &str, secrets: &[&SecretString]) -> String {
    let text = redact(text, secrets);
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().filter(|c| !c.is_control()).take(EXCERPT_CHARS).collect();
    if cut.len() < line.len() {
        cut.push('…');
    }
    cut
}

/// The address of a call: a base URL may have a path of its own, which `Url::join` would drop.
pub(crate) fn join_path(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

/// A host's name in what is stored: this machine is one name, since a local server changes its port.
pub(crate) fn stored_host(url: &Url) -> &str {
    if is_loopback(url) { "local" } else { url.host_str().unwrap_or_default() }
}

/// Whether a host is this machine.
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
    use super::*;

    #[test]
    fn a_secret_that_holds_another_is_taken_out_whole() {
        let (id, secret) = (SecretString::from("client"), SecretString::from("client-s3cr3t"));
        assert_eq!(redact("client client-s3cr3t", &[&id, &secret]), "… …");
    }

    #[test]
    fn an_excerpt_is_short_on_one_line_and_without_secrets() {
        let secret = SecretString::from("s3cr3t-value");
        let text = format!("<html>\n  bad\u{7}  s3cr3t-value {}</html>", "x".repeat(500));
        let cut = excerpt(&text, &[&secret]);
        assert!(cut.starts_with("<html> bad … xxx"), "{cut}");
        assert_eq!(cut.chars().count(), EXCERPT_CHARS + 1);
    }
}
