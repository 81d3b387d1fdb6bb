//! The step between us and the command, in the command's own process: tie its life to ours, then become it.
//!
//! This program starts itself under the name [`NAME`]; what is set here survives `exec`. Done so and not in a hook
//! between `fork` and `exec`, because that would be unsafe code.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::{CommandExt as _, parent_id},
    process::{Command, ExitCode},
};

use nix::sys::{prctl, signal::Signal};

use crate::{
    error::{CliError, exit},
    signals::Signals,
};

/// The name, as `argv[0]`, under which this program is that step.
const NAME: &str = "berthctl-exec";

/// This very program, even where its file was replaced meanwhile.
const SELF: &str = "/proc/self/exe";

/// Starts `command` so that it gets SIGTERM should `parent`, this process, die first.
pub(super) fn command(parent: u32, command: &[OsString]) -> Command {
    let mut helper = Command::new(SELF);
    helper.arg0(NAME).arg(parent.to_string()).args(command);
    helper
}

/// What to do when this process was started as that step: `None` where it was not.
pub(crate) fn requested() -> Option<Step> {
    let mut args = env::args_os();
    if args.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    let parent = args.next().and_then(|pid| pid.to_str()?.parse().ok());
    Some(Step {
        parent,
        command: args.collect(),
    })
}

/// The command to become, and who has to be alive for it.
#[derive(Debug)]
pub(crate) struct Step {
    parent: Option<u32>,
    command: Vec<OsString>,
}

impl Step {
    /// Becomes the command; comes back only where that failed.
    pub(crate) fn run(self) -> Result<ExitCode, CliError> {
        let failed = |what, source| CliError::System { what, source };
        let tied = prctl::set_pdeathsig(Signal::SIGTERM);
        tied.map_err(|error| failed("to tie the command to berthctl", error.into()))?;
        if self.parent != Some(parent_id()) {
            // It died before we could ask to be told of it, and its lease with it.
            return Ok(ExitCode::from(exit::SIGNAL + Signal::SIGTERM as u8));
        }
        Signals::give_back().map_err(|source| failed("to give signals back", source))?;
        let mut command = self.command.into_iter();
        let program = command.next().unwrap_or_default();
        let source = Command::new(&program).args(command).exec();
        Err(CliError::Start {
            program: program.to_string_lossy().into_owned(),
            source,
        })
    }
}
