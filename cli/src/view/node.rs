//! The node and its devices.

use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    pub name: String,
    pub generation: u64,
    pub instance_id: String,
    pub version: String,
    pub simulated: bool,
    pub driver: Driver,
    pub conditions: Vec<Condition>,
    pub drifts: Vec<Drift>,
    pub devices: Vec<Device>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    pub backend: String,
    pub driver_version: String,
    pub nvml_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda_version: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
    pub last_transition_unix_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    pub reason: String,
    pub message: String,
    pub holder: String,
    pub device_uuid: String,
    pub since_unix_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub uuid: String,
    pub index: u32,
    pub pci_bus_id: String,
    pub product: String,
    pub model: String,
    pub architecture: String,
    pub compute_capability: String,
    pub serial: String,
    pub memory_bytes: u64,
    pub compute_mode: ComputeMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_domain: Option<u32>,
    pub nvlink_peers: Vec<NvlinkPeer>,
    pub mig: Mig,
    pub health: Health,
    pub schedulable: bool,
    pub unschedulable_message: String,
    pub free: Room,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DeviceStatus>,
    pub processes: Vec<Process>,
    pub out_of_band: bool,
    pub missing: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum ComputeMode {
    #[default]
    Unknown,
    Default,
    ExclusiveProcess,
    Prohibited,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NvlinkPeer {
    pub uuid: String,
    pub links: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mig {
    pub supported: bool,
    pub enabled: bool,
    pub pending: bool,
    pub instances: Vec<MigInstance>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigInstance {
    pub uuid: String,
    pub profile: String,
    pub memory_bytes: u64,
    pub gpu_instance_id: u32,
    pub compute_instance_id: u32,
    pub free: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    pub milli: u32,
    pub memory_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub state: HealthState,
    pub since_unix_ms: u64,
    pub reasons: Vec<HealthReason>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum HealthState {
    #[default]
    Unknown,
    Healthy,
    Suspect,
    Unhealthy,
    Recovering,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReason {
    pub reason: String,
    pub message: String,
    pub since_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xid: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    pub sampled_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_milliwatt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit_milliwatt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_utilization_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_utilization_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used_bytes: Option<u64>,
    pub throttle_reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_corrected_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remapped_rows: Option<RemappedRows>,
    pub recovery_action: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RemappedRows {
    pub corrected: u32,
    pub uncorrected: u32,
    pub pending: bool,
    pub failed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_instance_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_instance_id: Option<u32>,
}

// === impl HealthState ===

impl HealthState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Suspect => "Suspect",
            Self::Unhealthy => "Unhealthy",
            Self::Recovering => "Recovering",
        }
    }
}

// === impl Node ===

impl Node {
    /// The device with this UUID, or the one that has this MIG instance.
    pub fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices
            .iter()
            .find(|device| device.uuid == uuid || device.mig.instances.iter().any(|instance| instance.uuid == uuid))
    }
}
