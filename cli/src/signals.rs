//! Signals as events, with the one fact that forwarding needs: whether the terminal sent them.
//!
//! Ctrl-C reaches every process in the foreground, so a command that we run has it already; `kill` reaches us alone.
//! Only signalfd tells the two apart. What this process was started to ignore (`nohup`, a background job of a script)
//! stays ignored.

use std::{fs, future::Future, io};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::unix::AsyncFd;

/// To stop us, or to tell the command something.
const TAKEN: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals that this process takes as events.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    events: Option<AsyncFd<BorrowedSignalFd>>,
}
