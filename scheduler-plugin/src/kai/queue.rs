//! KAI's queues: who may use how much, along the chain of parents. Pure; as KAI judges it for what cannot be evicted.

use std::collections::BTreeMap;

use berth_placement::{GpuShape, Shape, ShareSize};
use serde::Deserialize;

/// "Without an end".
const UNLIMITED: f64 = -1.0;
/// What a queue's memory is told in.
const MEGABYTE: f64 = 1e6;
const ROUNDING: f64 = 1e-6;
const RESOURCES: [&str; 3] = ["GPU", "CPU", "memory"];

/// `Queue.spec` of `scheduling.run.ai/v2`, as far as it is read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct QueueSpec {
    pub(crate) parent_queue: String,
    pub(crate) resources: QueueResources,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct QueueResources {
    gpu: Bounds,
    cpu: Bounds,
    memory: Bounds,
}

/// Where nothing is said, nothing is allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Bounds {
    /// For what cannot be evicted.
    quota: f64,
    /// For everything.
    limit: f64,
}

/// GPUs, thousandths of a CPU, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Demand([f64; 3]);

/// The queues, and what their pods have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queues {
    specs: BTreeMap<String, QueueSpec>,
    /// Of the queue itself and all below it.
    used: BTreeMap<String, Demand>,
    /// Of that, what cannot be evicted.
    kept: BTreeMap<String, Demand>,
}

/// Why a queue has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverQueue {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Demand {
    #[expect(clippy::cast_precision_loss, reason = "KAI counts in floating point, too")]
    pub(crate) fn of(shape: &Shape) -> Self {
        let gpus = match &shape.gpu {
            GpuShape::None => 0.0,
            GpuShape::Whole { count } | GpuShape::Mig { count, .. } => f64::from(*count),
            GpuShape::Share { size, count } => {
                let part = match size {
                    ShareSize::Milli(milli) | ShareSize::Both(milli, _) => f64::from(milli.get()) / 1000.0,
                    // How large a part it is shows on the node only: a whole one is never too little.
                    ShareSize::Memory(_) => 1.0,
                };
                part * f64::from(*count)
            }
        };
        Self([gpus, shape.cpu.0 as f64, shape.memory.get() as f64])
    }

    fn add(&mut self, other: Self, sign: f64) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum += sign * amount;
        }
    }

    /// The resource of which `used` and this are together more than the bound.
    fn exceeds(self, used: Self, bound: Self) -> Option<&'static str> {
        (0..RESOURCES.len()).find_map(|at| {
            let is_bounded = (bound.0[at] - UNLIMITED).abs() > ROUNDING;
            let is_over = self.0[at] > 0.0 && used.0[at] + self.0[at] > bound.0[at] + ROUNDING;
            (is_bounded && is_over).then_some(RESOURCES[at])
        })
    }
}

impl QueueSpec {
    fn bound(&self, of: fn(Bounds) -> f64) -> Demand {
        let QueueResources { gpu, cpu, memory } = &self.resources;
        let memory = of(*memory);
        let memory = if memory < 0.0 { UNLIMITED } else { memory * MEGABYTE };
        Demand([of(*gpu), of(*cpu), memory])
    }
}

impl Queues {
    /// `None`: deleted.
    pub(crate) fn set(&mut self, name: &str, spec: Option<QueueSpec>) {
        match spec {
            Some(spec) => drop(self.specs.insert(name.to_owned(), spec)),
            None => drop(self.specs.remove(name)),
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.specs.keys()
    }

    /// Counts what a pod has (`sign` 1), or takes it back (-1): for the queue and all above it.
    pub(crate) fn count(&mut self, queue: &str, demand: Demand, preemptible: bool, sign: f64) {
        let chain: Vec<String> = self.chain(queue).map(|(name, _)| name.clone()).collect();
        for name in chain {
            self.used.entry(name.clone()).or_default().add(demand, sign);
            if !preemptible {
                self.kept.entry(name).or_default().add(demand, sign);
            }
        }
    }

    /// Why a pod that cannot be evicted may not have that much in this queue.
    pub(crate) fn refuses(&self, queue: &str, demand: Demand) -> Option<OverQueue> {
        let refusal = |reason, message: String| Some(OverQueue { reason, message });
        if !self.specs.contains_key(queue) {
            return refusal("UnknownQueue", format!("there is no queue {queue}"));
        }
        if self.specs.values().any(|spec| spec.parent_queue == queue) {
            return refusal(
                "QueueNotLeaf",
                format!("queue {queue} has queues below it, and so takes no pods"),
            );
        }
        self.chain(queue).find_map(|(name, spec)| {
            let used = |of: &BTreeMap<String, Demand>| of.get(name).copied().unwrap_or_default();
            if let Some(resource) = demand.exceeds(used(&self.used), spec.bound(|it| it.limit)) {
                return refusal("QueueOverLimit", format!("queue {name} is at its limit of {resource}"));
            }
            let resource = demand.exceeds(used(&self.kept), spec.bound(|it| it.quota))?;
            refusal(
                "QueueOverQuota",
                format!("queue {name} is at its quota of {resource} for what cannot be evicted"),
            )
        })
    }

    /// A cycle of parents ends where it began.
    fn chain<'a>(&'a self, queue: &'a str) -> impl Iterator<Item = (&'a String, &'a QueueSpec)> {
        let mut left = self.specs.len();
        std::iter::successors(self.specs.get_key_value(queue), move |(_, spec)| {
            left = left.checked_sub(1)?;
            self.specs.get_key_value(&spec.parent_queue)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::whole;

    fn queue(parent: &str, quota: i32, limit: i32) -> QueueSpec {
        let open = json!({"quota": -1, "limit": -1});
        let gpu = json!({"quota": quota, "limit": limit});
        let spec = json!({"parentQueue": parent, "resources": {"gpu": gpu, "cpu": open, "memory": open}});
        serde_json::from_value(spec).unwrap()
    }

    fn reason(queues: &Queues, name: &str, gpus: u32) -> Option<&'static str> {
        queues.refuses(name, Demand::of(&whole(gpus))).map(|it| it.reason)
    }

    #[test]
    fn a_queue_and_its_parents_bound_what_pods_may_have() {
        let mut queues = Queues::default();
        queues.set("top", Some(queue("", 8, 10)));
        queues.set("a", Some(queue("top", 6, -1)));
        queues.set("b", Some(queue("top", -1, -1)));
        assert_eq!(
            (reason(&queues, "a", 6), reason(&queues, "a", 7)),
            (None, Some("QueueOverQuota"))
        );
        assert_eq!(
            (reason(&queues, "nowhere", 1), reason(&queues, "top", 1)),
            (Some("UnknownQueue"), Some("QueueNotLeaf"))
        );
        queues.count("b", Demand::of(&whole(7)), false, 1.0);
        assert_eq!(
            (reason(&queues, "a", 1), reason(&queues, "a", 2)),
            (None, Some("QueueOverQuota")),
            "the parent's 8"
        );
        queues.count("b", Demand::of(&whole(3)), true, 1.0);
        assert_eq!(reason(&queues, "a", 1), Some("QueueOverLimit"), "the parent's 10");
        queues.count("b", Demand::of(&whole(7)), false, -1.0);
        assert_eq!(reason(&queues, "a", 6), None);
        queues.set("a", None);
        assert_eq!(reason(&queues, "a", 1), Some("UnknownQueue"));
    }

    #[test]
    fn a_cycle_of_parents_ends() {
        let mut queues = Queues::default();
        queues.set("a", Some(queue("b", -1, -1)));
        queues.set("b", Some(queue("a", -1, -1)));
        assert_eq!(reason(&queues, "a", 1), Some("QueueNotLeaf"));
        queues.count("a", Demand::of(&whole(1)), true, 1.0);
    }

    #[test]
    fn where_nothing_is_said_nothing_is_allowed() {
        let mut queues = Queues::default();
        queues.set("bare", Some(QueueSpec::default()));
        assert_eq!(reason(&queues, "bare", 1), Some("QueueOverLimit"));
    }
}
