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
use crate::{Claim, Holder, Record, book::Entry, outbox::Outbox, tally::is_usable};

impl Ledger {
    pub(super) fn displace_reservations(&mut self, out: &mut Outbox<'_>) {
        let mut displaced = Vec::new();
        for holder in self.book.reservations().iter().rev() {
            let Some(uuid) = self.contested_device(holder) else {
                continue;
            };
            let reason = self.reason_to_make_way(&uuid);
            displaced.extend(self.book.remove(holder).map(|entry| (entry, reason)));
        }
        displaced.sort_by_key(|(entry, _)| entry.order);
        for (entry, reason) in displaced {
            self.sync_devices(out);
            match fit::plan(&self.node, &entry.claim.shape) {
                Ok(plan) => self.move_to(entry, plan.grants, out),
                Err(refusal) => {
                    let message = format!("its devices went to another pod and no others are free: {refusal}");
                    out.tell_removal(&entry.claim, reason, &message);
                }
            }
        }
        self.sync_devices(out);
    }

    /// From the oldest on; anew after each that made room, since that may be room for one that was passed over. Ends:
    /// whoever moved rests on devices that can be used.
    pub(super) fn mend_reservations(&mut self, out: &mut Outbox<'_>) {
        while self.book.reservations().iter().any(|holder| self.mend(holder, out)) {}
    }

    /// Whether it made room.
    fn mend(&mut self, holder: &Holder, out: &mut Outbox<'_>) -> bool {
        let usable = self
            .book
            .get(holder)
            .is_none_or(|entry| self.is_plan_usable(&entry.claim));
        let planned = if usable { None } else { Some(self.plan_apart(holder)) };
        let now = self.now();
        let Some(notes) = self.book.notes_mut(holder) else {
            return false;
        };
        match planned {
            None => {
                notes.unusable_since = None;
                false
            }
            Some(Ok(grants)) => {
                if let Some(entry) = self.book.remove(holder) {
                    self.move_to(entry, grants, out);
                }
                self.sync_devices(out);
                true
            }
            Some(Err(refusal)) => {
                let since = *notes.unusable_since.get_or_insert(now);
                let is_over = now >= since.saturating_add(self.config.drift_grace_ms);
                if is_over {
                    let message = format!("its device cannot be used and no other became free: {refusal}");
                    self.remove(holder, removal::DEVICE_LOST, &message, out);
                }
                self.sync_devices(out);
                is_over
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

    /// A device of the holder's of which more is held than there is, at the holder's own part of it.
    fn contested_device(&self, holder: &Holder) -> Option<DeviceUuid> {
        let grants = &self.book.get(holder)?.claim.grants;
        let contested = grants.iter().find(|grant| {
            let held = self.book.tally().get(&grant.device);
            let device = self.node.device(&grant.device);
            held.zip(device)
                .is_some_and(|(held, device)| held.contests(grant, device))
        });
        contested.map(|grant| grant.device.clone())
    }

    fn reason_to_make_way(&self, uuid: &DeviceUuid) -> &'static str {
        let by_kubelet = self.book.iter().any(|(holder, entry)| {
            let told = entry.is_allocated() || matches!(holder, Holder::Foreign(_));
            told && entry.claim.grants.iter().any(|grant| grant.device == *uuid)
        });
        if by_kubelet {
            removal::DISPLACED_BY_KUBELET
        } else {
            removal::DEVICE_LOST
        }
    }
}
