//! Takes the cluster down: drains, waits, reports, and leaves no finalizer behind. For the operator, whose `NVCFBackend` is
//! deleted, and for the clean-up program of the chart, which does it where the operator cannot.
//!
//! Order matters: webhooks first, since a webhook that nothing serves stops everything; then what functions hold, while the
//! agent lives to report its end; then the agent; then the namespaces. Every step may be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use berth_kube_api::names::nvcf::INSTANCE_TYPE;
use berth_runtime::kubernetes::{ApiError, DEADLINE, within};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Node},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::object::{KINDS, Kind};
use crate::names;

/// Between two looks at what is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Takes it down.
#[derive(Clone)]
pub(super) struct Teardown {
    pub client: Client,
    /// For functions to end and to be reported; as much again for namespaces to go.
    pub drain: Duration,
}

/// What the clean-up did not see go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Had to be freed of their finalizers: nobody served them any more.
    pub freed: Vec<String>,
    /// Still there when the time was over.
    pub left: Vec<String>,
}

/// Hears how far it is.
pub(super) trait Progress {
    /// One line, for people.
    fn tell(&mut self, message: String) -> impl Future<Output = ()> + Send;
}

/// What functions hold: the agent's own resources.
const REQUESTS: [(&str, &str, &str); 3] = [
    ("v1alpha1", "MiniService", "miniservices"),
    ("v1", "StorageRequest", "storagerequests"),
    ("v2beta1", "ICMSRequest", "icmsrequests"),
];

impl Teardown {
    /// All of it.
    ///
    /// # Errors
    /// The API server did not do what it was asked; asking again goes on from there.
    pub(super) async fn run(&self, progress: &mut impl Progress) -> Result<Report, ApiError> {
        let mut report = Report::default();
        for kind in KINDS.into_iter().filter(|it| it.name.ends_with("WebhookConfiguration")) {
            self.delete(kind, names::AGENT).await?;
        }
        self.drain(progress, &mut report).await?;
        let agents: Api<Deployment> = Api::namespaced(self.client.clone(), names::SYSTEM_NAMESPACE);
        gone(within(DEADLINE, agents.delete(names::AGENT, &background())).await)?;
        self.namespaces(progress, &mut report).await?;
        for kind in KINDS.into_iter().filter(|it| it.name.starts_with("ClusterRole")) {
            self.delete(kind, names::AGENT).await?;
        }
        self.nodes().await?;
        Ok(report)
    }

    /// Deletes what functions hold, and waits for the agent to end and report them.
    async fn drain(&self, progress: &mut impl Progress, report: &mut Report) -> Result<(), ApiError> {
        let until = Instant::now() + self.drain;
        let mut told = 0;
        loop {
            let mut left = Vec::new();
            for (api, object) in self.requests().await? {
                if object.metadata.deletion_timestamp.is_none() {
                    let name = object.name_any();
                    gone(within(DEADLINE, api.delete(&name, &DeleteParams::default())).await)?;
                }
                left.push((api, object));
            }
            if left.is_empty() {
                return Ok(());
            }
            if !self.is_agent_alive().await? || Instant::now() > until {
                for (api, object) in left {
                    report.freed.push(shown(&object));
                    free(&api, &object).await?;
                }
                warn!(freed = ?report.freed, "nobody ends them any more: their finalizers are removed");
                return Ok(());
            }
            if told != left.len() {
                told = left.len();
                progress
                    .tell(format!("draining: {told} requests of functions are left"))
                    .await;
            }
            sleep(LOOK).await;
        }
    }

    /// All of [`REQUESTS`] that there are, each with its way. A resource that is not defined has none.
    async fn requests(&self) -> Result<Vec<(Api<DynamicObject>, DynamicObject)>, ApiError> {
        let mut all = Vec::new();
        for (version, kind, plural) in REQUESTS {
            let gvk = GroupVersionKind::gvk("nvca.nvcf.nvidia.io", version, kind);
            let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
            match within(DEADLINE, api.list(&ListParams::default())).await {
                Ok(list) => all.extend(list.items.into_iter().map(|object| {
                    let namespace = object.namespace();
                    let api = namespace.map_or_else(
                        || api.clone(),
                        |namespace| Api::namespaced_with(self.client.clone(), &namespace, &resource),
                    );
                    (api, object)
                })),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn is_agent_alive(&self) -> Result<bool, ApiError> {
        let agents: Api<Deployment> = Api::namespaced(self.client.clone(), names::SYSTEM_NAMESPACE);
        let agent = within(DEADLINE, agents.get_opt(names::AGENT)).await?;
        // One that is not ready may be so for want of SIS, and serves all the same.
        let there = agent.and_then(|it| it.status).and_then(|it| it.replicas);
        Ok(there.is_some_and(|there| there > 0))
    }

    async fn namespaces(&self, progress: &mut impl Progress, report: &mut Report) -> Result<(), ApiError> {
        let until = Instant::now() + self.drain;
        let mut told = String::new();
        let mut refused = BTreeSet::new();
        loop {
            // What the agent took on in its last moments has nobody any more.
            for (api, object) in self.requests().await? {
                gone(within(DEADLINE, api.delete(&object.name_any(), &DeleteParams::default())).await)?;
                report.freed.push(shown(&object));
                free(&api, &object).await?;
            }
            let mut left = self.our_namespaces().await?;
            left.retain(|name, _| !refused.contains(name));
            let namespaces: Api<Namespace> = Api::all(self.client.clone());
            for (name, is_going) in &left {
                if *is_going {
                    continue;
                }
                match gone(within(DEADLINE, namespaces.delete(name, &DeleteParams::default())).await) {
                    // Asking again brings the same: the rest goes on without it.
                    Err(error) if error.is_forbidden() => {
                        let error = &error as &dyn std::error::Error;
                        warn!(error, name, "the API server does not delete this namespace");
                        report
                            .left
                            .push(format!("Namespace {name} (its deletion is forbidden)"));
                        refused.insert(name.clone());
                    }
                    deleted => deleted?,
                }
            }
            left.retain(|name, _| !refused.contains(name));
            if left.is_empty() {
                return Ok(());
            }
            let names: Vec<&str> = left.keys().map(String::as_str).collect();
            if Instant::now() > until {
                report.left.extend(names.iter().map(|name| format!("Namespace {name}")));
                warn!(left = ?report.left, "still there; the API server goes on deleting them");
                return Ok(());
            }
            let now = names.join(", ");
            if told != now {
                progress.tell(format!("waiting for namespaces to go: {now}")).await;
                told = now;
            }
            sleep(LOOK).await;
        }
    }

    /// By name: whether it is going already.
    async fn our_namespaces(&self) -> Result<BTreeMap<String, bool>, ApiError> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(names::WORKLOAD_INSTANCE_TYPE);
        let mut all = within(DEADLINE, namespaces.list(&labelled)).await?.items;
        // People label their own, too, to get pull secrets.
        all.retain(|it| it.name_any().starts_with(names::WORKLOAD_PREFIX));
        for name in [
            names::SYSTEM_NAMESPACE,
            names::BACKEND_NAMESPACE,
            names::MODEL_CACHE_NAMESPACE,
        ] {
            all.extend(within(DEADLINE, namespaces.get_opt(name)).await?);
        }
        let is_going = |it: &Namespace| it.metadata.deletion_timestamp.is_some();
        Ok(all.iter().map(|it| (it.name_any(), is_going(it))).collect())
    }

    /// Takes the label off where the agent set it: where the GPUs are listed, people do.
    async fn nodes(&self) -> Result<(), ApiError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let labelled = ListParams::default().labels(INSTANCE_TYPE);
        let off = Patch::Merge(json!({"metadata": {"labels": {INSTANCE_TYPE: null}}}));
        for node in within(DEADLINE, nodes.list_metadata(&labelled)).await? {
            if !is_labelled_by_agent(&node.metadata) {
                continue;
            }
            let patched = within(
                DEADLINE,
                nodes.patch_metadata(&node.name_any(), &PatchParams::default(), &off),
            )
            .await;
            gone(patched)?;
        }
        Ok(())
    }

    async fn delete(&self, kind: Kind, name: &str) -> Result<(), ApiError> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.resource());
        gone(within(DEADLINE, api.delete(name, &DeleteParams::default())).await)
    }
}

/// Whether the agent applied it.
fn is_labelled_by_agent(node: &ObjectMeta) -> bool {
    let mut entries = node.managed_fields.iter().flatten();
    entries.any(|entry| {
        let labels = entry
            .fields_v1
            .as_ref()
            .map(|fields| &fields.0["f:metadata"]["f:labels"]);
        entry.manager.as_deref() == Some(names::AGENT)
            && labels.is_some_and(|labels| labels.get(format!("f:{INSTANCE_TYPE}")).is_some())
    })
}

/// Removes all finalizers.
///
/// # Errors
/// What the API server said.
pub(super) async fn free(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<(), ApiError> {
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let name = object.name_any();
    info!(object = shown(object), "removing its finalizers");
    gone(within(DEADLINE, api.patch(&name, &PatchParams::default(), &none)).await)
}

fn shown(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("", |types| &types.kind);
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

fn background() -> DeleteParams {
    DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    }
}

/// What is not there need not be deleted.
fn gone<T>(result: Result<T, ApiError>) -> Result<(), ApiError> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

// The client has no `Debug`.
impl std::fmt::Debug for Teardown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teardown")
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
