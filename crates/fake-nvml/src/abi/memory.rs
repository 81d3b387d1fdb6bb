//! Memory: the framebuffer, of a GPU or of a MIG device, and the window to it.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{boundary::expect_version, call::Device};
use crate::{driver::Outcome, scenario::ReturnCode};

super::nvml! {
    fn nvmlDeviceGetMemoryInfo(call, device: nvmlDevice_t, memory: *mut nvmlMemory_t) {
        // Here what the driver reserves counts as used; only version 2 tells it apart.
        let now = Framebuffer::of(&call.device(device)?)?;
        memory.set(nvmlMemory_t { total: now.total, free: now.free, used: now.total - now.free })
    }

    fn nvmlDeviceGetMemoryInfo_v2(call, device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) {
        let device = call.device(device)?;
        let version = memory.get()?.version;
        expect_version::<nvmlMemory_v2_t>(version, 2)?;
        let Framebuffer { total, reserved, free, used } = Framebuffer::of(&device)?;
        memory.set(nvmlMemory_v2_t { version, total, reserved, free, used })
    }

    fn nvmlDeviceGetBAR1MemoryInfo(call, device: nvmlDevice_t, bar1Memory: *mut nvmlBAR1Memory_t) {
        let device = call.gpu(device)?;
        let total = device.product()?.bar1_mib.ok_or(ReturnCode::NOT_SUPPORTED)? << 20;
        let used = (1 << 20).min(total);
        bar1Memory.set(nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used })
    }

    fn nvmlDeviceGetMemoryBusWidth(call, device: nvmlDevice_t, busWidth: *mut c_uint) {
        busWidth.set(call.gpu(device)?.product()?.memory_bus_bits)
    }
}

/// In bytes; `total` is the sum of the others.
struct Framebuffer {
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

impl Framebuffer {
    fn of(device: &Device) -> Outcome<Self> {
        let (gpu, product) = (device.gpu(), device.product()?);
        let (total, reserved, used) = match device.mig() {
            None => (product.memory_mib, product.reserved_mib, gpu.memory_used()),
            Some((instance, _)) => {
                let profile = product.mig_profile(&instance.profile).ok_or(ReturnCode::UNKNOWN)?;
                let inside = gpu
                    .processes
                    .iter()
                    .filter(|process| process.gpu_instance == Some(instance.id));
                (profile.memory_mib, 0, inside.map(|process| process.memory_mib).sum())
            }
        };
        let used = used.min(total - reserved.min(total));
        Ok(Self {
            total: total << 20,
            reserved: reserved << 20,
            free: (total - reserved.min(total) - used) << 20,
            used: used << 20,
        })
    }
}
