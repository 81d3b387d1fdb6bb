use proptest::prelude::*;
use serde_json::json;

use super::*;

macro_rules! captured {
    ($path:literal) => {
        include_str!(concat!("../../testdata/extender/", $path))
    };
}

fn args(json: &str) -> ExtenderArgs<'_> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn captured_filter_and_prioritize_requests_are_read() {
    for json in [captured!("cache/filter-1.json"), captured!("cache/prioritize-1.json")] {
        let args = args(json);
        let pod = args.pod.unwrap();
        assert_eq!(pod.metadata.name, "fn-cache-1");
        assert_eq!(pod.metadata.namespace, "nvcf-backend");
        assert_eq!(pod.metadata.uid, "795da777-2a4f-43f7-aea1-4b07b47b6839");
        assert_eq!(pod.spec.priority, Some(10));
        assert_eq!(pod.spec.scheduler_name, "default-scheduler");
        assert_eq!(args.node_names.unwrap(), ["gpu-0000", "gpu-0001"].map(HostName::from));
        assert!(args.nodes.is_none());
    }
    for json in [
        captured!("nocache/filter-1.json"),
        captured!("nocache/prioritize-1.json"),
    ] {
        let args = args(json);
        let names: Vec<_> = args.nodes.as_ref().unwrap().items.iter().map(RawNode::name).collect();
        assert_eq!(names, ["gpu-0001", "gpu-0000"]);
        assert!(args.node_names.is_none());
    }
}

#[test]
fn captured_bind_requests_are_read() {
    let bind: ExtenderBindingArgs = serde_json::from_str(captured!("cache/bind-1.json")).unwrap();
    let expected = ExtenderBindingArgs {
        pod_name: "fn-cache-1".to_owned(),
        pod_namespace: "nvcf-backend".to_owned(),
        pod_uid: "795da777-2a4f-43f7-aea1-4b07b47b6839".to_owned(),
        node: "gpu-0001".to_owned(),
    };
    assert_eq!(bind, expected);
    assert_eq!(
        serde_json::to_string(&bind).unwrap(),
        captured!("cache/bind-1.json").trim_end()
    );
}

#[test]
fn captured_preemption_requests_are_read_in_both_forms() {
    let meta: ExtenderPreemptionArgs = serde_json::from_str(captured!("cache/preempt-1.json")).unwrap();
    let victims = &meta.node_name_to_meta_victims.unwrap()["gpu-0000"];
    assert_eq!(victims.pods.len(), 1);
    assert!(!victims.pods[0].uid.is_empty());
    let full: ExtenderPreemptionArgs = serde_json::from_str(captured!("nocache/preempt-1.json")).unwrap();
    let victims = full.node_name_to_victims.unwrap();
    assert!(
        victims
            .values()
            .all(|victims| victims.pods.iter().all(|pod| !pod.metadata.uid.is_empty()))
    );
    assert_eq!(full.pod.unwrap().metadata.name, "fn-nocache-hi");
}

#[test]
fn answers_have_gos_keys_and_every_key() {
    let filter = ExtenderFilterResult {
        node_names: Some(vec!["a".into()]),
        failed_nodes: Some([("b".into(), "DeviceHeld: 8 held".to_owned())].into()),
        ..ExtenderFilterResult::default()
    };
    assert_eq!(
        serde_json::to_value(&filter).unwrap(),
        json!({"Nodes": null, "NodeNames": ["a"], "FailedNodes": {"b": "DeviceHeld: 8 held"},
               "FailedAndUnresolvableNodes": null, "Error": ""})
    );
    let scores = [HostPriority { host: "a", score: 10 }];
    assert_eq!(serde_json::to_string(&scores).unwrap(), r#"[{"Host":"a","Score":10}]"#);
    let bound = ExtenderBindingResult { error: String::new() };
    assert_eq!(serde_json::to_string(&bound).unwrap(), r#"{"Error":""}"#);
    let preempt = ExtenderPreemptionResult {
        node_name_to_meta_victims: [(
            "n".to_owned(),
            MetaVictims {
                pods: vec![MetaPod { uid: "u".to_owned() }],
                num_pdb_violations: 1,
            },
        )]
        .into(),
    };
    assert_eq!(
        serde_json::to_value(&preempt).unwrap(),
        json!({"NodeNameToMetaVictims": {"n": {"Pods": [{"UID": "u"}], "NumPDBViolations": 1}}})
    );
}

#[test]
fn whole_nodes_come_back_byte_by_byte() {
    let sent = captured!("nocache/filter-1.json");
    let nodes = args(sent).nodes.unwrap();
    let written = serde_json::to_string(&nodes).unwrap();
    assert!(sent.contains(&written), "{written}");
}

#[test]
fn nulls_and_lower_case_keys_are_taken() {
    let empty = args(r#"{"Pod":null,"Nodes":null,"NodeNames":null,"Later":[1,{"a":null}]}"#);
    assert!(empty.pod.is_none() && empty.nodes.is_none() && empty.node_names.is_none());
    assert!(
        args(r#"{"Nodes":{"metadata":{},"items":null}}"#)
            .nodes
            .unwrap()
            .items
            .is_empty()
    );
    let lower = args(r#"{"pod":{"metadata":{"name":"p"}},"nodeNames":["n"]}"#);
    assert_eq!(lower.node_names.unwrap(), [HostName::from("n")]);
    let bind: ExtenderBindingArgs = serde_json::from_str(r#"{"podUID":"u","node":"n"}"#).unwrap();
    assert_eq!((bind.pod_uid.as_str(), bind.node.as_str()), ("u", "n"));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(serde_json::from_slice::<ExtenderArgs<'_>>(&bytes));
        drop(serde_json::from_slice::<ExtenderBindingArgs>(&bytes));
    }

    /// A captured request with one stretch replaced by something else.
    #[test]
    fn no_damage_to_a_real_request_panics(at in 0_usize..7000, length in 0_usize..40, put in "[\\[\\]{}\",:0-9a-z]{0,6}") {
        let mut text = captured!("nocache/filter-1.json").to_owned();
        let start = at.min(text.len());
        let end = (start + length).min(text.len());
        text.replace_range(start..end, &put);
        if let Ok(args) = serde_json::from_str::<ExtenderArgs<'_>>(&text)
            && let Some(pod) = args.pod
        {
            drop(crate::pod_shape(&pod));
        }
    }
}
