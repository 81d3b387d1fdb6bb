//! The shapes that are offered, against what the real agent sent.

use serde_json::{Value, json};

use super::*;
use crate::agent::inventory::tests::{H100, gpus as devices, inventory, node};

fn offered(nodes: &[(Value, Option<Vec<Value>>)]) -> Vec<Gpu> {
    gpus(&inventory(nodes), "NCP", true)
}

/// Name, instances that can be had, instances that cannot.
fn numbers(gpu: &Gpu) -> Vec<(&str, i64, i64)> {
    let types = gpu.instance_types.iter();
    types
        .map(|it| {
            let name = it.name.strip_prefix(&it.value).unwrap();
            (name, it.max_instances.unwrap(), it.unschedulable_capacity.unwrap())
        })
        .collect()
}

/// Recorded from the real agent (`gpus` of a registration with three nodes).
const RECORDED: &str = include_str!("../../../testdata/register-gpus.json");

#[test]
fn three_dgx_h100_are_registered_as_the_real_agent_does() {
    let nodes = ["a", "b", "c"].map(|name| (node(name, H100, 8), None));
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    assert_eq!(serde_json::to_value(offered(&nodes)).unwrap(), recorded);
    // With a daemon it is the same.
    let nodes = nodes.map(|(node, _)| (node, Some(devices(8))));
    assert_eq!(serde_json::to_value(offered(&nodes)).unwrap(), recorded);
}

#[test]
fn sizes_are_powers_of_two_below_the_number_and_the_number() {
    for (gpus, sizes) in [
        (1, &[1][..]),
        (2, &[1, 2]),
        (6, &[1, 2, 4, 6]),
        (7, &[1, 2, 4, 7]),
        (8, &[1, 2, 4, 8]),
        (16, &[1, 2, 4, 8, 16]),
    ] {
        assert_eq!(super::sizes(gpus).collect::<Vec<_>>(), sizes, "{gpus}");
    }
    let gpus = offered(&[(node("a", H100, 16), None)]);
    let first = &gpus[0].instance_types[0];
    assert_eq!(
        (first.name.as_str(), first.default),
        ("NCP.GPU.H100_1x", true),
        "the smallest, not the first by name"
    );
}

#[test]
fn a_failed_gpu_takes_instances_away_and_no_type() {
    let mut broken = devices(8);
    broken[3]["health"] = json!("Unhealthy");
    let gpus = offered(&[
        (node("a", H100, 8), Some(broken)),
        (node("b", H100, 8), Some(devices(8))),
    ]);
    assert_eq!(
        numbers(&gpus[0]),
        [
            ("_1x", 15, 1),
            ("_2x", 7, 1),
            ("_4x", 3, 1),
            ("_8x", 1, 1),
            ("_8x.x2", 0, 1)
        ]
    );
}

#[test]
fn a_cordoned_node_keeps_its_types() {
    let mut cordoned = node("a", H100, 8);
    cordoned["spec"]["unschedulable"] = json!(true);
    let gpus = offered(&[(cordoned, None)]);
    assert_eq!(
        numbers(&gpus[0]),
        [("_1x", 0, 8), ("_2x", 0, 4), ("_4x", 0, 2), ("_8x", 0, 1)]
    );
}

#[test]
fn nodes_that_differ_are_one_kind_of_which_the_least_is_promised() {
    let mut small = node("small", H100, 4);
    small["status"]["allocatable"]["cpu"] = json!("47500m");
    let gpus = offered(&[
        (node("large", H100, 8), None),
        (small, None),
        (node("a100", "NVIDIA-A100-SXM4-40GB", 2), None),
    ]);
    assert_eq!(
        gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>(),
        ["A100", "H100"]
    );
    assert_eq!(
        numbers(&gpus[1]),
        [("_1x", 12, 0), ("_2x", 6, 0), ("_4x", 3, 0), ("_8x", 1, 0)]
    );
    let types = &gpus[1].instance_types;
    assert_eq!((types[0].cpu.as_str(), types[0].cpu_cores), ("11875m", 11));
    assert_eq!(
        (types[3].cpu.as_str(), types[3].cpu_cores),
        ("192", 192),
        "only the large node has eight"
    );
    assert!(
        gpus.iter()
            .all(|gpu| gpu.instance_types.iter().filter(|it| it.default).count() == 1)
    );
}

#[test]
fn shapes_of_several_nodes_can_be_switched_off() {
    let nodes = ["a", "b"].map(|name| (node(name, H100, 1), None));
    assert_eq!(numbers(&offered(&nodes)[0]), [("_1x", 2, 0), ("_1x.x2", 1, 0)]);
    assert_eq!(numbers(&gpus(&inventory(&nodes), "NCP", false)[0]), [("_1x", 2, 0)]);
}

#[test]
fn names_say_what_they_are_made_of() {
    assert_eq!(base_name("ON-PREM", "H100"), "ON-PREM.GPU.H100");
    assert_eq!(base_name("elsewhere", "H100"), "NCP.GPU.H100");
    let name = TypeName::parse("NCP.GPU.H100-MIG-3g-40gb_8x.x12").unwrap();
    assert_eq!(
        (name.base.as_str(), name.gpu.as_str(), name.gpus, name.nodes),
        ("NCP.GPU.H100-MIG-3g-40gb", "H100-MIG-3g-40gb", 8, 12)
    );
    assert_eq!(TypeName::parse("NCP.GPU.H100_2x").unwrap().nodes, 1);
    for strange in [
        "",
        "NCP.GPU.H100",
        "g6.xlarge",
        "H100_1x",
        "NCP.GPU.H100_x",
        "NCP.GPU.H100_1x.xa",
    ] {
        assert_eq!(TypeName::parse(strange), None, "{strange}");
    }
}

#[test]
fn quantities_are_written_as_kubernetes_writes_them() {
    for (amount, text) in [
        (0, "0"),
        (1000, "1000"),
        (1536 << 20, "1536Mi"),
        (2 << 40, "2Ti"),
        (1280 << 30, "1280Gi"),
    ] {
        assert_eq!(bytes(amount), text);
    }
    assert_eq!((cores(24_000).as_str(), cores(11_500).as_str()), ("24", "11500m"));
}
