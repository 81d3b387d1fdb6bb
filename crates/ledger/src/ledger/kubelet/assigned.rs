//! What the kubelet's entries mean in grants.

use berth_placement::{DeviceUuid, GpuShape, Grant, GrantSize, Room, Shape, ShareSize};

use crate::{Assignment, Claim, Holder, ledger::Ledger, outbox::Outbox};

impl Ledger {
    /// What an entry of the kubelet's means for a claim, or for a foreign pod. What the claim holds already it keeps as it is.
    pub(super) fn grants_of(&self, assignment: &Assignment, claim: Option<&Claim>) -> Vec<Grant> {
        let share = claim.and_then(|claim| match &claim.shape.gpu {
            GpuShape::Share { size, count } if !claim.is_stranger() => Some((*size, *count)),
            _ => None,
        });
        let mut devices = assignment.devices.clone();
        // Replicas of one GPU are one share of it, unless just as many shares were asked for.
        if share.is_none_or(|(_, count)| devices.len() != count as usize) {
            devices.dedup();
        }
        let foreign = claim.is_none_or(|claim| matches!(claim.holder, Holder::Foreign(_)));
        let held = |uuid: &DeviceUuid| claim?.grants.iter().find(|grant| target(grant) == uuid).cloned();
        let size = |uuid: &DeviceUuid| match share {
            Some((size, _)) => self.share_of(uuid, size, claim),
            None if assignment.shared && foreign => GrantSize::Share(Room::default()),
            None => GrantSize::Whole,
        };
        let grant = |uuid: DeviceUuid| {
            if uuid.is_mig() {
                // One that the driver does not tell stands for itself, held whole.
                return self.instance(&uuid).or_else(|| held(&uuid)).unwrap_or(Grant {
                    device: uuid,
                    size: GrantSize::Whole,
                });
            }
            match held(&uuid) {
                Some(kept) if share.is_some() && matches!(kept.size, GrantSize::Share(_)) => kept,
                _ => Grant {
                    size: size(&uuid),
                    device: uuid,
                },
            }
        };
        devices.into_iter().map(grant).collect()
    }

    /// A share's size on this device; while the driver does not tell the device, the size that was planned elsewhere.
    fn share_of(&self, uuid: &DeviceUuid, size: ShareSize, claim: Option<&Claim>) -> GrantSize {
        if let Some(device) = self.node.device(uuid) {
            let (milli, memory) = size.on(device.memory);
            return GrantSize::Share(Room { milli, memory });
        }
        let mut planned = claim
            .into_iter()
            .flat_map(|claim| &claim.grants)
            .map(|grant| &grant.size);
        planned
            .find(|size| matches!(size, GrantSize::Share(_)))
            .cloned()
            .unwrap_or(GrantSize::Whole)
    }

    /// The kubelet told MIG instances of GPUs that the driver had yet to find: puts them on their GPUs, once it has.
    pub(in crate::ledger) fn resolve_instances(&mut self, out: &mut Outbox<'_>) {
        let mut resolved = Vec::new();
        for (_, entry) in self.book.iter() {
            let of_gpu = |grant: &Grant| {
                if grant.device.is_mig() {
                    self.instance(&grant.device)
                } else {
                    None
                }
            };
            if entry.claim.grants.iter().any(|grant| of_gpu(grant).is_some()) {
                let grants = entry
                    .claim
                    .grants
                    .iter()
                    .map(|grant| of_gpu(grant).unwrap_or_else(|| grant.clone()));
                resolved.push(Claim {
                    grants: grants.collect(),
                    ..(*entry.claim).clone()
                });
            }
        }
        for claim in resolved {
            self.put(claim, out);
        }
    }

    /// The MIG instance with its GPU, where the driver tells it.
    fn instance(&self, uuid: &DeviceUuid) -> Option<Grant> {
        let missing = self.missing.values();
        self.node.devices.iter().chain(missing).find_map(|device| {
            let slot = device.mig.iter().flatten().find(|slot| slot.uuid == *uuid)?;
            Some(Grant {
                device: device.uuid.clone(),
                size: GrantSize::Mig {
                    instance: uuid.clone(),
                    profile: slot.profile.clone(),
                },
            })
        })
    }
}

/// What the kubelet would call it.
pub(super) fn target(grant: &Grant) -> &DeviceUuid {
    match &grant.size {
        GrantSize::Mig { instance, .. } => instance,
        GrantSize::Whole | GrantSize::Share(_) => &grant.device,
    }
}

/// The same in another order is no change.
pub(super) fn same_grants(a: &[Grant], b: &[Grant]) -> bool {
    a.len() == b.len()
        && a.iter().all(|grant| {
            let times = |grants: &[Grant]| grants.iter().filter(|other| *other == grant).count();
            times(a) == times(b)
        })
}

/// What a foreign pod must have asked for.
pub(super) fn foreign_shape(grants: &[Grant], assignments: &[&Assignment]) -> Shape {
    let count = u32::try_from(grants.len()).unwrap_or(u32::MAX);
    if assignments.iter().any(|assignment| assignment.shared) {
        return Shape::gpu(Claim::shape_of_stranger(count));
    }
    let instances = grants.iter().filter_map(|grant| match &grant.size {
        GrantSize::Mig { profile, .. } => Some(profile),
        GrantSize::Whole | GrantSize::Share(_) => None,
    });
    let profiles: Vec<_> = instances.collect();
    match profiles.first() {
        Some(profile) if profiles.len() == grants.len() => Shape::gpu(GpuShape::Mig {
            profile: (*profile).clone(),
            count,
        }),
        _ => Shape::gpu(GpuShape::Whole { count }),
    }
}
