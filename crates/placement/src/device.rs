//! One GPU as placement sees it: what it is, how it is, what is left on it.

use serde::{Deserialize, Serialize};

use crate::{DeviceUuid, GpuModel, MemoryBytes, MigProfile, MilliGpu};

/// The outcome of the health state machine. Ordered from best to worst for placement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    #[default]
    Healthy,
    /// Placed on last.
    Suspect,
    /// Probed after a fault: not placed on.
    Recovering,
    /// Never placed on.
    Unhealthy,
}

/// NVML's compute mode: who may open a context.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ComputeMode {
    #[default]
    Default,
    ExclusiveProcess,
    Prohibited,
}

/// An amount of one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Room {
    pub milli: MilliGpu,
    pub memory: MemoryBytes,
}

/// One MIG instance, made by whoever manages MIG on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigSlot {
    pub uuid: DeviceUuid,
    pub profile: MigProfile,
    pub memory: MemoryBytes,
    pub free: bool,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    pub uuid: DeviceUuid,
    /// NVML's index at the moment: for people, and to break ties; never identity.
    pub index: u32,
    pub model: GpuModel,
    /// Frame buffer in all.
    pub memory: MemoryBytes,
    pub compute_mode: ComputeMode,
    pub numa_node: Option<u32>,
    /// GPUs of one node with the same number reach each other over NVLink.
    pub nvlink_domain: Option<u32>,
    pub health: Health,
    /// False after an operator took it out.
    pub schedulable: bool,
    /// A process runs on it that nobody assigned.
    pub out_of_band: bool,
    /// `Some` when the device is split by MIG (also into no instance at all): then it is given out by instances only.
    pub mig: Option<Vec<MigSlot>>,
    /// What no holder has: of a device without MIG.
    pub free: Room,
}

impl Room {
    pub const fn whole(memory: MemoryBytes) -> Self {
        Self {
            milli: MilliGpu::WHOLE,
            memory,
        }
    }

    /// `None` where `other` is larger in either dimension.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            milli: self.milli.checked_sub(other.milli)?,
            memory: self.memory.checked_sub(other.memory)?,
        })
    }

    /// `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            milli: self.milli.checked_add(other.milli)?,
            memory: self.memory.checked_add(other.memory)?,
        })
    }
}

impl DeviceState {
    /// Nobody has any part of it.
    pub fn is_untouched(&self) -> bool {
        match &self.mig {
            Some(slots) => slots.iter().all(|slot| slot.free),
            None => self.free.milli == MilliGpu::WHOLE && self.free.memory == self.memory,
        }
    }
}

impl Health {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Suspect => "Suspect",
            Self::Recovering => "Recovering",
            Self::Unhealthy => "Unhealthy",
        }
    }
}
