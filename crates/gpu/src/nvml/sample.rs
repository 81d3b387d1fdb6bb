//! One reading of a GPU.

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor},
    enums::device::SampleValue,
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id,
};
use nvml_wrapper_sys::bindings as sys;

use super::{error::Asking, facts, raw};
use crate::{
    GpuError,
    inventory::{RecoveryAction, Sample, ThrottleReason},
};

/// Everything that the GPU tells. Fails if it tells nothing at all.
pub(super) fn read(device: &Device<'_>, ask: &Asking) -> Result<Sample, GpuError> {
    let ecc = |error| ask.may(|| device.total_ecc_errors(error, EccCounter::Volatile));
    let remapped_rows = ask.may(|| raw::remapped_rows(device))?;
    let page_retirement_pending = match remapped_rows {
        Some(_) => None,
        None => ask.may(|| device.are_pages_pending_retired())?,
    };
    let utilization = ask.may(|| device.utilization_rates())?;
    let sample = Sample {
        sampled_unix_ms: 0,
        temperature_celsius: ask.may(|| device.temperature(TemperatureSensor::Gpu))?,
        power_milliwatt: ask.may(|| device.power_usage())?,
        power_limit_milliwatt: ask.may(|| device.enforced_power_limit())?,
        gpu_utilization_percent: utilization.as_ref().map(|rates| rates.gpu),
        memory_utilization_percent: utilization.as_ref().map(|rates| rates.memory),
        memory_used: facts::memory(device, ask)?.map(|(_, used)| used),
        throttle: ask
            .may(|| raw::clocks_event_reasons(device))?
            .map(throttle_reasons)
            .unwrap_or_default(),
        ecc_corrected_total: ecc(MemoryError::Corrected)?,
        ecc_uncorrected_total: ecc(MemoryError::Uncorrected)?,
        remapped_rows,
        page_retirement_pending,
        recovery_action: ask.may(|| recovery_action(device))?,
    };
    if sample == Sample::default() {
        // Some GPU somewhere may truly tell nothing of this; whether it is there, every one tells.
        ask.must(|| device.uuid())?;
    }
    Ok(sample)
}

fn recovery_action(device: &Device<'_>) -> Result<RecoveryAction, NvmlError> {
    let field = FieldId(field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
    let values = device.field_values_for(&[field])?;
    let value = values.into_iter().next().ok_or(NvmlError::NoData)??.value?;
    let code = match value {
        SampleValue::U32(code) => code,
        SampleValue::U64(code) => u32::try_from(code).unwrap_or(u32::MAX),
        SampleValue::I64(code) => u32::try_from(code).unwrap_or(u32::MAX),
        SampleValue::F64(_) => return Err(NvmlError::NoData),
    };
    Ok(action_of(code))
}

/// `nvmlDeviceGpuRecoveryAction_t`; the last three are newer than the bindings.
const fn action_of(code: u32) -> RecoveryAction {
    match code {
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NONE => RecoveryAction::None,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_GPU_RESET => RecoveryAction::GpuReset,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_NODE_REBOOT => RecoveryAction::NodeReboot,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_P2P => RecoveryAction::DrainP2P,
        sys::nvmlDeviceGpuRecoveryAction_s_NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET => RecoveryAction::DrainAndReset,
        5 => RecoveryAction::RecoverImexDomain,
        6 => RecoveryAction::BusReset,
        7 => RecoveryAction::SystemReboot,
        other => RecoveryAction::Other(other),
    }
}

fn throttle_reasons(bits: u64) -> Vec<ThrottleReason> {
    const REASONS: [(u32, ThrottleReason); 5] = [
        (sys::nvmlClocksEventReasonSwPowerCap, ThrottleReason::SwPowerCap),
        (sys::nvmlClocksThrottleReasonHwSlowdown, ThrottleReason::HwSlowdown),
        (
            sys::nvmlClocksEventReasonSwThermalSlowdown,
            ThrottleReason::SwThermalSlowdown,
        ),
        (
            sys::nvmlClocksThrottleReasonHwThermalSlowdown,
            ThrottleReason::HwThermalSlowdown,
        ),
        (
            sys::nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
            ThrottleReason::HwPowerBrake,
        ),
    ];
    let set = REASONS.iter().filter(|(bit, _)| bits & u64::from(*bit) != 0);
    set.map(|(_, reason)| *reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reasons_that_hold_clocks_back_are_told() {
        assert!(
            throttle_reasons(0x1 | 0x2 | 0x10 | 0x100).is_empty(),
            "idle and settings on purpose"
        );
        assert_eq!(
            throttle_reasons(0x48),
            [ThrottleReason::HwSlowdown, ThrottleReason::HwThermalSlowdown]
        );
    }

    #[test]
    fn recovery_actions_are_those_of_the_header() {
        let names: Vec<_> = (0..9).map(|code| action_of(code).as_str()).collect();
        let expected = [
            "None",
            "GpuReset",
            "NodeReboot",
            "DrainP2P",
            "DrainAndReset",
            "RecoverImexDomain",
            "BusReset",
            "SystemReboot",
            "Other",
        ];
        assert_eq!(names, expected);
    }
}
