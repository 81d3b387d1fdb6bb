//! NVLinks, one by one.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, Device, supported},
    pci::pci_info,
};
use crate::{
    driver::Outcome,
    scenario::{LinkPeer, LinkPeerKind, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetNvLinkState(call, device: nvmlDevice_t, link: c_uint, isActive: *mut nvmlEnableState_t) {
        let device = with_link(call, device, link)?;
        isActive.set(device.gpu().nvlink.is_up(link).into())
    }

    fn nvmlDeviceGetNvLinkVersion(call, device: nvmlDevice_t, link: c_uint, version: *mut c_uint) {
        let device = with_link(call, device, link)?;
        version.set(version_code(device.product()?.nvlink_generation))
    }

    fn nvmlDeviceGetNvLinkCapability(call, device: nvmlDevice_t, link: c_uint, capability: nvmlNvLinkCapability_t, capResult: *mut c_uint) {
        with_link(call, device, link)?;
        let system = matches!(
            capability,
            nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SYSMEM_ACCESS
                | nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SYSMEM_ATOMICS
                | nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_SLI_BRIDGE
        );
        if capability >= nvmlNvLinkCapability_enum_NVML_NVLINK_CAP_COUNT {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        capResult.set((!system).into())
    }

    fn nvmlDeviceGetNvLinkRemotePciInfo_v2(call, device: nvmlDevice_t, link: c_uint, pci: *mut nvmlPciInfo_t) {
        remote(call, device, link, &pci)
    }

    fn nvmlDeviceGetNvLinkRemoteDeviceType(call, device: nvmlDevice_t, link: c_uint, pNvLinkDeviceType: *mut nvmlIntNvLinkDeviceType_t) {
        let device = with_link(call, device, link)?;
        pNvLinkDeviceType.set(match live_peer(&device, link)?.kind {
            LinkPeerKind::Gpu => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU,
            LinkPeerKind::IbmNpu => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_IBMNPU,
            LinkPeerKind::Switch => nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH,
        })
    }

    fn nvmlDeviceGetNvLinkErrorCounter(call, device: nvmlDevice_t, link: c_uint, counter: nvmlNvLinkErrorCounter_t, counterValue: *mut c_ulonglong) {
        let device = with_link(call, device, link)?;
        match counter {
            nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => {
                counterValue.set(device.gpu().nvlink.recoveries.get(&link).copied().unwrap_or(0))
            }
            0..nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_COUNT => counterValue.set(0),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlDeviceGetNvLinkRemotePciInfo(call, device: nvmlDevice_t, link: c_uint, pci: *mut nvmlPciInfo_t) {
            remote(call, device, link, &pci)
        }
    }
}

/// PCI id of an NVSwitch: the third generation's, which came with Hopper, or the second's.
fn switch_id(generation: u32) -> u32 {
    if generation >= 4 { 0x22A3_10DE } else { 0x1AF1_10DE }
}

/// `NVML_NVLINK_VERSION_…`.
pub(super) fn version_code(generation: u32) -> u32 {
    match generation {
        1 => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_1_0,
        2 => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_2_0,
        3 => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_3_0,
        4 => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_4_0,
        5 => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_5_0,
        _ => nvmlNvlinkVersion_enum_NVML_NVLINK_VERSION_INVALID,
    }
}

/// Megabytes a second of one link in one direction.
pub(super) fn link_mbps(generation: u32) -> u32 {
    match generation {
        1 => 20000,
        2 | 3 => 25781,
        4 => 26562,
        5 => 53125,
        _ => 0,
    }
}

/// The GPU, if it has such a link.
fn with_link(call: &Call, handle: Handle, link: c_uint) -> Outcome<Device> {
    let device = call.gpu(handle)?;
    supported(device.gpu().nvlink.count() > 0)?;
    if link >= device.gpu().nvlink.count() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    Ok(device)
}

/// Nothing is known about the other end of a link that is down.
fn live_peer(device: &Device, link: c_uint) -> Outcome<&LinkPeer> {
    let links = &device.gpu().nvlink;
    links
        .peer(link)
        .filter(|_| links.is_up(link))
        .ok_or(ReturnCode::NOT_SUPPORTED)
}

fn remote(call: &Call, handle: Handle, link: c_uint, out: &Out<nvmlPciInfo_t>) -> Outcome {
    let device = with_link(call, handle, link)?;
    let peer = live_peer(&device, link)?;
    let bus_id = peer.bus_id.ok_or(ReturnCode::NOT_SUPPORTED)?;
    let product = device.product()?;
    let id = match peer.kind {
        LinkPeerKind::Switch => switch_id(product.nvlink_generation),
        LinkPeerKind::Gpu | LinkPeerKind::IbmNpu => product.pci_device_id,
    };
    // This function leaves the subsystem id alone.
    out.set(pci_info(bus_id, id, 0))
}
