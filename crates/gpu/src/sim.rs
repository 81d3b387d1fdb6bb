//! A machine without GPUs that behaves as if it had some.

use std::{fmt, path::PathBuf, str::FromStr};

use berth_placement::NodeName;
use thiserror::Error;

use crate::{GpuBackend, GpuError, GpuSession, backend::Progress};

/// Which machine to simulate: `dgx-h100`, `mig`, `dgx-h100x16`, …
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile(String);

/// No such profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no profile; known are {known}; append xN for N GPUs, as in dgx-h100x16")]
pub struct ParseProfileError {
    text: String,
    known: String,
}

/// The simulated driver. Clones share one machine, so a new worker thread finds the machine as the old one left it.
#[derive(Debug, Clone)]
pub struct SimBackend;

/// Breaks and mends the simulated machine at run time.
#[derive(Debug, Clone)]
pub struct SimControl;

impl FromStr for Profile {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl SimBackend {
    /// The machine of `profile`; UUIDs follow from `node` and the index, so they are the same after a restart.
    pub fn new(profile: &Profile, node: &NodeName) -> Self {
        let _ = (profile, node);
        Self
    }

    /// Also obeys commands appended to `file`, one JSON object a line (see [`SimControl`]).
    pub fn with_control_file(self, file: PathBuf) -> Self {
        let _ = file;
        self
    }

    pub fn control(&self) -> SimControl {
        SimControl
    }
}

impl GpuBackend for SimBackend {
    fn with_session(&mut self, _: &Progress, _: &mut dyn FnMut(&mut dyn GpuSession)) -> Result<(), GpuError> {
        Err(GpuError::NoDriver)
    }
}
