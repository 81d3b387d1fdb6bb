//! The whole cluster in one cycle: nodes, pods, groups and queues, and how a pod's state changes all of their accounts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{self, Pod},
    scheduling::v1::PriorityClass,
};
use kube::ResourceExt as _;

use super::{
    names,
    node::Node,
    objects::{BindRequest, PodGroup, Queue},
    queues::{Demand, Queues},
    task::{Status, Task},
};

/// What the stores hold when a cycle starts, of one shard.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) nodes: Vec<Arc<v1::Node>>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) bind_requests: Vec<Arc<BindRequest>>,
    pub(super) pod_groups: Vec<Arc<PodGroup>>,
    pub(super) queues: Vec<Arc<Queue>>,
    pub(super) priority_classes: Vec<Arc<PriorityClass>>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) tasks: Vec<Task>,
    pub(super) jobs: Vec<Job>,
    pub(super) queues: Queues,
    /// MiB of the smallest GPU: what a request for MiB costs in a queue.
    gpu_memory: i64,
}

/// A `PodGroup` with its pods.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) object: Arc<PodGroup>,
    pub(super) queue: String,
    pub(super) priority: i32,
    pub(super) preemptible: bool,
    pub(super) min_member: usize,
    /// Indices of its pods in the cluster, by name.
    pub(super) tasks: Vec<usize>,
}

/// A pod's state before a change, to go back to.
#[derive(Debug)]
struct Before {
    task: usize,
    status: Status,
    node: Option<String>,
    groups: Vec<String>,
}

/// Changes that can be taken back, the last first.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<Before>);

impl Changes {
    pub(super) fn mark(&self) -> usize {
        self.0.len()
    }
}

impl Cluster {
    pub(super) fn new(seen: &Seen) -> Self {
        let nodes: BTreeMap<_, _> = seen
            .nodes
            .iter()
            .map(|node| (node.name_any(), Node::new(Arc::clone(node))))
            .collect();
        let live = seen.bind_requests.iter().filter(|request| !request.is_failed());
        let bind_requests: HashMap<_, _> = live
            .filter(|request| nodes.contains_key(&request.spec.selected_node))
            .map(|request| ((request.namespace(), request.spec.pod_name.clone()), request))
            .collect();
        let task = |pod: &Arc<Pod>| {
            let request = bind_requests.get(&(pod.namespace(), pod.name_any()));
            Task::new(Arc::clone(pod), request.map(AsRef::as_ref))
        };
        let mut tasks: Vec<Task> = seen.pods.iter().map(task).collect();
        tasks.sort_by_key(Task::title);
        let sizes = nodes.values().map(|node| node.gpu_memory).filter(|memory| *memory > 0);
        let mut cluster = Self {
            gpu_memory: sizes.min().unwrap_or_default(),
            nodes,
            tasks,
            jobs: Vec::new(),
            queues: Queues::new(seen.queues.iter().map(AsRef::as_ref)),
        };
        cluster.add_jobs(seen);
        for index in 0..cluster.tasks.len() {
            cluster.count(index, true);
        }
        cluster
    }

    /// Groups are found by their name alone, whatever their namespace: names must be unique in the cluster.
    fn add_jobs(&mut self, seen: &Seen) {
        let classes: HashMap<_, _> = seen
            .priority_classes
            .iter()
            .map(|class| (class.name_any(), class.value))
            .collect();
        let global = seen
            .priority_classes
            .iter()
            .find(|class| class.global_default == Some(true));
        let default = global.map_or(names::DEFAULT_PRIORITY, |class| class.value);
        let mut by_name = HashMap::new();
        for object in &seen.pod_groups {
            by_name.insert(object.name_any(), self.jobs.len());
            let priority = classes
                .get(&object.spec.priority_class_name)
                .copied()
                .unwrap_or(default);
            self.jobs.push(Job {
                queue: object.spec.queue.clone(),
                priority,
                preemptible: match object.spec.preemptibility.as_str() {
                    "preemptible" => true,
                    "non-preemptible" => false,
                    _ => priority < 100,
                },
                min_member: usize::try_from(object.spec.min_member).unwrap_or_default(),
                tasks: Vec::new(),
                object: Arc::clone(object),
            });
        }
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let group = task.pod.annotations().get(names::POD_GROUP);
            if let Some(job) = group.and_then(|group| by_name.get(group)) {
                task.job = Some(*job);
                self.jobs[*job].tasks.push(index);
            }
        }
    }

    /// Changes a pod's state and with it the accounts of its node and queue.
    pub(super) fn set(
        &mut self,
        task: usize,
        status: Status,
        node: Option<String>,
        groups: Vec<String>,
        changes: &mut Changes,
    ) {
        self.count(task, false);
        let changed = &mut self.tasks[task];
        let before = Before {
            task,
            status: std::mem::replace(&mut changed.status, status),
            node: std::mem::replace(&mut changed.node, node),
            groups: std::mem::replace(&mut changed.groups, groups),
        };
        changes.0.push(before);
        self.count(task, true);
    }

    /// Takes back what was changed after `mark`.
    pub(super) fn rollback(&mut self, changes: &mut Changes, mark: usize) {
        while changes.mark() > mark {
            let Some(before) = changes.0.pop() else { return };
            self.count(before.task, false);
            let task = &mut self.tasks[before.task];
            (task.status, task.node, task.groups) = (before.status, before.node, before.groups);
            self.count(before.task, true);
        }
    }

    fn count(&mut self, index: usize, add: bool) {
        let task = &self.tasks[index];
        if !task.status.holds_a_node() {
            return;
        }
        if let Some(node) = task.node.as_ref().and_then(|node| self.nodes.get_mut(node)) {
            if add { node.charge(task) } else { node.discharge(task) }
        }
        let Some(job) = task.job.map(|job| &self.jobs[job]).filter(|_| task.status.is_active()) else {
            return;
        };
        let demand = self.demand(&[index]);
        self.queues
            .count(&job.queue, demand, job.preemptible, if add { 1.0 } else { -1.0 });
    }

    /// What these pods cost their queue.
    pub(super) fn demand(&self, tasks: &[usize]) -> Demand {
        let mut sum = Demand::default();
        for task in tasks.iter().map(|index| &self.tasks[*index]) {
            let gpus = task.gpus(self.gpu_memory);
            sum.add(
                Demand([gpus, task.request.get("cpu") * 1000.0, task.request.get("memory")]),
                1.0,
            );
        }
        sum
    }

    /// How many of the job's pods have the wanted states.
    pub(super) fn tally(&self, job: usize, wanted: impl Fn(Status) -> bool) -> usize {
        self.jobs[job]
            .tasks
            .iter()
            .filter(|task| wanted(self.tasks[**task].status))
            .count()
    }

    /// The pods to place next: what the gang lacks, then one by one.
    pub(super) fn next_tasks(&self, job: usize) -> Vec<usize> {
        let active = self.tally(job, Status::is_active);
        let lacking = self.jobs[job].min_member.saturating_sub(active).max(1);
        let pending = self.jobs[job]
            .tasks
            .iter()
            .filter(|task| self.tasks[**task].status == Status::Pending);
        pending.copied().take(lacking).collect()
    }
}
