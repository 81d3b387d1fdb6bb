//! Decisions that a live cluster shows only by luck of timing; the rest is in `tests/rig_kai`, on real KAI as well.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::kai::cluster::Seen;

/// Nodes with so many GPUs each, unlimited queue `q`.
fn seen(gpus: &[u32]) -> Seen {
    let mut seen = Seen::default();
    for (index, gpus) in gpus.iter().enumerate() {
        let node = json!({"metadata": {"name": format!("n{index}"), "labels": {"nvidia.com/gpu.memory": "81559"}},
            "status": {"allocatable": {"cpu": "8", "pods": "10", "nvidia.com/gpu": gpus.to_string()}}});
        seen.nodes.push(Arc::new(serde_json::from_value(node).unwrap()));
    }
    let endless = json!({"quota": -1, "limit": -1, "overQuotaWeight": 1});
    let queue = json!({"metadata": {"name": "q"}, "spec": {
        "resources": {"gpu": endless, "cpu": endless, "memory": endless}}});
    seen.queues.push(Arc::new(serde_json::from_value(queue).unwrap()));
    seen
}

fn group(seen: &mut Seen, name: &str, min_member: i32, class: &str) {
    let group = json!({"metadata": {"name": name, "namespace": "d"},
        "spec": {"minMember": min_member, "queue": "q", "priorityClassName": class}});
    seen.pod_groups.push(Arc::new(serde_json::from_value(group).unwrap()));
    for (name, value) in crate::kai::names::PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value});
        seen.priority_classes
            .push(Arc::new(serde_json::from_value(class).unwrap()));
    }
}

/// A pod of a group; `more` is merged into it.
fn pod(seen: &mut Seen, name: &str, group: &str, gpus: u32, more: impl Into<Value>) {
    let more: Value = more.into();
    let mut pod = json!({"metadata": {"name": name, "namespace": "d", "annotations": {"pod-group-name": group}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": gpus.to_string()}}}]},
        "status": {"phase": "Pending"}});
    for (section, fields) in more.as_object().into_iter().flatten() {
        for (key, value) in fields.as_object().into_iter().flatten() {
            pod[section][key] = value.clone();
        }
    }
    seen.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
}

fn running(node: &str) -> Value {
    json!({"spec": {"nodeName": node}, "status": {"phase": "Running"}})
}

fn leaving(node: &str) -> Value {
    let mut pod = running(node);
    pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    pod
}

struct Ran {
    cluster: Cluster,
    decisions: Decisions,
}

fn run(seen: &Seen) -> Ran {
    let mut cluster = Cluster::new(seen);
    let mut count = 0;
    let decisions = cycle(&mut cluster, &mut || {
        count += 1;
        format!("group-{count}")
    });
    Ran { cluster, decisions }
}

impl Ran {
    fn names(&self, tasks: impl IntoIterator<Item = usize>) -> Vec<String> {
        let placed = tasks.into_iter().map(|task| {
            let task = &self.cluster.tasks[task];
            format!("{}@{}", task.pod.name_any(), task.node.as_deref().unwrap_or("-"))
        });
        placed.collect()
    }

    fn binds(&self) -> Vec<String> {
        self.names(self.decisions.binds.iter().copied())
    }

    fn waits(&self) -> Vec<String> {
        self.names(self.decisions.waits.iter().copied())
    }

    fn evicted(&self) -> Vec<String> {
        self.names(self.decisions.evictions.iter().map(|eviction| eviction.task))
    }
}

#[test]
fn a_gang_of_which_one_has_to_wait_waits_as_a_whole() {
    let mut seen = seen(&[8, 8]);
    group(&mut seen, "going", 1, "train");
    pod(&mut seen, "old", "going", 8, leaving("n1"));
    group(&mut seen, "gang", 2, "train");
    pod(&mut seen, "a", "gang", 8, json!({}));
    pod(&mut seen, "b", "gang", 8, json!({}));
    let ran = run(&seen);
    assert_eq!(ran.waits(), ["a@n0", "b@n1"]);
    assert!(ran.binds().is_empty() && ran.evicted().is_empty());
}

#[test]
fn a_pod_that_waits_costs_nobody_a_second_eviction() {
    let mut seen = seen(&[8]);
    group(&mut seen, "low", 1, "train");
    pod(&mut seen, "going", "low", 4, leaving("n0"));
    pod(&mut seen, "stays", "low", 4, running("n0"));
    group(&mut seen, "high", 1, "inference");
    pod(&mut seen, "important", "high", 4, json!({}));
    let ran = run(&seen);
    assert_eq!(ran.waits(), ["important@n0"]);
    assert!(ran.evicted().is_empty());
}

#[test]
fn no_more_is_evicted_than_it_takes_and_the_least_important_first() {
    let mut seen = seen(&[8, 8]);
    group(&mut seen, "train", 1, "train");
    group(&mut seen, "build", 1, "build-preemptible");
    pod(&mut seen, "t0", "train", 4, running("n0"));
    pod(&mut seen, "b0", "build", 4, running("n0"));
    group(&mut seen, "fixed", 1, "build");
    pod(&mut seen, "f1", "fixed", 8, running("n1"));
    group(&mut seen, "high", 1, "inference");
    pod(&mut seen, "important", "high", 4, json!({}));
    let ran = run(&seen);
    assert_eq!(ran.evicted(), ["t0@n0"]);
    assert_eq!(ran.waits(), ["important@n0"]);
}

#[test]
fn a_gang_is_evicted_as_a_whole() {
    let mut seen = seen(&[8, 8]);
    group(&mut seen, "gang", 2, "train");
    pod(&mut seen, "g0", "gang", 8, running("n0"));
    pod(&mut seen, "g1", "gang", 8, running("n1"));
    group(&mut seen, "high", 1, "inference");
    pod(&mut seen, "important", "high", 1, json!({}));
    assert_eq!(run(&seen).evicted(), ["g0@n0", "g1@n1"]);
}

#[test]
fn an_attempt_that_fails_leaves_every_account_as_it_was() {
    let mut seen = seen(&[8, 8]);
    group(&mut seen, "low", 1, "train");
    pod(&mut seen, "a", "low", 8, running("n0"));
    pod(&mut seen, "b", "low", 3, running("n1"));
    group(&mut seen, "high", 3, "inference");
    for name in ["h0", "h1", "h2"] {
        pod(&mut seen, name, "high", 8, json!({}));
    }
    let ran = run(&seen);
    assert!(ran.evicted().is_empty() && ran.waits().is_empty() && ran.binds().is_empty());
    let before = Cluster::new(&seen);
    assert_eq!(format!("{:?}", ran.cluster.nodes), format!("{:?}", before.nodes));
    assert_eq!(format!("{:?}", ran.cluster.queues), format!("{:?}", before.queues));
    assert_eq!(ran.cluster.tasks.len(), before.tasks.len());
}

#[test]
fn pods_of_one_cycle_see_each_other() {
    let mut seen = seen(&[2, 2]);
    for name in ["a", "b", "c"] {
        group(&mut seen, name, 1, "train");
        pod(&mut seen, name, name, 1, json!({}));
    }
    assert_eq!(run(&seen).binds(), ["a@n0", "b@n0", "c@n1"]);
}

#[test]
fn a_group_is_found_by_its_name_alone_whatever_the_namespace() {
    let mut seen = seen(&[8]);
    group(&mut seen, "g", 1, "train");
    pod(
        &mut seen,
        "elsewhere",
        "g",
        1,
        json!({"metadata": {"namespace": "other"}}),
    );
    assert_eq!(run(&seen).binds(), ["elsewhere@n0"]);
}
