//! A decision's number and its place on the trail, whoever asked: kube-scheduler, KAI's feed, or somebody over gRPC.

use std::{collections::BTreeMap, sync::Arc};

use berth_placement::{NodeName, Plan, PodRef, Refusal, Shape};
use berth_runtime::SharedClock;
use tracing::info;
use uuid::Uuid;

use crate::{
    cluster::Cluster,
    decisions::{Decision, Decisions, NAMED, Outcome, device_names, why},
    metrics::Metrics,
    random::Ids,
};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Decider {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) metrics: Metrics,
    pub(crate) ids: Ids,
    pub(crate) clock: SharedClock,
}

/// What the engine said, as far as it is kept.
#[derive(Debug, Default)]
pub(crate) struct Verdict<'a> {
    pub(crate) candidates: usize,
    pub(crate) fitting: usize,
    /// The best nodes, best first; only the first few are kept.
    pub(crate) ranked: Vec<String>,
    /// The best node, and what the pod would get there.
    pub(crate) best: Option<(&'a NodeName, &'a Plan)>,
    /// Nodes that refuse, in any order.
    pub(crate) refused: Vec<(&'a str, &'a Refusal)>,
}

impl Verdict<'_> {
    /// Reason to number of nodes.
    pub(crate) fn reasons(&self) -> BTreeMap<&'static str, usize> {
        let mut reasons = BTreeMap::new();
        for (_, refusal) in &self.refused {
            *reasons.entry(refusal.reason.as_str()).or_default() += 1;
        }
        reasons
    }
}

impl Decider {
    /// Puts the decision on the trail.
    pub(crate) fn decided(&self, pod: &PodRef, shape: &Shape, verdict: Verdict<'_>) -> Uuid {
        let refused = verdict.reasons();
        for (reason, nodes) in &refused {
            self.metrics.node_refused(reason, *nodes);
        }
        let best = verdict.best.map(|(node, _)| node.as_str());
        let outcome = if best.is_some() {
            Outcome::Proposed
        } else {
            Outcome::NoFit
        };
        let policy = self.cluster.policy();
        self.metrics.decided(policy.as_str(), outcome.label());
        let id = self.ids.next();
        let Verdict {
            candidates, fitting, ..
        } = verdict;
        info!(%pod, %shape, %policy, decision = %id, candidates, fitting, best, ?refused, "decided");
        let examples = verdict.refused.iter().take(NAMED);
        self.decisions.push(Decision {
            id,
            at_unix_ms: self.clock.now_unix_ms(),
            pod: pod.clone(),
            asks: shape.to_string(),
            shape: shape.clone(),
            policy,
            why: why(policy, candidates, fitting, &refused),
            candidates,
            fitting,
            ranked: verdict.ranked.into_iter().take(NAMED).collect(),
            devices: verdict.best.map(|(_, plan)| device_names(plan)).unwrap_or_default(),
            refused,
            examples: examples.map(|(node, refusal)| format!("{node}: {refusal}")).collect(),
            outcome,
        });
        id
    }
}
