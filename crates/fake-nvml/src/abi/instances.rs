//! GPU instances and compute instances: listed, described, created, destroyed.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out, length},
    call::{Call, Device, supported},
    mig::{capable, refusal},
    profiles::{ComputeProfile, by_id},
};
use crate::{
    driver::{InstanceKey, Outcome, Target},
    scenario::{COMPUTE_SLICES, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetGpuInstances(call, device: nvmlDevice_t, profileId: c_uint, gpuInstances: *mut nvmlGpuInstance_t, count: *mut c_uint) {
        let device = partitioned(call, device)?;
        let profile = by_id(&device, profileId)?;
        let same = device.gpu().mig.instances.iter().filter(|instance| instance.profile == profile.name);
        let handles = same.map(|instance| Ok(call.handle_of(device.target(instance, None))?.raw()));
        let handles: Vec<nvmlGpuInstance_t> = handles.collect::<Outcome<_>>()?;
        // The caller's buffer is as long as the profile has instances, so there is no room to check.
        gpuInstances.fill(&handles)?;
        count.set(length(&handles))
    }

    fn nvmlDeviceGetGpuInstanceById(call, device: nvmlDevice_t, id: c_uint, gpuInstance: *mut nvmlGpuInstance_t) {
        let device = partitioned(call, device)?;
        let mut instances = device.gpu().mig.instances.iter();
        let instance = instances.find(|instance| instance.id == id).ok_or(ReturnCode::NOT_FOUND)?;
        gpuInstance.set(call.handle_of(device.target(instance, None))?.raw())
    }

    fn nvmlGpuInstanceGetInfo(call, gpuInstance: nvmlGpuInstance_t, info: *mut nvmlGpuInstanceInfo_t) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let instance = &device.gpu().mig.instances[at];
        let profile = device.product()?.mig_profile(&instance.profile).ok_or(ReturnCode::UNKNOWN)?;
        info.set(nvmlGpuInstanceInfo_t {
            device: call.handle_of(Target::Gpu(device.member))?.raw(),
            id: instance.id,
            profileId: profile.id,
            placement: nvmlGpuInstancePlacement_t { start: instance.start, size: profile.memory_slices },
        })
    }

    fn nvmlDeviceCreateGpuInstance(call, device: nvmlDevice_t, profileId: c_uint, gpuInstance: *mut nvmlGpuInstance_t) {
        create(call, device, profileId, None, &gpuInstance)
    }

    fn nvmlDeviceCreateGpuInstanceWithPlacement(call, device: nvmlDevice_t, profileId: c_uint, placement: *const nvmlGpuInstancePlacement_t, gpuInstance: *mut nvmlGpuInstance_t) {
        create(call, device, profileId, Some(placement.get()?.start), &gpuInstance)
    }

    fn nvmlGpuInstanceDestroy(call, gpuInstance: nvmlGpuInstance_t) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let instance = &device.gpu().mig.instances[at];
        if !instance.compute.is_empty() {
            return Err(ReturnCode::IN_USE);
        }
        call.driver.edit(|scenario| {
            scenario.destroy_instance(device.name(), instance.id, None).map_err(|_| ReturnCode::IN_USE)
        })
    }

    fn nvmlGpuInstanceGetComputeInstances(call, gpuInstance: nvmlGpuInstance_t, profileId: c_uint, computeInstances: *mut nvmlComputeInstance_t, count: *mut c_uint) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let slices = ComputeProfile::of(&device, at, profileId, 0)?.slices;
        let instance = &device.gpu().mig.instances[at];
        let same = instance.compute.iter().filter(|compute| compute.slices == slices);
        let handles = same.map(|compute| Ok(call.handle_of(device.target(instance, Some(compute)))?.raw()));
        let handles: Vec<nvmlComputeInstance_t> = handles.collect::<Outcome<_>>()?;
        computeInstances.fill(&handles)?;
        count.set(length(&handles))
    }

    fn nvmlGpuInstanceGetComputeInstanceById(call, gpuInstance: nvmlGpuInstance_t, id: c_uint, computeInstance: *mut nvmlComputeInstance_t) {
        let (device, at) = call.gpu_instance(gpuInstance)?;
        let instance = &device.gpu().mig.instances[at];
        let compute = instance.compute.iter().find(|compute| compute.id == id).ok_or(ReturnCode::NOT_FOUND)?;
        computeInstance.set(call.handle_of(device.target(instance, Some(compute)))?.raw())
    }

    fn nvmlComputeInstanceGetInfo_v2(call, computeInstance: nvmlComputeInstance_t, info: *mut nvmlComputeInstanceInfo_t) {
        let device = compute_instance(call, computeInstance)?;
        let (instance, compute) = device.mig().ok_or(ReturnCode::INVALID_ARGUMENT)?;
        let number = COMPUTE_SLICES.iter().position(|slices| *slices == compute.slices).ok_or(ReturnCode::UNKNOWN)?;
        info.set(nvmlComputeInstanceInfo_t {
            device: call.handle_of(Target::Gpu(device.member))?.raw(),
            gpuInstance: call.handle_of(device.target(instance, None))?.raw(),
            id: compute.id,
            profileId: c_uint::try_from(number).unwrap_or(c_uint::MAX),
            placement: nvmlComputeInstancePlacement_t { start: compute.start, size: compute.slices },
        })
    }

    fn nvmlGpuInstanceCreateComputeInstance(call, gpuInstance: nvmlGpuInstance_t, profileId: c_uint, computeInstance: *mut nvmlComputeInstance_t) {
        create_compute(call, gpuInstance, profileId, None, &computeInstance)
    }

    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(call, gpuInstance: nvmlGpuInstance_t, profileId: c_uint, placement: *const nvmlComputeInstancePlacement_t, computeInstance: *mut nvmlComputeInstance_t) {
        create_compute(call, gpuInstance, profileId, Some(placement.get()?.start), &computeInstance)
    }

    fn nvmlComputeInstanceDestroy(call, computeInstance: nvmlComputeInstance_t) {
        let device = compute_instance(call, computeInstance)?;
        let (instance, compute) = device.mig().ok_or(ReturnCode::INVALID_ARGUMENT)?;
        call.driver.edit(|scenario| {
            let destroyed = scenario.destroy_instance(device.name(), instance.id, Some(compute.id));
            destroyed.map_err(|_| ReturnCode::IN_USE)
        })
    }
}

/// A GPU that is in MIG mode.
fn partitioned(call: &Call, handle: Handle) -> Outcome<Device> {
    let device = capable(call, handle)?;
    supported(device.gpu().mig.current)?;
    Ok(device)
}

fn compute_instance(call: &Call, handle: Handle) -> Outcome<Device> {
    match call.session(|session| session.target_of(handle.0))? {
        Target::ComputeInstance(member, gpu_instance, compute_instance) => {
            call.member(member)?.mig_device(gpu_instance, compute_instance)
        }
        _ => Err(ReturnCode::INVALID_ARGUMENT),
    }
}

fn create(call: &Call, handle: Handle, profile_id: u32, start: Option<u32>, out: &Out<nvmlGpuInstance_t>) -> Outcome {
    let device = partitioned(call, handle)?;
    let profile = by_id(&device, profile_id)?;
    let key = call.driver.edit(|scenario| {
        let id = scenario.create_instance(device.name(), &profile.name, start, &[]);
        let id = id.map_err(|error| refusal(&error))?;
        Ok(InstanceKey {
            id,
            birth: scenario.births,
        })
    })?;
    out.set(call.handle_of(Target::GpuInstance(device.member, key))?.raw())
}

fn create_compute(
    call: &Call,
    handle: Handle,
    profile_id: u32,
    start: Option<u32>,
    out: &Out<nvmlComputeInstance_t>,
) -> Outcome {
    let (device, at) = call.gpu_instance(handle)?;
    let slices = ComputeProfile::of(&device, at, profile_id, 0)?.slices;
    let instance = &device.gpu().mig.instances[at];
    let key = call.driver.edit(|scenario| {
        let id = scenario.create_compute(device.name(), instance.id, slices, start);
        let id = id.map_err(|error| refusal(&error))?;
        Ok(InstanceKey {
            id,
            birth: scenario.births,
        })
    })?;
    let gpu_instance = InstanceKey {
        id: instance.id,
        birth: instance.birth,
    };
    let target = Target::ComputeInstance(device.member, gpu_instance, key);
    out.set(call.handle_of(target)?.raw())
}
