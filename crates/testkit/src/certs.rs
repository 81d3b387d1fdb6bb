//! Certificates for tests: an authority, servers, clients; good, expired, or of a stranger.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A certificate authority.
#[derive(Debug)]
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What a certificate shall say.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    common_name: String,
    names: Vec<SanType>,
    expired: bool,
}

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct Issued {
    pub cert_pem: String,
    pub key_pem: String,
}

/// Where an [`Issued`] was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

// === impl Subject ===

impl Subject {
    pub fn new(common_name: &str) -> Self {
        Self {
            common_name: common_name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a DNS name.
    #[must_use]
    pub fn dns(mut self, name: &str) -> Self {
        self.names
            .push(SanType::DnsName(name.try_into().expect("an ASCII name")));
        self
    }

    /// Adds an IP address.
    #[must_use]
    pub fn ip(mut self, ip: &str) -> Self {
        self.names.push(SanType::IpAddress(ip.parse().expect("an IP address")));
        self
    }

    /// Adds a URI, such as a SPIFFE id.
    #[must_use]
    pub fn uri(mut self, uri: &str) -> Self {
        self.names.push(SanType::URI(uri.try_into().expect("an ASCII URI")));
        self
    }

    /// Was valid in the year 2000 only.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expired = true;
        self
    }
}

// === impl Ca ===

impl Ca {
    pub fn new(common_name: &str) -> Self {
        let mut params = params(&Subject::new(common_name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key pair");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a self-signed certificate"),
        }
    }

    pub fn cert_pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's private key: for a control plane that signs by itself.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Writes the authority's certificate to `DIR/NAME.crt`.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.crt"));
        fs::write(&path, self.cert_pem()).expect("a writable directory");
        path
    }

    /// A certificate for a server.
    pub fn server(&self, subject: &Subject) -> Issued {
        self.issue(subject, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a server on this machine.
    pub fn localhost(&self) -> Issued {
        self.server(&Subject::new("localhost").dns("localhost").ip("127.0.0.1").ip("::1"))
    }

    /// A certificate for a client.
    pub fn client(&self, subject: &Subject) -> Issued {
        self.issue(subject, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, subject: &Subject, usage: ExtendedKeyUsagePurpose) -> Issued {
        let mut params = params(subject);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key pair");
        let cert = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn params(subject: &Subject) -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, subject.common_name.as_str());
    params.subject_alt_names.clone_from(&subject.names);
    if subject.expired {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2000, 12, 31);
    }
    params
}

// === impl Issued ===

impl Issued {
    /// Writes `DIR/NAME.crt` and `DIR/NAME.key`, replacing what is there.
    pub fn write(&self, dir: &Path, name: &str) -> IssuedFiles {
        let files = IssuedFiles {
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        fs::write(&files.cert, &self.cert_pem).expect("a writable directory");
        fs::write(&files.key, &self.key_pem).expect("a writable directory");
        files
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("cert_pem", &self.cert_pem)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::pem::parse_x509_pem;

    use super::*;

    /// Issuer, subject, alternative names, usable as a server, usable as a client, valid now.
    fn look(pem: &str) -> (String, String, String, bool, bool, bool) {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        let cert = pem.parse_x509().unwrap();
        let names = cert
            .subject_alternative_name()
            .unwrap()
            .map(|names| format!("{:?}", names.value.general_names));
        let usage = cert.extended_key_usage().unwrap();
        let (server, client) = usage.map_or((false, false), |usage| {
            (usage.value.server_auth, usage.value.client_auth)
        });
        let valid = cert.validity().is_valid();
        (
            cert.issuer().to_string(),
            cert.subject().to_string(),
            names.unwrap_or_default(),
            server,
            client,
            valid,
        )
    }

    #[test]
    fn certificates_say_what_they_were_asked_to() {
        let ca = Ca::new("authority");
        let (issuer, subject, _, _, _, valid) = look(&ca.cert_pem());
        assert_eq!(
            (issuer.as_str(), subject.as_str(), valid),
            ("CN=authority", "CN=authority", true)
        );

        let (issuer, subject, names, server, client, valid) = look(&ca.localhost().cert_pem);
        assert_eq!((issuer.as_str(), subject.as_str()), ("CN=authority", "CN=localhost"));
        assert!(names.contains("localhost") && names.contains("127, 0, 0, 1"), "{names}");
        assert!(server && !client && valid);

        let issued = ca.client(&Subject::new("c").uri("spiffe://a/b").expired());
        let (_, _, names, server, client, valid) = look(&issued.cert_pem);
        assert!(names.contains("spiffe://a/b") && !server && client && !valid, "{names}");
    }

    #[test]
    fn certificates_are_written_where_they_are_said_to_be_and_keys_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let issued = Ca::new("authority").localhost();
        let files = issued.write(dir.path(), "server");
        assert_eq!(fs::read_to_string(files.cert).unwrap(), issued.cert_pem);
        assert_eq!(fs::read_to_string(files.key).unwrap(), issued.key_pem);
        assert!(!format!("{issued:?}").contains("PRIVATE KEY"));
    }
}
