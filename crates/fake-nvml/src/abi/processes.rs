//! Who uses a device.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out, expect_version, length},
    call::{Call, supported},
};
use crate::{
    clock,
    driver::Outcome,
    scenario::{Process, ProcessKind, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetComputeRunningProcesses_v3(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
        infos.list(&infoCount, &running(call, device, ProcessKind::Compute, info)?)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
        infos.list(&infoCount, &running(call, device, ProcessKind::Graphics, info)?)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
        infos.list(&infoCount, &running(call, device, ProcessKind::Mps, info)?)
    }

    fn nvmlDeviceGetRunningProcessDetailList(call, device: nvmlDevice_t, plist: *mut nvmlProcessDetailList_t) {
        let mut list = plist.get()?;
        expect_version::<nvmlProcessDetailList_t>(list.version, 1)?;
        let kind = match list.mode {
            0 => ProcessKind::Compute,
            1 => ProcessKind::Graphics,
            2 => ProcessKind::Mps,
            _ => return Err(ReturnCode::INVALID_ARGUMENT),
        };
        let all = running(call, device, kind, detail)?;
        let room = list.numProcArrayEntries;
        list.numProcArrayEntries = length(&all);
        plist.set(list)?;
        if room < list.numProcArrayEntries {
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        plist_entries(list.procArray).fill(&all)
    }

    fn nvmlDeviceGetProcessUtilization(call, device: nvmlDevice_t, utilization: *mut nvmlProcessUtilizationSample_t, processSamplesCount: *mut c_uint, lastSeenTimeStamp: c_ulonglong) {
        let device = call.gpu(device)?;
        supported(!device.gpu().mig.current)?;
        let now = clock::unix_micros();
        let busy = device.gpu().processes.iter().filter(|_| lastSeenTimeStamp < now);
        let samples: Vec<_> = busy.map(|process| sample(process, now)).collect();
        if samples.is_empty() {
            processSamplesCount.set(0)?;
            return Err(ReturnCode::NOT_FOUND);
        }
        utilization.list(&processSamplesCount, &samples)
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlDeviceGetComputeRunningProcesses_v2(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Compute, info)?)
        }

        fn nvmlDeviceGetGraphicsRunningProcesses_v2(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Graphics, info)?)
        }

        fn nvmlDeviceGetMPSComputeRunningProcesses_v2(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Mps, info)?)
        }

        fn nvmlDeviceGetComputeRunningProcesses(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Compute, old_info)?)
        }

        fn nvmlDeviceGetGraphicsRunningProcesses(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Graphics, old_info)?)
        }

        fn nvmlDeviceGetMPSComputeRunningProcesses(call, device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t) {
            infos.list(&infoCount, &running(call, device, ProcessKind::Mps, old_info)?)
        }
    }
}

/// What NVML says for "no instance".
const NO_INSTANCE: c_uint = 0xFFFF_FFFF;

/// The processes of one kind: all of a GPU, or those in a MIG device.
fn running<T>(call: &Call, handle: Handle, kind: ProcessKind, form: fn(&Process) -> T) -> Outcome<Vec<T>> {
    let device = call.device(handle)?;
    let inside = |process: &&Process| match device.mig() {
        None => true,
        Some((instance, compute)) => {
            process.gpu_instance == Some(instance.id) && process.compute_instance == Some(compute.id)
        }
    };
    let processes = device.gpu().processes.iter();
    let found = processes.filter(|process| process.kind == kind).filter(inside);
    Ok(found.map(form).collect())
}

fn info(process: &Process) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory_mib << 20,
        gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: process.compute_instance.unwrap_or(NO_INSTANCE),
    }
}

fn old_info(process: &Process) -> nvmlProcessInfo_v1_t {
    nvmlProcessInfo_v1_t {
        pid: process.pid,
        usedGpuMemory: process.memory_mib << 20,
    }
}

fn detail(process: &Process) -> nvmlProcessDetail_v1_t {
    nvmlProcessDetail_v1_t {
        pid: process.pid,
        usedGpuMemory: process.memory_mib << 20,
        gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: process.compute_instance.unwrap_or(NO_INSTANCE),
        usedGpuCcProtectedMemory: 0,
    }
}

fn sample(process: &Process, now: u64) -> nvmlProcessUtilizationSample_t {
    nvmlProcessUtilizationSample_t {
        pid: process.pid,
        timeStamp: now,
        smUtil: process.sm_utilization,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    }
}

/// The buffer that the caller's struct points to.
fn plist_entries(entries: *mut nvmlProcessDetail_v1_t) -> Out<nvmlProcessDetail_v1_t> {
    // SAFETY: by NVML's contract null or as long as the struct said.
    unsafe { super::boundary::FromCaller::checked(entries) }
}
