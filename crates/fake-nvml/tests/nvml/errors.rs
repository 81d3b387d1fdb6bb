//! Bad arguments, and what a caller with a small buffer is told.

use std::{ffi::CStr, mem, ptr};

use berth_fake_nvml::scenario::{Process, ProcessKind, ReturnCode};
use nvml_wrapper_sys::bindings::*;

use crate::rig::{Rig, code};

#[test]
fn null_pointers_are_invalid_arguments() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let lib = nvml.lib();
    // SAFETY: null is what is tested; the handle is alive.
    let results = unsafe {
        let gpu = gpu.handle();
        let mut device = ptr::null_mut();
        [
            lib.nvmlDeviceGetCount_v2(ptr::null_mut()),
            lib.nvmlDeviceGetHandleByIndex_v2(0, ptr::null_mut()),
            lib.nvmlDeviceGetHandleByUUID(ptr::null(), &raw mut device),
            lib.nvmlDeviceGetHandleByPciBusId_v2(ptr::null(), &raw mut device),
            lib.nvmlDeviceGetUUID(gpu, ptr::null_mut(), 80),
            lib.nvmlDeviceGetUUID(ptr::null_mut(), ptr::null_mut(), 80),
            lib.nvmlDeviceGetMemoryInfo(gpu, ptr::null_mut()),
            lib.nvmlDeviceGetMemoryInfo_v2(gpu, ptr::null_mut()),
            lib.nvmlDeviceGetPciInfo_v3(gpu, ptr::null_mut()),
            lib.nvmlDeviceGetFieldValues(gpu, 3, ptr::null_mut()),
            lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu, ptr::null_mut(), ptr::null_mut()),
            lib.nvmlEventSetCreate(ptr::null_mut()),
            lib.nvmlDeviceRegisterEvents(gpu, 8, ptr::null_mut()),
            lib.nvmlSystemGetDriverVersion(ptr::null_mut(), 80),
            lib.nvmlSystemEventSetCreate(ptr::null_mut()),
        ]
    };
    for (position, raw) in results.into_iter().enumerate() {
        assert_eq!(code(raw), ReturnCode::INVALID_ARGUMENT, "call {position}");
    }
}

#[test]
fn handles_that_nobody_gave_out_are_invalid() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let good = nvml.device_by_index(0).unwrap();
    // SAFETY: handles are never followed; garbage is what is tested.
    unsafe {
        for address in [0, 1, 0xDEAD_BEEF, usize::MAX, good.handle().addr() + 16] {
            let mut minor = 0;
            let raw = nvml
                .lib()
                .nvmlDeviceGetMinorNumber(ptr::without_provenance_mut(address), &raw mut minor);
            assert_eq!(code(raw), ReturnCode::INVALID_ARGUMENT, "{address:#x}");
        }
    }
}

#[test]
fn a_small_buffer_is_told_what_is_needed() {
    let rig = Rig::new("dgx-h100");
    rig.edit(|scenario| {
        for pid in 1..=3 {
            let process = Process {
                pid,
                kind: ProcessKind::Compute,
                memory_mib: 1,
                name: String::new(),
                gpu_instance: None,
                compute_instance: None,
                sm_utilization: 0,
            };
            scenario.add_process("0", process)?;
        }
        Ok(())
    });
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let lib = nvml.lib();
    // SAFETY: buffers are as long as the calls are told, and outlive them.
    unsafe {
        let mut text = [1; 80];
        assert_eq!(
            code(lib.nvmlDeviceGetUUID(gpu.handle(), text.as_mut_ptr(), 40)),
            ReturnCode::INSUFFICIENT_SIZE
        );
        assert_eq!(text, [1; 80], "nothing is written then");
        assert_eq!(
            code(lib.nvmlDeviceGetUUID(gpu.handle(), text.as_mut_ptr(), 41)),
            ReturnCode::SUCCESS
        );
        let mut count = 2;
        let mut infos: [nvmlProcessInfo_t; 3] = mem::zeroed();
        let raw = lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu.handle(), &raw mut count, infos.as_mut_ptr());
        assert_eq!((code(raw), count), (ReturnCode::INSUFFICIENT_SIZE, 3));
        let raw = lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu.handle(), &raw mut count, infos.as_mut_ptr());
        assert_eq!((code(raw), count, infos[2].pid), (ReturnCode::SUCCESS, 3, 3));
    }
}

#[test]
fn structs_of_an_unknown_version_are_refused() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    // SAFETY: a C struct of integers; the handle is alive.
    unsafe {
        let mut memory: nvmlMemory_v2_t = mem::zeroed();
        let raw = nvml.lib().nvmlDeviceGetMemoryInfo_v2(gpu.handle(), &raw mut memory);
        assert_eq!(code(raw), ReturnCode::ARGUMENT_VERSION_MISMATCH);
    }
}

#[test]
fn every_code_has_words() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let text = |raw| {
        // SAFETY: the function returns a string that lives as long as the library is loaded.
        let text = unsafe { CStr::from_ptr(nvml.lib().nvmlErrorString(raw)) };
        text.to_str().unwrap()
    };
    assert_eq!(text(0), "Success");
    assert_eq!(text(15), "GPU is lost");
    assert_eq!(text(999), "Unknown Error");
    assert_eq!(text(4711), "Unknown Error");
}
