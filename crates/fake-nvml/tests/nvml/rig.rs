//! A machine for a test.

use std::{path::Path, thread, time::Duration};

use berth_fake_nvml::{
    Installed, Scenario, built_library, profiles,
    scenario::{EditError, ReturnCode},
};
use nvml_wrapper::{Nvml, error::NvmlError};

pub struct Rig {
    // Held for its Drop: the folder goes with the test.
    _dir: tempfile::TempDir,
    pub installed: Installed,
}

impl Rig {
    pub fn new(machine: &str) -> Self {
        Self::with(&profiles::machine(machine).unwrap().build(machine).unwrap())
    }

    pub fn with(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = built_library().expect("cargo builds the cdylib for integration tests");
        let installed = Installed::new(dir.path(), &library, scenario).unwrap();
        Self { _dir: dir, installed }
    }

    pub fn try_nvml(&self) -> Result<Nvml, NvmlError> {
        Nvml::builder().lib_path(self.installed.library.as_os_str()).init()
    }

    pub fn nvml(&self) -> Nvml {
        self.try_nvml().unwrap()
    }

    pub fn edit(&self, change: impl FnOnce(&mut Scenario) -> Result<(), EditError>) {
        self.installed.state.edit(change).unwrap();
    }

    pub fn set(&self, gpu: usize, key: &str, value: &str) {
        self.edit(|scenario| scenario.set(&gpu.to_string(), key, value));
    }

    pub fn scenario(&self) -> Scenario {
        self.installed.state.load().unwrap()
    }
}

/// Whether the library is mapped into this process.
pub fn is_mapped(library: &Path) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.contains(library.to_str().unwrap())
}

pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().name("test".to_owned()).spawn(f).unwrap()
}

/// Waits until something holds; gives up after a time that no machine needs.
pub fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("did not come about");
}

/// The return code of a raw call.
pub fn code(raw: u32) -> ReturnCode {
    raw.to_string().parse().unwrap()
}
