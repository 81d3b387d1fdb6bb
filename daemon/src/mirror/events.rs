//! Faults as events on the Node: one when a device's health changes, none for what was so when the daemon started.

use std::collections::BTreeMap;

use berth_kube_api::gpu_node::GpuNodeStatus;
use berth_placement::NodeName;
use berth_runtime::{
    SharedClock,
    kubernetes::{ApiError, DEADLINE, within},
};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, Node, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams, Resource as _},
};

/// Events about nodes are in this namespace.
const NAMESPACE: &str = "default";

pub(super) struct Events {
    api: Api<Event>,
    node: String,
    clock: SharedClock,
    /// Health by device as it was told last; `None`: nothing yet.
    told: Option<BTreeMap<String, String>>,
}

impl Events {
    pub(super) fn new(client: Client, node: &NodeName, clock: SharedClock) -> Self {
        Self {
            api: Api::namespaced(client, NAMESPACE),
            node: node.to_string(),
            clock,
            told: None,
        }
    }

    /// Tells each device whose health is not what was told last.
    pub(super) async fn tell(&mut self, status: &GpuNodeStatus) -> Result<(), ApiError> {
        let health = |device: &berth_kube_api::gpu_node::Device| (device.uuid.clone(), device.health.clone());
        let told = self
            .told
            .get_or_insert_with(|| status.devices.iter().map(health).collect())
            .clone();
        for device in &status.devices {
            if told.get(&device.uuid).is_some_and(|before| *before == device.health) {
                continue;
            }
            let why = if device.health_reasons.is_empty() {
                String::new()
            } else {
                format!(": {}", device.health_reasons.join("; "))
            };
            let message = format!("GPU {} ({}) is {}{why}", device.index, device.uuid, device.health);
            self.post(&device.health, message).await?;
            let (uuid, health) = health(device);
            self.told.get_or_insert_default().insert(uuid, health);
        }
        Ok(())
    }

    async fn post(&self, health: &str, message: String) -> Result<(), ApiError> {
        let ms = i64::try_from(self.clock.now_unix_ms()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(ms).ok().map(Time);
        let is_good = health == "Healthy";
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}.", self.node)),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some(Node::kind(&()).into_owned()),
                name: Some(self.node.clone()),
                // As the kubelet does: `kubectl describe node` looks for it.
                uid: Some(self.node.clone()),
                ..ObjectReference::default()
            },
            type_: Some(if is_good { "Normal" } else { "Warning" }.to_owned()),
            reason: Some(format!("Gpu{health}")),
            message: Some(message),
            source: Some(EventSource {
                component: Some("berthd".to_owned()),
                host: Some(self.node.clone()),
            }),
            first_timestamp: now.clone(),
            last_timestamp: now,
            count: Some(1),
            ..Event::default()
        };
        within(DEADLINE, self.api.create(&PostParams::default(), &event))
            .await
            .map(drop)
    }
}
