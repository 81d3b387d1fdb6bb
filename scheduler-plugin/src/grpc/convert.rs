//! Between the wire of `berth.scheduler.v1` and our types: the only file that knows both. Inwards everything is checked and
//! bounded; outwards nothing can fail.

use std::collections::BTreeMap;

use berth_placement::{
    CpuMilli, DeviceState, GpuShape, Grant, GrantSize, Health, MemoryBytes, MigProfile, MilliGpu, NodeExplanation,
    NodeName, NodeState, ParseIdError, Plan, PodRef, PodUid, Ranked, Shape,
};
use berth_proto::{node::v1 as node, scheduler::v1 as wire};

use super::status::{ApiError, InvalidValue};
use crate::{
    cluster::{Arbiter, Summary},
    decisions::{Decision, Outcome},
    reserve::Reserved,
};

const MAX_NODES: usize = 10_000;
const MAX_MODELS: usize = 64;
/// Pods of one simulation.
pub(super) const MAX_SIMULATED: usize = 10_000;

// === inwards ===

pub(super) fn pod(pod: &node::PodRef) -> Result<PodRef, ApiError> {
    let uid: PodUid = id(&pod.uid, "pod.uid")?;
    PodRef::new(&pod.namespace, &pod.name, uid).map_err(|error| InvalidValue::Id(error).of("pod"))
}

/// `None`: all nodes.
pub(super) fn names(nodes: &[String]) -> Result<Option<Vec<NodeName>>, ApiError> {
    if nodes.is_empty() {
        return Ok(None);
    }
    if nodes.len() > MAX_NODES {
        return Err(InvalidValue::TooMany { limit: MAX_NODES }.of("nodes"));
    }
    nodes
        .iter()
        .map(|name| id(name, "nodes"))
        .collect::<Result<_, _>>()
        .map(Some)
}

pub(super) fn shape(shape: Option<wire::PodShape>) -> Result<Shape, ApiError> {
    let shape = shape.ok_or_else(|| InvalidValue::Missing.of("shape"))?;
    Ok(Shape {
        cpu: CpuMilli(shape.cpu_milli.into()),
        memory: MemoryBytes::new(shape.memory_bytes),
        ..gpus(shape.gpu.unwrap_or_default())?
    })
}

fn gpus(shape: node::Shape) -> Result<Shape, ApiError> {
    use node::shape::Gpu;
    if shape.models.len() > MAX_MODELS {
        return Err(InvalidValue::TooMany { limit: MAX_MODELS }.of("shape.gpu.models"));
    }
    let gpu = match shape.gpu {
        None => Ok(GpuShape::None),
        Some(Gpu::Whole(whole)) => GpuShape::whole(whole.count),
        Some(Gpu::Share(share)) => GpuShape::share(
            Some(MilliGpu::new(share.milli)),
            Some(MemoryBytes::new(share.memory_bytes)),
            share.count.max(1),
        ),
        Some(Gpu::Mig(mig)) => {
            let profile: MigProfile = id(&mig.profile, "shape.gpu.mig.profile")?;
            GpuShape::mig(profile, mig.count.max(1))
        }
    };
    let gpu = gpu.map_err(|error| InvalidValue::Shape(error).of("shape.gpu"))?;
    let models = shape.models.iter().map(|model| id(model, "shape.gpu.models"));
    Ok(Shape::gpu(gpu).with_models(models.collect::<Result<Vec<_>, _>>()?))
}

/// One shape for each pod, with its position in the request.
pub(super) fn simulated(request: wire::SimulateRequest) -> Result<Vec<(u32, Shape)>, ApiError> {
    let mut pods = Vec::new();
    for (at, it) in (0..).zip(request.shapes) {
        let shape = shape(it.shape)?;
        let count = it.count.max(1) as usize;
        if count > MAX_SIMULATED - pods.len() {
            return Err(InvalidValue::TooMany { limit: MAX_SIMULATED }.of("shapes"));
        }
        pods.extend(std::iter::repeat_n((at, shape), count));
    }
    Ok(pods)
}

fn id<T: std::str::FromStr<Err = ParseIdError>>(text: &str, field: &'static str) -> Result<T, ApiError> {
    text.parse().map_err(|error| InvalidValue::Id(error).of(field))
}

// === outwards ===

pub(super) fn ranked(ranked: &Ranked) -> wire::RankedNode {
    wire::RankedNode {
        node: ranked.node.to_string(),
        score: ranked.score,
        grants: grants(&ranked.plan),
    }
}

pub(super) fn grants(plan: &Plan) -> Vec<wire::Grant> {
    plan.grants.iter().map(grant).collect()
}

fn grant(grant: &Grant) -> wire::Grant {
    let mut wire = wire::Grant {
        device_uuid: grant.device.to_string(),
        ..wire::Grant::default()
    };
    match &grant.size {
        GrantSize::Whole => wire.milli = MilliGpu::WHOLE.get(),
        GrantSize::Share(room) => {
            wire.milli = room.milli.get();
            wire.memory_bytes = room.memory.get();
        }
        GrantSize::Mig { instance, profile } => {
            wire.mig_uuid = instance.to_string();
            wire.mig_profile = profile.to_string();
        }
    }
    wire
}

/// Thousandths of a GPU that the plan takes.
pub(super) fn milli(plan: &Plan) -> u64 {
    plan.grants.iter().map(|it| u64::from(grant(it).milli)).sum()
}

pub(super) fn reservation(reserved: &Reserved) -> wire::Reservation {
    wire::Reservation {
        node: reserved.node.to_string(),
        grants: grants(&reserved.plan),
        existing: reserved.existing,
        deadline_unix_ms: reserved.deadline_unix_ms,
        verified: reserved.arbiter != Arbiter::Nobody,
    }
}

pub(super) fn counts(refused: &BTreeMap<&'static str, usize>) -> std::collections::HashMap<String, u32> {
    refused
        .iter()
        .map(|(reason, nodes)| ((*reason).to_owned(), count(*nodes)))
        .collect()
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn verdict(node: &NodeExplanation) -> wire::NodeVerdict {
    let refusal = node.verdict.plan.as_ref().err();
    let terms = node.terms.iter().map(|(name, value)| wire::Term {
        name: (*name).to_owned(),
        value: *value,
    });
    let devices = node.verdict.devices.iter().map(|device| {
        let refusal = device.outcome.as_ref().err();
        node::DeviceVerdict {
            device_uuid: device.uuid.to_string(),
            index: device.index,
            fits: refusal.is_none(),
            reason: refusal.map_or("", |refusal| refusal.reason.as_str()).to_owned(),
            message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
        }
    });
    wire::NodeVerdict {
        node: node.node.to_string(),
        rank: node.rank.map_or(0, count),
        score: node.score.unwrap_or_default(),
        terms: terms.collect(),
        reason: refusal.map_or("", |refusal| refusal.reason.as_str()).to_owned(),
        message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
        grants: node.verdict.plan.as_ref().map(grants).unwrap_or_default(),
        devices: devices.collect(),
    }
}

pub(super) fn summary(summary: &Summary) -> wire::NodeSummary {
    let mut wire = wire::NodeSummary {
        target: summary.target.clone(),
        contact: summary.contact.to_owned(),
        problem: summary
            .problem
            .as_ref()
            .map(|it| format!("{}: {}", it.reason, it.message))
            .unwrap_or_default(),
        ..wire::NodeSummary::default()
    };
    let Some(state) = &summary.state else { return wire };
    let free = state.devices.iter().filter(|device| takes_pods(device));
    let mut models: Vec<String> = state.devices.iter().map(|device| device.model.to_string()).collect();
    models.sort();
    models.dedup();
    wire.name = state.name.to_string();
    wire.usable = state.reachable;
    wire.verified = state.verified;
    wire.gpus = count(state.devices.len());
    wire.gpus_free = count(
        free.filter(|device| device.free.milli == MilliGpu::WHOLE && device.mig.is_none())
            .count(),
    );
    wire.free_milli = u32::try_from(free_milli(state)).unwrap_or(u32::MAX);
    wire.gpus_unhealthy = count(state.devices.iter().filter(|device| !is_well(device)).count());
    wire.models = models;
    wire
}

/// On devices that may be used; none where the node takes no pods.
pub(super) fn free_milli(state: &NodeState) -> u64 {
    let devices = state
        .devices
        .iter()
        .filter(|device| state.reachable && takes_pods(device));
    devices.map(|device| u64::from(device.free.milli.get())).sum()
}

fn takes_pods(device: &DeviceState) -> bool {
    is_well(device) && device.schedulable && !device.out_of_band
}

fn is_well(device: &DeviceState) -> bool {
    matches!(device.health, Health::Healthy | Health::Suspect)
}

pub(super) fn decision(decision: &Decision) -> wire::Decision {
    wire::Decision {
        id: decision.id.to_string(),
        at_unix_ms: decision.at_unix_ms,
        pod: Some(node::PodRef {
            namespace: decision.pod.namespace.clone(),
            name: decision.pod.name.clone(),
            uid: decision.pod.uid.to_string(),
        }),
        asks: decision.asks.clone(),
        policy: decision.policy.as_str().to_owned(),
        why: decision.why.clone(),
        candidates: count(decision.candidates),
        fitting: count(decision.fitting),
        ranked: decision.ranked.clone(),
        devices: decision.devices.clone(),
        refused: counts(&decision.refused),
        examples: decision.examples.clone(),
        outcome: Some(outcome(&decision.outcome)),
    }
}

fn outcome(outcome: &Outcome) -> wire::Outcome {
    use wire::outcome::State;
    let of = |state: State| wire::Outcome {
        state: state.into(),
        ..wire::Outcome::default()
    };
    match outcome {
        Outcome::Proposed => of(State::Proposed),
        Outcome::NoFit => of(State::NoFit),
        Outcome::Reserved {
            at_unix_ms,
            node,
            devices,
            ..
        } => wire::Outcome {
            at_unix_ms: *at_unix_ms,
            node: node.to_string(),
            devices: devices.clone(),
            ..of(State::Reserved)
        },
        Outcome::Refused {
            at_unix_ms,
            node,
            reason,
            message,
        } => wire::Outcome {
            at_unix_ms: *at_unix_ms,
            node: node.clone(),
            reason: reason.clone(),
            message: message.clone(),
            ..of(State::Refused)
        },
    }
}
