//! MIG: GPU instances, the compute instances within, and the rules by which they fit.

use serde::{Deserialize, Serialize};

use super::{MigProfile, Product, hashed_uuid};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mig {
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
    /// By id.
    pub instances: Vec<GpuInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuInstance {
    pub id: u32,
    /// Name of the [`MigProfile`].
    pub profile: String,
    /// First memory slice.
    pub start: u32,
    #[serde(default)]
    pub birth: u64,
    /// By id.
    #[serde(default)]
    pub compute: Vec<ComputeInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeInstance {
    pub id: u32,
    /// Compute slices, all those of the GPU instance or fewer.
    pub slices: u32,
    /// First compute slice within the GPU instance.
    pub start: u32,
    #[serde(default)]
    pub birth: u64,
}

/// Sizes that compute instances come in; the position is NVML's profile number.
pub(crate) const COMPUTE_SLICES: [u32; 5] = [1, 2, 3, 4, 7];

/// `3g.40gb` for the whole GPU instance, `1c.3g.40gb` for a part of it.
pub fn compute_profile_name(profile: &MigProfile, slices: u32) -> String {
    if slices == profile.slices {
        profile.name.clone()
    } else {
        format!("{slices}c.{}", profile.name)
    }
}

impl MigProfile {
    /// SMs of a compute instance with that many slices.
    pub(crate) fn compute_sms(&self, slices: u32) -> u32 {
        self.sms * slices / self.slices.max(1)
    }
}

impl ComputeInstance {
    /// The UUID of the MIG device. The same ids on the same GPU make the same device, as with the driver.
    pub fn uuid(&self, gpu_uuid: &str, gpu_instance: u32) -> String {
        hashed_uuid("MIG", &[gpu_uuid, &gpu_instance.to_string(), &self.id.to_string()])
    }
}

impl GpuInstance {
    /// Where compute instances of a size can begin, free or not.
    pub(crate) fn compute_starts(profile: &MigProfile, slices: u32) -> Vec<u32> {
        if slices == 0 || slices > profile.slices {
            return Vec::new();
        }
        (0..=profile.slices - slices).step_by(slices as usize).collect()
    }

    /// Where compute instances of a size can still begin.
    pub(crate) fn free_compute_starts(&self, profile: &MigProfile, slices: u32) -> Vec<u32> {
        let mut starts = Self::compute_starts(profile, slices);
        starts.retain(|start| {
            self.compute
                .iter()
                .all(|other| start + slices <= other.start || other.start + other.slices <= *start)
        });
        starts
    }

    pub(crate) fn add_compute(
        &mut self,
        profile: &MigProfile,
        slices: u32,
        start: Option<u32>,
        birth: u64,
    ) -> Result<&ComputeInstance, String> {
        let free = self.free_compute_starts(profile, slices);
        let start = pick(&free, start, || {
            format!(
                "no room for {slices} compute slices in GPU instance {} ({})",
                self.id, self.profile
            )
        })?;
        let id = (0..u32::MAX)
            .find(|id| self.compute.iter().all(|other| other.id != *id))
            .unwrap_or(0);
        let at = self.compute.partition_point(|other| other.id < id);
        self.compute.insert(
            at,
            ComputeInstance {
                id,
                slices,
                start,
                birth,
            },
        );
        Ok(&self.compute[at])
    }
}

impl Mig {
    /// The MIG devices in the order of their indices: a device is a pair of GPU instance and compute instance.
    pub fn devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.instances
            .iter()
            .flat_map(|instance| instance.compute.iter().map(move |compute| (instance, compute)))
    }

    /// Where instances of a profile can still begin.
    pub fn free_starts(&self, product: &Product, profile: &MigProfile) -> Vec<u32> {
        let same = self
            .instances
            .iter()
            .filter(|other| other.profile == profile.name)
            .count();
        if same >= profile.max_instances as usize {
            return Vec::new();
        }
        let end_of = |other: &GpuInstance| {
            other.start
                + product
                    .mig_profile(&other.profile)
                    .map_or(0, |profile| profile.memory_slices)
        };
        let free = |start: u32| {
            self.instances
                .iter()
                .all(|other| start + profile.memory_slices <= other.start || end_of(other) <= start)
        };
        profile.starts.iter().copied().filter(|start| free(*start)).collect()
    }

    /// How many more instances of a profile fit.
    pub fn remaining(&self, product: &Product, profile: &MigProfile) -> u32 {
        let same = self
            .instances
            .iter()
            .filter(|other| other.profile == profile.name)
            .count();
        let mut count = 0;
        let mut end = 0;
        for start in self.free_starts(product, profile) {
            if start >= end {
                count += 1;
                end = start + profile.memory_slices;
            }
        }
        let left = profile
            .max_instances
            .saturating_sub(u32::try_from(same).unwrap_or(u32::MAX));
        count.min(left)
    }

    /// Adds a GPU instance, without compute instances. Without `start` it goes where it spoils least.
    pub(crate) fn add(
        &mut self,
        product: &Product,
        profile: &MigProfile,
        start: Option<u32>,
        birth: u64,
    ) -> Result<&mut GpuInstance, String> {
        let mut free = self.free_starts(product, profile);
        free.sort_by_key(|start| (self.spoiled_by(product, profile, *start), *start));
        let start = pick(&free, start, || format!("no room for a {} instance", profile.name))?;
        // The positions of each size have numbers of their own: 0 for the whole GPU, 1 and 2 for the halves, and so on.
        let id = product.memory_slices() / profile.memory_slices - 1 + start / profile.memory_slices;
        let id = (id..u32::MAX)
            .find(|id| self.instances.iter().all(|other| other.id != *id))
            .unwrap_or(id);
        let at = self.instances.partition_point(|other| other.id < id);
        self.instances.insert(
            at,
            GpuInstance {
                id,
                profile: profile.name.clone(),
                start,
                birth,
                compute: Vec::new(),
            },
        );
        Ok(&mut self.instances[at])
    }

    /// How many placements of any kind an instance at `start` would rule out.
    fn spoiled_by(&self, product: &Product, profile: &MigProfile, start: u32) -> usize {
        let overlaps = |other: &MigProfile, other_start: u32| {
            other_start < start + profile.memory_slices && start < other_start + other.memory_slices
        };
        let starts = |other: &MigProfile| self.free_starts(product, other);
        let count = |other: &MigProfile| starts(other).into_iter().filter(|at| overlaps(other, *at)).count();
        product.mig_profiles.iter().map(count).sum()
    }

    pub(super) fn check(&self, product: &Product) -> Result<(), String> {
        if !self.current && !self.instances.is_empty() {
            return Err("has instances although `current` is false".to_owned());
        }
        for instance in &self.instances {
            if product.mig_profile(&instance.profile).is_none() {
                return Err(unknown_profile(product, &instance.profile));
            }
        }
        Ok(())
    }
}

pub(crate) fn unknown_profile(product: &Product, name: &str) -> String {
    let known: Vec<_> = product
        .mig_profiles
        .iter()
        .map(|profile| profile.name.as_str())
        .collect();
    if known.is_empty() {
        format!("{} has no MIG", product.name)
    } else {
        format!(
            "{} has no MIG profile {name:?}; it has {}",
            product.name,
            known.join(", ")
        )
    }
}

fn pick(free: &[u32], wanted: Option<u32>, full: impl Fn() -> String) -> Result<u32, String> {
    match wanted {
        None => free.first().copied().ok_or_else(&full),
        Some(start) if free.contains(&start) => Ok(start),
        Some(start) => Err(format!("{} at {start}; free are {free:?}", full())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiles::product;

    fn h100() -> Product {
        product("h100-sxm5-80gb").expect("a product of the catalogue")
    }

    fn add(mig: &mut Mig, product: &Product, name: &str) -> Result<(u32, u32), String> {
        let profile = product.mig_profile(name).expect("a profile of the product");
        mig.add(product, profile, None, 1)
            .map(|instance| (instance.id, instance.start))
    }

    #[test]
    fn seven_of_the_smallest_fit_and_no_eighth() {
        let (product, mut mig) = (h100(), Mig::default());
        for _ in 0..7 {
            add(&mut mig, &product, "1g.10gb").unwrap();
        }
        assert!(add(&mut mig, &product, "1g.10gb").unwrap_err().contains("no room"));
        let ids: Vec<_> = mig.instances.iter().map(|instance| instance.id).collect();
        assert_eq!(ids, [7, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn a_mixed_layout_fits_in_any_order() {
        let (product, mut mig) = (h100(), Mig::default());
        assert_eq!(
            add(&mut mig, &product, "3g.40gb").unwrap(),
            (2, 4),
            "leaves the half that a 4g needs"
        );
        add(&mut mig, &product, "1g.10gb").unwrap();
        add(&mut mig, &product, "2g.20gb").unwrap();
        add(&mut mig, &product, "1g.10gb").unwrap();
        assert!(add(&mut mig, &product, "1g.10gb").is_err());
    }

    #[test]
    fn remaining_capacity_counts_what_fits() {
        let (product, mut mig) = (h100(), Mig::default());
        let remaining = |mig: &Mig, name| mig.remaining(&product, product.mig_profile(name).unwrap());
        assert_eq!(remaining(&mig, "1g.20gb"), 4);
        assert_eq!(remaining(&mig, "7g.80gb"), 1);
        add(&mut mig, &product, "4g.40gb").unwrap();
        assert_eq!(remaining(&mig, "4g.40gb"), 0);
        assert_eq!(remaining(&mig, "3g.40gb"), 1);
        assert_eq!(remaining(&mig, "2g.20gb"), 1);
        assert_eq!(remaining(&mig, "1g.10gb"), 3);
        assert_eq!(remaining(&mig, "1g.10gb+me"), 1);
        assert_eq!(remaining(&mig, "7g.80gb"), 0);
    }

    #[test]
    fn compute_instances_share_a_gpu_instance() {
        let (product, mut mig) = (h100(), Mig::default());
        let profile = product.mig_profile("3g.40gb").unwrap().clone();
        let instance = mig.add(&product, &profile, None, 1).unwrap();
        instance.add_compute(&profile, 1, None, 2).unwrap();
        instance.add_compute(&profile, 1, Some(2), 3).unwrap();
        assert_eq!(instance.free_compute_starts(&profile, 1), [1]);
        assert!(
            instance
                .add_compute(&profile, 2, None, 4)
                .unwrap_err()
                .contains("no room")
        );
        assert_eq!(compute_profile_name(&profile, 1), "1c.3g.40gb");
        assert_eq!(compute_profile_name(&profile, 3), "3g.40gb");
        assert_eq!(mig.devices().count(), 2);
    }
}
