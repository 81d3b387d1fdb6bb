//! The boundary to `berth.node.v1`: wire to what we show, what was asked to wire. Only [`crate::client`], which carries
//! them, sees wire types besides.
//!
//! Total: an enumeration value that only a newer daemon knows becomes `Unknown`, a missing part its empty form.

mod cluster;

use berth_placement::{GpuModel, GpuShape, MemoryBytes, MilliGpu, Shape, ShareSize};
use berth_proto::node::v1 as pb;

pub(crate) use cluster::pod_shape;

use crate::view;

/// The shape as it goes over the wire.
pub(crate) fn shape_to_wire(shape: &Shape) -> pb::Shape {
    let gpu = match &shape.gpu {
        GpuShape::None => None,
        GpuShape::Whole { count } => Some(pb::shape::Gpu::Whole(pb::WholeGpus { count: *count })),
        GpuShape::Share { size, count } => {
            let (milli, memory) = match size {
                ShareSize::Milli(milli) => (*milli, MemoryBytes::ZERO),
                ShareSize::Memory(memory) => (MilliGpu::ZERO, *memory),
                ShareSize::Both(milli, memory) => (*milli, *memory),
            };
            Some(pb::shape::Gpu::Share(pb::GpuShare {
                milli: milli.get(),
                memory_bytes: memory.get(),
                count: *count,
            }))
        }
        GpuShape::Mig { profile, count } => Some(pb::shape::Gpu::Mig(pb::MigRequest {
            profile: profile.to_string(),
            count: *count,
        })),
    };
    pb::Shape {
        gpu,
        models: shape.models.iter().map(GpuModel::to_string).collect(),
    }
}

/// A field with presence that is always sent; should it be missing, its empty form.
pub(crate) fn part<W, V: From<W> + Default>(part: Option<W>) -> V {
    part.map(V::from).unwrap_or_default()
}

fn all<W, V: From<W>>(parts: Vec<W>) -> Vec<V> {
    parts.into_iter().map(V::from).collect()
}

impl From<pb::Node> for view::Node {
    fn from(wire: pb::Node) -> Self {
        Self {
            name: wire.name,
            generation: wire.generation,
            instance_id: wire.instance_id,
            version: wire.version,
            simulated: wire.simulated,
            driver: part(wire.driver),
            conditions: all(wire.conditions),
            drifts: all(wire.drifts),
            devices: all(wire.devices),
        }
    }
}

impl From<pb::DriverStatus> for view::Driver {
    fn from(wire: pb::DriverStatus) -> Self {
        Self {
            backend: wire.backend,
            driver_version: wire.driver_version,
            nvml_version: wire.nvml_version,
            cuda_version: wire.cuda_version,
        }
    }
}

impl From<pb::Condition> for view::Condition {
    fn from(wire: pb::Condition) -> Self {
        Self {
            kind: wire.r#type,
            status: wire.status,
            reason: wire.reason,
            message: wire.message,
            last_transition_unix_ms: wire.last_transition_unix_ms,
        }
    }
}

impl From<pb::Drift> for view::Drift {
    fn from(wire: pb::Drift) -> Self {
        Self {
            reason: wire.reason,
            message: wire.message,
            holder: wire.holder,
            device_uuid: wire.device_uuid,
            since_unix_ms: wire.since_unix_ms,
        }
    }
}

impl From<pb::Device> for view::Device {
    fn from(wire: pb::Device) -> Self {
        Self {
            compute_mode: wire.compute_mode().into(),
            uuid: wire.uuid,
            index: wire.index,
            pci_bus_id: wire.pci_bus_id,
            product: wire.product,
            model: wire.model,
            architecture: wire.architecture,
            compute_capability: wire.compute_capability,
            serial: wire.serial,
            memory_bytes: wire.memory_bytes,
            numa_node: wire.numa_node,
            nvlink_domain: wire.nvlink_domain,
            nvlink_peers: all(wire.nvlink_peers),
            mig: part(wire.mig),
            health: part(wire.health),
            schedulable: wire.schedulable,
            unschedulable_message: wire.unschedulable_message,
            free: part(wire.free),
            status: wire.status.map(Into::into),
            processes: all(wire.processes),
            out_of_band: wire.out_of_band,
            missing: wire.missing,
        }
    }
}

impl From<pb::ComputeMode> for view::ComputeMode {
    fn from(wire: pb::ComputeMode) -> Self {
        match wire {
            pb::ComputeMode::Unspecified => Self::Unknown,
            pb::ComputeMode::Default => Self::Default,
            pb::ComputeMode::ExclusiveProcess => Self::ExclusiveProcess,
            pb::ComputeMode::Prohibited => Self::Prohibited,
        }
    }
}

impl From<pb::NvlinkPeer> for view::NvlinkPeer {
    fn from(wire: pb::NvlinkPeer) -> Self {
        Self {
            uuid: wire.uuid,
            links: wire.links,
        }
    }
}

impl From<pb::MigStatus> for view::Mig {
    fn from(wire: pb::MigStatus) -> Self {
        Self {
            supported: wire.supported,
            enabled: wire.enabled,
            pending: wire.pending,
            instances: all(wire.instances),
        }
    }
}

impl From<pb::MigInstance> for view::MigInstance {
    fn from(wire: pb::MigInstance) -> Self {
        Self {
            uuid: wire.uuid,
            profile: wire.profile,
            memory_bytes: wire.memory_bytes,
            gpu_instance_id: wire.gpu_instance_id,
            compute_instance_id: wire.compute_instance_id,
            free: wire.free,
        }
    }
}

impl From<pb::Room> for view::Room {
    fn from(wire: pb::Room) -> Self {
        Self {
            milli: wire.milli,
            memory_bytes: wire.memory_bytes,
        }
    }
}

impl From<pb::Health> for view::Health {
    fn from(wire: pb::Health) -> Self {
        Self {
            state: match wire.state() {
                pb::HealthState::Unspecified => view::HealthState::Unknown,
                pb::HealthState::Healthy => view::HealthState::Healthy,
                pb::HealthState::Suspect => view::HealthState::Suspect,
                pb::HealthState::Unhealthy => view::HealthState::Unhealthy,
                pb::HealthState::Recovering => view::HealthState::Recovering,
            },
            since_unix_ms: wire.since_unix_ms,
            reasons: all(wire.reasons),
        }
    }
}

impl From<pb::HealthReason> for view::HealthReason {
    fn from(wire: pb::HealthReason) -> Self {
        Self {
            reason: wire.reason,
            message: wire.message,
            since_unix_ms: wire.since_unix_ms,
            xid: wire.xid,
        }
    }
}

impl From<pb::DeviceStatus> for view::DeviceStatus {
    fn from(wire: pb::DeviceStatus) -> Self {
        Self {
            sampled_unix_ms: wire.sampled_unix_ms,
            temperature_celsius: wire.temperature_celsius,
            power_milliwatt: wire.power_milliwatt,
            power_limit_milliwatt: wire.power_limit_milliwatt,
            gpu_utilization_percent: wire.gpu_utilization_percent,
            memory_utilization_percent: wire.memory_utilization_percent,
            memory_used_bytes: wire.memory_used_bytes,
            throttle_reasons: wire.throttle_reasons,
            ecc_corrected_total: wire.ecc_corrected_total,
            ecc_uncorrected_total: wire.ecc_uncorrected_total,
            remapped_rows: wire.remapped_rows.map(Into::into),
            recovery_action: wire.recovery_action,
        }
    }
}

impl From<pb::RemappedRows> for view::RemappedRows {
    fn from(wire: pb::RemappedRows) -> Self {
        Self {
            corrected: wire.corrected,
            uncorrected: wire.uncorrected,
            pending: wire.pending,
            failed: wire.failed,
        }
    }
}

impl From<pb::Process> for view::Process {
    fn from(wire: pb::Process) -> Self {
        Self {
            pid: wire.pid,
            used_memory_bytes: wire.used_memory_bytes,
            gpu_instance_id: wire.gpu_instance_id,
            compute_instance_id: wire.compute_instance_id,
        }
    }
}

impl From<pb::ListAllocationsResponse> for view::Book {
    fn from(wire: pb::ListAllocationsResponse) -> Self {
        Self {
            generation: wire.generation,
            allocations: all(wire.allocations),
            out_of_band: all(wire.out_of_band),
        }
    }
}

impl From<pb::Allocation> for view::Allocation {
    fn from(wire: pb::Allocation) -> Self {
        Self {
            state: match wire.state() {
                pb::AllocationState::Unspecified => view::AllocationState::Unknown,
                pb::AllocationState::Reserved => view::AllocationState::Reserved,
                pb::AllocationState::Allocated => view::AllocationState::Allocated,
                pb::AllocationState::Leased => view::AllocationState::Leased,
                pb::AllocationState::Foreign => view::AllocationState::Foreign,
            },
            holder: wire.holder.map(Into::into),
            shape: part(wire.shape),
            grants: all(wire.grants),
            granted_unix_ms: wire.granted_unix_ms,
            deadline_unix_ms: (wire.deadline_unix_ms > 0).then_some(wire.deadline_unix_ms),
            client: wire.client,
            decision_id: wire.decision_id,
        }
    }
}

impl From<pb::allocation::Holder> for view::Holder {
    fn from(wire: pb::allocation::Holder) -> Self {
        match wire {
            pb::allocation::Holder::Pod(pb::PodRef { namespace, name, uid }) => Self::Pod { namespace, name, uid },
            pb::allocation::Holder::LeaseId(id) => Self::LeaseId(id),
        }
    }
}

impl From<pb::Shape> for view::Shape {
    fn from(wire: pb::Shape) -> Self {
        let gpu = wire.gpu.map(|gpu| match gpu {
            pb::shape::Gpu::Whole(pb::WholeGpus { count }) => view::AskedGpu::Whole { count },
            pb::shape::Gpu::Share(pb::GpuShare {
                milli,
                memory_bytes,
                count,
            }) => view::AskedGpu::Share {
                milli,
                memory_bytes,
                count: count.max(1),
            },
            pb::shape::Gpu::Mig(pb::MigRequest { profile, count }) => view::AskedGpu::Mig {
                profile,
                count: count.max(1),
            },
        });
        Self {
            gpu,
            models: wire.models,
        }
    }
}

impl From<pb::Grant> for view::Grant {
    fn from(wire: pb::Grant) -> Self {
        Self {
            device_uuid: wire.device_uuid,
            index: wire.index,
            milli: wire.milli,
            memory_bytes: wire.memory_bytes,
            mig_uuid: wire.mig_uuid,
            mig_profile: wire.mig_profile,
        }
    }
}

impl From<pb::OutOfBandUse> for view::OutOfBandUse {
    fn from(wire: pb::OutOfBandUse) -> Self {
        Self {
            device_uuid: wire.device_uuid,
            pid: wire.pid,
            used_memory_bytes: wire.used_memory_bytes,
            since_unix_ms: wire.since_unix_ms,
        }
    }
}

impl From<pb::ExplainFitResponse> for view::Verdict {
    fn from(wire: pb::ExplainFitResponse) -> Self {
        Self {
            fits: wire.fits,
            reason: wire.reason,
            message: wire.message,
            plan: all(wire.plan),
            devices: all(wire.devices),
            generation: wire.generation,
        }
    }
}

impl From<pb::DeviceVerdict> for view::DeviceVerdict {
    fn from(wire: pb::DeviceVerdict) -> Self {
        Self {
            device_uuid: wire.device_uuid,
            index: wire.index,
            fits: wire.fits,
            reason: wire.reason,
            message: wire.message,
        }
    }
}
