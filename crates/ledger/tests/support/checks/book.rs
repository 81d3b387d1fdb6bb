//! What must be so after every event: devices, processes, drift, and who waits.

use std::collections::BTreeSet;

use berth_ledger::{ClaimState, DriftReason, Holder};
use berth_placement::GrantSize;

use super::{
    super::model::{Model, held, is_reserved, is_well, naive_fits, naive_free, target},
    Checked, Turn, check,
};

impl Turn<'_> {
    /// What is told as drift is still so.
    pub(super) fn check_drift(&self) -> Checked {
        for drift in self.after.drifts.iter() {
            let claim = drift.holder.as_ref().and_then(|holder| self.after.claim(holder));
            let device = drift.device.as_ref();
            let has_it = claim.is_some_and(|claim| claim.grants.iter().any(|grant| Some(&grant.device) == device));
            let present = device.and_then(|uuid| self.after.node.device(uuid));
            let so = match drift.reason {
                DriftReason::AllocationWithoutKubelet => {
                    claim.is_some_and(|claim| matches!(claim.state, ClaimState::Allocated { .. }))
                }
                DriftReason::ProcessWithoutAllocation => {
                    self.after.out_of_band.iter().any(|found| Some(&found.device) == device)
                }
                DriftReason::DeviceMissing => has_it && present.is_none(),
                DriftReason::AssignedUnusable => has_it,
                DriftReason::OverCommitted => present.is_some_and(|device| {
                    held(self.after, &device.uuid).any(|(_, grant)| !naive_fits(self.after, device, grant))
                }),
            };
            check(so, || format!("no longer so: {drift:?}"))?;
        }
        Ok(())
    }

    /// Per device: no more than there is, and what is free is the rest.
    pub(super) fn check_devices(&self, model: &Model) -> Checked {
        let now = self.after;
        check(
            now.node
                .devices
                .iter()
                .map(|device| &device.uuid)
                .collect::<BTreeSet<_>>()
                == model.devices.keys().collect(),
            || "other devices than the driver's".to_owned(),
        )?;
        check(now.reconciled == model.is_reconciled(), || "reconciled?".to_owned())?;
        for grant in now.claims.iter().flat_map(|claim| &claim.grants) {
            let known = model.devices.values().flat_map(|device| device.mig.iter().flatten());
            let of_gpu = !grant.device.is_mig() || known.into_iter().all(|slot| slot.uuid != grant.device);
            check(of_gpu, || format!("the GPU of {grant} is known"))?;
        }
        for device in &now.node.devices {
            let facts = &model.devices[&device.uuid];
            check((device.health, device.memory) == (facts.health, facts.memory), || {
                format!("stale: {device:?}")
            })?;
            check(device.schedulable != model.cordons.contains(&device.uuid), || {
                format!("cordoned? {device:?}")
            })?;
            let free = naive_free(now, device);
            for (claim, grant) in held(now, &device.uuid).filter(|(claim, _)| now.reconciled && is_reserved(claim)) {
                check(naive_fits(now, device, grant), || {
                    format!("{claim:?} is planned on the full {device:?}")
                })?;
            }
            let told = (u64::from(device.free.milli.get()), device.free.memory.get());
            check(told == if device.mig.is_some() { (0, 0) } else { free }, || {
                format!("{told:?} is told free, {free:?} is")
            })?;
            let on = |uuid| {
                now.out_of_band
                    .iter()
                    .any(|found| found.device == device.uuid && found.mig_instance == uuid)
            };
            let slots = || device.mig.iter().flatten();
            for slot in slots() {
                let whole = |size: &GrantSize| !matches!(size, GrantSize::Mig { .. });
                let taken = held(now, &device.uuid).any(|(_, grant)| whole(&grant.size) || target(grant) == &slot.uuid)
                    || (self.config.count_out_of_band && on(Some(slot.uuid.clone())));
                check(slot.free != taken, || format!("{slot:?}: taken is {taken}"))?;
            }
            let in_a_slot = |uuid: &Option<_>| slots().any(|slot| Some(&slot.uuid) == uuid.as_ref());
            let strange = now
                .out_of_band
                .iter()
                .any(|found| found.device == device.uuid && !in_a_slot(&found.mig_instance));
            check(device.out_of_band == (strange && self.config.count_out_of_band), || {
                format!("stranger? {device:?}")
            })?;
        }
        Ok(())
    }

    /// Every process is somebody's or is told as nobody's.
    pub(super) fn check_processes(&self, model: &Model) -> Checked {
        let mut expected = BTreeSet::new();
        for process in model.processes.iter().filter(|_| model.is_reconciled()) {
            let holder =
                held(self.after, &process.device).any(|(_, grant)| match (&process.mig_instance, &grant.size) {
                    (Some(instance), GrantSize::Mig { instance: other, .. }) => instance == other,
                    _ => true,
                });
            let of_pod = process
                .pod_uid
                .clone()
                .and_then(|uid| self.after.claim(&Holder::Pod(uid)));
            if !holder && !of_pod.is_some_and(|claim| is_reserved(claim)) {
                expected.insert((&process.device, process.mig_instance.as_ref(), process.pid));
            }
        }
        let told = self
            .after
            .out_of_band
            .iter()
            .map(|found| (&found.device, found.mig_instance.as_ref(), found.pid));
        check(told.eq(expected.iter().copied()), || {
            format!("out of band {:?}, expected {expected:?}", self.after.out_of_band)
        })
    }

    /// A reservation rests on a device that cannot be used only as long as nothing else is free.
    pub(super) fn check_waiting(&self) -> Checked {
        for claim in self
            .after
            .claims
            .iter()
            .filter(|claim| self.after.reconciled && is_reserved(claim))
        {
            let usable = claim.grants.iter().all(|grant| {
                self.after
                    .node
                    .device(&grant.device)
                    .is_some_and(|device| is_well(grant, device))
            });
            check(usable || (self.plan)(&claim.shape).is_err(), || {
                format!("{claim:?} waits, and there is room")
            })?;
        }
        Ok(())
    }
}
