//! Preemption: of the pods that kube-scheduler would evict, those that must go for the shape to fit.

use std::cmp::Reverse;

use berth_placement::{GpuShape, NodeName, PodUid, Shape, fit};

use super::Cluster;
use crate::convert::Bound;

impl Cluster {
    /// Which of the victims must go from the node; `None`: the shape does not fit even when all are gone, or the node is not
    /// known. The most important ones are spared first. Victims without GPUs stay victims: they were chosen for their CPU or
    /// memory, which is not judged here.
    pub(crate) fn must_go(&self, shape: &Shape, node: &NodeName, victims: &[PodUid]) -> Option<Vec<PodUid>> {
        let inner = self.inner.lock();
        let id = inner.by_name.get(node)?;
        let report = inner.members.get(id.0)?.report.as_ref()?;
        let mut state = inner.engine.node(node).filter(|node| node.reachable)?.clone();
        let mut holders: Vec<(&PodUid, &Bound)> = Vec::new();
        let mut others = Vec::new();
        for uid in victims {
            match report.bound.get(uid) {
                Some(bound) if bound.shape.gpu != GpuShape::None => holders.push((uid, bound)),
                _ => others.push(uid.clone()),
            }
        }
        // What a pod has that Berth did not bind nobody here knows: kube-scheduler's count has to do.
        let Some(plans) = holders
            .iter()
            .map(|(_, bound)| bound.plan.as_ref())
            .collect::<Option<Vec<_>>>()
        else {
            return Some(victims.to_vec());
        };
        // CPU and memory are kube-scheduler's own business here, and it has taken the victims' into account.
        (state.cpu_free, state.memory_free) = (None, None);
        // Nor, where the kubelet gave other devices than were planned, which ones these are.
        if !plans.into_iter().all(|plan| state.give_back(plan)) {
            return Some(victims.to_vec());
        }
        fit::plan(&state, shape).ok()?;
        holders.sort_by_key(|(uid, bound)| (Reverse(bound.priority), (*uid).clone()));
        for (uid, bound) in holders {
            let mut with_it = state.clone();
            let stays = bound.plan.as_ref().is_some_and(|plan| with_it.take(plan));
            if stays && fit::plan(&with_it, shape).is_ok() {
                state = with_it;
            } else {
                others.push(uid.clone());
            }
        }
        Some(others)
    }
}

#[cfg(test)]
mod tests {
    use berth_placement::{Grant, GrantSize, Plan};
    use berth_runtime::ManualClock;

    use super::*;
    use crate::testing::{cluster, report, whole};

    fn bound(devices: &[u32], priority: i32) -> Bound {
        let grant = |index: &u32| Grant {
            device: format!("GPU-a-{index}").parse().unwrap(),
            size: GrantSize::Whole,
        };
        Bound {
            shape: whole(u32::try_from(devices.len()).unwrap()),
            plan: Some(Plan {
                grants: devices.iter().map(grant).collect(),
            }),
            priority,
        }
    }

    fn uid(text: &str) -> PodUid {
        text.parse().unwrap()
    }

    #[test]
    fn only_those_go_whose_devices_make_the_shape_fit_and_the_least_important_first() {
        let mut report = report("a", 8);
        for (name, devices, priority) in [("x", &[0, 1][..], 5), ("y", &[2, 3, 4], 9), ("z", &[5], 1)] {
            report.bound.insert(uid(name), bound(devices, priority));
        }
        let cluster = cluster(&ManualClock::at_unix_ms(0), [report]);
        let node: NodeName = "a".parse().unwrap();
        let must_go = |gpus, victims: &[&str]| {
            let victims: Vec<_> = victims.iter().map(|name| uid(name)).collect();
            let mut gone = cluster.must_go(&whole(gpus), &node, &victims)?;
            gone.sort();
            Some(gone.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(must_go(1, &["x", "y", "z"]).unwrap(), ["z"]);
        assert_eq!(
            must_go(2, &["x", "y", "z"]).unwrap(),
            ["x"],
            "z is spared: x alone will do"
        );
        assert_eq!(must_go(3, &["x", "z"]).unwrap(), ["x", "z"]);
        assert_eq!(must_go(4, &["x", "z"]), None, "not even then");
        assert_eq!(must_go(1, &["z", "cpu-only"]).unwrap(), ["cpu-only", "z"]);
        assert_eq!(cluster.must_go(&whole(1), &"b".parse().unwrap(), &[]), None);
    }

    #[test]
    fn where_the_kubelet_gave_a_pod_another_device_than_was_planned_kube_schedulers_choice_stands() {
        let free = report("a", 0).state.devices[0].free;
        let mut report = report("a", 8);
        report.state.devices[0].free = free;
        report.bound.insert(uid("x"), bound(&[0], 0));
        let cluster = cluster(&ManualClock::at_unix_ms(0), [report]);
        let must_go = cluster.must_go(&whole(2), &"a".parse().unwrap(), &[uid("x")]);
        assert_eq!(must_go, Some(vec![uid("x")]));
    }
}
