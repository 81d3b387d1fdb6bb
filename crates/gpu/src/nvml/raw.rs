//! NVML functions that `nvml-wrapper` does not wrap (or wraps wrongly). The only `unsafe` of this crate.
//!
//! Each function checks that the library has the symbol, passes valid pointers, and looks at the return code before it
//! looks at the result. Device handles come from live [`Device`] values, whose lifetime keeps the library open.
#![allow(unsafe_code, reason = "calls into the driver's C library")]

use std::{marker::PhantomData, ptr};

use nvml_wrapper::{
    Device, Nvml,
    error::{NvmlError, nvml_sym, nvml_try},
};
use nvml_wrapper_sys::bindings as sys;

use crate::inventory::RemappedRows;

/// Total and used bytes.
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) used: u64,
}

/// A GPU's registration with an NVLink fabric.
pub(super) struct FabricInfo {
    pub(super) cluster: [u8; 16],
    pub(super) clique: u32,
    /// Registration is complete and succeeded.
    pub(super) ready: bool,
}

/// Identifies a device among those of a session, also when it answers nothing any more.
pub(super) fn key(device: &Device<'_>) -> usize {
    // SAFETY: the handle is only compared.
    unsafe { device.handle() }.addr()
}

/// Calls `$function` of the device's library with the handle of `$device` and the further arguments.
macro_rules! ask_device {
    ($device:expr, $function:ident $(, $argument:expr)*) => {{
        let function = nvml_sym($device.nvml().lib().$function.as_ref())?;
        // SAFETY: the symbol is of this signature by NVIDIA's header, the handle is alive as long as `$device`, and the
        // other arguments are pointers to locals.
        nvml_try(unsafe { function($device.handle() $(, $argument)*) })
    }};
}

/// Drivers before 510 know only the first version of the memory info, which counts reserved memory as used.
pub(super) fn memory_v1(device: &Device<'_>) -> Result<Memory, NvmlError> {
    let mut memory = sys::nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    ask_device!(device, nvmlDeviceGetMemoryInfo, &raw mut memory)?;
    Ok(Memory {
        total: memory.total,
        used: memory.used,
    })
}

pub(super) fn remapped_rows(device: &Device<'_>) -> Result<RemappedRows, NvmlError> {
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    ask_device!(
        device,
        nvmlDeviceGetRemappedRows,
        &raw mut corrected,
        &raw mut uncorrected,
        &raw mut pending,
        &raw mut failed
    )?;
    Ok(RemappedRows {
        corrected,
        uncorrected,
        pending: pending != 0,
        failed: failed != 0,
    })
}

/// `nvmlClocksEventReason…` bits, by the name of older drivers where there is no newer one.
pub(super) fn clocks_event_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let mut bits = 0;
    if device.nvml().lib().nvmlDeviceGetCurrentClocksEventReasons.is_ok() {
        ask_device!(device, nvmlDeviceGetCurrentClocksEventReasons, &raw mut bits)?;
    } else {
        ask_device!(device, nvmlDeviceGetCurrentClocksThrottleReasons, &raw mut bits)?;
    }
    Ok(bits)
}

/// Of a MIG device.
pub(super) fn gpu_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut id = 0;
    ask_device!(device, nvmlDeviceGetGpuInstanceId, &raw mut id)?;
    Ok(id)
}

/// Of a MIG device.
pub(super) fn compute_instance(device: &Device<'_>) -> Result<u32, NvmlError> {
    let mut id = 0;
    ask_device!(device, nvmlDeviceGetComputeInstanceId, &raw mut id)?;
    Ok(id)
}

/// All bits: the wrapper drops those that it does not know.
pub(super) fn supported_events(device: &Device<'_>) -> Result<u64, NvmlError> {
    let mut bits = 0;
    ask_device!(device, nvmlDeviceGetSupportedEventTypes, &raw mut bits)?;
    Ok(bits)
}

pub(super) fn fabric(device: &Device<'_>) -> Result<FabricInfo, NvmlError> {
    let mut info = sys::nvmlGpuFabricInfo_v2_t {
        version: version_of::<sys::nvmlGpuFabricInfo_v2_t>(2),
        clusterUuid: [0; 16],
        status: 0,
        cliqueId: 0,
        state: 0,
        healthMask: 0,
    };
    // The function takes any version; the second is the first that it took.
    ask_device!(device, nvmlDeviceGetGpuFabricInfoV, (&raw mut info).cast())?;
    Ok(FabricInfo {
        cluster: info.clusterUuid,
        clique: info.cliqueId,
        ready: u32::from(info.state) == sys::NVML_GPU_FABRIC_STATE_COMPLETED
            && info.status == sys::nvmlReturn_enum_NVML_SUCCESS,
    })
}

/// Tells of GPUs that the driver takes or lets go. Drivers since R560 or so, on Linux.
pub(super) struct SystemEvents<'nvml> {
    nvml: &'nvml Nvml,
    set: sys::nvmlSystemEventSet_t,
    /// The set belongs to the thread that made it.
    _not_send: PhantomData<*const ()>,
}

impl<'nvml> SystemEvents<'nvml> {
    pub(super) fn register(nvml: &'nvml Nvml) -> Result<Self, NvmlError> {
        let create = nvml_sym(nvml.lib().nvmlSystemEventSetCreate.as_ref())?;
        let register = nvml_sym(nvml.lib().nvmlSystemRegisterEvents.as_ref())?;
        nvml_sym(nvml.lib().nvmlSystemEventSetWait.as_ref())?;
        nvml_sym(nvml.lib().nvmlSystemEventSetFree.as_ref())?;
        let mut request = sys::nvmlSystemEventSetCreateRequest_t {
            version: version_of::<sys::nvmlSystemEventSetCreateRequest_t>(1),
            set: ptr::null_mut(),
        };
        // SAFETY: of this signature by NVIDIA's header; the request is a local of the version that it says.
        nvml_try(unsafe { create(&raw mut request) })?;
        // From here on the set is freed on drop.
        let events = Self {
            nvml,
            set: request.set,
            _not_send: PhantomData,
        };
        let mut request = sys::nvmlSystemRegisterEventRequest_t {
            version: version_of::<sys::nvmlSystemRegisterEventRequest_t>(1),
            eventTypes: u64::from(sys::nvmlSystemEventTypeGpuDriverBind | sys::nvmlSystemEventTypeGpuDriverUnbind),
            set: events.set,
        };
        // SAFETY: as above; the set was just created.
        nvml_try(unsafe { register(&raw mut request) })?;
        Ok(events)
    }

    /// Whether anything happened since the last time; does not wait.
    pub(super) fn poll(&self) -> Result<bool, NvmlError> {
        let wait = nvml_sym(self.nvml.lib().nvmlSystemEventSetWait.as_ref())?;
        let mut data = [sys::nvmlSystemEventData_v1_t { eventType: 0, gpuId: 0 }; 8];
        let mut request = sys::nvmlSystemEventSetWaitRequest_t {
            version: version_of::<sys::nvmlSystemEventSetWaitRequest_t>(1),
            timeoutms: 0,
            set: self.set,
            data: data.as_mut_ptr(),
            dataSize: 8,
            numEvent: 0,
        };
        // SAFETY: of this signature by NVIDIA's header; the set is alive, and `data` has room for `dataSize` events.
        match nvml_try(unsafe { wait(&raw mut request) }) {
            Ok(()) => Ok(request.numEvent > 0),
            Err(NvmlError::Timeout) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SystemEvents<'_> {
    fn drop(&mut self) {
        let mut request = sys::nvmlSystemEventSetFreeRequest_t {
            version: version_of::<sys::nvmlSystemEventSetFreeRequest_t>(1),
            set: self.set,
        };
        if let Ok(free) = nvml_sym(self.nvml.lib().nvmlSystemEventSetFree.as_ref()) {
            // SAFETY: of this signature by NVIDIA's header; the set is alive and not used again. That it may fail, when the
            // driver is gone, does not matter: then the set is gone too.
            let _: sys::nvmlReturn_t = unsafe { free(&raw mut request) };
        }
    }
}

/// `NVML_STRUCT_VERSION`.
const fn version_of<T>(version: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "structs of the ABI are small")]
    let size = size_of::<T>() as u32;
    size | version << 24
}
