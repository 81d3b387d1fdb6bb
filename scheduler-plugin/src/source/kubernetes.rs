//! Follows the API server: GpuNodes, Nodes and Pods, three watches for ever. What is known stays known while the API server
//! is away.
//!
//! ```text
//! watches ──► State (join by node) ──► Change ──► Cluster, Daemons, releases
//! ```

use std::{collections::HashMap, sync::Arc, time::Duration};

use berth_kube_api::GpuNode;
use berth_placement::{NodeName, PodUid};
use berth_proto::node::v1::GetNodeRequest;
use berth_runtime::{
    Block, BuildInfo,
    dial::Target,
    kubernetes::{
        Access,
        watch::{Resync, watch},
    },
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{Api, Client, ResourceExt as _, api::ApiResource, runtime::watcher};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

mod convert;
mod state;

use self::{
    convert::{WatchedNode, WatchedPod},
    state::{Change, State},
};
use crate::{
    binder::KubernetesBinder,
    cluster::{Cluster, MemberId, Origin},
    daemons::Daemons,
    reserve::Reserver,
};

/// How often daemons that could not be reached are tried again, and how long each may take.
const PROBE: Duration = Duration::from_secs(1);
/// After the way to the API server could not be found.
const RETRY: Duration = Duration::from_secs(2);

/// What the task needs.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    pub(crate) access: Access,
    pub(crate) build: BuildInfo,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) daemons: Daemons,
    pub(crate) reserver: Reserver,
    pub(crate) binder: KubernetesBinder,
    /// Ready once every kind of object was heard of.
    pub(crate) block: Block,
}

/// A step of one of the watches.
enum Seen {
    GpuNode(watcher::Event<GpuNode>),
    Node(watcher::Event<WatchedNode>),
    Pod(watcher::Event<WatchedPod>),
}

/// What is followed, and where it is in the cluster.
struct Session {
    state: State,
    members: HashMap<NodeName, (MemberId, Option<Target>)>,
    gpu_nodes: Resync<NodeName>,
    nodes: Resync<NodeName>,
    pods: Resync<PodUid>,
}

impl Kubernetes {
    /// Until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let _ended = stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(self) {
        self.block.not_ready("waiting for the API server");
        self.cluster.set_known(false);
        let client = self.client().await;
        self.binder.connect(client.clone());
        let mut seen = watches(&client);
        let mut session = Session::new();
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_complete = false;
        loop {
            tokio::select! {
                event = seen.next() => {
                    let Some(event) = event else { return };
                    for change in session.take(event) {
                        self.apply(&mut session.members, change);
                    }
                    if !is_complete && session.is_complete() {
                        is_complete = true;
                        self.cluster.set_known(true);
                        self.block.ready();
                        info!(nodes = session.members.len(), "the cluster is known");
                    }
                }
                _ = probe.tick() => self.probe(),
            }
        }
    }

    async fn client(&self) -> Client {
        loop {
            match self.access.client(self.build).await {
                Ok(client) => return client,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "no way to the API server yet: trying on");
                }
            }
            sleep(RETRY).await;
        }
    }

    fn apply(&self, members: &mut HashMap<NodeName, (MemberId, Option<Target>)>, change: Change) {
        match change {
            Change::Report(target, report) => {
                let name = report.state.name.clone();
                let (id, known) = members
                    .entry(name)
                    .or_insert_with(|| (self.cluster.join(Origin::Machine(None)), None));
                if *known != target {
                    self.cluster.moved(*id, target.clone());
                    let set = target.as_ref().map(|target| self.daemons.set(*id, target));
                    if let Some(Err(error)) = &set {
                        let node = &report.state.name;
                        warn!(%node, error = error as &dyn std::error::Error, "its daemon cannot be reached");
                    }
                    if target.is_none() {
                        self.daemons.forget(*id);
                    }
                    known.clone_from(&target);
                }
                if let Err(error) = self.cluster.hearsay(*id, *report) {
                    warn!(error = &error as &dyn std::error::Error, "a node is not taken");
                }
            }
            Change::Gone(name) => {
                if let Some((id, known)) = members.get_mut(&name) {
                    self.cluster.leave(*id);
                    self.daemons.forget(*id);
                    *known = None;
                }
            }
            Change::PodGone(pod, node) => {
                self.cluster.forget(&pod.uid);
                self.reserver.release(pod, &node, "the pod is gone");
            }
            Change::Stray(pod, node) => self.reserver.release(pod, &node, "the pod runs elsewhere"),
        }
    }

    /// Asks daemons that could not be reached whether they can be now. A GpuNode tells only what changed.
    fn probe(&self) {
        for id in self.cluster.down() {
            let Some(mut client) = self.daemons.client(id) else {
                continue;
            };
            let cluster = Arc::clone(&self.cluster);
            let ask = async move {
                if let Ok(Ok(_)) = timeout(PROBE, client.get_node(GetNodeRequest {})).await {
                    cluster.found(id);
                }
            };
            drop(self.reserver.tasks.spawn("probe", ask));
        }
    }
}

impl Session {
    fn new() -> Self {
        Self {
            state: State::default(),
            members: HashMap::new(),
            gpu_nodes: Resync::new(),
            nodes: Resync::new(),
            pods: Resync::new(),
        }
    }

    fn is_complete(&self) -> bool {
        self.gpu_nodes.is_complete() && self.nodes.is_complete() && self.pods.is_complete()
    }

    fn take(&mut self, seen: Seen) -> Vec<Change> {
        let Self {
            state,
            gpu_nodes,
            nodes,
            pods,
            ..
        } = self;
        match seen {
            Seen::GpuNode(event) => {
                let name = |object: &GpuNode| object.name_any().parse().ok();
                let known = || state.gpu_nodes();
                let (object, gone) = gpu_nodes.step(event, name, known);
                let mut changes: Vec<_> = gone.into_iter().flat_map(|name| state.gpu_node(name, None)).collect();
                if let Some((name, object)) = object {
                    changes.extend(state.gpu_node(name, object.status.as_ref()));
                }
                changes
            }
            Seen::Node(event) => {
                let name = |object: &WatchedNode| object.name_any().parse().ok();
                let known = || state.kube_nodes();
                let (object, gone) = nodes.step(event, name, known);
                let mut changes: Vec<_> = gone.into_iter().flat_map(|name| state.node(name, None)).collect();
                if let Some((name, object)) = object {
                    changes.extend(state.node(name, convert::node(&object).map(|(_, node)| node)));
                }
                changes
            }
            Seen::Pod(event) => {
                let uid = |object: &WatchedPod| object.uid().and_then(|uid| uid.parse().ok());
                let known = || state.pods();
                let (object, gone) = pods.step(event, uid, known);
                let mut changes: Vec<_> = gone.iter().flat_map(|uid| state.pod(uid, None)).collect();
                if let Some((uid, object)) = object {
                    changes.extend(state.pod(&uid, convert::pod(object).and_then(|(_, on)| on)));
                }
                changes
            }
        }
    }
}

fn watches(client: &Client) -> BoxStream<'static, Seen> {
    let pods: Api<WatchedPod> = Api::all_with(client.clone(), &core("Pod", "pods"));
    let nodes: Api<WatchedNode> = Api::all_with(client.clone(), &core("Node", "nodes"));
    let gpu_nodes: Api<GpuNode> = Api::all(client.clone());
    stream::select_all([
        watch(gpu_nodes, watcher::Config::default()).map(Seen::GpuNode).boxed(),
        watch(nodes, watcher::Config::default()).map(Seen::Node).boxed(),
        watch(pods, watcher::Config::default()).map(Seen::Pod).boxed(),
    ])
    .boxed()
}

fn core(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
