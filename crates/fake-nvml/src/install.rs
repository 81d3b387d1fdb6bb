//! For tests: a copy of the library that follows a scenario of its own.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::scenario::{Scenario, ScenarioFile};

/// A copy of the library in a folder, with its state file beside it. A process may load any number of them.
#[derive(Debug, Clone)]
pub struct Installed {
    /// Open NVML from here.
    pub library: PathBuf,
    /// Edit this to make things happen.
    pub state: ScenarioFile,
}

impl Installed {
    /// Copies `library` (see [`built_library`]) into `dir`, as the name that programs ask for, and writes the scenario.
    pub fn new(dir: &Path, library: &Path, scenario: &Scenario) -> io::Result<Self> {
        let copy = dir.join("libnvidia-ml.so.1");
        fs::copy(library, &copy)?;
        let state = ScenarioFile::new(dir.join("libnvidia-ml.so.1.json"));
        state.save(scenario).map_err(io::Error::other)?;
        Ok(Self { library: copy, state })
    }
}

/// The library as cargo built it for the running test: beside the test, or one folder up.
pub fn built_library() -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let near = test.ancestors().skip(1).take(2);
    near.map(|folder| folder.join("libberth_fake_nvml.so"))
        .find(|path| path.exists())
}
