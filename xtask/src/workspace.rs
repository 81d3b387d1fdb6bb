//! Where things are, and how cargo is called.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.to_owned(), Path::to_owned)
}

/// Things that were fetched or built once: git-ignored, or where `BERTH_CACHE` says.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("BERTH_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}

/// Where cargo puts debug builds.
pub(crate) fn target_debug() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("debug")
}

/// A cargo call in the root, with the same cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Runs it to its end; an error names the command.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().with_context(|| format!("cannot start: {shown}"))?;
    if !status.success() {
        bail!("failed ({status}): {shown}");
    }
    Ok(())
}

/// Builds the programs that the demo and the whole-process checks start.
pub(crate) fn build_programs() -> anyhow::Result<()> {
    check(&mut cargo(&[
        "build",
        "--quiet",
        "-p",
        "berth-daemon",
        "-p",
        "berth-scheduler",
        "-p",
        "berth-cli",
        "-p",
        "berth-fake-nvml",
        "-p",
        "berth-operator",
    ]))
}
