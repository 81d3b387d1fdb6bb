//! HTTP/1.1 and HTTP/2 for axum routes. Written here because `axum::serve` gives a client that never finishes its
//! request all the time in the world.

use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Conn, Incoming};

/// From the connection's start, or the last answer, to a complete request head: also the time an idle connection is kept.
/// Longer than Go's clients keep one (90 s): the side that closes first must be the client, or kube-scheduler now and then
/// sends a request into a closing connection and a pod's attempt fails.
const HEAD_DEADLINE: Duration = Duration::from_mins(2);
/// An idle HTTP/2 client is asked this often whether it still lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// Serves `routes` until `stop`, and then until requests in progress are answered. Handlers find the client as
/// `ConnectInfo<PeerInfo>`. Give routes that may take long a deadline of their own.
pub async fn serve_http(mut incoming: Incoming, routes: Router, stop: CancellationToken) {
    // Bounded by the connections that `Incoming` lets in.
    let mut connections = JoinSet::new();
    while let Some(Some(conn)) = stop.run_until_cancelled(incoming.accepted.recv()).await {
        // Let go of connections that are closed.
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(conn, routes.clone(), stop.clone()));
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(conn: Conn, routes: Router, stop: CancellationToken) {
    let routes = routes.layer(Extension(ConnectInfo(conn.peer().clone())));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .max_concurrent_streams(MAX_STREAMS);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(conn), TowerToHyperService::new(routes)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(error = &*error, "HTTP connection ended early");
    }
}
