//! One GPU: who it is, where it sits, how it does.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{BusId, EventKind, Mig, ReturnCode};

/// A GPU as the driver describes it. What never changes within a product is in [`super::Product`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    pub uuid: String,
    /// Key into [`super::Scenario::products`].
    pub product: String,
    pub bus_id: BusId,
    /// `/dev/nvidia<minor>`.
    pub minor: u32,
    pub serial: String,
    /// Position on the baseboard, from 1; boards with one GPU have none.
    pub module_id: Option<u32>,
    /// Set when the GPU was plugged in. A handle holds for one birth only.
    pub birth: u64,
    pub presence: Presence,
    pub place: Place,
    pub nvlink: NvLinks,
    /// `None` where the product takes part in no NVLink fabric.
    pub fabric: Option<Fabric>,
    pub persistence: bool,
    pub compute_mode: ComputeMode,
    pub mig: Mig,
    pub ecc: Ecc,
    pub remapped_rows: RemappedRows,
    /// Products before Ampere retire pages; later ones remap rows.
    pub retired_pages: Vec<RetiredPage>,
    pub recovery_action: RecoveryAction,
    pub clocks_event_reasons: Vec<ClocksEventReason>,
    pub clocks: Clocks,
    pub utilization: Utilization,
    pub temperature_c: u32,
    pub memory_temperature_c: u32,
    pub power_mw: u32,
    /// `None` is the product's default.
    pub power_limit_mw: Option<u32>,
    /// Since the driver was loaded.
    pub energy_mj: u64,
    /// In use by nobody in `processes`: the driver's own, or a process in another container.
    pub memory_used_mib: u64,
    pub processes: Vec<Process>,
    /// `None` is what the product supports; an empty list is a GPU that supports no events.
    pub events: Option<Vec<EventKind>>,
    pub pcie_replays: u32,
}

impl Gpu {
    /// Memory that is not free, without the part that the driver reserves.
    pub fn memory_used(&self) -> u64 {
        self.memory_used_mib + self.processes.iter().map(|process| process.memory_mib).sum::<u64>()
    }
}

/// Whether the driver can talk to the GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Presence {
    #[default]
    Present,
    /// `GPU_IS_LOST` at every call. Still enumerated by a new session, as long as the kernel keeps the PCI device.
    Lost,
    /// Fallen off the bus: `GPU_IS_LOST` at every call; a new session does not enumerate it.
    OffBus,
}

/// Where the GPU sits in the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// NUMA node of the CPUs next to it.
    pub numa_node: Option<u32>,
    /// Those CPUs as a kernel list, `0-55,112-167`.
    pub cpus: String,
    /// NUMA node that the GPU's own memory forms, on coherent platforms (Grace). Elsewhere NVML does not support the question.
    pub gpu_numa_node: Option<u32>,
    pub host_bridge: String,
    /// PCIe switches between host bridge and GPU, outermost first.
    pub pcie_switches: Vec<String>,
    /// Boards that carry several GPUs; empty for a board of its own.
    pub board: String,
}

/// NVLinks, numbered through the peers in order: the first peer has links 0 to `links - 1`, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvLinks {
    pub peers: Vec<LinkPeer>,
    /// Links that are down.
    pub down: Vec<u32>,
    /// Recovery (retraining) count by link.
    pub recoveries: BTreeMap<u32, u64>,
}

impl NvLinks {
    pub fn count(&self) -> u32 {
        self.peers.iter().map(|peer| peer.links).sum()
    }

    /// What is at the other end of a link; `None` beyond the last one.
    pub fn peer(&self, link: u32) -> Option<&LinkPeer> {
        let mut first = 0;
        self.peers.iter().find(|peer| {
            first += peer.links;
            link < first
        })
    }

    pub fn is_up(&self, link: u32) -> bool {
        link < self.count() && !self.down.contains(&link)
    }

    /// The peers that at least one link still reaches.
    pub fn reachable(&self) -> impl Iterator<Item = &LinkPeer> {
        (0..self.count())
            .filter(|link| self.is_up(*link))
            .filter_map(|link| self.peer(link))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkPeer {
    pub kind: LinkPeerKind,
    /// `None` where the other end is no PCI device of this machine, as in a rack-scale fabric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus_id: Option<BusId>,
    pub links: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkPeerKind {
    Gpu,
    IbmNpu,
    Switch,
}

/// Registration with the NVLink fabric (fabric manager).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fabric {
    pub state: FabricState,
    /// How the registration ended, once `completed`.
    pub status: ReturnCode,
    /// UUID without prefix; all zeroes within one machine.
    pub cluster_uuid: String,
    pub clique_id: u32,
    pub degraded: bool,
}

impl Default for Fabric {
    fn default() -> Self {
        Self {
            state: FabricState::Completed,
            status: ReturnCode::SUCCESS,
            cluster_uuid: "00000000-0000-0000-0000-000000000000".to_owned(),
            clique_id: 0,
            degraded: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricState {
    NotSupported,
    NotStarted,
    InProgress,
    Completed,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeMode {
    #[default]
    Default,
    ExclusiveThread,
    Prohibited,
    ExclusiveProcess,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ecc {
    pub enabled: bool,
    /// After the next reboot.
    pub pending: bool,
    /// Since the driver was loaded.
    pub volatile: EccCounters,
    /// Over the life of the board.
    pub aggregate: EccCounters,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EccCounters {
    pub corrected: BTreeMap<MemoryLocation, u64>,
    pub uncorrected: BTreeMap<MemoryLocation, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum MemoryLocation {
    L1,
    L2,
    Dram,
    RegisterFile,
    Texture,
    TextureShm,
    Cbu,
    Sram,
}

impl MemoryLocation {
    /// In the order of `nvmlMemoryLocation_t`.
    pub const ALL: [Self; 8] = [
        Self::L1,
        Self::L2,
        Self::Dram,
        Self::RegisterFile,
        Self::Texture,
        Self::TextureShm,
        Self::Cbu,
        Self::Sram,
    ];
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    pub correctable: u32,
    pub uncorrectable: u32,
    /// A reset will remap another row.
    pub pending: bool,
    /// No spare row was left: the GPU must be replaced.
    pub failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredPage {
    pub address: u64,
    /// Microseconds since 1970.
    #[serde(default)]
    pub timestamp_us: u64,
    /// Retired for a double-bit error, not for repeated single-bit ones.
    #[serde(default)]
    pub double_bit: bool,
    /// Takes effect at the next reset.
    #[serde(default)]
    pub pending: bool,
}

/// What NVML's field 230 advises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryAction {
    #[default]
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
    RecoverImexDomain,
}

/// Why clocks are below the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClocksEventReason {
    GpuIdle,
    ApplicationsClocksSetting,
    SwPowerCap,
    HwSlowdown,
    SyncBoost,
    SwThermalSlowdown,
    HwThermalSlowdown,
    HwPowerBrakeSlowdown,
    DisplayClockSetting,
}

impl ClocksEventReason {
    /// `nvmlClocksEventReason…`, one bit.
    pub const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// Current clocks in MHz.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clocks {
    pub graphics: u32,
    pub sm: u32,
    pub memory: u32,
    pub video: u32,
}

/// Percent of the last sample period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Utilization {
    pub gpu: u32,
    pub memory: u32,
    pub encoder: u32,
    pub decoder: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// In the host's PID namespace.
    pub pid: u32,
    #[serde(default)]
    pub kind: ProcessKind,
    pub memory_mib: u64,
    #[serde(default)]
    pub name: String,
    /// Ids of the MIG instances it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_instance: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_instance: Option<u32>,
    /// Percent of the SMs.
    #[serde(default)]
    pub sm_utilization: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum ProcessKind {
    #[default]
    Compute,
    Graphics,
    /// A client of the Multi-Process Service.
    Mps,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_numbered_through_the_peers() {
        let peer = |bus, links| LinkPeer {
            kind: LinkPeerKind::Switch,
            bus_id: Some(BusId::new(0, bus)),
            links,
        };
        let links = NvLinks {
            peers: vec![peer(5, 2), peer(6, 4)],
            down: vec![0, 1],
            recoveries: BTreeMap::new(),
        };
        assert_eq!(links.peer(1).and_then(|peer| peer.bus_id), Some(BusId::new(0, 5)));
        assert_eq!(links.peer(2).and_then(|peer| peer.bus_id), Some(BusId::new(0, 6)));
        assert_eq!(links.peer(6), None);
        assert!(links.reachable().all(|peer| peer.bus_id == Some(BusId::new(0, 6))));
    }

    #[test]
    fn reason_bits_are_nvmls() {
        assert_eq!(ClocksEventReason::GpuIdle.bit(), 0x1);
        assert_eq!(ClocksEventReason::HwSlowdown.bit(), 0x8);
        assert_eq!(ClocksEventReason::HwPowerBrakeSlowdown.bit(), 0x80);
        assert_eq!(ClocksEventReason::DisplayClockSetting.bit(), 0x100);
    }
}
