//! From a device as it is to a device as placement sees it.

use berth_placement::{DeviceState, MigSlot, Room};

use super::DeviceReport;

/// The device with nothing held on it: what is free, whether an operator took it out, and use that nobody assigned are
/// the ledger's to fill in.
pub fn to_placement(report: &DeviceReport) -> DeviceState {
    let facts = &report.facts;
    let slots = || {
        facts.mig.instances.iter().map(|instance| MigSlot {
            uuid: instance.uuid.clone(),
            profile: instance.profile.clone(),
            memory: instance.memory,
            free: true,
        })
    };
    DeviceState {
        uuid: facts.uuid.clone(),
        index: facts.index,
        model: facts.model.clone(),
        memory: facts.memory,
        compute_mode: facts.compute_mode,
        numa_node: facts.numa_node,
        nvlink_domain: facts.nvlink_domain,
        health: report.health.state,
        schedulable: true,
        out_of_band: false,
        mig: facts.mig.enabled.then(|| slots().collect()),
        free: Room::whole(facts.memory),
    }
}
