//! AdmissionReview in and out, and which page does what. What cannot be understood is refused in plain words (400): the API
//! server shows them to whoever made the object.
//!
//! Pages of the real webhook server that are not here (`/mutate-miniservice`, `/mutate-pod-enforcement`, …) change pods in
//! ways that are not supported: a page that let them through would lie.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::post,
};
use berth_runtime::Misread;
use json_patch::Patch;
use k8s_openapi::{ByteString, api::core::v1::Pod};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{debug, info, warn};

use super::{
    Gates, mutate,
    settings::Settings,
    validate::{self, validate},
};

/// An object of etcd's largest size, twice (before and after), and what is around them.
const MAX_BODY: usize = 7 << 20;
/// The API server waits no longer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What a page does with what it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Placement,
    Defaults,
    Validate,
    /// The real server has this page for old configurations, and it changes nothing.
    Unchanged,
}

const PAGES: [(&str, Page); 4] = [
    ("/mutate-pod-nodeaffinity", Page::Placement),
    ("/nvca-mutating-webhook", Page::Defaults),
    ("/validate", Page::Validate),
    ("/mutate-helm-storage", Page::Unchanged),
];

/// What the pages share.
#[derive(Debug, Clone)]
pub(super) struct Reviews {
    settings: Settings,
    answered: Family<Labels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    path: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Deserialize)]
struct Review {
    request: ReviewRequest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewRequest {
    uid: String,
    kind: Kind,
    operation: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: String,
}

/// What was sent is no question.
#[derive(Debug, Error)]
enum ReviewError {
    #[error("the body is no AdmissionReview of admission.k8s.io/v1 with a request")]
    NoReview(#[source] Misread),
    #[error("the object is no Pod")]
    NoPod(#[source] Misread),
    #[error("the object cannot be read")]
    Unreadable(#[from] validate::Unreadable),
}

#[derive(Debug)]
enum Verdict {
    Unchanged,
    Patched(Patch),
    Denied(String),
}

impl Reviews {
    pub(super) fn new(settings: Settings, registry: &mut Registry) -> Self {
        let answered = Family::<Labels, Counter>::default();
        let help = "Questions of the API server by page and outcome (unchanged, patched, denied, garbage)";
        registry.register("nvca_webhook_reviews", help, answered.clone());
        for (path, _) in PAGES {
            for outcome in ["unchanged", "patched", "denied", "garbage"] {
                answered.get_or_create(&Labels { path, outcome }).inc_by(0);
            }
        }
        Self { settings, answered }
    }

    pub(super) fn router(self) -> Router {
        let reviews = Arc::new(self);
        let mut router = Router::new();
        for (path, page) in PAGES {
            let handler = async move |State(reviews): State<Arc<Self>>, body: Bytes| reviews.answer(path, page, &body);
            router = router.route(path, post(handler));
        }
        router
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn(in_time))
            .with_state(reviews)
    }

    fn answer(&self, path: &'static str, page: Page, body: &[u8]) -> Response {
        let (outcome, response) = match review(page, body, &self.settings.gates()) {
            Ok((request, verdict)) => {
                let ReviewRequest {
                    namespace, operation, ..
                } = &request;
                match &verdict {
                    Verdict::Denied(why) => info!(path, namespace, operation, why, "denied"),
                    verdict => debug!(path, namespace, operation, outcome = verdict.outcome(), "reviewed"),
                }
                (verdict.outcome(), Json(verdict.document(&request.uid)).into_response())
            }
            Err(error) => {
                warn!(path, error = &error as &dyn std::error::Error, "not understood");
                let text = format!("{:#}\n", anyhow::Error::from(error));
                ("garbage", (StatusCode::BAD_REQUEST, text).into_response())
            }
        };
        self.answered.get_or_create(&Labels { path, outcome }).inc();
        response
    }
}

/// A client that never finishes its body is not waited for.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

fn review(page: Page, body: &[u8], gates: &Gates) -> Result<(ReviewRequest, Verdict), ReviewError> {
    let Review { request } = serde_json::from_slice(body).map_err(|error| ReviewError::NoReview(error.into()))?;
    let is_whole = request.sub_resource.is_empty();
    let is_new = is_whole && request.operation == "CREATE";
    // What a pod is made of does not change after its creation.
    let is_new_pod = is_new && request.kind.kind == "Pod";
    let verdict = match page {
        Page::Placement if is_new_pod => Verdict::of(mutate::placement(&pod(&request.object)?, gates)),
        Page::Defaults if is_new_pod => Verdict::of(mutate::defaults(&pod(&request.object)?, gates)),
        Page::Validate if matches!(request.operation.as_str(), "CREATE" | "UPDATE") => {
            let pod = match validate::pod_of(&request.kind.kind, &request.object)? {
                // A pod's status, its binding: without a spec there is nothing to look at.
                Some(pod) if is_whole || request.sub_resource == "ephemeralcontainers" => pod,
                _ => return Ok((request, Verdict::Unchanged)),
            };
            match validate(&pod) {
                Ok(()) => Verdict::Unchanged,
                Err(refusals) => Verdict::Denied(refusals.to_string()),
            }
        }
        Page::Placement | Page::Defaults | Page::Validate | Page::Unchanged => Verdict::Unchanged,
    };
    Ok((request, verdict))
}

fn pod(object: &Value) -> Result<Pod, ReviewError> {
    serde_json::from_value(object.clone()).map_err(|error| ReviewError::NoPod(error.into()))
}

impl Verdict {
    fn of(patch: Patch) -> Self {
        if patch.0.is_empty() {
            Self::Unchanged
        } else {
            Self::Patched(patch)
        }
    }

    const fn outcome(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Patched(_) => "patched",
            Self::Denied(_) => "denied",
        }
    }

    fn document(&self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": !matches!(self, Self::Denied(_))});
        match self {
            Self::Unchanged => {}
            Self::Patched(patch) => {
                response["patchType"] = json!("JSONPatch");
                // In base64, which is how Kubernetes writes bytes.
                response["patch"] = json!(ByteString(json!(patch).to_string().into_bytes()));
            }
            Self::Denied(why) => response["status"] = json!({"code": 403, "reason": "Forbidden", "message": why}),
        }
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }
}

#[cfg(test)]
mod tests;
