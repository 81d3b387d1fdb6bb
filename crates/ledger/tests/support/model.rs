//! What is known of a node without the ledger: the last of each source, and the book as the records tell it. Naive on
//! purpose: everything is computed from scratch.

use std::collections::{BTreeMap, BTreeSet};

use berth_ledger::{Assignment, Claim, ClaimState, Drift, Effect, Event, GpuProcess, Holder, Record, Snapshot};
use berth_placement::{DeviceState, DeviceUuid, GpuShape, Grant, GrantSize, MilliGpu, ShareSize};

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) devices: BTreeMap<DeviceUuid, DeviceState>,
    pub(crate) cordons: BTreeSet<DeviceUuid>,
    pub(crate) list: Vec<Assignment>,
    pub(crate) processes: Vec<GpuProcess>,
    pub(crate) devices_heard: bool,
    pub(crate) kubelet_heard: bool,
    /// By the records: no foreign ones.
    pub(crate) claims: BTreeMap<Holder, Claim>,
    /// Begun and not ended.
    pub(crate) drifts: Vec<Drift>,
    /// When a list last told just this.
    pub(crate) last_told: BTreeMap<Holder, u64>,
    /// The largest generation that clients may have seen.
    pub(crate) told_generation: u64,
    /// Below which generations may be told.
    pub(crate) generation_limit: u64,
}

impl Model {
    pub(crate) fn is_reconciled(&self) -> bool {
        self.devices_heard && self.kubelet_heard
    }

    /// What an event says of the world, before the ledger is asked.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event {
            Event::Devices(devices) => {
                self.devices_heard = true;
                self.devices.clear();
                for device in devices {
                    self.devices
                        .entry(device.uuid.clone())
                        .or_insert_with(|| device.clone());
                }
            }
            Event::Kubelet(list) => {
                self.kubelet_heard = true;
                self.list.clone_from(list);
            }
            Event::NoKubelet => {
                self.kubelet_heard = true;
                self.list.clear();
            }
            Event::Processes(processes) => self.processes.clone_from(processes),
            _ => {}
        }
    }

    pub(crate) fn write(&mut self, record: &Record) {
        match record {
            Record::Put(claim) => drop(self.claims.insert(claim.holder.clone(), claim.clone())),
            Record::Removed { holder, .. } => drop(self.claims.remove(holder)),
            Record::Schedulable {
                device, schedulable, ..
            } => {
                if *schedulable {
                    self.cordons.remove(device);
                } else {
                    self.cordons.insert(device.clone());
                }
            }
            Record::Generation(limit) => self.generation_limit = *limit,
        }
    }

    pub(crate) fn tell(&mut self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::DriftBegan(drift) => {
                let same = |known: &&Drift| {
                    (known.reason, &known.holder, &known.device) == (drift.reason, &drift.holder, &drift.device)
                };
                if self.drifts.iter().any(|known| same(&known)) {
                    return Err(format!("began twice: {drift:?}"));
                }
                self.drifts.push(drift.clone());
            }
            Effect::DriftEnded(drift) => {
                let at = self.drifts.iter().position(|known| known == drift);
                self.drifts
                    .remove(at.ok_or_else(|| format!("ended and never began: {drift:?}"))?);
            }
            _ => {}
        }
        Ok(())
    }

    /// The process dies; these records are left.
    pub(crate) fn crash(&mut self, journal: &[Record]) {
        let told_generation = self.told_generation;
        *self = Self {
            told_generation,
            ..Self::default()
        };
        journal.iter().for_each(|record| self.write(record));
    }
}

/// Everything of this device that is held, by whom.
pub(crate) fn held<'a>(book: &'a Snapshot, uuid: &'a DeviceUuid) -> impl Iterator<Item = (&'a Claim, &'a Grant)> {
    let grants = book
        .claims
        .iter()
        .flat_map(|claim| claim.grants.iter().map(move |grant| (&**claim, grant)));
    grants.filter(move |(_, grant)| grant.device == *uuid)
}

/// What the kubelet would call it.
pub(crate) fn target(grant: &Grant) -> &DeviceUuid {
    match &grant.size {
        GrantSize::Mig { instance, .. } => instance,
        _ => &grant.device,
    }
}

pub(crate) fn targets(claim: &Claim) -> BTreeSet<&DeviceUuid> {
    claim.grants.iter().map(target).collect()
}

pub(crate) fn is_stranger(claim: &Claim) -> bool {
    matches!(
        &claim.shape.gpu,
        GpuShape::Share {
            size: ShareSize::Milli(MilliGpu::ZERO),
            ..
        }
    )
}

pub(crate) fn is_reserved(claim: &Claim) -> bool {
    matches!(claim.state, ClaimState::Reserved { .. })
}

/// `namespace/name` of a pod's or a foreign pod's claim.
pub(crate) fn name(claim: &Claim) -> Option<String> {
    match (&claim.holder, &claim.pod) {
        (Holder::Foreign(name), _) => Some(name.clone()),
        (_, Some(pod)) => Some(pod.to_string()),
        (_, None) => None,
    }
}

/// Thousandths and bytes that are free of a device without MIG, and whether the claims there go together at all.
pub(crate) fn naive_free(book: &Snapshot, device: &DeviceState) -> ((u64, u64), bool) {
    let all: Vec<_> = held(book, &device.uuid).collect();
    let wholes = all.iter().filter(|(_, grant)| grant.size == GrantSize::Whole).count();
    let strangers = all
        .iter()
        .filter(|(claim, grant)| is_stranger(claim) && matches!(grant.size, GrantSize::Share(_)))
        .count();
    let shares: Vec<_> = all
        .iter()
        .filter_map(|(claim, grant)| match &grant.size {
            GrantSize::Share(room) if !is_stranger(claim) => Some(*room),
            _ => None,
        })
        .collect();
    let instances: Vec<_> = all
        .iter()
        .filter(|(_, grant)| matches!(grant.size, GrantSize::Mig { .. }))
        .collect();
    let milli: u64 = shares.iter().map(|room| u64::from(room.milli.get())).sum();
    let memory: u64 = shares.iter().map(|room| room.memory.get()).sum();
    let kinds = [wholes, shares.len(), strangers, instances.len()]
        .iter()
        .filter(|count| **count > 0)
        .count();
    let twice = instances.iter().enumerate().any(|(at, (claim, grant))| {
        let same = |(other, twin): &&&(&Claim, &Grant)| {
            target(twin) == target(grant) && !(is_stranger(claim) && is_stranger(other))
        };
        instances[..at].iter().any(|earlier| same(&earlier))
    });
    let fits = kinds <= 1 && wholes <= 1 && !twice && milli <= 1000 && memory <= device.memory.get();
    let free = if !fits || wholes + strangers + instances.len() > 0 {
        (0, 0)
    } else {
        (1000 - milli, device.memory.get() - memory)
    };
    (free, fits)
}
