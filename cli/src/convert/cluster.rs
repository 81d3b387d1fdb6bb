//! The boundary to `berth.scheduler.v1`, as its parent is to `berth.node.v1`.

use berth_placement::Shape;
use berth_proto::scheduler::v1 as pb;

use super::{all, shape_to_wire};
use crate::view;

pub(crate) fn pod_shape(shape: &Shape) -> pb::PodShape {
    pb::PodShape {
        gpu: Some(shape_to_wire(shape)),
        cpu_milli: 0,
        memory_bytes: 0,
    }
}

impl From<pb::GetClusterResponse> for view::ClusterNodes {
    fn from(wire: pb::GetClusterResponse) -> Self {
        Self {
            policy: wire.policy,
            nodes: all(wire.nodes),
        }
    }
}

impl From<pb::NodeSummary> for view::ClusterNode {
    fn from(wire: pb::NodeSummary) -> Self {
        Self {
            name: wire.name,
            target: wire.target,
            usable: wire.usable,
            verified: wire.verified,
            contact: wire.contact,
            problem: wire.problem,
            gpus: wire.gpus,
            gpus_free: wire.gpus_free,
            free_milli: wire.free_milli,
            gpus_unhealthy: wire.gpus_unhealthy,
            models: wire.models,
        }
    }
}

impl From<pb::ExplainResponse> for view::Explained {
    fn from(wire: pb::ExplainResponse) -> Self {
        Self {
            asks: wire.asks,
            policy: wire.policy,
            fitting: wire.fitting,
            candidates: wire.candidates,
            refused: wire.refused.into_iter().collect(),
            nodes: all(wire.nodes),
            decision: wire.decision.map(view::Decided::from),
        }
    }
}

impl From<pb::NodeVerdict> for view::Opinion {
    fn from(wire: pb::NodeVerdict) -> Self {
        let devices: Vec<view::DeviceVerdict> = all(wire.devices);
        let index = |uuid: &str| {
            devices
                .iter()
                .find(|device| device.device_uuid == uuid)
                .map(|device| device.index)
        };
        let grants = wire.grants.into_iter().map(|grant| {
            let known = index(&grant.device_uuid);
            view::Grant {
                index: known.unwrap_or(u32::MAX),
                ..grant.into()
            }
        });
        Self {
            node: wire.node,
            rank: wire.rank,
            score: wire.score,
            terms: wire.terms.into_iter().map(|term| (term.name, term.value)).collect(),
            reason: wire.reason,
            message: wire.message,
            grants: grants.collect(),
            devices,
        }
    }
}

impl From<pb::Grant> for view::Grant {
    /// The scheduler tells no index.
    fn from(wire: pb::Grant) -> Self {
        Self {
            device_uuid: wire.device_uuid,
            index: u32::MAX,
            milli: wire.milli,
            memory_bytes: wire.memory_bytes,
            mig_uuid: wire.mig_uuid,
            mig_profile: wire.mig_profile,
        }
    }
}

impl From<pb::Decision> for view::Decided {
    fn from(wire: pb::Decision) -> Self {
        let outcome = wire.outcome.unwrap_or_default();
        let pod = wire.pod.unwrap_or_default();
        Self {
            id: wire.id,
            at_unix_ms: wire.at_unix_ms,
            pod: format!("{}/{}", pod.namespace, pod.name),
            why: wire.why,
            ranked: wire.ranked,
            state: match outcome.state() {
                pb::outcome::State::Unspecified => "Unknown",
                pb::outcome::State::Proposed => "Proposed",
                pb::outcome::State::NoFit => "NoFit",
                pb::outcome::State::Reserved => "Reserved",
                pb::outcome::State::Refused => "Refused",
            },
            node: outcome.node,
            devices: if outcome.devices.is_empty() {
                wire.devices
            } else {
                outcome.devices
            },
            reason: outcome.reason,
            message: outcome.message,
        }
    }
}

impl From<pb::SimulateResponse> for view::SimulationResult {
    fn from(wire: pb::SimulateResponse) -> Self {
        Self {
            placed: wire.placed,
            free_milli_before: wire.free_milli_before,
            free_milli_after: wire.free_milli_after,
            pods: all(wire.pods),
        }
    }
}

impl From<pb::SimulatedPod> for view::SimulatedPod {
    fn from(wire: pb::SimulatedPod) -> Self {
        Self {
            shape: wire.shape,
            node: wire.node,
            grants: all(wire.grants),
        }
    }
}
