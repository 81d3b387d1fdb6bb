//! NVLink, PCIe, NUMA and the fabric.

use std::mem;

use nvml_wrapper::{
    Device,
    enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel},
    error::NvmlError,
};
use nvml_wrapper_sys::bindings::*;

use crate::rig::{Rig, code};
use berth_fake_nvml::scenario::ReturnCode;

fn remote_type(gpu: &Device<'_>, link: u32) -> Result<u32, ReturnCode> {
    let mut kind = 0;
    // SAFETY: the handle is alive and `kind` outlives the call.
    let raw = unsafe {
        gpu.nvml()
            .lib()
            .nvmlDeviceGetNvLinkRemoteDeviceType(gpu.handle(), link, &raw mut kind)
    };
    match code(raw) {
        ReturnCode::SUCCESS => Ok(kind),
        code => Err(code),
    }
}

#[test]
fn an_h100_has_18_links_to_switches() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(2).unwrap();
    let mut switches = std::collections::BTreeMap::new();
    for link in 0..18 {
        let wrapper = gpu.link_wrapper_for(link);
        assert!(wrapper.is_active().unwrap());
        assert_eq!(
            wrapper.version().unwrap(),
            nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0
        );
        let remote = wrapper.remote_pci_info().unwrap();
        assert_eq!(remote.pci_device_id, 0x22A3_10DE);
        assert_eq!(
            remote_type(&gpu, link),
            Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH)
        );
        *switches.entry(remote.bus_id).or_insert(0) += 1;
    }
    assert_eq!(switches.into_values().collect::<Vec<_>>(), [5, 4, 4, 5]);
    assert!(matches!(
        gpu.link_wrapper_for(18).is_active(),
        Err(NvmlError::InvalidArg)
    ));
}

#[test]
fn a_link_that_is_down_leads_nowhere() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    rig.set(0, "nvlink.down", "[3]");
    assert!(!gpu.link_wrapper_for(3).is_active().unwrap());
    assert!(matches!(
        gpu.link_wrapper_for(3).remote_pci_info(),
        Err(NvmlError::NotSupported)
    ));
    assert!(gpu.link_wrapper_for(4).is_active().unwrap());
    let other = nvml.device_by_index(1).unwrap();
    assert_eq!(
        gpu.p2p_status(&other, P2pCapabilitiesIndex::NvLink).unwrap(),
        P2pStatus::Ok
    );
    rig.set(0, "nvlink.down", &format!("{:?}", (0..18).collect::<Vec<_>>()));
    assert_ne!(
        gpu.p2p_status(&other, P2pCapabilitiesIndex::NvLink).unwrap(),
        P2pStatus::Ok
    );
}

#[test]
fn direct_links_join_pairs() {
    let rig = Rig::new("h100-nvl");
    let nvml = rig.nvml();
    let gpus: Vec<_> = (0..4).map(|index| nvml.device_by_index(index).unwrap()).collect();
    let remote = gpus[0].link_wrapper_for(11).remote_pci_info().unwrap();
    assert_eq!(remote.bus_id, gpus[1].pci_info().unwrap().bus_id);
    assert_eq!(
        remote_type(&gpus[0], 0),
        Ok(nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU)
    );
    let nvlink = |one: usize, two: usize| gpus[one].p2p_status(&gpus[two], P2pCapabilitiesIndex::NvLink).unwrap();
    assert_eq!(nvlink(0, 1), P2pStatus::Ok);
    assert_ne!(nvlink(0, 2), P2pStatus::Ok);
    assert_eq!(
        gpus[0].p2p_status(&gpus[2], P2pCapabilitiesIndex::Read).unwrap(),
        P2pStatus::Ok
    );
}

#[test]
fn a_board_without_nvlink_says_so() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(
        gpu.link_wrapper_for(0).is_active(),
        Err(NvmlError::NotSupported)
    ));
}

#[test]
fn common_ancestors_are_those_of_the_machine() {
    let rig = Rig::new("dgx-a100");
    let nvml = rig.nvml();
    let gpus: Vec<_> = (0..8).map(|index| nvml.device_by_index(index).unwrap()).collect();
    let level = |one: usize, two: usize| nvml.topology_common_ancestor(&gpus[one], &gpus[two]).unwrap();
    assert_eq!(level(0, 1), TopologyLevel::Multiple);
    assert_eq!(level(0, 2), TopologyLevel::System);
    let near = gpus[0].topology_nearest_gpus(TopologyLevel::Multiple).unwrap();
    assert_eq!(near.len(), 1);
    assert_eq!(near[0].uuid().unwrap(), gpus[1].uuid().unwrap());
    assert_eq!(gpus[0].topology_nearest_gpus(TopologyLevel::System).unwrap().len(), 6);
    assert!(
        gpus[0]
            .topology_nearest_gpus(TopologyLevel::Internal)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn affinities_are_masks_of_cpus_and_nodes() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(5).unwrap();
    let mask = gpu.cpu_affinity(4).unwrap();
    let cpus: Vec<_> = (0..256).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect();
    assert_eq!(cpus, (56..=111).chain(168..=223).collect::<Vec<_>>());
    assert_eq!(gpu.memory_affinity(1, NVML_AFFINITY_SCOPE_NODE).unwrap(), [0b10]);
    assert_eq!(
        gpu.cpu_affinity_within_scope(4, NVML_AFFINITY_SCOPE_SOCKET).unwrap(),
        mask
    );
    assert!(
        matches!(gpu.numa_node_id(), Err(NvmlError::NotSupported)),
        "only where GPUs are NUMA nodes"
    );
    assert_eq!(nvml.topology_gpu_set(60).unwrap().len(), 4);
    assert!(nvml.topology_gpu_set(5000).unwrap().is_empty());
}

#[test]
fn a_grace_gpu_is_a_numa_node_in_a_fabric() {
    let rig = Rig::new("gb200");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(2).unwrap();
    assert_eq!(gpu.numa_node_id().unwrap(), 18);
    assert_eq!(gpu.pci_info().unwrap().bus_id, "00000018:01:00.0");
    assert!(matches!(gpu.bar1_memory_info(), Err(NvmlError::NotSupported)));
    assert!(matches!(
        gpu.link_wrapper_for(0).remote_pci_info(),
        Err(NvmlError::NotSupported)
    ));
    // SAFETY: a C struct of integers.
    let mut info: nvmlGpuFabricInfoV_t = unsafe { mem::zeroed() };
    let fabric = |info: &mut nvmlGpuFabricInfoV_t| {
        // SAFETY: the handle is alive and `info` is as long as its version says.
        code(unsafe { nvml.lib().nvmlDeviceGetGpuFabricInfoV(gpu.handle(), info) })
    };
    assert_eq!(fabric(&mut info), ReturnCode::ARGUMENT_VERSION_MISMATCH);
    info.version = u32::try_from(size_of::<nvmlGpuFabricInfo_v3_t>()).unwrap() | 3 << 24;
    assert_eq!(fabric(&mut info), ReturnCode::SUCCESS);
    assert_eq!((info.cliqueId, info.state), (32766, 3));
    assert_eq!(info.clusterUuid[..4], [0x4a, 0x5e, 0x1c, 0x38]);
    rig.set(2, "fabric.state", "in_progress");
    info.version = u32::try_from(size_of::<nvmlGpuFabricInfo_v2_t>()).unwrap() | 2 << 24;
    info.healthSummary = 77;
    assert_eq!(fabric(&mut info), ReturnCode::SUCCESS);
    assert_eq!(
        (info.state, info.healthSummary),
        (2, 77),
        "version 2 ends before the summary"
    );
}
