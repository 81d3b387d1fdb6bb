//! From the daemon's view to the GpuNode: the only file that knows both. By way of the wire's node, so that the API server
//! and a gRPC client are told the same.

use std::collections::{BTreeMap, BTreeSet};

use berth_kube_api::gpu_node::{Condition, Device, Driver, GpuNodeStatus, MigInstance, Summary};
use berth_ledger::Holder;
use berth_proto::node::v1 as wire;

use crate::{
    book::NodeView,
    grpc::{Identity, wire_node},
};

pub(super) fn status(view: &NodeView, identity: &Identity, address: &str) -> GpuNodeStatus {
    let node = wire_node(view, identity);
    let mut holders: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for claim in view.book.claims.iter() {
        let holder = match &claim.holder {
            Holder::Pod(uid) => claim
                .pod
                .as_ref()
                .map_or_else(|| uid.to_string(), |pod| format!("{}/{}", pod.namespace, pod.name)),
            Holder::Lease(id) => id.to_string(),
            Holder::Foreign(name) => name.clone(),
        };
        for grant in &claim.grants {
            holders.entry(grant.device.as_str()).or_default().insert(holder.clone());
        }
    }
    let device = |device: wire::Device| {
        let holders = holders
            .get(device.uuid.as_str())
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        self::device(device, holders)
    };
    let devices: Vec<Device> = node.devices.into_iter().map(device).collect();
    let driver = node.driver.unwrap_or_default();
    GpuNodeStatus {
        generation: signed(node.generation),
        instance: node.instance_id,
        version: node.version,
        address: address.to_owned(),
        simulated: node.simulated,
        driver: Driver {
            backend: driver.backend,
            driver_version: driver.driver_version,
            nvml_version: driver.nvml_version,
        },
        summary: summary(&devices),
        conditions: node.conditions.into_iter().map(condition).collect(),
        devices,
    }
}

fn summary(devices: &[Device]) -> Summary {
    let models: BTreeSet<&str> = devices.iter().map(|device| device.model.as_str()).collect();
    let worst = devices.iter().max_by_key(|device| badness(&device.health));
    Summary {
        model: models.into_iter().collect::<Vec<_>>().join(","),
        gpus: count(devices.len()),
        free: count(devices.iter().filter(|device| is_free(device)).count()),
        health: worst.map_or_else(|| "Unknown".to_owned(), |device| device.health.clone()),
    }
}

/// Nobody has any part of it, and it takes pods.
fn is_free(device: &Device) -> bool {
    let untouched = match &device.mig {
        Some(instances) => instances.iter().all(|instance| instance.free),
        None => device.free_milli == 1000,
    };
    untouched && device.schedulable && !device.out_of_band && badness(&device.health) < 2
}

fn badness(health: &str) -> u8 {
    match health {
        "Healthy" => 0,
        "Suspect" => 1,
        "Recovering" => 2,
        _ => 3,
    }
}

fn condition(condition: wire::Condition) -> Condition {
    Condition {
        kind: condition.r#type,
        status: if condition.status { "True" } else { "False" }.to_owned(),
        reason: condition.reason,
        message: condition.message,
        last_transition_unix_ms: signed(condition.last_transition_unix_ms),
    }
}

fn device(device: wire::Device, holders: Vec<String>) -> Device {
    let compute_mode = match device.compute_mode() {
        wire::ComputeMode::Unspecified | wire::ComputeMode::Default => "Default",
        wire::ComputeMode::ExclusiveProcess => "ExclusiveProcess",
        wire::ComputeMode::Prohibited => "Prohibited",
    };
    let free = device.free.unwrap_or_default();
    let state = device
        .health
        .as_ref()
        .map(wire::Health::state)
        .filter(|_| !device.missing);
    let health = match state {
        Some(wire::HealthState::Healthy) => "Healthy",
        Some(wire::HealthState::Suspect) => "Suspect",
        Some(wire::HealthState::Recovering) => "Recovering",
        Some(wire::HealthState::Unhealthy | wire::HealthState::Unspecified) | None => "Unhealthy",
    };
    let reasons = device.health.into_iter().flat_map(|health| health.reasons);
    Device {
        uuid: device.uuid,
        index: small(device.index),
        product: device.product,
        model: device.model,
        memory_bytes: signed(device.memory_bytes),
        compute_mode: compute_mode.to_owned(),
        numa_node: device.numa_node.map(small),
        nvlink_domain: device.nvlink_domain.map(small),
        health: health.to_owned(),
        health_reasons: reasons.map(|it| format!("{}: {}", it.reason, it.message)).collect(),
        schedulable: device.schedulable,
        out_of_band: device.out_of_band,
        missing: device.missing,
        free_milli: small(free.milli),
        free_memory_bytes: signed(free.memory_bytes),
        mig: device
            .mig
            .filter(|mig| mig.enabled)
            .map(|mig| mig.instances.into_iter().map(instance).collect()),
        holders,
    }
}

fn instance(instance: wire::MigInstance) -> MigInstance {
    MigInstance {
        uuid: instance.uuid,
        profile: instance.profile,
        memory_bytes: signed(instance.memory_bytes),
        free: instance.free,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
