//! TLS from files that somebody else renews (cert-manager, OpenBao's agent): loaded, watched, swapped whole.
//!
//! Bad files never end a process and never replace good ones: [`ServerTls::status`] tells what is wrong, and new
//! connections get the certificate that was good last. As long as there was none, they are refused.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::SharedClock;
use crate::file_watch::FileWatch;
use crate::telemetry::with_causes;

mod client;
mod load;
mod peer;

pub use client::{ClientTls, ClientTlsFiles};
pub(crate) use peer::client_identity;

/// Chooses aws-lc-rs for every TLS connection of the process. First line of `main`: two providers in one process make
/// rustls panic. Later calls change nothing.
pub fn install_crypto_provider() {
    // Err means that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// Where a server's certificates lie; all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// With it, clients must show a certificate that one of these authorities signed.
    pub client_ca: Option<PathBuf>,
}

/// A server's TLS, kept fresh by [`Self::follow`]. Clones share one state.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: ServerTlsFiles,
    clock: SharedClock,
    serving: ArcSwapOption<ServerConfig>,
    /// Of the files that were looked at last, so that a wake-up without a change does nothing.
    status: watch::Sender<TlsStatus>,
    metrics: Metrics,
}

/// How it stands with a server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsStatus {
    /// When the certificate in use expires, unix milliseconds; `None` while there is none and connections are refused.
    pub serving_until_unix_ms: Option<u64>,
    /// What is wrong with the files as they are now.
    pub problem: Option<TlsProblem>,
    /// Of the contents in use, to see whether a look at the files brought anything new.
    fingerprint: u64,
}

/// Why the files as they are now are not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProblem {
    /// As [`TlsError::reason`].
    pub reason: &'static str,
    /// The error and its causes, in plain words.
    pub message: String,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    not_after_seconds: Gauge,
    loads: Counter,
    load_failures: Counter,
}

/// What can be wrong with certificate files. No variant holds a byte of a private key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no PEM certificate")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no PEM private key")]
    NoKey { path: PathBuf },
    #[error("{path} holds a certificate that cannot be used")]
    BadCertificate {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the private key {key} does not belong to the certificate {cert}")]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error("{path} holds a private key of a kind that cannot be used")]
    BadKey { path: PathBuf },
    #[error("the certificate {path} has expired (unix time {not_after} s)")]
    Expired { path: PathBuf, not_after: i64 },
    #[error("the certificates cannot be put to use")]
    Rejected(#[source] rustls::Error),
}

// === impl ServerTls ===

impl ServerTls {
    /// Loads the files. If they are bad the server refuses connections until they are good: see [`Self::status`].
    pub fn new(files: ServerTlsFiles, clock: SharedClock) -> Self {
        let (status, _) = watch::channel(TlsStatus::default());
        let serving = ArcSwapOption::empty();
        let tls = Self {
            shared: Arc::new(Shared {
                files,
                clock,
                serving,
                status,
                metrics: Metrics::default(),
            }),
        };
        tls.reload();
        tls
    }

    /// Adds this server's metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let Metrics {
            not_after_seconds,
            loads,
            load_failures,
        } = self.shared.metrics.clone();
        let registry = registry.sub_registry_with_prefix("tls");
        let help = "When the server certificate in use expires (unix time in seconds, 0: there is none)";
        registry.register("certificate_not_after_seconds", help, not_after_seconds);
        registry.register("loads", "Times that changed certificate files were put to use", loads);
        registry.register(
            "load_failures",
            "Times that certificate files were found bad",
            load_failures,
        );
    }

    /// Follows how it stands, for a condition or for readiness.
    pub fn status(&self) -> watch::Receiver<TlsStatus> {
        self.shared.status.subscribe()
    }

    /// Looks at the files whenever they may have changed, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let ServerTlsFiles { cert, key, client_ca } = &self.shared.files;
        let mut files = FileWatch::new(
            [Some(cert), Some(key), client_ca.as_ref()]
                .into_iter()
                .flatten()
                .map(|f| &**f),
        );
        loop {
            // Before the first wait too: the files may have changed before the watch was armed.
            self.reload();
            if stop.run_until_cancelled(files.changed()).await.is_none() {
                return;
            }
        }
    }

    /// For one more connection; `None` as long as there never was a good certificate.
    pub(crate) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.shared.serving.load_full().map(TlsAcceptor::from)
    }

    fn reload(&self) {
        let Shared {
            files,
            clock,
            serving,
            status,
            metrics,
        } = &*self.shared;
        let now_unix_ms = clock.now_unix_ms();
        let next = match load::server(files, now_unix_ms) {
            Ok(loaded) if loaded.fingerprint == status.borrow().fingerprint => TlsStatus {
                problem: None,
                ..status.borrow().clone()
            },
            Ok(loaded) => {
                let load::Loaded {
                    config,
                    not_after_unix_ms,
                    fingerprint,
                } = loaded;
                serving.store(Some(config));
                metrics.loads.inc();
                metrics
                    .not_after_seconds
                    .set(i64::try_from(not_after_unix_ms / 1000).unwrap_or(i64::MAX));
                info!(certificate = %files.cert.display(), not_after_unix_ms, "TLS certificate loaded");
                TlsStatus {
                    serving_until_unix_ms: Some(not_after_unix_ms),
                    problem: None,
                    fingerprint,
                }
            }
            Err(bad) => {
                let problem = TlsProblem {
                    reason: bad.reason(),
                    message: with_causes(&bad),
                };
                if status.borrow().problem.as_ref() != Some(&problem) {
                    let kept = serving.load().is_some();
                    let (error, reason) = (&bad as &dyn std::error::Error, bad.reason());
                    if bad.is_absence() && !kept {
                        // They come from somebody else, who may be late.
                        warn!(
                            error,
                            reason, "waiting for TLS files: connections are refused until they are there"
                        );
                    } else {
                        metrics.load_failures.inc();
                        error!(error, reason, kept, "bad TLS files");
                    }
                }
                TlsStatus {
                    problem: Some(problem),
                    ..status.borrow().clone()
                }
            }
        };
        status.send_if_modified(|current| {
            let changed = *current != next;
            *current = next;
            changed
        });
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.shared.files)
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

// === impl TlsError ===

impl TlsError {
    /// A file is not there.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Stable name of the error, for conditions, logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "CertificateUnreadable",
            Self::NoCertificate { .. } => "CertificateMissing",
            Self::NoKey { .. } => "KeyMissing",
            Self::BadCertificate { .. } => "CertificateInvalid",
            Self::KeyMismatch { .. } => "KeyMismatch",
            Self::BadKey { .. } => "KeyInvalid",
            Self::Expired { .. } => "CertificateExpired",
            Self::Rejected(_) => "TlsRejected",
        }
    }
}
