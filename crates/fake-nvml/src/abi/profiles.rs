//! What instances a GPU can be partitioned into, and what fits now.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Out, chars, version_of},
    call::{Device, supported},
    mig::capable,
};
use crate::{
    driver::Outcome,
    scenario::{COMPUTE_SLICES, GpuInstance, MigProfile, ReturnCode, compute_profile_name},
};

super::nvml! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(call, device: nvmlDevice_t, profile: c_uint, info: *mut nvmlGpuInstanceProfileInfo_t) {
        let device = capable(call, device)?;
        let profile = by_number(&device, profile)?;
        info.set(nvmlGpuInstanceProfileInfo_t {
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.sms,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpegs,
            ofaCount: profile.ofas,
            memorySizeMB: profile.memory_mib,
        })
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(call, device: nvmlDevice_t, profile: c_uint, info: *mut nvmlGpuInstanceProfileInfo_v2_t) {
        let device = capable(call, device)?;
        describe(by_number(&device, profile)?, &info)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(call, device: nvmlDevice_t, profileId: c_uint, info: *mut nvmlGpuInstanceProfileInfo_v2_t) {
        let device = capable(call, device)?;
        describe(by_id(&device, profileId)?, &info)
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(call, device: nvmlDevice_t, profileId: c_uint, placements: *mut nvmlGpuInstancePlacement_t, count: *mut c_uint) {
        let device = capable(call, device)?;
        let profile = by_id(&device, profileId)?;
        let size = profile.memory_slices;
        let all: Vec<_> = profile.starts.iter().map(|start| nvmlGpuInstancePlacement_t { start: *start, size }).collect();
        if !placements.is_null() {
            placements.fill(&all)?;
        }
        count.set(super::boundary::length(&all))
    }

    fn nvmlDeviceGetGpuInstanceRemainingCapacity(call, device: nvmlDevice_t, profileId: c_uint, count: *mut c_uint) {
        let device = capable(call, device)?;
        supported(device.gpu().mig.current)?;
        let profile = by_id(&device, profileId)?;
        count.set(device.gpu().mig.remaining(device.product()?, profile))
    }

    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(call, gpuInstance: nvmlGpuInstance_t, profile: c_uint, engProfile: c_uint, info: *mut nvmlComputeInstanceProfileInfo_t) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let of = ComputeProfile::of(&device, at, profile, engProfile)?;
        info.set(nvmlComputeInstanceProfileInfo_t {
            id: of.id,
            sliceCount: of.slices,
            instanceCount: of.count(),
            multiprocessorCount: of.profile.compute_sms(of.slices),
            sharedCopyEngineCount: of.profile.copy_engines,
            sharedDecoderCount: of.profile.decoders,
            sharedEncoderCount: of.profile.encoders,
            sharedJpegCount: of.profile.jpegs,
            sharedOfaCount: of.profile.ofas,
        })
    }

    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(call, gpuInstance: nvmlGpuInstance_t, profile: c_uint, engProfile: c_uint, info: *mut nvmlComputeInstanceProfileInfo_v2_t) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let of = ComputeProfile::of(&device, at, profile, engProfile)?;
        let version = info.versioned::<c_uint>().get()?;
        let v3 = version == version_of::<nvmlComputeInstanceProfileInfo_v3_t>(3);
        if !v3 && version != version_of::<nvmlComputeInstanceProfileInfo_v2_t>(2) {
            return Err(ReturnCode::ARGUMENT_VERSION_MISMATCH);
        }
        info.set(nvmlComputeInstanceProfileInfo_v2_t {
            version,
            id: of.id,
            sliceCount: of.slices,
            instanceCount: of.count(),
            multiprocessorCount: of.profile.compute_sms(of.slices),
            sharedCopyEngineCount: of.profile.copy_engines,
            sharedDecoderCount: of.profile.decoders,
            sharedEncoderCount: of.profile.encoders,
            sharedJpegCount: of.profile.jpegs,
            sharedOfaCount: of.profile.ofas,
            name: chars(&format!("MIG {}", compute_profile_name(of.profile, of.slices))),
        })?;
        if v3 {
            // Version 3 is version 2 with capabilities behind it.
            let longer = info.versioned::<nvmlComputeInstanceProfileInfo_v3_t>();
            longer.set(nvmlComputeInstanceProfileInfo_v3_t { capabilities: 0, ..longer.get()? })?;
        }
        Ok(())
    }

    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(call, gpuInstance: nvmlGpuInstance_t, profileId: c_uint, count: *mut c_uint) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let of = ComputeProfile::of(&device, at, profileId, 0)?;
        let mut free = 0;
        let mut end = 0;
        for start in device.gpu().mig.instances[at].free_compute_starts(of.profile, of.slices) {
            if start >= end {
                free += 1;
                end = start + of.slices;
            }
        }
        count.set(free)
    }

    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(call, gpuInstance: nvmlGpuInstance_t, profileId: c_uint, placements: *mut nvmlComputeInstancePlacement_t, count: *mut c_uint) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let of = ComputeProfile::of(&device, at, profileId, 0)?;
        let starts = GpuInstance::compute_starts(of.profile, of.slices);
        let all: Vec<_> = starts.into_iter().map(|start| nvmlComputeInstancePlacement_t { start, size: of.slices }).collect();
        if !placements.is_null() {
            placements.fill(&all)?;
        }
        count.set(super::boundary::length(&all))
    }
}

/// A profile by `NVML_GPU_INSTANCE_PROFILE_…`.
fn by_number(device: &Device, number: c_uint) -> Outcome<&MigProfile> {
    if number >= NVML_GPU_INSTANCE_PROFILE_COUNT {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let mut profiles = device.product()?.mig_profiles.iter();
    profiles
        .find(|profile| profile.nvml_profile == number)
        .ok_or(ReturnCode::NOT_SUPPORTED)
}

/// A profile by the number that its description carries.
pub(super) fn by_id(device: &Device, id: c_uint) -> Outcome<&MigProfile> {
    let mut profiles = device.product()?.mig_profiles.iter();
    profiles
        .find(|profile| profile.id == id)
        .ok_or(ReturnCode::INVALID_ARGUMENT)
}

fn describe(profile: &MigProfile, info: &Out<nvmlGpuInstanceProfileInfo_v2_t>) -> Outcome {
    let version = info.versioned::<c_uint>().get()?;
    let name = chars(&format!("MIG {}", profile.name));
    if version == version_of::<nvmlGpuInstanceProfileInfo_v3_t>(3) {
        info.versioned().set(nvmlGpuInstanceProfileInfo_v3_t {
            version,
            id: profile.id,
            sliceCount: profile.slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.sms,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpegs,
            ofaCount: profile.ofas,
            memorySizeMB: profile.memory_mib,
            name,
            capabilities: 0,
        })
    } else if version == version_of::<nvmlGpuInstanceProfileInfo_v2_t>(2) {
        info.set(nvmlGpuInstanceProfileInfo_v2_t {
            version,
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.sms,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpegs,
            ofaCount: profile.ofas,
            memorySizeMB: profile.memory_mib,
            name,
        })
    } else {
        Err(ReturnCode::ARGUMENT_VERSION_MISMATCH)
    }
}

/// A size of compute instance within a GPU instance. For these, NVML's number and the id are the same.
pub(super) struct ComputeProfile<'a> {
    pub(super) id: u32,
    pub(super) slices: u32,
    pub(super) profile: &'a MigProfile,
}

impl<'a> ComputeProfile<'a> {
    pub(super) fn of(device: &'a Device, at: usize, number: c_uint, engines: c_uint) -> Outcome<Self> {
        if number >= NVML_COMPUTE_INSTANCE_PROFILE_COUNT || engines >= NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let instance = &device.gpu().mig.instances[at];
        let profile = device
            .product()?
            .mig_profile(&instance.profile)
            .ok_or(ReturnCode::UNKNOWN)?;
        let slices = COMPUTE_SLICES.get(number as usize).copied();
        let slices = slices
            .filter(|slices| *slices <= profile.slices)
            .ok_or(ReturnCode::NOT_SUPPORTED)?;
        Ok(Self {
            id: number,
            slices,
            profile,
        })
    }

    /// How many fit into an empty GPU instance.
    fn count(&self) -> u32 {
        self.profile.slices / self.slices
    }
}
