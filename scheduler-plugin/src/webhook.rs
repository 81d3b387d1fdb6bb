//! The admission webhook that puts pods into Berth's hands when they are created: a gate in hint mode, a mark in bind mode.
//!
//! `failurePolicy: Ignore`: without this process pods go through plain KAI. It answers from the request alone: no call, no
//! state. Its certificates are its own business ([`certificates`]).

mod certificates;
mod mutate;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{Json, Router, extract::DefaultBodyLimit, extract::State, routing::post};
use berth_runtime::{
    SharedClock, Tasks,
    listen::{Listen, serve_http},
    tls::{ServerTls, ServerTlsFiles},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{app::BuildError, binder::KubernetesBinder, kai::Mode};

/// etcd takes no larger object.
const MAX_BODY: usize = 3 << 20;

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// Through a Service in the cluster.
    Service { namespace: String, name: String, port: u16 },
    /// At this address as it is bound: where the API server runs on the same machine.
    Direct,
}

/// Not a Service.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no Service: write NAMESPACE/NAME or NAMESPACE/NAME:PORT")]
pub struct ParseServiceError(String);

/// What the webhook needs.
#[derive(Debug, Clone, Serialize)]
pub struct WebhookConfig {
    pub listen: SocketAddr,
    pub reached: Reached,
    /// Where the serving certificate is kept, for this process alone; may be lost at any time.
    pub certificates: PathBuf,
    /// Of the Secret that all replicas share.
    pub namespace: String,
}

/// Bound, not served yet.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) addr: SocketAddr,
    listen: Listen,
    tls: ServerTls,
    config: WebhookConfig,
    mode: Mode,
    clock: SharedClock,
}

#[derive(Debug, Deserialize)]
struct Review {
    request: ReviewRequest,
}

#[derive(Debug, Deserialize)]
struct ReviewRequest {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

impl std::str::FromStr for Reached {
    type Err = ParseServiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseServiceError(text.to_owned());
        let (namespace, rest) = text.split_once('/').ok_or_else(error)?;
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| error())?),
            None => (rest, 443),
        };
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_name(namespace) || !is_name(name) {
            return Err(error());
        }
        Ok(Self::Service {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        })
    }
}

impl Webhook {
    /// Without a certificate until [`Self::start`] has made one.
    pub(crate) fn bind(config: WebhookConfig, mode: Mode, clock: SharedClock) -> Result<Self, BuildError> {
        let files = ServerTlsFiles {
            cert: config.certificates.join("tls.crt"),
            key: config.certificates.join("tls.key"),
            // The API server shows no certificate unless it is told to, and nothing here is secret or changes anything.
            client_ca: None,
        };
        // So that there is something to watch. Where it cannot be made the keeper says so, again and again.
        drop(fs::create_dir_all(&config.certificates));
        let tls = ServerTls::new(files, clock.clone());
        let mut listen = Listen::new();
        let addr = listen.tcp(config.listen, Some(tls.clone()))?;
        Ok(Self {
            addr,
            listen,
            tls,
            config,
            mode,
            clock,
        })
    }

    /// Serves until `stop`, then until every request is answered.
    pub(crate) fn start(self, binder: KubernetesBinder, tasks: &Tasks, stop: &CancellationToken) -> JoinHandle<()> {
        drop(tasks.spawn("follow-webhook-tls", self.tls.clone().follow(stop.clone())));
        let keeper = certificates::Keeper {
            config: self.config,
            addr: self.addr,
            clock: self.clock,
            tls: self.tls,
        };
        let keep = async move { keeper.run(binder.connected().await).await };
        drop(tasks.spawn("webhook-certificates", stop.clone().run_until_cancelled_owned(keep)));
        let incoming = self.listen.start(tasks, stop);
        let served = serve_http(incoming, router(self.mode), stop.clone());
        tasks.spawn("webhook", served)
    }
}

fn router(mode: Mode) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(mode))
}

/// What cannot be understood is let through as it is: it is the API server's to refuse it.
async fn mutate(State(mode): State<Arc<Mode>>, Json(review): Json<Review>) -> Json<Value> {
    let ReviewRequest { uid, namespace, object } = review.request;
    let operations = match serde_json::from_value(object) {
        Ok(pod) => mutate::operations(&pod, &namespace, *mode),
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                namespace, "a pod that cannot be read is let through"
            );
            Vec::new()
        }
    };
    debug!(namespace, operations = operations.len(), "reviewed");
    let mut response = json!({"uid": uid, "allowed": true});
    if !operations.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = mutate::encoded(&operations);
    }
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_with_or_without_a_port() {
        let service = |port| Reached::Service {
            namespace: "berth".to_owned(),
            name: "webhook".to_owned(),
            port,
        };
        assert_eq!("berth/webhook".parse(), Ok(service(443)));
        assert_eq!("berth/webhook:9453".parse(), Ok(service(9453)));
        for text in ["", "webhook", "/webhook", "berth/", "berth/a:b", "berth/a b"] {
            assert!(text.parse::<Reached>().is_err(), "{text}");
        }
    }
}
