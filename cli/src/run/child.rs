//! The command while it runs.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, process};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child as Process, Command};

use super::exec;
use crate::{
    error::{CliError, signal_code},
    view::{Allocation, Grant, Holder},
};

/// A command that was started.
#[derive(Debug)]
pub(super) struct Child {
    process: Process,
    pid: Pid,
}

impl Child {
    /// Starts `command` with the GPUs of `allocation` in its environment.
    pub(super) fn spawn(command: &[OsString], allocation: &Allocation) -> Result<Self, CliError> {
        let failed = |source| CliError::System {
            what: "to start a process",
            source,
        };
        let uuids: Vec<&str> = allocation.grants.iter().map(Grant::visible_uuid).collect();
        let uuids = uuids.join(",");
        let lease = match &allocation.holder {
            Some(Holder::LeaseId(id)) => id.as_str(),
            _ => "",
        };
        let mut helper = Command::from(exec::command(process::id(), command));
        helper
            .env("CUDA_VISIBLE_DEVICES", &uuids)
            .env("NVIDIA_VISIBLE_DEVICES", &uuids)
            .env("BERTH_LEASE_ID", lease);
        let process = helper.spawn().map_err(failed)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self { process, pid })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Passes a signal on. Nothing to do where the command has ended and only waits for us to notice.
    pub(super) fn signal(&self, signal: Signal) {
        // Not reaped as long as `wait` has not told of the end: the pid is still its own.
        let _has_ended = kill(self.pid, signal);
    }

    /// The command's exit code, or 128 and the number of the signal that ended it. Safe to drop and to call again.
    pub(super) async fn wait(&mut self) -> Result<u8, CliError> {
        let status = self.process.wait().await;
        let status = status.map_err(|source| CliError::System {
            what: "to wait for the command",
            source,
        })?;
        Ok(match status.code() {
            Some(code) => u8::try_from(code).unwrap_or(u8::MAX),
            None => signal_code(status.signal().unwrap_or_default()),
        })
    }
}
