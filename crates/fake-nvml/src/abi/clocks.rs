//! Clocks, and why they are not higher.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, Device},
};
use crate::{
    driver::Outcome,
    scenario::{ClocksEventReason, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetClockInfo(call, device: nvmlDevice_t, type_: nvmlClockType_t, clock: *mut c_uint) {
        clock.set(current(&call.gpu(device)?, type_)?)
    }

    fn nvmlDeviceGetMaxClockInfo(call, device: nvmlDevice_t, type_: nvmlClockType_t, clock: *mut c_uint) {
        clock.set(maximum(&call.gpu(device)?, type_)?)
    }

    fn nvmlDeviceGetMaxCustomerBoostClock(call, device: nvmlDevice_t, clockType: nvmlClockType_t, clockMHz: *mut c_uint) {
        clockMHz.set(maximum(&call.gpu(device)?, clockType)?)
    }

    fn nvmlDeviceGetApplicationsClock(call, device: nvmlDevice_t, clockType: nvmlClockType_t, clockMHz: *mut c_uint) {
        clockMHz.set(maximum(&call.gpu(device)?, clockType)?)
    }

    fn nvmlDeviceGetDefaultApplicationsClock(call, device: nvmlDevice_t, clockType: nvmlClockType_t, clockMHz: *mut c_uint) {
        clockMHz.set(maximum(&call.gpu(device)?, clockType)?)
    }

    fn nvmlDeviceGetClock(call, device: nvmlDevice_t, clockType: nvmlClockType_t, clockId: nvmlClockId_t, clockMHz: *mut c_uint) {
        let device = call.gpu(device)?;
        match clockId {
            nvmlClockId_enum_NVML_CLOCK_ID_CURRENT => clockMHz.set(current(&device, clockType)?),
            1..nvmlClockId_enum_NVML_CLOCK_ID_COUNT => clockMHz.set(maximum(&device, clockType)?),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    fn nvmlDeviceGetSupportedMemoryClocks(call, device: nvmlDevice_t, count: *mut c_uint, clocksMHz: *mut c_uint) {
        let device = call.gpu(device)?;
        clocksMHz.list(&count, &[device.product()?.clocks_mhz.memory])
    }

    fn nvmlDeviceGetSupportedGraphicsClocks(call, device: nvmlDevice_t, memoryClockMHz: c_uint, count: *mut c_uint, clocksMHz: *mut c_uint) {
        let device = call.gpu(device)?;
        let clocks = device.product()?.clocks_mhz;
        if memoryClockMHz != clocks.memory {
            return Err(ReturnCode::NOT_FOUND);
        }
        let steps: Vec<_> = (LOWEST_MHZ..=clocks.graphics).rev().step_by(STEP_MHZ).collect();
        clocksMHz.list(&count, &steps)
    }

    fn nvmlDeviceGetCurrentClocksEventReasons(call, device: nvmlDevice_t, clocksEventReasons: *mut c_ulonglong) {
        reasons(call, device, &clocksEventReasons)
    }

    fn nvmlDeviceGetCurrentClocksThrottleReasons(call, device: nvmlDevice_t, clocksThrottleReasons: *mut c_ulonglong) {
        reasons(call, device, &clocksThrottleReasons)
    }

    fn nvmlDeviceGetSupportedClocksEventReasons(call, device: nvmlDevice_t, supportedClocksEventReasons: *mut c_ulonglong) {
        call.gpu(device)?;
        supportedClocksEventReasons.set(ALL_REASONS)
    }

    fn nvmlDeviceGetSupportedClocksThrottleReasons(call, device: nvmlDevice_t, supportedClocksThrottleReasons: *mut c_ulonglong) {
        call.gpu(device)?;
        supportedClocksThrottleReasons.set(ALL_REASONS)
    }

    fn nvmlDeviceGetPerformanceState(call, device: nvmlDevice_t, pState: *mut nvmlPstates_t) {
        call.gpu(device)?;
        pState.set(nvmlPStates_enum_NVML_PSTATE_0)
    }

    fn nvmlDeviceGetPowerState(call, device: nvmlDevice_t, pState: *mut nvmlPstates_t) {
        call.gpu(device)?;
        pState.set(nvmlPStates_enum_NVML_PSTATE_0)
    }
}

const LOWEST_MHZ: u32 = 210;
const STEP_MHZ: usize = 15;
const ALL_REASONS: u64 = ClocksEventReason::DisplayClockSetting.bit() * 2 - 1;

pub(super) fn reason_bits(reasons: &[ClocksEventReason]) -> u64 {
    reasons.iter().fold(0, |bits, reason| bits | reason.bit())
}

fn reasons(call: &Call, handle: Handle, out: &Out<c_ulonglong>) -> Outcome {
    out.set(reason_bits(&call.gpu(handle)?.gpu().clocks_event_reasons))
}

fn current(device: &Device, kind: u32) -> Outcome<u32> {
    let clocks = device.gpu().clocks;
    match kind {
        nvmlClockType_enum_NVML_CLOCK_GRAPHICS => Ok(clocks.graphics),
        nvmlClockType_enum_NVML_CLOCK_SM => Ok(clocks.sm),
        nvmlClockType_enum_NVML_CLOCK_MEM => Ok(clocks.memory),
        nvmlClockType_enum_NVML_CLOCK_VIDEO => Ok(clocks.video),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

fn maximum(device: &Device, kind: u32) -> Outcome<u32> {
    let clocks = device.product()?.clocks_mhz;
    match kind {
        nvmlClockType_enum_NVML_CLOCK_GRAPHICS | nvmlClockType_enum_NVML_CLOCK_SM => Ok(clocks.graphics),
        nvmlClockType_enum_NVML_CLOCK_MEM => Ok(clocks.memory),
        nvmlClockType_enum_NVML_CLOCK_VIDEO => Ok(clocks.video),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}
