//! Who runs on a GPU.

use std::collections::BTreeMap;

use berth_placement::MemoryBytes;
use nvml_wrapper::{Device, enums::device::UsedGpuMemory, struct_wrappers::device::ProcessInfo};

use super::{error::Asking, mig};
use crate::{GpuError, inventory::Process};

/// Compute and graphics processes; one that is both is listed once.
pub(super) fn list(device: &Device<'_>, ask: &Asking) -> Result<Vec<Process>, GpuError> {
    let mut all = Merged::default();
    if let Some(compute) = ask.may(|| device.running_compute_processes())? {
        all.add(compute);
    } else {
        // A GPU in MIG mode tells of its instances' processes only to the privileged; the instances tell of their own.
        for instance in mig::devices(device, ask)? {
            all.add(ask.may(|| instance.running_compute_processes())?.unwrap_or_default());
        }
    }
    all.add(ask.may(|| device.running_graphics_processes())?.unwrap_or_default());
    Ok(all.0.into_values().collect())
}

#[derive(Default)]
struct Merged(BTreeMap<(u32, Option<u32>, Option<u32>), Process>);

impl Merged {
    fn add(&mut self, processes: Vec<ProcessInfo>) {
        for ProcessInfo {
            pid,
            used_gpu_memory,
            gpu_instance_id,
            compute_instance_id,
        } in processes
        {
            let used_memory = match used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(MemoryBytes::new(bytes)),
                UsedGpuMemory::Unavailable => None,
            };
            let process = self
                .0
                .entry((pid, gpu_instance_id, compute_instance_id))
                .or_insert(Process {
                    pid,
                    used_memory: None,
                    gpu_instance: gpu_instance_id,
                    compute_instance: compute_instance_id,
                });
            process.used_memory = process.used_memory.max(used_memory);
        }
    }
}
