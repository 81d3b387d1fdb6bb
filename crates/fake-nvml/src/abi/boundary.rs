//! Where raw pointers end: each becomes a handle, an input or an output that checks for null and size.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_ulonglong},
    ptr,
};

use nvml_wrapper_sys::bindings::*;

use crate::{driver::Outcome, scenario::ReturnCode};

/// An argument of an exported function, made safe to use.
pub(super) trait FromCaller {
    type Checked;

    /// # Safety
    ///
    /// A pointer must be null, a handle, or valid during the call for what NVML's documentation says it points to.
    unsafe fn checked(self) -> Self::Checked;
}

/// A handle. What it stands for only the session knows; it is never followed.
#[derive(Clone, Copy)]
pub(super) struct Handle(pub(super) usize);

/// Where the caller wants a value, or a row of values.
pub(super) struct Out<T>(*mut T);

/// Something that the caller passes by pointer.
pub(super) struct In<T>(*const T);

/// Types of C that any bytes are a valid value of.
///
/// # Safety
///
/// No padding that matters, no references, no invalid bit patterns.
pub(super) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($ty:ty)*) => {
        // SAFETY: integers, and C structs and unions of integers and raw pointers.
        $(unsafe impl Plain for $ty {})*
    };
}

plain! {
    c_char c_int c_uint c_ulonglong nvmlDevice_t nvmlGpuInstance_t nvmlComputeInstance_t nvmlEventSet_t
    nvmlPciInfo_t nvmlPciInfoExt_t nvmlMemory_t nvmlMemory_v2_t nvmlBAR1Memory_t nvmlUtilization_t nvmlEccErrorCounts_t
    nvmlRowRemapperHistogramValues_t nvmlEccSramErrorStatus_t nvmlRepairStatus_t nvmlProcessInfo_v1_t nvmlProcessInfo_t
    nvmlProcessDetailList_t nvmlProcessDetail_v1_t nvmlProcessUtilizationSample_t nvmlDeviceAttributes_t nvmlFieldValue_t
    nvmlGpuInstanceProfileInfo_t nvmlGpuInstanceProfileInfo_v2_t nvmlGpuInstanceProfileInfo_v3_t
    nvmlGpuInstancePlacement_t nvmlGpuInstanceInfo_t nvmlComputeInstanceProfileInfo_t
    nvmlComputeInstanceProfileInfo_v2_t nvmlComputeInstanceProfileInfo_v3_t nvmlComputeInstancePlacement_t
    nvmlComputeInstanceInfo_t nvmlEventData_t nvmlGpuFabricInfo_t nvmlGpuFabricInfo_v2_t nvmlGpuFabricInfo_v3_t
    nvmlPlatformInfo_t nvmlC2cModeInfo_v1_t nvmlTemperature_v1_t nvmlMarginTemperature_t nvmlViolationTime_t nvmlUUID_t
    nvmlSystemDriverBranchInfo_t nvmlHwbcEntry_t nvmlExcludedDeviceInfo_t nvmlSystemEventSetCreateRequest_t
    nvmlSystemEventSetFreeRequest_t nvmlSystemRegisterEventRequest_t nvmlSystemEventSetWaitRequest_t
    nvmlSystemEventData_v1_t
}

macro_rules! by_value {
    ($($ty:ty)*) => {
        $(impl FromCaller for $ty {
            type Checked = Self;
            unsafe fn checked(self) -> Self {
                self
            }
        })*
    };
}

by_value! { c_int c_uint c_ulonglong }

macro_rules! handles {
    ($($ty:ty)*) => {
        $(impl FromCaller for *mut $ty {
            type Checked = Handle;
            unsafe fn checked(self) -> Handle {
                Handle(self.addr())
            }
        })*
    };
}

handles! { nvmlDevice_st nvmlGpuInstance_st nvmlComputeInstance_st nvmlEventSet_st }

impl Handle {
    /// As the caller keeps it.
    pub(super) fn raw<T>(self) -> *mut T {
        ptr::without_provenance_mut(self.0)
    }
}

impl<T: Plain> FromCaller for *mut T {
    type Checked = Out<T>;
    unsafe fn checked(self) -> Out<T> {
        Out(self)
    }
}

impl<T: Plain> FromCaller for *const T {
    type Checked = In<T>;
    unsafe fn checked(self) -> In<T> {
        In(self)
    }
}

impl<T: Plain> Out<T> {
    pub(super) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    pub(super) fn set(&self, value: T) -> Outcome {
        self.not_null()?;
        // SAFETY: not null, so the caller made it valid (see `FromCaller`).
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// For arguments that carry something in as well: a capacity, or the version of a struct.
    pub(super) fn get(&self) -> Outcome<T> {
        self.not_null()?;
        // SAFETY: not null, so the caller made it valid (see `FromCaller`); any bytes are a `T`.
        Ok(unsafe { self.0.read() })
    }

    /// Writes a row. The caller's buffer must be known to be long enough.
    pub(super) fn fill(&self, values: &[T]) -> Outcome {
        if values.is_empty() {
            return Ok(());
        }
        self.not_null()?;
        // SAFETY: not null, so the caller made it valid for a row (see `FromCaller`), of this length or more by contract.
        unsafe { self.0.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Ok(())
    }

    /// Reads a row of `len` values.
    pub(super) fn row(&self, len: usize) -> Outcome<Vec<T>> {
        self.not_null()?;
        // SAFETY: not null, so the caller made it valid for a row of `len` (see `FromCaller`).
        Ok((0..len).map(|at| unsafe { self.0.add(at).read() }).collect())
    }

    /// Writes all of `values` if `count` says that there is room, and in any case their number to `count`.
    /// NVML's protocol for lists: ask with a count of 0, be told `INSUFFICIENT_SIZE`, come back with a buffer.
    pub(super) fn list(&self, count: &Out<c_uint>, values: &[T]) -> Outcome {
        let room = count.get()?;
        let len = length(values);
        count.set(len)?;
        if room < len {
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        self.fill(values)
    }

    /// The same for the functions that only count when there is no buffer.
    pub(super) fn list_or_count(&self, count: &Out<c_uint>, values: &[T]) -> Outcome {
        if self.is_null() {
            return count.set(length(values));
        }
        self.list(count, values)
    }

    /// A struct that begins as `T` does, of the version that the caller's `version` field named.
    pub(super) fn versioned<U: Plain>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    fn not_null(&self) -> Outcome {
        if self.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a C string, if it fits in `room` bytes with its end.
    pub(super) fn text(&self, room: c_uint, text: &str) -> Outcome {
        self.not_null()?;
        if text.len() >= room as usize {
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        let mut bytes: Vec<c_char> = text.bytes().map(c_char_of).collect();
        bytes.push(0);
        self.fill(&bytes)
    }
}

impl<T: Plain> In<T> {
    pub(super) fn get(&self) -> Outcome<T> {
        if self.0.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller made it valid (see `FromCaller`); any bytes are a `T`.
        Ok(unsafe { self.0.read() })
    }
}

impl In<c_char> {
    pub(super) fn text(&self) -> Outcome<String> {
        if self.0.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        // SAFETY: not null, so the caller made it a C string (see `FromCaller`).
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str()
            .map(str::to_owned)
            .map_err(|_| ReturnCode::INVALID_ARGUMENT)
    }
}

/// A fixed field of a struct. What does not fit is cut off, as the driver does.
pub(super) fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().zip(text.bytes().take(N - 1)) {
        *to = c_char_of(from);
    }
    field
}

/// The `version` field that NVML expects of a struct.
pub(super) const fn version_of<T>(version: u32) -> c_uint {
    #[expect(clippy::cast_possible_truncation, reason = "structs of the ABI are small")]
    let size = size_of::<T>() as u32;
    size | version << 24
}

/// `ARGUMENT_VERSION_MISMATCH` unless the caller's struct is of this version.
pub(super) fn expect_version<T>(version: c_uint, wanted: u32) -> Outcome {
    if version == version_of::<T>(wanted) {
        Ok(())
    } else {
        Err(ReturnCode::ARGUMENT_VERSION_MISMATCH)
    }
}

/// Compiles only if our function has the signature that the bindings of NVIDIA's header give it.
pub(super) fn same_signature<F, E>(_header: &Result<F, E>, _ours: F) {}

pub(super) fn length<T>(values: &[T]) -> c_uint {
    c_uint::try_from(values.len()).unwrap_or(c_uint::MAX)
}

fn c_char_of(byte: u8) -> c_char {
    c_char::from_ne_bytes([byte])
}
