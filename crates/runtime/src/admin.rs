//! The admin endpoint: what monitoring and operators ask a process, over plain HTTP.
//!
//! | path | answers |
//! |---|---|
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /livez` | 200 as long as the runtime answers |
//! | `GET /readyz` | 200, or 503 with one line per part that is not ready |
//! | `GET, PUT /log-level` | the filter in force; a new one (local clients only) |
//! | `GET /debug/config` | the configuration, without secrets (local clients only) |
//! | `GET /debug/tasks` | names of the running tasks (local clients only) |
//!
//! "Local" is a loopback address: over `kubectl port-forward` an operator is one. A program adds its own pages as a
//! router, under `/debug/` if they are not for everybody.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::listen::{Listen, ListenError, PeerInfo, serve_http};
use crate::telemetry::{LogLevel, TelemetryError};
use crate::{Readiness, Tasks};

/// For one request. Scrapes are built in memory in milliseconds.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// The longest body is a log filter.
const MAX_BODY_BYTES: usize = 4096;

/// What the pages are made of.
#[derive(Debug, Clone)]
pub struct AdminState {
    pub registry: Arc<Registry>,
    pub readiness: Readiness,
    pub tasks: Tasks,
    pub log_level: LogLevel,
    /// See [`config_page`].
    pub config: serde_json::Value,
}

/// An admin endpoint that is bound and not yet served.
#[derive(Debug)]
pub struct Admin {
    listen: Listen,
    addr: SocketAddr,
}

/// What `/debug/config` shows of `config`. A secret must be skipped by its type (`#[serde(skip)]`).
pub fn config_page(config: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(config).unwrap_or_else(|error| format!("cannot be shown: {error}").into())
}

impl Admin {
    /// Binds the address (port 0: any free port). Call it inside the tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn bind(addr: SocketAddr) -> Result<Self, ListenError> {
        let mut listen = Listen::new();
        let addr = listen.plain_tcp_anywhere(addr)?;
        Ok(Self { listen, addr })
    }

    pub fn bound_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves these pages and `more` (or [`Router::new`]) until `stop`, which should be one of the last phases of a
    /// shutdown.
    pub fn serve(self, state: AdminState, more: Router, stop: &CancellationToken) {
        let tasks = state.tasks.clone();
        let incoming = self.listen.start(&tasks, stop);
        drop(tasks.spawn("admin", serve_http(incoming, router(state, more), stop.clone())));
    }
}

fn router(state: AdminState, more: Router) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/log-level", get(get_log_level).put(put_log_level))
        .route(
            "/debug/config",
            get(async |State(state): State<AdminState>| Json(state.config)),
        )
        .route(
            "/debug/tasks",
            get(async |State(state): State<AdminState>| Json(state.tasks.running())),
        )
        .with_state(state)
        .merge(more)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(local_only))
        .layer(middleware::from_fn(with_deadline))
}

async fn with_deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "this page took too long\n").into_response(),
    }
}

/// Keeps what shows or changes the inside of the process from the network.
async fn local_only(ConnectInfo(peer): ConnectInfo<PeerInfo>, request: Request, next: Next) -> Response {
    let is_open = request.method() == Method::GET && !request.uri().path().starts_with("/debug/");
    if is_open || peer.is_local() {
        return next.run(request).await;
    }
    (
        StatusCode::FORBIDDEN,
        "only for clients on this machine, e.g. over kubectl port-forward\n",
    )
        .into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &state.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(state): State<AdminState>) -> Response {
    let pending = state.readiness.pending();
    if pending.is_empty() {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for part in pending {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {} (for {} s)", part.name, part.reason, part.since.as_secs());
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn get_log_level(State(state): State<AdminState>) -> Response {
    match state.log_level.get() {
        Ok(filter) => format!("{filter}\n").into_response(),
        Err(error) => refuse(&error),
    }
}

async fn put_log_level(State(state): State<AdminState>, body: Bytes) -> Response {
    let filter = String::from_utf8_lossy(&body);
    match state.log_level.set(filter.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &TelemetryError) -> Response {
    let status = match error {
        TelemetryError::BadFilter { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}

#[cfg(test)]
mod tests;
