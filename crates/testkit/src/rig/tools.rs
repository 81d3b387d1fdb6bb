//! Where the real programs are: built by `cargo xtask rig tools`, which prints the folder.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::RigError;

/// Names the folder, so that nobody has to ask cargo for it.
pub const VARIABLE: &str = "BERTH_TOOLS";

/// The folder with every program of a rig; builds what is missing.
pub fn folder() -> Result<PathBuf, RigError> {
    if let Some(folder) = env::var_os(VARIABLE) {
        return Ok(folder.into());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["run", "--quiet", "--package", "xtask", "--", "rig", "tools"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| RigError::start("cargo xtask rig tools", error))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || folder.is_empty() {
        return Err(RigError::Tools(format!(
            "`cargo xtask rig tools` failed ({})",
            output.status
        )));
    }
    Ok(folder.into())
}
