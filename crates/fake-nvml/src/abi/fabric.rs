//! Registration with the NVLink fabric.

use std::ffi::c_uchar;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::version_of,
    call::{Device, supported},
};
use crate::{
    driver::Outcome,
    scenario::{Architecture, Fabric, FabricState, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetGpuFabricInfo(call, device: nvmlDevice_t, gpuFabricInfo: *mut nvmlGpuFabricInfo_t) {
        let info = Info::of(&call.gpu(device)?)?;
        gpuFabricInfo.set(nvmlGpuFabricInfo_t {
            clusterUuid: info.cluster,
            status: info.status,
            cliqueId: info.clique,
            state: info.state,
        })
    }

    fn nvmlDeviceGetGpuFabricInfoV(call, device: nvmlDevice_t, gpuFabricInfo: *mut nvmlGpuFabricInfoV_t) {
        let info = Info::of(&call.gpu(device)?)?;
        let version = gpuFabricInfo.versioned::<std::ffi::c_uint>().get()?;
        if version == version_of::<nvmlGpuFabricInfo_v3_t>(3) {
            gpuFabricInfo.set(nvmlGpuFabricInfo_v3_t {
                version,
                clusterUuid: info.cluster,
                status: info.status,
                cliqueId: info.clique,
                state: info.state,
                healthMask: info.health,
                healthSummary: info.summary,
            })
        } else if version == version_of::<nvmlGpuFabricInfo_v2_t>(2) {
            gpuFabricInfo.versioned().set(nvmlGpuFabricInfo_v2_t {
                version,
                clusterUuid: info.cluster,
                status: info.status,
                cliqueId: info.clique,
                state: info.state,
                healthMask: info.health,
            })
        } else {
            Err(ReturnCode::ARGUMENT_VERSION_MISMATCH)
        }
    }
}

struct Info {
    cluster: [c_uchar; 16],
    status: u32,
    clique: u32,
    state: nvmlGpuFabricState_t,
    health: u32,
    summary: c_uchar,
}

impl Info {
    /// Fabrics came with Hopper; a board that has no part in one says so in its state.
    fn of(device: &Device) -> Outcome<Self> {
        let architecture = device.product()?.architecture;
        supported(matches!(architecture, Architecture::Hopper | Architecture::Blackwell))?;
        let Some(fabric) = &device.gpu().fabric else {
            return Ok(Self {
                cluster: [0; 16],
                status: ReturnCode::SUCCESS.raw(),
                clique: 0,
                state: state_code(FabricState::NotSupported),
                health: 0,
                summary: summary_code(NVML_GPU_FABRIC_HEALTH_SUMMARY_NOT_SUPPORTED),
            });
        };
        let (bandwidth, summary) = if fabric.degraded {
            (
                NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE,
                NVML_GPU_FABRIC_HEALTH_SUMMARY_LIMITED_CAPACITY,
            )
        } else {
            (
                NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE,
                NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY,
            )
        };
        Ok(Self {
            cluster: cluster_bytes(fabric),
            status: fabric.status.raw(),
            clique: fabric.clique_id,
            state: state_code(fabric.state),
            health: bandwidth << NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_DEGRADED_BW,
            summary: summary_code(summary),
        })
    }
}

fn state_code(state: FabricState) -> nvmlGpuFabricState_t {
    let code = match state {
        FabricState::NotSupported => NVML_GPU_FABRIC_STATE_NOT_SUPPORTED,
        FabricState::NotStarted => NVML_GPU_FABRIC_STATE_NOT_STARTED,
        FabricState::InProgress => NVML_GPU_FABRIC_STATE_IN_PROGRESS,
        FabricState::Completed => NVML_GPU_FABRIC_STATE_COMPLETED,
    };
    nvmlGpuFabricState_t::try_from(code).unwrap_or_default()
}

fn summary_code(code: u32) -> c_uchar {
    c_uchar::try_from(code).unwrap_or_default()
}

/// The hexadecimal digits of the UUID; what is missing is zero.
fn cluster_bytes(fabric: &Fabric) -> [c_uchar; 16] {
    let digits: Vec<_> = fabric
        .cluster_uuid
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).unwrap_or_default();
    }
    bytes
}
