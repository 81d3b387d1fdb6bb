//! Devices as the wire tells them: the driver's report joined with the book.

use berth_gpu::{
    DeviceFacts, DeviceReport, DriverState, HealthReport, Inventory, Process, Sample, inventory::MigReport,
};
use berth_placement::{ComputeMode, DeviceState, Health, MemoryBytes, MigSlot, Room};
use berth_proto::node::v1 as wire;

use super::room;
use crate::book::obtainable;

/// `booked`: the device as the ledger has it; `None` in the moment before it has seen it: then nothing is free.
pub(in crate::grpc) fn device(
    report: &DeviceReport,
    booked: Option<&DeviceState>,
    unschedulable_message: Option<&str>,
) -> wire::Device {
    let facts = &*report.facts;
    wire::Device {
        uuid: facts.uuid.to_string(),
        index: facts.index,
        pci_bus_id: facts.pci_bus_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        product: facts.product.clone(),
        model: facts.model.to_string(),
        architecture: facts.architecture.clone().unwrap_or_default(),
        memory_bytes: facts.memory.get(),
        compute_mode: compute_mode(facts.compute_mode).into(),
        numa_node: facts.numa_node,
        nvlink_peers: nvlink_peers(facts),
        nvlink_domain: facts.nvlink_domain,
        mig: Some(mig(
            &facts.mig,
            booked.and_then(|device| device.mig.as_deref()).unwrap_or_default(),
        )),
        health: Some(health(&report.health)),
        schedulable: unschedulable_message.is_none(),
        unschedulable_message: unschedulable_message.unwrap_or_default().to_owned(),
        free: Some(room(booked.map(obtainable).unwrap_or_default())),
        status: report.sample.as_ref().map(status),
        processes: report.processes.iter().map(process).collect(),
        out_of_band: booked.is_some_and(|device| device.out_of_band),
        missing: false,
        serial: facts.serial.clone().unwrap_or_default(),
        compute_capability: facts.compute_capability.clone().unwrap_or_default(),
    }
}

/// A device that somebody holds and the driver no longer finds: as it was last.
pub(in crate::grpc) fn missing_device(booked: &DeviceState, unschedulable_message: Option<&str>) -> wire::Device {
    wire::Device {
        compute_mode: compute_mode(booked.compute_mode).into(),
        numa_node: booked.numa_node,
        nvlink_domain: booked.nvlink_domain,
        schedulable: unschedulable_message.is_none(),
        unschedulable_message: unschedulable_message.unwrap_or_default().to_owned(),
        uuid: booked.uuid.to_string(),
        index: booked.index,
        model: booked.model.to_string(),
        memory_bytes: booked.memory.get(),
        free: Some(room(Room::default())),
        missing: true,
        ..wire::Device::default()
    }
}

const fn compute_mode(mode: ComputeMode) -> wire::ComputeMode {
    match mode {
        ComputeMode::Default => wire::ComputeMode::Default,
        ComputeMode::ExclusiveProcess => wire::ComputeMode::ExclusiveProcess,
        ComputeMode::Prohibited => wire::ComputeMode::Prohibited,
    }
}

fn nvlink_peers(facts: &DeviceFacts) -> Vec<wire::NvlinkPeer> {
    let peers = facts.nvlink_peers.iter();
    peers
        .map(|peer| wire::NvlinkPeer {
            uuid: peer.uuid.to_string(),
            links: peer.links,
        })
        .collect()
}

fn mig(report: &MigReport, slots: &[MigSlot]) -> wire::MigStatus {
    let instances = report.instances.iter().map(|instance| wire::MigInstance {
        uuid: instance.uuid.to_string(),
        profile: instance.profile.to_string(),
        memory_bytes: instance.memory.get(),
        gpu_instance_id: instance.gpu_instance,
        compute_instance_id: instance.compute_instance,
        free: slots.iter().any(|slot| slot.uuid == instance.uuid && slot.free),
    });
    wire::MigStatus {
        supported: report.supported,
        enabled: report.enabled,
        pending: report.pending,
        instances: instances.collect(),
    }
}

pub(in crate::grpc) fn health(report: &HealthReport) -> wire::Health {
    let state = match report.state {
        Health::Healthy => wire::HealthState::Healthy,
        Health::Suspect => wire::HealthState::Suspect,
        Health::Recovering => wire::HealthState::Recovering,
        Health::Unhealthy => wire::HealthState::Unhealthy,
    };
    let reasons = report.reasons.iter().map(|reason| wire::HealthReason {
        reason: reason.reason.to_owned(),
        message: reason.message.clone(),
        since_unix_ms: reason.since_unix_ms,
        xid: reason.xid,
    });
    wire::Health {
        state: state.into(),
        since_unix_ms: report.since_unix_ms,
        reasons: reasons.collect(),
    }
}

fn status(sample: &Sample) -> wire::DeviceStatus {
    wire::DeviceStatus {
        sampled_unix_ms: sample.sampled_unix_ms,
        temperature_celsius: sample.temperature_celsius,
        power_milliwatt: sample.power_milliwatt,
        power_limit_milliwatt: sample.power_limit_milliwatt,
        gpu_utilization_percent: sample.gpu_utilization_percent,
        memory_utilization_percent: sample.memory_utilization_percent,
        memory_used_bytes: sample.memory_used.map(MemoryBytes::get),
        throttle_reasons: sample
            .throttle
            .iter()
            .map(|reason| reason.as_str().to_owned())
            .collect(),
        ecc_corrected_total: sample.ecc_corrected_total,
        ecc_uncorrected_total: sample.ecc_uncorrected_total,
        remapped_rows: sample.remapped_rows.map(|rows| wire::RemappedRows {
            corrected: rows.corrected,
            uncorrected: rows.uncorrected,
            pending: rows.pending,
            failed: rows.failed,
        }),
        recovery_action: sample.recovery_action.map_or("", |action| action.as_str()).to_owned(),
    }
}

fn process(process: &Process) -> wire::Process {
    wire::Process {
        pid: process.pid,
        used_memory_bytes: process.used_memory.map(MemoryBytes::get),
        gpu_instance_id: process.gpu_instance,
        compute_instance_id: process.compute_instance,
    }
}

pub(in crate::grpc) fn driver(inventory: &Inventory) -> wire::DriverStatus {
    match &inventory.driver {
        DriverState::Ready(facts) => wire::DriverStatus {
            backend: facts.backend.to_owned(),
            driver_version: facts.driver_version.clone(),
            nvml_version: facts.nvml_version.clone().unwrap_or_default(),
            cuda_version: facts.cuda_version,
        },
        DriverState::Starting | DriverState::Absent { .. } | DriverState::NotAnswering { .. } => {
            wire::DriverStatus::default()
        }
    }
}
