//! Pages on the admin endpoint: what was decided, and what is known.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};

use crate::{cluster::Cluster, decisions::Decisions};

/// `/debug/decisions` (newest first) and `/debug/cluster`.
pub(crate) fn router(decisions: Arc<Decisions>, cluster: Arc<Cluster>) -> Router {
    let decisions = get(async |State(decisions): State<Arc<Decisions>>| Json(decisions.latest())).with_state(decisions);
    let cluster = get(async |State(cluster): State<Arc<Cluster>>| Json(cluster.view())).with_state(cluster);
    Router::new()
        .route("/debug/decisions", decisions)
        .route("/debug/cluster", cluster)
}
