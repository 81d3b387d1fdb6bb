//! Executes `BindRequest`s. Checks that the pod is there and unbound and that the node exists, and nothing else: not
//! capacity, taints, queues or who asked.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Binding, ConfigMap, Node, ObjectReference, Pod};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{Controller, controller, controller::Action, watcher},
};
use serde_json::json;
use thiserror::Error;

use super::{
    names,
    objects::BindRequest,
    reservation::{self, ReservationError, Reservations},
};

/// Why a pod was not bound: the reason of the request's status.
#[derive(Debug, Error)]
pub(super) enum BindError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("failed to reserve GPUs for pod <{pod}> in gpu group <{group}>")]
    Reserve {
        pod: String,
        group: String,
        #[source]
        source: ReservationError,
    },
    #[error("no SelectedGPUGroups for fractional pod: invalid binding request")]
    NoGroups,
    #[error("no desired configmap name found in pod {0} annotations")]
    NoConfigMap(String),
}

struct Binder {
    client: Client,
    reservations: Reservations,
}

/// Runs until the process ends. `allocation_timeout`: how long a reservation pod may take to name its GPU.
pub(super) async fn run(client: Client, allocation_timeout: Duration, workers: u16) -> anyhow::Result<()> {
    let binder = Binder {
        reservations: Reservations::new(client.clone(), allocation_timeout),
        client,
    };
    let requests: Api<BindRequest> = Api::all(binder.client.clone());
    let (removals, watch) = reservation::follow_removals(requests.clone());
    let binder = Arc::new(binder);
    let controller = Controller::new(requests, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(workers))
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            Arc::clone(&binder),
        )
        .for_each(|result| async {
            if let Err(error) = result {
                super::log(&format!("{error}"));
            }
        });
    tokio::select! {
        () = controller => {}
        () = watch => {}
        () = binder.reservations.clean_up(removals) => {}
    }
    anyhow::bail!("a watch ended")
}

async fn reconcile(request: Arc<BindRequest>, binder: Arc<Binder>) -> Result<Action, BindError> {
    if request.metadata.deletion_timestamp.is_some() || request.phase() == "Succeeded" {
        return Ok(Action::await_change());
    }
    let result = binder.execute(&request).await;
    // With attempts left the status says Failed and another attempt follows.
    let attempts = request.status.as_ref().map_or(0, |status| status.failed_attempts);
    let again = request.spec.backoff_limit.is_some_and(|limit| limit > attempts);
    binder
        .report(
            &request,
            result.as_ref().err(),
            if again { attempts + 1 } else { attempts },
        )
        .await?;
    result.map(|()| Action::await_change())
}

impl Binder {
    async fn execute(&self, request: &BindRequest) -> Result<(), BindError> {
        let pods = self.pods(request);
        let pod = pods.get(&request.spec.pod_name).await?;
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            return Ok(());
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.get(&request.spec.selected_node).await?;
        let bound = self.bind(&pods, &pod, request).await;
        if bound.is_err() && is_shared(request) {
            self.roll_back(&pods, &pod, request).await;
        }
        bound
    }

    async fn bind(&self, pods: &Api<Pod>, pod: &Pod, request: &BindRequest) -> Result<(), BindError> {
        let (name, node) = (pod.name_any(), &request.spec.selected_node);
        self.reservations.sync_node(node).await?;
        if is_shared(request) {
            let devices = self.reserve(pods, pod, request).await?;
            self.write_config_maps(pod, request, &devices.join(",")).await?;
        }
        let received = json!({"metadata": {"annotations": {
            names::RECEIVED_RESOURCE_TYPE: request.spec.received_resource_type}}});
        pods.patch(&name, &PatchParams::default(), &Patch::Merge(received))
            .await?;
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.clone()),
                ..ObjectReference::default()
            },
        };
        let _status: serde_json::Value = pods
            .create_subresource("binding", &name, &PostParams::default(), &binding)
            .await?;
        super::log(&format!("bound {name} to {node}"));
        Ok(())
    }

    /// One reservation pod per group; the pod gets the groups as labels.
    async fn reserve(&self, pods: &Api<Pod>, pod: &Pod, request: &BindRequest) -> Result<Vec<String>, BindError> {
        if request.spec.selected_gpu_groups.is_empty() {
            return Err(BindError::NoGroups);
        }
        let several = pod.annotations().contains_key(names::GPU_FRACTION_DEVICES);
        let mut devices = Vec::new();
        for group in &request.spec.selected_gpu_groups {
            let device = self.reservations.reserve(&request.spec.selected_node, group).await;
            devices.push(device.map_err(|source| BindError::Reserve {
                pod: pod.name_any(),
                group: group.clone(),
                source,
            })?);
            let label = if several {
                format!("{}{group}", names::GPU_GROUP_PREFIX)
            } else {
                names::GPU_GROUP.to_owned()
            };
            let labels = json!({"metadata": {"labels": {label: group}}});
            pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(labels))
                .await?;
        }
        Ok(devices)
    }

    /// The container gets its GPUs from here. The maps' names were fixed at admission.
    async fn write_config_maps(&self, pod: &Pod, request: &BindRequest, devices: &str) -> Result<(), BindError> {
        let prefix = pod.annotations().get(names::SHARED_GPU_CONFIG_MAP);
        let prefix = prefix.ok_or_else(|| BindError::NoConfigMap(pod.name_any()))?;
        let portion = request
            .spec
            .received_gpu
            .as_ref()
            .map_or("", |gpu| gpu.portion.as_str());
        let environment =
            json!({"NVIDIA_VISIBLE_DEVICES": devices, "GPU_PORTION": portion, "RUNAI_NUM_OF_GPUS": portion});
        for (name, data) in [
            (format!("{prefix}-0"), json!({})),
            (format!("{prefix}-0-evar"), environment),
        ] {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {"name": name, "ownerReferences": [pod.owner_ref(&())]}});
            let apply = PatchParams::apply("kai-binder").force();
            maps.patch(&name, &apply, &Patch::Apply(map)).await?;
        }
        Ok(())
    }

    /// Labels, maps and reservations of a bind that failed go. What cannot go now goes with the next sync.
    async fn roll_back(&self, pods: &Api<Pod>, pod: &Pod, request: &BindRequest) {
        let mut labels = serde_json::Map::new();
        labels.insert(names::GPU_GROUP.to_owned(), json!(null));
        for group in &request.spec.selected_gpu_groups {
            labels.insert(format!("{}{group}", names::GPU_GROUP_PREFIX), json!(null));
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        if let Err(error) = pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await {
            super::log(&format!("roll-back of {}: {error}", pod.name_any()));
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        if let Some(prefix) = pod.annotations().get(names::SHARED_GPU_CONFIG_MAP) {
            for name in [format!("{prefix}-0"), format!("{prefix}-0-evar")] {
                let _not_there = maps.delete(&name, &DeleteParams::default()).await;
            }
        }
        if let Err(error) = self
            .reservations
            .sync_groups(request.spec.selected_gpu_groups.clone())
            .await
        {
            super::log(&format!("roll-back of {}: {error}", pod.name_any()));
        }
    }

    /// The request's phase, written where it changes (so further failures are not counted: KAI's own defect), and the
    /// pod's condition.
    async fn report(&self, request: &BindRequest, error: Option<&BindError>, attempts: i32) -> Result<(), BindError> {
        let phase = if error.is_some() { "Failed" } else { "Succeeded" };
        let reason = error.map(|error| chain(error));
        if let Some(reason) = &reason {
            super::log(&format!(
                "cannot bind {} to {}: {reason}",
                request.spec.pod_name, request.spec.selected_node
            ));
        }
        let changed = request.phase() != phase;
        if changed {
            let status = json!({"status": {"phase": phase, "reason": reason, "failedAttempts": attempts}});
            let requests: Api<BindRequest> =
                Api::namespaced(self.client.clone(), &request.namespace().unwrap_or_default());
            let patch = Patch::Merge(status);
            gone_is_fine(
                requests
                    .patch_status(&request.name_any(), &PatchParams::default(), &patch)
                    .await,
            )?;
            let node = &request.spec.selected_node;
            let (status, why, message) = match reason {
                None => ("True", "Bound", format!("Pod bound successfully to node {node}")),
                Some(reason) => (
                    "False",
                    "BindingError",
                    format!("Failed to bind pod to node {node}: {reason}"),
                ),
            };
            let condition = json!({"type": "PodBound", "status": status, "reason": why, "message": message});
            let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
            let pods = self.pods(request);
            gone_is_fine(
                pods.patch_status(&request.spec.pod_name, &PatchParams::default(), &patch)
                    .await,
            )?;
        }
        Ok(())
    }

    fn pods(&self, request: &BindRequest) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &request.namespace().unwrap_or_default())
    }
}

fn is_shared(request: &BindRequest) -> bool {
    request.spec.received_resource_type == "Fraction"
}

fn gone_is_fine<K>(result: kube::Result<K>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// The error with its sources.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
