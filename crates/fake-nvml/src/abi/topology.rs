//! Where GPUs sit relative to CPUs and to each other.

use std::ffi::{c_uint, c_ulong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, Device},
};
use crate::{
    driver::{Outcome, Target},
    scenario::{CpuList, PathLevel, Presence, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetCpuAffinity(call, device: nvmlDevice_t, cpuSetSize: c_uint, cpuSet: *mut c_ulong) {
        let device = call.gpu(device)?;
        cpu_mask(&device, cpuSetSize, &cpuSet)
    }

    fn nvmlDeviceGetCpuAffinityWithinScope(call, device: nvmlDevice_t, cpuSetSize: c_uint, cpuSet: *mut c_ulong, scope: nvmlAffinityScope_t) {
        let device = call.gpu(device)?;
        known_scope(scope)?;
        cpu_mask(&device, cpuSetSize, &cpuSet)
    }

    fn nvmlDeviceGetMemoryAffinity(call, device: nvmlDevice_t, nodeSetSize: c_uint, nodeSet: *mut c_ulong, scope: nvmlAffinityScope_t) {
        let device = call.gpu(device)?;
        known_scope(scope)?;
        let node = device.gpu().place.numa_node.ok_or(ReturnCode::NOT_SUPPORTED)?;
        mask([node], nodeSetSize, &nodeSet)
    }

    fn nvmlDeviceGetNumaNodeId(call, device: nvmlDevice_t, node: *mut c_uint) {
        // Only for GPUs whose memory is a NUMA node. The node of the CPUs is in the memory affinity.
        node.set(call.gpu(device)?.gpu().place.gpu_numa_node.ok_or(ReturnCode::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetTopologyCommonAncestor(call, device1: nvmlDevice_t, device2: nvmlDevice_t, pathInfo: *mut nvmlGpuTopologyLevel_t) {
        let (one, two) = (call.gpu(device1)?, call.gpu(device2)?);
        pathInfo.set(level(PathLevel::between(one.gpu(), two.gpu())))
    }

    fn nvmlDeviceGetTopologyNearestGpus(call, device: nvmlDevice_t, level: nvmlGpuTopologyLevel_t, count: *mut c_uint, deviceArray: *mut nvmlDevice_t) {
        let device = call.gpu(device)?;
        if level > nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        deviceArray.list_or_count(&count, &near(call, &device, level)?)
    }

    fn nvmlDeviceGetP2PStatus(call, device1: nvmlDevice_t, device2: nvmlDevice_t, p2pIndex: nvmlGpuP2PCapsIndex_t, p2pStatus: *mut nvmlGpuP2PStatus_t) {
        let (one, two) = (call.gpu(device1)?, call.gpu(device2)?);
        let nvlink = one.gpu().nvlinked_to(two.gpu());
        let pcie = one.gpu().pcie_peer_of(two.gpu(), one.product()?);
        let ok = match p2pIndex {
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_READ | nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_WRITE => nvlink || pcie,
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_NVLINK | nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_ATOMICS => nvlink,
            nvmlGpuP2PCapsIndex_enum_NVML_P2P_CAPS_INDEX_PCI => pcie,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        p2pStatus.set(if ok {
            nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_OK
        } else if one.product()?.pcie_p2p {
            nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_NOT_SUPPORTED
        } else {
            nvmlGpuP2PStatus_enum_NVML_P2P_STATUS_CHIPSET_NOT_SUPPORTED
        })
    }
}

fn known_scope(scope: u32) -> Outcome {
    match scope {
        NVML_AFFINITY_SCOPE_NODE | NVML_AFFINITY_SCOPE_SOCKET => Ok(()),
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

fn cpu_mask(device: &Device, words: c_uint, out: &Out<c_ulong>) -> Outcome {
    let cpus: CpuList = device.gpu().place.cpus.parse().map_err(|_| ReturnCode::UNKNOWN)?;
    mask(cpus.iter(), words, out)
}

/// Bits in a row of machine words. What lies beyond the caller's row is left out.
fn mask(bits: impl IntoIterator<Item = u32>, words: c_uint, out: &Out<c_ulong>) -> Outcome {
    if words == 0 {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let mut row = vec![0; words as usize];
    for bit in bits {
        if let Some(word) = row.get_mut((bit / c_ulong::BITS) as usize) {
            *word |= 1 << (bit % c_ulong::BITS);
        }
    }
    out.fill(&row)
}

fn level(level: PathLevel) -> u32 {
    match level {
        PathLevel::Internal => nvmlGpuLevel_enum_NVML_TOPOLOGY_INTERNAL,
        PathLevel::Single => nvmlGpuLevel_enum_NVML_TOPOLOGY_SINGLE,
        PathLevel::Multiple => nvmlGpuLevel_enum_NVML_TOPOLOGY_MULTIPLE,
        PathLevel::HostBridge => nvmlGpuLevel_enum_NVML_TOPOLOGY_HOSTBRIDGE,
        PathLevel::Node => nvmlGpuLevel_enum_NVML_TOPOLOGY_NODE,
        PathLevel::System => nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM,
    }
}

/// The other GPUs at exactly this distance.
fn near(call: &Call, device: &Device, wanted: u32) -> Outcome<Vec<nvmlDevice_t>> {
    call.session(|session| {
        let at_distance = |(position, member): (usize, &crate::driver::Member)| {
            let other = &call.scenario.gpus[member.place(&call.scenario)?];
            let there = position != device.member && other.presence == Presence::Present;
            (there && level(PathLevel::between(device.gpu(), other)) == wanted).then_some(position)
        };
        let found: Vec<_> = session.members.iter().enumerate().filter_map(at_distance).collect();
        Ok(found
            .into_iter()
            .map(|position| Handle(session.handle_of(Target::Gpu(position))).raw())
            .collect())
    })
}
