//! Where the nodes come from: a list of daemons, a Kubernetes cluster, or nowhere at all.

use std::{sync::Arc, time::Duration};

use berth_runtime::{
    Readiness, Tasks,
    dial::{DialError, Target},
    kubernetes::Access,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

mod kubernetes;
mod simulated;

pub(crate) use kubernetes::Kubernetes;
pub use simulated::{ParseSimulatedError, Simulated};

use crate::{
    cluster::{Cluster, Origin},
    daemons::Daemons,
    follow::Follow,
    random::Backoff,
};

/// One of three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Each once.
    Daemons(Vec<Target>),
    Kubernetes(Access),
    Simulated(Simulated),
}

/// Tasks that keep the cluster fresh.
#[derive(Debug)]
pub(crate) enum Feed {
    Follows(Vec<Follow>),
    Kubernetes(Box<Kubernetes>),
    /// Nothing changes but by us.
    Still,
}

/// One task for each daemon of the list.
pub(crate) fn follow_daemons(
    targets: Vec<Target>,
    cluster: &Arc<Cluster>,
    daemons: &Daemons,
    readiness: &Readiness,
    patience: Duration,
    seed: u64,
) -> Result<Feed, DialError> {
    let mut follows = Vec::with_capacity(targets.len());
    for target in targets {
        let id = cluster.join(Origin::Machine(Some(target.clone())));
        follows.push(Follow {
            id,
            client: daemons.set(id, &target)?,
            target,
            cluster: Arc::clone(cluster),
            backoff: Backoff::new(seed.wrapping_add(id.0 as u64)),
            patience,
            block: readiness.register("daemon"),
        });
    }
    Ok(Feed::Follows(follows))
}

impl Feed {
    /// Until `stop`.
    pub(crate) fn start(self, tasks: &Tasks, stop: &CancellationToken) {
        match self {
            Self::Follows(follows) => {
                for follow in follows {
                    drop(tasks.spawn("follow", follow.run(stop.clone())));
                }
            }
            Self::Kubernetes(kubernetes) => drop(tasks.spawn("kubernetes", kubernetes.run(stop.clone()))),
            Self::Still => {}
        }
    }
}
