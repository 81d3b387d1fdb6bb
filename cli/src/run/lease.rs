//! The lease while the command runs.

use std::{future, time::Duration};

use berth_placement::LeaseId;

use crate::{
    client::{Client, LeaseNews, LeaseStream},
    output::{Output, gpu_list},
    view::{Allocation, Holder},
};

/// Telling the daemon that the lease is over takes a millisecond. It notices by itself when we do not get that far.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// What the command was started with. Held as long as the stream is open.
#[derive(Debug)]
pub(super) struct Lease {
    allocation: Allocation,
    stream: Option<LeaseStream>,
    revoked: bool,
}

impl Lease {
    pub(super) fn new(allocation: Allocation, stream: LeaseStream) -> Self {
        Self {
            allocation,
            stream: Some(stream),
            revoked: false,
        }
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
