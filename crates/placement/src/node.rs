//! One node as placement sees it.

use serde::{Deserialize, Serialize};

use crate::{CpuMilli, DeviceState, DeviceUuid, MemoryBytes, NodeName};

/// A node's devices, and what CPU and memory are left there where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    pub name: NodeName,
    /// Grows with every change that the node's daemon reports.
    pub generation: u64,
    /// `None`: not known here, left to kube-scheduler.
    pub cpu_free: Option<CpuMilli>,
    pub cpu_total: Option<CpuMilli>,
    pub memory_free: Option<MemoryBytes>,
    /// False where no daemon vouches for the devices (taken from labels and allocatable).
    pub verified: bool,
    /// False while the daemon cannot be reached.
    pub reachable: bool,
    /// Sorted by index.
    pub devices: Vec<DeviceState>,
}

impl NodeState {
    /// A node of which only the devices are known.
    pub fn of_devices(name: NodeName, generation: u64, devices: Vec<DeviceState>) -> Self {
        Self {
            name,
            generation,
            cpu_free: None,
            cpu_total: None,
            memory_free: None,
            verified: true,
            reachable: true,
            devices,
        }
    }

    pub fn device(&self, uuid: &DeviceUuid) -> Option<&DeviceState> {
        self.devices.iter().find(|device| device.uuid == *uuid)
    }
}
