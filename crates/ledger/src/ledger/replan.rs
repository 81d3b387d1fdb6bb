//! Reservations make way.
//!
//! A reservation promises how many devices of which kind; which ones is a plan. The plan is made anew
//! - **at once, or the reservation is revoked**, where more is held of a device than it has: the kubelet gave it to
//!   somebody else (its choice wins) or its memory shrank. The newest reservations there go first, as many as must.
//! - **at once, or later**, where a device cannot be used any more (Unhealthy, gone, split by MIG): if nothing else is
//!   free, the reservation keeps its place, so that a driver that is reloaded costs nobody anything; it is tried again with
//!   every change, and revoked when that lasts longer than the grace.
//!
//! Allocations and leases never move: something runs there.

use std::sync::Arc;

use berth_placement::{DeviceUuid, Grant, Refusal, fit};

use super::{Ledger, removal};
use crate::{
    Claim, Holder, Record,
    book::Entry,
    outbox::Outbox,
    tally::{Held, is_usable},
};

impl Ledger {
    pub(super) fn displace_reservations(&mut self, out: &mut Outbox<'_>) {
        let exceeded: Vec<_> = self
            .node
            .devices
            .iter()
            .filter(|device| self.exceeds(&device.uuid))
            .map(|device| device.uuid.clone())
            .collect();
        let mut displaced = Vec::new();
        for uuid in &exceeded {
            let reason = self.reason_to_make_way(uuid);
            for holder in self.book.reservations().iter().rev() {
                if self.exceeds(uuid) && self.holds_part_of(holder, uuid) {
                    displaced.extend(self.book.remove(holder).map(|entry| (entry, reason)));
                }
            }
        }
        displaced.sort_by_key(|(entry, _)| entry.order);
        for (entry, reason) in displaced {
            self.sync_devices(out);
            match fit::plan(&self.node, &entry.claim.shape) {
                Ok(plan) => self.move_to(entry, plan.grants, out),
                Err(refusal) => {
                    let message = format!("its devices went to another pod and no others are free: {refusal}");
                    self.forget(&entry, reason, &message, out);
                }
            }
        }
        self.sync_devices(out);
    }

    pub(super) fn mend_reservations(&mut self, out: &mut Outbox<'_>) {
        let now = self.now();
        loop {
            let mut freed = false;
            for holder in self.book.reservations() {
                let usable = self
                    .book
                    .get(&holder)
                    .is_none_or(|entry| self.is_plan_usable(&entry.claim));
                let planned = if usable { None } else { Some(self.plan_apart(&holder)) };
                let Some(notes) = self.book.notes_mut(&holder) else {
                    continue;
                };
                match planned {
                    None => notes.unusable_since = None,
                    Some(Ok(grants)) => {
                        if let Some(entry) = self.book.remove(&holder) {
                            self.move_to(entry, grants, out);
                            self.sync_devices(out);
                        }
                    }
                    Some(Err(refusal)) => {
                        let since = *notes.unusable_since.get_or_insert(now);
                        if now >= since.saturating_add(self.config.drift_grace_ms) {
                            let message = format!("its device cannot be used and no other became free: {refusal}");
                            self.remove(&holder, removal::DEVICE_LOST, &message, out);
                            freed = true;
                        }
                    }
                }
            }
            self.sync_devices(out);
            if !freed {
                return;
            }
        }
    }

    /// What the holder would get if it had nothing. Changes nothing.
    pub(super) fn plan_apart(&mut self, holder: &Holder) -> Result<Vec<Grant>, Refusal> {
        let mut node = (*self.node).clone();
        let Some(entry) = self.book.remove(holder) else {
            return Ok(Vec::new());
        };
        for device in &mut node.devices {
            if entry.claim.grants.iter().any(|grant| grant.device == device.uuid) {
                *device = self.view(device.clone());
            }
        }
        let plan = fit::plan(&node, &entry.claim.shape);
        self.book.restore(entry);
        plan.map(|plan| plan.grants)
    }

    /// Puts back an entry that was taken out of the book, on other devices.
    fn move_to(&mut self, mut entry: Entry, grants: Vec<Grant>, out: &mut Outbox<'_>) {
        let claim = Claim {
            grants,
            ..(*entry.claim).clone()
        };
        out.persist(Record::Put(claim.clone()));
        out.change();
        entry.claim = Arc::new(claim);
        entry.notes.unusable_since = None;
        self.book.restore(entry);
    }

    fn is_plan_usable(&self, claim: &Claim) -> bool {
        claim.grants.iter().all(|grant| {
            self.node
                .device(&grant.device)
                .is_some_and(|device| is_usable(grant, device))
        })
    }

    pub(super) fn exceeds(&self, uuid: &DeviceUuid) -> bool {
        let held = self.book.tally().get(uuid);
        let device = self.node.device(uuid);
        held.zip(device)
            .is_some_and(|(held, device)| Held::exceeds(held, device))
    }

    fn holds_part_of(&self, holder: &Holder, uuid: &DeviceUuid) -> bool {
        self.book
            .get(holder)
            .is_some_and(|entry| entry.claim.grants.iter().any(|grant| grant.device == *uuid))
    }

    fn reason_to_make_way(&self, uuid: &DeviceUuid) -> &'static str {
        let by_kubelet = self.book.iter().any(|(holder, entry)| {
            let told = entry.is_allocated() || matches!(holder, Holder::Foreign(_));
            told && self.holds_part_of(holder, uuid)
        });
        if by_kubelet {
            removal::DISPLACED_BY_KUBELET
        } else {
            removal::DEVICE_LOST
        }
    }
}
