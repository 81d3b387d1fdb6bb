//! Devices come, go and change; operators take them out. Keeps the node's state in step with the book.
//!
//! What is held stays held when its device vanishes, and is there again when it returns.

use std::{collections::BTreeSet, sync::Arc};

use berth_placement::{DeviceState, DeviceUuid};

use super::Ledger;
use crate::{DeviceFacts, Record, RequestRefused, outbox::Outbox, tally::fill_in_free};

impl Ledger {
    pub(super) fn observe_devices(&mut self, mut facts: Vec<DeviceFacts>, out: &mut Outbox<'_>) {
        let mut seen = BTreeSet::new();
        facts.retain(|device| seen.insert(device.uuid.clone()));
        facts.sort_by(|a, b| (a.index, &a.uuid).cmp(&(b.index, &b.uuid)));

        let mut missing = (*self.missing).clone();
        missing.extend(
            self.node
                .devices
                .iter()
                .map(|device| (device.uuid.clone(), device.clone())),
        );
        missing.retain(|uuid, _| !seen.contains(uuid) && self.book.tally().get(uuid).is_some());
        if missing != *self.missing {
            self.missing = Arc::new(missing);
            out.change();
        }
        let devices: Vec<_> = facts.into_iter().map(|device| self.view(device)).collect();
        if devices != self.node.devices {
            Arc::make_mut(&mut self.node).devices = devices;
            out.change();
        }
        let was_reconciled = self.is_reconciled();
        self.devices_seen = true;
        if self.is_reconciled() != was_reconciled {
            out.change();
        }
        self.resolve_instances(out);
    }

    /// Takes a device out of scheduling or puts it back. What is held there stays, reservations too. Allowed before the
    /// book is reconciled: then for any GPU, since none is known yet.
    pub(super) fn set_schedulable(
        &mut self,
        device: DeviceUuid,
        schedulable: bool,
        message: String,
        out: &mut Outbox<'_>,
    ) -> Result<(), RequestRefused> {
        let known = self.node.device(&device).is_some()
            || self.missing.contains_key(&device)
            || self.cordons.contains_key(&device)
            || (!self.devices_seen && !device.is_mig());
        if !known {
            return Err(RequestRefused::UnknownDevice(device));
        }
        let cordon = self.cordons.get(&device);
        let as_it_is = if schedulable {
            cordon.is_none()
        } else {
            cordon == Some(&message)
        };
        if as_it_is {
            return Ok(());
        }
        let cordons = Arc::make_mut(&mut self.cordons);
        if schedulable {
            cordons.remove(&device);
        } else {
            cordons.insert(device.clone(), message.clone());
        }
        out.change();
        self.refresh(&device, out);
        out.persist(Record::Schedulable {
            device,
            schedulable,
            message,
        });
        Ok(())
    }

    /// Brings the node's state in step with the sums.
    pub(super) fn sync_devices(&mut self, out: &mut Outbox<'_>) {
        for uuid in self.book.take_touched() {
            self.refresh(&uuid, out);
        }
    }

    pub(super) fn refresh(&mut self, uuid: &DeviceUuid, out: &mut Outbox<'_>) {
        let Some((at, device)) = self
            .node
            .devices
            .iter()
            .enumerate()
            .find(|(_, device)| device.uuid == *uuid)
        else {
            if self.missing.contains_key(uuid) && self.book.tally().get(uuid).is_none() {
                Arc::make_mut(&mut self.missing).remove(uuid);
                out.change();
            }
            return;
        };
        let fresh = self.view(device.clone());
        if fresh == *device {
            return;
        }
        if let Some(device) = Arc::make_mut(&mut self.node).devices.get_mut(at) {
            *device = fresh;
        }
        out.change();
    }

    /// The device with the ledger's own fields filled in: what is free, whether it may be used. A stranger's process
    /// takes out its MIG instance where that is known, else the device.
    pub(super) fn view(&self, mut device: DeviceState) -> DeviceState {
        let held = self.book.tally().get(&device.uuid);
        fill_in_free(&mut device, held);
        device.schedulable = !self.cordons.contains_key(&device.uuid);
        device.out_of_band = false;
        if !self.config.count_out_of_band {
            return device;
        }
        for found in self.out_of_band.iter().filter(|found| found.device == device.uuid) {
            let slot = device
                .mig
                .iter_mut()
                .flatten()
                .find(|slot| Some(&slot.uuid) == found.mig_instance.as_ref());
            match slot {
                Some(slot) => slot.free = false,
                None => device.out_of_band = true,
            }
        }
        device
    }
}
