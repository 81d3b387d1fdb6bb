//! How a GPU is split.

use berth_placement::{MemoryBytes, MigProfile};
use nvml_wrapper::{Device, structs::device::MigMode};
use nvml_wrapper_sys::bindings as sys;

use super::{error::Asking, raw};
use crate::{
    GpuError,
    inventory::{MigInstance, MigReport},
};

pub(super) fn report(device: &Device<'_>, ask: &Asking) -> Result<MigReport, GpuError> {
    let Some(MigMode { current, pending }) = ask.may(|| device.mig_mode())? else {
        return Ok(MigReport::default());
    };
    let enabled = current == sys::NVML_DEVICE_MIG_ENABLE;
    let instances = if enabled { instances(device, ask)? } else { Vec::new() };
    Ok(MigReport {
        supported: true,
        enabled,
        pending: current != pending,
        instances,
    })
}

/// The MIG devices of a GPU. Positions may be empty, and one may vanish while it is looked at.
pub(super) fn devices<'nvml>(device: &Device<'nvml>, ask: &Asking) -> Result<Vec<Device<'nvml>>, GpuError> {
    let places = ask.may(|| device.mig_device_count())?.unwrap_or(0);
    let mut found = Vec::new();
    for place in 0..places {
        found.extend(ask.may(|| device.mig_device_by_index(place))?);
    }
    Ok(found)
}

fn instances(device: &Device<'_>, ask: &Asking) -> Result<Vec<MigInstance>, GpuError> {
    let mut instances = Vec::new();
    for mig in devices(device, ask)? {
        instances.extend(describe(&mig, ask)?);
    }
    instances.sort_by_key(|instance| (instance.gpu_instance, instance.compute_instance));
    Ok(instances)
}

/// `None` where it does not even tell its name: then nothing can be placed on it.
fn describe(mig: &Device<'_>, ask: &Asking) -> Result<Option<MigInstance>, GpuError> {
    let uuid = ask.may(|| mig.uuid())?.and_then(|text| text.parse().ok());
    let name = ask.may(|| mig.name())?;
    let attributes = ask.may(|| mig.attributes())?;
    let profile = name.as_deref().and_then(profile_in).or_else(|| {
        let attributes = attributes.as_ref()?;
        let (gpu, compute) = (
            attributes.gpu_instance_slice_count,
            attributes.compute_instance_slice_count,
        );
        profile_of(gpu, compute, attributes.memory_size_mb)
    });
    let (Some(uuid), Some(profile)) = (uuid, profile) else {
        return Ok(None);
    };
    let memory = match attributes {
        Some(attributes) => Some(MemoryBytes::from_mib(attributes.memory_size_mb)),
        None => ask
            .may(|| mig.memory_info())?
            .map(|memory| MemoryBytes::new(memory.total)),
    };
    Ok(Some(MigInstance {
        uuid,
        profile,
        memory: memory.unwrap_or_default(),
        gpu_instance: ask.may(|| raw::gpu_instance(mig))?.unwrap_or(0),
        compute_instance: ask.may(|| raw::compute_instance(mig))?.unwrap_or(0),
    }))
}

/// `NVIDIA H100 80GB HBM3 MIG 1g.10gb` → `1g.10gb`.
fn profile_in(name: &str) -> Option<MigProfile> {
    name.rsplit_once("MIG ")?.1.trim().parse().ok()
}

/// By slices and memory, where the name does not tell. The driver rounds the gigabytes in a profile's name up.
fn profile_of(gpu_slices: u32, compute_slices: u32, memory_mib: u64) -> Option<MigProfile> {
    let gigabytes = memory_mib.div_ceil(1024);
    let text = if compute_slices == gpu_slices || compute_slices == 0 {
        format!("{gpu_slices}g.{gigabytes}gb")
    } else {
        format!("{compute_slices}c.{gpu_slices}g.{gigabytes}gb")
    };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_from_the_name_or_made_from_the_numbers() {
        for (name, expected) in [
            ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", Some("1g.10gb")),
            ("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb", Some("1c.3g.20gb")),
            ("NVIDIA H200 MIG 1g.18gb+me", Some("1g.18gb+me")),
            ("NVIDIA H100 80GB HBM3", None),
            ("NVIDIA H100 MIG ", None),
        ] {
            assert_eq!(profile_in(name).as_ref().map(MigProfile::as_str), expected, "{name}");
        }
        assert_eq!(profile_of(1, 1, 9_728).unwrap().as_str(), "1g.10gb");
        assert_eq!(profile_of(3, 1, 40_192).unwrap().as_str(), "1c.3g.40gb");
    }
}
