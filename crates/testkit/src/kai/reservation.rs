//! Reservation pods: each holds one GPU for the pods that share it, and names the GPU in an annotation.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt as _, wait::await_condition, watcher},
};
use serde_json::json;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};

use super::{names, objects::BindRequest};

#[derive(Debug, Error)]
pub(super) enum ReservationError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("failed waiting for GPU reservation pod to allocate: {0}")]
    Late(String),
    #[error("failed to find annotation on reservation pod {0}")]
    Unnamed(String),
}

pub(super) struct Reservations {
    client: Client,
    timeout: Duration,
    /// One reservation at a time; KAI locks per group.
    busy: Mutex<()>,
}

/// Removed requests whose groups have to be looked at; as many as may wait before the watch waits, too.
const REMOVALS: usize = 256;

impl Reservations {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            busy: Mutex::new(()),
        }
    }

    /// The UUID of the group's GPU; makes the reservation pod if there is none.
    pub(super) async fn reserve(&self, node: &str, group: &str) -> Result<String, ReservationError> {
        let _one_at_a_time = self.busy.lock().await;
        let pods = self.pods();
        let of_group = ListParams::default().labels(&format!("{}={group}", names::GPU_GROUP));
        if let Some(pod) = pods.list(&of_group).await?.items.first() {
            return device(pod).ok_or_else(|| ReservationError::Unnamed(pod.name_any()));
        }
        let made = pods
            .create(&PostParams::default(), &reservation_pod(node, group))
            .await?;
        let name = made.name_any();
        let named = |pod: Option<&Pod>| pod.is_some_and(|pod| device(pod).is_some());
        let waited = tokio::time::timeout(self.timeout, await_condition(pods.clone(), &name, named)).await;
        if let Some(device) = waited.ok().and_then(Result::ok).flatten().as_ref().and_then(device) {
            return Ok(device);
        }
        self.remove(&name).await?;
        Err(ReservationError::Late(format!(
            "{}/{name}",
            names::RESERVATION_NAMESPACE
        )))
    }

    /// Looks at the groups on a node.
    pub(super) async fn sync_node(&self, node: &str) -> kube::Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let shared = ListParams::default()
            .labels(names::GPU_GROUP)
            .fields(&format!("spec.nodeName={node}"));
        let shared = pods.list(&shared).await?;
        let mut groups: Vec<_> = shared
            .iter()
            .filter_map(|pod| pod.labels().get(names::GPU_GROUP).cloned())
            .collect();
        groups.sort();
        groups.dedup();
        self.sync_groups(groups).await
    }

    /// A reservation without pods goes, and so do running pods without a reservation.
    pub(super) async fn sync_groups(&self, groups: Vec<String>) -> kube::Result<()> {
        let all: Api<Pod> = Api::all(self.client.clone());
        for group in groups {
            let _one_at_a_time = self.busy.lock().await;
            let mut found = Vec::new();
            for label in [
                format!("{}={group}", names::GPU_GROUP),
                format!("{}{group}={group}", names::GPU_GROUP_PREFIX),
            ] {
                found.extend(all.list(&ListParams::default().labels(&label)).await?.items);
            }
            let (holders, sharers): (Vec<_>, Vec<_>) = found
                .into_iter()
                .partition(|pod| pod.namespace().as_deref() == Some(names::RESERVATION_NAMESPACE));
            let in_phase = |pod: &Pod, phases: &[&str]| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                phases.contains(&phase.unwrap_or("Pending"))
            };
            if !sharers.iter().any(|pod| in_phase(pod, &["Running", "Pending"])) {
                for pod in &holders {
                    self.remove(&pod.name_any()).await?;
                }
            } else if holders.is_empty() {
                for pod in sharers.iter().filter(|pod| in_phase(pod, &["Running"])) {
                    let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                    super::log(&format!("{} shares a GPU that nobody holds: deleted", pod.name_any()));
                    gone_is_fine(pods.delete(&pod.name_any(), &DeleteParams::default()).await)?;
                }
            }
        }
        Ok(())
    }

    /// Requests that went: their GPUs may be free now.
    pub(super) async fn clean_up(&self, mut removals: mpsc::Receiver<Vec<String>>) {
        while let Some(groups) = removals.recv().await {
            if let Err(error) = self.sync_groups(groups).await {
                super::log(&format!("a reservation stays for now: {error}"));
            }
        }
    }

    async fn remove(&self, name: &str) -> kube::Result<()> {
        super::log(&format!("deleting reservation pod {name}"));
        gone_is_fine(self.pods().delete(name, &DeleteParams::default().grace_period(0)).await)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), names::RESERVATION_NAMESPACE)
    }
}

/// The groups of requests that are deleted.
pub(super) fn follow_removals(requests: Api<BindRequest>) -> (mpsc::Receiver<Vec<String>>, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::channel(REMOVALS);
    let watch = async move {
        let mut events = pin!(watcher(requests, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Delete(request)) = event
                && !request.spec.selected_gpu_groups.is_empty()
                && sender.send(request.spec.selected_gpu_groups).await.is_err()
            {
                return;
            }
        }
    };
    (receiver, watch)
}

fn gone_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn device(pod: &Pod) -> Option<String> {
    pod.annotations()
        .get(names::RESERVED_GPU)
        .filter(|device| !device.is_empty())
        .cloned()
}

fn reservation_pod(node: &str, group: &str) -> Pod {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let pod = json!({
        "metadata": {
            "name": format!("gpu-reservation-{node}-{}", &random[..5]),
            "namespace": names::RESERVATION_NAMESPACE,
            "labels": {"app": names::RESERVATION_APP, names::GPU_GROUP: group},
            "annotations": {"karpenter.sh/do-not-disrupt": "true"},
        },
        "spec": {
            // Not scheduled: put there.
            "nodeName": node,
            "containers": [{
                "name": "resource-reservation",
                "image": "resource-reservation",
                "imagePullPolicy": "IfNotPresent",
                "resources": {"limits": {names::GPU: "1"}, "requests": {names::GPU: "1"}},
                "env": [
                    {"name": "POD_NAME", "valueFrom": field("metadata.name")},
                    {"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")},
                ],
            }],
        },
    });
    serde_json::from_value(pod).unwrap_or_default()
}
