//! Power and heat.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Out, expect_version},
    call::{Call, Device},
};
use crate::{driver::Outcome, scenario::ReturnCode};

super::nvml! {
    fn nvmlDeviceGetTemperature(call, device: nvmlDevice_t, sensorType: nvmlTemperatureSensors_t, temp: *mut c_uint) {
        let device = call.gpu(device)?;
        only_gpu_sensor(sensorType)?;
        temp.set(device.gpu().temperature_c)
    }

    fn nvmlDeviceGetTemperatureV(call, device: nvmlDevice_t, temperature: *mut nvmlTemperature_v1_t) {
        let device = call.gpu(device)?;
        let mut wanted = temperature.get()?;
        expect_version::<nvmlTemperature_v1_t>(wanted.version, 1)?;
        only_gpu_sensor(wanted.sensorType)?;
        wanted.temperature = degrees(device.gpu().temperature_c);
        temperature.set(wanted)
    }

    fn nvmlDeviceGetTemperatureThreshold(call, device: nvmlDevice_t, thresholdType: nvmlTemperatureThresholds_t, temp: *mut c_uint) {
        let device = call.gpu(device)?;
        let limits = device.product()?.temperature_c;
        temp.set(match thresholdType {
            nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => limits.shutdown,
            nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => limits.slowdown,
            nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => limits.memory_max,
            nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => limits.gpu_max,
            4..nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT => return Err(ReturnCode::NOT_SUPPORTED),
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        })
    }

    fn nvmlDeviceGetMarginTemperature(call, device: nvmlDevice_t, marginTempInfo: *mut nvmlMarginTemperature_t) {
        let device = call.gpu(device)?;
        let mut info = marginTempInfo.get()?;
        expect_version::<nvmlMarginTemperature_t>(info.version, 1)?;
        info.marginTemperature = degrees(device.product()?.temperature_c.gpu_max) - degrees(device.gpu().temperature_c);
        marginTempInfo.set(info)
    }

    fn nvmlDeviceGetPowerUsage(call, device: nvmlDevice_t, power: *mut c_uint) {
        power.set(call.gpu(device)?.gpu().power_mw)
    }

    fn nvmlDeviceGetPowerManagementMode(call, device: nvmlDevice_t, mode: *mut nvmlEnableState_t) {
        call.gpu(device)?;
        mode.set(1)
    }

    fn nvmlDeviceGetPowerManagementLimit(call, device: nvmlDevice_t, limit: *mut c_uint) {
        limit.set(power_limit(&call.gpu(device)?)?)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(call, device: nvmlDevice_t, limit: *mut c_uint) {
        limit.set(power_limit(&call.gpu(device)?)?)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(call, device: nvmlDevice_t, defaultLimit: *mut c_uint) {
        defaultLimit.set(call.gpu(device)?.product()?.power_mw.default)
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(call, device: nvmlDevice_t, minLimit: *mut c_uint, maxLimit: *mut c_uint) {
        let device = call.gpu(device)?;
        minLimit.set(device.product()?.power_mw.min)?;
        maxLimit.set(device.product()?.power_mw.max)
    }

    fn nvmlDeviceGetTotalEnergyConsumption(call, device: nvmlDevice_t, energy: *mut c_ulonglong) {
        energy.set(call.gpu(device)?.gpu().energy_mj)
    }

    fn nvmlDeviceGetPowerSource(call, device: nvmlDevice_t, powerSource: *mut nvmlPowerSource_t) {
        call.gpu(device)?;
        powerSource.set(NVML_POWER_SOURCE_AC)
    }

    fn nvmlDeviceGetNumFans(call, device: nvmlDevice_t, numFans: *mut c_uint) {
        numFans.set(call.gpu(device)?.product()?.fans)
    }

    fn nvmlDeviceGetFanSpeed(call, device: nvmlDevice_t, speed: *mut c_uint) {
        fan(call, device, 0, &speed)
    }

    fn nvmlDeviceGetFanSpeed_v2(call, device: nvmlDevice_t, fan: c_uint, speed: *mut c_uint) {
        self::fan(call, device, fan, &speed)
    }
}

fn only_gpu_sensor(sensor: u32) -> Outcome {
    match sensor {
        nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU => Ok(()),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

fn degrees(celsius: u32) -> c_int {
    c_int::try_from(celsius).unwrap_or(c_int::MAX)
}

pub(super) fn power_limit(device: &Device) -> Outcome<u32> {
    Ok(device
        .gpu()
        .power_limit_mw
        .unwrap_or(device.product()?.power_mw.default))
}

/// Percent. Boards without fans are cooled by the machine.
fn fan(call: &Call, handle: super::boundary::Handle, fan: c_uint, speed: &Out<c_uint>) -> Outcome {
    let device = call.gpu(handle)?;
    match device.product()?.fans {
        0 => Err(ReturnCode::NOT_SUPPORTED),
        fans if fan < fans => speed.set(30),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}
