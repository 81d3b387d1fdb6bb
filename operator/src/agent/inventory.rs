//! The cluster's GPUs and how many of them can really be had: counted node by node, never as one sum. Pure.
//!
//! ```text
//! Node ────► NodeFacts ─┐
//! GpuNode ─► GpuFacts ──┴─ Join ──► Inventory ──► shapes, usage, Capacity, labels
//! ```
//! The driver's word (GpuNode) wins over labels; the kubelet's allocatable is a limit all the same, because a pod gets its
//! GPUs from the kubelet. Must not know SIS.

use std::collections::BTreeMap;

use berth_sis::wire::GpuUsage;

mod convert;
mod join;
mod product;
mod watch;

pub use convert::{GpuFacts, NodeFacts, Unit, WatchedNode, gpu_facts, node_facts};
pub use join::Join;
pub use product::gpu_name;
pub(crate) use watch::{Follow, follow};

#[cfg(test)]
pub(crate) mod tests;

/// GPUs held by what SIS asked for, by GPU name, pods that are still to start included.
pub type Allocation = BTreeMap<String, u32>;

/// One state of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// By node.
    pub hosts: BTreeMap<String, Host>,
    /// Nodes with GPUs that cannot be offered, and why.
    pub unclassified: BTreeMap<String, String>,
    /// Nodes that carry the instance type label, and its value.
    pub labelled: BTreeMap<String, String>,
}

/// A node with GPUs of one kind. A *unit* is what a pod can ask for: a GPU, or a MIG instance of the node's one profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// As SIS knows the kind: `H100`, `H100-MIG-1g-10gb`.
    pub gpu: String,
    /// `NVIDIA-H100-80GB-HBM3`.
    pub product: String,
    pub family: String,
    pub machine: String,
    pub driver: String,
    pub arch: String,
    pub os: String,
    /// Of one unit.
    pub memory_mib: u64,
    /// Of the node, for all pods.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    /// Whatever their state.
    pub units: u32,
    /// Those that take pods; 0 while the node takes none.
    pub usable: u32,
    /// Those of `usable` that nobody has.
    pub free: u32,
    /// Those that function pods have.
    pub ours: u32,
    /// Ready and not cordoned.
    pub ready: bool,
}

/// What can be had now, for whoever takes work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// By GPU name.
    kinds: BTreeMap<String, Room>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Room {
    /// Of each node that has any.
    free: Vec<u32>,
    ours: u32,
    pending: u32,
}

impl Inventory {
    /// Per kind of GPU. What requests hold and no pod has yet is not available any more; what others hold is neither.
    pub fn usage(&self, allocation: &Allocation) -> BTreeMap<String, GpuUsage> {
        let mut counts: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
        for host in self.hosts.values() {
            let (capacity, free, ours) = counts.entry(&host.gpu).or_default();
            *capacity += host.usable;
            *free += host.free;
            *ours += host.ours;
        }
        let usage = |(gpu, (capacity, free, ours)): (&str, (u32, u32, u32))| {
            let available = free.saturating_sub(pending(allocation, gpu, ours));
            let usage = GpuUsage {
                available: available.into(),
                capacity: capacity.into(),
                allocated: capacity.saturating_sub(available).into(),
            };
            (gpu.to_owned(), usage)
        };
        counts.into_iter().map(usage).collect()
    }

    /// What can be had while requests hold so much.
    pub fn capacity(&self, allocation: &Allocation) -> Capacity {
        let mut kinds: BTreeMap<String, Room> = BTreeMap::new();
        for host in self.hosts.values() {
            let room = kinds.entry(host.gpu.clone()).or_default();
            room.free.extend((host.free > 0).then_some(host.free));
            room.ours += host.ours;
        }
        for (gpu, room) in &mut kinds {
            room.pending = pending(allocation, gpu, room.ours);
        }
        Capacity { kinds }
    }

    /// The nodes whose label is not as it should be, and what it should be (`None`: not there).
    pub fn labels_to_set(&self, base: impl Fn(&str) -> String) -> Vec<(String, Option<String>)> {
        let ready = self.hosts.iter().filter(|(_, host)| host.ready);
        let wanted: BTreeMap<&String, String> = ready.map(|(node, host)| (node, base(&host.gpu))).collect();
        let to_set = wanted
            .iter()
            .filter(|(node, value)| self.labelled.get(**node) != Some(*value))
            .map(|(node, value)| ((*node).clone(), Some(value.clone())));
        let to_remove = self.labelled.keys().filter(|node| !wanted.contains_key(node));
        to_set.chain(to_remove.map(|node| (node.clone(), None))).collect()
    }
}

impl Capacity {
    /// Of GPUs of which no more is known than their sums.
    pub fn of_sums(free: impl Iterator<Item = (String, u32)>) -> Self {
        let room = |free| Room {
            free: vec![free],
            ..Room::default()
        };
        Self {
            kinds: free.map(|(gpu, free)| (gpu, room(free))).collect(),
        }
    }

    /// How many instances of so many GPUs, each on one node, can be had now. What pods that are still to start will take is
    /// taken out as far as it must be: on which nodes that will be nobody knows.
    pub fn fits(&self, gpu: &str, gpus_per_instance: u32) -> u32 {
        let size = gpus_per_instance.max(1);
        let Some(room) = self.kinds.get(gpu) else { return 0 };
        let fit: u32 = room.free.iter().map(|free| free / size).sum();
        fit.saturating_sub(room.pending.div_ceil(size))
    }
}

/// What requests hold and no pod has yet.
fn pending(allocation: &Allocation, gpu: &str, ours: u32) -> u32 {
    let held = allocation.get(gpu).copied().unwrap_or_default();
    held.saturating_sub(ours)
}
