//! TLS: one set of roots for every client of the process, read from the system at the first handshake.
//!
//! Parsing the system's certificates is most of what a client costs to build, and a cold start builds several. So
//! nothing is read until a server shows its certificate, and then once. The system's roots and not embedded ones:
//! a company's proxy signs with a root that only the system (or `SSL_CERT_FILE`) knows.

use std::sync::{Arc, LazyLock, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// A configuration that offers these protocols; roots and crypto are those of the whole process.
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

/// The platform's verifier, made when the first certificate is to be judged.
#[derive(Debug)]
struct SystemRoots {
    crypto: Arc<CryptoProvider>,
    verifier: OnceLock<Verifier>,
}

impl SystemRoots {
    fn new() -> Self {
        Self { crypto: Arc::new(rustls::crypto::ring::default_provider()), verifier: OnceLock::new() }
    }

    /// A failure is not kept: the next handshake looks again.
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

    // Signatures and schemes are the crypto provider's matter, as in rustls's own verifier: no roots are needed.
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
