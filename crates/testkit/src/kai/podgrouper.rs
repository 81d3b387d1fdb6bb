//! Puts pods into groups: finds what made a pod, makes the `PodGroup`, and names it on the pod. Gated pods too.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use k8s_openapi::api::{core::v1::Pod, scheduling::v1::PriorityClass};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams, TypeMeta},
    runtime::{Controller, controller, controller::Action, watcher},
};
use serde_json::json;

use super::{
    names,
    objects::{PodGroup, PodGroupSpec},
};

#[cfg(test)]
mod tests;

/// What a pod belongs to, as far as grouping looks at it: itself where nothing owns it.
#[derive(Debug, Clone)]
struct Owner {
    types: TypeMeta,
    metadata: ObjectMeta,
}

/// Owners of owners that are followed; more is a cycle.
const DEPTH: usize = 8;

/// Runs until the process ends.
pub(super) async fn run(client: Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    Controller::new(pods, watcher::Config::default())
        .with_config(controller::Config::default().concurrency(10))
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_secs(1)),
            Arc::new(client),
        )
        .for_each(|result| async {
            if let Err(error) = result {
                super::log(&format!("{error}"));
            }
        })
        .await;
    anyhow::bail!("a watch ended")
}

async fn reconcile(pod: Arc<Pod>, client: Arc<Client>) -> kube::Result<Action> {
    if !is_ours(&pod) {
        return Ok(Action::await_change());
    }
    let Some(owners) = owners(&client, &pod).await? else {
        return Ok(Action::await_change());
    };
    if owners.iter().any(|owner| skips(&owner.metadata)) {
        return Ok(Action::await_change());
    }
    let priority_class = priority_class(&client, &pod, &owners).await?;
    let group = group(&pod, &owners, priority_class);
    apply(&client, &group).await?;
    let (name, pods) = (
        group.name_any(),
        Api::<Pod>::namespaced((*client).clone(), &pod.namespace().unwrap_or_default()),
    );
    if pod.annotations().get(names::POD_GROUP) != Some(&name) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {names::POD_GROUP: name}}}));
        pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await?;
    }
    Ok(Action::await_change())
}

/// Not of another scheduler, not to be skipped, and not somebody else's group already.
fn is_ours(pod: &Pod) -> bool {
    let scheduler = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    let grouped_by_hand = pod.owner_references().is_empty() && pod.annotations().contains_key(names::POD_GROUP);
    scheduler == Some(names::SCHEDULER) && !grouped_by_hand && !skips(&pod.metadata)
}

fn skips(metadata: &ObjectMeta) -> bool {
    let annotation = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(names::SKIP_PODGROUPER));
    annotation.is_some_and(|value| value == "true")
}

/// From the pod's owner to the top; the pod itself where it has none, `None` where one is missing.
async fn owners(client: &Client, pod: &Pod) -> kube::Result<Option<Vec<Owner>>> {
    let mut owners = Vec::new();
    let mut metadata = pod.metadata.clone();
    for _ in 0..DEPTH {
        let references = metadata.owner_references.clone().unwrap_or_default();
        let Some(reference) = references
            .iter()
            .find(|one| one.controller == Some(true))
            .or_else(|| references.first())
        else {
            break;
        };
        let (group, version) = reference
            .api_version
            .split_once('/')
            .unwrap_or(("", &reference.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &reference.kind));
        let api: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), &pod.namespace().unwrap_or_default(), &resource);
        let Some(object) = api.get_opt(&reference.name).await? else {
            return Ok(None);
        };
        metadata = object.metadata;
        let types = TypeMeta {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
        };
        owners.push(Owner {
            types,
            metadata: metadata.clone(),
        });
    }
    if owners.is_empty() {
        let types = TypeMeta {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
        };
        owners.push(Owner {
            types,
            metadata: pod.metadata.clone(),
        });
    }
    Ok(Some(owners))
}

/// The first class that a label or the pod names and that exists; else by kind, whether it exists or not.
async fn priority_class(client: &Client, pod: &Pod, owners: &[Owner]) -> kube::Result<String> {
    let classes: Api<PriorityClass> = Api::all(client.clone());
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.clone());
    for owner in owners {
        let named = label(&[&owner.metadata, &pod.metadata], names::PRIORITY_CLASS).or_else(|| of_pod.clone());
        if let Some(name) = named.filter(|name| !name.is_empty())
            && classes.get_opt(&name).await?.is_some()
        {
            return Ok(name);
        }
    }
    let inference = is_deployment(owners);
    Ok(if inference { "inference" } else { "train" }.to_owned())
}

fn is_deployment(owners: &[Owner]) -> bool {
    owners.last().is_some_and(|top| top.types.kind == "Deployment")
}

/// The first of these objects that has the label tells.
fn label(objects: &[&ObjectMeta], key: &str) -> Option<String> {
    objects
        .iter()
        .find_map(|object| object.labels.as_ref()?.get(key).cloned())
}

/// One group per top owner; of a Deployment and of a Job, one per pod.
fn group(pod: &Pod, owners: &[Owner], priority_class_name: String) -> PodGroup {
    let itself = Owner {
        types: TypeMeta {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
        },
        metadata: pod.metadata.clone(),
    };
    let top = owners.last().unwrap_or(&itself);
    let (name, uid, owner) = match top.types.kind.as_str() {
        "Deployment" => (pod.name_any(), pod.uid(), &itself),
        "Job" => (pod.name_any(), top.metadata.uid.clone(), top),
        _ => (
            top.metadata.name.clone().unwrap_or_default(),
            top.metadata.uid.clone(),
            top,
        ),
    };
    let both = [&top.metadata, &pod.metadata];
    let queue = label(&both, names::QUEUE).or_else(|| label(&both, "project"));
    let mut from_owners: Vec<_> = owners.iter().map(|owner| &owner.metadata).collect();
    from_owners.push(&pod.metadata);
    let preemptibility = label(&from_owners, names::PREEMPTIBILITY);
    let known = preemptibility.filter(|value| matches!(value.as_str(), "preemptible" | "non-preemptible"));
    let mut annotations = top.metadata.annotations.clone().unwrap_or_default();
    let (api_group, version) = top
        .types
        .api_version
        .split_once('/')
        .unwrap_or(("\"\"", &top.types.api_version));
    let made_by = format!(
        "name: {}\nuid: {}\ngroup: {api_group}\nversion: {version}\nkind: {}\n",
        top.metadata.name.as_deref().unwrap_or_default(),
        top.metadata.uid.as_deref().unwrap_or_default(),
        top.types.kind
    );
    annotations.entry(names::TOP_OWNER.to_owned()).or_insert(made_by);
    let reference = json!({"apiVersion": owner.types.api_version, "kind": owner.types.kind,
        "name": owner.metadata.name, "uid": owner.metadata.uid});
    let mut labels = top.metadata.labels.clone().unwrap_or_default();
    if let Some(pool) = pod.labels().get(names::NODE_POOL) {
        labels
            .entry(names::NODE_POOL.to_owned())
            .or_insert_with(|| pool.clone());
    }
    PodGroup {
        metadata: ObjectMeta {
            name: Some(format!("pg-{name}-{}", uid.unwrap_or_default())),
            namespace: pod.namespace(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: serde_json::from_value(reference).ok().map(|reference| vec![reference]),
            ..ObjectMeta::default()
        },
        spec: PodGroupSpec {
            min_member: 1,
            queue: queue.unwrap_or_else(|| names::DEFAULT_QUEUE.to_owned()),
            priority_class_name,
            preemptibility: known.unwrap_or_default(),
        },
        status: None,
    }
}

/// Makes it, or brings it up to date; its queue is left as it is.
async fn apply(client: &Client, group: &PodGroup) -> kube::Result<()> {
    let groups: Api<PodGroup> = Api::namespaced(client.clone(), &group.namespace().unwrap_or_default());
    let name = group.name_any();
    let Some(old) = groups.get_opt(&name).await? else {
        return match groups.create(&PostParams::default(), group).await {
            // Another pod of the same group came first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        };
    };
    let wanted = PodGroupSpec {
        queue: old.spec.queue.clone(),
        ..group.spec.clone()
    };
    if wanted != old.spec {
        groups
            .patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": wanted})))
            .await?;
    }
    Ok(())
}
