//! NVIDIA's own Python bindings read the library: a check by somebody else's code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use berth_fake_nvml::{ScenarioFile, built_library, profiles};

/// The bindings, pinned so that a run today and a run tomorrow check the same.
const VERSION: &str = "13.615.71";

#[test]
fn nvidias_python_bindings_agree() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(built_library().unwrap(), dir.path().join("libnvidia-ml.so.1")).unwrap();
    let state = ScenarioFile::new(dir.path().join("state.json"));
    state
        .save(&profiles::machine("mig").unwrap().gpus(9).build("pynvml").unwrap())
        .unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let output = Command::new(python())
        .arg(tests.join("pynvml_check.py"))
        .arg(tests.join("pynvml_steps.json"))
        .arg(env!("CARGO_BIN_EXE_fake-nvml-ctl"))
        .env("BERTH_FAKE_NVML", state.path())
        .env("LD_LIBRARY_PATH", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains(" 0 wrong"), "{said}");
}

/// A Python with the bindings: the one that is given, or an environment of our own, made once.
fn python() -> PathBuf {
    if let Some(given) = env::var_os("BERTH_PYNVML_PYTHON") {
        return PathBuf::from(given);
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    let home = cache.join(format!("pynvml-{VERSION}"));
    let python = home.join("bin/python");
    if !python.exists() {
        fs::create_dir_all(&cache).unwrap();
        // Made aside and moved: whoever comes while it is made makes another, and nobody sees half of one.
        let aside = tempfile::tempdir_in(&cache).unwrap();
        let made = aside.path().join("venv");
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&made));
        let package = format!("nvidia-ml-py=={VERSION}");
        succeed(Command::new(made.join("bin/python")).args(["-m", "pip", "install", "--quiet", &package]));
        if let Err(error) = fs::rename(&made, &home) {
            assert!(
                python.exists(),
                "cannot move {} to {}: {error}",
                made.display(),
                home.display()
            );
        }
    }
    python
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let hint = "set BERTH_PYNVML_PYTHON to a Python that has nvidia-ml-py";
    assert!(output.status.success(), "{command:?} failed ({hint}): {said}");
}
