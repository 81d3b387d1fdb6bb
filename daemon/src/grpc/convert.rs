//! Between the wire and our types: the only file that knows both sides of `berth.node.v1`'s book.
//!
//! (Its two submodules have the devices and the node.) Inwards everything is checked and bounded; outwards nothing can
//! fail.

pub(super) mod device;
pub(super) mod node;

use berth_ledger::{Claim, ClaimState, Drift, Event, Holder, RequestRefused, Snapshot};
use berth_placement::{
    GpuShape, Grant, GrantSize, MemoryBytes, MigProfile, MilliGpu, NodeVerdict, ParseIdError, PodRef, PodUid, Room,
    Shape, ShareSize, shape::MAX_COUNT,
};
use berth_proto::node::v1 as wire;

use super::status::{InvalidField, InvalidValue};
use crate::book::NodeView;

/// Names and messages that a client sends along.
const MAX_TEXT: usize = 1024;
/// Models that a shape may name; the catalogue has a few dozen.
const MAX_MODELS: usize = 64;

// === inwards ===

/// A whole Reserve request, checked.
pub(super) fn reserve(request: wire::ReserveRequest, client: String) -> Result<Event, InvalidField> {
    let limit = MAX_COUNT as usize;
    if request.preferred_devices.len() > limit {
        return Err(InvalidValue::TooMany { limit }.of("preferred_devices"));
    }
    let preferred = request
        .preferred_devices
        .iter()
        .map(|uuid| id(uuid, "preferred_devices"));
    Ok(Event::Reserve {
        pod: pod(request.pod)?,
        shape: shape(request.shape)?,
        ttl_ms: request.ttl_ms,
        preferred: preferred.collect::<Result<_, _>>()?,
        client,
        decision_id: text(request.decision_id, "decision_id")?,
    })
}

pub(super) fn released_holder(request: wire::ReleaseRequest) -> Result<Holder, InvalidField> {
    match request.holder {
        Some(wire::release_request::Holder::PodUid(uid)) => Ok(Holder::Pod(id(&uid, "pod_uid")?)),
        Some(wire::release_request::Holder::LeaseId(lease)) => Ok(Holder::Lease(id(&lease, "lease_id")?)),
        None => Err(InvalidValue::Missing.of("holder")),
    }
}

fn pod(pod: Option<wire::PodRef>) -> Result<PodRef, InvalidField> {
    let pod = pod.ok_or_else(|| InvalidValue::Missing.of("pod"))?;
    let uid: PodUid = id(&pod.uid, "pod.uid")?;
    PodRef::new(&pod.namespace, &pod.name, uid).map_err(|error| InvalidValue::Id(error).of("pod"))
}

pub(super) fn shape(shape: Option<wire::Shape>) -> Result<Shape, InvalidField> {
    use wire::shape::Gpu;
    let shape = shape.ok_or_else(|| InvalidValue::Missing.of("shape"))?;
    if shape.models.len() > MAX_MODELS {
        return Err(InvalidValue::TooMany { limit: MAX_MODELS }.of("shape.models"));
    }
    let one_if_zero = |count: u32| count.max(1);
    let gpu = match shape.gpu {
        None => Ok(GpuShape::None),
        Some(Gpu::Whole(whole)) => GpuShape::whole(whole.count),
        Some(Gpu::Share(share)) => {
            let memory = MemoryBytes::new(share.memory_bytes);
            GpuShape::share(Some(MilliGpu::new(share.milli)), Some(memory), one_if_zero(share.count))
        }
        Some(Gpu::Mig(mig)) => GpuShape::mig(
            id::<MigProfile>(&mig.profile, "shape.mig.profile")?,
            one_if_zero(mig.count),
        ),
    };
    let gpu = gpu.map_err(|error| InvalidValue::Shape(error).of("shape"))?;
    let models = shape
        .models
        .iter()
        .map(|model| id(model, "shape.models"))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Shape::gpu(gpu).with_models(models))
}

pub(super) fn id<T: std::str::FromStr<Err = ParseIdError>>(text: &str, field: &'static str) -> Result<T, InvalidField> {
    text.parse().map_err(|error| InvalidValue::Id(error).of(field))
}

/// Free text: bounded, and on one line, since it ends up in logs.
pub(super) fn text(text: String, field: &'static str) -> Result<String, InvalidField> {
    if text.len() > MAX_TEXT {
        return Err(InvalidValue::TooLong { limit: MAX_TEXT }.of(field));
    }
    if text.contains(char::is_control) {
        return Ok(text.replace(char::is_control, " "));
    }
    Ok(text)
}

// === outwards ===

/// `devices` give a grant's index and a whole GPU's memory.
pub(super) fn allocation(claim: &Claim, book: &Snapshot) -> wire::Allocation {
    use wire::AllocationState as State;
    let (state, deadline_unix_ms) = match claim.state {
        ClaimState::Reserved { deadline_unix_ms } => (State::Reserved, deadline_unix_ms),
        ClaimState::Allocated { .. } => (State::Allocated, 0),
        ClaimState::Leased => (State::Leased, 0),
        ClaimState::Foreign { .. } => (State::Foreign, 0),
    };
    wire::Allocation {
        holder: Some(holder(claim)),
        state: state.into(),
        shape: Some(wire_shape(&claim.shape)),
        grants: grants(&claim.grants, book),
        granted_unix_ms: claim.granted_unix_ms,
        deadline_unix_ms,
        client: claim.client.clone(),
        decision_id: claim.decision_id.clone(),
    }
}

fn holder(claim: &Claim) -> wire::allocation::Holder {
    use wire::allocation::Holder as Wire;
    match (&claim.holder, &claim.pod) {
        (Holder::Lease(id), _) => Wire::LeaseId(id.to_string()),
        (_, Some(pod)) => Wire::Pod(wire::PodRef {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.to_string(),
        }),
        (Holder::Pod(uid), None) => Wire::Pod(wire::PodRef {
            uid: uid.to_string(),
            ..wire::PodRef::default()
        }),
        (Holder::Foreign(name), None) => {
            let (namespace, name) = name.split_once('/').unwrap_or(("", name));
            Wire::Pod(wire::PodRef {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: String::new(),
            })
        }
    }
}

pub(super) fn grants(grants: &[Grant], book: &Snapshot) -> Vec<wire::Grant> {
    grants.iter().map(|grant| wire_grant(grant, book)).collect()
}

fn wire_grant(grant: &Grant, book: &Snapshot) -> wire::Grant {
    // Gone from the driver: what was granted stands, and the device is told as it was last.
    let device = book
        .node
        .device(&grant.device)
        .or_else(|| book.missing.get(&grant.device));
    let mut wire = wire::Grant {
        device_uuid: grant.device.to_string(),
        index: device.map_or(u32::MAX, |device| device.index),
        ..wire::Grant::default()
    };
    match &grant.size {
        GrantSize::Mig { instance, profile } => {
            let slot = device.and_then(|device| device.mig.iter().flatten().find(|slot| slot.uuid == *instance));
            wire.memory_bytes = slot.map_or(0, |slot| slot.memory.get());
            wire.mig_uuid = instance.to_string();
            wire.mig_profile = profile.to_string();
        }
        GrantSize::Whole | GrantSize::Share(_) => {
            let room = grant.room(device.map_or(MemoryBytes::ZERO, |device| device.memory));
            wire.milli = room.milli.get();
            wire.memory_bytes = room.memory.get();
        }
    }
    wire
}

fn wire_shape(shape: &Shape) -> wire::Shape {
    use wire::shape::Gpu;
    let gpu = match &shape.gpu {
        GpuShape::None => None,
        GpuShape::Whole { count } => Some(Gpu::Whole(wire::WholeGpus { count: *count })),
        GpuShape::Share { size, count } => {
            let (milli, memory) = match *size {
                ShareSize::Milli(milli) => (milli, MemoryBytes::ZERO),
                ShareSize::Memory(memory) => (MilliGpu::ZERO, memory),
                ShareSize::Both(milli, memory) => (milli, memory),
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

pub(super) fn room(room: Room) -> wire::Room {
    wire::Room {
        milli: room.milli.get(),
        memory_bytes: room.memory.get(),
    }
}

pub(super) fn drift(drift: &Drift) -> wire::Drift {
    wire::Drift {
        reason: drift.reason.as_str().to_owned(),
        message: drift.message.clone(),
        holder: drift.holder.as_ref().map(holder_name).unwrap_or_default(),
        device_uuid: drift.device.as_ref().map(ToString::to_string).unwrap_or_default(),
        since_unix_ms: drift.since_unix_ms,
    }
}

fn holder_name(holder: &Holder) -> String {
    match holder {
        Holder::Pod(uid) => uid.to_string(),
        Holder::Lease(id) => id.to_string(),
        Holder::Foreign(name) => name.clone(),
    }
}

/// Where the book is not reconciled nothing fits, whatever the devices are.
pub(super) fn verdict(verdict: &NodeVerdict, view: &NodeView) -> wire::ExplainFitResponse {
    let closed = (!view.book.reconciled).then_some(RequestRefused::NotReconciled);
    let (reason, message) = match (&closed, &verdict.plan) {
        (Some(closed), _) => (closed.reason(), closed.to_string()),
        (None, Err(refusal)) => (refusal.reason.as_str(), refusal.message.clone()),
        (None, Ok(_)) => ("", String::new()),
    };
    let plan = verdict.plan.as_ref().ok().filter(|_| closed.is_none());
    let of_devices = verdict.devices.iter().map(|device| {
        let refusal = device.outcome.as_ref().err();
        wire::DeviceVerdict {
            device_uuid: device.uuid.to_string(),
            index: device.index,
            fits: refusal.is_none(),
            reason: refusal.map_or("", |refusal| refusal.reason.as_str()).to_owned(),
            message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
        }
    });
    wire::ExplainFitResponse {
        fits: plan.is_some(),
        reason: reason.to_owned(),
        message,
        plan: plan.map(|plan| grants(&plan.grants, &view.book)).unwrap_or_default(),
        devices: of_devices.collect(),
        generation: view.generation(),
    }
}
