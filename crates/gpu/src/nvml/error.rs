//! From NVML's errors to ours, in one place; and how a question is put to the driver.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;

use crate::{GpuError, backend::Progress};

/// Puts questions to the driver, and lets the watchdog know that it answered.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    progress: Progress,
}

impl Asking {
    pub(super) const fn new(progress: Progress) -> Self {
        Self { progress }
    }

    /// A question whose answer is needed.
    pub(super) fn must<T>(&self, question: impl FnOnce() -> Result<T, NvmlError>) -> Result<T, GpuError> {
        let answer = question();
        self.progress.tick();
        answer.map_err(|error| of(&error))
    }

    /// A question to which "I do not know" is an answer. Fails if the device or the driver is gone.
    pub(super) fn may<T>(&self, question: impl FnOnce() -> Result<T, NvmlError>) -> Result<Option<T>, GpuError> {
        match self.must(question) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if is_final(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// For calls that ask nothing.
    pub(super) fn tick(&self) {
        self.progress.tick();
    }
}

/// Whoever gets this need not ask on: the device or the whole session is gone.
pub(super) const fn is_final(error: &GpuError) -> bool {
    error.ends_session() || matches!(error, GpuError::DeviceLost | GpuError::ResetRequired)
}

/// Any call.
pub(super) fn of(error: &NvmlError) -> GpuError {
    match error {
        NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => GpuError::NoLibrary {
            detail: error.to_string(),
        },
        NvmlError::DriverNotLoaded => GpuError::NoDriver,
        NvmlError::LibRmVersionMismatch => GpuError::VersionMismatch,
        NvmlError::Uninitialized => GpuError::SessionLost,
        NvmlError::GpuLost => GpuError::DeviceLost,
        NvmlError::ResetRequired => GpuError::ResetRequired,
        NvmlError::NotSupported
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::VgpuEccNotSupported
        | NvmlError::UnexpectedVariant(
            sys::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH | sys::nvmlReturn_enum_NVML_ERROR_DEPRECATED,
        ) => GpuError::Unsupported,
        NvmlError::NoPermission | NvmlError::OperatingSystem => GpuError::NoPermission,
        NvmlError::NotFound
        | NvmlError::InvalidArg
        | NvmlError::UnexpectedVariant(sys::nvmlReturn_enum_NVML_ERROR_GPU_NOT_FOUND) => GpuError::NotFound,
        other => GpuError::Transient {
            detail: other.to_string(),
        },
    }
}

/// Opening the library: what it lacks makes it no NVML at all.
pub(super) fn of_opening(error: NvmlError) -> GpuError {
    match error {
        NvmlError::LibloadingError(source) => GpuError::NoLibrary {
            detail: source.to_string(),
        },
        NvmlError::FailedToLoadSymbol(detail) => GpuError::NoLibrary { detail },
        other => of(&other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_consequence() {
        for (error, reason, ends) in [
            (NvmlError::DriverNotLoaded, "NoDriver", true),
            (NvmlError::LibRmVersionMismatch, "VersionMismatch", true),
            (NvmlError::Uninitialized, "SessionLost", true),
            (NvmlError::LibraryNotFound, "NoLibrary", true),
            (NvmlError::GpuLost, "DeviceLost", false),
            (NvmlError::ResetRequired, "ResetRequired", false),
            (NvmlError::NotSupported, "Unsupported", false),
            (
                NvmlError::FailedToLoadSymbol("nvmlNew".to_owned()),
                "Unsupported",
                false,
            ),
            (NvmlError::UnexpectedVariant(25), "Unsupported", false),
            (NvmlError::NoPermission, "NoPermission", false),
            (NvmlError::InvalidArg, "NotFound", false),
            (NvmlError::Unknown, "DriverFailed", false),
            (NvmlError::Timeout, "DriverFailed", false),
            (NvmlError::UnexpectedVariant(4_711), "DriverFailed", false),
        ] {
            let ours = of(&error);
            assert_eq!((ours.reason(), ours.ends_session()), (reason, ends), "{error:?}");
        }
        assert_eq!(
            of_opening(NvmlError::FailedToLoadSymbol("nvmlInit_v2".to_owned())).reason(),
            "NoLibrary"
        );
    }

    #[test]
    fn not_knowing_is_an_answer_and_being_gone_is_none() {
        let ask = Asking::new(Progress::default());
        assert_eq!(ask.may(|| Ok(7)), Ok(Some(7)));
        assert_eq!(ask.may(|| Err::<u32, _>(NvmlError::NotSupported)), Ok(None));
        assert_eq!(ask.may(|| Err::<u32, _>(NvmlError::Unknown)), Ok(None));
        assert_eq!(ask.may(|| Err::<u32, _>(NvmlError::GpuLost)), Err(GpuError::DeviceLost));
        assert_eq!(ask.progress.count(), 4);
    }
}
