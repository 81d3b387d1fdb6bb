//! Pages for whoever runs a test: the state, the exchanges, faults, the clock. On the admin endpoint, for local clients.
//!
//! | path | does |
//! |---|---|
//! | `GET /debug/state` | everything that is stored |
//! | `GET /debug/exchanges` | what was asked and answered, without headers and bodies |
//! | `GET, PUT /debug/faults` | a list of [`Fault`]; an empty list ends them |
//! | `PUT /debug/advance/{seconds}` | the service's clock goes on |

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, put},
};
use serde_json::Value;

use super::Fake;
pub use super::faults::{Exchange, Fault};

/// The pages.
pub fn pages(fake: Arc<Fake>) -> Router {
    Router::new()
        .route("/debug/state", get(state))
        .route("/debug/exchanges", get(exchanges))
        .route("/debug/faults", get(faults).put(set_faults))
        .route("/debug/advance/{seconds}", put(advance))
        .with_state(fake)
}

async fn state(State(fake): State<Arc<Fake>>) -> Json<Value> {
    Json(fake.read(|state| serde_json::to_value(state).unwrap_or_default()))
}

async fn exchanges(State(fake): State<Arc<Fake>>) -> Json<Vec<Exchange>> {
    Json(fake.faults.lock().exchanges())
}

async fn faults(State(fake): State<Arc<Fake>>) -> Json<Vec<Fault>> {
    Json(fake.faults.lock().active().to_vec())
}

async fn set_faults(State(fake): State<Arc<Fake>>, Json(wanted): Json<Vec<Fault>>) -> StatusCode {
    fake.faults.lock().set(wanted);
    StatusCode::NO_CONTENT
}

async fn advance(State(fake): State<Arc<Fake>>, Path(seconds): Path<u32>) -> StatusCode {
    fake.faults.lock().advance(u64::from(seconds) * 1000);
    StatusCode::NO_CONTENT
}
