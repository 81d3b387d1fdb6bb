//! The node's book in the API server: the GpuNode of this node's name, its health as a label (and as more, where that is
//! wanted), its faults as events.
//!
//! Owns what was written last and when. Never in the way of a grant: it follows the published view at its own pace, and an
//! API server that is away costs nothing but fresh news there. Server-side apply, on change only, at most once a second.

mod convert;
mod events;
mod mark;

use std::{sync::Arc, time::Duration};

use berth_kube_api::{
    GpuNode,
    gpu_node::{GpuNodeSpec, GpuNodeStatus},
    names::berth as names,
};
use berth_placement::NodeName;
use berth_runtime::{
    BuildInfo, SharedClock,
    kubernetes::{Access, ApiError, DEADLINE, apply, within},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::events::Events;
pub(crate) use self::mark::NodeHealth;
use crate::{book::NodeView, grpc::Identity, metrics::Metrics};

/// Owner of the fields that berthd applies.
const MANAGER: &str = "berthd";
/// Between two writes: what changes meanwhile is written together.
const PACE: Duration = Duration::from_secs(1);
/// After a write that failed, doubled up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Where to write, and how the daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MirrorConfig {
    pub access: Access,
    /// Host or address under which schedulers reach the daemon's TCP port; `None`: they do not.
    pub advertise: Option<String>,
    pub node_health: NodeHealth,
}

/// What the task needs.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) access: Access,
    pub(crate) build: BuildInfo,
    pub(crate) node: NodeName,
    /// URL of the gRPC port; empty: not to be reached.
    pub(crate) address: String,
    pub(crate) node_health: NodeHealth,
    pub(crate) identity: Arc<Identity>,
    pub(crate) views: watch::Receiver<Arc<NodeView>>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: SharedClock,
}

/// A connection with what is known to be in the API server.
struct Session {
    nodes: Api<GpuNode>,
    node: Api<Node>,
    /// What was written last; `None`: nothing yet, or somebody else changed it since.
    written: Option<GpuNodeStatus>,
    health: Option<String>,
    /// The node is marked as one whose GPUs are all broken, or as one where they are not.
    marked: Option<bool>,
    events: Events,
}

impl Mirror {
    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ended = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(mut self) {
        let client = self.client().await;
        let mut session = Session::new(&client, &self);
        let mut seen = session.watch(&self.node);
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut wait = FIRST_WAIT;
        let mut told = None;
        loop {
            pace.tick().await;
            let view = Arc::clone(&self.views.borrow_and_update());
            let result = session.bring_up_to_date(&self, &view).await;
            self.metrics
                .mirrored(result.as_ref().map_or_else(ApiError::reason, |()| ""));
            match result {
                Ok(()) => {
                    if told.take().is_some() {
                        info!("the API server has this node's GPUs again");
                    }
                    wait = FIRST_WAIT;
                }
                Err(error) => {
                    // Once per kind of trouble, not once per attempt.
                    let reason = Some(error.reason());
                    if told != reason {
                        let error = &error as &dyn std::error::Error;
                        warn!(
                            error,
                            reason, "the API server does not take this node's GPUs: trying on"
                        );
                    }
                    told = reason;
                    sleep(wait).await;
                    wait = (wait * 2).min(LAST_WAIT);
                    continue;
                }
            }
            tokio::select! {
                changed = self.views.changed() => if changed.is_err() { return },
                object = seen.next() => session.compare(object.flatten()),
            }
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
                }
            }
            self.metrics.mirrored("ApiAccess");
            sleep(wait).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }
}

impl Session {
    fn new(client: &Client, mirror: &Mirror) -> Self {
        Self {
            nodes: Api::all(client.clone()),
            node: Api::all(client.clone()),
            written: None,
            health: None,
            marked: None,
            events: Events::new(client.clone(), &mirror.node, SharedClock::clone(&mirror.clock)),
        }
    }

    /// Our object as it is in the API server: `None` when it is deleted.
    fn watch(&self, name: &NodeName) -> BoxStream<'static, Option<GpuNode>> {
        let stream = watcher::watch_object(self.nodes.clone(), name.as_str());
        stream.default_backoff().filter_map(async |object| object.ok()).boxed()
    }

    /// Somebody deleted or changed what was written: it is written again.
    fn compare(&mut self, object: Option<GpuNode>) {
        let status = object.and_then(|object| object.status);
        // An older echo of ours comes before the newest one.
        let is_ours = status.is_some_and(|status| {
            let written = self.written.as_ref();
            written.is_some_and(|written| status == *written || status.generation < written.generation)
        });
        if !is_ours {
            self.written = None;
        }
    }

    async fn bring_up_to_date(&mut self, mirror: &Mirror, view: &NodeView) -> Result<(), ApiError> {
        let status = convert::status(view, &mirror.identity, &mirror.address);
        if self.written.as_ref() != Some(&status) {
            self.write(&mirror.node, &status).await?;
            self.written = Some(status.clone());
        }
        if self.health.as_ref() != Some(&status.summary.health) {
            self.label(&mirror.node, &status).await?;
            self.health = Some(status.summary.health.clone());
        }
        if let Some(is_unhealthy) = mark::is_unhealthy(&status)
            && self.marked != Some(is_unhealthy)
        {
            mark::mark(&self.node, &mirror.node, mirror.node_health, is_unhealthy).await?;
            self.marked = Some(is_unhealthy);
        }
        self.events.tell(&status).await
    }

    async fn write(&self, name: &NodeName, status: &GpuNodeStatus) -> Result<(), ApiError> {
        let object = GpuNode {
            metadata: ObjectMeta {
                name: Some(name.to_string()),
                ..ObjectMeta::default()
            },
            spec: GpuNodeSpec {},
            status: Some(status.clone()),
        };
        let as_ours = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&object);
        let written = within(DEADLINE, self.nodes.patch_status(name.as_str(), &as_ours, &patch)).await;
        match written {
            Err(error) if error.is_not_found() => {
                // The first write makes the object, the second one its status.
                apply(&self.nodes, &object, MANAGER).await?;
                within(DEADLINE, self.nodes.patch_status(name.as_str(), &as_ours, &patch)).await?;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// A machine that has not joined the cluster yet has no label.
    async fn label(&self, name: &NodeName, status: &GpuNodeStatus) -> Result<(), ApiError> {
        let labels = json!({names::HEALTH: status.summary.health, names::MODEL: label_value(&status.summary.model)});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name.as_str(), "labels": labels}});
        let as_ours = PatchParams::apply(MANAGER).force();
        // Only where the node is: an apply would make one.
        let present = within(DEADLINE, self.node.get_metadata_opt(name.as_str())).await?;
        if present.is_some() {
            within(DEADLINE, self.node.patch(name.as_str(), &as_ours, &Patch::Apply(node))).await?;
        }
        Ok(())
    }
}

/// Several models of one node: a label takes no comma.
fn label_value(models: &str) -> String {
    models.replace(',', "_")
}
