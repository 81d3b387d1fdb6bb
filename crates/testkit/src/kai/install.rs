//! What a cluster needs before KAI's parts start: resource definitions, priority classes, queues, a namespace.
//!
//! The definitions are our own and name only what the stand-in reads; the rest of an object is kept as it is.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, ServiceAccount},
        scheduling::v1::PriorityClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::wait::{await_condition, conditions},
};
use serde_json::{Value, json};

use super::{
    names,
    objects::{Queue, QueueResource, QueueResources, QueueSpec},
};

/// The longest that the API server may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Group, version, plural, kind, in a namespace, with a status.
type Kind = (&'static str, &'static str, &'static str, &'static str, bool, bool);

const KINDS: [Kind; 6] = [
    (
        "scheduling.run.ai",
        "v1alpha2",
        "bindrequests",
        "BindRequest",
        true,
        true,
    ),
    ("scheduling.run.ai", "v2alpha2", "podgroups", "PodGroup", true, true),
    ("scheduling.run.ai", "v2", "queues", "Queue", false, true),
    ("kai.scheduler", "v1alpha1", "topologies", "Topology", false, false),
    ("kai.scheduler", "v1", "configs", "Config", false, true),
    (
        "kai.scheduler",
        "v1",
        "schedulingshards",
        "SchedulingShard",
        false,
        true,
    ),
];

/// Applies our definitions.
pub(crate) async fn definitions(client: &Client) -> anyhow::Result<()> {
    for kind in KINDS {
        let name = format!("{}.{}", kind.2, kind.0);
        apply::<CustomResourceDefinition>(client, &name, &definition(kind)).await?;
    }
    Ok(())
}

/// Waits until every kind is served: KAI's parts end, or wait for ever, where one is not.
pub(crate) async fn wait_established(client: &Client) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (group, _, plural, ..) in KINDS {
        let name = format!("{plural}.{group}");
        let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(ESTABLISHED, established)
            .await
            .with_context(|| format!("{name} is not served after {} s", ESTABLISHED.as_secs()))??;
    }
    Ok(())
}

/// Applies what the chart brings along: priority classes, the reservation pods' namespace and account, both queues.
pub(crate) async fn defaults(client: &Client) -> anyhow::Result<()> {
    for (name, value) in names::PRIORITY_CLASSES {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value});
        apply::<PriorityClass>(client, name, &class).await?;
    }
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names::RESERVATION_NAMESPACE}});
    apply::<Namespace>(client, names::RESERVATION_NAMESPACE, &namespace).await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names::RESERVATION_APP}});
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), names::RESERVATION_NAMESPACE);
    accounts
        .patch(names::RESERVATION_APP, &field_manager(), &Patch::Apply(&account))
        .await?;
    queue(client, names::DEFAULT_PARENT_QUEUE, "", unlimited()).await?;
    queue(client, names::DEFAULT_QUEUE, names::DEFAULT_PARENT_QUEUE, unlimited()).await
}

/// A queue's resources without an end.
pub fn unlimited() -> QueueResources {
    let endless = QueueResource {
        quota: -1.0,
        limit: -1.0,
        over_quota_weight: 1.0,
    };
    QueueResources {
        gpu: endless,
        cpu: endless,
        memory: endless,
    }
}

/// Creates or changes a queue; no parent where `parent` is empty.
pub async fn queue(client: &Client, name: &str, parent: &str, resources: QueueResources) -> anyhow::Result<()> {
    let spec = QueueSpec {
        parent_queue: parent.to_owned(),
        resources,
    };
    apply::<Queue>(client, name, &serde_json::to_value(Queue::new(name, spec))?).await
}

async fn apply<K>(client: &Client, name: &str, object: &Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let applied = api.patch(name, &field_manager(), &Patch::Apply(object)).await;
    applied
        .map(drop)
        .with_context(|| format!("{} {name} was not taken", K::kind(&())))
}

fn field_manager() -> PatchParams {
    PatchParams::apply("berth-rig").force()
}

fn definition((group, version, plural, kind, namespaced, status): Kind) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut spec = open.clone();
    spec["properties"] = fields(kind);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": if status { json!({"status": {}}) } else { json!({}) },
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": open}}},
            }],
        },
    })
}

/// The types of what is read: so that the API server refuses what the stand-in could not read.
fn fields(kind: &str) -> Value {
    let text = json!({"type": "string"});
    let whole = json!({"type": "integer"});
    let resource = json!({"type": "object", "properties": {
        "quota": {"type": "number"}, "limit": {"type": "number"}, "overQuotaWeight": {"type": "number"}}});
    match kind {
        "BindRequest" => json!({
            "podName": text, "selectedNode": text, "receivedResourceType": text, "backoffLimit": whole,
            "receivedGPU": {"type": "object", "properties": {"count": whole, "portion": text}},
            "selectedGPUGroups": {"type": "array", "items": text}}),
        "PodGroup" => json!({
            "minMember": {"type": "integer", "minimum": 0}, "queue": text, "priorityClassName": text,
            "preemptibility": {"type": "string", "enum": ["preemptible", "non-preemptible"]}}),
        "Queue" => json!({
            "parentQueue": text,
            "resources": {"type": "object", "properties": {"gpu": resource, "cpu": resource, "memory": resource}}}),
        _ => json!({}),
    }
}
