//! TLS towards others, for checks and webhooks: which certificates this host
//! trusts.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// How to encrypt: trusts the certificates that the system trusts, and those in
/// `trusted`; with `anybody`, every certificate. Reads files.
///
/// # Errors
/// One sentence, if that leaves no certificate to trust.
pub(crate) fn client(
    trusted: Vec<CertificateDer<'static>>,
    anybody: bool,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?;
    if anybody {
        let verifier = Arc::new(Anybody(provider));
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        return Ok(Arc::new(builder.with_no_client_auth()));
    }
    let mut roots = RootCertStore::empty();
    // Leaves out certificates that can't be parsed.
    roots.add_parsable_certificates(system().into_iter().chain(trusted));
    if roots.is_empty() {
        return Err(
            "TLS: this host trusts nobody: install ca-certificates, or set insecure = true".to_owned()
        );
    }
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The system's certificates, read once there are any.
fn system() -> Vec<CertificateDer<'static>> {
    static KNOWN: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return known.clone();
    }
    let read = rustls_native_certs::load_native_certs().certs;
    if read.is_empty() { read } else { KNOWN.get_or_init(|| read).clone() }
}

/// Accepts every certificate, as `insecure = true` asks for; the server still has
/// to prove that it has the key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
