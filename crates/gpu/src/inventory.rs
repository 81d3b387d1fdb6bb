//! What the node has, as the daemon publishes it: plain data.
//!
//! Knows neither NVML nor the simulation; the health machine's verdicts arrive here as values. The way out to the
//! placement engine is [`to_placement`], the only conversion in this crate.

mod to_placement;

use std::sync::Arc;

use berth_placement::{ComputeMode, DeviceUuid, GpuModel, Health, MemoryBytes, MigProfile, PciBusId};
use serde::{Deserialize, Serialize};

pub use to_placement::to_placement;

/// Everything known about the node's GPUs at one moment. Immutable: a change is a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// Grows with every change that placement or a person acts upon: driver, devices, facts, MIG, health, who runs what.
    /// It stays while only readings move (temperature, power, utilisation, memory in use).
    pub generation: u64,
    pub driver: DriverState,
    /// Sorted by index. Empty while the driver is absent.
    pub devices: Vec<DeviceReport>,
    /// GPUs that the driver counts but that do not even tell their UUID.
    pub unidentified: Vec<Unidentified>,
}

/// How the driver is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverState {
    /// Not asked yet: the first moments of a process.
    Starting,
    Ready(DriverFacts),
    /// No library, no kernel module, or versions that do not match. Tried again by itself.
    Absent {
        /// Stable CamelCase, of [`crate::GpuError::reason`].
        reason: &'static str,
        /// For a person.
        message: String,
        since_unix_ms: u64,
    },
    /// A call into the driver does not come back. The devices are those known before.
    NotAnswering {
        message: String,
        since_unix_ms: u64,
    },
}

/// What answers, and which version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverFacts {
    /// `nvml` or `simulated`.
    pub backend: &'static str,
    /// Such as `580.95.05`.
    pub driver_version: String,
    pub nvml_version: Option<String>,
    /// Major × 1000 + minor × 10, as CUDA counts: 13000 is 13.0.
    pub cuda_version: Option<u32>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    pub facts: Arc<DeviceFacts>,
    pub health: HealthReport,
    /// `None` until the first sweep, and while the device does not answer.
    pub sample: Option<Sample>,
    /// By the list read last; kept while the device does not answer.
    pub processes: Vec<Process>,
    /// When `processes` was read; `None` before the first time.
    pub processes_unix_ms: Option<u64>,
}

/// What a GPU is; changes seldom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    pub uuid: DeviceUuid,
    /// The driver's index at the moment, for people; never identity.
    pub index: u32,
    pub pci_bus_id: Option<PciBusId>,
    /// As the driver names it: `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// Short, as instance types spell it: `H100`.
    pub model: GpuModel,
    /// Such as `Hopper`.
    pub architecture: Option<String>,
    /// Frame buffer in all; zero where the driver does not tell.
    pub memory: MemoryBytes,
    pub serial: Option<String>,
    /// CUDA compute capability: `9.0`.
    pub compute_capability: Option<String>,
    pub compute_mode: ComputeMode,
    /// The host's NUMA node that is nearest.
    pub numa_node: Option<u32>,
    /// Sorted by index of the peer.
    pub nvlink_peers: Vec<NvlinkPeer>,
    /// GPUs of this node with the same number reach each other over NVLink. `None` without NVLink.
    pub nvlink_domain: Option<u32>,
    /// The NVLink fabric that reaches beyond the node (NVL72 and the like).
    pub fabric: Option<Fabric>,
    pub mig: MigReport,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvlinkPeer {
    pub uuid: DeviceUuid,
    /// Links that can carry traffic to it. Behind NVSwitch all links of the GPU count for each peer.
    pub links: u32,
}

/// A GPU's place in a multi-node NVLink fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// The same for all GPUs of one fabric.
    pub cluster_uuid: String,
    /// GPUs of one fabric with the same number can reach each other.
    pub clique: u32,
}

/// How a GPU is split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigReport {
    pub supported: bool,
    pub enabled: bool,
    /// The mode changes with the next reset.
    pub pending: bool,
    /// Sorted by GPU instance, then compute instance.
    pub instances: Vec<MigInstance>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigInstance {
    pub uuid: DeviceUuid,
    pub profile: MigProfile,
    pub memory: MemoryBytes,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// The health machine's verdict, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    pub state: Health,
    pub since_unix_ms: u64,
    /// Worst first. Empty when Healthy; while Recovering, what it recovers from.
    pub reasons: Vec<HealthReason>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReason {
    /// Stable CamelCase: `Xid`, `Lost`, `RowRemapFailed`, …
    pub reason: &'static str,
    /// For a person: `XID 79: GPU has fallen off the bus`.
    pub message: String,
    pub since_unix_ms: u64,
    pub xid: Option<u32>,
}

/// One reading. `None`: the driver does not tell this for this GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// When these values were read; while no value moves, refreshed once a minute.
    pub sampled_unix_ms: u64,
    pub temperature_celsius: Option<u32>,
    pub power_milliwatt: Option<u32>,
    pub power_limit_milliwatt: Option<u32>,
    pub gpu_utilization_percent: Option<u32>,
    pub memory_utilization_percent: Option<u32>,
    pub memory_used: Option<MemoryBytes>,
    pub throttle: Vec<ThrottleReason>,
    /// Since the driver was loaded.
    pub ecc_corrected_total: Option<u64>,
    /// Since the driver was loaded.
    pub ecc_uncorrected_total: Option<u64>,
    /// GPUs since Ampere.
    pub remapped_rows: Option<RemappedRows>,
    /// GPUs before Ampere: a page waits for a reset to be retired.
    pub page_retirement_pending: Option<bool>,
    /// Drivers since R570.
    pub recovery_action: Option<RecoveryAction>,
}

/// Why clocks are held back. Idling and settings on purpose are none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ThrottleReason {
    SwPowerCap,
    HwSlowdown,
    SwThermalSlowdown,
    HwThermalSlowdown,
    HwPowerBrake,
}

/// The row remapper's account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemappedRows {
    /// Because of correctable errors.
    pub corrected: u32,
    /// Because of uncorrectable errors.
    pub uncorrected: u32,
    /// A remapping takes effect with the next reset.
    pub pending: bool,
    /// A remapping failed: the device is worn out.
    pub failed: bool,
}

/// What the driver asks for (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RecoveryAction {
    None,
    GpuReset,
    NodeReboot,
    DrainP2P,
    DrainAndReset,
    /// The multi-node NVLink domain has to be set up anew.
    RecoverImexDomain,
    BusReset,
    SystemReboot,
    /// A value newer than this program.
    Other(u32),
}

/// A process as the driver sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// In the host's pid namespace, if the daemon runs in it.
    pub pid: u32,
    pub used_memory: Option<MemoryBytes>,
    /// `None` on a device without MIG.
    pub gpu_instance: Option<u32>,
    pub compute_instance: Option<u32>,
}

/// A GPU that is counted and cannot be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unidentified {
    pub index: u32,
    /// Stable CamelCase, of [`crate::GpuError::reason`].
    pub reason: &'static str,
    pub message: String,
}

impl Inventory {
    /// Nothing known yet.
    pub const fn starting() -> Self {
        Self {
            generation: 0,
            driver: DriverState::Starting,
            devices: Vec::new(),
            unidentified: Vec::new(),
        }
    }

    pub fn device(&self, uuid: &DeviceUuid) -> Option<&DeviceReport> {
        self.devices.iter().find(|device| device.facts.uuid == *uuid)
    }

    /// Whether `other` differs in what [`Inventory::generation`] counts.
    pub fn differs_materially(&self, other: &Self) -> bool {
        self.driver != other.driver
            || self.unidentified != other.unidentified
            || self.devices.len() != other.devices.len()
            || self
                .devices
                .iter()
                .zip(&other.devices)
                .any(|(one, two)| one.differs_materially(two))
    }
}

impl DeviceReport {
    fn differs_materially(&self, other: &Self) -> bool {
        let seat = |process: &Process| (process.pid, process.gpu_instance, process.compute_instance);
        self.facts != other.facts
            || self.health != other.health
            || self.sample.is_some() != other.sample.is_some()
            || !self.processes.iter().map(seat).eq(other.processes.iter().map(seat))
    }
}

impl Sample {
    /// Whether every value is the same, whenever it was read.
    pub fn same_values(&self, other: &Self) -> bool {
        *self
            == Self {
                sampled_unix_ms: self.sampled_unix_ms,
                ..other.clone()
            }
    }
}

impl ThrottleReason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SwPowerCap => "SwPowerCap",
            Self::HwSlowdown => "HwSlowdown",
            Self::SwThermalSlowdown => "SwThermalSlowdown",
            Self::HwThermalSlowdown => "HwThermalSlowdown",
            Self::HwPowerBrake => "HwPowerBrake",
        }
    }
}

impl RecoveryAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::GpuReset => "GpuReset",
            Self::NodeReboot => "NodeReboot",
            Self::DrainP2P => "DrainP2P",
            Self::DrainAndReset => "DrainAndReset",
            Self::RecoverImexDomain => "RecoverImexDomain",
            Self::BusReset => "BusReset",
            Self::SystemReboot => "SystemReboot",
            Self::Other(_) => "Other",
        }
    }
}
