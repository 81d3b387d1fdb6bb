//! The serving certificate out of a Secret, into the files that TLS watches. A Secret that is gone or broken leaves what was
//! good last. Knows nothing of requests.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use berth_runtime::{
    BuildInfo,
    kubernetes::{Access, watch::one},
    tls::ServerTlsFiles,
};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use thiserror::Error;
use tracing::{info, warn};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// Between looks for a way to the API server, which may be late.
const RETRY: Duration = Duration::from_secs(2);

/// Where the certificate is taken from and kept.
#[derive(Debug)]
pub(super) struct FromSecret {
    pub(super) access: Access,
    pub(super) build: BuildInfo,
    pub(super) namespace: String,
    pub(super) name: String,
    /// This process's alone.
    pub(super) dir: PathBuf,
}

/// Never with a byte of a key.
#[derive(Debug, Error)]
enum CertificateError {
    #[error("the Secret has no {0}")]
    Missing(&'static str),
    #[error("the certificate cannot be written to {path}: give a directory that can be by --tls-dir", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl CertificateError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "SecretIncomplete",
            Self::Write { .. } => "CertificateNotWritten",
        }
    }
}

impl FromSecret {
    /// The files that [`Self::run`] writes.
    pub(super) fn files(dir: &Path) -> ServerTlsFiles {
        ServerTlsFiles {
            cert: dir.join(CERTIFICATE),
            key: dir.join(KEY),
            // The API server shows no certificate unless it is told to, and nothing here is secret or changes anything.
            client_ca: None,
        }
    }

    /// For ever.
    pub(super) async fn run(self) {
        let client = self.client().await;
        let secrets: Api<Secret> = Api::namespaced(client, &self.namespace);
        let mut seen = one(secrets, &self.name);
        let mut told: Option<String> = None;
        while let Some(secret) = seen.next().await {
            let trouble = match secret {
                Ok(Some(secret)) => match self.keep(&secret) {
                    Ok(()) => None,
                    Err(error) => {
                        let reason = error.reason();
                        let error = &error as &dyn std::error::Error;
                        warn!(error, reason, secret = self.name, "no new certificate");
                        continue;
                    }
                },
                Ok(None) => Some("the Secret of the certificate is not there".to_owned()),
                Err(error) => Some(format!("the Secret of the certificate cannot be watched: {error}")),
            };
            // Once per kind of trouble, not once per attempt.
            if let Some(trouble) = &trouble
                && told.as_ref() != Some(trouble)
            {
                let (namespace, secret) = (&self.namespace, &self.name);
                warn!(namespace, secret, "{trouble}: what was good last is served");
            }
            told = trouble;
        }
    }

    /// Files may be late, as secrets are.
    async fn client(&self) -> Client {
        loop {
            match self.access.client(self.build).await {
                Ok(client) => return client,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "no way to the API server yet: trying on");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn keep(&self, secret: &Secret) -> Result<(), CertificateError> {
        let bytes = |name| {
            let data = secret.data.as_ref().and_then(|data| data.get(name));
            data.map(|bytes| bytes.0.as_slice())
                .ok_or(CertificateError::Missing(name))
        };
        let (certificate, key) = (bytes(CERTIFICATE)?, bytes(KEY)?);
        let is_kept = |name, bytes: &[u8]| fs::read(self.dir.join(name)).is_ok_and(|kept| kept == bytes);
        if is_kept(CERTIFICATE, certificate) && is_kept(KEY, key) {
            return Ok(());
        }
        write(&self.dir, certificate, key).map_err(|source| CertificateError::Write {
            path: self.dir.clone(),
            source,
        })?;
        info!(secret = self.name, "the certificate of the Secret is put to use");
        Ok(())
    }
}

/// The key is readable to nobody else, and there is never a certificate without its key.
fn write(dir: &Path, certificate: &[u8], key: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in [(KEY, key), (CERTIFICATE, certificate)] {
        let unfinished = dir.join(format!(".{name}"));
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).truncate(true).mode(0o600);
        io::Write::write_all(&mut options.open(&unfinished)?, bytes)?;
        fs::rename(unfinished, dir.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn from_secret(dir: &Path) -> FromSecret {
        FromSecret {
            access: Access::ServiceAccount,
            build: BuildInfo::of("webhook-server"),
            namespace: "nvca-system".to_owned(),
            name: "certificate".to_owned(),
            dir: dir.join("tls"),
        }
    }

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let entries = entries
            .iter()
            .map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
        Secret {
            data: Some(entries.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn the_secrets_pair_is_kept_for_this_user_alone_and_half_a_pair_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let from = from_secret(dir.path());
        from.keep(&secret(&[(CERTIFICATE, "c1"), (KEY, "k1")])).unwrap();
        let error = from.keep(&secret(&[(CERTIFICATE, "c2")])).unwrap_err();
        assert_eq!(error.reason(), "SecretIncomplete");
        let files = FromSecret::files(&from.dir);
        assert_eq!(
            fs::read_to_string(&files.cert).unwrap(),
            "c1",
            "what was good last stays"
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&files.key).unwrap().permissions());
        assert_eq!(mode & 0o077, 0);
        from.keep(&secret(&[(CERTIFICATE, "c2"), (KEY, "k2")])).unwrap();
        assert_eq!(fs::read_to_string(&files.key).unwrap(), "k2");
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tls"), "a file").unwrap();
        let error = from_secret(dir.path())
            .keep(&secret(&[(CERTIFICATE, "c"), (KEY, "k")]))
            .unwrap_err();
        assert_eq!(error.reason(), "CertificateNotWritten");
        assert!(error.to_string().contains("--tls-dir"), "{error}");
    }
}
