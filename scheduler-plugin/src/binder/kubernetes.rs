//! Posts bindings to the API server, with the placement as annotation (the API server copies a binding's annotations to the
//! pod), and tells in events what became of pods.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use berth_kube_api::{names::berth as names, placement::Placement};
use berth_placement::PodRef;
use berth_runtime::{
    SharedClock,
    kubernetes::{ApiError, within},
};
use k8s_openapi::{
    api::core::v1::{self as core, Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::{BindFailed, Binder, Binding};

/// For one request. kube-scheduler itself gives the whole bind a few seconds.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Events that wait to be posted; more are dropped: they are news, not truth.
const WAITING: usize = 1024;
/// Longer messages are cut: the API server takes no more than 1024 bytes.
const LONGEST: usize = 1000;
/// The pod is on another node already: nothing is to be done to it any more.
pub(crate) const BOUND_ELSEWHERE: &str = "BoundElsewhere";

/// Clones share the client.
#[derive(Debug, Clone)]
pub(crate) struct KubernetesBinder {
    /// `None` until the way to the API server is known.
    client: Arc<watch::Sender<Option<ClientBox>>>,
    events: mpsc::Sender<Told>,
}

/// A client that can be shown.
#[derive(Clone)]
pub(crate) struct ClientBox(pub(crate) Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// News of a pod.
#[derive(Debug)]
struct Told {
    pod: PodRef,
    is_good: bool,
    reason: &'static str,
    message: String,
}

/// The task that posts events.
#[derive(Debug)]
pub(crate) struct EventPoster {
    binder: KubernetesBinder,
    waiting: mpsc::Receiver<Told>,
    clock: SharedClock,
}

impl KubernetesBinder {
    pub(crate) fn new(clock: SharedClock) -> (Self, EventPoster) {
        let (events, waiting) = mpsc::channel(WAITING);
        let binder = Self {
            client: Arc::new(watch::Sender::new(None)),
            events,
        };
        let poster = EventPoster {
            binder: binder.clone(),
            waiting,
            clock,
        };
        (binder, poster)
    }

    /// The way to the API server is known.
    pub(crate) fn connect(&self, client: Client) {
        self.client.send_replace(Some(ClientBox(client)));
    }

    fn client(&self) -> Option<Client> {
        self.client.borrow().as_ref().map(|client| client.0.clone())
    }

    /// Waits until there is a way to the API server.
    pub(crate) async fn connected(&self) -> Client {
        let mut client = self.client.subscribe();
        match client.wait_for(Option::is_some).await.map(|client| client.clone()) {
            Ok(Some(client)) => client.0,
            // Whoever would tell is gone: the process ends.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    async fn post(&self, binding: &Binding) -> Result<(), BindFailed> {
        let client = self.client().ok_or_else(|| BindFailed {
            reason: "ApiAccess".to_owned(),
            message: "there is no way to the API server yet".to_owned(),
            outcome_unknown: false,
        })?;
        let pods: Api<Pod> = Api::namespaced(client, &binding.pod.namespace);
        let (name, body) = (&binding.pod.name, body(binding));
        let params = PostParams::default();
        let posted = within(
            DEADLINE,
            pods.create_subresource::<_, serde_json::Value>("binding", name, &params, &body),
        );
        match posted.await {
            Ok(_) => Ok(()),
            // The answer to an earlier attempt got lost: what counts is where the pod is.
            Err(error) if error.is_conflict() => self.is_there(&pods, binding, error).await,
            Err(error) => Err(failed(&error)),
        }
    }

    async fn is_there(&self, pods: &Api<Pod>, binding: &Binding, refused: ApiError) -> Result<(), BindFailed> {
        let pod = within(DEADLINE, pods.get(&binding.pod.name))
            .await
            .map_err(|error| failed(&error))?;
        let same = pod.metadata.uid.as_deref() == Some(binding.pod.uid.as_str());
        let node = pod.spec.and_then(|spec| spec.node_name);
        match node {
            Some(node) if same && node == binding.node.as_str() => Ok(()),
            Some(node) if same => Err(BindFailed::elsewhere(&node)),
            _ => Err(failed(&refused)),
        }
    }

    /// What does not fit into the queue is dropped.
    pub(crate) fn tell(&self, pod: &PodRef, is_good: bool, reason: &'static str, message: &str) {
        let told = Told {
            pod: pod.clone(),
            is_good,
            reason,
            message: message.chars().take(LONGEST).collect(),
        };
        if self.events.try_send(told).is_err() {
            debug!(%pod, reason, "an event is dropped: too many wait");
        }
    }
}

impl Binder for KubernetesBinder {
    fn bind<'a>(&'a self, binding: &'a Binding) -> Pin<Box<dyn Future<Output = Result<(), BindFailed>> + Send + 'a>> {
        Box::pin(async {
            self.post(binding).await?;
            if let Some(placement) = &binding.placement {
                self.tell(&binding.pod, true, "BerthPlaced", &message(placement, &binding.why));
            }
            Ok(())
        })
    }

    fn is_for_good(&self) -> bool {
        true
    }

    fn refused(&self, pod: &PodRef, why: &str) {
        self.tell(pod, false, "BerthNoPlace", why);
    }
}

fn message(placement: &Placement, why: &str) -> String {
    let devices: Vec<_> = placement.devices.iter().map(|device| device.uuid.as_str()).collect();
    let (node, verified) = (
        &placement.node,
        if placement.verified {
            ""
        } else {
            " (unverified: no daemon there)"
        },
    );
    format!("on {node}{verified}: {}; {why}", devices.join(", "))
}

fn body(binding: &Binding) -> core::Binding {
    let mut annotations = binding.annotations.clone();
    let placement = binding.placement.as_ref();
    annotations.extend(placement.map(|placement| (names::PLACEMENT.to_owned(), placement.to_annotation())));
    core::Binding {
        metadata: ObjectMeta {
            name: Some(binding.pod.name.clone()),
            // Another pod of the same name is not bound in its place.
            uid: Some(binding.pod.uid.to_string()),
            annotations: Some(annotations).filter(|all| !all.is_empty()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(binding.node.to_string()),
            ..ObjectReference::default()
        },
    }
}

fn failed(error: &ApiError) -> BindFailed {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    BindFailed {
        reason: error.reason().to_owned(),
        message: format!("{error}{cause}"),
        outcome_unknown: error.outcome_unknown(),
    }
}

impl EventPoster {
    /// Until nobody tells any more.
    pub(crate) async fn run(mut self) {
        while let Some(told) = self.waiting.recv().await {
            let Some(client) = self.binder.client() else { continue };
            let events: Api<Event> = Api::namespaced(client, &told.pod.namespace);
            let event = self.event(&told);
            if let Err(error) = within(DEADLINE, events.create(&PostParams::default(), &event)).await {
                debug!(pod = %told.pod, reason = error.reason(), "an event is lost");
            }
        }
    }

    fn event(&self, told: &Told) -> Event {
        let ms = i64::try_from(self.clock.now_unix_ms()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(ms).ok().map(Time);
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", told.pod.name)),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(told.pod.namespace.clone()),
                name: Some(told.pod.name.clone()),
                uid: Some(told.pod.uid.to_string()),
                ..ObjectReference::default()
            },
            type_: Some(if told.is_good { "Normal" } else { "Warning" }.to_owned()),
            reason: Some(told.reason.to_owned()),
            message: Some(told.message.clone()),
            source: Some(EventSource {
                component: Some("berth-scheduler".to_owned()),
                ..EventSource::default()
            }),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        }
    }
}
