//! What is known for KAI's sake: its pods, all nodes, its queues. Pure: events in, work out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use berth_placement::{GpuShape, NodeName, PodUid};
use tokio::time::Instant;

use super::{
    filter::NodeFacts,
    groups::GroupKey,
    pod::{Gates, KaiPod},
    queue::{Demand, OverQueue, QueueSpec, Queues},
};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct State {
    pods: HashMap<PodUid, KaiPod>,
    nodes: BTreeMap<NodeName, Arc<NodeFacts>>,
    queues: Queues,
    /// What is counted in the queues, and for whom: bound pods, and those that are about to be.
    charged: HashMap<PodUid, (String, Demand, bool)>,
    /// Pods for whom a node was named, and which; `None`: it is none any more.
    hinted: HashMap<PodUid, Option<NodeName>>,
    /// Pods of whom somebody takes care now.
    working: HashSet<PodUid>,
    /// Pods that are done with and were not seen so yet: what is seen of them is older.
    settled: HashMap<PodUid, Settled>,
}

/// How a pod's turn ended, where nothing is left to do for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    /// So long that is believed, where the pod is not seen so.
    pub(super) until: Instant,
    /// It is bound, or KAI's binder is at it; else it is KAI's to place.
    pub(super) has_place: bool,
}

/// What a change asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    /// A pod waits for its place.
    Place(PodUid),
    /// KAI put the pod where it was told to.
    HintTaken(KaiPod),
    /// KAI put it elsewhere.
    HintMissed(KaiPod, NodeName),
}

impl State {
    /// `None`: deleted.
    pub(super) fn node(&mut self, name: NodeName, facts: Option<NodeFacts>) {
        match facts {
            Some(facts) => drop(self.nodes.insert(name, Arc::new(facts))),
            None => drop(self.nodes.remove(&name)),
        }
    }

    /// `None`: deleted.
    pub(super) fn queue(&mut self, name: &str, spec: Option<QueueSpec>) {
        // Chains of parents change with it: what is charged is counted anew.
        let charged: Vec<_> = self.charged.values().cloned().collect();
        for (queue, demand, preemptible) in &charged {
            self.queues.count(queue, *demand, *preemptible, -1.0);
        }
        self.queues.set(name, spec);
        for (queue, demand, preemptible) in &charged {
            self.queues.count(queue, *demand, *preemptible, 1.0);
        }
    }

    /// `None`: deleted.
    pub(super) fn pod(&mut self, uid: &PodUid, pod: Option<KaiPod>) -> Option<Work> {
        let Some(pod) = pod.filter(|pod| !pod.is_over) else {
            self.pods.remove(uid);
            self.hinted.remove(uid);
            self.settled.remove(uid);
            self.discharge(uid);
            return None;
        };
        self.pods.insert(uid.clone(), pod.clone());
        if !needs_place(&pod) {
            self.settled.remove(uid);
        }
        if let Some(node) = pod.node.clone() {
            if !self.charged.contains_key(uid) {
                self.charge(&pod);
            }
            return self.hinted.remove(uid).flatten().map(|hint| {
                if hint == node {
                    Work::HintTaken(pod)
                } else {
                    Work::HintMissed(pod, hint)
                }
            });
        }
        (self.wants_place(&pod)).then(|| Work::Place(uid.clone()))
    }

    /// Pods that wait and of whom nobody takes care: what failed is tried again.
    pub(super) fn waiting(&mut self, now: Instant) -> Vec<PodUid> {
        self.settled.retain(|_, settled| settled.until > now);
        let waiting = self.pods.values().filter(|pod| self.wants_place(pod));
        waiting.map(|pod| pod.pod.uid.clone()).collect()
    }

    fn wants_place(&self, pod: &KaiPod) -> bool {
        let uid = &pod.pod.uid;
        needs_place(pod) && !self.working.contains(uid) && !self.settled.contains_key(uid)
    }

    pub(super) fn get(&self, uid: &PodUid) -> Option<&KaiPod> {
        self.pods.get(uid)
    }

    pub(super) fn start(&mut self, uids: &[PodUid]) {
        self.working.extend(uids.iter().cloned());
    }

    /// The work is done. `settled`: nothing is left to do for the pod.
    pub(super) fn end(&mut self, uid: &PodUid, settled: Option<Settled>) {
        self.working.remove(uid);
        if let Some(settled) = settled.filter(|_| self.pods.get(uid).is_some_and(needs_place)) {
            self.settled.insert(uid.clone(), settled);
        }
    }

    /// KAI was told the node, or that there is none any more.
    pub(super) fn hint(&mut self, uid: &PodUid, node: Option<NodeName>) {
        if self.pods.contains_key(uid) {
            self.hinted.insert(uid.clone(), node);
        }
    }

    pub(super) fn is_hinted(&self, uid: &PodUid) -> bool {
        self.hinted.contains_key(uid)
    }

    /// Pods that were told where to go and that KAI has not placed yet.
    pub(super) fn hinted(&self) -> Vec<(KaiPod, Option<NodeName>)> {
        let pending = self.hinted.iter().filter_map(|(uid, node)| {
            let pod = self
                .pods
                .get(uid)
                .filter(|pod| pod.is_pending() && !self.working.contains(uid))?;
            Some((pod.clone(), node.clone()))
        });
        pending.collect()
    }

    /// The pending pods of a group, in the order of their names.
    pub(super) fn gang(&self, namespace: &str, group: &str) -> Vec<KaiPod> {
        let members = self
            .pods
            .values()
            .filter(|pod| is_member(pod, namespace, group) && self.wants_place(pod));
        let by_name: BTreeMap<&str, &KaiPod> = members.map(|pod| (pod.pod.name.as_str(), pod)).collect();
        by_name.into_values().cloned().collect()
    }

    /// Whether any of the group is still pending, also while somebody takes care of it.
    pub(super) fn has_gang(&self, namespace: &str, group: &str) -> bool {
        let mut pods = self.pods.values();
        pods.any(|pod| is_member(pod, namespace, group) && pod.is_pending())
    }

    /// Whether somebody takes care of a part of the group now: what becomes of that is not known yet.
    pub(super) fn is_working_on(&self, namespace: &str, group: &str) -> bool {
        let mut working = self.working.iter().filter_map(|uid| self.pods.get(uid));
        working.any(|pod| is_member(pod, namespace, group))
    }

    /// How many of a group have their place: they run, or are being bound, which KAI's binder takes its time for.
    pub(super) fn placed_of(&self, namespace: &str, group: &str) -> usize {
        let is_settled = |pod: &KaiPod| {
            let settled = self.settled.get(&pod.pod.uid);
            settled.is_some_and(|settled| settled.has_place)
        };
        let has_place = |pod: &&KaiPod| {
            let is_there = pod.node.is_some() && pod.pod.namespace == namespace && pod.group.as_deref() == Some(group);
            is_there || (pod.node.is_none() && is_member(pod, namespace, group) && is_settled(pod))
        };
        self.pods.values().filter(has_place).count()
    }

    /// One of the pods that are in this group, which Berth made for them.
    pub(super) fn in_shared(&self, key: &GroupKey) -> Option<&KaiPod> {
        let mut named_so = self.pods.values().filter(|pod| pod.group.as_ref() == Some(&key.1));
        named_so.find(|pod| pod.shared_group().as_ref() == Some(key))
    }

    /// All groups of that kind that pods are in.
    pub(super) fn shared_groups(&self) -> BTreeSet<GroupKey> {
        self.pods.values().filter_map(KaiPod::shared_group).collect()
    }

    /// The nodes that may have the pod, whatever GPUs they have. `pods_on`: how many pods each node has.
    pub(super) fn candidates(&self, pod: &KaiPod, pods_on: &HashMap<NodeName, usize>) -> Vec<Arc<NodeFacts>> {
        let may = self.nodes.values().filter(|facts| {
            let there = pods_on.get(&facts.name).copied().unwrap_or(0);
            facts.refuses(pod, there).is_none()
        });
        may.cloned().collect()
    }

    /// Counts the pod in its queue, if there is room.
    pub(super) fn admit(&mut self, pod: &KaiPod) -> Result<(), OverQueue> {
        if self.charged.contains_key(&pod.pod.uid) {
            return Ok(());
        }
        if let Some(over) = self.queues.refuses(&pod.queue, Demand::of(&pod.shape)) {
            return Err(over);
        }
        self.charge(pod);
        Ok(())
    }

    pub(super) fn discharge(&mut self, uid: &PodUid) {
        if let Some((queue, demand, preemptible)) = self.charged.remove(uid) {
            self.queues.count(&queue, demand, preemptible, -1.0);
        }
    }

    fn charge(&mut self, pod: &KaiPod) {
        let demand = Demand::of(&pod.shape);
        self.queues.count(&pod.queue, demand, pod.is_preemptible, 1.0);
        let charge = (pod.queue.clone(), demand, pod.is_preemptible);
        self.charged.insert(pod.pod.uid.clone(), charge);
    }

    pub(super) fn pods(&self) -> HashSet<PodUid> {
        self.pods.keys().cloned().collect()
    }

    pub(super) fn nodes(&self) -> HashSet<NodeName> {
        self.nodes.keys().cloned().collect()
    }

    pub(super) fn queues(&self) -> HashSet<String> {
        self.queues
            .names()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

fn needs_place(pod: &KaiPod) -> bool {
    let is_ours = pod.gates == Gates::Ours || pod.bind.is_some();
    is_ours && pod.is_pending() && pod.gates != Gates::Others
}

fn is_member(pod: &KaiPod, namespace: &str, group: &str) -> bool {
    pod.pod.namespace == namespace && pod.bind.as_deref() == Some(group)
}

/// Whether the pod asks for whole GPUs, which need no help of KAI's binder.
pub(super) fn is_plain(pod: &KaiPod) -> bool {
    !matches!(pod.shape.gpu, GpuShape::Share { .. })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::kai::pod::tests::pod;

    fn named(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> KaiPod {
        let pod = pod(|pod| {
            pod["metadata"]["name"] = json!(name);
            pod["metadata"]["uid"] = json!(name);
            change(pod);
        });
        KaiPod::of(&pod).unwrap()
    }

    fn gated(name: &str) -> KaiPod {
        named(name, |pod| {
            pod["spec"]["schedulingGates"] = json!([{"name": "gpu.berth.dev/placement"}]);
        })
    }

    fn on(name: &str, node: &str) -> KaiPod {
        named(name, |pod| {
            pod["spec"]["nodeName"] = json!(node);
        })
    }

    fn placed(until: Instant) -> Settled {
        Settled { until, has_place: true }
    }

    fn member(name: &str) -> KaiPod {
        named(name, |pod| {
            pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!("g");
        })
    }

    fn limited() -> QueueSpec {
        let open = json!({"quota": -1, "limit": -1});
        let spec = json!({"resources": {"gpu": {"quota": 4, "limit": 4}, "cpu": open, "memory": open}});
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn a_gated_pod_is_work_once_and_its_hint_is_followed_to_where_kai_puts_it() {
        let (mut state, now) = (State::default(), Instant::now());
        let p: PodUid = "p".parse().unwrap();
        assert_eq!(state.pod(&p, Some(gated("p"))), Some(Work::Place(p.clone())));
        state.start(std::slice::from_ref(&p));
        assert_eq!(
            (state.pod(&p, Some(gated("p"))), state.waiting(now)),
            (None, Vec::new())
        );
        state.end(&p, None);
        state.hint(&p, Some("a".parse().unwrap()));
        assert_eq!(state.pod(&p, Some(named("p", |_| {}))), None);
        assert_eq!(state.hinted().len(), 1);
        assert!(matches!(state.pod(&p, Some(on("p", "a"))), Some(Work::HintTaken(_))));
        assert!(state.hinted().is_empty());
        state.hint(&p, Some("a".parse().unwrap()));
        assert!(matches!(state.pod(&p, Some(on("p", "b"))), Some(Work::HintMissed(_, hint)) if hint.as_str() == "a"));
        assert!(state.pod(&p, None).is_none() && state.pods().is_empty());
    }

    #[test]
    fn what_is_seen_of_a_pod_that_is_done_with_is_older_until_it_is_seen_so() {
        let (mut state, now, later) = (State::default(), Instant::now(), Duration::from_secs(5));
        let p: PodUid = "p".parse().unwrap();
        let turn = |state: &mut State| {
            state.start(std::slice::from_ref(&p));
            state.end(&p, Some(placed(now + later)));
        };
        state.pod(&p, Some(gated("p")));
        turn(&mut state);
        assert_eq!(
            (state.pod(&p, Some(gated("p"))), state.waiting(now)),
            (None, Vec::new()),
            "an echo of before"
        );
        assert_eq!(
            state.waiting(now + later),
            std::slice::from_ref(&p),
            "it was not as it was believed"
        );
        turn(&mut state);
        state.pod(&p, Some(named("p", |_| {})));
        assert_eq!(
            state.pod(&p, Some(gated("p"))),
            Some(Work::Place(p.clone())),
            "gated anew, if that were possible"
        );
        state.pod(&p, Some(named("p", |_| {})));
        turn(&mut state);
        assert!(state.settled.is_empty(), "seen before its turn ended");
    }

    #[test]
    fn a_hint_that_is_cleared_is_looked_at_again_and_no_node_is_missed_for_it() {
        let mut state = State::default();
        let p: PodUid = "p".parse().unwrap();
        state.pod(&p, Some(named("p", |_| {})));
        state.hint(&p, Some("a".parse().unwrap()));
        state.hint(&p, None);
        assert!(matches!(state.hinted().as_slice(), [(_, None)]), "{:?}", state.hinted());
        assert_eq!(state.pod(&p, Some(on("p", "b"))), None);
        assert!(state.hinted().is_empty());
    }

    #[test]
    fn queues_count_bound_pods_and_those_on_their_way_each_once() {
        let mut state = State::default();
        state.queue("default-queue", Some(limited()));
        let [p, q] = ["p", "q"].map(|uid| uid.parse::<PodUid>().unwrap());
        let bind = |name: &str| {
            named(name, |pod| {
                pod["metadata"]["annotations"]["gpu.berth.dev/kai-bind"] = json!("");
            })
        };
        state.pod(&p, Some(bind("p")));
        state.admit(&bind("p")).unwrap();
        state.admit(&bind("p")).unwrap();
        state.pod(&p, Some(on("p", "a")));
        state.admit(&bind("q")).unwrap();
        assert_eq!(state.admit(&bind("r")).unwrap_err().reason, "QueueOverLimit");
        state.discharge(&q);
        state.admit(&bind("r")).unwrap();
        state.pod(&p, None);
        state.admit(&bind("q")).unwrap();
        assert!(state.admit(&bind("s")).is_err());
    }

    #[test]
    fn a_gang_is_its_pending_pods() {
        let mut state = State::default();
        for name in ["b", "a", "c"] {
            state.pod(&name.parse().unwrap(), Some(member(name)));
        }
        let bound = named("c", |pod| {
            pod["metadata"]["annotations"]["pod-group-name"] = json!("g");
            pod["spec"]["nodeName"] = json!("n");
        });
        state.pod(&"c".parse().unwrap(), Some(bound));
        let names: Vec<_> = state
            .gang("nvcf-backend", "g")
            .into_iter()
            .map(|pod| pod.pod.name)
            .collect();
        assert_eq!(
            (names, state.placed_of("nvcf-backend", "g")),
            (vec!["a".to_owned(), "b".to_owned()], 1)
        );
        assert!(state.gang("other", "g").is_empty());
    }

    #[test]
    fn of_a_gang_whose_turns_end_apart_those_that_are_being_bound_count_and_those_left_to_kai_do_not() {
        let (mut state, now) = (State::default(), Instant::now());
        let uids = ["a", "b", "c"].map(|uid| uid.parse::<PodUid>().unwrap());
        for uid in &uids {
            state.pod(uid, Some(member(uid.as_str())));
        }
        let [a, b, c] = &uids;
        let known = |state: &State| {
            let waiting = state.gang("nvcf-backend", "g").len();
            let working = state.is_working_on("nvcf-backend", "g");
            (waiting, state.placed_of("nvcf-backend", "g"), working)
        };
        state.start(&uids);
        assert_eq!(known(&state), (0, 0, true));
        let after = |seconds| now + Duration::from_secs(seconds);
        state.end(a, Some(placed(after(5))));
        state.end(c, None);
        assert_eq!(known(&state), (1, 1, true));
        state.end(b, Some(placed(after(13))));
        assert_eq!(
            known(&state),
            (1, 2, false),
            "c finds the others placed, though neither has a node"
        );
        state.waiting(after(8));
        assert_eq!(known(&state), (2, 1, false), "a is asked for again together with c");
        let to_kai = Settled {
            until: after(20),
            has_place: false,
        };
        state.end(c, Some(to_kai));
        assert_eq!(known(&state), (1, 1, false));
        assert_eq!(
            (state.placed_of("other", "g"), state.is_working_on("other", "g")),
            (0, false)
        );
    }

    #[test]
    fn the_groups_that_berth_made_are_known_by_the_pods_in_them() {
        let mut state = State::default();
        let name = super::super::objects::group_name(&named("p", |_| {}));
        for (pod, group) in [("p", name.as_str()), ("q", "gang"), ("r", name.as_str())] {
            let pod = named(pod, |pod| {
                pod["metadata"]["annotations"]["pod-group-name"] = json!(group);
            });
            state.pod(&pod.pod.uid.clone(), Some(pod));
        }
        let key = ("nvcf-backend".to_owned(), name.clone());
        assert_eq!(state.shared_groups(), [key.clone()].into());
        assert!(state.in_shared(&key).is_some());
        for pod in ["p", "r"] {
            state.pod(&pod.parse().unwrap(), None);
        }
        assert!(state.in_shared(&key).is_none() && state.shared_groups().is_empty());
        assert!(
            state
                .in_shared(&("nvcf-backend".to_owned(), "gang".to_owned()))
                .is_none(),
            "it is somebody else's"
        );
    }
}
