//! The machine as a whole.

use std::{
    ffi::{c_char, c_int, c_uint},
    fs,
};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Out, chars, expect_version},
    call::Call,
};
use crate::{
    driver::{Outcome, Target},
    scenario::{CpuList, ReturnCode},
};

super::nvml! {
    fn nvmlSystemGetDriverVersion(call, version: *mut c_char, length: c_uint) {
        version.text(length, &call.scenario.driver.version)
    }

    fn nvmlSystemGetNVMLVersion(call, version: *mut c_char, length: c_uint) {
        version.text(length, &call.scenario.driver.nvml_version())
    }

    fn nvmlSystemGetCudaDriverVersion(call, cudaDriverVersion: *mut c_int) {
        cuda_version(call, &cudaDriverVersion)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(call, cudaDriverVersion: *mut c_int) {
        cuda_version(call, &cudaDriverVersion)
    }

    fn nvmlSystemGetDriverBranch(call, branchInfo: *mut nvmlSystemDriverBranchInfo_t, length: c_uint) {
        let mut info = branchInfo.get()?;
        expect_version::<nvmlSystemDriverBranchInfo_t>(info.version, 1)?;
        let version = &call.scenario.driver.version;
        let branch = format!("r{}_00", version.split('.').next().unwrap_or(version));
        if branch.len() >= length as usize {
            return Err(ReturnCode::INSUFFICIENT_SIZE);
        }
        info.branch = chars(&branch);
        branchInfo.set(info)
    }

    fn nvmlSystemGetProcessName(call, pid: c_uint, name: *mut c_char, length: c_uint) {
        if length == 0 {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let full = process_name(call, pid).ok_or(ReturnCode::NOT_FOUND)?;
        // The driver crops what does not fit.
        let room = full.floor_char_boundary(length as usize - 1);
        name.text(length, &full[..room])
    }

    fn nvmlSystemGetTopologyGpuSet(call, cpuNumber: c_uint, count: *mut c_uint, deviceArray: *mut nvmlDevice_t) {
        let near = |cpus: &str| cpus.parse::<CpuList>().is_ok_and(|cpus| cpus.contains(cpuNumber));
        let found = call.session(|session| {
            let members = session.members.iter().enumerate();
            let place = |(position, member): (usize, &crate::driver::Member)| {
                let gpu = &call.scenario.gpus[member.place(&call.scenario)?];
                near(&gpu.place.cpus).then_some(position)
            };
            let found: Vec<_> = members.filter_map(place).collect();
            Ok(found.into_iter().map(|position| session.handle_of(Target::Gpu(position))).collect::<Vec<_>>())
        })?;
        let handles: Vec<_> = found.into_iter().map(|handle| super::boundary::Handle(handle).raw()).collect();
        deviceArray.list_or_count(&count, &handles)
    }

    fn nvmlSystemGetHicVersion(_call, hwbcCount: *mut c_uint, hwbcEntries: *mut nvmlHwbcEntry_t) {
        hwbcEntries.list(&hwbcCount, &[])
    }

    fn nvmlUnitGetCount(_call, unitCount: *mut c_uint) {
        unitCount.set(0)
    }

    fn nvmlGetExcludedDeviceCount(_call, deviceCount: *mut c_uint) {
        deviceCount.set(0)
    }

    fn nvmlGetExcludedDeviceInfoByIndex(_call, _index: c_uint, _info: *mut nvmlExcludedDeviceInfo_t) {
        Err(ReturnCode::INVALID_ARGUMENT)
    }
}

fn cuda_version(call: &Call, version: &Out<c_int>) -> Outcome {
    version.set(c_int::try_from(call.scenario.driver.cuda).unwrap_or(c_int::MAX))
}

/// What the scenario says, or else the name of a process that really runs.
fn process_name(call: &Call, pid: u32) -> Option<String> {
    let mut processes = call.scenario.gpus.iter().flat_map(|gpu| &gpu.processes);
    let scripted = processes.find(|process| process.pid == pid && !process.name.is_empty());
    scripted.map(|process| process.name.clone()).or_else(|| {
        Some(
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .ok()?
                .trim_end()
                .to_owned(),
        )
    })
}
