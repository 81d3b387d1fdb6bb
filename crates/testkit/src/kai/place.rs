//! Where one pod goes: every node gets a score, and the first by score where it fits takes it.
//!
//! The score is taken before the fit, and a node that fits only later is not passed over for one that fits now: so a
//! strong hint to a node that is being emptied makes the pod wait. That is KAI's way, not a mistake here.

use std::collections::BTreeMap;

use super::{
    cluster::{Changes, Cluster},
    filters, names,
    node::{Fit, Node},
    queues::Refusal,
    task::{Status, Task},
};

/// As of KAI 0.9 to 0.16; 0.17 multiplied all but the last two by ten, which changes no order.
mod score {
    pub(super) const NOMINATED: f64 = 1e6;
    pub(super) const SHARING: f64 = 1e3;
    pub(super) const AVAILABLE: f64 = 100.0;
    pub(super) const CPU_ON_CPU_NODE: f64 = 10.0;
    pub(super) const PACKED: f64 = 9.0;
}

impl Cluster {
    /// Places a pending pod. With `wait` it holds nothing now, even where it could.
    pub(super) fn place(
        &mut self,
        task: usize,
        wait: bool,
        new_group: &mut dyn FnMut() -> String,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let asked = &self.tasks[task];
        if let Some(job) = asked.job.map(|job| &self.jobs[job])
            && let Some(refusal) = self.queues.refuses(&job.queue, self.demand(&[task]), job.preemptible)
        {
            return Err(refusal);
        }
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (name, fit) in self.candidates(asked) {
            let node = &self.nodes[&name];
            let now = match (fit, filters::refuses(&node.object, &asked.pod)) {
                (_, Some(reason)) | (Fit::No(reason), None) => {
                    *reasons.entry(reason).or_default() += 1;
                    continue;
                }
                (fit, None) => fit == Fit::Now && !wait,
            };
            let groups = asked
                .share
                .map_or_else(Vec::new, |share| node.choose_groups(share, now, new_group));
            let status = if now { Status::Allocated } else { Status::Pipelined };
            self.set(task, status, Some(name), groups, changes);
            return Ok(());
        }
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(reason, nodes)| format!("{nodes} {reason}."))
            .collect();
        let of_pod = format!("no nodes with enough resources were found: {}", reasons.join(" \n"));
        let message = format!(
            "Resources were not found for pod {} due to: {of_pod}",
            self.tasks[task].title()
        );
        Err(Refusal {
            reason: "PodSchedulingErrors",
            message,
            of_pod: Some(of_pod),
        })
    }

    /// All nodes, the best first; by name where the scores are equal.
    fn candidates(&self, task: &Task) -> Vec<(String, Fit)> {
        let resource = if task.wants_gpus() { names::GPU } else { "cpu" };
        let unallocated = |node: &Node| Some(node.unallocated(resource)).filter(|(_, all)| *all > 0.0);
        let range = self
            .nodes
            .values()
            .filter_map(unallocated)
            .fold(None, |range: Option<(f64, f64)>, (free, _)| {
                let (least, most) = range.unwrap_or((free, free));
                Some((least.min(free), most.max(free)))
            });
        let mut scored: Vec<_> = self
            .nodes
            .iter()
            .map(|(name, node)| {
                let fit = node.fit(task);
                (
                    score(task, name, node, &fit) + packed(unallocated(node), range),
                    name,
                    fit,
                )
            })
            .collect();
        scored.sort_by(|(left, ..), (right, ..)| right.total_cmp(left));
        scored.into_iter().map(|(_, name, fit)| (name.clone(), fit)).collect()
    }
}

fn score(task: &Task, name: &str, node: &Node, fit: &Fit) -> f64 {
    let given = |holds: bool, score: f64| if holds { score } else { 0.0 };
    given(task.nominated() == Some(name), score::NOMINATED)
        + given(node.can_share(task), score::SHARING)
        + given(*fit == Fit::Now, score::AVAILABLE)
        + given(
            !task.wants_gpus() && node.unallocated(names::GPU).1 == 0.0,
            score::CPU_ON_CPU_NODE,
        )
}

/// The less is left, the better; the same for all where the same is left everywhere.
fn packed(left: Option<(f64, f64)>, range: Option<(f64, f64)>) -> f64 {
    let (Some((free, _)), Some((least, most))) = (left, range) else {
        return 0.0;
    };
    match most - least {
        _ if most <= 0.0 => 0.0,
        spread if spread <= 0.0 => score::PACKED,
        spread => score::PACKED * (1.0 - (free - least) / spread),
    }
}
