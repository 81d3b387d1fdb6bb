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
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{BindFailed, Binder, Binding};

/// For one request. kube-scheduler itself gives the whole bind a few seconds.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Events that wait to be posted; more are dropped: they are news, not truth.
const WAITING: usize = 4096;
/// With more of them waiting they are posted whatever else there is to do.
const CROWDED: usize = WAITING / 4;
/// Without a binding for so long, nobody's binding waits for what news takes of the API server.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that one event waits for a pause.
const PATIENCE: Duration = Duration::from_secs(10);
/// For what waits at the end of the process.
const LAST_NEWS: Duration = Duration::from_secs(3);
/// Longer messages are cut: the API server takes no more than 1024 bytes.
const LONGEST: usize = 1000;
/// The pod is on another node already: nothing is to be done to it any more.
pub(crate) const BOUND_ELSEWHERE: &str = "BoundElsewhere";

/// Clones share the client.
#[derive(Debug, Clone)]
pub(crate) struct KubernetesBinder {
    /// `None` until the way to the API server is known.
    client: Arc<watch::Sender<Option<ClientBox>>>,
    /// Changes with each binding.
    bindings: Arc<watch::Sender<()>>,
    clock: SharedClock,
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
    /// When it became news, by unix time and by the time that passes.
    at_unix_ms: u64,
    at: Duration,
}

/// The task that posts events.
#[derive(Debug)]
pub(crate) struct EventPoster {
    binder: KubernetesBinder,
    waiting: mpsc::Receiver<Told>,
}

impl KubernetesBinder {
    pub(crate) fn new(clock: SharedClock) -> (Self, EventPoster) {
        let (events, waiting) = mpsc::channel(WAITING);
        let binder = Self {
            client: Arc::new(watch::Sender::new(None)),
            bindings: Arc::default(),
            clock,
            events,
        };
        let poster = EventPoster {
            binder: binder.clone(),
            waiting,
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
        self.bindings.send_replace(());
        let pods: Api<Pod> = Api::namespaced(client, &binding.pod.namespace);
        let (name, body) = (&binding.pod.name, body(binding));
        let params = PostParams::default();
        let posted = within(
            DEADLINE,
            pods.create_subresource::<_, serde_json::Value>("binding", name, &params, &body),
        );
        match posted.await {
            Ok(_) => Ok(()),
            Err(error) if error.outcome_unknown() || error.is_not_found() => Err(failed(&error)),
            // An earlier attempt, or another scheduler, may have bound it all the same: what counts is where the pod is.
            Err(error) => self.is_there(&pods, binding, error).await,
        }
    }

    async fn is_there(&self, pods: &Api<Pod>, binding: &Binding, refused: ApiError) -> Result<(), BindFailed> {
        let pod = within(DEADLINE, pods.get(&binding.pod.name))
            .await
            .map_err(|error| BindFailed {
                outcome_unknown: !error.is_not_found(),
                ..failed(&error)
            })?;
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
            at_unix_ms: self.clock.now_unix_ms(),
            at: self.clock.monotonic(),
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

/// Until there was no binding for a while, if there was one since the last time: bindings are what pods wait for.
async fn pause(bindings: &mut watch::Receiver<()>) {
    if bindings.has_changed().unwrap_or_default() {
        while let Ok(Ok(())) = timeout(PAUSE, bindings.changed()).await {}
    }
}

impl EventPoster {
    /// Until `stop`, and then until nothing waits any more, for [`LAST_NEWS`] at most.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut bindings = self.binder.bindings.subscribe();
        while let Some(Some(told)) = stop.run_until_cancelled(self.waiting.recv()).await {
            let waited = self.binder.clock.monotonic().saturating_sub(told.at);
            if told.is_good && self.waiting.len() < CROWDED {
                let pause = timeout(PATIENCE.saturating_sub(waited), pause(&mut bindings));
                let _paused_or_late = stop.run_until_cancelled(pause).await;
            }
            self.post(&told).await;
        }
        self.waiting.close();
        let rest = async {
            while let Some(told) = self.waiting.recv().await {
                self.post(&told).await;
            }
        };
        if timeout(LAST_NEWS, rest).await.is_err() {
            warn!(events = self.waiting.len(), "the process ends before these were posted");
        }
    }

    async fn post(&self, told: &Told) {
        let Some(client) = self.binder.client() else { return };
        let events: Api<Event> = Api::namespaced(client, &told.pod.namespace);
        if let Err(error) = within(DEADLINE, events.create(&PostParams::default(), &Self::event(told))).await {
            debug!(pod = %told.pod, reason = error.reason(), "an event is lost");
        }
    }

    fn event(told: &Told) -> Event {
        let ms = i64::try_from(told.at_unix_ms).unwrap_or(i64::MAX);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use berth_runtime::ManualClock;
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::testing::api_double;

    #[tokio::test]
    async fn news_waits_for_a_pause_between_bindings_and_only_then() {
        let (bound, mut bindings) = watch::channel(());
        assert!(pause(&mut bindings).now_or_never().is_some(), "nothing was bound");
        bound.send_replace(());
        assert!(pause(&mut bindings).now_or_never().is_none(), "just bound");
        bound.send_replace(());
        pause(&mut bindings).await;
        assert!(pause(&mut bindings).now_or_never().is_some(), "the pause is still on");
    }

    #[tokio::test]
    async fn what_a_refused_binding_means_shows_where_the_pod_is_and_unseen_it_may_be_there() {
        let refused = |code, reason| (code, api_double::refused(code, reason));
        let pod = |uid: &str, node: Option<&str>| (200, json!({"metadata": {"uid": uid}, "spec": {"nodeName": node}}));
        let (conflict, busy) = (refused(409, "Conflict"), refused(429, "TooManyRequests"));
        let gone = refused(404, "NotFound");
        let elsewhere = Err((BOUND_ELSEWHERE, false));
        for (answers, outcome) in [
            (vec![conflict.clone(), pod("u", Some("n"))], Ok(())),
            (vec![conflict.clone(), pod("u", Some("m"))], elsewhere),
            (
                vec![conflict.clone(), pod("newer", Some("n"))],
                Err(("ApiConflict", false)),
            ),
            (vec![conflict.clone(), gone.clone()], Err(("ApiNotFound", false))),
            (vec![conflict, busy.clone()], Err(("ApiTooManyRequests", true))),
            (vec![busy.clone(), pod("u", Some("n"))], Ok(())),
            (vec![busy.clone(), pod("u", None)], Err(("ApiTooManyRequests", false))),
            (vec![busy.clone(), busy], Err(("ApiTooManyRequests", true))),
            (vec![gone], Err(("ApiNotFound", false))),
            (vec![refused(500, "InternalError")], Err(("ApiServerError", true))),
        ] {
            let (client, double) = api_double::client(answers.clone());
            let (binder, _poster) = KubernetesBinder::new(ManualClock::at_unix_ms(0).shared());
            binder.connect(client);
            let binding = Binding {
                pod: PodRef::new("ns", "p", "u".parse().unwrap()).unwrap(),
                node: "n".parse().unwrap(),
                placement: None,
                why: String::new(),
                annotations: BTreeMap::new(),
            };
            let bound = binder.bind(&binding).await;
            let bound = match &bound {
                Ok(()) => Ok(()),
                Err(it) => Err((it.reason.as_str(), it.outcome_unknown)),
            };
            assert_eq!(bound, outcome, "{answers:?}");
            double.patches();
        }
    }
}
