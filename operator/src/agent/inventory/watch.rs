//! Follows Nodes and GpuNodes: two watches for ever. What is known stays known while the API server is away.

use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};

use berth_kube_api::GpuNode;
use berth_sis::Backoff;
use futures_util::{FutureExt as _, StreamExt as _, future, stream, stream::BoxStream};
use kube::{Api, Client, Resource, ResourceExt as _, api::ApiResource, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Inventory, Join, WatchedNode, gpu_facts, node_facts};
use crate::agent::{
    health::{Health, KUBERNETES},
    settings::chain,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the task needs.
pub(crate) struct Follow {
    pub(crate) client: Client,
    /// The namespace of function pods.
    pub(crate) functions: String,
    pub(crate) health: Health,
    pub(crate) seed: u64,
    /// `None` until every node was heard of.
    pub(crate) inventory: watch::Sender<Option<Arc<Inventory>>>,
}

/// A step of one of the watches.
enum Seen {
    Node(Step<WatchedNode>),
    GpuNode(Step<GpuNode>),
}

enum Step<K> {
    Event(watcher::Event<K>),
    /// The API server has no such kind, or not for us.
    NoSuchKind,
    Broken(watcher::Error),
}

/// Who was told of since a watch began anew.
#[derive(Default)]
struct Listing {
    listed: HashSet<String>,
    complete: bool,
}

/// Follows for ever.
pub(crate) async fn follow(follow: Follow) {
    let Follow {
        client,
        functions,
        health,
        seed,
        inventory,
    } = follow;
    let mut seen = watches(&client, seed);
    let mut join = Join::default();
    let (mut nodes, mut gpu_nodes) = (Listing::default(), Listing::default());
    while let Some(first) = seen.next().await {
        let mut next = Some(first);
        while let Some(step) = next {
            match step {
                Seen::Node(step) => {
                    let known = || join.nodes().cloned().collect();
                    for (name, node) in nodes.take(step, known, &health) {
                        join.node(name, node.as_ref().map(node_facts));
                    }
                }
                Seen::GpuNode(step) => {
                    let known = || join.gpu_nodes().cloned().collect();
                    for (name, node) in gpu_nodes.take(step, known, &health) {
                        let status = node.as_ref().and_then(|node| node.status.as_ref());
                        join.gpus(name, status.map(|status| gpu_facts(status, &functions)));
                    }
                }
            }
            // What is there already is one change.
            next = seen.next().now_or_never().flatten();
        }
        if nodes.complete && gpu_nodes.complete {
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

impl Listing {
    /// The objects that are there now, and those that are gone (`None`).
    fn take<K: Resource>(
        &mut self,
        step: Step<K>,
        known: impl FnOnce() -> HashSet<String>,
        health: &Health,
    ) -> Vec<(String, Option<K>)> {
        let gone = |name: String| (name, None);
        match step {
            Step::Event(watcher::Event::Init) => self.listed.clear(),
            Step::Event(watcher::Event::InitApply(object)) => {
                self.listed.insert(object.name_any());
                return vec![(object.name_any(), Some(object))];
            }
            Step::Event(watcher::Event::Apply(object)) => return vec![(object.name_any(), Some(object))],
            Step::Event(watcher::Event::Delete(object)) => return vec![gone(object.name_any())],
            Step::Event(watcher::Event::InitDone) => {
                self.complete = true;
                let listed = std::mem::take(&mut self.listed);
                return known()
                    .into_iter()
                    .filter(|name| !listed.contains(name))
                    .map(gone)
                    .collect();
            }
            Step::NoSuchKind => {
                self.complete = true;
                return known().into_iter().map(gone).collect();
            }
            Step::Broken(error) if !self.complete => {
                health.bad(KUBERNETES, "ApiUnavailable", chain(&error));
            }
            Step::Broken(_) => {}
        }
        Vec::new()
    }
}

fn watches(client: &Client, seed: u64) -> BoxStream<'static, Seen> {
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
        watch_for_ever(nodes, false, seed).map(Seen::Node),
        watch_for_ever(gpu_nodes, true, seed.rotate_left(9)).map(Seen::GpuNode),
    )
    .boxed()
}

/// Errors are waited out, longer and longer; a trouble is logged once. `optional`: there may be no such kind.
fn watch_for_ever<K>(api: Api<K>, optional: bool, seed: u64) -> BoxStream<'static, Step<K>>
where
    K: Resource + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let mut told = false;
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY, seed);
    let what = api.resource_url().to_owned();
    let take = move |event| {
        let step = match event {
            Ok(event) => Step::Event(event),
            Err(error) if optional && is_no_such_kind(&error) => Step::NoSuchKind,
            Err(error) => Step::Broken(error),
        };
        let trouble = match &step {
            // Each try begins with it: it says nothing.
            Step::Event(watcher::Event::Init) => return (step, Duration::ZERO),
            Step::Event(_) => None,
            Step::NoSuchKind => {
                Some("there is no such kind, or it is not for us: GPUs are taken from labels".to_owned())
            }
            Step::Broken(error) => Some(chain(error)),
        };
        if let Some(trouble) = &trouble
            && !told
        {
            warn!(what, trouble, "a watch broke: trying on");
        }
        told = trouble.is_some();
        if told {
            return (step, backoff.after(None));
        }
        backoff.reset();
        (step, Duration::ZERO)
    };
    let then_wait = |(step, wait): (Step<K>, Duration)| {
        let wait = stream::once(tokio::time::sleep(wait)).filter_map(|()| future::ready(None));
        stream::once(future::ready(step)).chain(wait)
    };
    // The watcher's own backoff would begin anew with each try.
    watcher(api, watcher::Config::default())
        .map(take)
        .flat_map(then_wait)
        .boxed()
}

/// By its code: where the whole group is missing, the answer is no Status.
fn is_no_such_kind(error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    matches!(status.code, 403 | 404)
}
