//! What is counted, and what is not.

use berth_kube_api::gpu_node::GpuNodeStatus;
use serde_json::{Value, json};

use super::*;

pub(crate) const H100: &str = "NVIDIA-H100-80GB-HBM3";

/// A node as GPU feature discovery and the kubelet tell it.
pub(crate) fn node(name: &str, product: &str, gpus: u32) -> Value {
    let resources =
        json!({"cpu": "192", "memory": "2Ti", "ephemeral-storage": "10Ti", "nvidia.com/gpu": gpus.to_string()});
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {
            "nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": "81559",
            "nvidia.com/gpu.family": "hopper", "nvidia.com/gpu.machine": "DGXH100",
            "nvidia.com/cuda.driver.major": "570", "nvidia.com/cuda.driver.minor": "86",
            "nvidia.com/cuda.driver.rev": "15", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {"allocatable": resources, "capacity": resources, "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// What its daemon tells: healthy GPUs that nobody has.
pub(crate) fn gpus(count: usize) -> Vec<Value> {
    let gpu = |index: usize| {
        json!({"uuid": format!("GPU-{index}"), "product": "NVIDIA H100 80GB HBM3", "model": "H100",
            "memoryBytes": 81_559_u64 << 20, "health": "Healthy", "schedulable": true, "freeMilli": 1000})
    };
    (0..count).map(gpu).collect()
}

pub(crate) fn inventory(nodes: &[(Value, Option<Vec<Value>>)]) -> Inventory {
    joined(&mut Join::default(), nodes)
}

fn joined(join: &mut Join, nodes: &[(Value, Option<Vec<Value>>)]) -> Inventory {
    for (node, devices) in nodes {
        let node: WatchedNode = serde_json::from_value(node.clone()).unwrap();
        let name = node.metadata.name.clone().unwrap();
        join.node(name.clone(), Some(node_facts(&node)));
        let facts = devices.as_ref().map(|devices| {
            let status: GpuNodeStatus = serde_json::from_value(json!({"devices": devices,
                "driver": {"driverVersion": "580.1"}}))
            .unwrap();
            gpu_facts(&status, "nvcf-backend")
        });
        join.gpus(name, facts);
    }
    join.inventory()
}

fn counts(inventory: &Inventory, node: &str) -> (u32, u32, u32, u32) {
    let host = &inventory.hosts[node];
    (host.units, host.usable, host.free, host.ours)
}

#[test]
fn without_a_daemon_labels_and_allocatable_tell() {
    let inventory = inventory(&[(node("a", H100, 8), None)]);
    assert_eq!(counts(&inventory, "a"), (8, 8, 8, 0));
    let host = &inventory.hosts["a"];
    assert_eq!(
        (host.gpu.as_str(), host.driver.as_str(), host.memory_mib),
        ("H100", "570.86.15", 81_559)
    );
}

#[test]
fn with_a_daemon_only_what_pods_can_really_have_counts() {
    let mut devices = gpus(8);
    devices[0]["health"] = json!("Unhealthy");
    devices[1]["schedulable"] = json!(false);
    devices[2]["holders"] = json!(["nvcf-backend/0-sr-1"]);
    devices[3]["holders"] = json!(["default/notebook"]);
    devices[4]["outOfBand"] = json!(true);
    devices[5]["health"] = json!("Suspect");
    devices[6]["freeMilli"] = json!(500);
    let inventory = inventory(&[(node("a", H100, 8), Some(devices))]);
    assert_eq!(counts(&inventory, "a"), (8, 6, 2, 1));
    // Three are held by others; a request of two holds one that has no pod yet.
    let usage = inventory.usage(&Allocation::from([("H100".to_owned(), 2)]));
    let usage = usage["H100"];
    assert_eq!((usage.capacity, usage.available, usage.allocated), (6, 1, 5));
}

#[test]
fn capacity_is_counted_per_node_and_not_as_a_sum() {
    let mut devices = gpus(8);
    for device in devices.iter_mut().take(4) {
        device["holders"] = json!(["default/x"]);
        device["freeMilli"] = json!(0);
    }
    let nodes = ["a", "b"].map(|name| (node(name, H100, 8), Some(devices.clone())));
    let inventory = inventory(&nodes);
    let capacity = inventory.capacity(&Allocation::new());
    assert_eq!(inventory.usage(&Allocation::new())["H100"].available, 8);
    let fits = [1, 2, 4, 8].map(|gpus| capacity.fits("H100", gpus));
    assert_eq!(fits, [8, 4, 2, 0]);
    assert_eq!((capacity.fits("A100", 1), capacity.fits("H100", 0)), (0, 8));
    // Requests hold two that have no pod yet.
    let capacity = inventory.capacity(&Allocation::from([("H100".to_owned(), 2)]));
    assert_eq!([1, 2, 4].map(|gpus| capacity.fits("H100", gpus)), [6, 3, 1]);
}

#[test]
fn the_kubelet_and_the_state_of_the_node_are_limits() {
    let mut cordoned = node("c", H100, 8);
    cordoned["spec"]["unschedulable"] = json!(true);
    let mut lost = node("l", H100, 8);
    lost["status"]["conditions"][0]["status"] = json!("Unknown");
    let mut late = node("p", H100, 8);
    late["status"]["allocatable"]["nvidia.com/gpu"] = json!("6");
    let daemon = Some(gpus(8));
    let inventory = inventory(&[
        (cordoned, daemon.clone()),
        (lost, None),
        (late, daemon),
        (node("d", H100, 8), Some(Vec::new())),
    ]);
    assert_eq!(counts(&inventory, "c"), (8, 0, 0, 0));
    assert_eq!(counts(&inventory, "l"), (8, 0, 0, 0));
    assert_eq!(counts(&inventory, "p"), (8, 6, 6, 0));
    assert_eq!(counts(&inventory, "d"), (8, 0, 0, 0), "the driver finds none");
}

#[test]
fn a_gpu_that_fell_off_the_bus_makes_no_other_node_of_it() {
    let mut join = Join::default();
    assert_eq!(
        counts(&joined(&mut join, &[(node("a", H100, 8), Some(gpus(8)))]), "a"),
        (8, 8, 8, 0)
    );
    let seven = node("a", H100, 7);
    assert_eq!(
        counts(&joined(&mut join, &[(seven.clone(), Some(gpus(7)))]), "a"),
        (8, 7, 7, 0)
    );
    // Another machine of the same name is another one.
    let mut other = seven;
    other["metadata"]["uid"] = json!("other");
    assert_eq!(counts(&joined(&mut join, &[(other, Some(gpus(7)))]), "a"), (7, 7, 7, 0));
    join.node("a".to_owned(), None);
    assert_eq!(join.inventory(), Inventory::default());
}

#[test]
fn mig_instances_are_units_of_a_kind_of_their_own() {
    let mut devices = gpus(2);
    for device in &mut devices {
        let instance =
            |free: bool| json!({"uuid": "MIG-1", "profile": "3g.40gb", "memoryBytes": 40_u64 << 30, "free": free});
        device["mig"] = json!([instance(true), instance(false)]);
        device["freeMilli"] = json!(0);
        device["holders"] = json!(["nvcf-backend/0-sr-1"]);
    }
    devices[1]["health"] = json!("Recovering");
    let product = "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb";
    let inventory = inventory(&[
        (node("a", product, 4), Some(devices.clone())),
        (node("b", product, 4), None),
    ]);
    assert_eq!(counts(&inventory, "a"), (4, 2, 1, 2));
    assert_eq!(inventory.hosts["a"].gpu, "H100-MIG-3g-40gb");
    assert_eq!(
        (inventory.hosts["b"].gpu.as_str(), inventory.hosts["a"].memory_mib),
        ("H100-MIG-3g-40gb", 40 * 1024)
    );

    let mut mixed = node("m", H100, 0);
    mixed["status"]["allocatable"]["nvidia.com/mig-3g.40gb"] = json!("4");
    let mixed = joined(&mut Join::default(), &[(mixed, Some(devices))]);
    assert!(mixed.hosts.is_empty() && mixed.unclassified["m"].contains("mixed"));
}

#[test]
fn what_cannot_be_offered_is_told_and_nodes_without_gpus_are_nothing() {
    let mut bare = node("bare", H100, 0);
    bare["metadata"]["labels"] = json!({});
    let mut unnamed = node("unnamed", "NVIDIA", 8);
    unnamed["metadata"]["labels"]["nvidia.com/gpu.memory"] = json!("much");
    let mut long = node("long", H100, 8);
    long["metadata"]["labels"]["nvca.nvcf.nvidia.io/gpu.product"] = json!("a-name-of-23-characters");
    let mut own = node("own", "NVIDIA", 8);
    own["metadata"]["labels"]["nvca.nvcf.nvidia.io/gpu.product"] = json!("H100-NVL");
    let inventory = inventory(&[
        (bare, None),
        (unnamed, None),
        (long, None),
        (own, None),
        (node("shared", "NVIDIA-L40S-SHARED", 80), None),
        (node("early", H100, 0), None),
    ]);
    assert_eq!(inventory.hosts.keys().collect::<Vec<_>>(), ["own"]);
    assert_eq!(inventory.hosts["own"].gpu, "H100-NVL");
    let unclassified: Vec<_> = inventory.unclassified.keys().collect();
    assert_eq!(unclassified, ["early", "long", "shared", "unnamed"]);
}

#[test]
fn nodes_get_the_label_while_they_take_pods_and_only_then() {
    let labelled = |name: &str, value: &str| {
        let mut node = node(name, H100, 8);
        node["metadata"]["labels"]["nvca.nvcf.nvidia.io/instance-type"] = json!(value);
        node
    };
    let mut cordoned = labelled("cordoned", "NCP.GPU.H100");
    cordoned["spec"]["unschedulable"] = json!(true);
    let mut emptied = labelled("emptied", "NCP.GPU.H100");
    emptied["status"] = json!({});
    emptied["metadata"]["labels"]["nvidia.com/gpu.present"] = json!("false");
    let inventory = inventory(&[
        (node("new", H100, 8), None),
        (labelled("right", "NCP.GPU.H100"), None),
        (labelled("wrong", "NCP.GPU.A100"), None),
        (cordoned, None),
        (emptied, None),
    ]);
    let set = |node: &str| (node.to_owned(), Some("NCP.GPU.H100".to_owned()));
    let remove = |node: &str| (node.to_owned(), None);
    assert_eq!(
        inventory.labels_to_set(|gpu| format!("NCP.GPU.{gpu}")),
        [set("new"), set("wrong"), remove("cordoned"), remove("emptied")]
    );
}
