//! The scheduler's rim: watches feed the pure cycle, its decisions go to the API server. A cycle starts a period after the
//! last one ended, as KAI's does.

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _, join_all},
    stream,
};
use k8s_openapi::{
    api::{
        core::v1::{self, Pod},
        scheduling::v1::PriorityClass,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt as _,
        events::{Event, EventType, Recorder, Reporter},
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;

use super::{
    actions::{self, Decisions},
    cluster::{Cluster, Seen},
    names,
    objects::{BindRequest, BindRequestSpec, PodGroup, Queue, ReceivedGpu},
    task::Task,
};

/// Requests at a time.
const PARALLEL: usize = 16;
/// Characters of an event's note: the API takes a kilobyte.
const NOTE: usize = 250;

struct Stores {
    nodes: Store<v1::Node>,
    pods: Store<Pod>,
    bind_requests: Store<BindRequest>,
    pod_groups: Store<PodGroup>,
    queues: Store<Queue>,
    priority_classes: Store<PriorityClass>,
}

struct Scheduler {
    client: Client,
    stores: Stores,
    events: Recorder,
    /// Made by us and not seen back yet, by pod UID: or the next cycle would place the pod again.
    assumed: HashMap<String, Arc<BindRequest>>,
    /// What was last told of a group, by its UID: told once, not in every cycle.
    told: HashMap<String, String>,
}

/// Runs until the process ends.
pub(super) async fn run(client: Client, period: Duration) -> anyhow::Result<()> {
    let (stores, watches) = watch(&client);
    let events = Recorder::new(
        client.clone(),
        Reporter {
            controller: names::SCHEDULER.to_owned(),
            instance: None,
        },
    );
    let scheduler = Scheduler {
        client,
        stores,
        events,
        assumed: HashMap::new(),
        told: HashMap::new(),
    };
    tokio::select! {
        () = watches => anyhow::bail!("a watch ended"),
        result = scheduler.cycles(period) => result,
    }
}

/// One shard without a name: what carries the label of another is none of ours.
fn watch(client: &Client) -> (Stores, impl Future<Output = ()> + use<>) {
    let ours = || watcher::Config::default().labels(&format!("!{}", names::NODE_POOL));
    let mut watches = Vec::new();
    let stores = Stores {
        nodes: mirror(Api::all(client.clone()), ours(), &mut watches),
        pods: mirror(Api::all(client.clone()), watcher::Config::default(), &mut watches),
        bind_requests: mirror(Api::all(client.clone()), watcher::Config::default(), &mut watches),
        pod_groups: mirror(Api::all(client.clone()), ours(), &mut watches),
        queues: mirror(Api::all(client.clone()), ours(), &mut watches),
        priority_classes: mirror(Api::all(client.clone()), watcher::Config::default(), &mut watches),
    };
    (stores, join_all(watches).map(drop))
}

fn mirror<K>(api: Api<K>, config: watcher::Config, watches: &mut Vec<BoxFuture<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let events = reflector::reflector(writer, watcher(api, config)).default_backoff();
    let drain = async move {
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                super::log(&format!("a watch failed and goes on: {error}"));
            }
        }
    };
    watches.push(drain.boxed());
    reader
}

impl Scheduler {
    async fn cycles(mut self, period: Duration) -> anyhow::Result<()> {
        let Stores {
            nodes,
            pods,
            bind_requests,
            pod_groups,
            queues,
            priority_classes,
        } = &self.stores;
        tokio::try_join!(
            nodes.wait_until_ready(),
            pods.wait_until_ready(),
            bind_requests.wait_until_ready()
        )?;
        tokio::try_join!(
            pod_groups.wait_until_ready(),
            queues.wait_until_ready(),
            priority_classes.wait_until_ready()
        )?;
        super::log("the caches are full: the first cycle starts");
        loop {
            self.once().await;
            tokio::time::sleep(period).await;
        }
    }

    async fn once(&mut self) {
        let seen = self.see();
        self.sweep(&seen).await;
        let mut cluster = Cluster::new(&seen);
        let decisions = actions::cycle(&mut cluster, &mut || uuid::Uuid::new_v4().to_string());
        self.carry_out(&cluster, &decisions).await;
    }

    fn see(&mut self) -> Seen {
        let mut seen = Seen {
            nodes: self.stores.nodes.state(),
            pods: self.stores.pods.state(),
            bind_requests: self.stores.bind_requests.state(),
            pod_groups: self.stores.pod_groups.state(),
            queues: self.stores.queues.state(),
            priority_classes: self.stores.priority_classes.state(),
        };
        let unbound: HashMap<_, _> = seen
            .pods
            .iter()
            .filter(|pod| node_of(pod).is_none())
            .map(|pod| (pod.uid(), pod))
            .collect();
        let known: Vec<_> = seen.bind_requests.iter().map(|request| request.uid()).collect();
        self.assumed
            .retain(|pod, request| unbound.contains_key(&Some(pod.clone())) && !known.contains(&request.uid()));
        seen.bind_requests.extend(self.assumed.values().cloned());
        seen
    }

    /// Deletes requests that failed, and those for nodes that are not there: so their pods are placed again.
    async fn sweep(&self, seen: &Seen) {
        let nodes: Vec<_> = seen.nodes.iter().map(|node| node.name_any()).collect();
        let lost = |request: &BindRequest| {
            !nodes.contains(&request.spec.selected_node) && !request.labels().contains_key(names::NODE_POOL)
        };
        let stale = seen
            .bind_requests
            .iter()
            .filter(|request| request.is_failed() || lost(request));
        each(stale, async |request| {
            let api: Api<BindRequest> = self.namespaced(request.namespace());
            match api.delete(&request.name_any(), &DeleteParams::default()).await {
                Ok(_) => super::log(&format!("deleted the stale BindRequest {}", request.name_any())),
                Err(error) => super::log(&format!(
                    "cannot delete the BindRequest {}: {error}",
                    request.name_any()
                )),
            }
        })
        .await;
    }

    async fn carry_out(&mut self, cluster: &Cluster, decisions: &Decisions) {
        let made = stream::iter(
            decisions
                .binds
                .iter()
                .map(|task| self.request_bind(cluster, &cluster.tasks[*task])),
        );
        let made: Vec<_> = made
            .buffer_unordered(PARALLEL)
            .filter_map(async |made| made)
            .collect()
            .await;
        each(&decisions.evictions, async |eviction| {
            let victim = &cluster.tasks[eviction.task];
            let by = &cluster.jobs[eviction.by].object;
            let message = format!(
                "Pod {} was preempted by {} for {}/{}",
                victim.title(),
                eviction.action,
                by.namespace().unwrap_or_default(),
                by.name_any()
            );
            super::log(&message);
            let pods: Api<Pod> = self.namespaced(victim.pod.namespace());
            if let Err(error) = pods.delete(&victim.pod.name_any(), &DeleteParams::default()).await {
                super::log(&format!("cannot evict {}: {error}", victim.title()));
            }
            if let Some(job) = victim.job {
                self.tell(&*cluster.jobs[job].object, EventType::Normal, "Evict", message)
                    .await;
            }
        })
        .await;
        each(&decisions.waits, async |task| {
            let task = &cluster.tasks[*task];
            let node = task.node.as_deref().unwrap_or_default();
            let message = format!("Pod {} was pipelined to node {node}", task.title());
            self.tell(&*task.pod, EventType::Normal, "Pipelined", message).await;
        })
        .await;
        self.assumed.extend(made);
        self.explain(cluster, decisions).await;
    }

    /// First come, first served: the request is named as the pod, so a second one is refused by the API server.
    async fn request_bind(&self, cluster: &Cluster, task: &Task) -> Option<(String, Arc<BindRequest>)> {
        let node = task.node.as_deref()?;
        let uid = task.pod.uid()?;
        let memory = cluster.nodes.get(node).map_or(0, |node| node.gpu_memory);
        let request = bind_request(task, node, memory);
        let api: Api<BindRequest> = self.namespaced(task.pod.namespace());
        match api.create(&PostParams::default(), &request).await {
            Ok(made) => {
                let message = format!(
                    "Successfully assigned pod {} to node {node} at node-pool default",
                    task.title()
                );
                super::log(&message);
                self.tell(&*task.pod, EventType::Normal, "Scheduled", message).await;
                Some((uid, Arc::new(made)))
            }
            Err(error) => {
                let message = format!("Failed to bind pod {} to node {node}. {error}", task.title());
                super::log(&message);
                self.tell(&*task.pod, EventType::Warning, "FailedBinding", message.clone())
                    .await;
                self.condition(&task.pod, "BindingError", &message).await;
                None
            }
        }
    }

    /// Tells groups and their pods why they wait, once per reason.
    async fn explain(&mut self, cluster: &Cluster, decisions: &Decisions) {
        let told = std::mem::take(&mut self.told);
        for (job, refusal) in &decisions.refusals {
            let group = &cluster.jobs[*job].object;
            let uid = group.uid().unwrap_or_default();
            let repeated = told.get(&uid) == Some(&refusal.message);
            self.told.insert(uid, refusal.message.clone());
            if repeated {
                continue;
            }
            super::log(&format!("{} is not placed: {}", group.name_any(), refusal.message));
            let summary = format!("{}: {}.", refusal.reason, refusal.message);
            let before = group
                .status
                .iter()
                .flat_map(|status| &status.scheduling_conditions)
                .next_back();
            let transition = before
                .and_then(|before| before.transition_id.parse::<u64>().ok())
                .unwrap_or_default()
                + 1;
            let status = json!({"status": {"schedulingConditions": [{
                "type": "UnschedulableOnNodePool",
                "nodePool": "default",
                "reason": "Unschedulable",
                "message": summary,
                "status": "True",
                "reasons": [{"reason": refusal.reason, "message": refusal.message}],
                "transitionID": transition.to_string(),
                "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }]}});
            let groups: Api<PodGroup> = self.namespaced(group.namespace());
            let patch = Patch::Merge(&status);
            if let Err(error) = groups
                .patch_status(&group.name_any(), &PatchParams::default(), &patch)
                .await
            {
                super::log(&format!("cannot tell {}: {error}", group.name_any()));
            }
            let pending = cluster.jobs[*job].tasks.iter().map(|task| &cluster.tasks[*task]);
            let pending = pending.filter(|task| task.status == super::task::Status::Pending);
            each(pending, async |task| {
                let told = refusal.of_pod.as_ref().unwrap_or(&summary);
                self.tell(&*task.pod, EventType::Warning, "Unschedulable", told.clone())
                    .await;
                self.condition(&task.pod, "Unschedulable", told).await;
            })
            .await;
        }
    }

    async fn condition(&self, pod: &Pod, reason: &str, message: &str) {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let pods: Api<Pod> = self.namespaced(pod.namespace());
        if let Err(error) = pods
            .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await
        {
            super::log(&format!("cannot tell {}: {error}", pod.name_any()));
        }
    }

    async fn tell<K: Resource<DynamicType = ()>>(&self, object: &K, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(NOTE).collect()),
            action: "Scheduling".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.events.publish(&event, &object.object_ref(&())).await {
            super::log(&format!("an event was not taken: {error}"));
        }
    }

    fn namespaced<K>(&self, namespace: Option<String>) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &namespace.unwrap_or_default())
    }
}

async fn each<T>(items: impl IntoIterator<Item = T>, act: impl AsyncFn(T)) {
    let act = &act;
    stream::iter(items)
        .for_each_concurrent(PARALLEL, move |item| act(item))
        .await;
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn bind_request(task: &Task, node: &str, memory_of_each: i64) -> BindRequest {
    let name = task.pod.name_any();
    let (count, portion) = match task.share {
        Some(share) => (share.devices as i64, share.portion(memory_of_each)),
        None => (
            task.request.get(names::GPU) as i64,
            if task.wants_gpus() { 1.0 } else { 0.0 },
        ),
    };
    let spec = BindRequestSpec {
        pod_name: name.clone(),
        selected_node: node.to_owned(),
        received_resource_type: if task.share.is_some() { "Fraction" } else { "Regular" }.to_owned(),
        received_gpu: Some(ReceivedGpu {
            count,
            portion: format!("{portion:.2}"),
        }),
        selected_gpu_groups: task.groups.clone(),
        backoff_limit: None,
    };
    let metadata = ObjectMeta {
        namespace: task.pod.namespace(),
        labels: Some([(names::SELECTED_NODE.to_owned(), node.to_owned())].into()),
        owner_references: task.pod.owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    BindRequest {
        metadata: ObjectMeta {
            name: Some(name),
            ..metadata
        },
        spec,
        status: None,
    }
}
