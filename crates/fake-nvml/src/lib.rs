//! A `libnvidia-ml.so.1` for machines without a GPU, scripted by a JSON file.
//!
//! The crate is built twice. As a **cdylib** it exports NVML's C functions (`abi`, in front of `driver`), so that the
//! real NVML code path of any program runs against it. As an **rlib** it gives tests and the control tool `fake-nvml-ctl`
//! the script itself: [`scenario`] (what machine, what happens to it) and [`profiles`] (machines that exist).
//!
//! The state file is the only channel between the two: whoever edits it, every process that has the library loaded sees
//! the change at its next call.

mod abi;
mod clock;
pub mod ctl;
mod driver;
pub mod install;
pub mod profiles;
pub mod scenario;

pub use install::{Installed, built_library};
pub use scenario::{Scenario, ScenarioFile};
