//! `cargo xtask rig …`: builds the real parts and the rig's program, then hands over to it.

use std::{os::unix::process::CommandExt as _, process::Command};

use crate::{tools, workspace};

/// Ends as the rig's program ends.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    if args == ["tools"] {
        println!("{}", tools::rig()?.display());
        return Ok(());
    }
    // Nothing is built to end a rig, or to look at one.
    let starts = args.iter().any(|arg| arg == "up");
    let program = workspace::target_debug().join("berth-rig");
    if starts || !program.exists() {
        workspace::check(&mut workspace::cargo(&[
            "build",
            "--quiet",
            "-p",
            "berth-testkit",
            "--features",
            "rig",
        ]))?;
    }
    let mut command = Command::new(program);
    command
        .args(args)
        .env("BERTH_RIG_DIR", workspace::cache().join("rigs/default"));
    if starts {
        command.env("BERTH_TOOLS", tools::rig()?);
    }
    Err(command.exec().into())
}
