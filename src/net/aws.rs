//! AWS: one configuration, read as every AWS SDK reads it, for Secrets Manager and for S3.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use object_store::RetryConfig;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use secrecy::SecretString;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::net::aws_http::{ForStore, SdkHttp};
use crate::words::{Message, say};

/// A call to the store is repeated for at most this long.
const STORE_PATIENCE: Duration = Duration::from_secs(12);

/// The SDK's configuration. Reading it makes no call; credentials are fetched when they are first needed.
pub(crate) async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).http_client(SdkHttp::default()).load().await
}

/// Reads a secret's text from Secrets Manager.
pub(crate) async fn secret(config: &SdkConfig, id: &str) -> Result<SecretString> {
    let client = aws_sdk_secretsmanager::Client::new(config);
    let answer = client.get_secret_value().secret_id(id).send().await.map_err(|error| {
        // The service's message names the secret and the cause, never its value.
        let why = crate::net::excerpt(&DisplayErrorContext(&error).to_string(), &[]);
        Error::new(
            ErrorKind::MissingCredentials,
            say!("OKKI_SYNC_SECRET={id}: cannot be read: {why}", id, why),
        )
        .help(say!("check its name, the region and the permission secretsmanager:GetSecretValue"))
        .caused_by(error)
    })?;
    answer.secret_string.map(SecretString::from).ok_or_else(|| {
        Error::new(ErrorKind::MissingCredentials, say!("OKKI_SYNC_SECRET={id}: holds bytes, not text", id))
            .help(say!("store JSON text"))
    })
}

/// A client for a bucket, with the SDK's region, credentials and endpoint. `endpoint` (`AWS_ENDPOINT_URL_S3`) wins.
pub(crate) fn s3(config: &SdkConfig, endpoint: Option<String>, bucket: &str) -> Result<AmazonS3> {
    let fail = |why: Message| Error::new(ErrorKind::Store, say!("store s3://{bucket}: {why}", bucket, why));
    let region = config
        .region()
        .map(ToString::to_string)
        .ok_or_else(|| fail(say!("no region")).help(say!("set AWS_REGION")))?;
    // China is a partition of its own, and object_store does not know its addresses.
    let home = region.starts_with("cn-").then(|| format!("https://s3.{region}.amazonaws.com.cn"));
    // object_store's default of three minutes outlasts every lease and most deadlines.
    let retry = RetryConfig { max_retries: 3, retry_timeout: STORE_PATIENCE, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_region(region).with_retry(retry);
    let mut direct = false;
    if let Some(provider) = config.credentials_provider() {
        builder = builder.with_credentials(Arc::new(SdkCredentials(provider)));
    }
    let endpoint = endpoint.or_else(|| config.endpoint_url().map(str::to_owned)).or(home);
    if let Some(endpoint) = endpoint {
        let url = Url::parse(&endpoint)
            .map_err(|error| fail(say!("AWS_ENDPOINT_URL is not a URL: {error}", error)))?;
        let plain = url.scheme() == "http";
        if plain && !crate::net::is_loopback(&url) {
            return Err(fail(say!("AWS_ENDPOINT_URL is plain http off this machine")).help(say!("use https")));
        }
        direct = crate::net::is_loopback(&url);
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    builder
        .with_http_connector(ForStore { direct })
        .build()
        .map_err(|error| fail(crate::net::root_cause(&error).into()).caused_by(error))
}

/// The SDK's credentials in object_store's form.
#[derive(Debug)]
struct SdkCredentials(SharedCredentialsProvider);

#[async_trait::async_trait]
impl object_store::CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credentials = self
            .0
            .provide_credentials()
            .await
            .map_err(|source| object_store::Error::Generic { store: "S3", source: Box::new(source) })?;
        Ok(Arc::new(AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(str::to_owned),
        }))
    }
}
