//! kube-scheduler's extender protocol over HTTP: `/filter`, `/prioritize`, `/preempt`, `/bind`.
//!
//! Owns what comes over the wire: limits, deadlines, the form of answers. All but bind are pure towards the
//! cluster: no network call, nothing reserved. Facts about the protocol: `k8s.io/kube-scheduler/extender/v1`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Query, Request, State},
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use berth_kube_api::extender::ExtenderBindingResult;
use berth_runtime::{SharedClock, telemetry::trace_context::request_span};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, time::timeout};
use tower_http::trace::TraceLayer;
use tracing::warn;

mod bind;
mod error;
mod filter;
mod preempt;
mod prioritize;
#[cfg(test)]
mod tests;

use error::ExtenderError;

use crate::{cluster::Cluster, decide::Decider, decisions::Decisions, metrics::Metrics, pods::Pods, reserve::Reserver};

const HELP: &str = "berth-scheduler, extender for kube-scheduler\n\n\
    POST /filter      ExtenderArgs         -> ExtenderFilterResult (?top=N: the N best nodes, 0: all that fit)\n\
    POST /prioritize  ExtenderArgs         -> HostPriorityList\n\
    POST /preempt     ExtenderPreemptionArgs -> ExtenderPreemptionResult\n\
    POST /bind        ExtenderBindingArgs  -> ExtenderBindingResult\n\n\
    Decisions and nodes: /debug/decisions and /debug/cluster on the admin endpoint.\n";

/// What requests are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes of one body. With `nodeCacheCapable: false` kube-scheduler sends whole nodes, some 10 to 30 KiB each.
    pub max_body_bytes: usize,
    /// Requests served at a time. kube-scheduler filters one pod at a time and binds some in parallel.
    pub max_requests: usize,
    /// How many nodes filter leaves where the request does not say.
    pub filter_top: Top,
    /// From the head of a request to the end of its body.
    #[serde(skip)]
    pub body_deadline: Duration,
}

/// How many nodes filter leaves at most: the best ones. What is not among them would hardly be chosen, but cost kube-scheduler the
/// scores of all its plugins, and both of them the names on the wire. Of one node it asks no score at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Top(usize);

impl From<u16> for Top {
    /// 0: all of them.
    fn from(top: u16) -> Self {
        Self(if top == 0 { usize::MAX } else { top.into() })
    }
}

/// What comes after the verb: `filterVerb: filter?top=1` in kube-scheduler's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterQuery {
    top: Option<u16>,
}

/// What the verbs work on.
#[derive(Debug)]
pub(crate) struct Extender {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) reserver: Reserver,
    pub(crate) decider: Arc<Decider>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
    pub(crate) limits: Limits,
}

/// An answer, and the metric's label for it.
struct Answer {
    response: Response,
    outcome: &'static str,
}

pub(crate) fn router(extender: Arc<Extender>) -> Router {
    let slots = Arc::new(Semaphore::new(extender.limits.max_requests));
    let max_body = extender.limits.max_body_bytes;
    let verbs = Verbs { extender, slots };
    Router::new()
        .route("/", get(async || HELP))
        .route("/filter", post(filter))
        .route("/prioritize", post(prioritize))
        .route("/preempt", post(preempt))
        .route("/bind", post(bind))
        .layer(DefaultBodyLimit::max(max_body))
        .layer(TraceLayer::new_for_http().make_span_with(request_span))
        .with_state(verbs)
}

#[derive(Debug, Clone)]
struct Verbs {
    extender: Arc<Extender>,
    slots: Arc<Semaphore>,
}

async fn filter(State(verbs): State<Verbs>, uri: Uri, request: Request) -> Response {
    verbs
        .serve("filter", request, async |extender, body| {
            let query = Query::<FilterQuery>::try_from_uri(&uri).map_err(|it| ExtenderError::Query(it.body_text()))?;
            let top = query.top.map_or(extender.limits.filter_top, Top::from);
            Ok(extender.filter(parse("ExtenderArgs", &body)?, top))
        })
        .await
}

async fn prioritize(State(verbs): State<Verbs>, request: Request) -> Response {
    verbs
        .serve("prioritize", request, async |extender, body| {
            extender.prioritize(parse("ExtenderArgs", &body)?)
        })
        .await
}

async fn preempt(State(verbs): State<Verbs>, request: Request) -> Response {
    verbs
        .serve("preempt", request, async |extender, body| {
            extender.preempt(parse("ExtenderPreemptionArgs", &body)?)
        })
        .await
}

async fn bind(State(verbs): State<Verbs>, request: Request) -> Response {
    verbs
        .serve("bind", request, async |extender, body| {
            Ok(extender.bind(parse("ExtenderBindingArgs", &body)?).await)
        })
        .await
}

impl Verbs {
    /// Everything around a verb: a slot, the body, the clock, the answer to what went wrong.
    async fn serve(
        &self,
        verb: &'static str,
        request: Request,
        work: impl AsyncFnOnce(&Extender, Bytes) -> Result<Answer, ExtenderError>,
    ) -> Response {
        let extender = &*self.extender;
        let start = extender.clock.monotonic();
        let result = async {
            let _slot = self
                .slots
                .try_acquire()
                .map_err(|_| ExtenderError::Overloaded(extender.limits.max_requests))?;
            let body = read_body(request, extender.limits).await?;
            work(extender, body).await
        };
        let answer = result.await.unwrap_or_else(|error| {
            warn!(
                verb,
                reason = error.reason(),
                error = &error as &dyn std::error::Error,
                "request refused"
            );
            error.answer()
        });
        let took = extender.clock.monotonic().saturating_sub(start);
        extender.metrics.request(verb, answer.outcome, took);
        answer.response
    }
}

async fn read_body(request: Request, limits: Limits) -> Result<Bytes, ExtenderError> {
    let body = timeout(limits.body_deadline, Bytes::from_request(request, &())).await;
    body.map_err(|_| ExtenderError::BodyLate(limits.body_deadline))?
        .map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                ExtenderError::TooLarge(limits.max_body_bytes)
            } else {
                ExtenderError::BodyBroken(rejection.body_text())
            }
        })
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, body: &'a [u8]) -> Result<T, ExtenderError> {
    serde_json::from_slice(body).map_err(|source| ExtenderError::Malformed { what, source })
}

fn answer(outcome: &'static str, body: impl Serialize) -> Answer {
    Answer {
        response: Json(body).into_response(),
        outcome,
    }
}

/// `Error` is all that an answer to bind has, and every other answer may have it too.
fn error_body(message: String) -> ExtenderBindingResult {
    ExtenderBindingResult { error: message }
}
