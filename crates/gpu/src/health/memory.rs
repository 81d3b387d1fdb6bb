//! What must outlive the process: a restart must not launder a broken GPU.

use std::collections::BTreeMap;

use berth_placement::{DeviceUuid, Health};
use serde::{Deserialize, Serialize};

use super::fault::FaultKind;

/// What is remembered of all devices. Opaque: serialise it as it is, and give it back at the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthMemory {
    /// The boot of the machine in which it was written.
    pub(crate) boot_id: Option<String>,
    /// The driver that was loaded then.
    pub(crate) driver_version: Option<String>,
    pub(crate) devices: BTreeMap<DeviceUuid, DeviceMemory>,
}

/// What is remembered of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    pub(crate) state: Health,
    pub(crate) since_unix_ms: u64,
    /// Of a device in Recovering: what it recovers from.
    pub(crate) faults: Vec<FaultMemory>,
    /// Uncorrectable errors that were accounted for.
    pub(crate) ecc_uncorrected: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultMemory {
    pub(crate) kind: FaultKind,
    pub(crate) since_unix_ms: u64,
}

impl HealthMemory {
    /// Devices that were not Healthy when this was written.
    pub fn ailing(&self) -> impl Iterator<Item = (&DeviceUuid, Health)> {
        let states = self.devices.iter().map(|(uuid, device)| (uuid, device.state));
        states.filter(|(_, state)| *state != Health::Healthy)
    }
}
