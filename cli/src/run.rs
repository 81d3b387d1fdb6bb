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

use std::{ffi::OsStr, path::Path, process::ExitCode, time::Duration};

use berth_placement::LeaseId;
use nix::sys::signal::Signal;

use crate::{
    args::{OnLoss, RunArgs},
    client::{Client, LeaseNews, LeaseStream},
    error::CliError,
    output::{Output, gpu_list},
    signals::Signals,
    view::{Allocation, Grant, Holder},
};
use child::Child;

/// Telling the daemon that the lease is over takes a millisecond. It notices by itself when we do not get that far.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

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
    let mut last_told = None;
    let waiting = |message: &str| {
        if last_told.as_deref() != Some(message) {
            output.note(&format!("waiting for {shape}: {message}"));
            last_told = Some(message.to_owned());
        }
    };
    let lease = client.lease(&shape, label(args), args.wait.unwrap_or_default(), waiting);
    let (allocation, stream) = signals.or(lease).await??;
    if last_told.is_some() {
        output.note(&format!("got {}", gpu_list(&allocation.grants)));
    }
    let mut child = Child::spawn(&args.command, &allocation)?;
    let mut lease = Lease {
        stream: Some(stream),
        grants: allocation.grants.clone(),
        on_loss: args.on_loss,
    };
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
            loss = lease.lost(output), if lease.is_held() => lease.give_up(&loss, &child, output),
        }
    };
    // Before we end, so that whoever comes next, in a script say, finds the GPU free.
    if lease.is_held() {
        release(&allocation, client).await;
    }
    Ok(ExitCode::from(code))
}

/// The lease while the command runs.
struct Lease {
    stream: Option<LeaseStream>,
    /// What the command was started with.
    grants: Vec<Grant>,
    on_loss: OnLoss,
}

impl Lease {
    fn is_held(&self) -> bool {
        self.stream.is_some()
    }

    /// Tells what happens to the devices, until the lease is lost; then why.
    async fn lost(&mut self, output: &Output) -> String {
        let Self { stream, grants, .. } = self;
        let Some(stream) = stream else {
            return "it is lost already".to_owned();
        };
        loop {
            match stream.next().await {
                Ok(Some(LeaseNews::Revoked { reason, message })) => return format!("{reason}: {message}"),
                Ok(Some(LeaseNews::Changed { allocation, message })) => {
                    tell_change(grants, &allocation, &message, output)
                }
                Ok(Some(LeaseNews::Granted(_) | LeaseNews::Waiting(_))) => {}
                Ok(None) => return "berthd stops".to_owned(),
                Err(error) => return error.sentence(),
            }
        }
    }

    fn give_up(&mut self, why: &str, child: &Child, output: &Output) {
        self.stream = None;
        let pid = child.pid();
        let then = match self.on_loss {
            OnLoss::Keep => format!("the command (pid {pid}) goes on, but others may get its GPUs"),
            OnLoss::Terminate => format!("the command (pid {pid}) gets SIGTERM"),
        };
        output.note(&format!("the lease is lost ({why}); {then}"));
        if self.on_loss == OnLoss::Terminate {
            child.signal(Signal::SIGTERM);
        }
    }
}

fn tell_change(started_on: &[Grant], allocation: &Allocation, message: &str, output: &Output) {
    if allocation.grants != started_on {
        let (now, then) = (gpu_list(&allocation.grants), gpu_list(started_on));
        output.note(&format!(
            "the lease is on {now} from now on; the command was started on {then}"
        ));
    }
    output.note(if message.is_empty() {
        "the GPUs of the lease are well"
    } else {
        message
    });
}

async fn release(allocation: &Allocation, client: &Client) {
    let Some(Holder::LeaseId(id)) = &allocation.holder else {
        return;
    };
    let Ok(id) = id.parse::<LeaseId>() else { return };
    // The end of the stream releases it just as well, a moment later.
    let _released = client.with_timeout(RELEASE_DEADLINE).release_lease(id).await;
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
