//! From the API server's objects to what counting needs: the only file of the agent that knows their fields. Everything else
//! of an object is let go of, so that a large cluster stays small here. Nothing is trusted.

use std::collections::BTreeMap;

use berth_kube_api::{
    Quantity, ResourceList,
    gpu_node::{Device, GpuNodeStatus},
    names::{nvcf, nvidia},
};
use kube::{ResourceExt as _, core::Object};
use serde::Deserialize;

const MIB: u64 = 1 << 20;
/// Namespaces of functions of more than one pod.
const MINI_SERVICE: &str = "sr-";

/// `v1.Node`, of which only what counts here is read.
pub type WatchedNode = Object<NodeSpec, NodeStatus>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    unschedulable: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    allocatable: ResourceList,
    capacity: ResourceList,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What a Node tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub uid: String,
    pub ready: bool,
    pub present: bool,
    /// An administrator's own name for the kind of GPU.
    pub name: Option<String>,
    pub product: Option<String>,
    pub family: Option<String>,
    pub machine: Option<String>,
    pub driver: Option<String>,
    pub memory_mib: u64,
    pub arch: String,
    pub os: String,
    pub instance_type: Option<String>,
    /// `nvidia.com/gpu` that the kubelet gives out.
    pub allocatable: u32,
    /// As before, those that the device plugin holds for ill included.
    pub capacity: u32,
    /// MIG instances have resources of their own (strategy "mixed").
    pub mixed_mig: bool,
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
}

/// What a node's daemon tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuFacts {
    pub driver: String,
    pub devices: Vec<Unit>,
}

/// A device, or a MIG instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    pub product: String,
    pub model: String,
    /// Of a MIG instance.
    pub profile: Option<String>,
    pub memory_mib: u64,
    pub usable: bool,
    pub free: bool,
    /// A function pod has it.
    pub ours: bool,
}

pub fn node_facts(node: &WatchedNode) -> NodeFacts {
    let status = node.status.clone().unwrap_or_default();
    let labels = node.labels();
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
    let is_ready = |it: &Condition| it.kind == "Ready" && it.status == "True";
    let allocatable = &status.allocatable;
    NodeFacts {
        uid: node.uid().unwrap_or_default(),
        ready: !node.spec.unschedulable && status.conditions.iter().any(is_ready),
        present: labels.get("nvidia.com/gpu.present").is_some_and(|it| it == "true"),
        name: label(nvcf::PRODUCT_OVERRIDE),
        product: label(nvidia::PRODUCT),
        family: label("nvidia.com/gpu.family"),
        machine: label("nvidia.com/gpu.machine"),
        driver: driver(labels),
        memory_mib: label(nvidia::MEMORY)
            .and_then(|text| text.parse().ok())
            .unwrap_or_default(),
        arch: label("kubernetes.io/arch").unwrap_or_default(),
        os: label("kubernetes.io/os").unwrap_or_default(),
        instance_type: labels.get(nvcf::INSTANCE_TYPE).cloned(),
        allocatable: count(allocatable, nvidia::GPU),
        capacity: count(&status.capacity, nvidia::GPU),
        mixed_mig: allocatable.keys().any(|name| name.starts_with(nvidia::MIG_PREFIX)),
        cpu_milli: amount(allocatable, "cpu", Quantity::milli),
        memory_bytes: amount(allocatable, "memory", Quantity::value),
        storage_bytes: amount(allocatable, "ephemeral-storage", Quantity::value),
    }
}

/// The driver's version: the three labels that the real agent reads, or their newer form.
fn driver(labels: &BTreeMap<String, String>) -> Option<String> {
    let old = ["major", "minor", "rev"].map(|part| labels.get(&format!("nvidia.com/cuda.driver.{part}")));
    match old {
        [Some(major), Some(minor), Some(rev)] => Some(format!("{major}.{minor}.{rev}")),
        _ => labels.get("nvidia.com/cuda.driver-version.full").cloned(),
    }
}

fn amount(list: &ResourceList, name: &str, unit: impl Fn(Quantity) -> i64) -> u64 {
    let value = list.get(name).copied().map(unit).unwrap_or_default();
    u64::try_from(value).unwrap_or_default()
}

fn count(list: &ResourceList, name: &str) -> u32 {
    u32::try_from(amount(list, name, Quantity::value)).unwrap_or(u32::MAX)
}

/// `functions`: the namespace of function pods.
pub fn gpu_facts(status: &GpuNodeStatus, functions: &str) -> GpuFacts {
    GpuFacts {
        driver: status.driver.driver_version.clone(),
        devices: status.devices.iter().flat_map(|it| units(it, functions)).collect(),
    }
}

fn units(device: &Device, functions: &str) -> Vec<Unit> {
    let is_function = |holder: &&String| {
        let namespace = holder.split_once('/').map(|(namespace, _)| namespace);
        namespace.is_some_and(|it| it == functions || it.starts_with(MINI_SERVICE))
    };
    let functions = device.holders.iter().filter(is_function).count();
    let usable = matches!(device.health.as_str(), "Healthy" | "Suspect") && device.schedulable && !device.missing;
    let usable = usable && device.compute_mode != "Prohibited";
    let unit = Unit {
        product: device.product.replace(' ', "-"),
        model: device.model.clone(),
        profile: None,
        memory_mib: mib(device.memory_bytes),
        usable,
        free: usable && device.holders.is_empty() && !device.out_of_band && device.free_milli >= 1000,
        ours: functions > 0,
    };
    let Some(instances) = &device.mig else {
        return vec![unit];
    };
    // Who has which instance is not told: as many of the taken ones are ours as there are function pods.
    let mut left = functions;
    let mut units = Vec::with_capacity(instances.len());
    for instance in instances {
        let ours = !instance.free && left > 0;
        left -= usize::from(ours);
        units.push(Unit {
            profile: Some(instance.profile.clone()),
            memory_mib: mib(instance.memory_bytes),
            free: usable && instance.free,
            ours,
            ..unit.clone()
        });
    }
    units
}

/// Negative numbers are no amounts.
fn mib(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default() / MIB
}
