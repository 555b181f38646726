//! TLS for HTTP over TCP: the certificate and its key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use super::secret_files::{self, FileError};

/// The longest certificate chain or key that is read, in bytes.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// What is wrong with the certificate or its key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file has no such thing in it. (What is there instead may be secret.)
    #[error("{} has no {what} in PEM form: name the file that has it", path.display())]
    Pem {
        /// What is missing.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// They can't be used together.
    #[error("the certificate {} and the key {} can't be used: {source}", cert.display(), key.display())]
    Unfit {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// Accepts connections with this certificate and this key, which only its owner
/// can read or change.
pub(super) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = secret_files::public("the certificate", cert, FILE_LEN_MAX)?;
    let secret = secret_files::secret("the certificate's key", key, FILE_LEN_MAX)?;
    let missing = |what, path: &Path| TlsError::Pem { what, path: path.to_owned() };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| missing("certificate", cert))?;
    let private =
        PrivateKeyDer::from_pem_slice(secret.as_bytes()).map_err(|_| missing("private key", key))?;
    let unfit = |source| TlsError::Unfit { cert: cert.to_owned(), key: key.to_owned(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
