//! The program of the reservation pods, for nodes without GPUs: gives each reservation pod one GPU of its node.
//!
//! Not a part of the stand-in alone: real KAI on nodes without machines needs it as well, as its own program asks NVML.

use std::{collections::BTreeMap, pin::pin};

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use super::names;

/// Runs until the process ends.
pub(super) async fn run(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, names::RESERVATION_NAMESPACE);
    let mut events = pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff());
    let mut taken: BTreeMap<String, (String, String)> = BTreeMap::new();
    while let Some(event) = events.try_next().await.unwrap_or_else(|error| {
        super::log(&format!("a watch failed and goes on: {error}"));
        Some(watcher::Event::Init)
    }) {
        match event {
            watcher::Event::Delete(pod) => drop(taken.remove(&pod.name_any())),
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else {
                    continue;
                };
                if let Some(device) = pod.annotations().get(names::RESERVED_GPU) {
                    taken.insert(pod.name_any(), (node, device.clone()));
                    continue;
                }
                let device = free(&node, &taken);
                let patch = Patch::Merge(json!({"metadata": {"annotations": {names::RESERVED_GPU: device}}}));
                taken.insert(pod.name_any(), (node, device));
                if let Err(error) = pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await {
                    super::log(&format!("{} got no GPU: {error}", pod.name_any()));
                }
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
        }
    }
    anyhow::bail!("a watch ended")
}

/// The first GPU of the node that nobody holds.
fn free(node: &str, taken: &BTreeMap<String, (String, String)>) -> String {
    let device = |index: usize| format!("GPU-{node}-{index}");
    let held = |device: &str| taken.values().any(|(on, held)| on == node && held == device);
    // One more than there are held.
    (0..=taken.len())
        .map(device)
        .find(|device| !held(device))
        .unwrap_or_default()
}
