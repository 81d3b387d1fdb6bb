//! The client's side: files are re-read for every connection, so a renewed certificate is in use at the next reconnect.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;

use super::{TlsError, load};

/// Where a client's certificates lie; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// The authorities that sign the servers to trust.
    pub ca: PathBuf,
    /// Certificate chain and private key to show.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client's TLS.
#[derive(Debug, Clone)]
pub struct ClientTls {
    files: ClientTlsFiles,
}

impl ClientTls {
    pub fn new(files: ClientTlsFiles) -> Self {
        Self { files }
    }

    /// The configuration for one more connection, from the files as they are now; for HTTP/2.
    ///
    /// # Errors
    /// A file is bad; the error names it.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let ClientTlsFiles { ca, identity } = &self.files;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rejected)?
            .with_root_certificates(load::roots(ca, &load::read(ca)?)?);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let certified = load::certified_key((cert, &load::read(cert)?), (key, &load::read(key)?))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}
