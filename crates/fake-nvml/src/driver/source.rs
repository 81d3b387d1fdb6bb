//! Which state file a copy of the library follows.

#![allow(unsafe_code, reason = "asking the dynamic linker for our own path")]

use std::{env, ffi::CStr, path::PathBuf};

use crate::scenario::ScenarioFile;

/// Names the state file for all copies of the library in a process.
pub(crate) const VARIABLE: &str = "BERTH_FAKE_NVML";

/// A file beside this copy of the library, `<library>.json`, or else what [`VARIABLE`] names. The first lets one process
/// load several copies, each with a scenario of its own.
pub(super) fn scenario_file() -> Result<ScenarioFile, String> {
    let beside = own_path().map(|mut path| {
        path.as_mut_os_string().push(".json");
        path
    });
    match beside.filter(|path| path.exists()) {
        Some(path) => Ok(ScenarioFile::new(path)),
        None => match env::var_os(VARIABLE) {
            Some(path) if !path.is_empty() => Ok(ScenarioFile::new(path)),
            _ => Err(format!(
                "no driver: {VARIABLE} names no state file (`fake-nvml-ctl init` writes one)"
            )),
        },
    }
}

fn own_path() -> Option<PathBuf> {
    let here: fn() -> Option<PathBuf> = own_path;
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: dladdr reads no memory at the address it is given, and writes only `info`.
    let found = unsafe { libc::dladdr(here as *const libc::c_void, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: on success dli_fname is a C string that lives as long as the object, of which this code is a part.
    let path = unsafe { CStr::from_ptr(info.dli_fname) };
    path.to_str().ok().map(PathBuf::from)
}
