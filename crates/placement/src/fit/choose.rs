//! Which of the fitting devices: packs tightly, keeps NVLink domains whole, takes Suspect devices last.
//!
//! Every function here gets devices of which each could take one unit; it must not ask again whether.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Grant, GrantSize, Plan};
use crate::{DeviceState, DeviceUuid, GpuShape, Health, MigProfile, Room, ShareSize};

/// `None` where too few devices fit.
pub(super) fn choose(fitting: &[&DeviceState], gpu: &GpuShape, preferred: &[DeviceUuid]) -> Option<Plan> {
    let grants = match gpu {
        GpuShape::None => Vec::new(),
        GpuShape::Whole { count } => {
            let wanted = *count as usize;
            let devices = exactly(fitting, preferred, wanted).or_else(|| whole(fitting, wanted))?;
            devices
                .into_iter()
                .map(|device| Grant {
                    device: device.uuid.clone(),
                    size: GrantSize::Whole,
                })
                .collect()
        }
        GpuShape::Share { size, count } => {
            let wanted = *count as usize;
            let devices = exactly(fitting, preferred, wanted).or_else(|| shares(fitting, *size, wanted))?;
            devices.into_iter().map(|device| share_grant(device, *size)).collect()
        }
        GpuShape::Mig { profile, count } => instances(fitting, profile, *count as usize, preferred)?,
    };
    Some(Plan { grants })
}

fn share_grant(device: &DeviceState, size: ShareSize) -> Grant {
    let (milli, memory) = size.on(device.memory);
    Grant {
        device: device.uuid.clone(),
        size: GrantSize::Share(Room { milli, memory }),
    }
}

/// The preferred devices, where they are as many as wanted, different, and all fit.
fn exactly<'a>(fitting: &[&'a DeviceState], preferred: &[DeviceUuid], wanted: usize) -> Option<Vec<&'a DeviceState>> {
    if preferred.len() != wanted {
        return None;
    }
    let chosen: Vec<_> = fitting
        .iter()
        .copied()
        .filter(|device| preferred.contains(&device.uuid))
        .collect();
    (chosen.len() == wanted).then_some(chosen)
}

/// Whole GPUs: healthy before Suspect, then as compact as can be.
fn whole<'a>(fitting: &[&'a DeviceState], wanted: usize) -> Option<Vec<&'a DeviceState>> {
    if fitting.len() < wanted {
        return None;
    }
    let (healthy, suspect): (Vec<_>, Vec<_>) = fitting
        .iter()
        .copied()
        .partition(|device| device.health == Health::Healthy);
    let mut chosen = compact(healthy, wanted, KEYS);
    if chosen.len() < wanted {
        chosen.extend(compact(suspect, wanted - chosen.len(), KEYS));
    }
    chosen.sort_by_key(|device| device.index);
    Some(chosen)
}

type Key = for<'a> fn(&'a DeviceState) -> (bool, &'a str, u32);

/// What devices of one pod should share, most important first: the model, the NVLink domain, the NUMA node.
/// The flag says that there is such a thing at all.
const KEYS: &[Key] = &[
    |device| (true, device.model.as_str(), 0),
    |device| (device.nvlink_domain.is_some(), "", device.nvlink_domain.unwrap_or(0)),
    |device| (device.numa_node.is_some(), "", device.numa_node.unwrap_or(0)),
];

/// Up to `wanted` devices in as few groups as possible. Of the groups that are large enough the one with the fewest
/// devices to spare (so that large groups stay whole); where none is, all of the largest and the rest by the same rule.
fn compact<'a>(mut devices: Vec<&'a DeviceState>, wanted: usize, keys: &[Key]) -> Vec<&'a DeviceState> {
    devices.sort_by_key(|device| device.index);
    if devices.len() <= wanted {
        return devices;
    }
    let Some((key, finer)) = keys.split_first() else {
        devices.truncate(wanted);
        return devices;
    };
    let mut groups: BTreeMap<(bool, &str, u32), Vec<&DeviceState>> = BTreeMap::new();
    for device in devices {
        groups.entry(key(device)).or_default().push(device);
    }
    let mut chosen = Vec::with_capacity(wanted);
    while chosen.len() < wanted {
        let missing = wanted - chosen.len();
        // One GPU does not need a link: it takes none away where it can.
        let linked_first = missing > 1;
        let tightest = groups
            .iter()
            .filter(|(_, group)| group.len() >= missing)
            .min_by_key(|((linked, ..), group)| (*linked != linked_first, group.len()))
            .map(|(key, _)| *key);
        let fits = tightest.is_some();
        let next = tightest.or_else(|| {
            groups
                .iter()
                .max_by_key(|((linked, ..), group)| (*linked, group.len()))
                .map(|(key, _)| *key)
        });
        let Some(group) = next.and_then(|key| groups.remove(&key)) else {
            break;
        };
        if fits {
            chosen.extend(compact(group, missing, finer));
        } else {
            chosen.extend(group);
        }
    }
    chosen
}

/// Shares: best fit, on different devices; the fullest device that still has room comes first.
fn shares<'a>(fitting: &[&'a DeviceState], size: ShareSize, wanted: usize) -> Option<Vec<&'a DeviceState>> {
    if fitting.len() < wanted {
        return None;
    }
    let mut devices = fitting.to_vec();
    devices.sort_by_key(|device| {
        let (milli, memory) = size.on(device.memory);
        (
            device.health,
            device.free.milli.saturating_sub(milli),
            device.free.memory.saturating_sub(memory),
            device.nvlink_domain.is_some(),
            device.index,
        )
    });
    devices.truncate(wanted);
    Some(devices)
}

/// MIG instances: from as few parents as possible, those with the fewest free instances first.
fn instances(
    fitting: &[&DeviceState],
    profile: &MigProfile,
    wanted: usize,
    preferred: &[DeviceUuid],
) -> Option<Vec<Grant>> {
    let mut parents = fitting.to_vec();
    parents.sort_by_key(|device| {
        let free = device.mig.iter().flatten().filter(|slot| slot.free).count();
        let of_profile = device
            .mig
            .iter()
            .flatten()
            .filter(|slot| slot.free && slot.profile == *profile)
            .count();
        (device.health, Reverse(of_profile.min(wanted)), free, device.index)
    });
    let mut free: Vec<_> = parents
        .iter()
        .flat_map(|device| device.mig.iter().flatten().map(|slot| (*device, slot)))
        .filter(|(_, slot)| slot.free && slot.profile == *profile)
        .collect();
    free.sort_by_key(|(_, slot)| !preferred.contains(&slot.uuid));
    if free.len() < wanted {
        return None;
    }
    let grant = |(device, slot): &(&DeviceState, &crate::MigSlot)| Grant {
        device: device.uuid.clone(),
        size: GrantSize::Mig {
            instance: slot.uuid.clone(),
            profile: slot.profile.clone(),
        },
    };
    Some(free.iter().take(wanted).map(grant).collect())
}
