//! The node and its devices.

use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) instance_id: String,
    pub(crate) version: String,
    pub(crate) simulated: bool,
    pub(crate) driver: Driver,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) drifts: Vec<Drift>,
    pub(crate) devices: Vec<Device>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "named as on the wire")]
pub(crate) struct Driver {
    pub(crate) backend: String,
    pub(crate) driver_version: String,
    pub(crate) nvml_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cuda_version: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) last_transition_unix_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drift {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) holder: String,
    pub(crate) device_uuid: String,
    pub(crate) since_unix_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) uuid: String,
    pub(crate) index: u32,
    pub(crate) pci_bus_id: String,
    pub(crate) product: String,
    pub(crate) model: String,
    pub(crate) architecture: String,
    pub(crate) compute_capability: String,
    pub(crate) serial: String,
    pub(crate) memory_bytes: u64,
    pub(crate) compute_mode: ComputeMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) numa_node: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nvlink_domain: Option<u32>,
    pub(crate) nvlink_peers: Vec<NvlinkPeer>,
    pub(crate) mig: Mig,
    pub(crate) health: Health,
    pub(crate) schedulable: bool,
    pub(crate) unschedulable_message: String,
    pub(crate) free: Room,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<DeviceStatus>,
    pub(crate) processes: Vec<Process>,
    pub(crate) out_of_band: bool,
    pub(crate) missing: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) enum ComputeMode {
    #[default]
    Unknown,
    Default,
    ExclusiveProcess,
    Prohibited,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NvlinkPeer {
    pub(crate) uuid: String,
    pub(crate) links: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Mig {
    pub(crate) supported: bool,
    pub(crate) enabled: bool,
    pub(crate) pending: bool,
    pub(crate) instances: Vec<MigInstance>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MigInstance {
    pub(crate) uuid: String,
    pub(crate) profile: String,
    pub(crate) memory_bytes: u64,
    pub(crate) gpu_instance_id: u32,
    pub(crate) compute_instance_id: u32,
    pub(crate) free: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Room {
    pub(crate) milli: u32,
    pub(crate) memory_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    pub(crate) state: HealthState,
    pub(crate) since_unix_ms: u64,
    pub(crate) reasons: Vec<HealthReason>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) enum HealthState {
    #[default]
    Unknown,
    Healthy,
    Suspect,
    Unhealthy,
    Recovering,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HealthReason {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) xid: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceStatus {
    pub(crate) sampled_unix_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature_celsius: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) power_milliwatt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) power_limit_milliwatt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_utilization_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_utilization_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_used_bytes: Option<u64>,
    pub(crate) throttle_reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ecc_corrected_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ecc_uncorrected_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remapped_rows: Option<RemappedRows>,
    pub(crate) recovery_action: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RemappedRows {
    pub(crate) corrected: u32,
    pub(crate) uncorrected: u32,
    pub(crate) pending: bool,
    pub(crate) failed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_instance_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compute_instance_id: Option<u32>,
}

// === impl HealthState ===

impl HealthState {
    pub(crate) const fn as_str(self) -> &'static str {
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
    pub(crate) fn device(&self, uuid: &str) -> Option<&Device> {
        self.devices
            .iter()
            .find(|device| device.uuid == uuid || device.mig.instances.iter().any(|instance| instance.uuid == uuid))
    }
}
