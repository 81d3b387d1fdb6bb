//! `berthctl node`.

use std::collections::BTreeMap;

use berth_placement::MemoryBytes;

use super::{Cell, Flow, Page, Report, Table, Tone};
use crate::view::{Device, Driver, HealthState, Node};

impl Report for Node {
    fn render(&self, page: &mut Page) {
        let simulated = if self.simulated { " (simulated GPUs)" } else { "" };
        page.line(&format!("Node     {}{simulated}", self.name));
        page.line(&format!(
            "Daemon   berthd {}, generation {}, instance {}",
            self.version, self.generation, self.instance_id
        ));
        page.line(&format!("Driver   {}", driver(&self.driver)));
        page.line(&format!("GPUs     {}", models(&self.devices)));
        page.line(&format!("Health   {}", health(&self.devices)));
        page.line(&format!("Free     {}", free(&self.devices)));
        page.blank();
        page.table(&conditions(self, page));
        if !self.drifts.is_empty() {
            page.blank();
            page.table(&drifts(self, page));
        }
    }
}

fn driver(driver: &Driver) -> String {
    if driver.driver_version.is_empty() {
        return format!("none ({})", driver.backend);
    }
    let cuda = driver
        .cuda_version
        .map(|version| format!(", CUDA {}.{}", version / 1000, version % 1000 / 10));
    let nvml = Some(&driver.nvml_version).filter(|version| !version.is_empty());
    format!(
        "{} ({}{}{})",
        driver.driver_version,
        driver.backend,
        nvml.map(|version| format!(", NVML {version}")).unwrap_or_default(),
        cuda.unwrap_or_default()
    )
}

fn models(devices: &[Device]) -> String {
    let mut counts: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for device in devices {
        *counts.entry((&device.model, device.memory_bytes)).or_default() += 1;
    }
    let parts: Vec<_> = counts
        .into_iter()
        .map(|((model, memory), count)| format!("{count} x {model} ({})", MemoryBytes::new(memory)))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn health(devices: &[Device]) -> String {
    let count = |what: &dyn Fn(&&Device) -> bool| devices.iter().filter(what).count();
    let in_state = |state| count(&|device| device.health.state == state);
    let counts = [
        (in_state(HealthState::Healthy), "healthy"),
        (in_state(HealthState::Suspect), "suspect"),
        (in_state(HealthState::Recovering), "recovering"),
        (in_state(HealthState::Unhealthy), "unhealthy"),
        (in_state(HealthState::Unknown), "unknown"),
        (count(&|device| !device.schedulable), "cordoned"),
        (count(&|device| device.out_of_band), "in foreign use"),
        (count(&|device| device.missing), "missing"),
    ];
    joined(counts)
}

fn free(devices: &[Device]) -> String {
    let whole = devices
        .iter()
        .filter(|device| !device.mig.enabled && device.free.milli == 1000)
        .count();
    let shared = devices
        .iter()
        .filter(|device| (1..1000).contains(&device.free.milli))
        .count();
    let instances = devices
        .iter()
        .flat_map(|device| &device.mig.instances)
        .filter(|instance| instance.free)
        .count();
    joined([(whole, "whole"), (shared, "in part"), (instances, "MIG instances")])
}

fn joined<const N: usize>(counts: [(usize, &str); N]) -> String {
    let parts: Vec<_> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn conditions(node: &Node, page: &Page) -> Table {
    let mut table = Table::new([
        ("CONDITION", Flow::Fixed),
        ("OK", Flow::Fixed),
        ("SINCE", Flow::Fixed),
        ("REASON", Flow::Wrap(16)),
        ("MESSAGE", Flow::Wrap(24)),
    ]);
    for condition in &node.conditions {
        let ok = if condition.status {
            Cell::toned("yes", Tone::Good)
        } else {
            Cell::toned("NO", Tone::Bad)
        };
        table.row([
            Cell::from(&condition.kind),
            ok,
            page.since(condition.last_transition_unix_ms).into(),
            Cell::from(&condition.reason),
            Cell::from(&condition.message),
        ]);
    }
    table
}

fn drifts(node: &Node, page: &Page) -> Table {
    let mut table = Table::new([
        ("DRIFT", Flow::Fixed),
        ("SINCE", Flow::Fixed),
        ("GPU", Flow::Fixed),
        ("HOLDER", Flow::Wrap(16)),
        ("MESSAGE", Flow::Wrap(24)),
    ]);
    for drift in &node.drifts {
        let index = node
            .device(&drift.device_uuid)
            .map(|device| device.index.to_string())
            .unwrap_or_default();
        table.row([
            Cell::toned(&drift.reason, Tone::Warning),
            page.since(drift.since_unix_ms).into(),
            index.into(),
            Cell::from(&drift.holder),
            Cell::from(&drift.message),
        ]);
    }
    table
}
