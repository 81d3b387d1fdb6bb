//! The device seam: what GPUs this node has, how they are, and who runs on them.
//!
//! ```text
//!            NvmlBackend ─┐ (trait GpuBackend, on a thread of its own)
//!             SimBackend ─┴─► worker ── reports ──► monitor ──► watch<Arc<Inventory>>, watch<Arc<HealthMemory>>
//!                                                     │
//!                                  health (pure): signals in, verdict out
//! ```
//!
//! [`Monitor::spawn`] is the way in; [`Inventory`] is what comes out, plain data without a trace of NVML. Nothing that the
//! driver does (absent, unloaded, upgraded, hanging, losing a GPU) ends the process or blocks the caller.

pub mod backend;
pub mod error;
pub mod health;
pub mod inventory;
pub mod model;
pub mod monitor;
pub mod nvml;
pub mod sim;

pub use backend::{GpuBackend, GpuSession};
pub use error::GpuError;
pub use health::{HealthConfig, HealthMemory, Moment};
pub use inventory::{DeviceFacts, DeviceReport, DriverState, HealthReport, Inventory, Process, Sample, to_placement};
pub use monitor::{AcknowledgeError, Acknowledged, Monitor, MonitorClock, MonitorConfig, MonitorHandle};
pub use nvml::NvmlBackend;
pub use sim::{Profile, SimBackend, SimControl};
