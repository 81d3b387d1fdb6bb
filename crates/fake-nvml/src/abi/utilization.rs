//! How busy a GPU is. NVML measures no MIG devices, nor GPUs in MIG mode, in this way.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, supported},
};
use crate::{
    clock,
    driver::Outcome,
    scenario::{ReturnCode, Utilization},
};

super::nvml! {
    fn nvmlDeviceGetUtilizationRates(call, device: nvmlDevice_t, utilization: *mut nvmlUtilization_t) {
        let now = now(call, device)?;
        utilization.set(nvmlUtilization_t { gpu: now.gpu, memory: now.memory })
    }

    fn nvmlDeviceGetEncoderUtilization(call, device: nvmlDevice_t, utilization: *mut c_uint, samplingPeriodUs: *mut c_uint) {
        engine(&utilization, &samplingPeriodUs, now(call, device)?.encoder)
    }

    fn nvmlDeviceGetDecoderUtilization(call, device: nvmlDevice_t, utilization: *mut c_uint, samplingPeriodUs: *mut c_uint) {
        engine(&utilization, &samplingPeriodUs, now(call, device)?.decoder)
    }

    fn nvmlDeviceGetJpgUtilization(call, device: nvmlDevice_t, utilization: *mut c_uint, samplingPeriodUs: *mut c_uint) {
        now(call, device)?;
        engine(&utilization, &samplingPeriodUs, 0)
    }

    fn nvmlDeviceGetOfaUtilization(call, device: nvmlDevice_t, utilization: *mut c_uint, samplingPeriodUs: *mut c_uint) {
        now(call, device)?;
        engine(&utilization, &samplingPeriodUs, 0)
    }

    fn nvmlDeviceGetViolationStatus(call, device: nvmlDevice_t, perfPolicyType: nvmlPerfPolicyType_t, violTime: *mut nvmlViolationTime_t) {
        call.gpu(device)?;
        if perfPolicyType >= nvmlPerfPolicyType_enum_NVML_PERF_POLICY_COUNT {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        violTime.set(nvmlViolationTime_t { referenceTime: clock::unix_micros(), violationTime: 0 })
    }
}

const SAMPLE_PERIOD_US: c_uint = 167_000;

fn now(call: &Call, handle: Handle) -> Outcome<Utilization> {
    let device = call.gpu(handle)?;
    supported(!device.gpu().mig.current)?;
    Ok(device.gpu().utilization)
}

fn engine(utilization: &Out<c_uint>, period: &Out<c_uint>, percent: u32) -> Outcome {
    utilization.set(percent)?;
    period.set(SAMPLE_PERIOD_US)
}
