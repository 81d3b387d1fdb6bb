//! The PCI side of a GPU.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Out, chars, expect_version},
    call::{Call, Device},
};
use crate::{
    driver::Outcome,
    scenario::{BusId, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetPciInfo_v3(call, device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) {
        info_of(call, device, &pci)
    }

    fn nvmlDeviceGetPciInfoExt(call, device: nvmlDevice_t, pci: *mut nvmlPciInfoExt_t) {
        let device = call.gpu(device)?;
        let mut info = pci.get()?;
        expect_version::<nvmlPciInfoExt_t>(info.version, 1)?;
        let bus_id = device.gpu().bus_id;
        info.domain = bus_id.domain;
        info.bus = bus_id.bus.into();
        info.device = bus_id.device.into();
        info.pciDeviceId = device.product()?.pci_device_id;
        info.pciSubSystemId = device.product()?.pci_subsystem_id;
        // A 3D controller: a display controller without a display.
        info.baseClass = 0x03;
        info.subClass = 0x02;
        info.busId = chars(&bus_id.to_string());
        pci.set(info)
    }

    fn nvmlDeviceGetBusType(call, device: nvmlDevice_t, type_: *mut nvmlBusType_t) {
        call.gpu(device)?;
        type_.set(NVML_BUS_TYPE_PCIE)
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(call, device: nvmlDevice_t, maxLinkGen: *mut c_uint) {
        maxLinkGen.set(call.gpu(device)?.product()?.pcie_generation)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(call, device: nvmlDevice_t, maxLinkGenDevice: *mut c_uint) {
        maxLinkGenDevice.set(call.gpu(device)?.product()?.pcie_generation)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(call, device: nvmlDevice_t, currLinkGen: *mut c_uint) {
        currLinkGen.set(call.gpu(device)?.product()?.pcie_generation)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(call, device: nvmlDevice_t, maxLinkWidth: *mut c_uint) {
        call.gpu(device)?;
        maxLinkWidth.set(LANES)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(call, device: nvmlDevice_t, currLinkWidth: *mut c_uint) {
        call.gpu(device)?;
        currLinkWidth.set(LANES)
    }

    fn nvmlDeviceGetPcieLinkMaxSpeed(call, device: nvmlDevice_t, maxSpeed: *mut c_uint) {
        maxSpeed.set(match call.gpu(device)?.product()?.pcie_generation {
            6 => NVML_PCIE_LINK_MAX_SPEED_64000MBPS,
            5 => NVML_PCIE_LINK_MAX_SPEED_32000MBPS,
            4 => NVML_PCIE_LINK_MAX_SPEED_16000MBPS,
            _ => NVML_PCIE_LINK_MAX_SPEED_8000MBPS,
        })
    }

    fn nvmlDeviceGetPcieThroughput(call, device: nvmlDevice_t, counter: nvmlPcieUtilCounter_t, value: *mut c_uint) {
        call.gpu(device)?;
        if counter >= nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_COUNT {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        value.set(0)
    }

    fn nvmlDeviceGetPcieReplayCounter(call, device: nvmlDevice_t, value: *mut c_uint) {
        value.set(call.gpu(device)?.gpu().pcie_replays)
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlDeviceGetPciInfo(call, device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) {
            info_of(call, device, &pci)
        }

        fn nvmlDeviceGetPciInfo_v2(call, device: nvmlDevice_t, pci: *mut nvmlPciInfo_t) {
            info_of(call, device, &pci)
        }
    }
}

/// All these boards have sixteen.
const LANES: c_uint = 16;

fn info_of(call: &Call, handle: super::boundary::Handle, out: &Out<nvmlPciInfo_t>) -> Outcome {
    let device: Device = call.gpu(handle)?;
    let product = device.product()?;
    out.set(pci_info(
        device.gpu().bus_id,
        product.pci_device_id,
        product.pci_subsystem_id,
    ))
}

pub(super) fn pci_info(bus_id: BusId, device_id: u32, subsystem_id: u32) -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: chars(&bus_id.legacy()),
        domain: bus_id.domain,
        bus: bus_id.bus.into(),
        device: bus_id.device.into(),
        pciDeviceId: device_id,
        pciSubSystemId: subsystem_id,
        busId: chars(&bus_id.to_string()),
    }
}
