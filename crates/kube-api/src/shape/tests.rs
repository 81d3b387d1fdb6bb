use serde_json::{Value, json};

use super::*;

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

fn annotated(annotations: impl Into<Value>) -> Pod {
    pod(json!({"metadata": {"annotations": annotations.into()}}))
}

fn asking(resources: impl Into<Value>) -> Pod {
    pod(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": resources.into()}}]}}))
}

#[test]
fn a_captured_function_pod_asks_for_what_it_paid_for() {
    for (json, count) in [
        (include_str!("../../testdata/extender/cache/filter-1.json"), 8),
        (include_str!("../../testdata/extender/cache/filter-3.json"), 4),
        (include_str!("../../testdata/extender/nocache/filter-2.json"), 8),
    ] {
        let args: crate::extender::ExtenderArgs<'_> = serde_json::from_str(json).unwrap();
        let expected = Shape {
            cpu: CpuMilli(4000),
            memory: MemoryBytes::from_gib(16),
            gpu: GpuShape::Whole { count },
            models: vec!["H100".parse().unwrap()],
        };
        assert_eq!(pod_shape(&args.pod.unwrap()), Ok(expected));
    }
}

#[test]
fn a_pod_without_gpus_has_no_model_either() {
    let shape = pod_shape(&annotated(
        json!({"nvcf.nvidia.io/instance-type-name": "NCP.GPU.H100_8x"}),
    ))
    .unwrap();
    assert_eq!(shape, Shape::default());
}

#[test]
fn init_containers_and_sidecars_count_as_in_kube_scheduler() {
    let gpus = |n: u32| json!({"requests": {"nvidia.com/gpu": n.to_string()}});
    let shape = |init: Value, main: u32| {
        let pod = pod(json!({"spec": {"initContainers": init, "containers": [{"resources": gpus(main)}]}}));
        pod_shape(&pod).unwrap().gpu.count()
    };
    // The largest init container, or the containers together.
    assert_eq!(shape(json!([{"resources": gpus(4)}, {"resources": gpus(2)}]), 1), 4);
    assert_eq!(shape(json!([{"resources": gpus(4)}]), 6), 6);
    // A sidecar stays.
    let sidecar = json!({"restartPolicy": "Always", "resources": gpus(1)});
    assert_eq!(shape(json!([sidecar]), 2), 3);
    // An init container after the sidecar runs beside it; one before it does not.
    assert_eq!(shape(json!([sidecar, {"resources": gpus(4)}]), 1), 5);
    assert_eq!(shape(json!([{"resources": gpus(4)}, sidecar]), 1), 4);
}

#[test]
fn cpu_and_memory_take_pod_level_requests_and_overhead() {
    let mut it = pod(json!({"spec": {
        "containers": [{"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
                       {"resources": {"limits": {"cpu": "2"}}}],
        "overhead": {"cpu": "250m", "memory": "120Mi"}}}));
    let shape = pod_shape(&it).unwrap();
    assert_eq!((shape.cpu, shape.memory), (CpuMilli(2750), MemoryBytes::from_mib(1144)));
    it.spec.resources.requests.insert("cpu".to_owned(), Quantity::whole(8));
    assert_eq!(pod_shape(&it).unwrap().cpu, CpuMilli(8250));
}

#[test]
fn a_limit_counts_where_there_is_no_request() {
    let it = pod(json!({"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "2"}}}]}}));
    assert_eq!(pod_shape(&it).unwrap().gpu, GpuShape::Whole { count: 2 });
}

#[test]
fn mig_resources_name_their_profile() {
    let gpu = |resource: &str| pod_shape(&asking(json!({resource: "2"}))).map(|shape| shape.gpu.to_string());
    assert_eq!(gpu("nvidia.com/mig-1g.10gb").unwrap(), "2 x 1g.10gb");
    assert_eq!(gpu("nvidia.com/mig-1g.10gb.me").unwrap(), "2 x 1g.10gb+me");
    assert_eq!(gpu("nvidia.com/mig-1g.12gb.me.all").unwrap(), "2 x 1g.12gb+me.all");
    assert_eq!(gpu("nvidia.com/mig-huge").unwrap_err().reason(), "InvalidMigProfile");
}

#[test]
fn kai_annotations_ask_for_parts() {
    let gpu = |annotations| pod_shape(&annotated(annotations)).map(|shape| shape.gpu);
    let milli = |milli| GpuShape::share(Some(MilliGpu::new(milli)), None, 1).unwrap();
    assert_eq!(gpu(json!({"gpu-fraction": "0.5"})).unwrap(), milli(500));
    assert_eq!(gpu(json!({"gpu-fraction": "0.33333"})).unwrap(), milli(333));
    assert_eq!(gpu(json!({"gpu-fraction": "0.0001"})).unwrap(), milli(1));
    assert_eq!(gpu(json!({"gpu-fraction": "1"})).unwrap(), GpuShape::Whole { count: 1 });
    let memory = GpuShape::share(None, Some(MemoryBytes::from_gib(20)), 2).unwrap();
    let annotations = json!({"gpu-memory": "20480", "gpu-fraction-num-devices": "2"});
    assert_eq!(gpu(annotations).unwrap(), memory);
}

#[test]
fn the_model_comes_from_the_instance_type_or_the_selector() {
    let shape = |instance: Option<&str>, product: Option<&str>| {
        let mut it = asking(json!({"nvidia.com/gpu": "1"}));
        let put = |map: &mut std::collections::BTreeMap<String, String>, key: &str, value: Option<&str>| {
            map.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        };
        put(&mut it.metadata.annotations, nvcf::INSTANCE_TYPE_NAME, instance);
        put(&mut it.spec.node_selector, nvidia::PRODUCT, product);
        pod_shape(&it).map(|shape| {
            shape
                .models
                .iter()
                .map(|model| model.as_str().to_owned())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(shape(Some("NCP.GPU.H100_1x"), None).unwrap(), ["H100"]);
    assert_eq!(shape(None, Some("NVIDIA-L40S")).unwrap(), ["L40S"]);
    assert_eq!(
        shape(Some("NCP.GPU.H100_1x"), Some("NVIDIA-H100-PCIe")).unwrap(),
        ["H100"]
    );
    assert!(shape(Some("a-name-of-their-own"), None).unwrap().is_empty());
    let error = shape(Some("NCP.GPU.H100_1x"), Some("NVIDIA-L40S")).unwrap_err();
    assert_eq!(error.reason(), "ConflictingModels");
}

#[test]
fn senseless_requests_are_refused_with_the_rule() {
    let whole_and_share = {
        let mut it = asking(json!({"nvidia.com/gpu": "1"}));
        it.metadata
            .annotations
            .insert(kai::GPU_FRACTION.to_owned(), "0.5".to_owned());
        it
    };
    let long = "9".repeat(500);
    for (it, reason, hint) in [
        (
            asking(json!({"nvidia.com/gpu": "500m"})),
            "InvalidAmount",
            "whole number",
        ),
        (asking(json!({"nvidia.com/gpu": "-1"})), "InvalidAmount", "whole number"),
        (asking(json!({"cpu": "-1"})), "InvalidAmount", "not negative"),
        (asking(json!({"nvidia.com/gpu": "257"})), "InvalidGpuCount", "257"),
        (
            asking(json!({"nvidia.com/gpu": "9999999999"})),
            "InvalidGpuCount",
            "from 1 to",
        ),
        (
            asking(json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "1"})),
            "MixedGpuRequests",
            "one kind",
        ),
        (whole_and_share, "MixedGpuRequests", "gpu-fraction"),
        (
            annotated(json!({"gpu-fraction": "0.5", "gpu-memory": "1"})),
            "MixedGpuRequests",
            "gpu-memory",
        ),
        (annotated(json!({"gpu-fraction": "0"})), "InvalidAnnotation", "above 0"),
        (
            annotated(json!({"gpu-fraction": "1.5"})),
            "InvalidAnnotation",
            "at most 1",
        ),
        (annotated(json!({"gpu-fraction": "half"})), "InvalidAnnotation", "half"),
        (annotated(json!({"gpu-memory": "20Gi"})), "InvalidAnnotation", "MiB"),
        (annotated(json!({"gpu-memory": long})), "InvalidAnnotation", "MiB"),
        (
            annotated(json!({"gpu-fraction-num-devices": "2"})),
            "InvalidAnnotation",
            "beside it",
        ),
        (
            annotated(json!({"gpu-fraction": "0.5", "gpu-fraction-num-devices": "0"})),
            "InvalidAnnotation",
            "above 0",
        ),
    ] {
        let error = pod_shape(&it).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(
            error.to_string().contains(hint) && error.to_string().len() < 300,
            "{error}"
        );
    }
}

#[test]
fn a_request_of_zero_is_none() {
    assert_eq!(
        pod_shape(&asking(json!({"nvidia.com/gpu": "0"}))).unwrap().gpu,
        GpuShape::None
    );
}
