//! Between the wire of `berth.node.v1` and our types: the only file that knows both.
//!
//! Inwards nothing is trusted: a device that cannot be understood is left out and told of, an unknown health counts as the
//! worst one.

use std::collections::BTreeMap;

use berth_placement::{
    ComputeMode, DeviceState, DeviceUuid, GpuShape, Grant, GrantSize, Health, MemoryBytes, MigSlot, MilliGpu,
    NodeState, ParseIdError, Plan, PodRef, PodUid, Room, Shape, ShareSize,
};
use berth_proto::node::v1 as wire;
use serde::Serialize;
use thiserror::Error;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

#[cfg(test)]
mod tests;

/// One state of a node as its daemon told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeReport {
    pub(crate) state: NodeState,
    /// Changes when the daemon starts anew.
    pub(crate) instance: String,
    pub(crate) facts: NodeFacts,
    /// False while the daemon's book is not joined with the kubelet's: it grants nothing then.
    pub(crate) reconciled: bool,
    /// Pods with GPUs that the API server has on the node: their CPU and memory are taken out already.
    pub(crate) bound: BTreeMap<PodUid, Bound>,
    /// All pods that the API server has there, also those without GPUs.
    pub(crate) pods: usize,
}

/// A pod with GPUs on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) shape: Shape,
    /// What it was bound with, where Berth bound it.
    pub(crate) plan: Option<Plan>,
    pub(crate) priority: i32,
}

/// What people want to see of a node besides its state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NodeFacts {
    pub(crate) version: String,
    pub(crate) simulated: bool,
    pub(crate) driver: String,
    /// Conditions that do not hold, as `Type: Reason: message`.
    pub(crate) failing: Vec<String>,
    /// Devices that are not healthy, as `GPU-…: Reason: message`.
    pub(crate) ill: Vec<String>,
    /// What of the report could not be understood.
    pub(crate) left_out: Vec<String>,
}

/// What a daemon granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) plan: Plan,
    /// The daemon had granted it before.
    pub(crate) existing: bool,
    /// The first state of the node that has it.
    pub(crate) generation: u64,
    /// 0: it does not lapse.
    pub(crate) deadline_unix_ms: u64,
}

/// A message that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    #[error("the daemon's answer has no {0}")]
    Missing(&'static str),
    #[error("the daemon's answer names something that cannot exist")]
    Id(#[from] ParseIdError),
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub(crate) struct CallError {
    /// The daemon's own reason where it gave one, else one by the status code.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Whether the daemon may have done what it was asked all the same.
    pub(crate) outcome_unknown: bool,
}

// === inwards ===

pub(crate) fn report(node: Option<wire::Node>) -> Result<NodeReport, WireError> {
    let node = node.ok_or(WireError::Missing("node"))?;
    let mut facts = NodeFacts {
        version: node.version,
        simulated: node.simulated,
        driver: node.driver.as_ref().map(driver).unwrap_or_default(),
        ..NodeFacts::default()
    };
    let mut reconciled = true;
    for condition in node.conditions.into_iter().filter(|condition| !condition.status) {
        // Without its journal a daemon grants nothing.
        reconciled &= !matches!(condition.r#type.as_str(), "LedgerReconciled" | "JournalHealthy");
        let text = format!("{}: {}: {}", condition.r#type, condition.reason, condition.message);
        facts.failing.push(text);
    }
    let mut devices = Vec::with_capacity(node.devices.len());
    for it in node.devices {
        let uuid = it.uuid.clone();
        match device(it, &mut facts) {
            Ok(device) => devices.push(device),
            Err(error) => facts.left_out.push(format!("device {uuid}: {error}")),
        }
    }
    devices.sort_by_key(|device| device.index);
    Ok(NodeReport {
        state: NodeState::of_devices(node.name.parse()?, node.generation, devices),
        instance: node.instance_id,
        facts,
        reconciled,
        bound: BTreeMap::new(),
        pods: 0,
    })
}

fn driver(status: &wire::DriverStatus) -> String {
    format!("{} {}", status.backend, status.driver_version)
        .trim_end()
        .to_owned()
}

fn device(device: wire::Device, facts: &mut NodeFacts) -> Result<DeviceState, ParseIdError> {
    let uuid: DeviceUuid = device.uuid.parse()?;
    let health = health(device.health.as_ref(), device.missing);
    if health != Health::Healthy {
        let reasons = device.health.iter().flat_map(|health| &health.reasons);
        let mut reasons: Vec<_> = reasons.map(|it| format!("{}: {}", it.reason, it.message)).collect();
        if device.missing {
            reasons.push("Missing: the driver no longer finds it".to_owned());
        }
        facts.ill.push(format!("{uuid}: {health:?}: {}", reasons.join("; ")));
    }
    let free = device.free.unwrap_or_default();
    Ok(DeviceState {
        uuid,
        index: device.index,
        model: device.model.parse()?,
        memory: MemoryBytes::new(device.memory_bytes),
        compute_mode: match wire::ComputeMode::try_from(device.compute_mode) {
            Ok(wire::ComputeMode::Unspecified | wire::ComputeMode::Default) => ComputeMode::Default,
            Ok(wire::ComputeMode::ExclusiveProcess) => ComputeMode::ExclusiveProcess,
            Ok(wire::ComputeMode::Prohibited) | Err(_) => ComputeMode::Prohibited,
        },
        numa_node: device.numa_node,
        nvlink_domain: device.nvlink_domain,
        health,
        schedulable: device.schedulable,
        out_of_band: device.out_of_band,
        mig: device.mig.filter(|mig| mig.enabled).map(|mig| slots(mig, facts)),
        free: Room {
            milli: MilliGpu::new(free.milli),
            memory: MemoryBytes::new(free.memory_bytes),
        },
    })
}

fn health(health: Option<&wire::Health>, missing: bool) -> Health {
    let state = health.map(wire::Health::state).filter(|_| !missing);
    match state {
        Some(wire::HealthState::Healthy) => Health::Healthy,
        Some(wire::HealthState::Suspect) => Health::Suspect,
        Some(wire::HealthState::Recovering) => Health::Recovering,
        Some(wire::HealthState::Unhealthy | wire::HealthState::Unspecified) | None => Health::Unhealthy,
    }
}

fn slots(mig: wire::MigStatus, facts: &mut NodeFacts) -> Vec<MigSlot> {
    let slot = |instance: &wire::MigInstance| {
        Ok::<_, ParseIdError>(MigSlot {
            uuid: instance.uuid.parse()?,
            profile: instance.profile.parse()?,
            memory: MemoryBytes::new(instance.memory_bytes),
            free: instance.free,
        })
    };
    let mut slots = Vec::with_capacity(mig.instances.len());
    for instance in mig.instances {
        match slot(&instance) {
            Ok(slot) => slots.push(slot),
            Err(error) => facts.left_out.push(format!("MIG instance {}: {error}", instance.uuid)),
        }
    }
    slots
}

pub(crate) fn granted(response: wire::ReserveResponse) -> Result<Granted, WireError> {
    let allocation = response.allocation.ok_or(WireError::Missing("allocation"))?;
    let grants = allocation.grants.iter().map(grant).collect::<Result<_, _>>()?;
    Ok(Granted {
        plan: Plan { grants },
        existing: response.existing,
        generation: response.generation,
        deadline_unix_ms: allocation.deadline_unix_ms,
    })
}

fn grant(grant: &wire::Grant) -> Result<Grant, ParseIdError> {
    let room = Room {
        milli: MilliGpu::new(grant.milli),
        memory: MemoryBytes::new(grant.memory_bytes),
    };
    Ok(Grant {
        device: grant.device_uuid.parse()?,
        size: if !grant.mig_uuid.is_empty() {
            GrantSize::Mig {
                instance: grant.mig_uuid.parse()?,
                profile: grant.mig_profile.parse()?,
            }
        } else if room.milli == MilliGpu::WHOLE {
            GrantSize::Whole
        } else {
            GrantSize::Share(room)
        },
    })
}

pub(crate) fn call_error(status: &Status) -> CallError {
    let info = status.get_details_error_info();
    // Only what the daemon itself said is certain; the rest may have been lost on the way back.
    let outcome_unknown = info.is_none() && !matches!(status.code(), Code::Unimplemented | Code::Unauthenticated);
    let reason = info.map(|info| info.reason).filter(|reason| is_reason(reason));
    CallError {
        reason: reason.unwrap_or_else(|| code_reason(status.code()).to_owned()),
        message: status.message().chars().take(500).collect(),
        outcome_unknown,
    }
}

/// CamelCase and short: it becomes a metric's label.
fn is_reason(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

const fn code_reason(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "DaemonUnavailable",
        Code::DeadlineExceeded | Code::Cancelled => "DaemonTimeout",
        Code::PermissionDenied | Code::Unauthenticated => "DaemonDenied",
        _ => "DaemonError",
    }
}

// === outwards ===

pub(crate) fn reserve_request(pod: &PodRef, shape: &Shape, plan: &Plan, decision: String) -> wire::ReserveRequest {
    let preferred = |grant: &Grant| match &grant.size {
        GrantSize::Mig { instance, .. } => instance.to_string(),
        GrantSize::Whole | GrantSize::Share(_) => grant.device.to_string(),
    };
    wire::ReserveRequest {
        pod: Some(wire::PodRef {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.to_string(),
        }),
        shape: Some(wire_shape(shape)),
        ttl_ms: 0,
        preferred_devices: plan.grants.iter().map(preferred).collect(),
        decision_id: decision,
    }
}

pub(crate) fn release_request(pod: &PodRef) -> wire::ReleaseRequest {
    wire::ReleaseRequest {
        holder: Some(wire::release_request::Holder::PodUid(pod.uid.to_string())),
    }
}

fn wire_shape(shape: &Shape) -> wire::Shape {
    use wire::shape::Gpu;
    let gpu = match &shape.gpu {
        GpuShape::None => None,
        GpuShape::Whole { count } => Some(Gpu::Whole(wire::WholeGpus { count: *count })),
        GpuShape::Share { size, count } => {
            let (milli, memory) = match size {
                ShareSize::Milli(milli) => (*milli, MemoryBytes::ZERO),
                ShareSize::Memory(memory) => (MilliGpu::ZERO, *memory),
                ShareSize::Both(milli, memory) => (*milli, *memory),
            };
            Some(Gpu::Share(wire::GpuShare {
                milli: milli.get(),
                memory_bytes: memory.get(),
                count: *count,
            }))
        }
        GpuShape::Mig { profile, count } => Some(Gpu::Mig(wire::MigRequest {
            profile: profile.to_string(),
            count: *count,
        })),
    };
    wire::Shape {
        gpu,
        models: shape.models.iter().map(ToString::to_string).collect(),
    }
}
