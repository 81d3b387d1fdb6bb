//! The node's book in the API server: the GpuNode of this node's name, its health as a label (and as more, where that is
//! wanted), its faults as events.
//!
//! Owns what was written last and when. Never in the way of a grant: it follows the published view at its own pace, and an
//! API server that is away costs nothing but fresh news there. Server-side apply, on change only, at most once a second.

mod convert;
mod events;
mod mark;
mod node;

use std::{sync::Arc, time::Duration};

use berth_kube_api::{
    GpuNode,
    gpu_node::{GpuNodeSpec, GpuNodeStatus},
};
use berth_placement::NodeName;
use berth_runtime::{
    BuildInfo, SharedClock,
    kubernetes::{Access, ApiError, DEADLINE, apply, within},
};
use futures_util::{StreamExt as _, stream::BoxStream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::mark::NodeHealth;
use self::{
    events::Events,
    node::{OwnNode, Presence},
};
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
    node: OwnNode,
    /// The Node that the object is known to belong to.
    owner: Option<OwnerReference>,
    /// What was written last; `None`: nothing yet, or somebody else changed it since.
    written: Option<GpuNodeStatus>,
    events: Events,
}

impl Mirror {
    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ended = stop.run_until_cancelled(Box::pin(self.follow())).await;
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
                () = sleep_until(session.node.next_look()) => {}
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
            node: OwnNode::new(client, &mirror.node, mirror.node_health),
            owner: None,
            written: None,
            events: Events::new(client.clone(), &mirror.node, SharedClock::clone(&mirror.clock)),
        }
    }

    /// Our object as it is in the API server: `None` when it is deleted.
    fn watch(&self, name: &NodeName) -> BoxStream<'static, Option<GpuNode>> {
        let stream = watcher::watch_object(self.nodes.clone(), name.as_str());
        stream.default_backoff().filter_map(async |object| object.ok()).boxed()
    }

    /// Somebody deleted or changed what was written: it is written again. Deleted it is also because the Node was.
    fn compare(&mut self, object: Option<GpuNode>) {
        if object.is_none() {
            self.owner = None;
            self.node.look_soon();
        }
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
        let node = self.node.find(&status).await?;
        if *self.node.presence() == Presence::Left {
            // Made again, its GpuNode would belong to nobody, and stay for ever.
            return Ok(());
        }
        if self.written.as_ref() != Some(&status) {
            self.write(&mirror.node, &status).await?;
            self.written = Some(status.clone());
        }
        if let Some(node) = node {
            self.node.tell(node, &status).await?;
        }
        if let Presence::Present(owner) = self.node.presence()
            && self.owner.as_ref() != Some(owner)
        {
            let owner = owner.clone();
            apply(&self.nodes, &self.object(&mirror.node, None), MANAGER).await?;
            self.owner = Some(owner);
        }
        self.events.tell(&status).await
    }

    /// With the Node goes what is said of it.
    fn object(&self, name: &NodeName, status: Option<&GpuNodeStatus>) -> GpuNode {
        let owner = match self.node.presence() {
            Presence::Present(owner) => Some(vec![owner.clone()]),
            Presence::Unjoined | Presence::Left => None,
        };
        GpuNode {
            metadata: ObjectMeta {
                name: Some(name.to_string()),
                owner_references: owner,
                ..ObjectMeta::default()
            },
            spec: GpuNodeSpec {},
            status: status.cloned(),
        }
    }

    async fn write(&self, name: &NodeName, status: &GpuNodeStatus) -> Result<(), ApiError> {
        let object = self.object(name, Some(status));
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
}
