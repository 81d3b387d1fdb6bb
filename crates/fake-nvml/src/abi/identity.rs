//! Who a device is.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{chars, expect_version, length},
    call::{Device, supported},
};
use crate::{
    driver::Outcome,
    scenario::{Architecture, Brand, LinkPeerKind, ReturnCode, compute_profile_name},
};

super::nvml! {
    fn nvmlDeviceGetName(call, device: nvmlDevice_t, name: *mut c_char, length: c_uint) {
        let device = call.device(device)?;
        name.text(length, &name_of(&device)?)
    }

    fn nvmlDeviceGetUUID(call, device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) {
        let device = call.device(device)?;
        match device.mig() {
            None => uuid.text(length, &device.gpu().uuid),
            Some((instance, compute)) => uuid.text(length, &compute.uuid(&device.gpu().uuid, instance.id)),
        }
    }

    fn nvmlDeviceGetIndex(call, device: nvmlDevice_t, index: *mut c_uint) {
        let device = call.device(device)?;
        let Some((instance, compute)) = device.mig() else {
            return index.set(c_uint::try_from(device.member).unwrap_or(c_uint::MAX));
        };
        let before = device.gpu().mig.devices().take_while(|pair| *pair != (instance, compute));
        index.set(length(&before.collect::<Vec<_>>()))
    }

    fn nvmlDeviceGetBrand(call, device: nvmlDevice_t, type_: *mut nvmlBrandType_t) {
        type_.set(match call.device(device)?.product()?.brand {
            Brand::Tesla => nvmlBrandType_enum_NVML_BRAND_TESLA,
            Brand::Nvidia => nvmlBrandType_enum_NVML_BRAND_NVIDIA,
            Brand::NvidiaRtx => nvmlBrandType_enum_NVML_BRAND_NVIDIA_RTX,
            Brand::GeforceRtx => nvmlBrandType_enum_NVML_BRAND_GEFORCE_RTX,
        })
    }

    fn nvmlDeviceGetArchitecture(call, device: nvmlDevice_t, arch: *mut nvmlDeviceArchitecture_t) {
        arch.set(match call.device(device)?.product()?.architecture {
            Architecture::Volta => NVML_DEVICE_ARCH_VOLTA,
            Architecture::Turing => NVML_DEVICE_ARCH_TURING,
            Architecture::Ampere => NVML_DEVICE_ARCH_AMPERE,
            Architecture::Ada => NVML_DEVICE_ARCH_ADA,
            Architecture::Hopper => NVML_DEVICE_ARCH_HOPPER,
            Architecture::Blackwell => NVML_DEVICE_ARCH_BLACKWELL,
        })
    }

    fn nvmlDeviceGetCudaComputeCapability(call, device: nvmlDevice_t, major: *mut c_int, minor: *mut c_int) {
        let (first, second) = call.device(device)?.product()?.compute_capability;
        let int = |number: u32| c_int::try_from(number).unwrap_or(c_int::MAX);
        major.set(int(first))?;
        minor.set(int(second))
    }

    fn nvmlDeviceGetNumGpuCores(call, device: nvmlDevice_t, numCores: *mut c_uint) {
        numCores.set(call.gpu(device)?.product()?.cores)
    }

    fn nvmlDeviceGetSerial(call, device: nvmlDevice_t, serial: *mut c_char, length: c_uint) {
        let device = call.gpu(device)?;
        supported(!device.gpu().serial.is_empty())?;
        serial.text(length, &device.gpu().serial)
    }

    fn nvmlDeviceGetMinorNumber(call, device: nvmlDevice_t, minorNumber: *mut c_uint) {
        minorNumber.set(call.gpu(device)?.gpu().minor)
    }

    fn nvmlDeviceGetModuleId(call, device: nvmlDevice_t, moduleId: *mut c_uint) {
        moduleId.set(call.gpu(device)?.gpu().module_id.ok_or(ReturnCode::NOT_SUPPORTED)?)
    }

    fn nvmlDeviceGetBoardPartNumber(call, device: nvmlDevice_t, partNumber: *mut c_char, length: c_uint) {
        let device = call.gpu(device)?;
        let number = &device.product()?.board_part_number;
        supported(!number.is_empty())?;
        partNumber.text(length, number)
    }

    fn nvmlDeviceGetBoardId(call, device: nvmlDevice_t, boardId: *mut c_uint) {
        boardId.set(call.gpu(device)?.gpu().bus_id.gpu_id())
    }

    fn nvmlDeviceGetMultiGpuBoard(call, device: nvmlDevice_t, multiGpuBool: *mut c_uint) {
        multiGpuBool.set((!call.gpu(device)?.gpu().place.board.is_empty()).into())
    }

    fn nvmlDeviceOnSameBoard(call, device1: nvmlDevice_t, device2: nvmlDevice_t, onSameBoard: *mut c_int) {
        let (one, two) = (call.gpu(device1)?, call.gpu(device2)?);
        let (one, two) = (one.gpu(), two.gpu());
        let same = one.uuid == two.uuid || !one.place.board.is_empty() && one.place.board == two.place.board;
        onSameBoard.set(same.into())
    }

    fn nvmlDeviceGetVbiosVersion(call, device: nvmlDevice_t, version: *mut c_char, length: c_uint) {
        version.text(length, &call.gpu(device)?.product()?.vbios)
    }

    fn nvmlDeviceGetInforomVersion(call, device: nvmlDevice_t, object: nvmlInforomObject_t, version: *mut c_char, length: c_uint) {
        call.gpu(device)?;
        match object {
            nvmlInforomObject_enum_NVML_INFOROM_OEM => version.text(length, "2.1"),
            nvmlInforomObject_enum_NVML_INFOROM_ECC => version.text(length, "7.16"),
            nvmlInforomObject_enum_NVML_INFOROM_POWER | nvmlInforomObject_enum_NVML_INFOROM_DEN => Err(ReturnCode::NOT_SUPPORTED),
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    fn nvmlDeviceGetInforomImageVersion(call, device: nvmlDevice_t, version: *mut c_char, length: c_uint) {
        let device = call.gpu(device)?;
        // The image is numbered after the board: G520.0200.00.05 for 692-2G520-0200-000.
        let mut parts = device.product()?.board_part_number.split('-').skip(1);
        let board = parts.next().map(|part| part.trim_start_matches('2')).ok_or(ReturnCode::NOT_SUPPORTED)?;
        let revision = parts.next().ok_or(ReturnCode::NOT_SUPPORTED)?;
        version.text(length, &format!("{board}.{revision}.00.05"))
    }

    fn nvmlDeviceGetC2cModeInfoV(call, device: nvmlDevice_t, c2cModeInfo: *mut nvmlC2cModeInfo_v1_t) {
        let device = call.gpu(device)?;
        c2cModeInfo.set(nvmlC2cModeInfo_v1_t { isC2cEnabled: device.product()?.c2c.into() })
    }

    fn nvmlDeviceGetPlatformInfo(call, device: nvmlDevice_t, platformInfo: *mut nvmlPlatformInfo_t) {
        let device = call.gpu(device)?;
        let mut info = platformInfo.get()?;
        expect_version::<nvmlPlatformInfo_v2_t>(info.version, 2)?;
        let module = device.gpu().module_id.ok_or(ReturnCode::NOT_SUPPORTED)?;
        let switched = device.gpu().nvlink.peers.iter().any(|peer| peer.kind == LinkPeerKind::Switch);
        info.ibGuid = [0; 16];
        info.chassisSerialNumber = [0; 16];
        info.slotNumber = 0;
        info.trayIndex = 0;
        info.hostId = 1;
        info.peerType = switched.into();
        info.moduleId = u8::try_from(module).unwrap_or(u8::MAX);
        platformInfo.set(info)
    }

    fn nvmlDeviceGetGspFirmwareVersion(call, device: nvmlDevice_t, version: *mut c_char) {
        let device = call.gpu(device)?;
        let firmware = chars::<{ NVML_GSP_FIRMWARE_VERSION_BUF_SIZE as usize }>(&device.scenario.driver.version);
        version.fill(&firmware)
    }

    fn nvmlDeviceGetGspFirmwareMode(call, device: nvmlDevice_t, isEnabled: *mut c_uint, defaultMode: *mut c_uint) {
        call.gpu(device)?;
        isEnabled.set(1)?;
        defaultMode.set(1)
    }

    fn nvmlDeviceGetVirtualizationMode(call, device: nvmlDevice_t, pVirtualMode: *mut nvmlGpuVirtualizationMode_t) {
        call.gpu(device)?;
        pVirtualMode.set(nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_NONE)
    }
}

/// The product's name; a MIG device's profile is added to it.
fn name_of(device: &Device) -> Outcome<String> {
    let product = device.product()?;
    let Some((instance, compute)) = device.mig() else {
        return Ok(product.name.clone());
    };
    let profile = product.mig_profile(&instance.profile).ok_or(ReturnCode::UNKNOWN)?;
    Ok(format!(
        "{} MIG {}",
        product.name,
        compute_profile_name(profile, compute.slices)
    ))
}
