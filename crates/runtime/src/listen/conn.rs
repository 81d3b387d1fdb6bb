//! One connection: bytes, and who is at the other end.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::{is_loopback, plain_identity};
use crate::identity::ClientIdentity;

/// Who is at the other end of a connection. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerInfo(Arc<Peer>);

#[derive(Debug, PartialEq, Eq)]
struct Peer {
    identity: ClientIdentity,
    remote: Option<SocketAddr>,
}

/// An accepted connection, whatever it came over.
#[derive(Debug)]
pub struct Conn {
    io: Io,
    peer: PeerInfo,
    /// Given back when the connection closes.
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

// === impl PeerInfo ===

impl PeerInfo {
    /// For tests of handlers; real ones come from [`Incoming`](super::Incoming).
    pub fn new(identity: ClientIdentity, remote: Option<SocketAddr>) -> Self {
        Self(Arc::new(Peer { identity, remote }))
    }

    pub fn identity(&self) -> &ClientIdentity {
        &self.0.identity
    }

    /// Absent on a unix socket.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.remote
    }

    /// On this machine: over the unix socket, or from a loopback address.
    pub fn is_local(&self) -> bool {
        self.remote().is_none_or(is_loopback)
    }
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Conn ===

impl Conn {
    pub(super) fn plain(stream: TcpStream, remote: SocketAddr, slot: OwnedSemaphorePermit) -> Self {
        // Answers are small and somebody waits for them; without it they are only slower.
        drop(stream.set_nodelay(true));
        Self {
            io: Io::Tcp(stream),
            peer: PeerInfo::new(plain_identity(remote), Some(remote)),
            _slot: slot,
        }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        remote: SocketAddr,
        identity: ClientIdentity,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        drop(stream.get_ref().0.set_nodelay(true));
        Self {
            io: Io::Tls(Box::new(stream)),
            peer: PeerInfo::new(identity, Some(remote)),
            _slot: slot,
        }
    }

    pub(super) fn unix(stream: UnixStream, slot: OwnedSemaphorePermit) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        let identity = ClientIdentity::Unix {
            uid: cred.uid(),
            gid: cred.gid(),
            pid: cred.pid(),
        };
        Ok(Self {
            io: Io::Unix(stream),
            peer: PeerInfo::new(identity, None),
            _slot: slot,
        })
    }

    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for Conn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

/// Calls one method of whichever stream it is.
macro_rules! on_io {
    ($conn:expr, $io:ident => $call:expr) => {
        match &mut $conn.get_mut().io {
            Io::Tcp(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
            Io::Unix(stream) => {
                let $io = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_io!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on_io!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_io!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
            Io::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_io!(self, io => io.poll_shutdown(cx))
    }
}
