//! What must hold after every event, computed anew from the claims. Compiled always; called in debug builds and tests.

use berth_placement::{DeviceState, DeviceUuid, Grant, GrantSize, Room};
use thiserror::Error;

use super::{Ledger, journal::check_persisted};
use crate::{Claim, ClaimState, Holder, book::Entry, tally::Tally};

/// A promise of the ledger's that does not hold: a bug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("BUG: {rule}: {what}")]
pub struct Violation {
    /// The promise.
    pub rule: &'static str,
    /// Where it is broken.
    pub what: String,
}

fn holds(true_that: bool, rule: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if true_that {
        Ok(())
    } else {
        Err(Violation { rule, what: what() })
    }
}

impl Ledger {
    /// Checks every promise that can be seen from one state of the book. Costs a walk over all claims and devices.
    pub fn check_invariants(&self) -> Result<(), Violation> {
        let mut sums = Tally::default();
        for (holder, entry) in self.book.iter() {
            self.check_claim(holder, entry)?;
            for grant in &entry.claim.grants {
                sums.add(grant, entry.claim.is_stranger());
            }
        }
        holds(
            sums == *self.book.tally(),
            "the sums per device are those of the claims",
            || format!("{:?} instead of {sums:?}", self.book.tally()),
        )?;
        for device in &self.node.devices {
            holds(
                *device == self.view(device.clone()),
                "a device shows what is free of it",
                || format!("{device:?}"),
            )?;
            if self.is_reconciled() {
                self.check_capacity(device)?;
            }
        }
        for uuid in self.missing.keys() {
            let held = self.book.tally().get(uuid).is_some();
            holds(
                held && self.node.device(uuid).is_none(),
                "what is missing is held and absent",
                || uuid.to_string(),
            )?;
        }
        let generation = self.node.generation;
        holds(
            generation <= self.generation_limit,
            "generations are told only up to the limit on disk",
            || format!("{generation} of {}", self.generation_limit),
        )?;
        holds(
            self.timer.next_due <= self.earliest_due(),
            "nothing falls due unnoticed",
            || format!("{} is later than {}", self.timer.next_due, self.earliest_due()),
        )
    }

    fn check_claim(&self, holder: &Holder, entry: &Entry) -> Result<(), Violation> {
        let claim = &entry.claim;
        holds(claim.holder == *holder, "a claim is filed under its holder", || {
            holder.to_string()
        })?;
        match claim.state {
            ClaimState::Foreign { .. } => {
                let foreign = matches!(holder, Holder::Foreign(_)) && !claim.grants.is_empty();
                holds(foreign, "a foreign claim is a foreign pod's", || holder.to_string())?;
            }
            _ => check_persisted(claim).or_else(|rule| holds(false, rule, || holder.to_string()))?,
        }
        let Some(now) = self.timer.now else { return Ok(()) };
        if let ClaimState::Reserved { deadline_unix_ms } = claim.state {
            let latest = now.saturating_add(self.config.max_ttl_ms);
            holds(
                deadline_unix_ms <= latest,
                "no reservation outlives the longest life",
                || holder.to_string(),
            )?;
            holds(
                !self.is_reconciled() || self.silent_until().is_none_or(|until| deadline_unix_ms > until),
                "what is due has lapsed",
                || holder.to_string(),
            )?;
        } else {
            holds(
                entry.notes.unusable_since.is_none(),
                "only reservations wait for room",
                || holder.to_string(),
            )?;
        }
        let notes = [
            Some(entry.notes.made),
            entry.notes.absent_since,
            entry.notes.unusable_since,
        ];
        holds(
            notes.into_iter().flatten().all(|since| since <= now),
            "nothing began in the future",
            || holder.to_string(),
        )
    }

    /// Per device the sum of claims is within its capacity. Only what the kubelet gave and what runs may exceed it: then
    /// no reservation is planned there. What is free and what is held together are never more than the device.
    ///
    /// The sums are computed the long way, apart from the tally's own arithmetic.
    fn check_capacity(&self, device: &DeviceState) -> Result<(), Violation> {
        let claims = self.book.iter().map(|(_, entry)| &*entry.claim);
        let parts = claims.flat_map(|claim| claim.grants.iter().map(move |grant| (claim, grant)));
        let here: Vec<Part<'_>> = parts.filter(|(_, grant)| grant.device == device.uuid).collect();
        for part in &here {
            let reserved = matches!(part.0.state, ClaimState::Reserved { .. });
            holds(
                !reserved || fits(device, part, &here),
                "no reservation is planned on more than there is",
                || format!("{} on {}", part.0.holder, part.1),
            )?;
        }
        let rest_is_free = match &device.mig {
            Some(slots) => slots.iter().filter(|slot| slot.free).all(|slot| {
                here.iter()
                    .all(|(_, grant)| instance(grant).is_some_and(|held| *held != slot.uuid))
            }),
            None => device.free == Room::default() || is_within(device, &here, device.free),
        };
        holds(rest_is_free, "what is held is not free", || device.uuid.to_string())
    }
}

/// A part of a device, with its holder.
type Part<'a> = (&'a Claim, &'a Grant);

/// Whether a reservation's part goes together with all the others of its device.
fn fits(device: &DeviceState, part: &Part<'_>, all: &[Part<'_>]) -> bool {
    match instance(part.1) {
        Some(uuid) => {
            all.iter()
                .filter(|(_, grant)| instance(grant).is_none_or(|other| other == uuid))
                .count()
                == 1
        }
        None => is_within(device, all, Room::default()),
    }
}

/// Whether all parts of the GPU and this one are no more than the GPU: never, where one is of unknown size or an instance.
fn is_within(device: &DeviceState, parts: &[Part<'_>], and: Room) -> bool {
    let known = parts
        .iter()
        .all(|(claim, grant)| !claim.is_stranger() && instance(grant).is_none());
    let rooms = || parts.iter().map(|(_, grant)| grant.room(device.memory)).chain([and]);
    let milli: u64 = rooms().map(|room| u64::from(room.milli.get())).sum();
    let memory: u128 = rooms().map(|room| u128::from(room.memory.get())).sum();
    known && milli <= 1000 && memory <= u128::from(device.memory.get())
}

fn instance(grant: &Grant) -> Option<&DeviceUuid> {
    match &grant.size {
        GrantSize::Mig { instance, .. } => Some(instance),
        GrantSize::Whole | GrantSize::Share(_) => None,
    }
}
