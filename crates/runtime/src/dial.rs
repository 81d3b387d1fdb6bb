//! The way to a server of ours: over TCP, TLS or a unix socket, as a tonic channel that connects when it is used and
//! again when the connection is lost.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::tls::{ClientTls, TlsError};

/// TCP connection and TLS handshake together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// An open stream whose server vanished without a word is noticed after this and [`KEEPALIVE_DEADLINE`].
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// Where a server is: `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub enum Target {
    Http(Uri),
    Https(Uri),
    Unix(PathBuf),
}

/// The text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a server: write http://HOST:PORT, https://HOST:PORT or unix:///PATH")]
pub struct ParseTargetError(String);

/// There is no way to the target.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0} needs a certificate authority to trust")]
    NoAuthority(Target),
    #[error("cannot connect to {target}")]
    BadTarget {
        target: Target,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Why one attempt to connect by TLS failed; it reaches the caller as source of the call's status.
#[derive(Debug, thiserror::Error)]
enum TlsDialError {
    #[error("the client's TLS files are bad")]
    Files(#[from] TlsError),
    #[error("the host name cannot be in a certificate")]
    Name(#[from] InvalidDnsNameError),
    #[error("no connection")]
    Connect(#[from] io::Error),
}

// === impl Target ===

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseTargetError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(bad())
            };
        }
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        match uri.scheme_str() {
            Some("http") if is_bare => Ok(Self::Http(uri)),
            Some("https") if is_bare => Ok(Self::Https(uri)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without the slash that `Uri` adds.
            Self::Http(uri) | Self::Https(uri) => f.write_str(uri.to_string().trim_end_matches('/')),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

// === impl DialError ===

impl DialError {
    /// Stable name of the error.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoAuthority(_) => "NoAuthority",
            Self::BadTarget { .. } => "BadTarget",
        }
    }
}

/// A channel to `target` that connects at the first call. `tls` is used for `https` only, and its files are read anew
/// for each connection. Calls have no deadline of their own: set one on each request.
///
/// # Errors
/// `https` without `tls`. That a server cannot be reached is told by the calls.
pub fn channel(target: &Target, tls: Option<&ClientTls>) -> Result<Channel, DialError> {
    let bad = |source| DialError::BadTarget {
        target: target.clone(),
        source,
    };
    let tuned = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_DEADLINE)
    };
    match target {
        Target::Http(uri) => Ok(tuned(Endpoint::from(uri.clone())).connect_lazy()),
        Target::Unix(_) => Ok(tuned(Endpoint::from_shared(target.to_string()).map_err(bad)?).connect_lazy()),
        Target::Https(uri) => {
            let tls = tls.ok_or_else(|| DialError::NoAuthority(target.clone()))?.clone();
            // tonic would wrap an https URI in a TLS of its own, which reads files only once.
            let plain = uri.to_string().replacen("https://", "http://", 1);
            let endpoint = tuned(Endpoint::from_shared(plain).map_err(bad)?).origin(uri.clone());
            let uri = uri.clone();
            let connect = tower::service_fn(move |_: Uri| connect_tls(uri.clone(), tls.clone()));
            Ok(endpoint.connect_with_connector_lazy(connect))
        }
    }
}

async fn connect_tls(uri: Uri, tls: ClientTls) -> Result<TokioIo<TlsStream<TcpStream>>, TlsDialError> {
    let config = tls.load()?;
    // A bracketed IPv6 address is bare in a certificate.
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host)?;
    Ok(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
}

#[cfg(test)]
mod tests;
