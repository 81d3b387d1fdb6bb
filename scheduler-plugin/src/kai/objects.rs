//! What is written to the API server for KAI's sake, as JSON. Pure; checked by golden tests.

use berth_kube_api::{
    names::{berth, kai},
    placement::Placement,
};
use berth_placement::{GpuShape, NodeName, ShareSize};
use kube::{
    ResourceExt as _,
    api::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use super::{narrowing::Narrowing, pod::KaiPod};

/// Label of the groups that are made here.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const US: &str = "berth-scheduler";

pub(super) fn pod_groups() -> ApiResource {
    resource("v2alpha2", "PodGroup", "podgroups")
}

pub(super) fn bind_requests() -> ApiResource {
    resource("v1alpha2", "BindRequest", "bindrequests")
}

pub(super) fn queues() -> ApiResource {
    resource("v2", "Queue", "queues")
}

fn resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    const GROUP: &str = "scheduling.run.ai";
    ApiResource {
        group: GROUP.to_owned(),
        version: version.to_owned(),
        api_version: format!("{GROUP}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Of the group by which KAI accounts the pod: one for all that Berth binds in a namespace for the same queue and pool. KAI looks
/// for groups by their name alone, so it tells all that makes the group another one.
pub(super) fn group_name(pod: &KaiPod) -> String {
    shared_name(&pod.pod.namespace, &pod.queue, pod.node_pool.as_deref())
}

fn shared_name(namespace: &str, queue: &str, pool: Option<&str>) -> String {
    let pool = pool.unwrap_or_default();
    let sum = fnv1a(format!("{namespace}/{queue}/{pool}").as_bytes());
    format!("berth-{namespace}-{queue}-{sum:016x}")
}

/// FNV-1a (Fowler, Noll, Vo): the same in every process and version.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The group of pods that came without one. KAI evicts none of it, and nothing of it ever waits for a place.
pub(super) fn pod_group(pod: &KaiPod) -> DynamicObject {
    let mut group = DynamicObject::new(&group_name(pod), &pod_groups()).data(json!({"spec": shared_spec(&pod.queue)}));
    let labels = group.labels_mut();
    labels.insert(MANAGED_BY.to_owned(), US.to_owned());
    labels.extend(pod.node_pool.clone().map(|pool| (kai::NODE_POOL.to_owned(), pool)));
    group
}

fn shared_spec(queue: &str) -> Value {
    json!({
        "minMember": 1,
        "queue": queue,
        "priorityClassName": kai::INFERENCE,
        "preemptibility": "non-preemptible",
    })
}

/// Makes such a group again what it was; a merge patch.
pub(super) fn pod_group_again(pod: &KaiPod) -> Value {
    json!({
        "metadata": {"labels": {MANAGED_BY: US, kai::NODE_POOL: pod.node_pool}},
        "spec": shared_spec(&pod.queue),
    })
}

/// Whether such a group is what it was, as far as KAI judges by it: whose it is shows in its name.
pub(super) fn is_as_made(group: &DynamicObject) -> bool {
    let label = |name: &str| group.labels().get(name).map(String::as_str);
    let (namespace, spec) = (group.namespace().unwrap_or_default(), &group.data["spec"]);
    let queue = spec["queue"].as_str().unwrap_or_default();
    let mut made = shared_spec(queue).as_object().cloned().unwrap_or_default().into_iter();
    label(MANAGED_BY) == Some(US)
        && group.name_any() == shared_name(&namespace, queue, label(kai::NODE_POOL))
        && made.all(|(field, value)| spec[field] == value)
}

/// Selects the groups of [`pod_group`].
pub(super) fn of_ours() -> String {
    format!("{MANAGED_BY}={US}")
}

/// `groups`: one for each GPU that the pod gets a part of.
pub(super) fn bind_request(pod: &KaiPod, node: &NodeName, groups: &[String]) -> Value {
    let mut labels = labels(pod);
    labels[kai::SELECTED_NODE] = json!(node.as_str());
    let (kind, count, portion) = received(pod);
    json!({
        "apiVersion": "scheduling.run.ai/v1alpha2",
        "kind": "BindRequest",
        // The name is the contract: KAI looks for the request of a pod by the pod's name.
        "metadata": {"name": pod.pod.name, "labels": labels, "ownerReferences": [owner(pod)]},
        "spec": {
            "podName": pod.pod.name,
            "selectedNode": node.as_str(),
            "receivedResourceType": kind,
            "receivedGPU": {"count": count, "portion": portion},
            "selectedGPUGroups": groups,
        },
    })
}

/// The node of a `BindRequest`, if that is the pod's: its name may be that of an older pod.
pub(super) fn selected_node(request: &DynamicObject, pod: &KaiPod) -> Option<NodeName> {
    let mut owners = request.owner_references().iter().filter(|owner| owner.kind == "Pod");
    let is_its = owners.all(|owner| owner.uid == pod.pod.uid.as_str());
    let node = request.data["spec"]["selectedNode"].as_str()?;
    is_its.then(|| node.parse().ok()).flatten()
}

fn received(pod: &KaiPod) -> (&'static str, u32, String) {
    match &pod.shape.gpu {
        GpuShape::Share { size, count } => {
            let milli = match size {
                ShareSize::Milli(milli) | ShareSize::Both(milli, _) => milli.get(),
                // KAI reads the pod's own annotation for how much memory that is.
                ShareSize::Memory(_) => 0,
            };
            let hundredths = milli.div_ceil(10);
            (
                "Fraction",
                *count,
                format!("{}.{:02}", hundredths / 100, hundredths % 100),
            )
        }
        GpuShape::Whole { count } | GpuShape::Mig { count, .. } => ("Regular", *count, "1.00".to_owned()),
        GpuShape::None => ("Regular", 0, "1.00".to_owned()),
    }
}

fn labels(pod: &KaiPod) -> Value {
    match &pod.node_pool {
        Some(pool) => json!({kai::NODE_POOL: pool}),
        None => json!({}),
    }
}

fn owner(pod: &KaiPod) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "name": pod.pod.name, "uid": pod.pod.uid.as_str()})
}

/// For `pods/status`, as merge patch; `None` clears it.
pub(super) fn nomination(node: Option<&NodeName>) -> Value {
    json!({"status": {"nominatedNodeName": node.map(NodeName::as_str)}})
}

/// The gate goes, and with `hint` the placement and what the pod is held to come; a strategic merge patch, since it names one
/// element of a list.
pub(super) fn release(pod: &KaiPod, hint: Option<&Placement>, narrowing: &Narrowing) -> Value {
    let gate = json!({"$patch": "delete", "name": berth::PLACEMENT});
    let mut patch = json!({"metadata": {"uid": pod.pod.uid.as_str()}, "spec": {"schedulingGates": [gate]}});
    if let Some(placement) = hint {
        patch["metadata"]["annotations"] = json!({berth::PLACEMENT: placement.to_annotation()});
    }
    if let Some(terms) = narrowing.terms(pod.node_affinity.as_ref()) {
        let selector = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        patch["spec"]["affinity"] = json!({"nodeAffinity": selector});
    }
    patch
}

/// The pod is KAI's from now on, as if Berth were not there; a merge patch. `version`: of the pod as it was read, for that one
/// only.
pub(super) fn hand_over(pod: &KaiPod, version: Option<&str>) -> Value {
    let group = pod.bind.as_deref().filter(|group| !group.is_empty());
    json!({"metadata": {"uid": pod.pod.uid.as_str(), "resourceVersion": version, "annotations": {
        berth::KAI_BIND: null,
        kai::SKIP_PODGROUPER: null,
        kai::POD_GROUP: group,
    }}})
}

/// What a bound pod is to carry; a merge patch.
pub(super) fn placed(pod: &KaiPod, placement: &Placement, group: &str) -> Value {
    json!({"metadata": {"uid": pod.pod.uid.as_str(), "annotations": {
        berth::PLACEMENT: placement.to_annotation(),
        kai::POD_GROUP: group,
    }}})
}

/// What a pod without a gate is told now; `None`: the annotation speaks of a node to which the pod does not go. A merge patch.
pub(super) fn rehinted(pod: &KaiPod, placement: Option<&Placement>) -> Value {
    let annotation = placement.map(Placement::to_annotation);
    json!({"metadata": {"uid": pod.pod.uid.as_str(), "annotations": {berth::PLACEMENT: annotation}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kai::pod::tests::pod;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn placement() -> Placement {
        Placement {
            node: "n".to_owned(),
            ..Placement::default()
        }
    }

    #[test]
    fn a_share_is_asked_of_kais_binder_by_a_request_named_as_the_pod() {
        let shared = pod(|pod| {
            pod["spec"]["containers"][0]["resources"] = json!({});
            pod["metadata"]["annotations"]["gpu-fraction"] = json!("0.25");
            pod["metadata"]["labels"]["kai.scheduler/node-pool"] = json!("blue");
        });
        let request = bind_request(&KaiPod::of(&shared).unwrap(), &name("n"), &["g".to_owned()]);
        assert_eq!(
            request,
            json!({
                "apiVersion": "scheduling.run.ai/v1alpha2", "kind": "BindRequest",
                "metadata": {
                    "name": "p",
                    "labels": {"kai.scheduler/node-pool": "blue", "selected-node": "n"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
                },
                "spec": {
                    "podName": "p", "selectedNode": "n", "receivedResourceType": "Fraction",
                    "receivedGPU": {"count": 1, "portion": "0.25"}, "selectedGPUGroups": ["g"],
                },
            }),
            "and no backoffLimit"
        );
    }

    #[test]
    fn a_request_of_an_older_pod_of_the_same_name_says_nothing_of_this_one() {
        let plain = KaiPod::of(&pod(|_| {})).unwrap();
        let mut request = bind_request(&plain, &name("n"), &[]);
        let node = |request: &Value| selected_node(&serde_json::from_value(request.clone()).unwrap(), &plain);
        assert_eq!(node(&request), Some(name("n")));
        request["metadata"]["ownerReferences"][0]["uid"] = json!("older");
        assert_eq!(node(&request), None);
    }

    #[test]
    fn the_gate_goes_together_with_what_was_decided() {
        let plain = KaiPod::of(&pod(|_| {})).unwrap();
        let gate = json!([{"$patch": "delete", "name": "gpu.berth.dev/placement"}]);
        let nothing = release(&plain, None, &Narrowing::default());
        assert_eq!(
            nothing,
            json!({"metadata": {"uid": "u"}, "spec": {"schedulingGates": gate}})
        );
        let narrowing = Narrowing {
            top: vec!["n".to_owned(), "m".to_owned()],
            ..Narrowing::default()
        };
        let hinted = release(&plain, Some(&placement()), &narrowing);
        let annotation = &hinted["metadata"]["annotations"]["gpu.berth.dev/placement"];
        assert!(annotation.as_str().unwrap().contains(r#""node":"n""#));
        let required = &hinted["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let among = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["n", "m"]});
        assert_eq!(required["nodeSelectorTerms"], json!([{"matchExpressions": [among]}]));
    }

    #[test]
    fn a_hint_that_changes_brings_its_placement_and_one_that_goes_takes_it_along() {
        let plain = KaiPod::of(&pod(|_| {})).unwrap();
        let annotations =
            |placement: Option<&Placement>| rehinted(&plain, placement)["metadata"]["annotations"].clone();
        assert_eq!(
            annotations(Some(&placement())),
            json!({"gpu.berth.dev/placement": placement().to_annotation()})
        );
        assert_eq!(annotations(None), json!({"gpu.berth.dev/placement": null}));
        assert_eq!(rehinted(&plain, None)["metadata"]["uid"], "u");
    }

    #[test]
    fn what_is_handed_over_is_as_if_berth_were_not_there() {
        let of_gang = KaiPod::of(&pod(|pod| {
            pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!("gang");
        }))
        .unwrap();
        let annotations = |pod: &KaiPod| hand_over(pod, None)["metadata"]["annotations"].clone();
        assert_eq!(
            annotations(&of_gang),
            json!({"gpu.berth.dev/kai-bind": null, "kai.scheduler/skip-podgrouper": null, "pod-group-name": "gang"})
        );
        let alone = KaiPod::of(&pod(|pod| {
            pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!("");
        }))
        .unwrap();
        assert_eq!(annotations(&alone)["pod-group-name"], Value::Null);
        assert_eq!(nomination(None), json!({"status": {"nominatedNodeName": null}}));
    }

    #[test]
    fn what_berth_binds_for_a_queue_has_one_group_and_no_other_has_its_name() {
        let in_queue = |namespace: &str, queue: &str, pool: Option<&str>| {
            let pod = pod(|pod| {
                pod["metadata"]["namespace"] = json!(namespace);
                pod["metadata"]["labels"]["kai.scheduler/queue"] = json!(queue);
                if let Some(pool) = pool {
                    pod["metadata"]["labels"]["kai.scheduler/node-pool"] = json!(pool);
                }
            });
            KaiPod::of(&pod).unwrap()
        };
        let group = json!(pod_group(&in_queue("sr-a", "b", Some("Blue_1"))));
        assert_eq!(
            (
                &group["spec"]["queue"],
                &group["metadata"]["labels"]["kai.scheduler/node-pool"]
            ),
            (&json!("b"), &json!("Blue_1"))
        );
        assert_eq!(group["spec"]["preemptibility"], "non-preemptible");
        let names: std::collections::BTreeSet<String> = [
            ("sr-a", "b", None),
            ("sr-a", "b", Some("Blue_1")),
            ("sr", "a-b", None),
            ("sr-a", "c", None),
        ]
        .map(|(namespace, queue, pool)| group_name(&in_queue(namespace, queue, pool)))
        .into();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(
            names.contains("berth-sr-a-b-bf9029a6a46cfa70"),
            "the same for ever: {names:?}"
        );
    }
}
