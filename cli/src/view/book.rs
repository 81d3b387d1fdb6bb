//! The node's book: who holds what.

use std::fmt;

use berth_placement::{GpuModel, GpuShape, MemoryBytes, MilliGpu};
use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Book {
    pub(crate) generation: u64,
    pub(crate) allocations: Vec<Allocation>,
    pub(crate) out_of_band: Vec<OutOfBandUse>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Allocation {
    /// `{"pod": {…}}` or `{"leaseId": "…"}`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) holder: Option<Holder>,
    pub(crate) state: AllocationState,
    pub(crate) shape: Shape,
    pub(crate) grants: Vec<Grant>,
    pub(crate) granted_unix_ms: u64,
    /// Absent where nothing lapses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_unix_ms: Option<u64>,
    pub(crate) client: String,
    pub(crate) decision_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Holder {
    Pod {
        namespace: String,
        name: String,
        uid: String,
    },
    LeaseId(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) enum AllocationState {
    #[default]
    Unknown,
    Reserved,
    Allocated,
    Leased,
    Foreign,
}

/// What was asked for. At most one of `whole`, `share` and `mig` is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Shape {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<AskedGpu>,
    pub(crate) models: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum AskedGpu {
    Whole { count: u32 },
    Share { milli: u32, memory_bytes: u64, count: u32 },
    Mig { profile: String, count: u32 },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Grant {
    pub(crate) device_uuid: String,
    pub(crate) index: u32,
    pub(crate) milli: u32,
    pub(crate) memory_bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mig_uuid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mig_profile: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutOfBandUse {
    pub(crate) device_uuid: String,
    pub(crate) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) used_memory_bytes: Option<u64>,
    pub(crate) since_unix_ms: u64,
}

/// Whether a shape fits, device by device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) fits: bool,
    /// Empty where it fits.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// What Reserve would grant now.
    pub(crate) plan: Vec<Grant>,
    pub(crate) devices: Vec<DeviceVerdict>,
    pub(crate) generation: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceVerdict {
    pub(crate) device_uuid: String,
    pub(crate) index: u32,
    pub(crate) fits: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

// === impl Allocation ===

impl Allocation {
    /// The holder for people.
    pub(crate) fn holder_name(&self) -> String {
        self.holder
            .as_ref()
            .map_or_else(|| "nobody".to_owned(), Holder::to_string)
    }

    pub(crate) fn holds(&self, device_uuid: &str) -> bool {
        self.grants.iter().any(|grant| grant.device_uuid == device_uuid)
    }
}

// === impl Holder ===

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name, .. } => write!(f, "{namespace}/{name}"),
            Self::LeaseId(id) => write!(f, "lease {id}"),
        }
    }
}

// === impl AllocationState ===

impl AllocationState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Reserved => "Reserved",
            Self::Allocated => "Allocated",
            Self::Leased => "Leased",
            Self::Foreign => "Foreign",
        }
    }
}

// === impl Grant ===

impl Grant {
    /// What a program names the device by: CUDA_VISIBLE_DEVICES.
    pub(crate) fn visible_uuid(&self) -> &str {
        if self.mig_uuid.is_empty() {
            &self.device_uuid
        } else {
            &self.mig_uuid
        }
    }
}

impl fmt::Display for Grant {
    /// `3`, `3 (0.25)`, `3 (1g.10gb)`: the index, and how much of it where that is not all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.mig_profile.is_empty() {
            write!(f, "{} ({})", self.index, self.mig_profile)
        } else if self.milli == MilliGpu::WHOLE.get() {
            write!(f, "{}", self.index)
        } else {
            write!(f, "{} ({})", self.index, MilliGpu::new(self.milli))
        }
    }
}

// === impl Shape ===

impl Shape {
    fn gpu_shape(&self) -> Option<GpuShape> {
        match self.gpu.as_ref()? {
            AskedGpu::Whole { count } => GpuShape::whole(*count).ok(),
            AskedGpu::Share {
                milli,
                memory_bytes,
                count,
            } => GpuShape::share(
                Some(MilliGpu::new(*milli)),
                Some(MemoryBytes::new(*memory_bytes)),
                *count,
            )
            .ok(),
            AskedGpu::Mig { profile, count } => GpuShape::mig(profile.parse().ok()?, *count).ok(),
        }
    }
}

impl fmt::Display for Shape {
    /// As the scheduler words it, so that one shape reads the same everywhere.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models: Vec<GpuModel> = self.models.iter().filter_map(|model| model.parse().ok()).collect();
        match self.gpu_shape() {
            Some(gpu) => write!(f, "{}", berth_placement::Shape::gpu(gpu).with_models(models)),
            None => f.write_str("-"),
        }
    }
}
