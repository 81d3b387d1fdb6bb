//! Health of the devices: a pure state machine. Signals and time go in, a verdict with reasons comes out.
//!
//! ```text
//!   Healthy ◄────────────────────── Recovering ◄── faults gone, or acknowledged ─┐
//!     │  ▲                              │                                        │
//!     ▼  │ quiet                        └──────── any Unhealthy fault ──────► Unhealthy
//!   Suspect ─────────────────────────────────────────────────────────────────────▲
//! ```
//!
//! A device has *faults* (`fault`); the worst one decides. Who was Unhealthy is probed in Recovering before it is used
//! again: by the driver's word, after a reset, or after an operator's acknowledgement. This module reads no clock and knows
//! no driver.

mod fault;
mod machine;
mod memory;
pub mod xid;

use std::time::Duration;

pub use machine::{HealthMachine, Observation};
pub use memory::{DeviceMemory, HealthMemory};

/// Dwell times. [`HealthConfig::default`] is for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// For how long after a fault the driver must have asked for no recovery action before its word ends the fault.
    pub driver_clear_after: Duration,
    /// How long a suspicion lasts after its last sign.
    pub suspect_quiet: Duration,
    /// How long throttling is remembered after the last sight of it.
    pub throttle_quiet: Duration,
    /// Shortest stay in Recovering.
    pub recovering_dwell: Duration,
    /// Good sweeps in a row that end Recovering.
    pub recovering_sweeps: u32,
    /// Failed readings in a row after which a device counts as not answering.
    pub failed_readings: u32,
    /// A device that has not answered for so long is Unhealthy instead of Suspect.
    pub unanswered_limit: Duration,
}

/// A point in time, on both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, for people: milliseconds since 1970-01-01 UTC.
    pub unix_ms: u64,
    /// Since an arbitrary start; never goes back. All dwell times are measured on this one.
    pub monotonic: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            driver_clear_after: Duration::from_mins(1),
            suspect_quiet: Duration::from_mins(10),
            throttle_quiet: Duration::from_secs(30),
            recovering_dwell: Duration::from_secs(15),
            recovering_sweeps: 3,
            failed_readings: 2,
            unanswered_limit: Duration::from_mins(1),
        }
    }
}

#[cfg(test)]
mod tests;
