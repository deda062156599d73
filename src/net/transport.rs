//! reqwest: the clients that this program shares, how a body is read, and what their errors mean.

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use url::Url;

use crate::net::{MAX_VERDICT_BYTES, TransportError, Wire, excerpt, is_loopback};
use crate::words::say;

/// An announced length is believed up to here; beyond it, room is made as the bytes come.
const MAX_ANNOUNCED_BYTES: usize = 4 * 1024 * 1024;

/// The two clients that all connections share: one for this machine, and one that uses the system's proxy.
#[derive(Default)]
pub(crate) struct Network {
    direct: OnceLock<Wire>,
    proxied: OnceLock<Wire>,
}

impl Network {
    pub(crate) fn wire(&self, to: &Url) -> Result<Wire, TransportError> {
        let shared = if is_loopback(to) { &self.direct } else { &self.proxied };
        if let Some(wire) = shared.get() {
            return Ok(wire.clone());
        }
        let wire = Wire::network(to)?;
        Ok(shared.get_or_init(|| wire).clone())
    }
}

/// What all clients share: rustls with the roots of `tls.rs`, and no redirects, since a redirect could carry a token
/// elsewhere. `protocols` are offered over TLS, the preferred one first. A `direct` client uses no proxy.
pub(super) fn client_builder(
    direct: bool,
    protocols: &[&str],
) -> Result<reqwest::ClientBuilder, TransportError> {
    let tls = crate::net::tls::client_config(protocols).map_err(|error| cannot_start(&error))?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("okki-sync/", env!("CARGO_PKG_VERSION")));
    Ok(if direct { builder.no_proxy() } else { builder })
}

pub(crate) fn cannot_start(error: &(dyn std::error::Error + 'static)) -> TransportError {
    TransportError::permanent(say!("the HTTP client cannot start: {error}", error = root_cause(error)))
}

/// What becomes of a body that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlong {
    /// It is no answer: half a page of rows would be taken for a whole one.
    Refused,
    /// It is read up to [`MAX_VERDICT_BYTES`]: of a failure its status counts, and the words at its beginning.
    Cut,
}

impl Overlong {
    pub(crate) fn of(status: StatusCode) -> Self {
        if status.is_success() { Self::Refused } else { Self::Cut }
    }
}

/// Reads a body of at most `most` bytes.
pub(crate) async fn read_body<B>(body: B, most: usize, overlong: Overlong) -> Result<Bytes, TransportError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::error::Error + 'static,
{
    use http_body_util::BodyExt as _;
    let most = if overlong == Overlong::Cut { most.min(MAX_VERDICT_BYTES) } else { most };
    let mut body = std::pin::pin!(body);
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            TransportError::passing(say!("the answer broke off: {error}", error = root_cause(&error)))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let room = most.saturating_sub(read.len());
        if data.len() > room && overlong == Overlong::Cut {
            read.extend_from_slice(data.get(..room).unwrap_or_default());
            break;
        }
        if data.len() > room {
            return Err(TransportError::permanent(say!(
                "the answer is larger than {most} MiB",
                most = most >> 20
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

/// The error without the address, which may hold a token.
pub(crate) fn network_error(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    let what = if error.is_connect() {
        say!("cannot connect")
    } else if error.is_timeout() {
        say!("no answer in time")
    } else {
        say!("the connection broke")
    };
    TransportError {
        not_sent: error.is_connect(),
        ..TransportError::passing(say!("{what}: {error}", what, error = root_cause(&error)))
    }
}

/// The innermost cause says what failed ("Connection refused"); the outer ones say which layer noticed.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    excerpt(&cause.to_string(), &[])
}
