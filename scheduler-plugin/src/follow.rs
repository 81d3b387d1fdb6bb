//! One task per configured daemon: follows its node over WatchNode, for ever, and tells the cluster what it learns.

use std::{sync::Arc, time::Duration};

use berth_proto::node::v1::{GetNodeRequest, Node, WatchNodeRequest, WatchNodeResponse};
use berth_runtime::{Block, dial::Target};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    cluster::{Cluster, MemberId, Problem},
    convert::{self, CallError},
    daemons::Client,
    random::Backoff,
};

/// A daemon, and what its task needs.
#[derive(Debug)]
pub(crate) struct Follow {
    pub(crate) id: MemberId,
    pub(crate) target: Target,
    pub(crate) client: Client,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) backoff: Backoff,
    /// A stream says something only when something changes: after this long the daemon is asked whether it still could,
    /// and has as long again to answer.
    pub(crate) patience: Duration,
    /// Ready once the daemon was seen, or it is known why not.
    pub(crate) block: Block,
}

impl Follow {
    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.block.not_ready(format!("waiting for {}", self.target));
        let mut last_reason = None;
        while !stop.is_cancelled() {
            let Some(problem) = stop.run_until_cancelled(self.watch()).await else {
                return;
            };
            // Once per kind of trouble, not once per attempt.
            if last_reason.as_ref() != Some(&problem.reason) {
                warn!(daemon = %self.target, reason = problem.reason, message = problem.message, "daemon lost");
            }
            last_reason = Some(problem.reason.clone());
            self.cluster.lost(self.id, problem);
            self.block.ready();
            let wait = self.backoff.next();
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// One stream from beginning to end: why it ended.
    async fn watch(&mut self) -> Problem {
        match self.follow_stream().await {
            Ok(()) => Problem {
                reason: "DaemonStopped".to_owned(),
                message: "the daemon ended the stream, as it does when it stops".to_owned(),
            },
            Err(problem) => problem,
        }
    }

    async fn follow_stream(&mut self) -> Result<(), Problem> {
        let start = self.client.watch_node(WatchNodeRequest { after_generation: 0 });
        let mut stream = call(self.patience, start).await?;
        let mut seen = false;
        while let Some(node) = self.next_state(&mut stream).await? {
            self.take(node)?;
            if !seen {
                seen = true;
                info!(daemon = %self.target, "daemon reached");
                self.block.ready();
                self.backoff.reset();
            }
        }
        Ok(())
    }

    /// The next state, by the stream or by asking; `None` at the stream's end.
    async fn next_state(&mut self, stream: &mut Streaming<WatchNodeResponse>) -> Result<Option<Option<Node>>, Problem> {
        match timeout(self.patience, stream.message()).await {
            Ok(Ok(Some(response))) => Ok(Some(response.node)),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(convert::call_error(&status).into()),
            Err(_) => Ok(Some(
                call(self.patience, self.client.get_node(GetNodeRequest {})).await?.node,
            )),
        }
    }

    fn take(&self, node: Option<Node>) -> Result<(), Problem> {
        let report = convert::report(node).map_err(|error| Problem {
            reason: "DaemonError".to_owned(),
            message: error.to_string(),
        })?;
        self.cluster.report(self.id, report).map_err(|error| Problem {
            reason: "NodeNameTaken".to_owned(),
            message: error.to_string(),
        })
    }
}

async fn call<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Problem> {
    match timeout(deadline, call).await {
        Ok(answer) => Ok(answer.map_err(|status| convert::call_error(&status))?.into_inner()),
        Err(_) => Err(Problem {
            reason: "DaemonTimeout".to_owned(),
            message: format!("the daemon did not answer within {deadline:?}"),
        }),
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self {
            reason: error.reason,
            message: error.message,
        }
    }
}
