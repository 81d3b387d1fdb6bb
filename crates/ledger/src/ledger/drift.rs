//! Where the sources disagree: processes that nobody assigned, and drift, which is any disagreement that lasts.
//!
//! Findings are drawn anew from the book each time; only since when, and whether it was told, is remembered.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
};

use berth_placement::{DeviceState, DeviceUuid, Health};

use super::Ledger;
use crate::{
    Claim, Drift, DriftReason, Effect, GpuProcess, Holder, LedgerConfig, OutOfBandUse, book::Entry, outbox::Outbox,
    tally::exists,
};

type Key = (DriftReason, Option<Holder>, Option<DeviceUuid>);

/// What of one disagreement is remembered.
#[derive(Debug, Clone)]
struct Open {
    since: u64,
    /// As it was told, where it has lasted long enough.
    told: Option<Drift>,
}

#[derive(Debug, Default)]
pub(super) struct DriftBook {
    open: BTreeMap<Key, Open>,
    told: Arc<[Drift]>,
}

struct Finding {
    message: String,
    /// Where it began earlier than this look at it.
    since: Option<u64>,
}

impl DriftBook {
    pub(super) fn told(&self) -> Arc<[Drift]> {
        Arc::clone(&self.told)
    }

    /// Whether something disagrees about this holder or its devices, even for a short time.
    pub(super) fn concerns(&self, claim: &Claim) -> bool {
        self.open.keys().any(|(_, holder, device)| {
            let of_holder = holder.as_ref() == Some(&claim.holder);
            of_holder || claim.grants.iter().any(|grant| Some(&grant.device) == device.as_ref())
        })
    }

    pub(super) fn set_clock(&mut self, now: u64) {
        for open in self.open.values_mut() {
            open.since = open.since.min(now);
        }
    }

    pub(super) fn earliest_due(&self, config: &LedgerConfig) -> u64 {
        let untold = self.open.iter().filter(|(_, open)| open.told.is_none());
        untold
            .map(|((reason, ..), open)| open.since.saturating_add(grace_ms(*reason, config)))
            .min()
            .unwrap_or(u64::MAX)
    }

    fn update(&mut self, found: BTreeMap<Key, Finding>, now: u64, config: &LedgerConfig, out: &mut Outbox<'_>) {
        let mut news = false;
        self.open.retain(|key, open| {
            let lasts = found.contains_key(key);
            if let Some(drift) = open.told.take_if(|_| !lasts) {
                out.notice(Effect::DriftEnded(drift));
                news = true;
            }
            lasts
        });
        for (key, finding) in found {
            let open = match self.open.entry(key.clone()) {
                btree_map::Entry::Occupied(slot) => slot.into_mut(),
                btree_map::Entry::Vacant(slot) => slot.insert(Open {
                    since: finding.since.unwrap_or(now),
                    told: None,
                }),
            };
            if open.told.is_none() && now >= open.since.saturating_add(grace_ms(key.0, config)) {
                let (reason, holder, device) = key;
                let drift = Drift {
                    reason,
                    holder,
                    device,
                    message: finding.message,
                    since_unix_ms: open.since,
                };
                open.told = Some(drift.clone());
                out.notice(Effect::DriftBegan(drift));
                news = true;
            }
        }
        if news {
            self.told = self.open.values().filter_map(|open| open.told.clone()).collect();
            out.change();
        }
    }
}

/// How long a disagreement may last before it is drift. An allocation ends after the kubelet's grace; what is absent for
/// half of it is told, so that a kubelet that stopped answering in between does not hide it.
const fn grace_ms(reason: DriftReason, config: &LedgerConfig) -> u64 {
    match reason {
        DriftReason::AllocationWithoutKubelet => config.kubelet_grace_ms / 2,
        DriftReason::ProcessWithoutAllocation
        | DriftReason::DeviceMissing
        | DriftReason::OverCommitted
        | DriftReason::AssignedUnusable => config.drift_grace_ms,
    }
}

type ProcessKey<'a> = (&'a DeviceUuid, Option<&'a DeviceUuid>, u32);

fn process_key(process: &GpuProcess) -> ProcessKey<'_> {
    (&process.device, process.mig_instance.as_ref(), process.pid)
}

impl Ledger {
    pub(super) fn observe_processes(&mut self, mut processes: Vec<GpuProcess>) {
        processes.sort_by(|a, b| process_key(a).cmp(&process_key(b)));
        processes.dedup_by(|b, a| process_key(a) == process_key(b));
        self.processes = processes;
    }

    /// Whether processes run that this claim covers: on its devices, or its pod's elsewhere.
    pub(super) fn has_processes(&self, claim: &Claim) -> bool {
        let uid = claim.pod.as_ref().map(|pod| &pod.uid);
        let on_its_devices = |process: &GpuProcess| claim.grants.iter().any(|grant| grant.device == process.device);
        self.processes
            .iter()
            .any(|process| on_its_devices(process) || (uid.is_some() && process.pod_uid.as_ref() == uid))
    }

    /// Whether a holder that is new covers processes that ran out of band.
    pub(super) fn covers_strangers(&self, claim: &Claim) -> bool {
        let uid = claim.pod.as_ref().map(|pod| &pod.uid);
        self.out_of_band.iter().any(|found| {
            let of_pod = uid.is_some() && found.pod_uid.as_ref() == uid;
            of_pod || claim.grants.iter().any(|grant| grant.device == found.device)
        })
    }

    /// Finds the processes that nobody assigned. At once, not after a grace: what a stranger uses is not free.
    pub(super) fn review_processes(&mut self, out: &mut Outbox<'_>) {
        if self.processes.is_empty() && self.out_of_band.is_empty() {
            return;
        }
        let uncovered = self.processes.iter().filter(|process| !self.is_covered(process));
        let found: Vec<_> = uncovered.map(|process| self.out_of_band_use(process)).collect();
        if *found == *self.out_of_band {
            return;
        }
        let before = std::mem::replace(&mut self.out_of_band, found.into());
        out.change();
        let now = Arc::clone(&self.out_of_band);
        let devices: BTreeSet<_> = before.iter().chain(now.iter()).map(|found| &found.device).collect();
        for device in devices {
            self.refresh(device, out);
        }
    }

    /// A claim covers every process on its device. A reservation also covers its pod's processes elsewhere: the kubelet may
    /// have picked other devices, and its next list will tell.
    fn is_covered(&self, process: &GpuProcess) -> bool {
        let held = self.book.tally().get(&process.device);
        let by_device = held.is_some_and(|held| match &process.mig_instance {
            Some(instance) => held.covers_instance(instance),
            None => true,
        });
        let of_reservation = || {
            let holder = process.pod_uid.clone().map(Holder::Pod);
            holder
                .and_then(|holder| self.book.get(&holder))
                .is_some_and(Entry::is_reserved)
        };
        by_device || of_reservation()
    }

    fn out_of_band_use(&self, process: &GpuProcess) -> OutOfBandUse {
        let known = self
            .out_of_band
            .iter()
            .find(|found| process_key(process) == (&found.device, found.mig_instance.as_ref(), found.pid));
        OutOfBandUse {
            device: process.device.clone(),
            mig_instance: process.mig_instance.clone(),
            pid: process.pid,
            used_memory_bytes: process.used_memory_bytes,
            pod_uid: process.pod_uid.clone(),
            since_unix_ms: known.map_or_else(|| self.now(), |found| found.since_unix_ms),
        }
    }

    pub(super) fn review_drift(&mut self, out: &mut Outbox<'_>) {
        let mut found = BTreeMap::new();
        for (holder, entry) in self.book.iter() {
            self.find_in_claim(holder, entry, &mut found);
        }
        let exceeded = |device: &&DeviceState| {
            self.book
                .tally()
                .get(&device.uuid)
                .is_some_and(|held| held.exceeds(device))
        };
        for device in self.node.devices.iter().filter(exceeded) {
            let key = (DriftReason::OverCommitted, None, Some(device.uuid.clone()));
            let message = format!("more of {} is held than it has", device.uuid);
            found.insert(key, Finding { message, since: None });
        }
        for stranger in self.out_of_band.iter() {
            let key = (
                DriftReason::ProcessWithoutAllocation,
                None,
                Some(stranger.device.clone()),
            );
            found.entry(key).or_insert_with(|| Finding {
                message: format!(
                    "process {} runs on {}, and nobody assigned that",
                    stranger.pid, stranger.device
                ),
                since: None,
            });
        }
        let now = self.now();
        self.drift.update(found, now, &self.config, out);
    }

    /// Of a reservation nothing is drift: its plan is mended.
    fn find_in_claim(&self, holder: &Holder, entry: &Entry, found: &mut BTreeMap<Key, Finding>) {
        if entry.is_reserved() {
            return;
        }
        if let (true, Some(since)) = (entry.is_allocated(), entry.notes.absent_since) {
            let key = (DriftReason::AllocationWithoutKubelet, Some(holder.clone()), None);
            let message = format!("{holder} is allocated here, and the kubelet no longer tells of it");
            found.insert(
                key,
                Finding {
                    message,
                    since: Some(since),
                },
            );
        }
        for grant in &entry.claim.grants {
            let uuid = &grant.device;
            let leased = matches!(holder, Holder::Lease(_));
            let (reason, what) = match self.node.device(uuid) {
                None if uuid.is_mig() => (DriftReason::AssignedUnusable, "no GPU here has that MIG instance"),
                None => (DriftReason::DeviceMissing, "the driver does not find it"),
                Some(device) if !exists(grant, device) => (
                    DriftReason::AssignedUnusable,
                    "its MIG mode or its instances are others now",
                ),
                Some(device) if device.health == Health::Unhealthy && !leased => {
                    (DriftReason::AssignedUnusable, "it is Unhealthy")
                }
                Some(_) => continue,
            };
            let message = format!("{holder} holds {grant}: {what}");
            let key = (reason, Some(holder.clone()), Some(uuid.clone()));
            found.entry(key).or_insert(Finding { message, since: None });
        }
    }
}
