//! Partitions, read and made through NVML.

use std::{mem, ptr};

use berth_fake_nvml::{profiles, scenario::ReturnCode};
use nvml_wrapper::{Device, Nvml, error::NvmlError};
use nvml_wrapper_sys::bindings::*;

use crate::rig::{Rig, code};

fn mig_devices<'nvml>(gpu: &Device<'nvml>) -> Vec<Device<'nvml>> {
    let max = gpu.mig_device_count().unwrap();
    (0..max)
        .filter_map(|index| gpu.mig_device_by_index(index).ok())
        .collect()
}

fn instance_id(nvml: &Nvml, device: &Device<'_>) -> u32 {
    let mut id = 99;
    // SAFETY: the handle is alive and `id` outlives the call.
    let raw = unsafe { nvml.lib().nvmlDeviceGetGpuInstanceId(device.handle(), &raw mut id) };
    assert_eq!(code(raw), ReturnCode::SUCCESS);
    id
}

#[test]
fn mig_devices_are_devices() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let whole = nvml.device_by_index(0).unwrap();
    assert_eq!(whole.mig_mode().unwrap().current, 0);
    assert_eq!(whole.mig_device_count().unwrap(), 0);
    assert!(matches!(whole.mig_device_by_index(0), Err(NvmlError::NotFound)));

    let parent = nvml.device_by_index(5).unwrap();
    assert_eq!(parent.mig_mode().unwrap().current, 1);
    assert!(matches!(parent.utilization_rates(), Err(NvmlError::NotSupported)));
    let devices = mig_devices(&parent);
    let names: Vec<_> = devices.iter().map(|device| device.name().unwrap()).collect();
    assert_eq!(names.len(), 4);
    assert!(
        names.contains(&"NVIDIA H100 80GB HBM3 MIG 3g.40gb".to_owned()),
        "{names:?}"
    );
    for (index, device) in devices.iter().enumerate() {
        assert!(device.mig_is_mig_device_handle().unwrap());
        assert_eq!(device.index().unwrap() as usize, index);
        let uuid = device.uuid().unwrap();
        assert!(uuid.starts_with("MIG-"), "{uuid}");
        assert_eq!(nvml.device_by_uuid(uuid.as_str()).unwrap().uuid().unwrap(), uuid);
        assert_eq!(
            device.mig_parent_device().unwrap().uuid().unwrap(),
            parent.uuid().unwrap()
        );
        assert!(matches!(
            device.temperature(nvml_wrapper::enum_wrappers::device::TemperatureSensor::Gpu),
            Err(NvmlError::NotSupported)
        ));
    }
    let half = devices
        .iter()
        .find(|device| device.name().unwrap().ends_with("3g.40gb"))
        .unwrap();
    let attributes = half.attributes().unwrap();
    assert_eq!(
        (attributes.multiprocessor_count, attributes.gpu_instance_slice_count),
        (60, 3)
    );
    assert_eq!(half.memory_info().unwrap().total, attributes.memory_size_mb << 20);
    assert!(!parent.mig_is_mig_device_handle().unwrap());
    assert!(matches!(parent.attributes(), Err(NvmlError::NotSupported)));
}

#[test]
fn profiles_are_described_and_counted() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(6).unwrap();
    let small = gpu.profile_info(NVML_GPU_INSTANCE_PROFILE_1_SLICE).unwrap();
    assert_eq!(
        (small.id, small.instance_count, small.multiprocessor_count),
        (19, 7, 16)
    );
    let whole = gpu.profile_info(NVML_GPU_INSTANCE_PROFILE_7_SLICE).unwrap();
    assert_eq!((whole.id, whole.multiprocessor_count), (0, 132));
    assert!(matches!(
        gpu.profile_info(NVML_GPU_INSTANCE_PROFILE_8_SLICE),
        Err(NvmlError::NotSupported)
    ));
    assert!(matches!(gpu.profile_info(99), Err(NvmlError::InvalidArg)));

    // SAFETY: a C struct of integers.
    let mut named: nvmlGpuInstanceProfileInfo_v2_t = unsafe { mem::zeroed() };
    named.version = u32::try_from(size_of_val(&named)).unwrap() | 2 << 24;
    // SAFETY: the handle is alive and `named` is as long as its version says.
    let raw = unsafe {
        nvml.lib()
            .nvmlDeviceGetGpuInstanceProfileInfoV(gpu.handle(), 0, &raw mut named)
    };
    assert_eq!(code(raw), ReturnCode::SUCCESS);
    let name: String = named
        .name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| char::from(c.to_ne_bytes()[0]))
        .collect();
    assert_eq!(name, "MIG 1g.10gb");

    let remaining = |gpu: &Device<'_>, profile: u32| {
        let mut count = 99;
        // SAFETY: the handle is alive and `count` outlives the call.
        let raw = unsafe {
            nvml.lib()
                .nvmlDeviceGetGpuInstanceRemainingCapacity(gpu.handle(), profile, &raw mut count)
        };
        assert_eq!(code(raw), ReturnCode::SUCCESS);
        count
    };
    assert_eq!(remaining(&gpu, 19), 0, "4g and 3g fill the GPU");
    assert_eq!(remaining(&nvml.device_by_index(5).unwrap(), 19), 0);
    assert_eq!(remaining(&nvml.device_by_index(4).unwrap(), 15), 0);

    let mut count = 0;
    // SAFETY: the handle is alive; without a buffer only `count` is written.
    let raw = unsafe {
        nvml.lib()
            .nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu.handle(), 15, ptr::null_mut(), &raw mut count)
    };
    assert_eq!((code(raw), count), (ReturnCode::SUCCESS, 4));
}

#[test]
fn instances_are_created_and_destroyed_through_nvml() {
    let rig = Rig::with(&profiles::machine("dgx-a100").unwrap().build("x").unwrap());
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let lib = nvml.lib();
    let mut status = 99;
    let mut instance = ptr::null_mut();
    let mut compute = ptr::null_mut();
    // SAFETY: in all calls here handles are alive, or null, and results outlive the calls.
    unsafe {
        let early = lib.nvmlDeviceCreateGpuInstance(gpu.handle(), 9, &raw mut instance);
        assert_eq!(code(early), ReturnCode::NOT_SUPPORTED);
        assert_eq!(
            code(lib.nvmlDeviceSetMigMode(gpu.handle(), 1, &raw mut status)),
            ReturnCode::SUCCESS
        );
        assert_eq!(code(status), ReturnCode::SUCCESS);
        assert_eq!(
            code(lib.nvmlDeviceCreateGpuInstance(gpu.handle(), 9, &raw mut instance)),
            ReturnCode::SUCCESS
        );
        assert!(mig_devices(&gpu).is_empty(), "no MIG device without a compute instance");
        let made = lib.nvmlGpuInstanceCreateComputeInstance(instance, 0, &raw mut compute);
        assert_eq!(code(made), ReturnCode::SUCCESS);
    }
    let devices = mig_devices(&gpu);
    assert_eq!(devices[0].name().unwrap(), "NVIDIA A100-SXM4-80GB MIG 1c.3g.40gb");
    // SAFETY: C structs of integers and pointers; handles as above.
    unsafe {
        let mut info: nvmlGpuInstanceInfo_t = mem::zeroed();
        assert_eq!(
            code(lib.nvmlGpuInstanceGetInfo(instance, &raw mut info)),
            ReturnCode::SUCCESS
        );
        assert_eq!((info.id, info.profileId), (instance_id(&nvml, &devices[0]), 9));
        assert_eq!(info.device, gpu.handle());
        assert_eq!(code(lib.nvmlGpuInstanceDestroy(instance)), ReturnCode::IN_USE);
        assert_eq!(code(lib.nvmlComputeInstanceDestroy(compute)), ReturnCode::SUCCESS);
        assert_eq!(
            code(lib.nvmlComputeInstanceDestroy(compute)),
            ReturnCode::INVALID_ARGUMENT
        );
        assert_eq!(code(lib.nvmlGpuInstanceDestroy(instance)), ReturnCode::SUCCESS);
    }
    assert!(
        matches!(devices[0].uuid(), Err(NvmlError::InvalidArg)),
        "its handle is stale"
    );
}

#[test]
fn a_handle_does_not_pass_to_an_instance_made_anew() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(7).unwrap();
    let old = gpu.mig_device_by_index(0).unwrap();
    let uuid = old.uuid().unwrap();
    let mut instance = ptr::null_mut();
    let id_of = |instance| {
        // SAFETY: a C struct of integers and a pointer; handles are never followed.
        unsafe {
            let mut info: nvmlGpuInstanceInfo_t = mem::zeroed();
            match code(nvml.lib().nvmlGpuInstanceGetInfo(instance, &raw mut info)) {
                ReturnCode::SUCCESS => Ok(info.id),
                code => Err(code),
            }
        }
    };
    // SAFETY: the handle is alive and `instance` outlives the call.
    let raw = unsafe {
        nvml.lib()
            .nvmlDeviceGetGpuInstanceById(gpu.handle(), 0, &raw mut instance)
    };
    assert_eq!((code(raw), id_of(instance)), (ReturnCode::SUCCESS, Ok(0)));
    rig.edit(|scenario| {
        scenario.destroy_instance("7", 0, None)?;
        scenario.create_mig_device("7", "7g.80gb", None).map(drop)
    });
    assert!(matches!(old.uuid(), Err(NvmlError::InvalidArg)));
    assert_eq!(id_of(instance), Err(ReturnCode::INVALID_ARGUMENT));
    let new = gpu.mig_device_by_index(0).unwrap();
    assert_eq!(
        new.uuid().unwrap(),
        uuid,
        "the same ids on the same GPU have the same name"
    );
}

#[test]
fn instances_are_listed_by_profile() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(4).unwrap();
    let lib = nvml.lib();
    let mut instances = [ptr::null_mut(); 7];
    let mut count = 0;
    // SAFETY: the handle is alive and the buffer has room for all instances of the profile.
    let raw = unsafe { lib.nvmlDeviceGetGpuInstances(gpu.handle(), 19, instances.as_mut_ptr(), &raw mut count) };
    assert_eq!((code(raw), count), (ReturnCode::SUCCESS, 7));
    let mut computes = [ptr::null_mut(); 1];
    // SAFETY: as above; a 1g instance has one compute instance at most.
    unsafe {
        let raw = lib.nvmlGpuInstanceGetComputeInstances(instances[3], 0, computes.as_mut_ptr(), &raw mut count);
        assert_eq!((code(raw), count), (ReturnCode::SUCCESS, 1));
        let mut info: nvmlComputeInstanceInfo_t = mem::zeroed();
        assert_eq!(
            code(lib.nvmlComputeInstanceGetInfo_v2(computes[0], &raw mut info)),
            ReturnCode::SUCCESS
        );
        assert_eq!(
            (info.device, info.gpuInstance, info.id),
            (gpu.handle(), instances[3], 0)
        );
        let mut wrong: nvmlGpuInstanceInfo_t = mem::zeroed();
        let wrong = lib.nvmlGpuInstanceGetInfo(gpu.handle().cast(), &raw mut wrong);
        assert_eq!(code(wrong), ReturnCode::INVALID_ARGUMENT, "a device is no GPU instance");
    }
}
