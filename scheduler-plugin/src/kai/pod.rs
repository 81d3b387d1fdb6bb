//! A pod that KAI Scheduler places, as far as Berth looks at it. Pure.

use std::collections::BTreeMap;

use berth_kube_api::{
    names::{berth, kai, nvcf},
    object, pod_shape,
};
use berth_placement::{GpuShape, NodeName, PodRef, Shape};
use k8s_openapi::api::core::v1::{NodeAffinity, Pod, Toleration};
use kube::ResourceExt as _;

use super::{groups::GroupKey, objects};

/// The namespaces in which NVCF's agent makes function pods: this one, and `sr-…`.
const FUNCTIONS: &str = "nvcf-backend";

/// See the module's text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KaiPod {
    pub(crate) pod: PodRef,
    pub(crate) shape: Shape,
    /// `None`: it is pending.
    pub(crate) node: Option<NodeName>,
    pub(crate) is_over: bool,
    pub(crate) gates: Gates,
    /// In bind mode: the group that it came with, or empty.
    pub(crate) bind: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) queue: String,
    /// As KAI judges it: by label, else by priority. (It looks at the PodGroup, which has it from there.)
    pub(crate) is_preemptible: bool,
    pub(crate) node_pool: Option<String>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) node_affinity: Option<NodeAffinity>,
    pub(crate) tolerations: Vec<Toleration>,
    /// Something that only KAI knows how to judge: volumes that must be bound, affinity to other pods, claims, host ports.
    pub(crate) needs_kai: Option<&'static str>,
}

/// What keeps a pod from being placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gates {
    None,
    /// Ours alone: it waits for a hint.
    Ours,
    /// Somebody else's too: it is not to be placed yet.
    Others,
}

impl KaiPod {
    /// `None`: it cannot be understood, and KAI may do with it what it will.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let slim = slim(pod)?;
        let spec = pod.spec.as_ref()?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
        let is_ours = |gate: &&k8s_openapi::api::core::v1::PodSchedulingGate| gate.name == berth::PLACEMENT;
        let affinity = spec.affinity.as_ref();
        let annotation = |name: &str| pod.annotations().get(name).cloned();
        Some(Self {
            pod: PodRef::new(&pod.namespace()?, &pod.name_any(), pod.uid()?.parse().ok()?).ok()?,
            shape: pod_shape(&slim).ok()?,
            node: spec.node_name.as_deref().and_then(|node| node.parse().ok()),
            is_over: matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some(),
            gates: match (gates.is_empty(), gates.iter().all(|gate| is_ours(&gate))) {
                (true, _) => Gates::None,
                (false, true) => Gates::Ours,
                (false, false) => Gates::Others,
            },
            bind: annotation(berth::KAI_BIND),
            group: annotation(kai::POD_GROUP),
            queue: queue(pod),
            is_preemptible: is_preemptible(pod),
            node_pool: pod.labels().get(kai::NODE_POOL).cloned(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            node_affinity: affinity.and_then(|affinity| affinity.node_affinity.clone()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            needs_kai: needs_kai(pod),
        })
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.node.is_none() && !self.is_over
    }

    /// The group that Berth made for pods like it, if it is in that.
    pub(super) fn shared_group(&self) -> Option<GroupKey> {
        let group = self.group.clone()?;
        (group == objects::group_name(self)).then(|| (self.pod.namespace.clone(), group))
    }
}

/// Whether the pod is for Berth to place: NVCF's functions and tasks, and what says so itself. Pods without GPUs are not.
pub(crate) fn is_managed(pod: &Pod, namespace: &str) -> bool {
    let wanted = match pod.labels().get(berth::MANAGED).map(String::as_str) {
        Some("true") => true,
        Some("false") => false,
        _ => {
            let is_function = [nvcf::FUNCTION_VERSION_ID, nvcf::TASK_ID];
            namespace == FUNCTIONS
                || namespace.starts_with("sr-")
                || is_function.iter().any(|label| pod.labels().contains_key(*label))
        }
    };
    let is_kais = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()) == Some(kai::SCHEDULER);
    let has_gpus = || {
        slim(pod)
            .and_then(|slim| pod_shape(&slim).ok())
            .is_some_and(|shape| shape.gpu != GpuShape::None)
    };
    wanted && is_kais && has_gpus()
}

fn queue(pod: &Pod) -> String {
    pod.labels()
        .get(kai::QUEUE)
        .map_or_else(|| kai::DEFAULT_QUEUE.to_owned(), Clone::clone)
}

fn is_preemptible(pod: &Pod) -> bool {
    /// Below it KAI evicts.
    const BORDER: i32 = 100;
    match pod.labels().get(kai::PREEMPTIBILITY).map(String::as_str) {
        Some("preemptible") => return true,
        Some("non-preemptible") => return false,
        _ => {}
    }
    let class = pod.labels().get(kai::PRIORITY_CLASS).map(String::as_str);
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    !matches!(class, Some("build" | "inference")) && priority < BORDER
}

/// Why only KAI can judge where the pod may be.
pub(crate) fn needs_kai(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let volumes = spec.volumes.iter().flatten();
    if volumes
        .clone()
        .any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
    {
        return Some("it has volumes that must be bound first");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("it has resource claims");
    }
    let affinity = spec.affinity.as_ref();
    if affinity.is_some_and(|affinity| affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some()) {
        return Some("it wants to be near other pods, or away from them");
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    if spec.host_network == Some(true) || ports.any(|port| port.host_port.is_some()) {
        return Some("it wants ports of the host");
    }
    let spread = spec.topology_spread_constraints.as_ref();
    spread
        .is_some_and(|constraints| !constraints.is_empty())
        .then_some("it wants to be spread")
}

/// By way of JSON: the slim pod is read from the wire everywhere else.
fn slim(pod: &Pod) -> Option<berth_kube_api::Pod> {
    let spec: object::PodSpec = serde_json::from_value(serde_json::to_value(pod.spec.as_ref()?).ok()?).ok()?;
    Some(berth_kube_api::Pod {
        metadata: object::ObjectMeta {
            name: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            uid: pod.uid().unwrap_or_default(),
            labels: pod.labels().clone(),
            annotations: pod.annotations().clone(),
        },
        spec,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "nvcf-backend", "uid": "u", "labels": {}, "annotations": {}},
            "spec": {
                "schedulerName": "kai-scheduler",
                "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}],
            },
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn function_pods_are_managed_and_others_only_where_they_say_so() {
        assert!(is_managed(&pod(|_| {}), "nvcf-backend"));
        assert!(is_managed(&pod(|_| {}), "sr-4711"));
        assert!(!is_managed(&pod(|_| {}), "default"));
        let labelled = |label: &str, value: &str| pod(|pod| pod["metadata"]["labels"][label] = json!(value));
        assert!(is_managed(&labelled("function-version-id", "v"), "default"));
        assert!(is_managed(&labelled("gpu.berth.dev/managed", "true"), "default"));
        assert!(!is_managed(&labelled("gpu.berth.dev/managed", "false"), "nvcf-backend"));
        let without_gpus = pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({}));
        assert!(!is_managed(&without_gpus, "nvcf-backend"));
        let of_another = pod(|pod| pod["spec"]["schedulerName"] = json!("default-scheduler"));
        assert!(!is_managed(&of_another, "nvcf-backend"));
    }

    #[test]
    fn gates_queue_and_group_are_read() {
        let gated = pod(|pod| {
            pod["spec"]["schedulingGates"] = json!([{"name": "gpu.berth.dev/placement"}, {"name": "other"}]);
            pod["metadata"]["labels"]["kai.scheduler/queue"] = json!("team-a");
            pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!("gang");
        });
        let gated = KaiPod::of(&gated).unwrap();
        assert!(gated.gates == Gates::Others && gated.is_pending());
        assert_eq!((gated.queue.as_str(), gated.bind.as_deref()), ("team-a", Some("gang")));
        let plain = KaiPod::of(&pod(|_| {})).unwrap();
        assert_eq!(
            (plain.queue.as_str(), plain.gates, plain.bind),
            ("default-queue", Gates::None, None)
        );
        let volume = pod(|pod| {
            pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        });
        assert!(KaiPod::of(&volume).unwrap().needs_kai.is_some());
        let over = pod(|pod| pod["status"] = json!({"phase": "Failed"}));
        assert!(!KaiPod::of(&over).unwrap().is_pending());
    }
}
