//! Events of the `NVCFBackend`: what `kubectl describe nvcfbackends` shows. Owns how they are posted; a lost one is only logged.
//!
//! Each is an object of its own: a recorder that sums events of one reason up would lose what the later ones say.

use berth_kube_api::nvcf::NvcfBackend;
use berth_runtime::{
    SharedClock,
    kubernetes::{DEADLINE, within},
};
use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use tracing::debug;

/// Kubernetes' own limit of a message.
const LONGEST: usize = 1024;

/// Posts them.
#[derive(Clone)]
pub(super) struct Events {
    api: Api<Event>,
    clock: SharedClock,
}

impl Events {
    pub(super) fn new(client: Client, namespace: &str, clock: SharedClock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            clock,
        }
    }

    pub(super) async fn normal(&self, of: &NvcfBackend, reason: &str, note: &str) {
        self.post(of, "Normal", reason, note).await;
    }

    pub(super) async fn warning(&self, of: &NvcfBackend, reason: &str, note: &str) {
        self.post(of, "Warning", reason, note).await;
    }

    async fn post(&self, of: &NvcfBackend, kind: &str, reason: &str, note: &str) {
        let ms = i64::try_from(self.clock.now_unix_ms()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(ms).ok().map(Time);
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", of.name_any())),
                ..ObjectMeta::default()
            },
            involved_object: of.object_ref(&()),
            type_: Some(kind.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(note.chars().take(LONGEST).collect()),
            source: Some(EventSource {
                component: Some("nvca-operator".to_owned()),
                host: None,
            }),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        };
        if let Err(error) = within(DEADLINE, self.api.create(&PostParams::default(), &event)).await {
            debug!(error = &error as &dyn std::error::Error, reason, "an event is lost");
        }
    }
}
