//! Queues: who may use how much, along the chain of parents.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;

use super::objects::{self, QueueResource};

/// GPUs in devices, CPU in thousandths of a core, memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Demand(pub(super) [f64; 3]);

/// In the order of [`Demand`].
const RESOURCES: [&str; 3] = ["GPU", "CPU", "Memory"];
const UNLIMITED: f64 = -1.0;
/// What a queue's memory is told in.
const MEGABYTE: f64 = 1e6;
const ROUNDING: f64 = 1e-6;

#[derive(Debug, Clone)]
struct Queue {
    parent: String,
    quota: Demand,
    limit: Demand,
    allocated: Demand,
    non_preemptible: Demand,
}

/// Those whose parents are all there.
#[derive(Debug, Clone, Default)]
pub(super) struct Queues(BTreeMap<String, Queue>);

/// Why a group may not have what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As in `PodGroup.status.schedulingConditions[].reasons`.
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// What the pod itself is told, where it is the nodes that refuse it.
    pub(super) of_pod: Option<String>,
}

impl Demand {
    pub(super) fn add(&mut self, other: Self, sign: f64) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum += sign * amount;
        }
    }

    fn of(queue: &objects::Queue, take: fn(QueueResource) -> f64) -> Self {
        let resources = &queue.spec.resources;
        let memory = take(resources.memory);
        let memory = if memory < 0.0 { UNLIMITED } else { memory * MEGABYTE };
        Self([take(resources.gpu), take(resources.cpu), memory])
    }

    /// The resource of which `used` and this are together more than `bound`.
    fn exceeds(self, used: Self, bound: Self) -> Option<&'static str> {
        let over = |index: &usize| {
            let (asked, bound) = (self.0[*index], bound.0[*index]);
            (bound - UNLIMITED).abs() > ROUNDING && asked > 0.0 && used.0[*index] + asked > bound + ROUNDING
        };
        (0..RESOURCES.len()).find(over).map(|index| RESOURCES[index])
    }
}

impl Queues {
    pub(super) fn new<'a>(objects: impl IntoIterator<Item = &'a objects::Queue>) -> Self {
        let queue = |object: &objects::Queue| Queue {
            parent: object.spec.parent_queue.clone(),
            quota: Demand::of(object, |resource| resource.quota),
            limit: Demand::of(object, |resource| resource.limit),
            allocated: Demand::default(),
            non_preemptible: Demand::default(),
        };
        let mut all: BTreeMap<_, _> = objects
            .into_iter()
            .map(|object| (object.name_any(), queue(object)))
            .collect();
        // A queue without its parent goes, and so do its children.
        loop {
            let names: BTreeSet<String> = all.keys().cloned().collect();
            all.retain(|_, queue| queue.parent.is_empty() || names.contains(&queue.parent));
            if all.len() == names.len() {
                return Self(all);
            }
        }
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Groups in a queue with children are passed over.
    pub(super) fn is_leaf(&self, name: &str) -> bool {
        self.exists(name) && self.0.values().all(|queue| queue.parent != name)
    }

    /// Counts (`sign` 1) or takes back (`sign` -1), for the queue and all above it.
    pub(super) fn count(&mut self, name: &str, demand: Demand, preemptible: bool, sign: f64) {
        let mut next = name.to_owned();
        while let Some(queue) = self.0.get_mut(&next) {
            queue.allocated.add(demand, sign);
            if !preemptible {
                queue.non_preemptible.add(demand, sign);
            }
            next.clone_from(&queue.parent);
        }
    }

    /// Whether so much more would be over a limit, or, for what cannot be evicted, over a quota.
    pub(super) fn refuses(&self, name: &str, demand: Demand, preemptible: bool) -> Option<Refusal> {
        self.over_limit(name, demand)
            .or_else(|| (!preemptible).then(|| self.over_quota(name, demand)).flatten())
    }

    pub(super) fn over_quota(&self, name: &str, demand: Demand) -> Option<Refusal> {
        self.chain(name).find_map(|(name, queue)| {
            let resource = demand.exceeds(queue.non_preemptible, queue.quota)?;
            let message = format!("Non-preemptible workload is over quota: {name} quota of {resource} is reached");
            Some(Refusal {
                reason: "NonPreemptibleOverQuota",
                message,
                of_pod: None,
            })
        })
    }

    fn over_limit(&self, name: &str, demand: Demand) -> Option<Refusal> {
        self.chain(name).find_map(|(name, queue)| {
            let resource = demand.exceeds(queue.allocated, queue.limit)?;
            let message = format!("{name} quota has reached the allowable limit of {resource}");
            Some(Refusal {
                reason: "OverLimit",
                message,
                of_pod: None,
            })
        })
    }

    fn chain<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Queue)> {
        let first = self.0.get(name).map(|queue| (name, queue));
        std::iter::successors(first, |(_, queue)| {
            self.0
                .get_key_value(&queue.parent)
                .map(|(name, queue)| (name.as_str(), queue))
        })
    }
}
