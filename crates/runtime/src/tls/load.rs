//! From PEM files to a rustls configuration, or to an error that names the file.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{ServerTlsFiles, TlsError};

/// Both, so that one listener can speak gRPC and plain HTTPS.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) not_after_unix_ms: u64,
    /// Of the files' contents; not for security.
    pub(super) fingerprint: u64,
}

pub(super) fn server(files: &ServerTlsFiles, now_unix_ms: u64) -> Result<Loaded, TlsError> {
    let ServerTlsFiles { cert, key, client_ca } = files;
    let cert_pem = read(cert)?;
    let key_pem = read(key)?;
    let client_ca_pem = client_ca.as_deref().map(read).transpose()?;
    let mut hasher = DefaultHasher::new();
    (&cert_pem, &key_pem, &client_ca_pem).hash(&mut hasher);

    let certified = certified_key((cert, &cert_pem), (key, &key_pem))?;
    let not_after = not_after(cert, &certified)?;
    if u64::try_from(not_after).unwrap_or(0) < now_unix_ms / 1000 {
        return Err(TlsError::Expired {
            path: cert.clone(),
            not_after,
        });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rejected)?;
    let builder = match client_ca.as_deref().zip(client_ca_pem.as_deref()) {
        None => builder.with_no_client_auth(),
        Some((path, pem)) => {
            let roots = Arc::new(roots(path, pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|source| TlsError::BadCertificate {
                    path: path.to_owned(),
                    source: source.into(),
                })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = ALPN.map(Vec::from).to_vec();
    Ok(Loaded {
        config: Arc::new(config),
        not_after_unix_ms: u64::try_from(not_after).unwrap_or(0).saturating_mul(1000),
        fingerprint: hasher.finish(),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// The certificates of `pem`, as authorities to trust.
pub(super) fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|source| TlsError::BadCertificate {
            path: path.to_owned(),
            source: source.into(),
        })?;
    }
    Ok(roots)
}

/// A certificate chain with its key, checked to belong together.
pub(super) fn certified_key(cert: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<CertifiedKey, TlsError> {
    let (cert_path, cert_pem) = cert;
    let (key_path, key_pem) = key;
    let chain = certificates(cert_path, cert_pem)?;
    // The parser's error may quote the file: it goes no further.
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| TlsError::NoKey {
        path: key_path.to_owned(),
    })?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyMismatch {
            cert: cert_path.to_owned(),
            key: key_path.to_owned(),
        },
        rustls::Error::InvalidCertificate(_) => TlsError::BadCertificate {
            path: cert_path.to_owned(),
            source: error.into(),
        },
        _ => TlsError::BadKey {
            path: key_path.to_owned(),
        },
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::BadCertificate {
            path: path.to_owned(),
            source: source.into(),
        })?;
    if chain.is_empty() {
        Err(TlsError::NoCertificate { path: path.to_owned() })
    } else {
        Ok(chain)
    }
}

/// Expiry of the chain's first certificate, unix seconds.
fn not_after(path: &Path, certified: &CertifiedKey) -> Result<i64, TlsError> {
    let leaf = certified.cert.first().map_or(&[][..], |leaf| leaf);
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|source| TlsError::BadCertificate {
        path: path.to_owned(),
        source: source.into(),
    })?;
    Ok(leaf.validity().not_after.timestamp())
}
