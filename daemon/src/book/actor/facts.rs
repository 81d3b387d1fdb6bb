//! What the driver, the kubelet and the other parts of berthd tell: it holds whether it can be kept or not.

use std::sync::Arc;

use berth_gpu::{DriverState, Inventory, to_placement};
use berth_ledger::{Event, GpuProcess};
use berth_placement::{DeviceState, Health};
use tracing::{info, warn};

use super::Actor;
use crate::conditions::{ConditionType, Finding};

impl Actor {
    pub(super) fn take_devices(&mut self, now_ms: u64, inventory: Arc<Inventory>, processes: Vec<GpuProcess>) {
        self.metrics.count_xids(&self.inventory, &inventory);
        let is_driver_ready = matches!(inventory.driver, DriverState::Ready(_));
        self.driver_seen |= is_driver_ready;
        // What was never seen is not known to be absent: before the driver's first word the book stays closed.
        if self.driver_seen {
            self.observe(now_ms, Event::Devices(devices(&inventory)));
            if self.processes != processes {
                self.processes.clone_from(&processes);
                self.observe(now_ms, Event::Processes(processes));
            }
        }
        self.turn.touched |= self.inventory.generation != inventory.generation;
        self.inventory = inventory;
    }

    pub(super) fn note(&mut self, now_ms: u64, finding: Finding) {
        let before = self.conditions.get(finding.kind);
        if before.is_finding(&finding) {
            return;
        }
        let (kind, reason, message) = (finding.kind.as_str(), finding.reason, &finding.message);
        if before.status && !finding.status {
            warn!(condition = kind, reason, %message, "no longer holds");
        } else {
            info!(condition = kind, status = finding.status, reason, %message);
        }
        Arc::make_mut(&mut self.conditions).note(now_ms, finding);
        self.turn.touched = true;
    }

    pub(super) fn note_reconciled(&mut self, now_ms: u64) {
        const KIND: ConditionType = ConditionType::LedgerReconciled;
        let finding = match (self.driver_seen, self.kubelet_seen) {
            (true, true) => {
                self.ready.ready();
                KIND.holds("Reconciled", "the book knows the devices and what the kubelet assigned")
            }
            (false, _) => KIND.fails(
                "WaitingForDriver",
                "nothing is granted before the driver has told its devices",
            ),
            (true, false) => KIND.fails(
                "WaitingForKubelet",
                "nothing is granted before the kubelet has told what it assigned",
            ),
        };
        if !finding.status {
            self.ready.not_ready(finding.message.clone());
        }
        self.note(now_ms, finding);
    }
}

/// The devices for the book. While the driver does not answer nobody can see them, so nothing is granted there.
fn devices(inventory: &Inventory) -> Vec<DeviceState> {
    let is_silent = matches!(inventory.driver, DriverState::NotAnswering { .. });
    let mut devices: Vec<_> = inventory.devices.iter().map(to_placement).collect();
    for device in devices.iter_mut().filter(|_| is_silent) {
        device.health = device.health.max(Health::Recovering);
    }
    devices
}
