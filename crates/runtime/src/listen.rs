//! Where a server can be reached: TCP (plain only on loopback, else TLS) and a unix socket, as one stream of
//! connections that know who is at the other end.
//!
//! ```text
//! Listen::tcp, Listen::unix  (bind, fail early)  ->  start  ->  accept tasks  ->  Incoming  ->  tonic or serve_http
//! ```
//! A handler finds the client as [`PeerInfo`] among the request's extensions (tonic) or as `ConnectInfo<PeerInfo>`
//! (axum).

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Tasks;
use crate::identity::ClientIdentity;
use crate::tls::{ServerTls, client_identity};

mod conn;
mod http;
mod unix;

pub use conn::{Conn, PeerInfo};
pub use http::serve_http;
use unix::UnixEndpoint;

/// Connections that one endpoint serves at a time; more wait in the kernel's backlog. A scheduler replica needs one,
/// berthctl one per call: this is far away from normal, and bounds memory (tens of KiB each).
const MAX_CONNECTIONS: usize = 512;
/// Accepted connections that the server has not taken over yet. It does so at once.
const ACCEPTED: usize = 16;
/// From the first byte to a finished TLS handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// After a failed accept (out of file descriptors): time for connections to close.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Endpoints that are bound and not yet served.
#[derive(Debug, Default)]
pub struct Listen {
    tcp: Vec<TcpEndpoint>,
    unix: Vec<UnixEndpoint>,
}

#[derive(Debug)]
struct TcpEndpoint {
    listener: TcpListener,
    tls: Option<ServerTls>,
}

/// Connections of all endpoints, for tonic's `serve_with_incoming_shutdown` and for [`serve_http`]. It ends, and the
/// endpoints close, when the token given to [`Listen::start`] is cancelled.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<Conn>,
}

/// An endpoint cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "not serving {0} without TLS: whoever reaches that address could talk to it; listen on 127.0.0.1, or give \
         --tls-cert and --tls-key, and --tls-client-ca to know the clients"
    )]
    PlainTcpNotLoopback(SocketAddr),
    #[error("cannot listen on {addr}")]
    Tcp {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{path} is in use: another process answers on it; stop it, or choose another --socket")]
    SocketInUse { path: PathBuf },
    #[error("{path} exists and is no socket: move it away, or choose another --socket")]
    NotASocket { path: PathBuf },
    #[error("cannot listen on the unix socket {path}")]
    Unix {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

// === impl Listen ===

impl Listen {
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a TCP address (port 0: any free port) and returns what was bound. Without TLS it must be a loopback address.
    /// Call it inside the tokio runtime.
    ///
    /// # Errors
    /// Plain TCP that is not loopback, or the operating system refuses.
    pub fn tcp(&mut self, addr: SocketAddr, tls: Option<ServerTls>) -> Result<SocketAddr, ListenError> {
        if tls.is_none() && !is_loopback(addr) {
            return Err(ListenError::PlainTcpNotLoopback(addr));
        }
        self.bind_tcp(addr, tls)
    }

    /// For what is plain by nature (the admin endpoint, health pages) and guards what is not for everybody itself.
    pub fn plain_tcp_anywhere(&mut self, addr: SocketAddr) -> Result<SocketAddr, ListenError> {
        self.bind_tcp(addr, None)
    }

    fn bind_tcp(&mut self, addr: SocketAddr, tls: Option<ServerTls>) -> Result<SocketAddr, ListenError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            let bound = listener.local_addr()?;
            self.tcp.push(TcpEndpoint {
                listener: TcpListener::from_std(listener)?,
                tls,
            });
            Ok(bound)
        };
        bind().map_err(|source| ListenError::Tcp { addr, source })
    }

    /// Binds a unix socket that its owner and its group may use (mode 0660). A socket that nobody answers on any more is
    /// replaced; a missing directory is made. The socket is removed when the server ends. Call it inside the runtime.
    ///
    /// # Errors
    /// Somebody answers on it, it is something else than a socket, or the operating system refuses.
    pub fn unix(&mut self, path: &Path) -> Result<(), ListenError> {
        self.unix.push(UnixEndpoint::bind(path)?);
        Ok(())
    }

    /// Starts to accept, until `stop`.
    pub fn start(self, tasks: &Tasks, stop: &CancellationToken) -> Incoming {
        let (sender, accepted) = mpsc::channel(ACCEPTED);
        for endpoint in self.tcp {
            drop(
                tasks.spawn(
                    "accept-tcp",
                    stop.clone()
                        .run_until_cancelled_owned(accept_tcp(endpoint, sender.clone())),
                ),
            );
        }
        for endpoint in self.unix {
            let accept = accept_unix(endpoint, sender.clone());
            drop(tasks.spawn("accept-unix", stop.clone().run_until_cancelled_owned(accept)));
        }
        Incoming { accepted }
    }
}

async fn accept_unix(endpoint: UnixEndpoint, accepted: mpsc::Sender<Conn>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match endpoint.accept().await {
            Ok(stream) => match Conn::unix(stream, slot) {
                Ok(conn) => {
                    if accepted.send(conn).await.is_err() {
                        return;
                    }
                }
                Err(error) => debug!(
                    error = &error as &dyn std::error::Error,
                    "client gone before it was known"
                ),
            },
            Err(error) => wait_after(&error).await,
        }
    }
}

async fn accept_tcp(endpoint: TcpEndpoint, accepted: mpsc::Sender<Conn>) {
    let TcpEndpoint { listener, tls } = endpoint;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Bounded by the slots. Dropped, and with it every unfinished handshake, when accepting stops.
    let mut handshakes = JoinSet::new();
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        // Let go of handshakes that are over.
        while handshakes.try_join_next().is_some() {}
        match (listener.accept().await, &tls) {
            (Ok((stream, remote)), None) => {
                if accepted.send(Conn::plain(stream, remote, slot)).await.is_err() {
                    return;
                }
            }
            (Ok((stream, remote)), Some(tls)) => {
                handshakes.spawn(handshake(stream, remote, tls.clone(), slot, accepted.clone()));
            }
            (Err(error), _) => wait_after(&error).await,
        }
    }
}

async fn handshake(
    stream: TcpStream,
    remote: SocketAddr,
    tls: ServerTls,
    slot: OwnedSemaphorePermit,
    accepted: mpsc::Sender<Conn>,
) {
    let Some(acceptor) = tls.acceptor() else {
        debug!(%remote, "connection refused: there is no certificate yet");
        return;
    };
    match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let identity = client_identity(stream.get_ref().1.peer_certificates());
            // Err means that the server has ended.
            drop(accepted.send(Conn::tls(stream, remote, identity, slot)).await);
        }
        Ok(Err(error)) => debug!(%remote, error = &error as &dyn std::error::Error, "TLS handshake failed"),
        Err(_) => debug!(%remote, "TLS handshake took too long"),
    }
}

async fn wait_after(error: &io::Error) {
    // A client that hung up while it waited is no reason to wait.
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    warn!(error = error as &dyn std::error::Error, "cannot accept connections");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

/// The identity of whoever connects over plain TCP.
fn plain_identity(remote: SocketAddr) -> ClientIdentity {
    if is_loopback(remote) {
        ClientIdentity::Loopback
    } else {
        ClientIdentity::Anonymous
    }
}

/// 127.0.0.1 is also ::ffff:127.0.0.1, where a socket serves both families.
fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

// === impl Incoming ===

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|conn| conn.map(Ok))
    }
}

#[cfg(test)]
mod tests;
