//! A small client of the API, over HTTP or HTTPS: one connection per request, a deadline on each.
//!
//! Works the same against the stand-in and the real server. It never shows its token.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// More than any answer here has.
const LONGEST: u64 = 4 << 20;

/// One server, and who asks.
#[derive(Clone)]
pub struct BaoClient {
    address: String,
    ca_pem: Option<String>,
    token: Option<String>,
    deadline: Duration,
}

/// Why there is no data.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{0} is no address: http://HOST:PORT or https://HOST:PORT")]
    Address(String),
    #[error("the authority's certificate cannot be used")]
    Ca,
    #[error("cannot reach {address}")]
    Unreachable {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} did not answer within {seconds} s")]
    Late { address: String, seconds: f64 },
    #[error("{address} answered nonsense")]
    Nonsense { address: String },
    /// The server's own words.
    #[error("status {status}: {errors}")]
    Refused { status: u16, errors: String },
}

// === impl BaoClient ===

impl BaoClient {
    /// `address` is `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.trim_end_matches('/').to_owned(),
            ca_pem: None,
            token: None,
            deadline: Duration::from_secs(10),
        }
    }

    /// Trusts servers whose certificate one of these authorities signed.
    #[must_use]
    pub fn ca(mut self, pem: impl Into<String>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    #[must_use]
    pub fn token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The longest that a request may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// `GET /v1/PATH`: the whole body.
    pub async fn read(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("GET", path, &Value::Null).await
    }

    /// `PUT /v1/PATH`: the whole body; null where there is none.
    pub async fn write(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.ask("PUT", path, &body).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask("DELETE", path, &Value::Null).await
    }

    /// Logs in with a JWT at `auth/jwt` (or another mount) and returns the answer's `auth`.
    pub async fn login(&self, mount: &str, role: &str, jwt: &str) -> Result<Value, ClientError> {
        let path = format!("{}/login", mount.trim_matches('/'));
        let mut body = self.write(&path, json!({"role": role, "jwt": jwt})).await?;
        Ok(body["auth"].take())
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, ClientError> {
        let (status, body) = self
            .exchange(method, &format!("/v1/{}", path.trim_start_matches('/')), body)
            .await?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let errors = body["errors"].as_array().into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
        Err(ClientError::Refused {
            status,
            errors: errors.join("; "),
        })
    }

    /// Any request: status and body, whatever the status says.
    pub async fn exchange(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ClientError> {
        timeout(self.deadline, self.exchange_now(method, path, body))
            .await
            .map_err(|_| ClientError::Late {
                address: self.address.clone(),
                seconds: self.deadline.as_secs_f64(),
            })?
    }

    async fn exchange_now(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ClientError> {
        let bad_address = || ClientError::Address(self.address.clone());
        let (scheme, host) = self.address.split_once("://").ok_or_else(bad_address)?;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let token = self.token.as_deref().map(|token| format!("X-Vault-Token: {token}\r\n"));
        let token = token.unwrap_or_default();
        // HTTP/1.0: the answer ends with the connection and is not sent in chunks.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nX-Vault-Request: true\r\n{token}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let unreachable = |source| ClientError::Unreachable {
            address: self.address.clone(),
            source,
        };
        let stream = TcpStream::connect(host).await.map_err(unreachable)?;
        let answer = match scheme {
            "http" => converse(stream, &request).await,
            "https" => {
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
                let name = ServerName::try_from(name).map_err(|_| bad_address())?;
                let tls = self.tls()?.connect(name, stream).await.map_err(unreachable)?;
                converse(tls, &request).await
            }
            _ => return Err(bad_address()),
        };
        let answer = answer.map_err(unreachable)?;
        parse(&answer).ok_or_else(|| ClientError::Nonsense {
            address: self.address.clone(),
        })
    }

    fn tls(&self) -> Result<TlsConnector, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_deref().unwrap_or_default().as_bytes()) {
            let certificate = certificate.map_err(|_| ClientError::Ca)?;
            roots.add(certificate).map_err(|_| ClientError::Ca)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| ClientError::Ca)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

impl fmt::Debug for BaoClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaoClient")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

// === impl ClientError ===

impl ClientError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "Address",
            Self::Ca => "Ca",
            Self::Unreachable { .. } => "Unreachable",
            Self::Late { .. } => "Late",
            Self::Nonsense { .. } => "Nonsense",
            Self::Refused { status: 403, .. } => "PermissionDenied",
            Self::Refused { status: 503, .. } => "Sealed",
            Self::Refused { .. } => "Refused",
        }
    }

    /// The server's status, where it answered.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> std::io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(LONGEST).read_to_end(&mut answer).await {
        // A TLS server that closes without saying so: the answer's own length tells whether it is whole.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(answer),
        Err(error) => Err(error),
        Ok(_) => Ok(answer),
    }
}

/// Status and JSON body; no body is null.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let body = if body.iter().all(u8::is_ascii_whitespace) {
        Value::Null
    } else {
        serde_json::from_slice(body).ok()?
    };
    Some((status, body))
}
