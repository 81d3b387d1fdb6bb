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

use crate::error::CliError;

/// To stop us, or to tell the command something.
const TAKEN: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The signals that this process takes as events.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: AsyncFd<SignalFd>,
}

/// A signal, and where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    /// True for Ctrl-C and the like: every process in the terminal's foreground has got it.
    pub(crate) from_terminal: bool,
}

impl Signals {
    /// From now on signals are events. Call it inside the runtime, before anything starts a thread: a thread that does
    /// not block a signal would die of it.
    pub(crate) fn take() -> Result<Self, CliError> {
        let refused = |source: io::Error| CliError::System {
            what: "to take signals",
            source,
        };
        let ignored = ignored_signals();
        let mask: SigSet = TAKEN.into_iter().filter(|signal| ignored & bit(*signal) == 0).collect();
        mask.thread_block().map_err(|error| refused(error.into()))?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        let fd = fd.map_err(|error| refused(error.into()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this is sound: a SignalFd keeps its one descriptor"
        )]
        let fd = AsyncFd::new(fd).map_err(refused)?;
        Ok(Self { fd })
    }

    /// Undoes [`Self::take`] for the command that this process is about to become.
    pub(crate) fn give_back() -> io::Result<()> {
        Ok(TAKEN.into_iter().collect::<SigSet>().thread_unblock()?)
    }

    /// The next signal. Safe to drop and to call again.
    pub(crate) async fn next(&self) -> Result<Received, CliError> {
        let failed = |source| CliError::System {
            what: "to tell of signals",
            source,
        };
        loop {
            let mut ready = self.fd.readable().await.map_err(failed)?;
            let read = ready.try_io(|fd| {
                let info = fd.get_ref().read_signal().map_err(io::Error::from)?;
                info.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            // Err: nothing was there after all, and the readiness is cleared.
            let Ok(info) = read else { continue };
            let info = info.map_err(failed)?;
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            if let Ok(signal) = Signal::try_from(number) {
                return Ok(Received {
                    signal,
                    from_terminal: info.ssi_code == libc::SI_KERNEL,
                });
            }
        }
    }

    /// What `work` comes to, or the signal that came before it was done.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, CliError> {
        tokio::select! {
            // First, so that a stream which always has something to tell cannot outrun Ctrl-C.
            biased;
            received = self.next() => Err(CliError::Stopped(received?.signal)),
            result = work => Ok(result),
        }
    }
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// What this process was started to ignore, as /proc tells it.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
