//! `berthctl run`: a command on GPUs that are its own while it runs.
//!
//! The lease is the open stream, so it ends with this process however that dies. The command shares our process group
//! and terminal: it is in the foreground where we are, Ctrl-C and Ctrl-Z reach it directly, and a pipeline around us
//! works as it would around the command. If this process dies before the command, the command gets SIGTERM (see
//! [`exec`]): nobody should go on computing on a GPU that others may get.
//!
//! A lease that is lost while the command runs does not come back: the daemon gives its devices to others, at once when
//! it revoked the lease, after a short grace when it was restarted. The command is told nothing; the person is.

mod child;
pub(crate) mod exec;
mod lease;

use std::{ffi::OsStr, path::Path, process::ExitCode};

use child::Child;
use nix::sys::signal::Signal;

use crate::{
    args::{OnLoss, RunArgs},
    client::Client,
    error::CliError,
    output::Output,
    signals::Signals,
};

/// The command's exit code.
///
/// # Errors
/// The command was never started.
pub(crate) async fn run(
    args: &RunArgs,
    client: &Client,
    output: &Output,
    signals: &Signals,
) -> Result<ExitCode, CliError> {
    let shape = args.shape.shape()?;
    let wait = args.wait.unwrap_or_default();
    let mut lease = signals
        .or(lease::acquire(&shape, &label(args), wait, client, output))
        .await??;
    let mut child = Child::spawn(&args.command, lease.allocation())?;
    let code = loop {
        tokio::select! {
            // The end first: what is told about the lease of a command that has ended concerns nobody.
            biased;
            code = child.wait() => break code?,
            received = signals.next() => {
                let received = received?;
                // What the terminal sends it sends to the command too.
                if !received.from_terminal {
                    child.signal(received.signal);
                }
            }
            why = lease.lost(output) => after_loss(&why, args.on_loss, &child, output),
        }
    };
    lease.give_back(client).await;
    Ok(ExitCode::from(code))
}

fn after_loss(why: &str, on_loss: OnLoss, child: &Child, output: &Output) {
    let pid = child.pid();
    let then = match on_loss {
        OnLoss::Keep => format!("the command (pid {pid}) goes on, but others may get its GPUs"),
        OnLoss::Terminate => format!("the command (pid {pid}) gets SIGTERM"),
    };
    output.note(&format!("the lease is lost ({why}); {then}"));
    if on_loss == OnLoss::Terminate {
        child.signal(Signal::SIGTERM);
    }
}

/// User and program. Not the arguments: whoever may read the node's book would read a secret among them.
fn label(args: &RunArgs) -> String {
    if let Some(label) = &args.label {
        return label.clone();
    }
    let program = args
        .command
        .first()
        .map(Path::new)
        .and_then(Path::file_name)
        .unwrap_or_default();
    let user = std::env::var_os("USER").or_else(|| std::env::var_os("LOGNAME"));
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    match user {
        Some(user) => format!("{}: {}", text(&user), text(program)),
        None => text(program),
    }
}
