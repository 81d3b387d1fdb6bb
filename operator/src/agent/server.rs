//! The agent's service: `/healthz`, `/livez`, `/version`, `/metrics`, for the kubelet, the operator and monitoring.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use berth_runtime::{
    BuildInfo,
    listen::{Listen, ListenError},
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::{health::Health, metrics::Metrics, settings::Settings, view::View};

/// What the pages are made of.
#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(crate) build: BuildInfo,
    pub(crate) health: Health,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) k8s_version: watch::Receiver<String>,
    pub(crate) metrics: Metrics,
    pub(crate) process: Arc<Registry>,
}

/// Binds the address; one of every interface also where the machine has no IPv6.
pub(crate) fn bind(listen: &mut Listen, addr: SocketAddr) -> Result<SocketAddr, ListenError> {
    listen.plain_tcp_anywhere(addr).or_else(|error| {
        if addr.ip().is_unspecified() && addr.is_ipv6() {
            return listen.plain_tcp_anywhere(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port()));
        }
        Err(error)
    })
}

pub(crate) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(async || "ok\n"))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(pages))
}

async fn healthz(State(pages): State<Arc<Pages>>) -> Response {
    let (healthy, page) = pages
        .health
        .page(&pages.view.borrow().usage, &pages.k8s_version.borrow());
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(page)).into_response()
}

async fn version(State(pages): State<Arc<Pages>>) -> String {
    format!("{}+{}\n", pages.build.version, pages.build.git)
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let view = pages.view.borrow().clone();
    let settings = pages.settings.borrow().clone();
    match pages.metrics.page(&view, &settings, &pages.process) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
