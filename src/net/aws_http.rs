//! AWS over this program's HTTP client. The SDK and object_store would each bring another HTTP stack, with roots to parse
//! at each cold start.

use std::sync::OnceLock;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use object_store::client::ClientOptions;
use url::Url;

use crate::net::{self, TransportError};
use crate::words::say;

/// object_store's default: AWS accepts connections at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// object_store's default, for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Without gzip, since S3 returns bytes as they were stored, and without HTTP/2, since neither service gains from it.
fn client(direct: bool) -> Result<reqwest::Client, TransportError> {
    net::client_builder(direct, &["http/1.1"])?
        .http1_only()
        .no_gzip()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| net::cannot_start(&error))
}

/// object_store's way to this client.
#[derive(Debug)]
pub(crate) struct ForStore {
    /// Whether the system's proxy is bypassed.
    pub direct: bool,
}

impl object_store::client::HttpConnector for ForStore {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<object_store::client::HttpClient> {
        let client = client(self.direct)
            .map_err(|lost| object_store::Error::Generic { store: "S3", source: Box::new(lost) })?;
        Ok(object_store::client::HttpClient::new(client))
    }
}

/// The SDK's client, built when the SDK first calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct SdkHttp(std::sync::Arc<Clients>);

#[derive(Debug, Default)]
struct Clients {
    direct: OnceLock<reqwest::Client>,
    proxied: OnceLock<reqwest::Client>,
}

impl Clients {
    fn to(&self, url: &Url) -> Result<reqwest::Client, TransportError> {
        let direct = net::is_loopback(url) || is_metadata(url);
        // A secret would travel in clear. Metadata services have no TLS, and are in the machine.
        if url.scheme() == "http" && !direct {
            let why = say!("the endpoint is plain http off this machine; use https");
            return Err(TransportError::permanent(why));
        }
        let shared = if direct { &self.direct } else { &self.proxied };
        if let Some(client) = shared.get() {
            return Ok(client.clone());
        }
        let client = client(direct)?;
        Ok(shared.get_or_init(|| client).clone())
    }
}

/// Whether a host is the machine's source of credentials (EC2, ECS), which no proxy can reach, nor should.
fn is_metadata(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_link_local(),
        Some(url::Host::Ipv6(address)) => address.segments().starts_with(&[0xfd00, 0x0ec2]),
        _ => false,
    }
}

impl HttpClient for SdkHttp {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings.read_timeout().unwrap_or(TIMEOUT);
        SharedHttpConnector::new(Connector { http: self.clone(), limit })
    }
}

#[derive(Debug)]
struct Connector {
    http: SdkHttp,
    limit: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (http, limit) = (self.http.clone(), self.limit);
        HttpConnectorFuture::new(async move {
            let request = into_reqwest(request, limit)?;
            let client = http.0.to(request.url()).map_err(unusable)?;
            let response = client.execute(request).await.map_err(connector_error)?;
            into_sdk(response).await
        })
    }
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectorError {
    ConnectorError::user(error.into())
}

/// The SDK's retries look at the kind: a timeout and a broken connection are tried again.
fn connector_error(error: reqwest::Error) -> ConnectorError {
    let (timeout, builder) = (error.is_timeout(), error.is_builder());
    let lost = Box::new(net::network_error(error));
    if timeout {
        ConnectorError::timeout(lost)
    } else if builder {
        ConnectorError::user(lost)
    } else {
        ConnectorError::io(lost)
    }
}

fn into_reqwest(request: HttpRequest, limit: Duration) -> Result<reqwest::Request, ConnectorError> {
    let (parts, body) = request.try_into_http1x().map_err(unusable)?.into_parts();
    let body = body.bytes().map(Bytes::copy_from_slice).ok_or_else(|| unusable("a body that is a stream"))?;
    let request = ::http::Request::from_parts(parts, body);
    let mut request = reqwest::Request::try_from(request).map_err(|error| unusable(error.without_url()))?;
    *request.timeout_mut() = Some(limit);
    Ok(request)
}

/// A secret and credentials are small: the whole answer is read here, so that a timeout covers all of it.
async fn into_sdk(response: reqwest::Response) -> Result<HttpResponse, ConnectorError> {
    let (parts, body) = ::http::Response::<reqwest::Body>::from(response).into_parts();
    let body = net::read_body(body, net::MAX_VERDICT_BYTES, net::Overlong::Refused)
        .await
        .map_err(|lost| ConnectorError::io(Box::new(lost)))?;
    HttpResponse::try_from(::http::Response::from_parts(parts, SdkBody::from(body))).map_err(unusable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn plain_http_goes_to_this_machine_and_its_metadata_only() {
        let clients = Clients::default();
        let to = |url: &str| clients.to(&Url::parse(url).unwrap()).map(drop).map_err(|lost| lost.message);
        for fine in [
            "http://127.0.0.1:5000/",
            "http://169.254.170.2/v2",
            "http://[fd00:ec2::23]/",
            "https://a.example/",
        ] {
            assert_eq!(to(fine), Ok(()), "{fine}");
        }
        for refused in ["http://192.0.2.2/", "http://secretsmanager.example/", "http://127.0.0.1.example/"] {
            assert!(to(refused).is_err_and(|why| why.contains("plain http")), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_secret_is_not_asked_for_over_plain_http_and_the_error_says_so() {
        let keys = aws_sdk_secretsmanager::config::Credentials::new("k", "s", None, None, "test");
        let config = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .http_client(SdkHttp::default())
            .region(aws_config::Region::new("ap-east-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(keys))
            .endpoint_url("http://192.0.2.2")
            .build();
        let error = crate::net::aws::secret(&config, "x").await.unwrap_err().to_string();
        assert!(error.contains("plain http off this machine"), "{error}");
    }
}
