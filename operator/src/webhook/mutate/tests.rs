//! Pods before and after, as documents.

use serde_json::{Value, json};

use super::*;

fn pod(edit: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "0-sr-1", "annotations": {"nvcf.nvidia.io/instance-type-name": "NCP.GPU.H100_2x"}},
        "spec": {"schedulerName": "default-scheduler", "containers": [
            {"name": "inference", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "2"}}},
            {"name": "utils", "image": "u", "resources": {"requests": {"cpu": "4"}}},
        ]},
    });
    edit(&mut pod);
    pod
}

fn on() -> Gates {
    Gates {
        kai: true,
        tolerations: Vec::new(),
    }
}

/// The document after the patch, and that a second look changes nothing more.
fn after(document: &Value, patch: impl Fn(&Pod) -> Patch) -> Value {
    let read = |document: &Value| serde_json::from_value::<Pod>(document.clone()).unwrap();
    let mut document = document.clone();
    let operations = patch(&read(&document));
    json_patch::patch(&mut document, &operations).unwrap();
    assert_eq!(patch(&read(&document)).0, Vec::new(), "called again: nothing more");
    document
}

fn placed(document: &Value, gates: &Gates) -> Value {
    after(document, |pod| placement(pod, gates))
}

const GPU_TOLERATION: &str = r#"{"effect": "NoSchedule", "key": "nvidia.com/gpu", "operator": "Exists"}"#;

fn required(document: &Value) -> &Value {
    &document["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
}

fn only(kind: &str) -> Value {
    json!({"key": "nvca.nvcf.nvidia.io/instance-type", "operator": "In", "values": [kind]})
}

#[test]
fn a_function_pod_is_pinned_to_its_instance_type_and_given_to_kai() {
    let document = placed(&pod(|_| {}), &on());
    let mut wanted = pod(|_| {});
    wanted["spec"]["schedulerName"] = json!("kai-scheduler");
    wanted["metadata"]["labels"] = json!({"kai.scheduler/queue": "default-queue"});
    wanted["spec"]["tolerations"] = json!([serde_json::from_str::<Value>(GPU_TOLERATION).unwrap()]);
    wanted["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [{"matchExpressions": [only("NCP.GPU.H100")]}]});
    assert_eq!(document, wanted);
}

#[test]
fn the_label_of_the_nodes_is_the_value_of_the_type_and_only_without_one_what_its_name_tells() {
    let valued = |value: &str| {
        let pod = pod(|pod| pod["metadata"]["annotations"]["nvcf.nvidia.io/instance-type-value"] = json!(value));
        let document = placed(&pod, &on());
        required(&document)["nodeSelectorTerms"][0]["matchExpressions"][0].clone()
    };
    assert_eq!(valued("by-hand"), only("by-hand"));
    assert_eq!(valued(""), only("NCP.GPU.H100"));
}

#[test]
fn without_the_gate_or_without_gpus_the_scheduler_stays() {
    assert_eq!(
        placed(&pod(|_| {}), &Gates::default())["spec"]["schedulerName"],
        "default-scheduler"
    );
    let idle = pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"nvidia.com/gpu": "0"}}));
    let document = placed(&idle, &on());
    assert_eq!(document["spec"]["schedulerName"], "default-scheduler");
    assert_eq!(document["metadata"].get("labels"), None);
    assert_eq!(
        required(&document)["nodeSelectorTerms"][0]["matchExpressions"][0],
        only("NCP.GPU.H100")
    );
}

#[test]
fn every_alternative_of_the_pods_own_affinity_leads_to_the_instance_type() {
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let with_terms = pod(|pod| {
        pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [
            {"matchExpressions": [zone, only("NCP.GPU.A100")]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
        ]}}});
    });
    let document = placed(&with_terms, &on());
    let terms = &required(&document)["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"], json!([zone, only("NCP.GPU.H100")]));
    assert_eq!(terms[1]["matchExpressions"], json!([only("NCP.GPU.H100")]));
    assert_eq!(terms[1]["matchFields"][0]["values"], json!(["n"]));
}

#[test]
fn the_old_label_becomes_the_new_one_where_it_means_an_instance_type_of_ours() {
    let old = |values: Value| json!({"key": "node.kubernetes.io/instance-type", "operator": "In", "values": values});
    let chart = pod(|pod| {
        pod["metadata"].as_object_mut().unwrap().remove("annotations");
        pod["spec"]["nodeSelector"] = json!({"node.kubernetes.io/instance-type": "NCP.GPU.H100"});
        pod["spec"]["affinity"] = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [old(json!(["NCP.GPU.H100"]))]},
                {"matchExpressions": [old(json!(["p5.48xlarge"]))]},
            ]},
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [old(json!(["NCP.GPU.H100"]))]}}],
        }});
    });
    let document = placed(&chart, &on());
    assert_eq!(
        document["spec"]["nodeSelector"],
        json!({"nvca.nvcf.nvidia.io/instance-type": "NCP.GPU.H100"})
    );
    let terms = &required(&document)["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"], json!([only("NCP.GPU.H100")]));
    assert_eq!(
        terms[1]["matchExpressions"],
        json!([old(json!(["p5.48xlarge"]))]),
        "the cloud's own"
    );
    let preferred = &document["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(
        preferred[0]["preference"]["matchExpressions"],
        json!([only("NCP.GPU.H100")])
    );
}

#[test]
fn a_selector_of_another_kind_gives_way_to_the_annotation() {
    let other = pod(|pod| pod["spec"]["nodeSelector"] = json!({"nvca.nvcf.nvidia.io/instance-type": "NCP.GPU.A100"}));
    let document = placed(&other, &on());
    assert_eq!(
        document["spec"]["nodeSelector"]["nvca.nvcf.nvidia.io/instance-type"],
        "NCP.GPU.H100"
    );
}

#[test]
fn a_pod_without_an_instance_type_is_not_pinned() {
    let bare = pod(|pod| pod["metadata"]["annotations"] = json!({}));
    assert_eq!(placed(&bare, &on())["spec"].get("affinity"), None);
}

#[test]
fn defaults_take_the_token_away_and_make_requests_what_the_limits_are() {
    let gates = Gates {
        kai: false,
        tolerations: vec![Toleration {
            key: Some("mine".to_owned()),
            ..Toleration::default()
        }],
    };
    let generous = pod(|pod| {
        pod["spec"]["automountServiceAccountToken"] = json!(true);
        pod["spec"]["initContainers"] =
            json!([{"name": "init", "image": "i", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}}]);
    });
    let document = after(&generous, |pod| defaults(pod, &gates));
    let spec = &document["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["initContainers"][0]["resources"]["requests"], json!({"cpu": "2"}));
    assert_eq!(
        spec["containers"][0]["resources"]["requests"],
        json!({"nvidia.com/gpu": "2"})
    );
    assert_eq!(
        spec["containers"][1]["resources"],
        json!({"requests": {"cpu": "4"}}),
        "no limit: left alone"
    );
    assert_eq!(spec["tolerations"][0], json!({"key": "mine"}));
    assert_eq!(spec["tolerations"][1]["key"], "nvidia.com/gpu");
    assert_eq!(spec["schedulerName"], "default-scheduler");
}

#[test]
fn what_kubernetes_types_do_not_know_stays() {
    let newer = pod(|pod| {
        pod["spec"]["someNewField"] = json!({"a": 1});
        pod["metadata"]["labels"] = Value::Null;
    });
    let document = placed(&newer, &on());
    assert_eq!(document["spec"]["someNewField"], json!({"a": 1}));
    assert_eq!(
        document["metadata"]["labels"],
        json!({"kai.scheduler/queue": "default-queue"})
    );
}

#[test]
fn a_toleration_of_the_configuration_that_is_none_is_left_out() {
    let mut config = AgentConfig::default();
    config.workload.tolerations = vec![json!({"key": 5}), json!({"key": "a", "operator": "Exists"})];
    config.agent.feature_flags = vec!["KAIScheduler".to_owned()];
    let gates = Gates::of(&config);
    assert!(gates.kai);
    assert_eq!(gates.tolerations.len(), 1);
}
