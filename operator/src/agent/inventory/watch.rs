//! Follows Nodes and GpuNodes: two watches for ever. What is known stays known while the API server is away.

use std::{collections::HashSet, sync::Arc};

use berth_kube_api::GpuNode;
use berth_runtime::kubernetes::watch::{Resync, patient};
use futures_util::{FutureExt as _, StreamExt as _, stream, stream::BoxStream};
use kube::{Api, Client, Resource, ResourceExt as _, api::ApiResource, runtime::watcher};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Inventory, Join, WatchedNode, gpu_facts, node_facts};
use crate::agent::{
    health::{Health, KUBERNETES},
    settings::chain,
};

/// What the task needs.
pub(crate) struct Follow {
    pub(crate) client: Client,
    /// The namespace of function pods.
    pub(crate) functions: String,
    pub(crate) health: Health,
    /// `None` until every node was heard of.
    pub(crate) inventory: watch::Sender<Option<Arc<Inventory>>>,
}

/// A step of one of the watches.
enum Seen {
    Node(watcher::Result<watcher::Event<WatchedNode>>),
    GpuNode(watcher::Result<watcher::Event<GpuNode>>),
}

/// One of the watches.
struct Followed {
    what: &'static str,
    resync: Resync<String>,
    /// There may be no such kind; and there is none, or it is not for us.
    optional: bool,
    absent: bool,
    /// A trouble is logged once.
    told: bool,
}

/// Follows for ever.
pub(crate) async fn follow(follow: Follow) {
    let Follow {
        client,
        functions,
        health,
        inventory,
    } = follow;
    let mut seen = watches(&client);
    let mut join = Join::default();
    let mut nodes = Followed::new("nodes", false);
    let mut gpu_nodes = Followed::new("gpunodes", true);
    while let Some(first) = seen.next().await {
        let mut next = Some(first);
        while let Some(step) = next {
            match step {
                Seen::Node(event) => {
                    let known = || join.nodes().cloned().collect();
                    for (name, node) in nodes.take(event, known, &health) {
                        join.node(name, node.as_ref().map(node_facts));
                    }
                }
                Seen::GpuNode(event) => {
                    let known = || join.gpu_nodes().cloned().collect();
                    for (name, node) in gpu_nodes.take(event, known, &health) {
                        let status = node.as_ref().and_then(|node| node.status.as_ref());
                        join.gpus(name, status.map(|status| gpu_facts(status, &functions)));
                    }
                }
            }
            // What is there already is one change.
            next = seen.next().now_or_never().flatten();
        }
        if nodes.is_complete() && gpu_nodes.is_complete() {
            publish(join.inventory(), &inventory, &health);
        }
    }
}

fn publish(new: Inventory, inventory: &watch::Sender<Option<Arc<Inventory>>>, health: &Health) {
    health.good(KUBERNETES);
    inventory.send_if_modified(|current| {
        if current.as_deref() == Some(&new) {
            return false;
        }
        if current.is_none() {
            info!(nodes = new.hosts.len(), "the nodes with GPUs are known");
        }
        let before = current.as_deref().map(|it| &it.unclassified);
        for (node, why) in &new.unclassified {
            if before.is_none_or(|before| before.get(node) != Some(why)) {
                warn!(node, "its GPUs are not offered: {why}");
            }
        }
        *current = Some(Arc::new(new));
        true
    });
}

impl Followed {
    const fn new(what: &'static str, optional: bool) -> Self {
        Self {
            what,
            resync: Resync::new(),
            optional,
            absent: false,
            told: false,
        }
    }

    const fn is_complete(&self) -> bool {
        self.absent || self.resync.is_complete()
    }

    /// The objects that are there now, and those that are gone (`None`).
    fn take<K: Resource>(
        &mut self,
        event: watcher::Result<watcher::Event<K>>,
        known: impl FnOnce() -> HashSet<String>,
        health: &Health,
    ) -> Vec<(String, Option<K>)> {
        let gone = |name: String| (name, None);
        match event {
            Ok(event) => {
                // Each try begins with it: it says nothing.
                self.told &= matches!(event, watcher::Event::Init);
                let (here, lost) = self.resync.step(event, |object| Some(object.name_any()), known);
                let here = here.into_iter().map(|(name, object)| (name, Some(object)));
                here.chain(lost.into_iter().map(gone)).collect()
            }
            Err(error) if self.optional && is_no_such_kind(&error) => {
                self.tell("there is no such kind, or it is not for us: GPUs are taken from labels");
                self.absent = true;
                known().into_iter().map(gone).collect()
            }
            Err(error) => {
                self.tell(&chain(&error));
                if !self.is_complete() {
                    health.bad(KUBERNETES, "ApiUnavailable", chain(&error));
                }
                Vec::new()
            }
        }
    }

    fn tell(&mut self, trouble: &str) {
        if !std::mem::replace(&mut self.told, true) {
            warn!(what = self.what, trouble, "a watch broke: trying on");
        }
    }
}

fn watches(client: &Client) -> BoxStream<'static, Seen> {
    let node = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        plural: "nodes".to_owned(),
    };
    let nodes: Api<WatchedNode> = Api::all_with(client.clone(), &node);
    let gpu_nodes: Api<GpuNode> = Api::all(client.clone());
    stream::select(
        patient(nodes, watcher::Config::default()).map(Seen::Node),
        patient(gpu_nodes, watcher::Config::default()).map(Seen::GpuNode),
    )
    .boxed()
}

/// By its code: where the whole group is missing, the answer is no Status.
fn is_no_such_kind(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    matches!(status.code, 403 | 404)
}
