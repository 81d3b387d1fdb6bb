//! Memory errors and what the GPU does about them.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Out, expect_version},
    call::{Call, Device, supported},
};
use crate::{
    driver::Outcome,
    scenario::{EccCounters, MemoryLocation, RetiredPage, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetEccMode(call, device: nvmlDevice_t, current: *mut nvmlEnableState_t, pending: *mut nvmlEnableState_t) {
        let device = call.gpu(device)?;
        supported(device.product()?.ecc)?;
        current.set(device.gpu().ecc.enabled.into())?;
        pending.set(device.gpu().ecc.pending.into())
    }

    fn nvmlDeviceGetDefaultEccMode(call, device: nvmlDevice_t, defaultMode: *mut nvmlEnableState_t) {
        supported(call.gpu(device)?.product()?.ecc)?;
        defaultMode.set(1)
    }

    fn nvmlDeviceGetTotalEccErrors(call, device: nvmlDevice_t, errorType: nvmlMemoryErrorType_t, counterType: nvmlEccCounterType_t, eccCounts: *mut c_ulonglong) {
        let device = call.gpu(device)?;
        eccCounts.set(counted(&device, errorType, counterType, &MemoryLocation::ALL)?)
    }

    fn nvmlDeviceGetMemoryErrorCounter(call, device: nvmlDevice_t, errorType: nvmlMemoryErrorType_t, counterType: nvmlEccCounterType_t, locationType: nvmlMemoryLocation_t, count: *mut c_ulonglong) {
        let device = call.gpu(device)?;
        let location = MemoryLocation::ALL.get(locationType as usize).ok_or(ReturnCode::INVALID_ARGUMENT)?;
        count.set(counted(&device, errorType, counterType, &[*location])?)
    }

    fn nvmlDeviceGetDetailedEccErrors(call, device: nvmlDevice_t, errorType: nvmlMemoryErrorType_t, counterType: nvmlEccCounterType_t, eccCounts: *mut nvmlEccErrorCounts_t) {
        let device = call.gpu(device)?;
        let at = |location| counted(&device, errorType, counterType, &[location]);
        eccCounts.set(nvmlEccErrorCounts_t {
            l1Cache: at(MemoryLocation::L1)?,
            l2Cache: at(MemoryLocation::L2)?,
            deviceMemory: at(MemoryLocation::Dram)?,
            registerFile: at(MemoryLocation::RegisterFile)?,
        })
    }

    fn nvmlDeviceClearEccErrorCounts(call, device: nvmlDevice_t, counterType: nvmlEccCounterType_t) {
        let device = call.gpu(device)?;
        supported(device.product()?.ecc)?;
        call.driver.edit(|scenario| {
            let gpu = scenario.gpu_mut(device.name()).map_err(|_| ReturnCode::GPU_IS_LOST)?;
            match counterType {
                nvmlEccCounterType_enum_NVML_VOLATILE_ECC => gpu.ecc.volatile = EccCounters::default(),
                nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => gpu.ecc.aggregate = EccCounters::default(),
                _ => return Err(ReturnCode::INVALID_ARGUMENT),
            }
            Ok(())
        })
    }

    fn nvmlDeviceGetSramEccErrorStatus(call, device: nvmlDevice_t, status: *mut nvmlEccSramErrorStatus_t) {
        let device = call.gpu(device)?;
        supported(device.product()?.ecc && device.product()?.row_remap_banks > 0)?;
        let version = status.get()?.version;
        expect_version::<nvmlEccSramErrorStatus_t>(version, 1)?;
        let sram = |counters: &EccCounters, corrected: bool| {
            let counts = if corrected { &counters.corrected } else { &counters.uncorrected };
            counts.get(&MemoryLocation::Sram).copied().unwrap_or(0)
        };
        let ecc = &device.gpu().ecc;
        status.set(nvmlEccSramErrorStatus_t {
            version,
            aggregateUncParity: 0,
            aggregateUncSecDed: sram(&ecc.aggregate, false),
            aggregateCor: sram(&ecc.aggregate, true),
            volatileUncParity: 0,
            volatileUncSecDed: sram(&ecc.volatile, false),
            volatileCor: sram(&ecc.volatile, true),
            aggregateUncBucketL2: sram(&ecc.aggregate, false),
            aggregateUncBucketSm: 0,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: 0,
        })
    }

    fn nvmlDeviceGetRemappedRows(call, device: nvmlDevice_t, corrRows: *mut c_uint, uncRows: *mut c_uint, isPending: *mut c_uint, failureOccurred: *mut c_uint) {
        let device = call.gpu(device)?;
        supported(device.product()?.row_remap_banks > 0)?;
        let rows = &device.gpu().remapped_rows;
        corrRows.set(rows.correctable)?;
        uncRows.set(rows.uncorrectable)?;
        isPending.set(rows.pending.into())?;
        failureOccurred.set(rows.failed.into())
    }

    fn nvmlDeviceGetRowRemapperHistogram(call, device: nvmlDevice_t, values: *mut nvmlRowRemapperHistogramValues_t) {
        let device = call.gpu(device)?;
        let banks = device.product()?.row_remap_banks;
        supported(banks > 0)?;
        let rows = &device.gpu().remapped_rows;
        // Each remapped row costs a bank one of its spares; a failure means that a bank has none left.
        let none = u32::from(rows.failed);
        let high = (rows.correctable + rows.uncorrectable).min(banks - none);
        values.set(nvmlRowRemapperHistogramValues_t { max: banks - none - high, high, partial: 0, low: 0, none })
    }

    fn nvmlDeviceGetRepairStatus(call, device: nvmlDevice_t, repairStatus: *mut nvmlRepairStatus_t) {
        let device = call.gpu(device)?;
        supported(device.product()?.row_remap_banks > 0)?;
        let mut status = repairStatus.get()?;
        expect_version::<nvmlRepairStatus_t>(status.version, 1)?;
        status.bChannelRepairPending = 0;
        status.bTpcRepairPending = 0;
        repairStatus.set(status)
    }

    fn nvmlDeviceGetRetiredPages(call, device: nvmlDevice_t, cause: nvmlPageRetirementCause_t, pageCount: *mut c_uint, addresses: *mut c_ulonglong) {
        retired(call, device, cause)?.list(&pageCount, &addresses, None)
    }

    fn nvmlDeviceGetRetiredPages_v2(call, device: nvmlDevice_t, cause: nvmlPageRetirementCause_t, pageCount: *mut c_uint, addresses: *mut c_ulonglong, timestamps: *mut c_ulonglong) {
        retired(call, device, cause)?.list(&pageCount, &addresses, Some(&timestamps))
    }

    fn nvmlDeviceGetRetiredPagesPendingStatus(call, device: nvmlDevice_t, isPending: *mut nvmlEnableState_t) {
        let device = call.gpu(device)?;
        retires_pages(&device)?;
        isPending.set(device.gpu().retired_pages.iter().any(|page| page.pending).into())
    }
}

/// The sum of a counter over locations.
pub(super) fn counted(device: &Device, errors: u32, counters: u32, locations: &[MemoryLocation]) -> Outcome<u64> {
    let ecc = &device.gpu().ecc;
    let counters = match counters {
        nvmlEccCounterType_enum_NVML_VOLATILE_ECC => &ecc.volatile,
        nvmlEccCounterType_enum_NVML_AGGREGATE_ECC => &ecc.aggregate,
        _ => return Err(ReturnCode::INVALID_ARGUMENT),
    };
    let by_location = match errors {
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED => &counters.corrected,
        nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED => &counters.uncorrected,
        _ => return Err(ReturnCode::INVALID_ARGUMENT),
    };
    supported(device.product()?.ecc && ecc.enabled)?;
    Ok(locations.iter().filter_map(|location| by_location.get(location)).sum())
}

/// Products that remap rows retire no pages.
pub(super) fn retires_pages(device: &Device) -> Outcome {
    let product = device.product()?;
    supported(product.ecc && product.row_remap_banks == 0)
}

struct Pages(Vec<RetiredPage>);

fn retired(call: &Call, handle: super::boundary::Handle, cause: u32) -> Outcome<Pages> {
    let device = call.gpu(handle)?;
    retires_pages(&device)?;
    let double_bit = match cause {
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS => false,
        nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR => true,
        _ => return Err(ReturnCode::INVALID_ARGUMENT),
    };
    let pages = device.gpu().retired_pages.iter();
    Ok(Pages(
        pages.filter(|page| page.double_bit == double_bit).cloned().collect(),
    ))
}

impl Pages {
    /// Callers that only ask for the number leave `timestamps` undefined: it is not looked at then.
    fn list(&self, count: &Out<c_uint>, addresses: &Out<u64>, timestamps: Option<&Out<u64>>) -> Outcome {
        let column = |of: fn(&RetiredPage) -> u64| self.0.iter().map(of).collect::<Vec<_>>();
        addresses.list(count, &column(|page| page.address))?;
        match timestamps {
            Some(timestamps) => timestamps.fill(&column(|page| page.timestamp_us)),
            None => Ok(()),
        }
    }
}
