//! Who is there, and how much memory each has.

use nvml_wrapper::{
    Nvml, enum_wrappers::device::Brand, enums::device::DeviceArchitecture, error::NvmlError,
    structs::device::CudaComputeCapability,
};

use crate::rig::Rig;

#[test]
fn the_system_introduces_itself() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    assert_eq!(nvml.sys_nvml_version().unwrap(), "13.580.95.05");
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 13000);
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert_eq!(nvml.unit_count().unwrap(), 0);
    assert!(nvml.hic_versions().unwrap().is_empty());
}

#[test]
fn an_h100_is_an_h100() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.brand().unwrap(), Brand::Nvidia);
    assert_eq!(gpu.architecture().unwrap(), DeviceArchitecture::Hopper);
    let capability = gpu.cuda_compute_capability().unwrap();
    assert_eq!(capability, CudaComputeCapability { major: 9, minor: 0 });
    assert_eq!(gpu.num_cores().unwrap(), 16896);
    assert_eq!(gpu.index().unwrap(), 0);
    assert_eq!(gpu.minor_number().unwrap(), 0);
    assert!(gpu.is_in_persistent_mode().unwrap());
    assert!(gpu.board_part_number().unwrap().contains("G520"));
    assert!(!gpu.vbios_version().unwrap().is_empty());
    assert_eq!(gpu.serial().unwrap().len(), 13);
    let pci = gpu.pci_info().unwrap();
    assert_eq!(
        (pci.bus_id.as_str(), pci.bus, pci.pci_device_id),
        ("00000000:1B:00.0", 0x1B, 0x2330_10DE)
    );
    assert_eq!(gpu.max_pcie_link_gen().unwrap(), 5);
    let memory = gpu.memory_info().unwrap();
    assert_eq!(memory.total, 81559 << 20);
    assert_eq!(memory.used, 0);
    assert_eq!(memory.total, memory.free + memory.used + memory.reserved);
    assert_eq!(gpu.bar1_memory_info().unwrap().total, 131_072 << 20);
}

#[test]
fn a_gpu_is_found_by_each_of_its_names() {
    let rig = Rig::new("dgx-a100");
    let nvml = rig.nvml();
    for gpu in &rig.scenario().gpus {
        let found = [
            nvml.device_by_uuid(gpu.uuid.as_str()),
            nvml.device_by_pci_bus_id(gpu.bus_id.to_string()),
            nvml.device_by_pci_bus_id(gpu.bus_id.legacy().to_lowercase()),
            #[expect(deprecated, reason = "tools still use it")]
            nvml.device_by_serial(gpu.serial.as_str()),
        ];
        for device in found {
            assert_eq!(device.unwrap().uuid().unwrap(), gpu.uuid);
        }
    }
    assert_eq!(error(&nvml, "GPU-unknown"), NvmlErrorKind::NotFound);
    assert!(matches!(
        nvml.device_by_pci_bus_id("nonsense"),
        Err(NvmlError::InvalidArg)
    ));
    assert!(matches!(
        nvml.device_by_pci_bus_id("0000:FF:00.0"),
        Err(NvmlError::NotFound)
    ));
    assert!(matches!(nvml.device_by_index(8), Err(NvmlError::InvalidArg)));
}

#[derive(Debug, PartialEq)]
enum NvmlErrorKind {
    NotFound,
    Other,
}

fn error(nvml: &Nvml, uuid: &str) -> NvmlErrorKind {
    match nvml.device_by_uuid(uuid) {
        Err(NvmlError::NotFound) => NvmlErrorKind::NotFound,
        _ => NvmlErrorKind::Other,
    }
}

#[test]
fn many_more_gpus_than_eight_are_served() {
    let rig = Rig::new("dgx-h100x64");
    let nvml = rig.nvml();
    let count = nvml.device_count().unwrap();
    assert_eq!(count, 64);
    let uuids = (0..count).map(|index| nvml.device_by_index(index).unwrap().uuid().unwrap());
    assert_eq!(uuids.collect::<std::collections::BTreeSet<_>>().len(), 64);
}

#[test]
fn products_of_one_machine_may_differ() {
    let rig = Rig::new("mixed");
    let nvml = rig.nvml();
    let names: Vec<_> = (0..8)
        .map(|index| nvml.device_by_index(index).unwrap().name().unwrap())
        .collect();
    for name in ["NVIDIA H100 PCIe", "NVIDIA A100 80GB PCIe", "NVIDIA L40S", "NVIDIA L4"] {
        assert_eq!(
            names.iter().filter(|found| *found == name).count(),
            2,
            "{name} in {names:?}"
        );
    }
}

#[test]
fn a_desktop_board_has_less_to_say() {
    let rig = Rig::new("rtx-4090");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert_eq!(gpu.brand().unwrap(), Brand::GeForceRTX);
    assert!(matches!(gpu.serial(), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.is_ecc_enabled(), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.mig_mode(), Err(NvmlError::NotSupported)));
    assert_eq!(gpu.num_fans().unwrap(), 2);
    assert!(gpu.fan_speed(1).is_ok());
}

#[test]
fn a_change_of_the_file_is_seen_at_the_next_call() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(3).unwrap();
    for used in [0, 1024, 40000, 7] {
        rig.set(3, "memory_used_mib", &used.to_string());
        assert_eq!(gpu.memory_info().unwrap().used, used << 20);
    }
    std::fs::write(rig.installed.state.path(), "{ not JSON").unwrap();
    assert_eq!(gpu.memory_info().unwrap().used, 7 << 20, "the last good state stays");
}
