//! The webhook on a socket: HTTPS, `/mutate` and `/health/ready`, as the real injector serves them.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::{get, post},
};
use berth_runtime::{
    Shutdown, SystemClock, Tasks,
    listen::{Listen, ListenError, serve_http},
    tls::{ServerTls, ServerTlsFiles},
};
use serde_json::Value;

use super::{Defaults, review};

/// A pod is never larger than etcd's limit on a request.
const BODY: usize = 3 << 20;

/// Listens there with that certificate and key, and serves until `shutdown`.
pub fn start(
    defaults: Defaults,
    address: SocketAddr,
    (cert, key): (PathBuf, PathBuf),
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Result<SocketAddr, ListenError> {
    let files = ServerTlsFiles {
        cert,
        key,
        client_ca: None,
    };
    let tls = ServerTls::new(files, SystemClock::shared());
    let mut listen = Listen::new();
    let address = listen.tcp(address, Some(tls.clone()))?;
    let stop = shutdown.started();
    drop(tasks.spawn("certificates", tls.follow(stop.clone())));
    let routes = Router::new()
        .route("/mutate", post(mutate))
        .route("/health/ready", get(async || "ok"))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(Arc::new(defaults));
    let incoming = listen.start(tasks, stop);
    drop(tasks.spawn("webhook", serve_http(incoming, routes, stop.clone())));
    Ok(address)
}

async fn mutate(State(defaults): State<Arc<Defaults>>, Json(request): Json<Value>) -> Json<Value> {
    Json(review(&request, &defaults))
}
