//! The node as a whole, as the wire tells it.

use berth_placement::DeviceUuid;
use berth_proto::node::v1 as wire;

use super::{device, drift};
use crate::{book::NodeView, conditions::Condition};

/// What is the same for as long as the process lives.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// A UUID: another one after each start.
    pub(crate) instance_id: String,
    pub(crate) version: &'static str,
    pub(crate) simulated: bool,
}

pub(crate) fn node(view: &NodeView, identity: &Identity) -> wire::Node {
    let book = &view.book;
    wire::Node {
        name: book.node.name.to_string(),
        generation: view.generation(),
        instance_id: identity.instance_id.clone(),
        driver: Some(device::driver(&view.inventory)),
        conditions: view.conditions.iter().map(condition).collect(),
        devices: devices(view),
        drifts: book.drifts.iter().map(drift).collect(),
        simulated: identity.simulated,
        version: identity.version.to_owned(),
    }
}

/// Those that the driver tells, then those that somebody holds and it no longer tells.
fn devices(view: &NodeView) -> Vec<wire::Device> {
    let cordon = |uuid| view.book.cordons.get(uuid).map(String::as_str);
    let present = view.inventory.devices.iter().map(|report| {
        let uuid = &report.facts.uuid;
        device::device(report, view.book.node.device(uuid), cordon(uuid))
    });
    let missing = view
        .book
        .missing
        .values()
        .filter(|device| view.inventory.device(&device.uuid).is_none());
    let missing = missing.map(|booked| device::missing_device(booked, cordon(&booked.uuid)));
    present.chain(missing).collect()
}

fn condition(condition: &Condition) -> wire::Condition {
    wire::Condition {
        r#type: condition.kind.as_str().to_owned(),
        status: condition.status,
        reason: condition.reason.to_owned(),
        message: condition.message.to_string(),
        last_transition_unix_ms: condition.last_transition_unix_ms,
    }
}

/// One device; `None` where it is not known here.
pub(in crate::grpc) fn device(view: &NodeView, uuid: &DeviceUuid) -> Option<wire::Device> {
    devices(view).into_iter().find(|device| device.uuid == uuid.as_str())
}

/// Everything in the book.
pub(in crate::grpc) fn allocations(view: &NodeView) -> wire::ListAllocationsResponse {
    let claims = view
        .book
        .claims
        .iter()
        .map(|claim| super::allocation(claim, &view.book));
    let out_of_band = view.book.out_of_band.iter().map(|used| wire::OutOfBandUse {
        device_uuid: used.device.to_string(),
        pid: used.pid,
        used_memory_bytes: used.used_memory_bytes,
        since_unix_ms: used.since_unix_ms,
    });
    wire::ListAllocationsResponse {
        allocations: claims.collect(),
        out_of_band: out_of_band.collect(),
        generation: view.generation(),
    }
}
