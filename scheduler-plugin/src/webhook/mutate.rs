//! What becomes of a pod at its creation, as JSON patch (RFC 6902). Pure.

use std::collections::BTreeMap;

use berth_kube_api::names::{berth, kai};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::kai::{Mode, is_managed, needs_kai};

/// Nothing for pods that are not Berth's to place.
pub(super) fn operations(pod: &Pod, namespace: &str, mode: Mode) -> Vec<Value> {
    let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let is_preemptible = pod
        .labels()
        .get(kai::PREEMPTIBILITY)
        .is_some_and(|value| value == "preemptible");
    if is_bound || !is_managed(pod, namespace) || pod.annotations().contains_key(berth::KAI_BIND) {
        return Vec::new();
    }
    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    let mut operations = Vec::new();
    // KAI's default for a bare pod is a class whose pods it evicts for others.
    let has_class = pod.spec.as_ref().is_some_and(|spec| spec.priority_class_name.is_some())
        || pod.labels().contains_key(kai::PRIORITY_CLASS)
        || pod.labels().contains_key(kai::PREEMPTIBILITY);
    if !has_class {
        labels.insert(kai::PRIORITY_CLASS, kai::INFERENCE.to_owned());
    }
    // What KAI has to place all the same is told the best node instead. Of a gang all go the same way.
    let is_hinted = mode == Mode::Hint || (needs_kai(pod).is_some() && !pod.annotations().contains_key(kai::POD_GROUP));
    match if is_hinted { Mode::Hint } else { Mode::Bind } {
        // What KAI may evict stays KAI's: Berth binds nothing that it could not keep.
        Mode::Bind if is_preemptible => return Vec::new(),
        Mode::Bind => {
            labels.insert(kai::PREEMPTIBILITY, "non-preemptible".to_owned());
            annotations.insert(kai::SKIP_PODGROUPER, "true".to_owned());
            let group = pod.annotations().get(kai::POD_GROUP).cloned();
            annotations.insert(berth::KAI_BIND, group.clone().unwrap_or_default());
            if group.is_some() {
                operations.push(json!({"op": "remove", "path": pointer("annotations", kai::POD_GROUP)}));
            }
        }
        Mode::Hint => {
            let gate = json!({"name": berth::PLACEMENT});
            let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
            if gates.into_iter().flatten().any(|gate| gate.name == berth::PLACEMENT) {
                return Vec::new();
            }
            operations.push(match gates {
                Some(_) => json!({"op": "add", "path": "/spec/schedulingGates/-", "value": gate}),
                None => json!({"op": "add", "path": "/spec/schedulingGates", "value": [gate]}),
            });
        }
    }
    operations.extend(additions("labels", pod.metadata.labels.is_none(), labels));
    operations.extend(additions(
        "annotations",
        pod.metadata.annotations.is_none(),
        annotations,
    ));
    operations
}

/// As AdmissionReview wants the patch: in base64, which is how Kubernetes writes bytes.
pub(super) fn encoded(operations: &[Value]) -> Value {
    json!(k8s_openapi::ByteString(json!(operations).to_string().into_bytes()))
}

fn additions(of: &str, is_missing: bool, values: BTreeMap<&str, String>) -> Vec<Value> {
    let map = (is_missing && !values.is_empty())
        .then(|| json!({"op": "add", "path": format!("/metadata/{of}"), "value": {}}));
    let values = values
        .into_iter()
        .map(|(key, value)| json!({"op": "add", "path": pointer(of, key), "value": value}));
    map.into_iter().chain(values).collect()
}

/// RFC 6901.
fn pointer(of: &str, key: &str) -> String {
    format!("/metadata/{of}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kai::pod_for_tests as pod;

    fn patched(pod: &Pod, mode: Mode) -> Value {
        let mut document = serde_json::to_value(pod).unwrap();
        let patch: json_patch::Patch = serde_json::from_value(json!(operations(pod, "nvcf-backend", mode))).unwrap();
        json_patch::patch(&mut document, &patch).unwrap();
        document
    }

    #[test]
    fn hint_mode_gates_the_pod_and_keeps_other_gates() {
        let document = patched(&pod(|_| {}), Mode::Hint);
        assert_eq!(
            document["spec"]["schedulingGates"],
            json!([{"name": "gpu.berth.dev/placement"}])
        );
        assert_eq!(
            document["metadata"]["labels"],
            json!({"priorityClassName": "inference"})
        );
        let other = pod(|pod| pod["spec"]["schedulingGates"] = json!([{"name": "other"}]));
        let document = patched(&other, Mode::Hint);
        assert_eq!(
            document["spec"]["schedulingGates"],
            json!([{"name": "other"}, {"name": "gpu.berth.dev/placement"}])
        );
        let again: Pod = serde_json::from_value(document).unwrap();
        assert!(
            operations(&again, "nvcf-backend", Mode::Hint).is_empty(),
            "called again: nothing more"
        );
    }

    #[test]
    fn bind_mode_takes_the_pod_out_of_podgroupers_hands_and_remembers_its_group() {
        let of_a_group = pod(|pod| pod["metadata"]["annotations"]["pod-group-name"] = json!("gang"));
        let document = patched(&of_a_group, Mode::Bind);
        assert_eq!(
            document["metadata"]["annotations"],
            json!({"gpu.berth.dev/kai-bind": "gang", "kai.scheduler/skip-podgrouper": "true"})
        );
        assert_eq!(
            document["metadata"]["labels"]["kai.scheduler/preemptibility"],
            "non-preemptible"
        );
        assert!(document["spec"].get("schedulingGates").is_none());
        let again: Pod = serde_json::from_value(document).unwrap();
        assert!(operations(&again, "nvcf-backend", Mode::Bind).is_empty());
        let bare = pod(|pod| {
            pod["metadata"].as_object_mut().unwrap().remove("annotations");
            pod["metadata"].as_object_mut().unwrap().remove("labels");
        });
        assert_eq!(
            patched(&bare, Mode::Bind)["metadata"]["annotations"]["gpu.berth.dev/kai-bind"],
            ""
        );
    }

    #[test]
    fn bind_mode_only_hints_what_kai_has_to_place() {
        let with_volume = |pod: &mut Value| {
            pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        };
        let document = patched(&pod(with_volume), Mode::Bind);
        assert_eq!(document, patched(&pod(with_volume), Mode::Hint));
        assert!(document["spec"]["schedulingGates"].is_array());
        let of_a_group = pod(|pod| {
            with_volume(pod);
            pod["metadata"]["annotations"]["pod-group-name"] = json!("gang");
        });
        let document = patched(&of_a_group, Mode::Bind);
        assert_eq!(document["metadata"]["annotations"]["gpu.berth.dev/kai-bind"], "gang");
    }

    #[test]
    fn what_is_not_berths_to_place_stays_as_it_is() {
        for mode in [Mode::Hint, Mode::Bind] {
            assert!(operations(&pod(|_| {}), "default", mode).is_empty());
            let bound = pod(|pod| pod["spec"]["nodeName"] = json!("n"));
            assert!(operations(&bound, "nvcf-backend", mode).is_empty());
        }
        let preemptible = pod(|pod| pod["metadata"]["labels"]["kai.scheduler/preemptibility"] = json!("preemptible"));
        assert!(operations(&preemptible, "nvcf-backend", Mode::Bind).is_empty());
        let with_class = pod(|pod| pod["spec"]["priorityClassName"] = json!("train"));
        let document = patched(&with_class, Mode::Hint);
        assert_eq!(
            document["metadata"]["labels"],
            json!({}),
            "a class that somebody chose stays"
        );
    }

    #[test]
    fn the_patch_is_sent_in_base64() {
        assert_eq!(encoded(&[]), "W10=");
    }
}
