//! Machines that exist: which GPUs, where they sit, how they are joined. Facts from NVIDIA's data sheets and from
//! `nvidia-smi` on such machines.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Most GPUs in one simulated machine.
pub(super) const MAX_GPUS: u32 = 64;

/// Which machine to simulate: `dgx-h100`, `mig`, or with a number of GPUs `dgx-h100x16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    pub(super) machine: &'static MachineType,
    pub(super) gpus: u32,
}

/// No such profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is no simulated machine; known are {}; append xN for 1 to {MAX_GPUS} GPUs, as in dgx-h100x16",
    known()
)]
pub struct ParseProfileError {
    /// Cut to 80 characters.
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct MachineType {
    pub(super) name: &'static str,
    /// Repeated for machines with more GPUs.
    pub(super) slots: &'static [Slot],
}

/// Where a GPU sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) product: &'static Product,
    pub(super) pci_domain: u32,
    pub(super) pci_bus: u8,
    pub(super) numa_node: u32,
    pub(super) nvlink: NvlinkWiring,
    /// MIG instances from the start; `None`: not split.
    pub(super) mig: Option<&'static [&'static str]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NvlinkWiring {
    None,
    /// All GPUs of the machine behind switches.
    Switched,
    /// Bridged with the neighbour: positions 0 and 1, 2 and 3, …
    Bridged,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) name: &'static str,
    pub(super) architecture: &'static str,
    pub(super) compute_capability: &'static str,
    pub(super) memory_mib: u64,
    pub(super) power_limit_watt: u32,
    pub(super) idle_watt: u32,
    pub(super) nvlinks: u32,
    pub(super) mig: bool,
    /// Since Ampere rows are remapped; before, pages were retired.
    pub(super) remaps_rows: bool,
    /// Part of a multi-node NVLink fabric.
    pub(super) fabric: bool,
}

const HOPPER: Product = Product {
    name: "NVIDIA H100 80GB HBM3",
    architecture: "Hopper",
    compute_capability: "9.0",
    memory_mib: 81_559,
    power_limit_watt: 700,
    idle_watt: 69,
    nvlinks: 18,
    mig: true,
    remaps_rows: true,
    fabric: false,
};
static H100_SXM: Product = HOPPER;
static H100_PCIE: Product = Product {
    name: "NVIDIA H100 PCIe",
    power_limit_watt: 350,
    idle_watt: 46,
    nvlinks: 12,
    ..HOPPER
};
static H200: Product = Product {
    name: "NVIDIA H200",
    memory_mib: 143_771,
    idle_watt: 76,
    ..HOPPER
};
static A100_SXM: Product = Product {
    name: "NVIDIA A100-SXM4-80GB",
    architecture: "Ampere",
    compute_capability: "8.0",
    memory_mib: 81_920,
    power_limit_watt: 400,
    idle_watt: 62,
    nvlinks: 12,
    ..HOPPER
};
static A100_PCIE: Product = Product {
    name: "NVIDIA A100-PCIE-40GB",
    architecture: "Ampere",
    compute_capability: "8.0",
    memory_mib: 40_960,
    power_limit_watt: 250,
    idle_watt: 33,
    nvlinks: 0,
    ..HOPPER
};
static L40S: Product = Product {
    name: "NVIDIA L40S",
    architecture: "Ada",
    compute_capability: "8.9",
    memory_mib: 46_068,
    power_limit_watt: 350,
    idle_watt: 35,
    nvlinks: 0,
    mig: false,
    ..HOPPER
};
static B200: Product = Product {
    name: "NVIDIA B200",
    architecture: "Blackwell",
    compute_capability: "10.0",
    memory_mib: 183_359,
    power_limit_watt: 1000,
    idle_watt: 140,
    ..HOPPER
};
static GB200: Product = Product {
    name: "NVIDIA GB200",
    architecture: "Blackwell",
    compute_capability: "10.0",
    memory_mib: 189_471,
    power_limit_watt: 1200,
    idle_watt: 160,
    fabric: true,
    ..HOPPER
};
static T4: Product = Product {
    name: "Tesla T4",
    architecture: "Turing",
    compute_capability: "7.5",
    memory_mib: 15_360,
    power_limit_watt: 70,
    idle_watt: 9,
    nvlinks: 0,
    mig: false,
    remaps_rows: false,
    ..HOPPER
};

const fn slot(product: &'static Product, pci_bus: u8, numa_node: u32, nvlink: NvlinkWiring) -> Slot {
    Slot {
        product,
        pci_domain: 0,
        pci_bus,
        numa_node,
        nvlink,
        mig: None,
    }
}

const fn in_domain(pci_domain: u32, slot: Slot) -> Slot {
    Slot { pci_domain, ..slot }
}

const fn split(instances: &'static [&'static str], slot: Slot) -> Slot {
    Slot {
        mig: Some(instances),
        ..slot
    }
}

/// The GPU tray of a DGX or HGX with two sockets.
const fn hgx(product: &'static Product) -> [Slot; 8] {
    use NvlinkWiring::Switched;
    [
        slot(product, 0x1B, 0, Switched),
        slot(product, 0x43, 0, Switched),
        slot(product, 0x52, 0, Switched),
        slot(product, 0x61, 0, Switched),
        slot(product, 0x9D, 1, Switched),
        slot(product, 0xC3, 1, Switched),
        slot(product, 0xD1, 1, Switched),
        slot(product, 0xDF, 1, Switched),
    ]
}

/// Eight PCIe cards under two sockets.
const fn cards(product: &'static Product) -> [Slot; 8] {
    use NvlinkWiring::None;
    [
        slot(product, 0x0A, 0, None),
        slot(product, 0x18, 0, None),
        slot(product, 0x3B, 0, None),
        slot(product, 0x5E, 0, None),
        slot(product, 0x86, 1, None),
        slot(product, 0xAF, 1, None),
        slot(product, 0xD8, 1, None),
        slot(product, 0xE3, 1, None),
    ]
}

static H100_HGX: [Slot; 8] = hgx(&H100_SXM);
static H200_HGX: [Slot; 8] = hgx(&H200);
static B200_HGX: [Slot; 8] = hgx(&B200);
static L40S_CARDS: [Slot; 8] = cards(&L40S);

/// A DGX A100 has eight NUMA nodes, GPUs at every other one.
static A100_DGX: [Slot; 8] = {
    use NvlinkWiring::Switched;
    [
        slot(&A100_SXM, 0x07, 3, Switched),
        slot(&A100_SXM, 0x0F, 3, Switched),
        slot(&A100_SXM, 0x47, 1, Switched),
        slot(&A100_SXM, 0x4E, 1, Switched),
        slot(&A100_SXM, 0x87, 7, Switched),
        slot(&A100_SXM, 0x90, 7, Switched),
        slot(&A100_SXM, 0xB7, 5, Switched),
        slot(&A100_SXM, 0xBD, 5, Switched),
    ]
};

/// One compute tray of an NVL72 rack: two Grace CPUs, four GPUs.
static GB200_TRAY: [Slot; 4] = {
    use NvlinkWiring::Switched;
    [
        in_domain(0x8, slot(&GB200, 0x01, 0, Switched)),
        in_domain(0x9, slot(&GB200, 0x01, 0, Switched)),
        in_domain(0x18, slot(&GB200, 0x01, 1, Switched)),
        in_domain(0x19, slot(&GB200, 0x01, 1, Switched)),
    ]
};

static MIXED: [Slot; 8] = {
    use NvlinkWiring::{Bridged, None};
    [
        slot(&H100_PCIE, 0x0A, 0, Bridged),
        slot(&H100_PCIE, 0x18, 0, Bridged),
        slot(&A100_PCIE, 0x3B, 0, None),
        slot(&A100_PCIE, 0x5E, 0, None),
        slot(&L40S, 0x86, 1, None),
        slot(&L40S, 0xAF, 1, None),
        slot(&T4, 0xD8, 1, None),
        slot(&T4, 0xE3, 1, None),
    ]
};

static MIG: [Slot; 8] = {
    let [zero, one, two, three, four, five, six, seven] = hgx(&H100_SXM);
    [
        split(
            &[
                "1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb",
            ],
            zero,
        ),
        split(&["2g.20gb", "2g.20gb", "2g.20gb", "1g.10gb"], one),
        split(&["3g.40gb", "3g.40gb"], two),
        split(&[], three),
        four,
        five,
        six,
        seven,
    ]
};

static MACHINES: [MachineType; 8] = [
    MachineType {
        name: "dgx-h100",
        slots: &H100_HGX,
    },
    MachineType {
        name: "dgx-a100",
        slots: &A100_DGX,
    },
    MachineType {
        name: "l40s",
        slots: &L40S_CARDS,
    },
    MachineType {
        name: "h200",
        slots: &H200_HGX,
    },
    MachineType {
        name: "b200",
        slots: &B200_HGX,
    },
    MachineType {
        name: "gb200",
        slots: &GB200_TRAY,
    },
    MachineType {
        name: "mixed",
        slots: &MIXED,
    },
    MachineType {
        name: "mig",
        slots: &MIG,
    },
];

fn known() -> String {
    MACHINES.each_ref().map(|machine| machine.name).join(", ")
}

impl Profile {
    /// The names of all machines.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MACHINES.iter().map(|machine| machine.name)
    }

    /// How many GPUs the machine has at the start.
    pub const fn gpus(&self) -> u32 {
        self.gpus
    }
}

impl MachineType {
    /// Where the GPU at `position` sits. The pattern repeats in further PCI domains.
    pub(super) fn slot(&self, position: u32) -> Slot {
        let length = u32::try_from(self.slots.len()).unwrap_or(1).max(1);
        let slot = self.slots[(position % length) as usize];
        Slot {
            pci_domain: slot.pci_domain + 0x100 * (position / length),
            ..slot
        }
    }
}

impl FromStr for Profile {
    type Err = ParseProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let find = |name: &str| MACHINES.iter().find(|machine| machine.name == name);
        let whole = |machine: &'static MachineType| Some((machine, u32::try_from(machine.slots.len()).ok()?));
        let counted = || {
            let (name, count) = text.rsplit_once('x')?;
            let count = count.parse().ok().filter(|count| (1..=MAX_GPUS).contains(count))?;
            Some((find(name)?, count))
        };
        let (machine, gpus) = find(text)
            .and_then(whole)
            .or_else(counted)
            .ok_or_else(|| ParseProfileError {
                text: text.chars().take(80).collect(),
            })?;
        Ok(Self { machine, gpus })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gpus as usize == self.machine.slots.len() {
            f.pad(self.machine.name)
        } else {
            f.pad(&format!("{}x{}", self.machine.name, self.gpus))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_profile_and_is_written_as_it_was_read() {
        for text in Profile::names().chain(["dgx-h100x16", "l40sx1", "gb200x64"]) {
            assert_eq!(text.parse::<Profile>().unwrap().to_string(), text);
        }
        assert_eq!("dgx-h100x8".parse::<Profile>().unwrap().to_string(), "dgx-h100");
    }

    #[test]
    fn what_is_no_profile_is_refused_with_the_list() {
        for text in [
            "",
            "x",
            "dgx",
            "dgx-h100x",
            "dgx-h100x0",
            "dgx-h100x65",
            "dgx-h100x-1",
            "8xdgx-h100",
        ] {
            let error = text.parse::<Profile>().unwrap_err().to_string();
            assert!(error.contains("dgx-h100, dgx-a100, l40s, h200"), "{error}");
        }
    }
}
