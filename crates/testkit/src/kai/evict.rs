//! Who has to leave so that a job fits: consolidation and preemption, which differ in whom they may choose.

use std::{cmp::Reverse, fmt};

use super::{
    cluster::{Changes, Cluster},
    task::Status,
};

/// KAI's `--max-consolidation-preemptees`.
const MAX_MOVED: usize = 16;

/// What makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Victims of any importance, if each finds another place.
    Consolidation,
    /// Less important victims of the same queue.
    Preempt,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consolidation => "consolidation",
            Self::Preempt => "preempt",
        })
    }
}

/// One job's search for victims.
struct Search<'a> {
    cluster: &'a mut Cluster,
    action: Action,
    job: usize,
    new_group: &'a mut dyn FnMut() -> String,
    changes: Changes,
    /// Pods of the cluster; behind them are the doubles of victims, which look for their next place.
    known: usize,
}

/// Evicts what may be evicted until the job fits; its pods then wait for the room. Answers who leaves, or `None` and an
/// unchanged cluster.
///
/// As KAI does it: the pods of the gang one after another, each with the victims that those before it needed.
pub(super) fn make_room(
    cluster: &mut Cluster,
    action: Action,
    job: usize,
    new_group: &mut dyn FnMut() -> String,
) -> Option<Vec<usize>> {
    let tasks = cluster.next_tasks(job);
    let preemptor = &cluster.jobs[job];
    let hopeless = !preemptor.preemptible
        && (action == Action::Consolidation
            || cluster
                .queues
                .over_quota(&preemptor.queue, cluster.demand(&tasks))
                .is_some());
    if hopeless {
        return None;
    }
    let victims = cluster.victims(action, job);
    let known = cluster.tasks.len();
    let mut search = Search {
        cluster,
        action,
        job,
        new_group,
        changes: Changes::default(),
        known,
    };
    let mut leaving = Vec::new();
    for count in 1..=tasks.len() {
        search.undo();
        leaving = search.solve(&tasks[..count], &victims, &leaving)?;
    }
    Some(leaving)
}

impl Search<'_> {
    /// The victims with which the pods fit: those of before, and one node's share of the first so many others.
    fn solve(&mut self, tasks: &[usize], victims: &[Vec<usize>], before: &[usize]) -> Option<Vec<usize>> {
        if let Some(leaving) = self.attempt(tasks, before.to_vec()) {
            return Some(leaving);
        }
        for (index, latest) in victims.iter().enumerate() {
            for node in self.cluster.nodes_of(latest) {
                let here = victims[..=index]
                    .iter()
                    .filter(|unit| self.cluster.nodes_of(unit).contains(&node));
                let evicted = before.iter().chain(here.flatten()).copied().collect();
                if let Some(leaving) = self.attempt(tasks, evicted) {
                    return Some(leaving);
                }
            }
        }
        None
    }

    fn attempt(&mut self, tasks: &[usize], mut victims: Vec<usize>) -> Option<Vec<usize>> {
        victims.sort_unstable();
        victims.dedup();
        let leaving = self.simulate(tasks, &victims);
        if leaving.is_none() {
            self.undo();
        }
        leaving
    }

    /// Lets the victims go, then places everybody anew in the order of importance: a victim that comes first may take its
    /// place back, and then the job may not fit.
    fn simulate(&mut self, tasks: &[usize], victims: &[usize]) -> Option<Vec<usize>> {
        let statuses: Vec<Status> = victims.iter().map(|task| self.cluster.tasks[*task].status).collect();
        for task in victims {
            self.change_status(*task, Status::Releasing);
        }
        let mut order: Vec<(usize, usize)> = tasks.iter().map(|task| (self.job, *task)).collect();
        let owned = |task: &usize| self.cluster.tasks[*task].job.map(|job| (job, *task));
        order.extend(victims.iter().filter_map(owned));
        order.sort_by_key(|(job, task)| (self.cluster.rank(*job), *task));
        let mut leaving = victims.to_vec();
        for (job, task) in order {
            if job == self.job {
                self.place(task).then_some(())?;
                continue;
            }
            let mark = self.changes.mark();
            let double = self.double_of(task);
            let placed = self.place(double);
            if placed && self.cluster.tasks[double].node == self.cluster.tasks[task].node {
                self.cluster.rollback(&mut self.changes, mark);
                self.change_status(task, statuses[victims.binary_search(&task).ok()?]);
                leaving.retain(|left| *left != task);
            } else if !placed && self.action == Action::Consolidation {
                return None;
            }
        }
        Some(leaving)
    }

    fn place(&mut self, task: usize) -> bool {
        self.cluster
            .place(task, true, self.new_group, &mut self.changes)
            .is_ok()
    }

    fn change_status(&mut self, task: usize, status: Status) {
        let (node, groups) = (
            self.cluster.tasks[task].node.clone(),
            self.cluster.tasks[task].groups.clone(),
        );
        self.cluster.set(task, status, node, groups, &mut self.changes);
    }

    fn double_of(&mut self, task: usize) -> usize {
        let mut double = self.cluster.tasks[task].clone();
        (double.status, double.node) = (Status::Pending, None);
        double.groups.clear();
        self.cluster.tasks.push(double);
        self.cluster.tasks.len() - 1
    }

    fn undo(&mut self) {
        self.cluster.rollback(&mut self.changes, 0);
        self.cluster.tasks.truncate(self.known);
    }
}

impl Cluster {
    /// Whose pods may go, the first to go first: the least important, then the newest. Pods beyond a gang's minimum go one
    /// by one, the gang itself only as a whole.
    fn victims(&self, action: Action, job: usize) -> Vec<Vec<usize>> {
        let preemptor = &self.jobs[job];
        let may_go = |index: &usize| {
            let victim = &self.jobs[*index];
            let weaker = victim.priority < preemptor.priority && victim.queue == preemptor.queue;
            *index != job && victim.preemptible && (action == Action::Consolidation || weaker)
        };
        let mut jobs: Vec<usize> = (0..self.jobs.len()).filter(may_go).collect();
        jobs.sort_by_key(|index| Reverse(self.rank(*index)));
        let on_nodes = |task: &usize| {
            matches!(
                self.tasks[*task].status,
                Status::Running | Status::Bound | Status::Binding
            )
        };
        let mut units = Vec::new();
        for victim in jobs {
            let mut tasks: Vec<usize> = self.jobs[victim].tasks.iter().copied().filter(on_nodes).collect();
            let gang = tasks.len().min(self.jobs[victim].min_member);
            units.extend(tasks.split_off(gang).into_iter().rev().map(|task| vec![task]));
            units.extend((!tasks.is_empty()).then_some(tasks));
        }
        if action == Action::Consolidation {
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
}
