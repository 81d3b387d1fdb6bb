//! The trail: what was decided, why, and what became of it. Kept in memory, bounded, for people and for `berthctl`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use berth_placement::{NodeName, Plan, PodRef, PolicyName, Shape};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;
use uuid::Uuid;

/// Each takes about a KiB.
pub(crate) const CAPACITY: usize = 1000;
/// Nodes and refusals that a decision names; the rest is counted.
pub(crate) const NAMED: usize = 5;

/// How far a reader may fall behind before it misses some.
const BEHIND: usize = 256;

/// The last decisions.
#[derive(Debug)]
pub(crate) struct Decisions {
    ring: Mutex<VecDeque<Decision>>,
    news: broadcast::Sender<Arc<Decision>>,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            news: broadcast::Sender::new(BEHIND),
        }
    }
}

/// One answer to filter, and what followed from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Decision {
    pub(crate) id: Uuid,
    pub(crate) at_unix_ms: u64,
    pub(crate) pod: PodRef,
    /// For people, e.g. `2 GPU (H100)`.
    pub(crate) asks: String,
    pub(crate) shape: Shape,
    pub(crate) policy: PolicyName,
    /// One short line for people.
    pub(crate) why: String,
    /// Nodes that kube-scheduler offered.
    pub(crate) candidates: usize,
    /// How many of them fit.
    pub(crate) fitting: usize,
    /// The best ones, best first.
    pub(crate) ranked: Vec<String>,
    /// What the pod would get on the best node.
    pub(crate) devices: Vec<String>,
    /// Reason to number of nodes.
    pub(crate) refused: BTreeMap<&'static str, usize>,
    /// Some of the refusals in full, as `node: Reason: message`.
    pub(crate) examples: Vec<String>,
    pub(crate) outcome: Outcome,
}

/// What became of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state")]
pub(crate) enum Outcome {
    /// Some node fits; nobody has asked to bind yet.
    Proposed,
    /// No node fits.
    NoFit,
    /// The node's daemon granted it.
    Reserved {
        at_unix_ms: u64,
        node: NodeName,
        devices: Vec<String>,
        /// The pod held it already.
        existing: bool,
        /// 0: it does not lapse.
        deadline_unix_ms: u64,
    },
    /// The bind was refused.
    Refused {
        at_unix_ms: u64,
        node: String,
        reason: String,
        message: String,
    },
}

impl Outcome {
    /// The metric's label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::NoFit => "nofit",
            Self::Reserved { .. } => "reserved",
            Self::Refused { .. } => "refused",
        }
    }
}

impl Decisions {
    /// Keeps one more; the oldest goes where it is one too many.
    pub(crate) fn push(&self, decision: Decision) {
        let mut ring = self.ring.lock();
        if ring.len() >= CAPACITY {
            ring.pop_front();
        }
        self.tell(&decision);
        ring.push_back(decision);
    }

    /// Under the lock, so that nobody hears of a change before the decision.
    fn tell(&self, decision: &Decision) {
        if self.news.receiver_count() > 0 {
            // Nobody listens any more: nothing is lost.
            self.news.send(Arc::new(decision.clone())).ok();
        }
    }

    /// Changes a decision that is still kept.
    pub(crate) fn update(&self, id: Uuid, change: impl FnOnce(&mut Decision)) {
        let mut ring = self.ring.lock();
        if let Some(decision) = ring.iter_mut().rev().find(|decision| decision.id == id) {
            change(decision);
            self.tell(decision);
        }
    }

    /// Those that are kept, oldest first, and what comes from now on: none is in both, none in neither.
    pub(crate) fn watch(&self) -> (Vec<Decision>, broadcast::Receiver<Arc<Decision>>) {
        let ring = self.ring.lock();
        (ring.iter().cloned().collect(), self.news.subscribe())
    }

    /// The last one for a pod of that name.
    pub(crate) fn of_pod(&self, namespace: &str, name: &str) -> Option<Decision> {
        let ring = self.ring.lock();
        let is_its = |decision: &&Decision| decision.pod.namespace == namespace && decision.pod.name == name;
        ring.iter().rev().find(is_its).cloned()
    }

    /// Why, of a decision that is still kept.
    pub(crate) fn why(&self, id: Uuid) -> Option<String> {
        let ring = self.ring.lock();
        let decision = ring.iter().rev().find(|decision| decision.id == id)?;
        Some(decision.why.clone())
    }

    /// Newest first.
    pub(crate) fn latest(&self) -> Vec<Decision> {
        self.ring.lock().iter().rev().cloned().collect()
    }
}

/// `best of 2 by binpack; refused: 1 ModelMismatch`.
pub(crate) fn why(policy: PolicyName, candidates: usize, fitting: usize, refused: &BTreeMap<&str, usize>) -> String {
    let fits = match fitting {
        0 => format!("fits none of {candidates}"),
        1 => "the only one that fits".to_owned(),
        _ => format!("best of {fitting} by {policy}"),
    };
    let refused: Vec<_> = refused
        .iter()
        .map(|(reason, nodes)| format!("{nodes} {reason}"))
        .collect();
    if refused.is_empty() {
        fits
    } else {
        format!("{fits}; refused: {}", refused.join(", "))
    }
}

/// The plan's devices for people.
pub(crate) fn device_names(plan: &Plan) -> Vec<String> {
    plan.grants.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(n: u64) -> Decision {
        Decision {
            id: Uuid::from_u64_pair(0, n),
            at_unix_ms: n,
            pod: PodRef::new("ns", "p", "u".parse().unwrap()).unwrap(),
            asks: "1 GPU".to_owned(),
            shape: Shape::default(),
            policy: PolicyName::Binpack,
            why: String::new(),
            candidates: 1,
            fitting: 1,
            ranked: Vec::new(),
            devices: Vec::new(),
            refused: BTreeMap::new(),
            examples: Vec::new(),
            outcome: Outcome::Proposed,
        }
    }

    #[test]
    fn the_newest_are_kept_and_told_first() {
        let decisions = Decisions::default();
        let many = CAPACITY as u64 + 10;
        (0..many).for_each(|n| decisions.push(decision(n)));
        let latest = decisions.latest();
        assert_eq!((latest.len(), latest[0].at_unix_ms), (CAPACITY, many - 1));
        decisions.update(latest[3].id, |decision| decision.outcome = Outcome::NoFit);
        decisions.update(Uuid::nil(), |_| panic!("it is not kept any more"));
        assert_eq!(decisions.latest()[3].outcome, Outcome::NoFit);
    }

    #[test]
    fn why_reads_as_a_sentence() {
        let refused = [("DeviceHeld", 2), ("ModelMismatch", 1)].into();
        assert_eq!(
            why(PolicyName::Binpack, 5, 2, &refused),
            "best of 2 by binpack; refused: 2 DeviceHeld, 1 ModelMismatch"
        );
        assert_eq!(
            why(PolicyName::Binpack, 1, 1, &BTreeMap::new()),
            "the only one that fits"
        );
        assert_eq!(why(PolicyName::Binpack, 0, 0, &BTreeMap::new()), "fits none of 0");
    }

    #[test]
    fn an_outcome_is_tagged_with_its_state() {
        let outcome = Outcome::Refused {
            at_unix_ms: 1,
            node: "n".to_owned(),
            reason: "DeviceHeld".to_owned(),
            message: "full".to_owned(),
        };
        assert_eq!(
            serde_json::to_value(&outcome).unwrap(),
            serde_json::json!({"state": "Refused", "at_unix_ms": 1, "node": "n", "reason": "DeviceHeld", "message": "full"})
        );
    }
}
