//! Products by key.

use super::migs;
use crate::scenario::{Architecture, Brand, EventKind, MaxClocks, PowerRange, Product, TemperatureLimits};

/// A key, and what makes the product.
type Entry = (&'static str, fn() -> Product);

pub(super) const PRODUCTS: &[Entry] = &[
    ("h100-sxm5-80gb", h100_sxm5),
    ("h100-pcie-80gb", h100_pcie),
    ("h100-nvl-94gb", h100_nvl),
    ("h200-sxm5-141gb", h200),
    ("gh200-96gb", gh200),
    ("b200-sxm6-180gb", b200),
    ("gb200-186gb", gb200),
    ("a100-sxm4-80gb", a100_sxm4_80),
    ("a100-sxm4-40gb", a100_sxm4_40),
    ("a100-pcie-80gb", a100_pcie_80),
    ("a30-24gb", a30),
    ("a10-24gb", a10),
    ("l40s", l40s),
    ("l4", l4),
    ("t4", t4),
    ("v100-sxm2-32gb", v100),
    ("rtx-4090", rtx_4090),
    ("rtx-pro-6000-server", rtx_pro_6000),
];

const fn watts(min: u32, default: u32, max: u32) -> PowerRange {
    PowerRange {
        min: min * 1000,
        default: default * 1000,
        max: max * 1000,
    }
}

const fn mhz(graphics: u32, memory: u32, video: u32) -> MaxClocks {
    MaxClocks {
        graphics,
        memory,
        video,
    }
}

/// Cores of an SM since Ampere's GA102 and GH100.
const CORES_PER_SM: u32 = 128;

fn h100_sxm5() -> Product {
    Product {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        brand: Brand::Nvidia,
        architecture: Architecture::Hopper,
        compute_capability: (9, 0),
        sms: 132,
        cores: 132 * CORES_PER_SM,
        memory_mib: 81559,
        reserved_mib: 551,
        bar1_mib: Some(131_072),
        memory_bus_bits: 5120,
        pci_device_id: 0x2330_10DE,
        pci_subsystem_id: 0x16C1_10DE,
        pcie_generation: 5,
        board_part_number: "692-2G520-0200-000".to_owned(),
        vbios: "96.00.99.00.01".to_owned(),
        power_mw: watts(200, 700, 700),
        temperature_c: TemperatureLimits {
            shutdown: 92,
            slowdown: 89,
            gpu_max: 87,
            memory_max: 95,
        },
        clocks_mhz: mhz(1980, 2619, 1545),
        fans: 0,
        ecc: true,
        row_remap_banks: 2560,
        nvlink_generation: 4,
        pcie_p2p: true,
        c2c: false,
        mig_profiles: migs::h100_80(),
        events: EventKind::DATA_CENTRE.to_vec(),
    }
}

fn h100_pcie() -> Product {
    Product {
        name: "NVIDIA H100 PCIe".to_owned(),
        sms: 114,
        cores: 114 * CORES_PER_SM,
        pci_device_id: 0x2331_10DE,
        pci_subsystem_id: 0x1626_10DE,
        board_part_number: "900-21010-0000-000".to_owned(),
        power_mw: watts(200, 350, 350),
        clocks_mhz: mhz(1755, 1593, 1485),
        mig_profiles: migs::h100_pcie_80(),
        ..h100_sxm5()
    }
}

fn h100_nvl() -> Product {
    Product {
        name: "NVIDIA H100 NVL".to_owned(),
        memory_mib: 95830,
        memory_bus_bits: 6016,
        pci_device_id: 0x2321_10DE,
        pci_subsystem_id: 0x1839_10DE,
        board_part_number: "900-21010-0020-000".to_owned(),
        power_mw: watts(200, 400, 400),
        clocks_mhz: mhz(1785, 2619, 1545),
        mig_profiles: migs::h100_94(),
        ..h100_sxm5()
    }
}

fn h200() -> Product {
    Product {
        name: "NVIDIA H200".to_owned(),
        memory_mib: 143_771,
        memory_bus_bits: 6144,
        bar1_mib: Some(262_144),
        pci_device_id: 0x2335_10DE,
        pci_subsystem_id: 0x18BE_10DE,
        board_part_number: "692-2G525-0220-000".to_owned(),
        clocks_mhz: mhz(1980, 3201, 1545),
        mig_profiles: migs::h200_141(),
        ..h100_sxm5()
    }
}

fn gh200() -> Product {
    Product {
        name: "NVIDIA GH200 480GB".to_owned(),
        memory_mib: 97871,
        memory_bus_bits: 6144,
        bar1_mib: None,
        pci_device_id: 0x2342_10DE,
        pci_subsystem_id: 0x16EB_10DE,
        board_part_number: "900-2G530-0000-000".to_owned(),
        power_mw: watts(100, 900, 900),
        c2c: true,
        mig_profiles: migs::gh200_96(),
        ..h100_sxm5()
    }
}

fn b200() -> Product {
    Product {
        name: "NVIDIA B200".to_owned(),
        architecture: Architecture::Blackwell,
        compute_capability: (10, 0),
        sms: 148,
        cores: 148 * CORES_PER_SM,
        memory_mib: 183_359,
        reserved_mib: 733,
        bar1_mib: Some(262_144),
        memory_bus_bits: 8192,
        pci_device_id: 0x2901_10DE,
        pci_subsystem_id: 0x1999_10DE,
        board_part_number: "692-2G525-0225-000".to_owned(),
        vbios: "97.00.88.00.0F".to_owned(),
        power_mw: watts(200, 1000, 1000),
        clocks_mhz: mhz(1965, 3996, 1965),
        row_remap_banks: 4096,
        nvlink_generation: 5,
        mig_profiles: migs::b200_180(),
        ..h100_sxm5()
    }
}

fn gb200() -> Product {
    Product {
        name: "NVIDIA GB200".to_owned(),
        sms: 152,
        cores: 152 * CORES_PER_SM,
        memory_mib: 189_471,
        bar1_mib: None,
        pci_device_id: 0x2941_10DE,
        pci_subsystem_id: 0x2046_10DE,
        board_part_number: "699-2G548-1201-800".to_owned(),
        power_mw: watts(200, 1200, 1200),
        clocks_mhz: mhz(2062, 3996, 2062),
        c2c: true,
        mig_profiles: migs::gb200_189(),
        ..b200()
    }
}

fn a100_sxm4_80() -> Product {
    Product {
        name: "NVIDIA A100-SXM4-80GB".to_owned(),
        architecture: Architecture::Ampere,
        compute_capability: (8, 0),
        sms: 108,
        cores: 6912,
        memory_mib: 81920,
        reserved_mib: 767,
        pci_device_id: 0x20B2_10DE,
        pci_subsystem_id: 0x1463_10DE,
        pcie_generation: 4,
        board_part_number: "692-2G506-0210-003".to_owned(),
        vbios: "92.00.9E.00.01".to_owned(),
        power_mw: watts(100, 400, 400),
        temperature_c: TemperatureLimits {
            shutdown: 92,
            slowdown: 89,
            gpu_max: 85,
            memory_max: 95,
        },
        clocks_mhz: mhz(1410, 1593, 1290),
        row_remap_banks: 640,
        nvlink_generation: 3,
        mig_profiles: migs::a100_80(),
        ..h100_sxm5()
    }
}

fn a100_sxm4_40() -> Product {
    Product {
        name: "NVIDIA A100-SXM4-40GB".to_owned(),
        memory_mib: 40960,
        reserved_mib: 424,
        bar1_mib: Some(65536),
        pci_device_id: 0x20B0_10DE,
        pci_subsystem_id: 0x144E_10DE,
        board_part_number: "692-2G506-0200-002".to_owned(),
        clocks_mhz: mhz(1410, 1215, 1290),
        mig_profiles: migs::a100_40(),
        ..a100_sxm4_80()
    }
}

fn a100_pcie_80() -> Product {
    Product {
        name: "NVIDIA A100 80GB PCIe".to_owned(),
        pci_device_id: 0x20B5_10DE,
        pci_subsystem_id: 0x1533_10DE,
        board_part_number: "900-21001-0020-000".to_owned(),
        power_mw: watts(150, 300, 300),
        clocks_mhz: mhz(1410, 1512, 1290),
        ..a100_sxm4_80()
    }
}

fn a30() -> Product {
    Product {
        name: "NVIDIA A30".to_owned(),
        sms: 56,
        cores: 3584,
        memory_mib: 24576,
        reserved_mib: 424,
        bar1_mib: Some(32768),
        memory_bus_bits: 3072,
        pci_device_id: 0x20B7_10DE,
        pci_subsystem_id: 0x1532_10DE,
        board_part_number: "900-21001-0040-000".to_owned(),
        power_mw: watts(100, 165, 165),
        clocks_mhz: mhz(1440, 1215, 1305),
        mig_profiles: migs::a30_24(),
        ..a100_sxm4_80()
    }
}

/// What the PCIe boards without HBM have in common.
fn gddr_board() -> Product {
    Product {
        bar1_mib: Some(32768),
        memory_bus_bits: 384,
        pcie_generation: 4,
        row_remap_banks: 192,
        nvlink_generation: 0,
        mig_profiles: Vec::new(),
        ..h100_sxm5()
    }
}

fn a10() -> Product {
    Product {
        name: "NVIDIA A10".to_owned(),
        architecture: Architecture::Ampere,
        compute_capability: (8, 6),
        sms: 72,
        cores: 72 * CORES_PER_SM,
        memory_mib: 23028,
        reserved_mib: 512,
        pci_device_id: 0x2236_10DE,
        pci_subsystem_id: 0x1482_10DE,
        board_part_number: "900-2G133-0020-000".to_owned(),
        vbios: "94.02.75.00.01".to_owned(),
        power_mw: watts(100, 150, 150),
        clocks_mhz: mhz(1695, 6251, 1545),
        ..gddr_board()
    }
}

fn l40s() -> Product {
    Product {
        name: "NVIDIA L40S".to_owned(),
        architecture: Architecture::Ada,
        compute_capability: (8, 9),
        sms: 142,
        cores: 142 * CORES_PER_SM,
        memory_mib: 46068,
        reserved_mib: 598,
        bar1_mib: Some(65536),
        pci_device_id: 0x26B9_10DE,
        pci_subsystem_id: 0x1851_10DE,
        board_part_number: "900-2G133-0080-000".to_owned(),
        vbios: "95.02.66.00.02".to_owned(),
        power_mw: watts(100, 350, 350),
        clocks_mhz: mhz(2520, 9001, 1965),
        ..gddr_board()
    }
}

fn l4() -> Product {
    Product {
        name: "NVIDIA L4".to_owned(),
        sms: 58,
        cores: 58 * CORES_PER_SM,
        memory_mib: 23034,
        reserved_mib: 457,
        bar1_mib: Some(32768),
        memory_bus_bits: 192,
        pci_device_id: 0x27B8_10DE,
        pci_subsystem_id: 0x16CA_10DE,
        board_part_number: "900-2G193-0000-001".to_owned(),
        power_mw: watts(40, 72, 72),
        clocks_mhz: mhz(2040, 6251, 1770),
        ..l40s()
    }
}

/// Before Ampere: pages are retired, rows cannot be remapped.
fn t4() -> Product {
    Product {
        name: "Tesla T4".to_owned(),
        brand: Brand::Tesla,
        architecture: Architecture::Turing,
        compute_capability: (7, 5),
        sms: 40,
        cores: 2560,
        memory_mib: 15360,
        reserved_mib: 448,
        bar1_mib: Some(256),
        memory_bus_bits: 256,
        pci_device_id: 0x1EB8_10DE,
        pci_subsystem_id: 0x12A2_10DE,
        pcie_generation: 3,
        board_part_number: "900-2G183-0000-001".to_owned(),
        vbios: "90.04.96.00.02".to_owned(),
        power_mw: watts(60, 70, 70),
        temperature_c: TemperatureLimits {
            shutdown: 96,
            slowdown: 93,
            gpu_max: 85,
            memory_max: 95,
        },
        clocks_mhz: mhz(1590, 5001, 1470),
        row_remap_banks: 0,
        ..gddr_board()
    }
}

fn v100() -> Product {
    Product {
        name: "Tesla V100-SXM2-32GB".to_owned(),
        architecture: Architecture::Volta,
        compute_capability: (7, 0),
        sms: 80,
        cores: 5120,
        memory_mib: 32768,
        reserved_mib: 268,
        bar1_mib: Some(32768),
        memory_bus_bits: 4096,
        pci_device_id: 0x1DB5_10DE,
        pci_subsystem_id: 0x1249_10DE,
        board_part_number: "900-2G503-0310-000".to_owned(),
        vbios: "88.00.48.00.02".to_owned(),
        power_mw: watts(150, 300, 300),
        clocks_mhz: mhz(1530, 877, 1372),
        nvlink_generation: 2,
        ..t4()
    }
}

/// A desktop board: no ECC, no serial number, no peer access, few events.
fn rtx_4090() -> Product {
    Product {
        name: "NVIDIA GeForce RTX 4090".to_owned(),
        brand: Brand::GeforceRtx,
        sms: 128,
        cores: 128 * CORES_PER_SM,
        memory_mib: 24564,
        reserved_mib: 355,
        bar1_mib: Some(32768),
        pci_device_id: 0x2684_10DE,
        pci_subsystem_id: 0x167C_10DE,
        board_part_number: String::new(),
        vbios: "95.02.3C.00.8C".to_owned(),
        power_mw: watts(150, 450, 600),
        clocks_mhz: mhz(3105, 10501, 2415),
        fans: 2,
        ecc: false,
        row_remap_banks: 0,
        pcie_p2p: false,
        events: vec![EventKind::Xid, EventKind::PState, EventKind::Clock],
        ..l40s()
    }
}

fn rtx_pro_6000() -> Product {
    Product {
        name: "NVIDIA RTX PRO 6000 Blackwell Server Edition".to_owned(),
        brand: Brand::NvidiaRtx,
        architecture: Architecture::Blackwell,
        compute_capability: (12, 0),
        sms: 188,
        cores: 188 * CORES_PER_SM,
        memory_mib: 97887,
        reserved_mib: 636,
        bar1_mib: Some(131_072),
        memory_bus_bits: 512,
        pci_device_id: 0x2BB5_10DE,
        pci_subsystem_id: 0x204E_10DE,
        pcie_generation: 5,
        board_part_number: "900-2G153-0000-000".to_owned(),
        vbios: "98.02.6A.00.03".to_owned(),
        power_mw: watts(300, 600, 600),
        clocks_mhz: mhz(2430, 12481, 2370),
        mig_profiles: migs::rtx_pro_6000_96(),
        ..l40s()
    }
}
