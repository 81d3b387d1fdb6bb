//! Everything that ends berthctl before its work is done: a stable reason, a sentence, what to do, an exit code.

use std::{error::Error as _, io, path::Path, time::Duration};

use berth_placement::ShapeError;
use berth_runtime::{
    dial::{DialError, Target},
    tls::TlsError,
};
use nix::sys::signal::Signal;
use thiserror::Error;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

use crate::selector::SelectorError;

/// Why berthctl did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Device(#[from] SelectorError),
    #[error("the address cannot be used")]
    Dial(#[source] Box<DialError>),
    #[error("the TLS files cannot be used")]
    Tls(#[from] TlsError),
    #[error("{0} is not encrypted, but TLS files are given: write https, or leave them out")]
    NotEncrypted(Box<Target>),
    /// The daemon said no.
    #[error("{message}")]
    Refused { reason: String, message: String },
    /// The daemon cannot say yet.
    #[error("{message}")]
    NotReady { reason: String, message: String },
    #[error("no answer from {target} within {after:?}")]
    TimedOut { target: Box<Target>, after: Duration },
    #[error("no berthd answers at {target}: {cause}")]
    Unreachable { target: Box<Target>, cause: Unreachable },
    #[error("no berth-scheduler answers at {target}: {cause}")]
    NoScheduler { target: Box<Target>, cause: Unreachable },
    #[error("the command cannot be started: {program}")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("stopped by {0} before the command was started")]
    Stopped(Signal),
    #[error("the operating system refuses {what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// What stands between us and the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unreachable {
    #[error("there is no such socket")]
    NoSocket,
    #[error("nothing listens there")]
    NothingListens,
    #[error("this user may not open the socket")]
    NotPermitted,
    #[error("{0}")]
    Other(String),
}

/// Exit codes, for scripts. A command under `run` ends with its own.
pub(crate) mod exit {
    /// The daemon said no, or there is no such device.
    pub(crate) const REFUSED: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// No daemon answers there.
    pub(crate) const UNREACHABLE: u8 = 3;
    /// The daemon cannot say yet, or did not in time: try again.
    pub(crate) const NOT_READY: u8 = 4;
    /// `run`: the command is there but cannot be started.
    pub(crate) const CANNOT_START: u8 = 126;
    /// `run`: there is no such command.
    pub(crate) const NO_COMMAND: u8 = 127;
    /// Stopped by a signal: this plus its number.
    pub(crate) const SIGNAL: u8 = 128;
}

impl CliError {
    /// What an answer of the daemon's, or of the way to it, means.
    pub(crate) fn from_status(status: &Status, target: &Target, timeout: Duration) -> Self {
        let message = status.message().to_owned();
        if let Some(info) = status.get_details_error_info() {
            let reason = info.reason;
            // Some sentences of the daemon's begin with their reason, as they do in events.
            let message = message
                .strip_prefix(&format!("{reason}: "))
                .unwrap_or(&message)
                .to_owned();
            return match status.code() {
                Code::Unavailable | Code::DeadlineExceeded => Self::NotReady { reason, message },
                _ => Self::Refused { reason, message },
            };
        }
        // berthd gives a reason with each refusal: without one it was not berthd that spoke.
        let target = Box::new(target.clone());
        match status.code() {
            Code::DeadlineExceeded => Self::TimedOut { target, after: timeout },
            // Tonic's words for it, on either side.
            Code::Cancelled if status.message() == TimeoutExpired(()).to_string() => {
                Self::TimedOut { target, after: timeout }
            }
            _ if status.source().is_some() => Self::Unreachable {
                cause: cause(status, &target),
                target,
            },
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled => Self::Unreachable {
                target,
                cause: Unreachable::Other(message),
            },
            Code::Unimplemented => Self::Refused {
                reason: "Unimplemented".to_owned(),
                message: "the daemon does not know this call: another version of berthd?".to_owned(),
            },
            code => Self::Refused {
                reason: format!("{code:?}"),
                message,
            },
        }
    }

    /// As it reads where a scheduler was asked.
    pub(crate) fn of_scheduler(self) -> Self {
        match self {
            Self::Unreachable { target, cause } => Self::NoScheduler { target, cause },
            other => other,
        }
    }

    /// Stable CamelCase name: the daemon's own where it gave one.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Shape(error) => error.reason(),
            Self::Device(error) => error.reason(),
            Self::Dial(error) => error.reason(),
            Self::Tls(error) => error.reason(),
            Self::NotEncrypted(_) => "NotEncrypted",
            Self::Refused { reason, .. } | Self::NotReady { reason, .. } => reason,
            Self::TimedOut { .. } => "TimedOut",
            Self::Unreachable { .. } | Self::NoScheduler { .. } => "Unreachable",
            Self::Start { .. } => "CannotStart",
            Self::Stopped(_) => "Stopped",
            Self::System { .. } => "SystemError",
            Self::Output(_) => "OutputFailed",
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Shape(_) | Self::Dial(_) | Self::Tls(_) | Self::NotEncrypted(_) => exit::USAGE,
            Self::Device(_) | Self::Refused { .. } | Self::System { .. } | Self::Output(_) => exit::REFUSED,
            Self::NotReady { .. } | Self::TimedOut { .. } => exit::NOT_READY,
            Self::Unreachable { .. } | Self::NoScheduler { .. } => exit::UNREACHABLE,
            Self::Start { source, .. } => start_code(source),
            Self::Stopped(signal) => signal_code(*signal as i32),
        }
    }

    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable {
                cause: Unreachable::NotPermitted,
                ..
            } => Some("Be root or in the group that owns the socket.".to_owned()),
            Self::Unreachable { target, .. } => Some(match &**target {
                Target::Unix(path) => format!(
                    "Start berthd on this machine (`berthd --simulate dgx-h100{}` needs no GPU), or say where it \
                     listens: --address, or BERTHCTL_ADDRESS.",
                    socket_flag(path)
                ),
                Target::Http(_) | Target::Https(_) => {
                    "Is berthd running there, and is this its gRPC port? Say where it listens: --address.".to_owned()
                }
            }),
            Self::NoScheduler { .. } => Some(
                "Is berth-scheduler running there, and is this its gRPC port? Say where it listens: --scheduler, or \
                 BERTHCTL_SCHEDULER. In a cluster: kubectl port-forward."
                    .to_owned(),
            ),
            Self::TimedOut { .. } => Some("Give it more time with --timeout.".to_owned()),
            Self::Dial(_) => Some("Name the authority that signed the daemon's certificate: --tls-ca.".to_owned()),
            _ => None,
        }
    }

    /// True where the reader of our output has gone: no fault of anybody's.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The sentence with its causes.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

/// As shells have it: 127 for no such command, 126 for one that cannot be started.
pub(crate) fn start_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => exit::NO_COMMAND,
        _ => exit::CANNOT_START,
    }
}

/// As shells have it: 128 and the signal's number.
pub(crate) fn signal_code(number: i32) -> u8 {
    u8::try_from(number).map_or(u8::MAX, |number| exit::SIGNAL.saturating_add(number))
}

fn socket_flag(path: &Path) -> String {
    if path == Path::new(crate::args::DEFAULT_SOCKET) {
        String::new()
    } else {
        format!(" --socket {}", path.display())
    }
}

fn cause(status: &Status, target: &Target) -> Unreachable {
    let mut chain: Vec<String> = Vec::new();
    let mut source = status.source();
    while let Some(error) = source {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match (kind, target) {
            (Some(io::ErrorKind::NotFound), Target::Unix(_)) => return Unreachable::NoSocket,
            (Some(io::ErrorKind::PermissionDenied), Target::Unix(_)) => return Unreachable::NotPermitted,
            (Some(io::ErrorKind::ConnectionRefused), _) => return Unreachable::NothingListens,
            _ => {}
        }
        // Each layer of the transport says the same again.
        let text = error.to_string();
        if text != "transport error" && chain.last() != Some(&text) {
            chain.push(text);
        }
        source = error.source();
    }
    let message = if chain.is_empty() {
        status.message().to_owned()
    } else {
        chain.join(": ")
    };
    Unreachable::Other(message)
}
