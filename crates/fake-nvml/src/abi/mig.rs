//! MIG mode, and MIG devices as devices.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, Device, supported},
};
use crate::{
    driver::{Outcome, Target},
    scenario::{ComputeInstance, EditError, GpuInstance, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetMigMode(call, device: nvmlDevice_t, currentMode: *mut c_uint, pendingMode: *mut c_uint) {
        let device = capable(call, device)?;
        currentMode.set(device.gpu().mig.current.into())?;
        pendingMode.set(device.gpu().mig.pending.into())
    }

    fn nvmlDeviceSetMigMode(call, device: nvmlDevice_t, mode: c_uint, activationStatus: *mut nvmlReturn_t) {
        let device = capable(call, device)?;
        if mode > NVML_DEVICE_MIG_ENABLE {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let on = mode == NVML_DEVICE_MIG_ENABLE;
        let in_force = call.driver.edit(|scenario| {
            scenario.mig_mode(device.name(), on).map_err(|error| refusal(&error))
        })?;
        let status = if in_force { ReturnCode::SUCCESS } else { ReturnCode::IN_USE };
        activationStatus.set(status.raw())
    }

    fn nvmlDeviceIsMigDeviceHandle(call, device: nvmlDevice_t, isMigDevice: *mut c_uint) {
        isMigDevice.set(call.device(device)?.mig().is_some().into())
    }

    fn nvmlDeviceGetMaxMigDeviceCount(call, device: nvmlDevice_t, count: *mut c_uint) {
        let device = call.gpu(device)?;
        count.set(if device.gpu().mig.current { device.product()?.max_mig_devices() } else { 0 })
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(call, device: nvmlDevice_t, index: c_uint, migDevice: *mut nvmlDevice_t) {
        let device = capable(call, device)?;
        if index >= device.product()?.max_mig_devices() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let found = device.gpu().mig.devices().nth(index as usize);
        let (instance, compute) = found.ok_or(ReturnCode::NOT_FOUND)?;
        migDevice.set(call.handle_of(device.mig_target(instance, compute))?.raw())
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(call, migDevice: nvmlDevice_t, device: *mut nvmlDevice_t) {
        let mig = call.device(migDevice)?;
        mig.mig().ok_or(ReturnCode::INVALID_ARGUMENT)?;
        device.set(call.handle_of(Target::Gpu(mig.member))?.raw())
    }

    fn nvmlDeviceGetGpuInstanceId(call, device: nvmlDevice_t, id: *mut c_uint) {
        let device = call.device(device)?;
        id.set(mig_device(&device)?.0.id)
    }

    fn nvmlDeviceGetComputeInstanceId(call, device: nvmlDevice_t, id: *mut c_uint) {
        let device = call.device(device)?;
        id.set(mig_device(&device)?.1.id)
    }

    fn nvmlDeviceGetAttributes_v2(call, device: nvmlDevice_t, attributes: *mut nvmlDeviceAttributes_t) {
        attributes_of(&call.device(device)?, &attributes)
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlDeviceGetAttributes(call, device: nvmlDevice_t, attributes: *mut nvmlDeviceAttributes_t) {
            attributes_of(&call.device(device)?, &attributes)
        }
    }
}

/// A GPU that can be partitioned.
pub(super) fn capable(call: &Call, handle: Handle) -> Outcome<Device> {
    let device = call.gpu(handle)?;
    supported(!device.product()?.mig_profiles.is_empty())?;
    Ok(device)
}

/// What the driver answers where the scenario refuses.
pub(super) fn refusal(error: &EditError) -> ReturnCode {
    match error {
        EditError::NoSuchGpu { .. } => ReturnCode::GPU_IS_LOST,
        EditError::Refused(_) => ReturnCode::INSUFFICIENT_RESOURCES,
        EditError::File(_) => ReturnCode::OPERATING_SYSTEM,
        EditError::NoSuchProcess { .. } | EditError::BadKey { .. } => ReturnCode::UNKNOWN,
    }
}

fn mig_device(device: &Device) -> Outcome<(&GpuInstance, &ComputeInstance)> {
    device.mig().ok_or(ReturnCode::NOT_SUPPORTED)
}

fn attributes_of(device: &Device, out: &Out<nvmlDeviceAttributes_t>) -> Outcome {
    let (instance, compute) = mig_device(device)?;
    let profile = device
        .product()?
        .mig_profile(&instance.profile)
        .ok_or(ReturnCode::UNKNOWN)?;
    out.set(nvmlDeviceAttributes_t {
        multiprocessorCount: profile.compute_sms(compute.slices),
        sharedCopyEngineCount: profile.copy_engines,
        sharedDecoderCount: profile.decoders,
        sharedEncoderCount: profile.encoders,
        sharedJpegCount: profile.jpegs,
        sharedOfaCount: profile.ofas,
        gpuInstanceSliceCount: profile.slices,
        computeInstanceSliceCount: compute.slices,
        memorySizeMB: profile.memory_mib,
    })
}
