//! From the API server's objects to what is known of nodes and pods: the only file that knows both. Nothing is trusted.

use std::collections::{BTreeMap, BTreeSet};

use berth_kube_api::{
    Quantity, ResourceList,
    gpu_node::{Device, GpuNodeStatus},
    names::nvidia,
    object::{self, PodSpec},
    placement::Placement,
    pod_shape,
};
use berth_placement::{
    ComputeMode, CpuMilli, DeviceState, Health, MemoryBytes, NodeName, PodRef, PodUid, Room, product::model_of_product,
};
use berth_proto::node::v1 as wire;
use berth_runtime::dial::Target;
use kube::{ResourceExt as _, core::Object};
use serde::Deserialize;

use super::state::PodOn;
use crate::convert::NodeReport;

/// `v1.Pod` and `v1.Node`, of which only what placement looks at is read.
pub(super) type WatchedPod = Object<PodSpec, PodStatus>;
pub(super) type WatchedNode = Object<NodeSpec, object::NodeStatus>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodStatus {
    phase: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct NodeSpec {}

/// What a node is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KubeNode {
    /// That pods can have.
    pub(super) cpu: CpuMilli,
    pub(super) memory: MemoryBytes,
    /// By labels and allocatable; empty: no GPUs, or nobody knows which.
    pub(super) devices: Vec<DeviceState>,
}

/// By way of the wire's node, so that a node is the same whichever way its daemon's word came.
pub(super) fn report(name: &NodeName, status: &GpuNodeStatus) -> Option<(NodeReport, Option<Target>)> {
    let condition = |it: &berth_kube_api::gpu_node::Condition| wire::Condition {
        r#type: it.kind.clone(),
        status: it.status == "True",
        reason: it.reason.clone(),
        message: it.message.clone(),
        last_transition_unix_ms: unsigned(it.last_transition_unix_ms),
    };
    let node = wire::Node {
        name: name.to_string(),
        generation: unsigned(status.generation),
        instance_id: status.instance.clone(),
        driver: Some(wire::DriverStatus {
            backend: status.driver.backend.clone(),
            driver_version: status.driver.driver_version.clone(),
            nvml_version: status.driver.nvml_version.clone(),
            ..wire::DriverStatus::default()
        }),
        conditions: status.conditions.iter().map(condition).collect(),
        devices: status.devices.iter().map(device).collect(),
        simulated: status.simulated,
        version: status.version.clone(),
        ..wire::Node::default()
    };
    let mut report = crate::convert::report(Some(node)).ok()?;
    // Without a word on it nothing was reconciled.
    report.reconciled &= status.holds("LedgerReconciled");
    Some((report, status.address.parse().ok()))
}

/// Pods of which the daemon says that they hold something, as `NAMESPACE/NAME`.
pub(super) fn holders(status: &GpuNodeStatus) -> BTreeSet<String> {
    let holders = status.devices.iter().flat_map(|device| &device.holders);
    holders.filter(|holder| holder.contains('/')).cloned().collect()
}

fn device(device: &Device) -> wire::Device {
    let state = match device.health.as_str() {
        "Healthy" => wire::HealthState::Healthy,
        "Suspect" => wire::HealthState::Suspect,
        "Recovering" => wire::HealthState::Recovering,
        "Unhealthy" => wire::HealthState::Unhealthy,
        _ => wire::HealthState::Unspecified,
    };
    let compute_mode = match device.compute_mode.as_str() {
        "" | "Default" => wire::ComputeMode::Default,
        "ExclusiveProcess" => wire::ComputeMode::ExclusiveProcess,
        _ => wire::ComputeMode::Prohibited,
    };
    let reasons = device.health_reasons.iter().map(|it| {
        let (reason, message) = it.split_once(": ").unwrap_or((it, ""));
        wire::HealthReason {
            reason: reason.to_owned(),
            message: message.to_owned(),
            ..wire::HealthReason::default()
        }
    });
    let instance = |it: &berth_kube_api::gpu_node::MigInstance| wire::MigInstance {
        uuid: it.uuid.clone(),
        profile: it.profile.clone(),
        memory_bytes: unsigned(it.memory_bytes),
        free: it.free,
        ..wire::MigInstance::default()
    };
    wire::Device {
        uuid: device.uuid.clone(),
        index: small(device.index),
        product: device.product.clone(),
        model: device.model.clone(),
        memory_bytes: unsigned(device.memory_bytes),
        compute_mode: compute_mode.into(),
        numa_node: device.numa_node.map(small),
        nvlink_domain: device.nvlink_domain.map(small),
        mig: device.mig.as_ref().map(|instances| wire::MigStatus {
            supported: true,
            enabled: true,
            instances: instances.iter().map(instance).collect(),
            ..wire::MigStatus::default()
        }),
        health: Some(wire::Health {
            state: state.into(),
            reasons: reasons.collect(),
            ..wire::Health::default()
        }),
        schedulable: device.schedulable,
        free: Some(wire::Room {
            milli: small(device.free_milli),
            memory_bytes: unsigned(device.free_memory_bytes),
        }),
        out_of_band: device.out_of_band,
        missing: device.missing,
        ..wire::Device::default()
    }
}

/// Negative numbers are no amounts.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn small(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn node(node: &WatchedNode) -> Option<(NodeName, KubeNode)> {
    let name: NodeName = node.name_any().parse().ok()?;
    let allocatable = node.status.as_ref().map(|status| &status.allocatable);
    let amount = |resource| allocatable.and_then(|all: &ResourceList| all.get(resource)).copied();
    let positive = |quantity: Option<Quantity>, of: fn(Quantity) -> i64| unsigned(quantity.map_or(0, of));
    let gpus = positive(amount(nvidia::GPU), Quantity::value);
    let devices = devices(&name, node.labels(), u32::try_from(gpus).unwrap_or(0)).unwrap_or_default();
    let facts = KubeNode {
        cpu: CpuMilli(positive(amount("cpu"), Quantity::milli)),
        memory: MemoryBytes::new(positive(amount("memory"), Quantity::value)),
        devices,
    };
    Some((name, facts))
}

/// GPU Feature Discovery tells product, memory and number; which GPU is which, nobody does.
fn devices(name: &NodeName, labels: &BTreeMap<String, String>, allocatable: u32) -> Option<Vec<DeviceState>> {
    /// More than any machine has.
    const MOST: u32 = 64;
    let model = model_of_product(labels.get(nvidia::PRODUCT)?)?;
    let mib: u64 = labels.get(nvidia::MEMORY)?.parse().ok()?;
    let memory = MemoryBytes::new(mib.checked_mul(1 << 20)?);
    let device = |index| {
        Some(DeviceState {
            uuid: format!("GPU-unverified-{name}-{index}").parse().ok()?,
            index,
            model: model.clone(),
            memory,
            compute_mode: ComputeMode::Default,
            numa_node: None,
            nvlink_domain: None,
            health: Health::Healthy,
            schedulable: true,
            out_of_band: false,
            mig: None,
            free: Room::whole(memory),
        })
    };
    (0..allocatable.min(MOST)).map(device).collect()
}

/// The pod's UID, and where it sits; `None` there where it sits nowhere or has ended.
pub(super) fn pod(pod: WatchedPod) -> Option<(PodUid, Option<PodOn>)> {
    let uid: PodUid = pod.uid()?.parse().ok()?;
    let phase = pod.status.as_ref().map(|status| status.phase.as_str());
    if matches!(phase, Some("Succeeded" | "Failed")) || pod.spec.node_name.is_empty() {
        return Some((uid, None));
    }
    let slim = berth_kube_api::Pod {
        metadata: object::ObjectMeta {
            name: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            uid: uid.to_string(),
            labels: pod.labels().clone(),
            annotations: pod.annotations().clone(),
        },
        spec: pod.spec,
    };
    let on = || {
        let meta = &slim.metadata;
        let placement = meta.annotations.get(berth_kube_api::names::berth::PLACEMENT);
        let placement = placement.and_then(|text| Placement::from_annotation(text));
        Some(PodOn {
            pod: PodRef::new(&meta.namespace, &meta.name, uid.clone()).ok()?,
            node: slim.spec.node_name.parse().ok()?,
            // What cannot be understood holds nothing that could be reckoned with.
            shape: pod_shape(&slim).unwrap_or_default(),
            plan: placement
                .filter(|placement| placement.node == slim.spec.node_name)
                .and_then(|placement| placement.plan()),
            priority: slim.spec.priority.unwrap_or(0),
        })
    };
    let on = on();
    Some((uid, on))
}
