//! The lease: asking for it, what happens to it while the command runs, giving it back.

use std::{future, time::Duration};

use berth_placement::{LeaseId, Shape};
use tokio::time::sleep;

use crate::{
    client::{Client, LeaseNews, LeaseStream},
    error::CliError,
    output::{Output, gpu_list},
    view::{Allocation, Holder},
};

/// Telling the daemon that the lease is over takes a millisecond. It notices by itself when we do not get that far.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// Between two tries to reach a daemon that is not ready. It is on this machine or near it.
const RETRY: Duration = Duration::from_secs(1);

/// What the command was started with. Held as long as the stream is open.
#[derive(Debug)]
pub(super) struct Lease {
    allocation: Allocation,
    stream: Option<LeaseStream>,
    revoked: bool,
}

/// Asks for a lease, and goes on asking for as long as `wait`: while there is no room, while the daemon is not ready, and
/// while a daemon that was there is away. Tells what it waits for.
///
/// # Errors
/// It was refused, there was no room in time, or no daemon from the start.
pub(super) async fn acquire(
    shape: &Shape,
    label: &str,
    wait: Duration,
    client: &Client,
    output: &Output,
) -> Result<Lease, CliError> {
    let mut told: Option<String> = None;
    let mut tell = |message: &str| {
        if told.as_deref() != Some(message) {
            output.note(&format!("waiting for {shape}: {message}"));
            told = Some(message.to_owned());
        }
    };
    let start = output.clock().monotonic();
    let mut was_there = false;
    let (allocation, stream) = loop {
        let left = wait.saturating_sub(output.clock().monotonic().saturating_sub(start));
        let asked = client.lease(shape, label.to_owned(), left, |message| {
            was_there = true;
            tell(message);
        });
        let error = match asked.await {
            Ok(granted) => break granted,
            Err(error) => error,
        };
        was_there |= matches!(error, CliError::NotReady { .. });
        let may_pass = was_there && matches!(error, CliError::NotReady { .. } | CliError::Unreachable { .. });
        if !may_pass || left.is_zero() {
            return Err(error);
        }
        tell(&error.sentence());
        sleep(RETRY.min(left)).await;
    };
    if told.is_some() {
        output.note(&format!("got {}", gpu_list(&allocation.grants)));
    }
    Ok(Lease {
        allocation,
        stream: Some(stream),
        revoked: false,
    })
}

impl Lease {
    pub(super) fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    /// Tells what happens to the devices until the lease is lost; then why, once. Safe to drop and to call again.
    pub(super) async fn lost(&mut self, output: &Output) -> String {
        let Some(stream) = &mut self.stream else {
            return future::pending().await;
        };
        let why = loop {
            match stream.next().await {
                Ok(Some(LeaseNews::Revoked { reason, message })) => {
                    self.revoked = true;
                    break format!("{reason}: {message}");
                }
                Ok(Some(LeaseNews::Changed { allocation, message })) => {
                    tell_change(&self.allocation, &allocation, &message, output);
                }
                Ok(Some(LeaseNews::Granted(_) | LeaseNews::Waiting(_))) => {}
                Ok(None) => break "berthd stops".to_owned(),
                Err(error) => break error.sentence(),
            }
        };
        self.stream = None;
        why
    }

    /// Gives it back and waits until that is done, so that whoever comes next, in a script say, finds the GPU free. Also
    /// where the stream was lost: a daemon that was restarted meanwhile keeps the lease for a while.
    pub(super) async fn give_back(self, client: &Client) {
        let Some(Holder::LeaseId(id)) = &self.allocation.holder else {
            return;
        };
        if let Ok(id) = id.parse::<LeaseId>()
            && !self.revoked
        {
            // Where this fails the end of the stream does it, a moment later.
            let _released = client.with_timeout(RELEASE_DEADLINE).release_lease(id).await;
        }
    }
}

fn tell_change(started_on: &Allocation, now: &Allocation, message: &str, output: &Output) {
    if now.grants != started_on.grants {
        let (now, then) = (gpu_list(&now.grants), gpu_list(&started_on.grants));
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
