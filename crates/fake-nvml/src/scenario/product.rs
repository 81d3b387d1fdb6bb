//! Facts that all boards of one product share.

use serde::{Deserialize, Serialize};

use super::EventKind;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// As `nvidia-smi` prints it.
    pub name: String,
    pub brand: Brand,
    pub architecture: Architecture,
    pub compute_capability: (u32, u32),
    pub sms: u32,
    /// CUDA cores.
    pub cores: u32,
    pub memory_mib: u64,
    /// Part of `memory_mib` that the driver keeps for itself.
    pub reserved_mib: u64,
    /// `None` on coherent platforms, which need no window.
    pub bar1_mib: Option<u64>,
    pub memory_bus_bits: u32,
    /// Device id in the high half, vendor id in the low half, as NVML reports it.
    pub pci_device_id: u32,
    pub pci_subsystem_id: u32,
    pub pcie_generation: u32,
    pub board_part_number: String,
    pub vbios: String,
    pub power_mw: PowerRange,
    pub temperature_c: TemperatureLimits,
    pub clocks_mhz: MaxClocks,
    pub fans: u32,
    pub ecc: bool,
    /// Banks with spare rows; 0 for products that retire pages instead.
    pub row_remap_banks: u32,
    /// 0 for a product without NVLink.
    pub nvlink_generation: u32,
    /// Whether GPUs may reach each other over PCIe.
    pub pcie_p2p: bool,
    /// NVLink-C2C to a Grace CPU.
    pub c2c: bool,
    /// Empty for a product without MIG.
    pub mig_profiles: Vec<MigProfile>,
    pub events: Vec<EventKind>,
}

impl Product {
    pub fn mig_profile(&self, name: &str) -> Option<&MigProfile> {
        self.mig_profiles.iter().find(|profile| profile.name == name)
    }

    /// Memory slices that MIG divides the GPU into; 0 without MIG.
    pub fn memory_slices(&self) -> u32 {
        self.mig_profiles
            .iter()
            .map(|profile| profile.memory_slices)
            .max()
            .unwrap_or(0)
    }

    /// Most MIG devices at the same time.
    pub fn max_mig_devices(&self) -> u32 {
        self.mig_profiles
            .iter()
            .map(|profile| profile.slices)
            .max()
            .unwrap_or(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brand {
    Tesla,
    Nvidia,
    NvidiaRtx,
    GeforceRtx,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    Volta,
    Turing,
    Ampere,
    Ada,
    Hopper,
    Blackwell,
}

/// Board power in milliwatts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRange {
    pub min: u32,
    pub default: u32,
    pub max: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemperatureLimits {
    pub shutdown: u32,
    pub slowdown: u32,
    /// Software slowdown of the GPU.
    pub gpu_max: u32,
    pub memory_max: u32,
}

/// Boost clocks in MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaxClocks {
    pub graphics: u32,
    pub memory: u32,
    pub video: u32,
}

/// A kind of GPU instance, a row of `nvidia-smi mig -lgip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigProfile {
    /// Such as `1g.10gb` or `1g.10gb+me`.
    pub name: String,
    /// The number that `nvidia-smi mig -cgi` takes; it differs between products.
    pub id: u32,
    /// `NVML_GPU_INSTANCE_PROFILE_…`: what NVML is asked with. The same for all products.
    pub nvml_profile: u32,
    /// Compute slices.
    pub slices: u32,
    pub memory_slices: u32,
    /// First memory slices that an instance can begin at.
    pub starts: Vec<u32>,
    /// Most instances of this kind.
    pub max_instances: u32,
    pub sms: u32,
    pub memory_mib: u64,
    pub copy_engines: u32,
    pub decoders: u32,
    pub encoders: u32,
    pub jpegs: u32,
    pub ofas: u32,
}
