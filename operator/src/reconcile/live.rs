//! What is there: the operator's own objects, and what it reads. One writer (the watches), readers take snapshots.
//!
//! Owns no decision. Objects are kept as JSON without what the API server keeps for itself.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use berth_kube_api::nvcf::NvcfBackend;
use berth_runtime::kubernetes::watch::{Resync, watch};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream, SelectAll},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    core::DynamicObject,
    runtime::watcher::{self, Event},
};
use serde_json::Value;
use tokio::sync::watch as channel;

use super::{
    manifest::OPERATOR,
    object::{KINDS, Key, Kind},
};
use crate::names;

/// All of it, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Live {
    /// Objects with the operator's label.
    pub objects: BTreeMap<Key, Value>,
    /// Of the operator's namespace, by name.
    pub backends: BTreeMap<String, NvcfBackend>,
    /// Of the operator's namespace, by name: those of [`MAPS`].
    pub maps: BTreeMap<String, ConfigMap>,
}

/// ConfigMap of the chart: policies of the user.
pub(super) const CUSTOM_POLICIES: &str = "nvcf-custom-network-policies";
/// ConfigMap of the chart: annotations of the user for functions' pods.
pub(super) const POD_ANNOTATIONS: &str = "nvca-namespace-pod-annotations";
/// What the operator reads in its namespace.
pub(super) const MAPS: [&str; 5] = [
    names::CLUSTER_DTO,
    names::REGISTRATION,
    CUSTOM_POLICIES,
    POD_ANNOTATIONS,
    names::AGENT_CONFIG_MERGE,
];

/// A step of one of the watches.
enum Seen {
    Object(Kind, Box<Event<DynamicObject>>),
    Backend(Box<Event<NvcfBackend>>),
    Map(Box<Event<ConfigMap>>),
}

/// Writes [`Live`] as the API server tells it.
struct Follower {
    live: Live,
    objects: BTreeMap<Kind, Resync<Key>>,
    backends: Resync<String>,
    maps: Resync<String>,
}

/// `None` until everything was listed once.
pub(super) type LiveReceiver = channel::Receiver<Option<Arc<Live>>>;

/// Follows the API server, until nobody listens any more.
pub(super) async fn follow(client: Client, namespace: String, to: channel::Sender<Option<Arc<Live>>>) {
    let mut seen = watches(&client, &namespace);
    let mut follower = Follower {
        live: Live::default(),
        objects: KINDS.into_iter().map(|kind| (kind, Resync::new())).collect(),
        backends: Resync::new(),
        maps: Resync::new(),
    };
    while let Some(event) = seen.next().await {
        follower.step(event);
        if !follower.is_complete() {
            continue;
        }
        let is_new = to.borrow().as_deref() != Some(&follower.live);
        if is_new && to.send(Some(Arc::new(follower.live.clone()))).is_err() {
            return;
        }
    }
}

fn watches(client: &Client, namespace: &str) -> SelectAll<BoxStream<'static, Seen>> {
    let ours = watcher::Config::default().labels(&format!("{}={OPERATOR}", names::MANAGED_BY));
    let mut all: Vec<BoxStream<'static, Seen>> = Vec::new();
    for kind in KINDS {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
        all.push(
            watch(api, ours.clone())
                .map(move |event| Seen::Object(kind, Box::new(event)))
                .boxed(),
        );
    }
    let backends: Api<NvcfBackend> = Api::namespaced(client.clone(), namespace);
    all.push(
        watch(backends, watcher::Config::default())
            .map(|event| Seen::Backend(Box::new(event)))
            .boxed(),
    );
    // The chart's and the bootstrap's own; a ConfigMap of the user in this namespace is of no interest, and small.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    all.push(
        watch(maps, watcher::Config::default())
            .map(|event| Seen::Map(Box::new(event)))
            .boxed(),
    );
    stream::select_all(all)
}

impl Follower {
    fn is_complete(&self) -> bool {
        self.objects.values().all(Resync::is_complete) && self.backends.is_complete() && self.maps.is_complete()
    }

    fn step(&mut self, event: Seen) {
        match event {
            Seen::Object(kind, event) => {
                let Some(resync) = self.objects.get_mut(&kind) else {
                    return;
                };
                let objects = &mut self.live.objects;
                let known = || objects.keys().filter(|key| key.kind == kind).cloned().collect();
                let (there, gone) = resync.step(*event, |object| Key::of_live(kind, object), known);
                objects.retain(|key, _| !gone.contains(key));
                objects.extend(there.and_then(|(key, object)| Some((key, slim(object)?))));
            }
            Seen::Backend(event) => settle(&mut self.backends, &mut self.live.backends, *event, |_| true),
            Seen::Map(event) => {
                let is_read = |name: &str| MAPS.contains(&name);
                settle(&mut self.maps, &mut self.live.maps, *event, is_read);
            }
        }
    }
}

/// One namespace's objects of one kind, by name.
fn settle<K: kube::Resource>(
    resync: &mut Resync<String>,
    objects: &mut BTreeMap<String, K>,
    event: Event<K>,
    is_read: impl Fn(&str) -> bool,
) {
    let key = |object: &K| Some(object.name_any()).filter(|name| is_read(name));
    let known = || objects.keys().cloned().collect::<HashSet<_>>();
    let (there, gone) = resync.step(event, key, known);
    objects.retain(|name, _| !gone.contains(name));
    objects.extend(there.map(|(name, mut object)| {
        object.managed_fields_mut().clear();
        (name, object)
    }));
}

/// Without what takes space and changes by itself.
pub(super) fn slim(mut object: DynamicObject) -> Option<Value> {
    object.managed_fields_mut().clear();
    if let Some(fields) = object.data.as_object_mut() {
        fields.remove("status");
    }
    object.metadata.resource_version = None;
    object.metadata.generation = None;
    serde_json::to_value(object).ok()
}
