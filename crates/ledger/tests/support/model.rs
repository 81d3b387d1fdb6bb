//! What is known of a node without the ledger: the last of each source, and the book as the records tell it. Naive on
//! purpose: everything is computed from scratch.

use std::collections::{BTreeMap, BTreeSet};

use berth_ledger::{Assignment, Claim, ClaimState, Drift, Effect, Event, GpuProcess, Holder, Record, Snapshot};
use berth_placement::{ComputeMode, DeviceState, DeviceUuid, GpuShape, Grant, GrantSize, Health, MilliGpu, ShareSize};

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
    /// Names of pods that were released.
    pub(crate) released: BTreeSet<String>,
    /// When the last list came.
    pub(crate) last_list: Option<u64>,
    /// When lists came: the earliest since the last gap longer than the grace, and the last. `None`: there is no kubelet.
    pub(crate) heard: Option<(u64, u64)>,
    /// The largest generation that clients may have seen.
    pub(crate) told_generation: u64,
    /// Below which generations may be told.
    pub(crate) generation_limit: u64,
}

impl Model {
    pub(crate) fn is_reconciled(&self) -> bool {
        self.devices_heard && self.kubelet_heard
    }

    /// A list came, or word that there is no kubelet.
    pub(crate) fn hear(&mut self, event: &Event, now: u64, grace: u64) {
        self.heard = match (event, self.heard) {
            (Event::Kubelet(_), Some((since, at))) if now - at <= grace => Some((since, now)),
            (Event::Kubelet(_), _) => Some((now, now)),
            (Event::NoKubelet, _) => None,
            (_, heard) => heard,
        };
    }

    /// No deadline after this may lapse.
    pub(crate) fn silent_until(&self, now: u64, grace: u64) -> Option<u64> {
        match self.heard {
            _ if !self.is_reconciled() => None,
            None => Some(now),
            Some((since, at)) => (at - since >= grace).then_some(at),
        }
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
            Event::Release { holder } => {
                let name = self.claims.get(holder).and_then(name);
                self.released.extend(name);
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
        for record in journal {
            self.write(record);
        }
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

/// Whether a plan may rest on it: the device is well, and is what was granted.
pub(crate) fn is_well(grant: &Grant, device: &DeviceState) -> bool {
    let mode = device.compute_mode;
    let as_granted = match (&grant.size, &device.mig) {
        (GrantSize::Mig { instance, .. }, Some(slots)) => slots.iter().any(|slot| slot.uuid == *instance),
        (GrantSize::Mig { .. }, None) | (_, Some(_)) => false,
        (GrantSize::Share(_), None) => mode == ComputeMode::Default,
        (GrantSize::Whole, None) => true,
    };
    as_granted && mode != ComputeMode::Prohibited && matches!(device.health, Health::Healthy | Health::Suspect)
}

/// Whether the entry tells just the claim's devices under the claim's name.
pub(crate) fn tells(told: &Assignment, claim: &Claim) -> bool {
    name(claim) == Some(format!("{}/{}", told.namespace, told.name))
        && targets(claim) == told.devices.iter().collect::<BTreeSet<_>>()
}

/// `namespace/name` of a pod's or a foreign pod's claim.
pub(crate) fn name(claim: &Claim) -> Option<String> {
    match (&claim.holder, &claim.pod) {
        (Holder::Foreign(name), _) => Some(name.clone()),
        (_, Some(pod)) => Some(pod.to_string()),
        (_, None) => None,
    }
}

/// Thousandths and bytes that are free of a device without MIG.
pub(crate) fn naive_free(book: &Snapshot, device: &DeviceState) -> (u64, u64) {
    let (mut milli, mut memory) = (1000_u64, device.memory.get());
    for (claim, grant) in held(book, &device.uuid) {
        let left = match &grant.size {
            GrantSize::Share(room) if !is_stranger(claim) => {
                let milli = milli.checked_sub(u64::from(room.milli.get()));
                milli.zip(memory.checked_sub(room.memory.get()))
            }
            _ => None,
        };
        let Some(left) = left else { return (0, 0) };
        (milli, memory) = left;
    }
    (milli, memory)
}

/// Whether what a reservation holds of the device leaves everybody else there what they hold.
pub(crate) fn naive_fits(book: &Snapshot, device: &DeviceState, planned: &Grant) -> bool {
    let all = || held(book, &device.uuid);
    match &planned.size {
        GrantSize::Whole => all().count() == 1,
        GrantSize::Mig { .. } => {
            let in_the_way =
                |grant: &Grant| !matches!(grant.size, GrantSize::Mig { .. }) || target(grant) == target(planned);
            all().filter(|(_, grant)| in_the_way(grant)).count() == 1
        }
        GrantSize::Share(_) => {
            let sizes = || {
                all().map(|(claim, grant)| match &grant.size {
                    GrantSize::Share(room) if !is_stranger(claim) => {
                        Some((u64::from(room.milli.get()), room.memory.get()))
                    }
                    _ => None,
                })
            };
            let sum = |of: fn((u64, u64)) -> u64| sizes().flatten().map(of).sum::<u64>();
            sizes().all(|size| size.is_some())
                && sum(|size| size.0) <= 1000
                && sum(|size| size.1) <= device.memory.get()
        }
    }
}
