//! Round after round: look, plan, write, tell. Whatever fails is tried again; nothing ends the process.

use std::{collections::BTreeSet, time::Duration};

use berth_runtime::{
    Block, BuildInfo,
    kubernetes::{Access, ApiError},
};
use kube::Client;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    metrics::Metrics,
    plan::{Action, Finding, Seen, Wanted, plan},
    watch::Watches,
    write::write,
};

/// After something failed, doubled up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) access: Access,
    pub(super) build: BuildInfo,
    pub(super) wanted: Wanted,
    pub(super) resync: Duration,
    pub(super) metrics: Metrics,
    pub(super) block: Block,
    /// What was told and still holds.
    pub(super) told: BTreeSet<Finding>,
    pub(super) troubles: BTreeSet<Trouble>,
}

/// An action that failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Trouble {
    namespace: String,
    name: String,
    reason: &'static str,
}

impl Mirror {
    /// Until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ended = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(mut self) {
        if self.wanted.names.is_empty() {
            info!("no pull secret is listed: only copies that are left over are removed");
        }
        let client = self.client().await;
        loop {
            // New watches look at everything anew.
            drop(timeout(self.resync, self.rounds(&client)).await);
        }
    }

    /// Files may be late, as secrets are.
    async fn client(&self) -> Client {
        let mut wait = FIRST_WAIT;
        loop {
            match self.access.client(self.build).await {
                Ok(client) => return client,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "no way to the API server yet: trying on");
                    self.block.not_ready("there is no way to the API server");
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    async fn rounds(&mut self, client: &Client) {
        let mut watches = Watches::open(client, &self.wanted);
        watches.changed().await;
        self.block.ready();
        let mut wait = FIRST_WAIT;
        loop {
            if self.round(client, &watches.seen()).await {
                wait = FIRST_WAIT;
                watches.changed().await;
            } else {
                drop(timeout(wait, watches.changed()).await);
                wait = (wait * 2).min(LAST_WAIT);
            }
        }
    }

    /// Whether everything is done.
    async fn round(&mut self, client: &Client, seen: &Seen) -> bool {
        let plan = plan(&self.wanted, seen);
        self.metrics.planned(&plan);
        for finding in plan.findings.difference(&self.told) {
            tell(finding, &self.wanted.source);
        }
        self.told = plan.findings;
        let mut troubles = BTreeSet::new();
        let mut is_done = true;
        for action in &plan.actions {
            let error = match write(client, action).await {
                Ok(changed) => {
                    if changed {
                        self.metrics.wrote(action, "");
                        done(action);
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.metrics.wrote(action, error.reason());
            is_done = false;
            // Not a trouble: the watch has not told yet what is there now.
            if error.is_conflict() {
                continue;
            }
            let trouble = Trouble::new(action, &error);
            if !self.troubles.contains(&trouble) {
                let Trouble {
                    namespace,
                    name,
                    reason,
                } = &trouble;
                let error = &error as &dyn std::error::Error;
                warn!(
                    namespace,
                    name, reason, error, "a pull secret is not as it should be: trying on"
                );
            }
            troubles.insert(trouble);
            if error.is_transient() {
                // The others would fare no better.
                break;
            }
        }
        self.troubles = troubles;
        is_done
    }
}

impl Trouble {
    fn new(action: &Action, error: &ApiError) -> Self {
        let (namespace, name) = action.place();
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            reason: error.reason(),
        }
    }
}

fn done(action: &Action) {
    let (namespace, name) = action.place();
    match action {
        Action::Create { .. } => info!(namespace, name, "a pull secret is copied"),
        Action::Update { .. } => info!(namespace, name, "a copy is as its source again"),
        Action::Replace { .. } => info!(namespace, name, "a copy is made anew"),
        Action::Delete { .. } => info!(namespace, name, "a copy is removed"),
    }
}

fn tell(finding: &Finding, source: &str) {
    match finding {
        Finding::NoSource { name } => {
            warn!(
                namespace = source,
                name, "a listed pull secret is not there: waiting for it"
            );
        }
        Finding::Unfit { name, kind } => {
            warn!(
                namespace = source,
                name, kind, "a listed secret is no pull secret: it is not copied"
            );
        }
        Finding::NoNamespace { namespace } => info!(namespace, "a namespace is not there yet: waiting for it"),
        Finding::Foreign { namespace, name } => {
            warn!(
                namespace,
                name, "somebody else's secret has the name of a pull secret: it is left alone"
            );
        }
    }
}
