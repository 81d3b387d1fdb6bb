//! Modes that an administrator sets.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::call::{Call, Device, supported};
use crate::{
    driver::Outcome,
    scenario::{ComputeMode, Gpu, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetPersistenceMode(call, device: nvmlDevice_t, mode: *mut nvmlEnableState_t) {
        mode.set(call.gpu(device)?.gpu().persistence.into())
    }

    fn nvmlDeviceSetPersistenceMode(call, device: nvmlDevice_t, mode: nvmlEnableState_t) {
        let on = flag(mode)?;
        change(call, &call.gpu(device)?, |gpu| gpu.persistence = on)
    }

    fn nvmlDeviceGetComputeMode(call, device: nvmlDevice_t, mode: *mut nvmlComputeMode_t) {
        mode.set(match call.gpu(device)?.gpu().compute_mode {
            ComputeMode::Default => nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT,
            ComputeMode::ExclusiveThread => nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_THREAD,
            ComputeMode::Prohibited => nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED,
            ComputeMode::ExclusiveProcess => nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS,
        })
    }

    fn nvmlDeviceSetComputeMode(call, device: nvmlDevice_t, mode: nvmlComputeMode_t) {
        let mode = match mode {
            nvmlComputeMode_enum_NVML_COMPUTEMODE_DEFAULT => ComputeMode::Default,
            nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_THREAD => return Err(ReturnCode::NOT_SUPPORTED),
            nvmlComputeMode_enum_NVML_COMPUTEMODE_PROHIBITED => ComputeMode::Prohibited,
            nvmlComputeMode_enum_NVML_COMPUTEMODE_EXCLUSIVE_PROCESS => ComputeMode::ExclusiveProcess,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        let device = call.gpu(device)?;
        supported(!device.gpu().mig.current)?;
        change(call, &device, |gpu| gpu.compute_mode = mode)
    }

    fn nvmlDeviceGetDisplayMode(call, device: nvmlDevice_t, display: *mut nvmlEnableState_t) {
        call.gpu(device)?;
        display.set(0)
    }

    fn nvmlDeviceGetDisplayActive(call, device: nvmlDevice_t, isActive: *mut nvmlEnableState_t) {
        call.gpu(device)?;
        isActive.set(0)
    }

    fn nvmlDeviceGetAccountingMode(call, device: nvmlDevice_t, mode: *mut nvmlEnableState_t) {
        call.gpu(device)?;
        mode.set(0)
    }

    fn nvmlDeviceGetAccountingBufferSize(call, device: nvmlDevice_t, bufferSize: *mut c_uint) {
        call.gpu(device)?;
        bufferSize.set(4000)
    }
}

fn flag(state: u32) -> Outcome<bool> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

fn change(call: &Call, device: &Device, f: impl FnOnce(&mut Gpu)) -> Outcome {
    call.driver.edit(|scenario| {
        scenario
            .gpu_mut(device.name())
            .map(f)
            .map_err(|_| ReturnCode::GPU_IS_LOST)
    })
}
