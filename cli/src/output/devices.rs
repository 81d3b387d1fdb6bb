//! `berthctl devices`, and the answer to what changes one device.

use std::collections::BTreeMap;

use berth_placement::MilliGpu;
use serde::Serialize;

use super::{Cell, Flow, Page, Report, Table, Tone, short_uuid, text::gib_of};
use crate::view::{Allocation, Book, Device, Health, HealthState, Holder, Mig, Node};

/// All devices of a node, each with those who hold it.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceList {
    node: String,
    generation: u64,
    devices: Vec<DeviceWithHolders>,
}

#[derive(Debug, Serialize)]
pub(crate) struct DeviceWithHolders {
    #[serde(flatten)]
    device: Device,
    holders: Vec<Held>,
}

/// One holder of a device.
#[derive(Debug, Serialize)]
struct Held {
    #[serde(flatten)]
    holder: Option<Holder>,
    state: &'static str,
}

/// A device after it was changed, and what was done to it in words.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct DeviceChanged {
    pub(crate) device: Device,
    #[serde(skip)]
    pub(crate) done: String,
}

impl DeviceList {
    pub(crate) fn new(node: Node, book: &Book) -> Self {
        let with_holders = |device: Device| {
            let holders = book
                .allocations
                .iter()
                .filter(|allocation| allocation.holds(&device.uuid))
                .map(|Allocation { holder, state, .. }| Held {
                    holder: holder.clone(),
                    state: state.as_str(),
                })
                .collect();
            DeviceWithHolders { device, holders }
        };
        Self {
            node: node.name,
            generation: node.generation,
            devices: node.devices.into_iter().map(with_holders).collect(),
        }
    }
}

impl Report for DeviceList {
    fn render(&self, page: &mut Page) {
        if self.devices.is_empty() {
            page.line(&format!(
                "{} has no GPU that the driver tells of; see `berthctl node`.",
                self.node
            ));
            return;
        }
        let mut table = Table::new([
            ("GPU", Flow::Fixed),
            ("UUID", Flow::Fixed),
            ("MODEL", Flow::Wrap(6)),
            ("FREE GiB", Flow::Fixed),
            ("SHARE", Flow::Fixed),
            ("MIG", Flow::Fixed),
            ("NUMA", Flow::Fixed),
            ("NVLINK", Flow::Fixed),
            ("HEALTH", Flow::Wrap(10)),
            ("HELD BY", Flow::Wrap(12)),
        ]);
        let all: Vec<Device> = self.devices.iter().map(|with| with.device.clone()).collect();
        for DeviceWithHolders { device, holders } in &self.devices {
            table.row([
                Cell::from(device.index.to_string()),
                short_uuid(&device.uuid, &all).into(),
                Cell::from(&device.model),
                gib_of(free_bytes(device), device.memory_bytes).into(),
                if device.mig.enabled {
                    Cell::from("-")
                } else {
                    MilliGpu::new(device.free.milli).to_string().into()
                },
                mig(device).into(),
                number(device.numa_node).into(),
                number(device.nvlink_domain).into(),
                state(device),
                held_by(holders).into(),
            ]);
        }
        page.table(&table);
        let notes: Vec<_> = all.iter().flat_map(|device| notes(device, page)).collect();
        if !notes.is_empty() {
            page.blank();
        }
        for note in notes {
            page.line(&note);
        }
    }
}

impl Report for DeviceChanged {
    fn render(&self, page: &mut Page) {
        let Device { index, uuid, model, .. } = &self.device;
        page.line(&format!("GPU {index} ({model}, {uuid}) {}", self.done));
    }
}

/// On a device that is split by MIG, that of its free instances.
fn free_bytes(device: &Device) -> u64 {
    let is_avoided = !device.schedulable
        || device.missing
        || matches!(device.health.state, HealthState::Unhealthy | HealthState::Recovering);
    if !device.mig.enabled || is_avoided {
        return device.free.memory_bytes;
    }
    let free = device.mig.instances.iter().filter(|instance| instance.free);
    free.fold(0, |sum, instance| sum.saturating_add(instance.memory_bytes))
}

fn number(number: Option<u32>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// `off`, or how many instances are free: `3/7`.
fn mig(device: &Device) -> String {
    let mig = &device.mig;
    if mig.enabled {
        let free = mig.instances.iter().filter(|instance| instance.free).count();
        format!("{free}/{}", mig.instances.len())
    } else if mig.supported {
        "off".to_owned()
    } else {
        String::new()
    }
}

/// The health with its reasons, and what else keeps a device out.
fn state(device: &Device) -> Cell {
    let mut words = vec![health(&device.health)];
    if !device.schedulable {
        words.push("cordoned".to_owned());
    }
    if device.missing {
        words.push("missing".to_owned());
    }
    if device.out_of_band {
        words.push("foreign use".to_owned());
    }
    let tone = match device.health.state {
        _ if device.missing => Tone::Bad,
        HealthState::Unhealthy => Tone::Bad,
        HealthState::Healthy if words.len() == 1 => Tone::Good,
        _ => Tone::Warning,
    };
    Cell::toned(words.join(", "), tone)
}

/// `Unhealthy (Xid 79)`.
pub(super) fn health(health: &Health) -> String {
    let reasons: Vec<_> = health
        .reasons
        .iter()
        .map(|reason| match reason.xid {
            Some(xid) => format!("{} {xid}", reason.reason),
            None => reason.reason.clone(),
        })
        .collect();
    let state = health.state.as_str();
    if reasons.is_empty() {
        state.to_owned()
    } else {
        format!("{state} ({})", reasons.join(", "))
    }
}

/// The first holder, and how many more: who exactly is in `berthctl allocations`.
fn held_by(holders: &[Held]) -> String {
    let name = |held: &Held| match &held.holder {
        Some(Holder::LeaseId(id)) => format!("lease {}", id.get(..8).unwrap_or(id)),
        Some(pod) => pod.to_string(),
        None => "?".to_owned(),
    };
    match holders {
        [] => String::new(),
        [one] => name(one),
        [first, more @ ..] => format!("{} +{}", name(first), more.len()),
    }
}

/// In full what the table only hints at.
fn notes(device: &Device, page: &Page) -> Vec<String> {
    let gpu = format!("GPU {}", device.index);
    let mut notes = Vec::new();
    for reason in &device.health.reasons {
        let state = device.health.state.as_str();
        notes.push(format!(
            "{gpu} is {state}: {} ({} ago)",
            reason.message,
            page.since(reason.since_unix_ms)
        ));
    }
    if !device.schedulable {
        let why = Some(&device.unschedulable_message).filter(|message| !message.is_empty());
        notes.push(format!(
            "{gpu} is cordoned{}",
            why.map(|why| format!(": {why}")).unwrap_or_default()
        ));
    }
    if device.missing {
        notes.push(format!(
            "{gpu} is no longer found by the driver, but somebody holds it ({})",
            device.uuid
        ));
    }
    if device.out_of_band {
        let pids: Vec<_> = device.processes.iter().map(|process| process.pid.to_string()).collect();
        notes.push(format!(
            "{gpu} is used by a process that nobody gave it to (processes there: {})",
            pids.join(", ")
        ));
    }
    if device.mig.enabled {
        notes.push(format!("{gpu} is split by MIG: {}", profiles(&device.mig)));
    }
    if device.mig.pending {
        notes.push(format!("{gpu} changes its MIG mode at the next reset"));
    }
    notes
}

/// `1g.10gb 2/4 free, 3g.40gb 1/1 free`.
fn profiles(mig: &Mig) -> String {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for instance in &mig.instances {
        let (free, total) = counts.entry(&instance.profile).or_default();
        *free += usize::from(instance.free);
        *total += 1;
    }
    let parts: Vec<_> = counts
        .into_iter()
        .map(|(profile, (free, total))| format!("{profile} {free}/{total} free"))
        .collect();
    if parts.is_empty() {
        "into no instance yet".to_owned()
    } else {
        parts.join(", ")
    }
}
