//! Where the GPUs of the named machines sit, and what their NVLinks lead to.

use super::Slot;
use crate::scenario::{BusId, Fabric, LinkPeer, LinkPeerKind, NvLinks, Place};

type Slots = fn() -> Vec<Slot>;

pub(super) const MACHINES: &[(&str, &str, Slots)] = &[
    (
        "dgx-h100",
        "8 × H100 SXM 80 GB, 18 NVLinks each to 4 NVSwitches",
        dgx_h100,
    ),
    ("h200", "8 × H200 SXM 141 GB, NVLinks as in dgx-h100", h200),
    ("dgx-b200", "8 × B200 180 GB, 18 NVLinks each to 2 NVSwitches", dgx_b200),
    (
        "gb200",
        "a GB200 NVL72 compute tray: 4 × GB200 with Grace, in a rack-wide fabric",
        gb200,
    ),
    ("gh200", "1 × GH200 with Grace", gh200),
    (
        "dgx-a100",
        "8 × A100 SXM 80 GB, 12 NVLinks each to 6 NVSwitches",
        dgx_a100,
    ),
    ("dgx-a100-40gb", "the same with 40 GB", dgx_a100_40),
    ("dgx-1v", "8 × V100 SXM2 32 GB, 6 direct NVLinks each", dgx_1v),
    ("l40s", "8 × L40S on PCIe", l40s),
    ("h100-nvl", "8 × H100 NVL 94 GB on PCIe, bridged in pairs", h100_nvl),
    ("h100-pcie", "8 × H100 PCIe 80 GB", h100_pcie),
    ("a100-pcie", "8 × A100 PCIe 80 GB", a100_pcie),
    ("a30", "4 × A30", a30),
    ("a10", "4 × A10", a10),
    ("l4", "8 × L4", l4),
    ("t4", "4 × T4", t4),
    ("rtx-4090", "2 × GeForce RTX 4090, a desktop", rtx_4090),
    (
        "rtx-pro-6000",
        "8 × RTX PRO 6000 Blackwell Server Edition",
        rtx_pro_6000,
    ),
    (
        "mixed",
        "2 × H100 PCIe, 2 × A100 PCIe, 2 × L40S, 2 × L4 in one machine",
        mixed,
    ),
    (
        "mig",
        "dgx-h100, of which GPUs 4 to 7 are in MIG mode with different layouts",
        dgx_h100,
    ),
];

/// PCI domains that one copy of a layout takes, when it repeats.
pub(super) const DOMAINS_PER_ROUND: u32 = 0x20;

/// The partitions that a machine comes with.
pub(super) fn mig_of(machine: &str) -> Vec<(Vec<usize>, Vec<String>)> {
    let layout = |gpu, profiles: &[&str]| (vec![gpu], profiles.iter().map(|&name| name.to_owned()).collect());
    if machine != "mig" {
        return Vec::new();
    }
    vec![
        layout(4, &["1g.10gb"; 7]),
        layout(5, &["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]),
        layout(6, &["4g.40gb", "3g.40gb"]),
        layout(7, &["7g.80gb"]),
    ]
}

fn slot(product: &'static str, bus_id: BusId, place: Place) -> Slot {
    Slot {
        product,
        bus_id,
        place,
        nvlink: NvLinks::default(),
        fabric: None,
        module_id: None,
    }
}

fn place(numa_node: u32, cpus: &str, host_bridge: u32, switch: &str) -> Place {
    Place {
        numa_node: Some(numa_node),
        cpus: cpus.to_owned(),
        host_bridge: format!("pci0000:{host_bridge:02x}"),
        pcie_switches: vec![switch.to_owned()],
        ..Place::default()
    }
}

fn links(kind: LinkPeerKind, peers: impl IntoIterator<Item = (Option<BusId>, u32)>) -> NvLinks {
    NvLinks {
        peers: peers
            .into_iter()
            .map(|(bus_id, links)| LinkPeer { kind, bus_id, links })
            .collect(),
        ..NvLinks::default()
    }
}

/// The Hopper baseboard: a PCIe switch for each GPU, four GPUs for each socket of 56 cores.
fn hopper_board(product: &'static str, nvlink: &NvLinks) -> Vec<Slot> {
    let buses = [0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF];
    let slots = (1..).zip(buses).map(|(module, bus)| {
        let (node, cpus) = if module <= 4 {
            (0, "0-55,112-167")
        } else {
            (1, "56-111,168-223")
        };
        Slot {
            nvlink: nvlink.clone(),
            fabric: Some(Fabric::default()),
            module_id: Some(module),
            ..slot(
                product,
                BusId::new(0, bus),
                place(node, cpus, u32::from(bus) - 3, &format!("switch-{module}")),
            )
        }
    });
    slots.collect()
}

fn hopper_switches() -> NvLinks {
    let switches = [(0x07, 5), (0x08, 4), (0x09, 4), (0x0A, 5)];
    links(
        LinkPeerKind::Switch,
        switches.map(|(bus, count)| (Some(BusId::new(0, bus)), count)),
    )
}

fn dgx_h100() -> Vec<Slot> {
    hopper_board("h100-sxm5-80gb", &hopper_switches())
}

fn h200() -> Vec<Slot> {
    hopper_board("h200-sxm5-141gb", &hopper_switches())
}

/// From NVLink 5 on the switches are no PCI devices of the host.
fn dgx_b200() -> Vec<Slot> {
    hopper_board("b200-sxm6-180gb", &links(LinkPeerKind::Switch, [(None, 9), (None, 9)]))
}

fn gb200() -> Vec<Slot> {
    let slots = [(0x08, 0, 2), (0x09, 0, 10), (0x18, 1, 18), (0x19, 1, 26)];
    let slots = (1..).zip(slots).map(|(module, (domain, node, memory_node))| Slot {
        nvlink: links(LinkPeerKind::Switch, [(None, 18)]),
        fabric: Some(Fabric {
            cluster_uuid: "4a5e1c38-6f2b-4d0e-9c11-7b2f5a90d3c4".to_owned(),
            clique_id: 32766,
            ..Fabric::default()
        }),
        module_id: Some(module),
        ..slot(
            "gb200-186gb",
            BusId::new(domain, 0x01),
            Place {
                numa_node: Some(node),
                cpus: if node == 0 { "0-71" } else { "72-143" }.to_owned(),
                gpu_numa_node: Some(memory_node),
                host_bridge: format!("pci{domain:04x}:00"),
                ..Place::default()
            },
        )
    });
    slots.collect()
}

fn gh200() -> Vec<Slot> {
    let place = Place {
        numa_node: Some(0),
        cpus: "0-71".to_owned(),
        gpu_numa_node: Some(1),
        host_bridge: "pci0009:00".to_owned(),
        ..Place::default()
    };
    vec![slot("gh200-96gb", BusId::new(9, 0x01), place)]
}

/// Two EPYC 7742 with four NUMA nodes each; a pair of GPUs behind a PCIe switch tree.
fn ampere_board(product: &'static str) -> Vec<Slot> {
    let switches = (0xC4..=0xC9).map(|bus| (Some(BusId::new(0, bus)), 2));
    let nvlink = links(LinkPeerKind::Switch, switches);
    let pairs = [
        ([0x07, 0x0F], 3, "48-63,176-191"),
        ([0x47, 0x4E], 1, "16-31,144-159"),
        ([0x87, 0x90], 7, "112-127,240-255"),
        ([0xB7, 0xBD], 5, "80-95,208-223"),
    ];
    let gpus = pairs
        .into_iter()
        .flat_map(|(buses, node, cpus)| buses.map(|bus| (bus, buses[0], node, cpus)));
    let slots = (1..).zip(gpus).map(|(module, (bus, tree, node, cpus))| {
        let mut place = place(node, cpus, u32::from(tree) & 0xF0, &format!("switch-{node}"));
        place.pcie_switches.push(format!("switch-{node}-{module}"));
        Slot {
            nvlink: nvlink.clone(),
            module_id: Some(module),
            ..slot(product, BusId::new(0, bus), place)
        }
    });
    slots.collect()
}

fn dgx_a100() -> Vec<Slot> {
    ampere_board("a100-sxm4-80gb")
}

fn dgx_a100_40() -> Vec<Slot> {
    ampere_board("a100-sxm4-40gb")
}

/// The hybrid cube mesh: NVLinks between each pair of GPUs.
fn dgx_1v() -> Vec<Slot> {
    const BUSES: [u8; 8] = [0x06, 0x07, 0x0A, 0x0B, 0x85, 0x86, 0x89, 0x8A];
    const MESH: [[u32; 8]; 8] = [
        [0, 1, 1, 2, 2, 0, 0, 0],
        [1, 0, 2, 1, 0, 2, 0, 0],
        [1, 2, 0, 2, 0, 0, 1, 0],
        [2, 1, 2, 0, 0, 0, 0, 1],
        [2, 0, 0, 0, 0, 1, 1, 2],
        [0, 2, 0, 0, 1, 0, 2, 1],
        [0, 0, 1, 0, 1, 2, 0, 2],
        [0, 0, 0, 1, 2, 1, 2, 0],
    ];
    let slots = (0..).zip(BUSES).zip(MESH).map(|((index, bus), row)| {
        let peers = BUSES.into_iter().zip(row).filter(|(_, links)| *links > 0);
        let (node, cpus, bridge) = if index < 4 {
            (0, "0-19,40-59", 0x00)
        } else {
            (1, "20-39,60-79", 0x80)
        };
        Slot {
            nvlink: links(
                LinkPeerKind::Gpu,
                peers.map(|(bus, links)| (Some(BusId::new(0, bus)), links)),
            ),
            module_id: Some(index + 1),
            ..slot(
                "v100-sxm2-32gb",
                BusId::new(0, bus),
                place(node, cpus, bridge, &format!("switch-{}", index / 2)),
            )
        }
    });
    slots.collect()
}

/// A two-socket server with 32 cores and four PCIe slots for each socket, two slots behind each PCIe switch.
fn pcie_server(products: &[&'static str]) -> Vec<Slot> {
    const BUSES: [u8; 8] = [0x16, 0x27, 0x38, 0x49, 0x95, 0xA6, 0xB7, 0xC8];
    let slots = (0..).zip(BUSES).zip(products).map(|((index, bus), product)| {
        let (node, cpus, bridge) = if index < 4 {
            (0, "0-31,64-95", 0x15)
        } else {
            (1, "32-63,96-127", 0x94)
        };
        slot(
            product,
            BusId::new(0, bus),
            place(node, cpus, bridge, &format!("switch-{}", index / 2)),
        )
    });
    slots.collect()
}

fn l40s() -> Vec<Slot> {
    pcie_server(&["l40s"; 8])
}

fn h100_pcie() -> Vec<Slot> {
    pcie_server(&["h100-pcie-80gb"; 8])
}

fn a100_pcie() -> Vec<Slot> {
    pcie_server(&["a100-pcie-80gb"; 8])
}

/// Three bridges of four links join two neighbours.
fn h100_nvl() -> Vec<Slot> {
    let mut slots = pcie_server(&["h100-nvl-94gb"; 8]);
    for pair in slots.chunks_exact_mut(2) {
        let [first, second] = pair else { continue };
        first.nvlink = links(LinkPeerKind::Gpu, [(Some(second.bus_id), 12)]);
        second.nvlink = links(LinkPeerKind::Gpu, [(Some(first.bus_id), 12)]);
    }
    slots
}

fn a30() -> Vec<Slot> {
    pcie_server(&["a30-24gb"; 4])
}

fn a10() -> Vec<Slot> {
    pcie_server(&["a10-24gb"; 4])
}

fn l4() -> Vec<Slot> {
    pcie_server(&["l4"; 8])
}

fn t4() -> Vec<Slot> {
    pcie_server(&["t4"; 4])
}

fn rtx_4090() -> Vec<Slot> {
    pcie_server(&["rtx-4090"; 2])
}

fn rtx_pro_6000() -> Vec<Slot> {
    pcie_server(&["rtx-pro-6000-server"; 8])
}

fn mixed() -> Vec<Slot> {
    let pair = |product| [product; 2];
    pcie_server(&["h100-pcie-80gb", "a100-pcie-80gb", "l40s", "l4"].map(pair).concat())
}
