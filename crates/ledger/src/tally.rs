//! Per device the sum of what is held, kept in step grant by grant, and what that leaves.
//!
//! Knows grants and devices, not holders. Sums are wide enough that no book can overflow them.

use std::collections::BTreeMap;

use berth_placement::{ComputeMode, DeviceState, DeviceUuid, Grant, GrantSize, Health, MemoryBytes, MilliGpu, Room};

/// What is held, by device; a device of which nothing is held has no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally(BTreeMap<DeviceUuid, Held>);

/// What is held of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    wholes: u32,
    shares: u32,
    milli: u64,
    memory: u128,
    /// Holders of an unknown part: pods to which the kubelet gave time-sliced replicas and nobody a share.
    /// They are at peace with each other and with nobody else.
    strangers: u32,
    instances: BTreeMap<DeviceUuid, Count>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    firm: u32,
    strangers: u32,
}

impl Tally {
    pub(crate) fn get(&self, device: &DeviceUuid) -> Option<&Held> {
        self.0.get(device)
    }

    /// `stranger`: the holder has an unknown part of it, besides others.
    pub(crate) fn add(&mut self, grant: &Grant, stranger: bool) {
        let held = self.0.entry(grant.device.clone()).or_default();
        match &grant.size {
            GrantSize::Whole => held.wholes += 1,
            GrantSize::Share(_) if stranger => held.strangers += 1,
            GrantSize::Share(room) => {
                held.shares += 1;
                held.milli += u64::from(room.milli.get());
                held.memory += u128::from(room.memory.get());
            }
            GrantSize::Mig { instance, .. } => {
                let count = held.instances.entry(instance.clone()).or_default();
                *(if stranger {
                    &mut count.strangers
                } else {
                    &mut count.firm
                }) += 1;
            }
        }
    }

    /// Takes back exactly what `add` added.
    pub(crate) fn subtract(&mut self, grant: &Grant, stranger: bool) {
        let Some(held) = self.0.get_mut(&grant.device) else {
            debug_assert!(false, "BUG: {} was never added", grant.device);
            return;
        };
        match &grant.size {
            GrantSize::Whole => held.wholes -= 1,
            GrantSize::Share(_) if stranger => held.strangers -= 1,
            GrantSize::Share(room) => {
                held.shares -= 1;
                held.milli -= u64::from(room.milli.get());
                held.memory -= u128::from(room.memory.get());
            }
            GrantSize::Mig { instance, .. } => {
                if let Some(count) = held.instances.get_mut(instance) {
                    *(if stranger {
                        &mut count.strangers
                    } else {
                        &mut count.firm
                    }) -= 1;
                    if *count == Count::default() {
                        held.instances.remove(instance);
                    }
                }
            }
        }
        if *held == Held::default() {
            self.0.remove(&grant.device);
        }
    }
}

impl Count {
    fn is_contested(self) -> bool {
        self.firm > 1 || (self.firm == 1 && self.strangers > 0)
    }
}

impl Held {
    /// Something that is not a MIG instance.
    fn any_of_gpu(&self) -> bool {
        self.wholes > 0 || self.shares > 0 || self.strangers > 0
    }

    /// Whether somebody holds the instance, or the GPU around it.
    pub(crate) fn covers_instance(&self, instance: &DeviceUuid) -> bool {
        self.any_of_gpu() || self.instances.contains_key(instance)
    }

    /// Whether more is held than the device has, of any of its parts.
    pub(crate) fn exceeds(&self, device: &DeviceState) -> bool {
        let mixed = self.any_of_gpu() && !self.instances.is_empty();
        mixed || self.exceeds_gpu(device) || self.instances.values().any(|count| count.is_contested())
    }

    /// Whether more is held than there is of the part that the grant is of. The whole GPU and an instance of it exclude each
    /// other, also where one of them is not there just now because the device's MIG mode changed: it may come back.
    pub(crate) fn contests(&self, grant: &Grant, device: &DeviceState) -> bool {
        match &grant.size {
            GrantSize::Mig { instance, .. } => {
                self.any_of_gpu() || self.instances.get(instance).is_some_and(|count| count.is_contested())
            }
            GrantSize::Whole | GrantSize::Share(_) => !self.instances.is_empty() || self.exceeds_gpu(device),
        }
    }

    fn exceeds_gpu(&self, device: &DeviceState) -> bool {
        self.wholes > 1
            || (self.wholes == 1 && self.shares > 0)
            || (self.strangers > 0 && (self.wholes > 0 || self.shares > 0))
            || self.milli > u64::from(MilliGpu::WHOLE.get())
            || self.memory > u128::from(device.memory.get())
    }

    /// What nobody holds of a device without MIG. Nothing, where strangers share it, or where somebody still holds an
    /// instance of it from when it was split.
    pub(crate) fn leaves(&self, device: &DeviceState) -> Room {
        if self.wholes > 0 || self.strangers > 0 || !self.instances.is_empty() || self.exceeds(device) {
            return Room::default();
        }
        let milli = u64::from(MilliGpu::WHOLE.get()).saturating_sub(self.milli);
        let memory = u128::from(device.memory.get()).saturating_sub(self.memory);
        Room {
            milli: MilliGpu::new(u32::try_from(milli).unwrap_or(0)),
            memory: MemoryBytes::new(u64::try_from(memory).unwrap_or(0)),
        }
    }
}

/// What this leaves of the device and of its instances; fills in `free` of both.
pub(crate) fn fill_in_free(device: &mut DeviceState, held: Option<&Held>) {
    device.free = match (&device.mig, held) {
        (Some(_), _) => Room::default(),
        (None, None) => Room::whole(device.memory),
        (None, Some(held)) => held.leaves(device),
    };
    for slot in device.mig.iter_mut().flatten() {
        slot.free = held.is_none_or(|held| !held.covers_instance(&slot.uuid));
    }
}

/// Whether a plan can count on this grant: its device is fit for it. Cordons and strangers' processes do not matter
/// here: they keep newcomers away, they drive nobody out.
pub(crate) fn is_usable(grant: &Grant, device: &DeviceState) -> bool {
    let healthy = matches!(device.health, Health::Healthy | Health::Suspect);
    let compute = match (device.compute_mode, &grant.size) {
        (ComputeMode::Prohibited, _) | (ComputeMode::ExclusiveProcess, GrantSize::Share(_)) => false,
        (ComputeMode::Default | ComputeMode::ExclusiveProcess, _) => true,
    };
    healthy && compute && exists(grant, device)
}

/// Whether the device still has what was granted: the MIG mode, and the instance.
pub(crate) fn exists(grant: &Grant, device: &DeviceState) -> bool {
    match (&grant.size, &device.mig) {
        (GrantSize::Mig { instance, .. }, Some(slots)) => slots.iter().any(|slot| slot.uuid == *instance),
        (GrantSize::Mig { .. }, None) | (_, Some(_)) => false,
        (GrantSize::Whole | GrantSize::Share(_), None) => true,
    }
}
