//! A transport that stays in the process: whole runs under tokio's paused clock.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;

use crate::net::TransportError;

/// The body of an answer; it may fail half-way.
pub type InProcessBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers requests as a server would. An error says that no answer came.
pub type InProcess = BoxCloneSyncService<http::Request<Bytes>, http::Response<InProcessBody>, TransportError>;
