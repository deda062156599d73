//! TLS: one set of roots for every client of the process, parsed at the first handshake.
//!
//! The system's roots and not embedded ones: a company's proxy signs with a root that only the system (or
//! `SSL_CERT_FILE`) knows. Parsing them takes 8 ms the first time and 3 ms each time after it (dev profile, two shared
//! CPUs), which is more than the whole start of the Lambda program. A process builds several clients, so they share the
//! roots; and a process without TLS (a sandbox, a test, a target on this machine) does not parse them. Without the second
//! half, this file would be `LazyLock<Arc<Verifier>>` and nothing else.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// A configuration that offers these protocols over TLS.
pub(crate) fn client_config(protocols: &[&str]) -> Result<ClientConfig, Error> {
    static ROOTS: LazyLock<Arc<SystemRoots>> = LazyLock::new(|| Arc::new(SystemRoots::new()));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&ROOTS.crypto))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(ROOTS.clone())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// The platform's verifier, built when the first certificate is to be checked.
#[derive(Debug)]
struct SystemRoots {
    crypto: Arc<CryptoProvider>,
    verifier: OnceLock<Verifier>,
}

impl SystemRoots {
    fn new() -> Self {
        Self { crypto: Arc::new(rustls::crypto::ring::default_provider()), verifier: OnceLock::new() }
    }

    /// A failure is not kept: the next handshake tries again.
    fn verifier(&self) -> Result<&Verifier, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let verifier = Verifier::new(Arc::clone(&self.crypto))?;
        Ok(self.verifier.get_or_init(|| verifier))
    }
}

impl ServerCertVerifier for SystemRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    // Signatures and schemes need no roots, only the crypto provider, as in rustls's own verifier.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}
