//! A node as policies see it: what is free, in numbers, with equal devices counted together.
//!
//! Owns what makes two nodes the same to a policy. Two equal cells get equal scores; that is what is cached.

use smallvec::SmallVec;

use super::catalog::{Ask, Catalog, Form, KindId, ProfileId, UNKNOWN_CPU};
use crate::{ComputeMode, DeviceState, Health, MilliGpu, NodeState};

/// Devices of one node that are alike: same kind, same health, same room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Level {
    pub(crate) kind: KindId,
    /// To be taken last.
    pub(crate) suspect: bool,
    /// One process only: whole GPUs, no shares.
    pub(crate) exclusive: bool,
    /// Nobody has any part of it.
    pub(crate) whole: bool,
    /// What is free, in thousandths.
    pub(crate) milli: u16,
    /// The smaller of the free thousandths and the free memory in thousandths: what policies reckon with.
    pub(crate) effective: u16,
    /// Free bytes.
    pub(crate) memory: u64,
    pub(crate) count: u8,
}

/// Free MIG instances of one profile on devices of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MigLevel {
    pub(crate) kind: KindId,
    pub(crate) profile: ProfileId,
    pub(crate) suspect: bool,
    pub(crate) free: u32,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Cell {
    /// False for a number whose node is gone, and while the daemon cannot be reached.
    pub(crate) open: bool,
    pub(crate) class: u32,
    /// Free thousandths of a core; [`UNKNOWN_CPU`] where nobody knows.
    pub(crate) cpu: u32,
    /// Free bytes of host memory; `u64::MAX` where nobody knows.
    pub(crate) memory: u64,
    /// How many devices nobody has any part of.
    pub(crate) wholes: u32,
    /// Free thousandths of the device that has the most.
    pub(crate) most: u32,
    /// Free thousandths of all devices, whole or not.
    pub(crate) free: u32,
    /// Sorted. Devices that take nothing (held, unhealthy, cordoned, split by MIG) are in none.
    pub(crate) levels: SmallVec<[Level; 4]>,
    pub(crate) mig: SmallVec<[MigLevel; 0]>,
}

/// What a shape may take on a node, before policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// How many Suspect devices it would need.
    pub(crate) suspects: u32,
}

impl Cell {
    /// `kinds`: of the node's devices, in their order.
    pub(crate) fn of(node: &NodeState, class: u32, kinds: &[KindId], catalog: &mut Catalog) -> Self {
        let mut cell = Self {
            open: node.reachable,
            class,
            cpu: node
                .cpu_free
                .map_or(UNKNOWN_CPU, |cpu| u32::try_from(cpu.0).unwrap_or(UNKNOWN_CPU)),
            memory: node.memory_free.map_or(u64::MAX, crate::MemoryBytes::get),
            ..Self::default()
        };
        for (device, &kind) in node.devices.iter().zip(kinds).filter(|(device, _)| usable(device)) {
            let suspect = device.health == Health::Suspect;
            match &device.mig {
                Some(slots) => {
                    for slot in slots.iter().filter(|slot| slot.free) {
                        cell.add_instance(kind, catalog.profile(&slot.profile), suspect);
                    }
                }
                None if device.free.milli > MilliGpu::ZERO => cell.add_device(device, kind),
                None => {}
            }
        }
        for level in &cell.levels {
            let count = u32::from(level.count);
            cell.wholes += if level.whole { count } else { 0 };
            cell.most = cell.most.max(u32::from(level.milli));
            cell.free += count * u32::from(level.effective);
        }
        cell.levels.sort_unstable();
        cell.mig.sort_unstable();
        cell
    }

    /// As policies see it: memory of the host is enough or not, and no matter of scores.
    pub(crate) fn without_memory(&self) -> Self {
        Self {
            memory: u64::MAX,
            ..self.clone()
        }
    }

    fn add_device(&mut self, device: &DeviceState, kind: KindId) {
        let level = Level::of(device, kind);
        let same = self
            .levels
            .iter_mut()
            .find(|other| other.is_like(&level) && other.count < u8::MAX);
        match same {
            Some(other) => other.count += 1,
            None => self.levels.push(level),
        }
    }

    fn add_instance(&mut self, kind: KindId, profile: ProfileId, suspect: bool) {
        let same = self
            .mig
            .iter_mut()
            .find(|other| (other.kind, other.profile, other.suspect) == (kind, profile, suspect));
        match same {
            Some(other) => other.free += 1,
            None => self.mig.push(MigLevel {
                kind,
                profile,
                suspect,
                free: 1,
            }),
        }
    }

    /// Whether the shape fits at all: the same answer as [`crate::fit::plan`], in a few comparisons.
    pub(crate) fn offer(&self, ask: &Ask) -> Option<Offer> {
        if !self.open || self.cpu < ask.cpu || self.memory < ask.memory {
            return None;
        }
        // Most nodes of a full cluster are done with here.
        let hopeless = match ask.form {
            Form::Whole => self.wholes < ask.count,
            Form::Share => self.most < ask.least,
            Form::None | Form::Mig(_) => false,
        };
        if hopeless {
            return None;
        }
        let (mut healthy, mut suspect) = (0, 0);
        match ask.form {
            Form::None => {}
            Form::Whole | Form::Share => {
                // The emptiest come last.
                for level in self.levels.iter().rev().filter(|level| level.takes(ask)) {
                    *(if level.suspect { &mut suspect } else { &mut healthy }) += u32::from(level.count);
                    if healthy >= ask.count {
                        break;
                    }
                }
            }
            Form::Mig(profile) => {
                for level in self.mig.iter().filter(|level| level.profile == profile) {
                    if ask.need(level.kind).accepted {
                        *(if level.suspect { &mut suspect } else { &mut healthy }) += level.free;
                    }
                }
            }
        }
        (healthy + suspect >= ask.count).then(|| Offer {
            suspects: ask.count.saturating_sub(healthy),
        })
    }
}

impl Level {
    fn of(device: &DeviceState, kind: KindId) -> Self {
        let milli = u16::try_from(device.free.milli.get().min(1000)).unwrap_or(1000);
        let by_memory = share_of(device.free.memory.get(), device.memory.get());
        Self {
            kind,
            suspect: device.health == Health::Suspect,
            exclusive: device.compute_mode == ComputeMode::ExclusiveProcess,
            whole: device.is_untouched(),
            count: 1,
            milli,
            effective: milli.min(by_memory),
            memory: device.free.memory.get(),
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        Self { count: 1, ..*self } == Self { count: 1, ..*other }
    }

    /// Whether the device is one of those counted here.
    pub(crate) fn holds(&self, device: &DeviceState, kind: KindId) -> bool {
        usable(device) && device.mig.is_none() && self.is_like(&Self::of(device, kind))
    }

    /// Whether each of its devices could take one unit of the shape (whole GPU or share).
    #[inline]
    pub(crate) fn takes(&self, ask: &Ask) -> bool {
        let need = ask.need(self.kind);
        need.accepted
            && match ask.form {
                Form::Whole => self.whole,
                Form::Share => !self.exclusive && u32::from(self.milli) >= need.milli && self.memory >= need.memory,
                Form::None | Form::Mig(_) => false,
            }
    }
}

/// Whether anything at all may be placed there.
fn usable(device: &DeviceState) -> bool {
    matches!(device.health, Health::Healthy | Health::Suspect)
        && device.schedulable
        && !device.out_of_band
        && device.compute_mode != ComputeMode::Prohibited
}

/// In thousandths, rounded up: what belongs to a number of thousandths was rounded down to bytes.
fn share_of(part: u64, total: u64) -> u16 {
    if total == 0 || part >= total {
        return 1000;
    }
    u16::try_from((u128::from(part) * 1000).div_ceil(u128::from(total))).unwrap_or(1000)
}
