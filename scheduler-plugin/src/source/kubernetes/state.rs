//! What the API server tells, joined by node: GpuNodes (what daemons say), Nodes (what they are made of), Pods (who sits
//! there). Pure: events in, reports out.
//!
//! A node with a GpuNode has its devices from there; another one from GPU Feature Discovery's labels, less what the pods
//! that sit there hold. CPU and memory are what the node can allocate less what its pods ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use berth_kube_api::gpu_node::GpuNodeStatus;
use berth_placement::{CpuMilli, GpuShape, MemoryBytes, NodeName, NodeState, Plan, PodRef, PodUid, Shape, fit};
use berth_runtime::dial::Target;

use super::convert::{self, KubeNode};
use crate::convert::{Bound, NodeFacts, NodeReport};

/// Everything that is known, by node.
#[derive(Debug, Default)]
pub(super) struct State {
    nodes: HashMap<NodeName, Joined>,
    pods: HashMap<PodUid, PodOn>,
    /// `NAMESPACE/NAME` of those.
    by_name: HashMap<String, PodUid>,
    /// By the same, the nodes whose daemons say that the pod holds something there.
    held_on: HashMap<String, BTreeSet<NodeName>>,
}

#[derive(Debug, Default)]
struct Joined {
    told: Option<(NodeReport, Option<Target>)>,
    node: Option<KubeNode>,
    pods: BTreeSet<PodUid>,
    /// Pods of which the daemon says that they hold something.
    holders: BTreeSet<String>,
    /// Grows with every change of what is not told by a daemon.
    changes: u64,
}

/// A pod on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodOn {
    pub(super) pod: PodRef,
    pub(super) node: NodeName,
    pub(super) shape: Shape,
    /// What it was bound with.
    pub(super) plan: Option<Plan>,
    pub(super) priority: i32,
}

/// What the cluster is to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The node as it is now, and where its daemon is reached.
    Report(Option<Target>, Box<NodeReport>),
    /// No GPUs there any more.
    Gone(NodeName),
    /// It holds nothing any more.
    PodGone(PodRef, NodeName),
    /// It runs elsewhere: what it holds there is left over, of a scheduler that died or gave up half way.
    Stray(PodRef, NodeName),
}

impl State {
    /// `None`: deleted.
    pub(super) fn gpu_node(&mut self, name: NodeName, status: Option<&GpuNodeStatus>) -> Vec<Change> {
        let told = status.and_then(|status| convert::report(&name, status));
        let joined = self.nodes.entry(name.clone()).or_default();
        joined.told = told;
        let holders = status.map(convert::holders).unwrap_or_default();
        let before = std::mem::replace(&mut joined.holders, holders.clone());
        for gone in before.difference(&holders) {
            if let Some(nodes) = self.held_on.get_mut(gone) {
                nodes.remove(&name);
                if nodes.is_empty() {
                    self.held_on.remove(gone);
                }
            }
        }
        let mut changes = Vec::new();
        for holder in holders {
            let on = self.by_name.get(&holder).and_then(|uid| self.pods.get(uid));
            changes.extend(
                on.filter(|on| on.node != name)
                    .map(|on| Change::Stray(on.pod.clone(), name.clone())),
            );
            self.held_on.entry(holder).or_default().insert(name.clone());
        }
        changes.extend(self.changed(name));
        changes
    }

    /// `None`: deleted.
    pub(super) fn node(&mut self, name: NodeName, node: Option<KubeNode>) -> Vec<Change> {
        let joined = self.nodes.entry(name.clone()).or_default();
        if joined.node == node {
            return Vec::new();
        }
        joined.node = node;
        self.changed(name)
    }

    /// `None`: it is deleted, has ended, or is on no node.
    pub(super) fn pod(&mut self, uid: &PodUid, on: Option<PodOn>) -> Vec<Change> {
        if self.pods.get(uid) == on.as_ref() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        if let Some(before) = self.pods.remove(uid) {
            let title = title(&before.pod);
            if self.by_name.get(&title) == Some(uid) {
                self.by_name.remove(&title);
            }
            if let Some(joined) = self.nodes.get_mut(&before.node) {
                joined.pods.remove(uid);
            }
            if on.is_none() && before.shape.gpu != GpuShape::None {
                changes.push(Change::PodGone(before.pod.clone(), before.node.clone()));
            }
            changes.extend(self.changed(before.node));
        }
        if let Some(on) = on {
            let node = on.node.clone();
            self.nodes.entry(node.clone()).or_default().pods.insert(uid.clone());
            let title = title(&on.pod);
            let elsewhere = self.held_on.get(&title).into_iter().flatten().filter(|at| **at != node);
            changes.extend(elsewhere.map(|at| Change::Stray(on.pod.clone(), at.clone())));
            self.by_name.insert(title, uid.clone());
            self.pods.insert(uid.clone(), on);
            changes.extend(self.changed(node));
        }
        changes
    }

    pub(super) fn gpu_nodes(&self) -> HashSet<NodeName> {
        let told = self.nodes.iter().filter(|(_, joined)| joined.told.is_some());
        told.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn kube_nodes(&self) -> HashSet<NodeName> {
        let there = self.nodes.iter().filter(|(_, joined)| joined.node.is_some());
        there.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn pods(&self) -> HashSet<PodUid> {
        self.pods.keys().cloned().collect()
    }

    fn changed(&mut self, name: NodeName) -> Vec<Change> {
        let Some(joined) = self.nodes.get_mut(&name) else {
            return Vec::new();
        };
        joined.changes += 1;
        let joined = &self.nodes[&name];
        let pods: Vec<&PodOn> = joined.pods.iter().filter_map(|uid| self.pods.get(uid)).collect();
        let change = match (&joined.told, &joined.node) {
            (Some((report, target)), node) => {
                let mut report = report.clone();
                join_pods(&mut report, node.as_ref(), &pods);
                Change::Report(target.clone(), Box::new(report))
            }
            (None, Some(node)) if !node.devices.is_empty() => {
                let mut state = NodeState::of_devices(name, joined.changes, node.devices.clone());
                state.verified = false;
                hold(&mut state, &pods);
                let mut report = NodeReport {
                    state,
                    instance: String::new(),
                    facts: NodeFacts::default(),
                    reconciled: true,
                    bound: BTreeMap::new(),
                    pods: 0,
                };
                join_pods(&mut report, Some(node), &pods);
                Change::Report(None, Box::new(report))
            }
            (None, _) => {
                if joined.node.is_none() && joined.pods.is_empty() {
                    self.nodes.remove(&name);
                }
                Change::Gone(name)
            }
        };
        vec![change]
    }
}

fn title(pod: &PodRef) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn join_pods(report: &mut NodeReport, node: Option<&KubeNode>, pods: &[&PodOn]) {
    if let Some(node) = node {
        let cpu: u64 = pods.iter().map(|pod| pod.shape.cpu.0).sum();
        let memory = pods
            .iter()
            .fold(MemoryBytes::ZERO, |sum, pod| sum.saturating_add(pod.shape.memory));
        report.state.cpu_total = Some(node.cpu);
        report.state.cpu_free = Some(CpuMilli(node.cpu.0.saturating_sub(cpu)));
        report.state.memory_free = Some(node.memory.saturating_sub(memory));
    }
    let with_gpus = pods.iter().filter(|pod| pod.shape.gpu != GpuShape::None);
    let bound = |pod: &&PodOn| {
        let bound = Bound {
            shape: pod.shape.clone(),
            plan: pod.plan.clone(),
            priority: pod.priority,
        };
        (pod.pod.uid.clone(), bound)
    };
    report.bound = with_gpus.map(bound).collect();
    report.pods = pods.len();
}

/// Takes out what the pods hold: what they were bound with, else what the node's rule would give them.
fn hold(state: &mut NodeState, pods: &[&PodOn]) {
    let (known, unknown): (Vec<&PodOn>, Vec<&PodOn>) = pods.iter().partition(|pod| pod.plan.is_some());
    for pod in known {
        if let Some(plan) = &pod.plan {
            // Another pod has it: both were bound there by somebody. It is held either way.
            let _ = state.take(plan);
        }
    }
    for pod in unknown {
        if let Ok(plan) = fit::plan(state, &pod.shape) {
            let _ = state.take(&plan);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_kube_api::gpu_node::{Condition, Device};

    use super::*;
    use crate::testing::{gpu, pod, whole};

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn labelled(gpus: u32) -> KubeNode {
        KubeNode {
            cpu: CpuMilli(64_000),
            memory: MemoryBytes::from_gib(512),
            devices: (0..gpus).map(|index| gpu("a", index)).collect(),
        }
    }

    fn on(uid: &str, node: &str, gpus: u32, cpu: u64) -> PodOn {
        PodOn {
            pod: pod(uid),
            node: name(node),
            shape: Shape {
                cpu: CpuMilli(cpu),
                ..whole(gpus)
            },
            plan: None,
            priority: 0,
        }
    }

    fn told(generation: i64) -> GpuNodeStatus {
        GpuNodeStatus {
            generation,
            instance: "i".to_owned(),
            address: "http://10.0.0.1:9440".to_owned(),
            conditions: vec![Condition {
                kind: "LedgerReconciled".to_owned(),
                status: "True".to_owned(),
                ..Condition::default()
            }],
            devices: vec![Device {
                uuid: "GPU-1".to_owned(),
                model: "H100".to_owned(),
                health: "Healthy".to_owned(),
                memory_bytes: 80 << 30,
                free_milli: 1000,
                free_memory_bytes: 80 << 30,
                schedulable: true,
                ..Device::default()
            }],
            ..GpuNodeStatus::default()
        }
    }

    fn only_report(changes: Vec<Change>) -> (Option<Target>, NodeReport) {
        match <[Change; 1]>::try_from(changes) {
            Ok([Change::Report(target, report)]) => (target, *report),
            other => panic!("{other:?}"),
        }
    }

    fn untouched(report: &NodeReport) -> usize {
        let devices = report.state.devices.iter();
        devices.filter(|device| device.is_untouched()).count()
    }

    #[test]
    fn a_node_without_a_daemon_has_what_its_labels_tell_less_what_its_pods_hold() {
        let mut state = State::default();
        let (target, report) = only_report(state.node(name("a"), Some(labelled(8))));
        assert_eq!((target, report.state.verified, untouched(&report)), (None, false, 8));
        let (_, report) = only_report(state.pod(&"p".parse().unwrap(), Some(on("p", "a", 3, 4000))));
        assert_eq!((untouched(&report), report.state.cpu_free), (5, Some(CpuMilli(60_000))));
        assert!(report.bound.contains_key(&"p".parse::<PodUid>().unwrap()));
        let gone = state.pod(&"p".parse().unwrap(), None);
        assert_eq!(gone[0], Change::PodGone(pod("p"), name("a")));
        assert!(matches!(&gone[1], Change::Report(None, report) if untouched(report) == 8));
    }

    #[test]
    fn what_a_daemon_says_counts_for_devices_and_what_pods_ask_for_cpu() {
        let mut state = State::default();
        assert_eq!(
            state.pod(&"p".parse().unwrap(), Some(on("p", "a", 1, 4000))),
            [Change::Gone(name("a"))]
        );
        only_report(state.node(name("a"), Some(labelled(8))));
        let (target, report) = only_report(state.gpu_node(name("a"), Some(&told(7))));
        assert_eq!(target.unwrap().to_string(), "http://10.0.0.1:9440");
        assert_eq!((report.state.verified, report.state.generation), (true, 7));
        assert_eq!((untouched(&report), report.state.cpu_free), (1, Some(CpuMilli(60_000))));
        // Without its daemon's word it is back to the labels.
        let (_, report) = only_report(state.gpu_node(name("a"), None));
        assert_eq!((report.state.verified, untouched(&report)), (false, 7));
    }

    #[test]
    fn what_a_pod_holds_where_it_does_not_run_is_found_whichever_is_seen_first() {
        let held = |generation| {
            let mut status = told(generation);
            status.devices[0].holders = vec!["ns/pod".to_owned()];
            status
        };
        let stray = Change::Stray(pod("p"), name("a"));
        let p: PodUid = "p".parse().unwrap();
        let mut state = State::default();
        assert!(!state.gpu_node(name("a"), Some(&held(1))).contains(&stray));
        assert!(state.pod(&p, Some(on("p", "b", 1, 1))).contains(&stray));
        assert!(
            state.gpu_node(name("a"), Some(&held(2))).contains(&stray),
            "as long as it is there"
        );
        assert!(!state.gpu_node(name("a"), Some(&told(3))).contains(&stray));
        assert!(
            !state
                .gpu_node(name("b"), Some(&held(1)))
                .contains(&Change::Stray(pod("p"), name("b")))
        );
        state.pod(&p, None);
        assert!(
            !state.gpu_node(name("a"), Some(&held(4))).contains(&stray),
            "it may be about to run there"
        );
    }

    #[test]
    fn what_does_not_change_anything_is_told_to_nobody() {
        let mut state = State::default();
        state.node(name("a"), Some(labelled(1)));
        assert!(state.node(name("a"), Some(labelled(1))).is_empty());
        let p: PodUid = "p".parse().unwrap();
        state.pod(&p, Some(on("p", "a", 1, 1)));
        assert!(state.pod(&p, Some(on("p", "a", 1, 1))).is_empty());
        assert!(state.pod(&"q".parse().unwrap(), None).is_empty());
    }
}
