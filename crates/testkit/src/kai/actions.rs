//! One cycle: allocate, consolidate, preempt. Pure: a cluster in, decisions out.
//!
//! Left out, as nobody here relies on it: fair shares between queues and with them the reclaim action, stale gangs,
//! topology, sub-groups, MIG, device claims, volumes, host ports, affinity between pods.

use std::cmp::Reverse;

use kube::ResourceExt as _;

use super::{
    cluster::{Changes, Cluster, Job},
    evict::{self, Action},
    queues::Refusal,
    task::Status,
};

#[cfg(test)]
mod tests;

/// What a cycle decided. Pods and jobs are indices into the cluster, which shows the rest.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    /// Pods that get a `BindRequest`.
    pub(super) binds: Vec<usize>,
    /// Pods that wait for room on a node.
    pub(super) waits: Vec<usize>,
    pub(super) evictions: Vec<Eviction>,
    /// Jobs that got nothing, and why.
    pub(super) refusals: Vec<(usize, Refusal)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Eviction {
    pub(super) task: usize,
    /// The job that needs the room.
    pub(super) by: usize,
    pub(super) action: Action,
}

/// Runs the actions. `new_group` names a GPU that nobody shared before.
pub(super) fn cycle(cluster: &mut Cluster, new_group: &mut dyn FnMut() -> String) -> Decisions {
    let mut decisions = Decisions::default();
    let pods = cluster.tasks.len();
    let mut left = Vec::new();
    for job in cluster.ready_jobs(&mut decisions) {
        if let Err(refusal) = cluster.allocate(job, new_group) {
            left.push((job, refusal));
        }
    }
    for action in [Action::Consolidation, Action::Preempt] {
        left.retain(|(job, _)| {
            let leaving = evict::make_room(cluster, action, *job, new_group);
            let tell = |task| Eviction { task, by: *job, action };
            let refused = leaving.is_none();
            decisions.evictions.extend(leaving.into_iter().flatten().map(tell));
            refused
        });
    }
    decisions.refusals.extend(left);
    // Behind the pods are the doubles of victims.
    for (index, task) in cluster.tasks.iter().enumerate().take(pods) {
        match task.status {
            Status::Allocated => decisions.binds.push(index),
            Status::Pipelined => decisions.waits.push(index),
            _ => {}
        }
    }
    decisions
}

impl Cluster {
    /// Jobs with pods to place, the most important and then the oldest first.
    fn ready_jobs(&self, decisions: &mut Decisions) -> Vec<usize> {
        let mut ready = Vec::new();
        for (index, job) in self.jobs.iter().enumerate() {
            let gathered = self.tally(index, |status| status.is_active() || status == Status::Pending);
            if self.tally(index, |status| status == Status::Pending) == 0 || gathered < job.min_member {
                continue;
            }
            if !self.queues.exists(&job.queue) {
                let message = format!("Queue '{}' does not exist", job.queue);
                decisions.refusals.push((
                    index,
                    Refusal {
                        reason: "QueueDoesNotExist",
                        message,
                        of_pod: None,
                    },
                ));
            } else if self.queues.is_leaf(&job.queue) {
                ready.push(index);
            }
        }
        ready.sort_by_key(|index| self.rank(*index));
        ready
    }

    pub(super) fn rank(&self, job: usize) -> impl Ord + use<> {
        let job = &self.jobs[job];
        (
            Reverse(job.priority),
            job.object.creation_timestamp(),
            job.object.name_any(),
        )
    }

    /// Places the gang, then its further pods one by one. Refused only if nothing was placed.
    fn allocate(&mut self, job: usize, new_group: &mut dyn FnMut() -> String) -> Result<(), Refusal> {
        let mut placed = false;
        loop {
            let tasks = self.next_tasks(job);
            if tasks.is_empty() {
                return Ok(());
            }
            let mut changes = Changes::default();
            if let Err(refusal) = self.allocate_together(job, &tasks, new_group, &mut changes) {
                self.rollback(&mut changes, 0);
                return if placed { Ok(()) } else { Err(refusal) };
            }
            placed = true;
        }
    }

    fn allocate_together(
        &mut self,
        job: usize,
        tasks: &[usize],
        new_group: &mut dyn FnMut() -> String,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let Job {
            queue,
            preemptible,
            min_member,
            ..
        } = &self.jobs[job];
        let min_member = *min_member;
        if let Some(refusal) = self.queues.refuses(queue, self.demand(tasks), *preemptible) {
            return Err(refusal);
        }
        for (placed, task) in tasks.iter().enumerate() {
            self.place(*task, false, new_group, changes).map_err(|refusal| match tasks.len() {
                1 => refusal,
                _ => Refusal {
                    message: format!(
                        "Resources were found for {placed} pods while {min_member} are required for gang scheduling. \
                         Additional pods cannot be scheduled due to: {}",
                        refusal.of_pod.as_deref().unwrap_or_default()
                    ),
                    ..refusal
                },
            })?;
        }
        // A gang of which one waits waits as a whole.
        let waits = self.tally(job, |status| status == Status::Pipelined);
        if waits > 0 && self.tally(job, Status::is_active) - waits < min_member {
            for task in tasks {
                let (node, groups) = (self.tasks[*task].node.clone(), self.tasks[*task].groups.clone());
                self.set(*task, Status::Pipelined, node, groups, changes);
            }
        }
        Ok(())
    }
}
