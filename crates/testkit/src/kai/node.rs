//! What is left of one node: resources, and the memory of its shared GPUs.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1;
use kube::ResourceExt as _;

use super::{
    names,
    resources::Resources,
    task::{Share, Status, Task},
};

/// A node's account of one cycle.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) object: Arc<v1::Node>,
    allocatable: Resources,
    idle: Resources,
    releasing: Resources,
    /// MiB of each GPU, in whole hundreds; 0 where nobody told.
    pub(super) gpu_memory: i64,
    groups: BTreeMap<String, Group>,
}

/// One shared GPU, in MiB.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    used: i64,
    releasing: i64,
}

/// Whether a pod goes onto a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    Now,
    /// When what is being deleted has gone.
    Later,
    No(String),
}

impl Node {
    pub(super) fn new(object: Arc<v1::Node>) -> Self {
        let status = object.status.as_ref();
        let allocatable: Resources = status
            .and_then(|status| status.allocatable.as_ref())
            .into_iter()
            .flatten()
            .collect();
        let memory = object
            .labels()
            .get(names::NODE_GPU_MEMORY)
            .and_then(|text| text.parse::<i64>().ok());
        Self {
            idle: allocatable.clone(),
            allocatable,
            releasing: Resources::default(),
            gpu_memory: memory.unwrap_or_default() / 100 * 100,
            groups: BTreeMap::new(),
            object,
        }
    }

    /// Counts a task that is on it.
    pub(super) fn charge(&mut self, task: &Task) {
        self.count(task, 1);
    }

    /// Takes a charge back; the task's status must be what it was then.
    pub(super) fn discharge(&mut self, task: &Task) {
        self.count(task, -1);
    }

    fn count(&mut self, task: &Task, sign: i64) {
        let takes_idle = task.status != Status::Pipelined;
        let gives_back = task.status == Status::Releasing;
        let change = |account: &mut Resources, more: bool| {
            if more == (sign > 0) {
                account.add(&task.request);
            } else {
                account.sub(&task.request);
            }
        };
        if takes_idle {
            change(&mut self.idle, false);
        }
        if gives_back || !takes_idle {
            change(&mut self.releasing, gives_back);
        }
        let Some(share) = task.share else { return };
        let size = sign * share.mebibytes(self.gpu_memory);
        for name in &task.groups {
            let group = self.groups.entry(name.clone()).or_default();
            if takes_idle {
                group.used += size;
            }
            if gives_back {
                group.releasing += size;
            } else if !takes_idle {
                group.releasing -= size;
            }
        }
        self.groups.retain(|_, group| group.used != 0 || group.releasing != 0);
    }

    /// Whether there is room. Says nothing of taints and the like.
    pub(super) fn fit(&self, task: &Task) -> Fit {
        let (now, later) = (self.spare(false), self.spare(true));
        // A pod that shares a GPU needs a slot for the pod that holds it, too.
        let slots = if task.share.is_some() { 2.0 } else { 1.0 };
        if later.get("pods") < slots {
            return Fit::No("node(s) pod number exceeded".to_owned());
        }
        if let Some(name) = task.request.lacking(&later, None) {
            let name = if name == names::GPU { "GPUs" } else { name };
            return Fit::No(format!("node(s) didn't have enough resources: {name}"));
        }
        let fits_now = task.request.lacking(&now, None).is_none();
        let Some(share) = task.share else {
            return if fits_now { Fit::Now } else { Fit::Later };
        };
        if self.gpu_memory == 0 {
            return Fit::No("node is not a gpu node or the gpu memory is not known".to_owned());
        }
        let devices = |releasing: bool, spare: &Resources| {
            self.groups_for(share, releasing).len() + spare.get(names::GPU).max(0.0) as usize
        };
        if fits_now && devices(false, &now) >= share.devices {
            Fit::Now
        } else if devices(true, &later) >= share.devices {
            Fit::Later
        } else {
            Fit::No("node(s) didn't have enough resources: GPUs".to_owned())
        }
    }

    /// The shared GPUs for a pod that fits: the fullest first, then whole ones under new names.
    pub(super) fn choose_groups(&self, share: Share, now: bool, new_name: &mut dyn FnMut() -> String) -> Vec<String> {
        let mut chosen = self.groups_for(share, !now);
        chosen.truncate(share.devices);
        while chosen.len() < share.devices {
            chosen.push(new_name());
        }
        chosen
    }

    /// Shared GPUs with room, the fullest first.
    fn groups_for(&self, share: Share, with_releasing: bool) -> Vec<String> {
        let need = share.mebibytes(self.gpu_memory);
        let free = |group: &Group| self.gpu_memory - group.used + if with_releasing { group.releasing } else { 0 };
        let in_use = self
            .groups
            .iter()
            .filter(|(_, group)| group.used > 0 && free(group) >= need);
        let mut names: Vec<_> = in_use.collect();
        names.sort_by_key(|(_, group)| -group.used);
        names.into_iter().map(|(name, _)| name.clone()).collect()
    }

    /// What is idle, with what is being released if asked for. A shared GPU is not a spare one.
    fn spare(&self, with_releasing: bool) -> Resources {
        let mut spare = self.idle.clone();
        let stays = |group: &&Group| group.used > 0 && !(with_releasing && group.used == group.releasing);
        let shared = self.groups.values().filter(stays).count();
        if shared > 0 {
            spare.set(names::GPU, spare.get(names::GPU) - shared as f64);
        }
        if with_releasing {
            spare.add(&self.releasing);
        }
        spare
    }

    /// For packing: what nobody holds or what is being released, and all that there is.
    pub(super) fn unallocated(&self, resource: &str) -> (f64, f64) {
        (self.spare(true).get(resource), self.allocatable.get(resource))
    }

    /// A pod could join others on a GPU.
    pub(super) fn can_share(&self, task: &Task) -> bool {
        task.share.is_some_and(|share| !self.groups_for(share, true).is_empty())
    }
}
