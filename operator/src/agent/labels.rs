//! Keeps the label on nodes by which function pods find them: function pods have a required affinity to it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use berth_kube_api::names::nvcf;
use berth_runtime::kubernetes::{ApiError, DEADLINE, apply, within};
use berth_sis::Backoff;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::watch;
use tracing::info;

use super::{
    health::{Health, LABELS},
    inventory::Inventory,
    settings::{Settings, chain},
    shapes::base_name,
};
use crate::names;

/// Follows the inventory for ever.
pub(crate) async fn keep(
    client: Client,
    mut inventory: watch::Receiver<Option<Arc<Inventory>>>,
    mut settings: watch::Receiver<Arc<Settings>>,
    health: Health,
    seed: u64,
) {
    let nodes: Api<Node> = Api::all(client);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10), seed);
    loop {
        let config = settings.borrow_and_update().config.clone();
        let provider = &config.cluster.cloud_provider;
        // Where the configuration lists the GPUs, people label their nodes.
        let seen = inventory.borrow_and_update().clone();
        let seen = seen.filter(|_| config.agent.static_gpus.is_empty());
        let to_set = seen.map(|seen| seen.labels_to_set(|gpu| base_name(provider, gpu)));
        let mut failed = None;
        for (node, value) in to_set.unwrap_or_default() {
            match set(&nodes, &node, value.as_deref()).await {
                Ok(()) => info!(node, value, "label of the instance type"),
                Err(error) if error.is_not_found() => {}
                Err(error) => failed = Some((node, error)),
            }
        }
        let wait = match &failed {
            None => {
                backoff.reset();
                health.good(LABELS);
                Duration::MAX
            }
            Some((node, error)) => {
                let text = format!("cannot label the node {node}: {}", chain(error));
                health.bad(LABELS, error.reason(), text);
                backoff.after(None)
            }
        };
        tokio::select! {
            changed = inventory.changed() => if changed.is_err() { return },
            changed = settings.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn set(nodes: &Api<Node>, name: &str, value: Option<&str>) -> Result<(), ApiError> {
    let Some(value) = value else {
        // Not by apply: who set it (an earlier agent) may have it still.
        let nothing = Patch::Merge(json!({"metadata": {"labels": {nvcf::INSTANCE_TYPE: null}}}));
        let as_ours = PatchParams {
            field_manager: Some(names::AGENT.to_owned()),
            ..PatchParams::default()
        };
        return within(DEADLINE, nodes.patch_metadata(name, &as_ours, &nothing))
            .await
            .map(drop);
    };
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(nvcf::INSTANCE_TYPE.to_owned(), value.to_owned())])),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    apply(nodes, &node, names::AGENT).await.map(drop)
}
