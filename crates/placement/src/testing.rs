//! Small nodes for this crate's tests.

use crate::{ComputeMode, CpuMilli, DeviceState, GpuModel, Health, MemoryBytes, NodeState, Room};

pub(crate) fn device(node: &str, index: u32, model: &GpuModel) -> DeviceState {
    let memory = MemoryBytes::from_gib(80);
    DeviceState {
        uuid: format!("GPU-{node}-{index}").parse().unwrap(),
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
    }
}

/// A node with this many H100, 16 cores and 64 GiB for each.
pub(crate) fn node(name: &str, gpus: u32) -> NodeState {
    node_of(name, gpus, "H100")
}

pub(crate) fn node_of(name: &str, gpus: u32, model: &str) -> NodeState {
    let model: GpuModel = model.parse().unwrap();
    let devices = (0..gpus).map(|index| device(name, index, &model)).collect();
    let cpu = Some(CpuMilli(u64::from(gpus.max(1)) * 16_000));
    NodeState {
        cpu_free: cpu,
        cpu_total: cpu,
        memory_free: Some(MemoryBytes::from_gib(u64::from(gpus.max(1)) * 64)),
        ..NodeState::of_devices(name.parse().unwrap(), 1, devices)
    }
}
