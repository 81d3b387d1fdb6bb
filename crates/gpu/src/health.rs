//! Health of one device: a pure state machine. Signals and time go in, a verdict with reasons comes out.

use std::{collections::BTreeMap, time::Duration};

use berth_placement::DeviceUuid;
use serde::{Deserialize, Serialize};

/// Dwell times. See each field; [`HealthConfig::default`] is for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// How long the driver must have asked for no recovery action before faults that it can judge are over.
    pub driver_clear_after: Duration,
    /// How long a suspicion lasts after its last sign.
    pub suspect_quiet: Duration,
    /// How long a suspicion that the sweep watches (throttling, …) outlives its last sighting.
    pub level_quiet: Duration,
    /// Shortest stay in Recovering.
    pub recovering_dwell: Duration,
    /// Good sweeps in a row that end Recovering.
    pub recovering_sweeps: u32,
    /// A device that has not answered for so long is Unhealthy instead of Suspect.
    pub unanswered_limit: Duration,
}

/// What must outlive the process, for all devices: a restart must not launder a broken GPU. Opaque; serialise it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthMemory {
    pub(crate) boot_id: Option<String>,
    pub(crate) devices: BTreeMap<DeviceUuid, u32>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            driver_clear_after: Duration::from_secs(60),
            suspect_quiet: Duration::from_secs(600),
            level_quiet: Duration::from_secs(30),
            recovering_dwell: Duration::from_secs(15),
            recovering_sweeps: 3,
            unanswered_limit: Duration::from_secs(60),
        }
    }
}
