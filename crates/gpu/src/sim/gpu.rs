//! One simulated GPU: where it is, how it is, who runs on it.

use berth_placement::{ComputeMode, DeviceUuid, GpuModel, MemoryBytes, MigProfile, PciBusId};

use super::{
    CommandError,
    profile::{NvlinkWiring, Slot},
};
use crate::{
    inventory::{
        DeviceFacts, Fabric, MigInstance, MigReport, NvlinkPeer, Process, RecoveryAction, RemappedRows, Sample,
        ThrottleReason,
    },
    model,
};

/// Compute slices of a GPU that MIG can give out.
const MIG_SLICES: u32 = 7;
/// Memory slices of a GPU that MIG can give out.
const MIG_MEMORY_SLICES: u64 = 8;

#[derive(Debug)]
pub(super) struct SimGpu {
    pub(super) position: u32,
    pub(super) uuid: DeviceUuid,
    slot: Slot,
    pub(super) present: bool,
    pub(super) lost: bool,
    mig: Option<Vec<MigInstance>>,
    /// Makes the UUIDs of the next MIG layout differ from those of the last one.
    mig_layouts: u32,
    pub(super) processes: Vec<Process>,
    pub(super) throttle: Vec<ThrottleReason>,
    pub(super) ecc_corrected: u64,
    pub(super) ecc_uncorrected: u64,
    pub(super) rows: RemappedRows,
    pub(super) recovery_action: RecoveryAction,
}

impl SimGpu {
    pub(super) fn new(node: &str, position: u32, slot: Slot) -> Self {
        let mut gpu = Self {
            position,
            uuid: uuid("GPU", &[node, &position.to_string()]),
            slot,
            present: true,
            lost: false,
            mig: None,
            mig_layouts: 0,
            processes: Vec::new(),
            throttle: Vec::new(),
            ecc_corrected: 0,
            ecc_uncorrected: 0,
            rows: RemappedRows::default(),
            recovery_action: RecoveryAction::None,
        };
        if let Some(profiles) = slot.mig {
            gpu.mig = Some(
                profiles
                    .iter()
                    .filter_map(|text| text.parse().ok())
                    .enumerate()
                    .map(|(at, profile)| gpu.instance(at, profile))
                    .collect(),
            );
        }
        gpu
    }

    /// A reset: as new, with the same MIG layout.
    pub(super) fn restore(&mut self) {
        self.present = true;
        self.lost = false;
        self.throttle.clear();
        self.ecc_corrected = 0;
        self.ecc_uncorrected = 0;
        self.rows = RemappedRows::default();
        self.recovery_action = RecoveryAction::None;
    }

    pub(super) fn unplug(&mut self) {
        self.present = false;
        self.processes.clear();
    }

    /// A process starts, on a MIG device on the instance at this place.
    pub(super) fn start(&mut self, pid: u32, memory: MemoryBytes, instance: Option<u32>) {
        let instances = self.mig.as_deref().unwrap_or_default();
        let found = instance.and_then(|at| instances.get(at as usize));
        self.processes.push(Process {
            pid,
            used_memory: Some(memory),
            gpu_instance: found.map(|found| found.gpu_instance),
            compute_instance: found.map(|found| found.compute_instance),
        });
    }

    /// True if the process ran here.
    pub(super) fn end(&mut self, pid: u32) -> bool {
        let before = self.processes.len();
        self.processes.retain(|process| process.pid != pid);
        self.processes.len() != before
    }

    pub(super) fn split(&mut self, profiles: Option<&[MigProfile]>) -> Result<(), CommandError> {
        let product = self.slot.product;
        let Some(profiles) = profiles else {
            self.mig = None;
            return Ok(());
        };
        if !product.mig {
            return Err(CommandError::NoMig { product: product.name });
        }
        let (mut slices, mut memory) = (0, 0);
        for profile in profiles {
            slices += compute_slices(profile);
            memory += self.memory_slices(profile);
            if slices > MIG_SLICES || memory > MIG_MEMORY_SLICES {
                return Err(CommandError::MigDoesNotFit {
                    product: product.name,
                    profile: profile.clone(),
                });
            }
        }
        self.mig_layouts += 1;
        self.mig = Some(
            profiles
                .iter()
                .cloned()
                .enumerate()
                .map(|(at, profile)| self.instance(at, profile))
                .collect(),
        );
        Ok(())
    }

    pub(super) fn mig_report(&self) -> MigReport {
        MigReport {
            supported: self.slot.product.mig,
            enabled: self.mig.is_some(),
            pending: false,
            instances: self.mig.clone().unwrap_or_default(),
        }
    }

    /// All facts but those about peers.
    pub(super) fn facts(&self, index: u32) -> DeviceFacts {
        let product = self.slot.product;
        let bus = format!("{:08X}:{:02X}:00.0", self.slot.pci_domain, self.slot.pci_bus);
        DeviceFacts {
            uuid: self.uuid.clone(),
            index,
            pci_bus_id: bus.parse::<PciBusId>().ok(),
            product: product.name.to_owned(),
            model: self.model(),
            architecture: Some(product.architecture.to_owned()),
            memory: MemoryBytes::from_mib(product.memory_mib),
            serial: Some(format!("16{:011}", hash(&[self.uuid.as_str()]) % 100_000_000_000)),
            compute_capability: Some(product.compute_capability.to_owned()),
            compute_mode: ComputeMode::Default,
            numa_node: Some(self.slot.numa_node),
            nvlink_peers: Vec::new(),
            nvlink_domain: None,
            fabric: None,
            mig: self.mig_report(),
        }
    }

    fn model(&self) -> GpuModel {
        model::short_name(self.slot.product.name)
    }

    pub(super) fn fabric(&self, node: &str) -> Option<Fabric> {
        let cluster_uuid = || uuid_text(&[node, "fabric"]);
        self.slot.product.fabric.then(|| Fabric {
            cluster_uuid: cluster_uuid(),
            clique: 0,
        })
    }

    /// The links to `other`, if it is a peer, and the number of the domain both are in.
    pub(super) fn links_to(&self, other: &Self) -> Option<(NvlinkPeer, u32)> {
        let pair = |gpu: &Self| gpu.position / 2;
        let domain = match (self.slot.nvlink, other.slot.nvlink) {
            (NvlinkWiring::Switched, NvlinkWiring::Switched) => 0,
            (NvlinkWiring::Bridged, NvlinkWiring::Bridged) if pair(self) == pair(other) => pair(self),
            _ => return None,
        };
        let links = self.slot.product.nvlinks.min(other.slot.product.nvlinks);
        Some((
            NvlinkPeer {
                uuid: other.uuid.clone(),
                links,
            },
            domain,
        ))
    }

    /// Constant until somebody does something.
    pub(super) fn sample(&self) -> Sample {
        let product = self.slot.product;
        let busy = !self.processes.is_empty();
        let used = self.processes.iter().filter_map(|process| process.used_memory);
        let used = used.fold(MemoryBytes::from_mib(4), MemoryBytes::saturating_add);
        let hot = !self.throttle.is_empty();
        let temperature = if hot {
            92
        } else if busy {
            58
        } else {
            28
        };
        Sample {
            sampled_unix_ms: 0,
            temperature_celsius: Some(temperature + self.position % 5),
            power_milliwatt: Some(
                1000 * if busy {
                    product.power_limit_watt * 4 / 5
                } else {
                    product.idle_watt
                },
            ),
            power_limit_milliwatt: Some(1000 * product.power_limit_watt),
            gpu_utilization_percent: Some(if busy { 96 } else { 0 }),
            memory_utilization_percent: Some(if busy { 41 } else { 0 }),
            memory_used: Some(used.min(MemoryBytes::from_mib(product.memory_mib))),
            throttle: self.throttle.clone(),
            ecc_corrected_total: Some(self.ecc_corrected),
            ecc_uncorrected_total: Some(self.ecc_uncorrected),
            remapped_rows: product.remaps_rows.then_some(self.rows),
            page_retirement_pending: (!product.remaps_rows).then_some(false),
            recovery_action: Some(self.recovery_action),
        }
    }

    fn instance(&self, at: usize, profile: MigProfile) -> MigInstance {
        let gpu_instance = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
        let memory =
            MemoryBytes::from_mib(self.slot.product.memory_mib * self.memory_slices(&profile) / MIG_MEMORY_SLICES);
        let salt = [self.uuid.as_str(), &self.mig_layouts.to_string(), &at.to_string()];
        MigInstance {
            uuid: uuid("MIG", &salt),
            profile,
            memory,
            gpu_instance,
            compute_instance: 0,
        }
    }

    /// Eighths of the memory that a profile takes, by the gigabytes in its name.
    fn memory_slices(&self, profile: &MigProfile) -> u64 {
        let gigabytes = profile.as_str().split('.').next_back().unwrap_or_default();
        let digits = gigabytes
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap_or_default();
        let slice = (self.slot.product.memory_mib / 1000 / MIG_MEMORY_SLICES).max(1);
        (digits.parse::<u64>().unwrap_or(0) / slice).max(1)
    }
}

fn compute_slices(profile: &MigProfile) -> u32 {
    let slices = profile.as_str().split('.').find_map(|part| part.strip_suffix('g'));
    slices.and_then(|digits| digits.parse().ok()).unwrap_or(1)
}

fn uuid(prefix: &str, parts: &[&str]) -> DeviceUuid {
    let text = format!("{prefix}-{}", uuid_text(parts));
    text.parse()
        .unwrap_or_else(|_| unreachable!("a prefix and hex digits form a device UUID"))
}

/// Depends on nothing but `parts`: the same after a restart.
fn uuid_text(parts: &[&str]) -> String {
    let high = hash(parts);
    let low = hash(&[&high.to_string(), "low"]);
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xFFFF,
        high & 0xFFF,
        low >> 48 & 0x3FFF | 0x8000,
        low & 0xFFFF_FFFF_FFFF,
    )
}

/// FNV-1a, finished by a multiply-and-shift so that near inputs do not give near outputs.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xFF]));
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}
