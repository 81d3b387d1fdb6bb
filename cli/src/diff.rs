//! What changed between two looks at a node. Pure; decides what `berthctl watch` tells.
//!
//! Level-triggered: a reader that missed states in between still learns of everything that is different now. What
//! changes all the time (temperature, utilisation, used memory) is no change here.

mod change;
#[cfg(test)]
mod tests;

pub(crate) use change::{Change, ChangeKind};

use crate::view::{Allocation, Book, Device, Node};

/// A node and its book, read at about the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) node: Node,
    pub(crate) book: Book,
}

/// All that is different in `new`, causes before their consequences.
pub(crate) fn changes(old: &Look, new: &Look) -> Vec<Change> {
    let mut changes = Vec::new();
    daemon(&old.node, &new.node, &mut changes);
    conditions(&old.node, &new.node, &mut changes);
    devices(&old.node, &new.node, &mut changes);
    holders(old, new, &mut changes);
    drifts(&old.node, &new.node, &mut changes);
    changes
}

fn daemon(old: &Node, new: &Node, changes: &mut Vec<Change>) {
    if old.instance_id != new.instance_id {
        let version = format!("berthd {} runs anew, instance {}", new.version, new.instance_id);
        changes.push(Change::new(ChangeKind::DaemonRestarted, version).between(&old.instance_id, &new.instance_id));
    }
    let (was, is) = (&old.driver.driver_version, &new.driver.driver_version);
    if was != is {
        let named = |version: &str| {
            if version.is_empty() {
                "none".to_owned()
            } else {
                version.to_owned()
            }
        };
        let message = format!("{} -> {}", named(was), named(is));
        changes.push(Change::new(ChangeKind::DriverChanged, message).between(was, is));
    }
}

fn conditions(old: &Node, new: &Node, changes: &mut Vec<Change>) {
    for condition in &new.conditions {
        let before = old.conditions.iter().find(|other| other.kind == condition.kind);
        if before.is_some_and(|b| b.status == condition.status && b.reason == condition.reason) {
            continue;
        }
        let word = |status| if status { "ok" } else { "NOT OK" };
        let message = format!(
            "{}, {}: {}",
            word(condition.status),
            condition.reason,
            condition.message
        );
        let change = Change::new(ChangeKind::ConditionChanged, message).reason(&condition.reason);
        let change = change.condition(&condition.kind);
        changes.push(match before {
            Some(before) => change.between(&before.reason, &condition.reason),
            None => change,
        });
    }
}

fn devices(old: &Node, new: &Node, changes: &mut Vec<Change>) {
    let find = |node: &Node, uuid: &str| node.devices.iter().position(|device| device.uuid == uuid);
    for gone in old.devices.iter().filter(|device| find(new, &device.uuid).is_none()) {
        let message = format!("{} is no longer there", gone.model);
        changes.push(Change::new(ChangeKind::DeviceRemoved, message).device(gone));
    }
    for device in &new.devices {
        match find(old, &device.uuid).and_then(|at| old.devices.get(at)) {
            None => {
                let message = format!("{}, {}", device.model, device.health.state.as_str());
                changes.push(Change::new(ChangeKind::DeviceAdded, message).device(device));
            }
            Some(before) => device_changes(before, device, changes),
        }
    }
}

fn device_changes(old: &Device, new: &Device, changes: &mut Vec<Change>) {
    let mut tell = |kind, message: String| changes.push(Change::new(kind, message).device(new));
    if old.missing != new.missing {
        if new.missing {
            tell(
                ChangeKind::DeviceMissing,
                "the driver no longer finds it, but somebody holds it".to_owned(),
            );
        } else {
            tell(ChangeKind::DeviceFound, "the driver finds it again".to_owned());
        }
    }
    if old.schedulable != new.schedulable {
        if new.schedulable {
            tell(ChangeKind::DeviceUncordoned, "back in scheduling".to_owned());
        } else {
            tell(
                ChangeKind::DeviceCordoned,
                or(&new.unschedulable_message, "out of scheduling"),
            );
        }
    }
    if old.mig != new.mig {
        let mode = match (new.mig.enabled, new.mig.pending) {
            (true, false) => format!("on, {} instances", new.mig.instances.len()),
            (false, false) => "off".to_owned(),
            (_, true) => "changes at the next reset".to_owned(),
        };
        // Who holds an instance is told of the holder.
        let apart_from_holders = |device: &Device| {
            let mut mig = device.mig.clone();
            mig.instances.iter_mut().for_each(|instance| instance.free = true);
            mig
        };
        if apart_from_holders(old) != apart_from_holders(new) {
            tell(ChangeKind::MigChanged, format!("MIG {mode}"));
        }
    }
    if old.out_of_band != new.out_of_band {
        if new.out_of_band {
            tell(
                ChangeKind::OutOfBandBegan,
                "a process runs there that nobody gave it to".to_owned(),
            );
        } else {
            tell(
                ChangeKind::OutOfBandEnded,
                "no such process runs there any longer".to_owned(),
            );
        }
    }
    let reasons = |device: &Device| -> Vec<_> {
        device
            .health
            .reasons
            .iter()
            .map(|reason| (reason.reason.clone(), reason.xid))
            .collect()
    };
    if old.health.state != new.health.state || reasons(old) != reasons(new) {
        changes.push(health_change(old, new));
    }
}

fn health_change(old: &Device, new: &Device) -> Change {
    let (was, is) = (old.health.state.as_str(), new.health.state.as_str());
    let step = if was == is {
        is.to_owned()
    } else {
        format!("{was} -> {is}")
    };
    let whys: Vec<_> = new
        .health
        .reasons
        .iter()
        .map(|reason| reason.message.as_str())
        .collect();
    let message = if whys.is_empty() {
        step
    } else {
        format!("{step}: {}", whys.join("; "))
    };
    let change = Change::new(ChangeKind::HealthChanged, message)
        .device(new)
        .between(was, is);
    match new.health.reasons.first() {
        Some(first) => change.reason(&first.reason),
        None => change,
    }
}

fn holders(old: &Look, new: &Look, changes: &mut Vec<Change>) {
    let find = |look: &Look, allocation: &Allocation| {
        look.book
            .allocations
            .iter()
            .position(|other| other.holder == allocation.holder)
    };
    for gone in old
        .book
        .allocations
        .iter()
        .filter(|allocation| find(new, allocation).is_none())
    {
        let message = format!("gave back {}", on(gone));
        changes.push(Change::new(ChangeKind::HolderRemoved, message).holder(gone));
    }
    for allocation in &new.book.allocations {
        let state = allocation.state.as_str();
        match find(old, allocation).and_then(|at| old.book.allocations.get(at)) {
            None => {
                let message = format!("{state} {}", on(allocation));
                changes.push(Change::new(ChangeKind::HolderAdded, message).holder(allocation));
            }
            Some(before) if before.state != allocation.state || before.grants != allocation.grants => {
                let was = before.state.as_str();
                let message = format!("{was} {} -> {state} {}", on(before), on(allocation));
                let change = Change::new(ChangeKind::HolderChanged, message).holder(allocation);
                changes.push(change.between(was, state));
            }
            Some(_) => {}
        }
    }
}

/// `GPU 0, 3 (0.25)`.
fn on(allocation: &Allocation) -> String {
    let grants: Vec<_> = allocation.grants.iter().map(ToString::to_string).collect();
    if grants.is_empty() {
        "no GPU".to_owned()
    } else {
        format!("GPU {}", grants.join(", "))
    }
}

fn drifts(old: &Node, new: &Node, changes: &mut Vec<Change>) {
    let same = |a: &crate::view::Drift, b: &crate::view::Drift| {
        (&a.reason, &a.holder, &a.device_uuid) == (&b.reason, &b.holder, &b.device_uuid)
    };
    let parties = [
        (ChangeKind::DriftEnded, &old.drifts, &new.drifts, new),
        (ChangeKind::DriftBegan, &new.drifts, &old.drifts, new),
    ];
    for (kind, these, others, node) in parties {
        for drift in these
            .iter()
            .filter(|drift| !others.iter().any(|other| same(drift, other)))
        {
            let message = format!("{}: {}", drift.reason, drift.message);
            let change = Change::new(kind, message).reason(&drift.reason);
            changes.push(match node.device(&drift.device_uuid) {
                Some(device) => change.device(device),
                None => change,
            });
        }
    }
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        text.to_owned()
    }
}
