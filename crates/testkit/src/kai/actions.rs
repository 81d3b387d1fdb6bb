//! One cycle: allocate, consolidate, preempt. Pure: a cluster in, decisions out.
//!
//! Left out, as nobody here relies on it: fair shares between queues and with them the reclaim action, stale gangs,
//! topology, sub-groups, MIG, device claims, volumes, host ports, affinity between pods.

use std::cmp::Reverse;

use kube::ResourceExt as _;

use super::{
    cluster::{Changes, Cluster, Job},
    queues::Refusal,
    task::Status,
};

#[cfg(test)]
mod tests;

/// KAI's `--max-consolidation-preemptees`.
const MAX_MOVED: usize = 16;

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
    /// `consolidation` or `preempt`.
    pub(super) action: &'static str,
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
    for action in ["consolidation", "preempt"] {
        left.retain(|(job, _)| !cluster.make_room(action, *job, new_group, &mut decisions.evictions));
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
                decisions.refusals.push((index, Refusal { reason: "QueueDoesNotExist", message, of_pod: None }));
            } else if self.queues.is_leaf(&job.queue) {
                ready.push(index);
            }
        }
        ready.sort_by_key(|index| self.rank(*index));
        ready
    }

    fn rank(&self, job: usize) -> impl Ord + use<> {
        let job = &self.jobs[job];
        (Reverse(job.priority), job.object.creation_timestamp(), job.object.name_any())
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
        let Job { queue, preemptible, min_member, .. } = &self.jobs[job];
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

    /// Evicts what may be evicted until the job fits; its pods then wait for the room.
    ///
    /// As KAI does it: the pods of the gang one after another, each with the victims that those before it needed.
    fn make_room(
        &mut self,
        action: &'static str,
        job: usize,
        new_group: &mut dyn FnMut() -> String,
        evictions: &mut Vec<Eviction>,
    ) -> bool {
        let preemptible = self.jobs[job].preemptible;
        let tasks = self.next_tasks(job);
        let hopeless = match action {
            "consolidation" => !preemptible,
            _ => !preemptible && self.queues.over_quota(&self.jobs[job].queue, self.demand(&tasks)).is_some(),
        };
        if hopeless {
            return false;
        }
        let victims = self.victims(action, job);
        let known = self.tasks.len();
        let (mut changes, mut evicted) = (Changes::default(), Vec::new());
        for count in 1..=tasks.len() {
            self.undo(&mut changes, known);
            let solved = self.solve(action, job, &tasks[..count], &victims, evicted, new_group, &mut changes);
            let Some(victims) = solved else { return false };
            evicted = victims;
        }
        evictions.extend(evicted.into_iter().map(|task| Eviction { task, by: job, action }));
        true
    }

    /// The victims with which the pods fit: those of before, and one node's share of the first so many others.
    #[expect(clippy::too_many_arguments, reason = "the state of one search")]
    fn solve(
        &mut self,
        action: &str,
        job: usize,
        tasks: &[usize],
        victims: &[Vec<usize>],
        before: Vec<usize>,
        new_group: &mut dyn FnMut() -> String,
        changes: &mut Changes,
    ) -> Option<Vec<usize>> {
        let known = self.tasks.len();
        if let Some(evicted) = self.simulate(action, job, tasks, before.clone(), new_group, changes) {
            return Some(evicted);
        }
        self.undo(changes, known);
        for (index, latest) in victims.iter().enumerate() {
            for node in self.nodes_of(latest) {
                let here = victims[..=index].iter().filter(|unit| self.nodes_of(unit).contains(&node));
                let evicted = before.iter().chain(here.flatten()).copied().collect();
                if let Some(evicted) = self.simulate(action, job, tasks, evicted, new_group, changes) {
                    return Some(evicted);
                }
                self.undo(changes, known);
            }
        }
        None
    }

    /// Lets the victims go, then places everybody anew in the order of importance: a victim that comes first may take its
    /// place back, and then the job may not fit. Answers who has to leave if it does.
    fn simulate(
        &mut self,
        action: &str,
        job: usize,
        tasks: &[usize],
        mut victims: Vec<usize>,
        new_group: &mut dyn FnMut() -> String,
        changes: &mut Changes,
    ) -> Option<Vec<usize>> {
        victims.sort_unstable();
        victims.dedup();
        let statuses: Vec<Status> = victims.iter().map(|task| self.tasks[*task].status).collect();
        self.evict(&victims, changes);
        let mut order: Vec<(usize, usize)> = tasks.iter().map(|task| (job, *task)).collect();
        order.extend(victims.iter().filter_map(|task| self.tasks[*task].job.map(|job| (job, *task))));
        order.sort_by_key(|(job, task)| (self.rank(*job), *task));
        let mut leaving = victims.clone();
        for (owner, task) in order {
            if owner == job {
                self.place(task, true, new_group, changes).ok()?;
                continue;
            }
            let mark = changes.mark();
            let double = self.double_of(task);
            let placed = self.place(double, true, new_group, changes).is_ok();
            if placed && self.tasks[double].node == self.tasks[task].node {
                self.rollback(changes, mark);
                let index = victims.binary_search(&task).ok()?;
                let (node, groups) = (self.tasks[task].node.clone(), self.tasks[task].groups.clone());
                self.set(task, statuses[index], node, groups, changes);
                leaving.retain(|left| *left != task);
            } else if !placed && action == "consolidation" {
                return None;
            }
        }
        Some(leaving)
    }

    /// A victim's double looks for its next place.
    fn double_of(&mut self, task: usize) -> usize {
        let mut double = self.tasks[task].clone();
        (double.status, double.node) = (Status::Pending, None);
        double.groups.clear();
        self.tasks.push(double);
        self.tasks.len() - 1
    }

    fn undo(&mut self, changes: &mut Changes, known: usize) {
        self.rollback(changes, 0);
        self.tasks.truncate(known);
    }

    /// Whose pods may go, the first to go first: the least important, then the newest. Pods beyond a gang's minimum go one
    /// by one, the gang itself only as a whole.
    fn victims(&self, action: &str, job: usize) -> Vec<Vec<usize>> {
        let preemptor = &self.jobs[job];
        let may_go = |index: &usize| {
            let victim = &self.jobs[*index];
            let weaker = victim.priority < preemptor.priority && victim.queue == preemptor.queue;
            *index != job && victim.preemptible && (action == "consolidation" || weaker)
        };
        let mut jobs: Vec<usize> = (0..self.jobs.len()).filter(may_go).collect();
        jobs.sort_by_key(|index| Reverse(self.rank(*index)));
        let on_nodes = |task: &usize| {
            matches!(self.tasks[*task].status, Status::Running | Status::Bound | Status::Binding)
        };
        let mut units = Vec::new();
        for victim in jobs {
            let mut tasks: Vec<usize> = self.jobs[victim].tasks.iter().copied().filter(on_nodes).collect();
            let gang = tasks.len().min(self.jobs[victim].min_member);
            units.extend(tasks.split_off(gang).into_iter().rev().map(|task| vec![task]));
            units.extend((!tasks.is_empty()).then_some(tasks));
        }
        if action == "consolidation" {
            units.truncate(MAX_MOVED);
        }
        units
    }

    fn nodes_of(&self, tasks: &[usize]) -> Vec<String> {
        let mut nodes: Vec<_> = tasks.iter().filter_map(|task| self.tasks[*task].node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    fn evict(&mut self, tasks: &[usize], changes: &mut Changes) {
        for task in tasks {
            if self.tasks[*task].status != Status::Releasing {
                let (node, groups) = (self.tasks[*task].node.clone(), self.tasks[*task].groups.clone());
                self.set(*task, Status::Releasing, node, groups, changes);
            }
        }
    }
}
