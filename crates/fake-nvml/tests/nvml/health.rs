//! How a GPU does: errors, heat, power, clocks, advice.

use berth_fake_nvml::scenario::{MemoryLocation, ReturnCode};
use nvml_wrapper::{
    bitmasks::device::ThrottleReasons,
    enum_wrappers::device::{
        Clock, ComputeMode, EccCounter, MemoryError, MemoryLocation as Location, PerformanceState, RetirementCause,
        TemperatureSensor, TemperatureThreshold,
    },
    enums::device::SampleValue,
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id::*,
};

use crate::rig::{Rig, code};

#[test]
fn memory_errors_are_counted_by_kind_life_and_place() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(1).unwrap();
    let mode = gpu.is_ecc_enabled().unwrap();
    assert!(mode.currently_enabled && mode.pending_enabled);
    rig.edit(|scenario| {
        scenario.ecc("1", false, MemoryLocation::Dram, 2)?;
        scenario.ecc("1", true, MemoryLocation::Sram, 5)
    });
    let total = |error, counter| gpu.total_ecc_errors(error, counter).unwrap();
    assert_eq!(total(MemoryError::Uncorrected, EccCounter::Volatile), 2);
    assert_eq!(total(MemoryError::Corrected, EccCounter::Aggregate), 5);
    let at = |location| {
        gpu.memory_error_counter(MemoryError::Uncorrected, EccCounter::Aggregate, location)
            .unwrap()
    };
    assert_eq!((at(Location::Device), at(Location::SRAM)), (2, 0));
    rig.set(1, "ecc.enabled", "false");
    let off = gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile);
    assert!(matches!(off, Err(NvmlError::NotSupported)));
}

#[test]
fn rows_are_remapped_from_ampere_on() {
    let rig = Rig::new("dgx-h100");
    rig.set(
        0,
        "remapped_rows",
        r#"{"correctable": 1, "uncorrectable": 2, "pending": true, "failed": true}"#,
    );
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let (mut correctable, mut uncorrectable, mut pending, mut failed) = (9, 9, 9, 9);
    // SAFETY: the handle is alive and the four outlive the call.
    let raw = unsafe {
        nvml.lib().nvmlDeviceGetRemappedRows(
            gpu.handle(),
            &raw mut correctable,
            &raw mut uncorrectable,
            &raw mut pending,
            &raw mut failed,
        )
    };
    assert_eq!(code(raw), ReturnCode::SUCCESS);
    assert_eq!((correctable, uncorrectable, pending, failed), (1, 2, 1, 1));
    let pages = gpu.retired_pages(RetirementCause::DoubleBitEccError);
    assert!(matches!(pages, Err(NvmlError::NotSupported)));
}

#[test]
fn pages_are_retired_before_ampere() {
    let rig = Rig::new("t4");
    rig.set(
        0,
        "retired_pages",
        r#"[{"address": 4096, "timestamp_us": 17, "double_bit": true}, {"address": 8192, "pending": true}]"#,
    );
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let pages = gpu.retired_pages(RetirementCause::DoubleBitEccError).unwrap();
    assert_eq!(pages.len(), 1);
    assert_eq!((pages[0].address, pages[0].timestamp), (4096, 17));
    assert!(gpu.are_pages_pending_retired().unwrap());
}

#[test]
fn telemetry_is_what_the_file_says() {
    let rig = Rig::new("dgx-a100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    for (key, value) in [
        ("temperature_c", "77"),
        ("power_mw", "312000"),
        ("power_limit_mw", "350000"),
        ("energy_mj", "123456"),
        ("utilization", r#"{"gpu": 93, "memory": 41}"#),
        ("clocks.sm", "1410"),
        ("clocks_event_reasons", r#"["sw_power_cap", "hw_thermal_slowdown"]"#),
        ("compute_mode", "exclusive_process"),
    ] {
        rig.set(0, key, value);
    }
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 77);
    assert_eq!(gpu.temperature_threshold(TemperatureThreshold::Shutdown).unwrap(), 92);
    assert_eq!(gpu.power_usage().unwrap(), 312_000);
    assert_eq!(gpu.enforced_power_limit().unwrap(), 350_000);
    assert_eq!(gpu.power_management_limit_default().unwrap(), 400_000);
    assert_eq!(gpu.total_energy_consumption().unwrap(), 123_456);
    let utilization = gpu.utilization_rates().unwrap();
    assert_eq!((utilization.gpu, utilization.memory), (93, 41));
    assert_eq!(gpu.clock_info(Clock::SM).unwrap(), 1410);
    assert_eq!(gpu.max_clock_info(Clock::Memory).unwrap(), 1593);
    let reasons = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN;
    assert_eq!(gpu.current_throttle_reasons().unwrap(), reasons);
    assert!(gpu.supported_throttle_reasons_strict().unwrap().contains(reasons));
    assert_eq!(gpu.compute_mode().unwrap(), ComputeMode::ExclusiveProcess);
    assert_eq!(gpu.performance_state().unwrap(), PerformanceState::Zero);
    assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)));
}

fn field(rig: &Rig, id: u32) -> Result<SampleValue, NvmlError> {
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    gpu.field_values_for(&[FieldId(id)]).unwrap().remove(0).unwrap().value
}

#[test]
fn fields_answer_one_by_one() {
    let rig = Rig::new("dgx-h100");
    rig.set(0, "recovery_action", "drain_and_reset");
    rig.set(0, "memory_temperature_c", "88");
    rig.edit(|scenario| scenario.ecc("0", false, MemoryLocation::Dram, 3));
    let number = |id| match field(&rig, id) {
        Ok(SampleValue::U32(value)) => u64::from(value),
        Ok(SampleValue::U64(value)) => value,
        other => panic!("field {id}: {other:?}"),
    };
    assert_eq!(number(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION), 4);
    assert_eq!(number(NVML_FI_DEV_MEMORY_TEMP), 88);
    assert_eq!(number(NVML_FI_DEV_ECC_DBE_VOL_TOTAL), 3);
    assert_eq!(number(NVML_FI_DEV_ECC_DBE_AGG_DEV), 3);
    assert_eq!(number(NVML_FI_DEV_ECC_SBE_AGG_DEV), 0);
    assert_eq!(number(NVML_FI_DEV_NVLINK_LINK_COUNT), 18);
    assert_eq!(number(NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON), 26562);
    assert_eq!(number(NVML_FI_DEV_POWER_CURRENT_LIMIT), 700_000);
    assert!(matches!(
        field(&rig, NVML_FI_DEV_RETIRED_DBE),
        Err(NvmlError::NotSupported)
    ));
    assert!(matches!(field(&rig, 9999), Err(NvmlError::NotSupported)));
}

/// The wrapper numbers these fields as drivers before 580.82 did and translates for later ones.
#[test]
fn renumbered_fields_are_answered_under_either_driver() {
    for driver in ["570.86.15", "580.95.05"] {
        let rig = Rig::new("dgx-h100");
        rig.edit(|scenario| {
            scenario.driver = berth_fake_nvml::scenario::Driver::at(driver);
            scenario.set("0", "clocks_event_reasons", r#"["hw_thermal_slowdown"]"#)
        });
        let of = |id| match field(&rig, id).unwrap() {
            SampleValue::U64(nanoseconds) => nanoseconds,
            other => panic!("{other:?}"),
        };
        assert!(of(NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN) > 0, "{driver}");
        assert_eq!(of(NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN), 0, "{driver}");
    }
}
