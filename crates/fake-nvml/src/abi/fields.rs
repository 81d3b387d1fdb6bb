//! Field values: many numbers in one call, each with a result of its own.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{field_id::*, *};

use super::{
    call::{Device, supported},
    clocks::reason_bits,
    ecc::{counted, retires_pages},
    nvlink::{link_mbps, version_code},
    power::power_limit,
};
use crate::{
    clock,
    driver::Outcome,
    scenario::{ClocksEventReason, MemoryLocation, RecoveryAction, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetFieldValues(call, device: nvmlDevice_t, valuesCount: c_int, values: *mut nvmlFieldValue_t) {
        let device = call.gpu(device)?;
        let count = usize::try_from(valuesCount).ok().filter(|count| *count > 0).ok_or(ReturnCode::INVALID_ARGUMENT)?;
        let mut fields = values.row(count)?;
        for field in &mut fields {
            answer(&device, field);
        }
        values.fill(&fields)
    }

    fn nvmlDeviceClearFieldValues(call, device: nvmlDevice_t, valuesCount: c_int, values: *mut nvmlFieldValue_t) {
        call.gpu(device)?;
        let count = usize::try_from(valuesCount).ok().filter(|count| *count > 0).ok_or(ReturnCode::INVALID_ARGUMENT)?;
        let mut fields = values.row(count)?;
        for field in &mut fields {
            field.nvmlReturn = ReturnCode::NOT_SUPPORTED.raw();
        }
        values.fill(&fields)
    }
}

/// A value in the type that NVML documents for the field.
enum Value {
    Uint(u32),
    Ulonglong(u64),
}

impl Value {
    fn flag(on: bool) -> Self {
        Self::Uint(on.into())
    }
}

fn answer(device: &Device, field: &mut nvmlFieldValue_t) {
    field.timestamp = i64::try_from(clock::unix_micros()).unwrap_or(i64::MAX);
    field.latencyUsec = 1;
    let (code, kind, value) = match value_of(device, field.fieldId, field.scopeId) {
        Ok(Value::Uint(number)) => (
            ReturnCode::SUCCESS,
            nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT,
            number.into(),
        ),
        Ok(Value::Ulonglong(number)) => (
            ReturnCode::SUCCESS,
            nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
            number,
        ),
        Err(code) => (code, nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, 0),
    };
    field.nvmlReturn = code.raw();
    field.valueType = kind;
    // All of the union at once; the narrower members are its first bytes.
    field.value = nvmlValue_t { ullVal: value };
}

fn value_of(device: &Device, field: u32, scope: u32) -> Outcome<Value> {
    let (gpu, product) = (device.gpu(), device.product()?);
    let ecc = product.ecc;
    match field {
        NVML_FI_DEV_ECC_CURRENT => supported(ecc).map(|()| Value::flag(gpu.ecc.enabled)),
        NVML_FI_DEV_ECC_PENDING => supported(ecc).map(|()| Value::flag(gpu.ecc.pending)),
        NVML_FI_DEV_ECC_SBE_VOL_TOTAL..=NVML_FI_DEV_ECC_DBE_AGG_CBU => ecc_field(device, field),
        NVML_FI_DEV_RETIRED_SBE | NVML_FI_DEV_RETIRED_DBE => {
            retires_pages(device)?;
            let double_bit = field == NVML_FI_DEV_RETIRED_DBE;
            let pages = gpu.retired_pages.iter().filter(|page| page.double_bit == double_bit);
            Ok(Value::Ulonglong(pages.count() as u64))
        }
        NVML_FI_DEV_RETIRED_PENDING => {
            retires_pages(device)?;
            Ok(Value::flag(gpu.retired_pages.iter().any(|page| page.pending)))
        }
        NVML_FI_DEV_REMAPPED_COR => remapped(device, gpu.remapped_rows.correctable),
        NVML_FI_DEV_REMAPPED_UNC => remapped(device, gpu.remapped_rows.uncorrectable),
        NVML_FI_DEV_REMAPPED_PENDING => remapped(device, gpu.remapped_rows.pending.into()),
        NVML_FI_DEV_REMAPPED_FAILURE => remapped(device, gpu.remapped_rows.failed.into()),
        NVML_FI_DEV_MEMORY_TEMP => Ok(Value::Uint(gpu.memory_temperature_c)),
        NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION | NVML_FI_DEV_ENERGY => Ok(Value::Ulonglong(gpu.energy_mj)),
        NVML_FI_DEV_POWER_AVERAGE | NVML_FI_DEV_POWER_INSTANT => Ok(Value::Uint(gpu.power_mw)),
        NVML_FI_DEV_POWER_MIN_LIMIT => Ok(Value::Uint(product.power_mw.min)),
        NVML_FI_DEV_POWER_MAX_LIMIT => Ok(Value::Uint(product.power_mw.max)),
        NVML_FI_DEV_POWER_DEFAULT_LIMIT => Ok(Value::Uint(product.power_mw.default)),
        NVML_FI_DEV_POWER_CURRENT_LIMIT | NVML_FI_DEV_POWER_REQUESTED_LIMIT => Ok(Value::Uint(power_limit(device)?)),
        NVML_FI_DEV_PCIE_REPLAY_COUNTER => Ok(Value::Uint(gpu.pcie_replays)),
        NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED | NVML_FI_DEV_IS_MIG_MODE_INDEPENDENT_MIG_QUERY_CAPABLE => {
            Ok(Value::flag(!product.mig_profiles.is_empty()))
        }
        NVML_FI_DEV_C2C_LINK_COUNT => Ok(Value::Uint(if product.c2c { 10 } else { 0 })),
        NVML_FI_DEV_RESET_STATUS => Ok(Value::flag(gpu.recovery_action == RecoveryAction::GpuReset)),
        NVML_FI_DEV_DRAIN_AND_RESET_STATUS => Ok(Value::flag(gpu.recovery_action == RecoveryAction::DrainAndReset)),
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => Ok(Value::Uint(gpu.recovery_action as u32)),
        _ => nvlink_field(device, field, scope).or_else(|code| match code {
            ReturnCode::NOT_FOUND => clocks_event_field(device, field),
            code => Err(code),
        }),
    }
}

fn remapped(device: &Device, rows: u32) -> Outcome<Value> {
    supported(device.product()?.row_remap_banks > 0)?;
    Ok(Value::Uint(rows))
}

/// Fields 3 to 28: totals, then pairs of single and double bit by location, volatile before aggregate.
fn ecc_field(device: &Device, field: u32) -> Outcome<Value> {
    use MemoryLocation::{Cbu, Dram, L1, L2, RegisterFile, Texture};
    const VOLATILE: u32 = nvmlEccCounterType_enum_NVML_VOLATILE_ECC;
    const AGGREGATE: u32 = nvmlEccCounterType_enum_NVML_AGGREGATE_ECC;
    const PAIRS: [MemoryLocation; 5] = [L1, L2, Dram, RegisterFile, Texture];
    let pair = |first: u32, counters| {
        let location = PAIRS[((field - first) / 2) as usize];
        counted(device, (field - first) % 2, counters, &[location])
    };
    let count = match field {
        NVML_FI_DEV_ECC_SBE_VOL_TOTAL..=NVML_FI_DEV_ECC_DBE_AGG_TOTAL => {
            let at = field - NVML_FI_DEV_ECC_SBE_VOL_TOTAL;
            counted(device, at % 2, at / 2, &MemoryLocation::ALL)
        }
        NVML_FI_DEV_ECC_SBE_VOL_L1..=NVML_FI_DEV_ECC_DBE_VOL_TEX => pair(NVML_FI_DEV_ECC_SBE_VOL_L1, VOLATILE),
        NVML_FI_DEV_ECC_DBE_VOL_CBU => counted(device, 1, VOLATILE, &[Cbu]),
        NVML_FI_DEV_ECC_SBE_AGG_L1..=NVML_FI_DEV_ECC_DBE_AGG_TEX => pair(NVML_FI_DEV_ECC_SBE_AGG_L1, AGGREGATE),
        _ => counted(device, 1, AGGREGATE, &[Cbu]),
    };
    count.map(Value::Ulonglong)
}

/// `NOT_FOUND` for fields that are about something else. The scope of most is a link.
fn nvlink_field(device: &Device, field: u32, link: u32) -> Outcome<Value> {
    let links = &device.gpu().nvlink;
    let generation = device.product()?.nvlink_generation;
    let linked = || supported(links.count() > 0);
    let of_link = |value: u32| {
        linked()?;
        if link >= links.count() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        Ok(Value::Uint(value))
    };
    match field {
        NVML_FI_DEV_NVLINK_LINK_COUNT => Ok(Value::Uint(links.count())),
        NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON => linked().map(|()| Value::Uint(link_mbps(generation))),
        NVML_FI_DEV_NVLINK_GET_SPEED => of_link(if links.is_up(link) { link_mbps(generation) } else { 0 }),
        NVML_FI_DEV_NVLINK_GET_STATE => of_link(links.is_up(link).into()),
        NVML_FI_DEV_NVLINK_GET_VERSION => of_link(version_code(generation)),
        NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY => {
            of_link(0)?;
            Ok(Value::Ulonglong(links.recoveries.get(&link).copied().unwrap_or(0)))
        }
        NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL => {
            linked().map(|()| Value::Ulonglong(links.recoveries.values().sum()))
        }
        NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL
        | NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL
        | NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL => linked().map(|()| Value::Ulonglong(0)),
        NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY | NVML_FI_DEV_NVLINK_ERROR_DL_CRC => {
            of_link(0)?;
            Ok(Value::Ulonglong(0))
        }
        _ => Err(ReturnCode::NOT_FOUND),
    }
}

/// Nanoseconds spent in three slowdowns. Their ids moved when driver 580.82 put power smoothing in front of them.
fn clocks_event_field(device: &Device, field: u32) -> Outcome<Value> {
    const OLD: u32 = NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN;
    const MOVED: u32 = OLD + 18;
    let first = if device.scenario.driver.renumbered_fields() {
        MOVED
    } else {
        OLD
    };
    let reasons = [
        ClocksEventReason::SwThermalSlowdown,
        ClocksEventReason::HwThermalSlowdown,
        ClocksEventReason::HwPowerBrakeSlowdown,
    ];
    let at = field.checked_sub(first).ok_or(ReturnCode::NOT_SUPPORTED)?;
    let reason = reasons.get(at as usize).ok_or(ReturnCode::NOT_SUPPORTED)?;
    // The scenario knows that a slowdown is on, not for how long: a second then.
    let on = reason_bits(&device.gpu().clocks_event_reasons) & reason.bit() != 0;
    Ok(Value::Ulonglong(if on { 1_000_000_000 } else { 0 }))
}
