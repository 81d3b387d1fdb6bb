//! Which nodes a pod may be on, whatever GPUs they have: conditions, taints, selector, required affinity, pod slots. Pure; as
//! kube-scheduler and KAI judge it.

use std::collections::BTreeMap;

use berth_kube_api::names::{berth, kai};
use berth_placement::NodeName;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use kube::ResourceExt as _;

use super::pod::KaiPod;

/// What of a node counts here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeFacts {
    pub(crate) name: NodeName,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    /// Why it takes no pods at all.
    closed: Option<&'static str>,
    /// Pods that it may have.
    pub(crate) slots: usize,
    /// GPUs that its device plugin offers; `None`: none by that name.
    pub(crate) gpus: Option<usize>,
}

/// By which pods are held to nodes; not the node's name everywhere.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
/// Values of the label that berthd puts on a node some GPU of which takes no pods.
pub(super) const BROKEN: [&str; 2] = ["Recovering", "Unhealthy"];

impl NodeFacts {
    pub(crate) fn of(name: NodeName, node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let bad = conditions.iter().find_map(
            |condition| match (condition.type_.as_str(), condition.status.as_str()) {
                ("Ready", "True") => None,
                ("Ready", _) => Some("NodeNotReady"),
                ("MemoryPressure" | "DiskPressure" | "PIDPressure" | "NetworkUnavailable", "True" | "Unknown") => {
                    Some("NodeUnderPressure")
                }
                _ => None,
            },
        );
        let is_cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
        let allocatable = |resource| status.and_then(|status| status.allocatable.as_ref()?.get(resource));
        let count = |resource| allocatable(resource).and_then(|quantity| quantity.0.parse().ok());
        Self {
            name,
            labels: node.labels().clone(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            closed: if is_cordoned { Some("NodeCordoned") } else { bad },
            slots: count("pods").unwrap_or(usize::MAX),
            gpus: count("nvidia.com/gpu"),
        }
    }

    /// Why the pod may not be there, by a stable name.
    pub(crate) fn refuses(&self, pod: &KaiPod, pods_there: usize) -> Option<&'static str> {
        let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let tolerated = |taint: &Taint| pod.tolerations.iter().any(|toleration| tolerates(toleration, taint));
        if let Some(closed) = self.closed {
            return Some(closed);
        }
        if self.taints.iter().filter(hard).any(|taint| !tolerated(taint)) {
            return Some("NodeTainted");
        }
        if pods_there >= self.slots {
            return Some("NoPodSlot");
        }
        (!self.selected_by(pod)).then_some("NodeNotSelected")
    }

    pub(crate) fn hostname(&self) -> Option<&str> {
        self.labels.get(HOSTNAME).map(String::as_str)
    }

    /// As an affinity sees it.
    pub(super) fn says_broken(&self) -> bool {
        let health = self.labels.get(berth::HEALTH);
        health.is_some_and(|health| BROKEN.contains(&health.as_str()))
    }

    fn selected_by(&self, pod: &KaiPod) -> bool {
        let selected = pod
            .node_selector
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value));
        let in_pool = self.labels.get(kai::NODE_POOL) == pod.node_pool.as_ref();
        let affinity = pod.node_affinity.as_ref();
        let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        let terms = required.map(|required| &required.node_selector_terms);
        selected && in_pool && terms.is_none_or(|terms| terms.iter().any(|term| self.matches(term)))
    }

    /// A term that says nothing matches nothing.
    fn matches(&self, term: &NodeSelectorTerm) -> bool {
        let (labels, fields) = (
            term.match_expressions.iter().flatten(),
            term.match_fields.iter().flatten(),
        );
        let by_label = |it: &NodeSelectorRequirement| holds(it, self.labels.get(&it.key).map(String::as_str));
        let by_field = |it: &NodeSelectorRequirement| it.key == "metadata.name" && holds(it, Some(self.name.as_str()));
        let is_empty = labels.clone().next().is_none() && fields.clone().next().is_none();
        !is_empty && labels.clone().all(by_label) && fields.clone().all(by_field)
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let same = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists) || (key == taint.key && (exists || same)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_among = || value.is_some_and(|value| values.iter().any(|it| it == value));
    let compare = |wanted: std::cmp::Ordering| {
        let number = |text: &str| text.parse::<i64>().ok();
        let pair = value.and_then(number).zip(values.first().and_then(|text| number(text)));
        pair.is_some_and(|(value, bound)| value.cmp(&bound) == wanted)
    };
    match requirement.operator.as_str() {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kai::pod::tests::pod;

    fn node(change: impl FnOnce(&mut Value)) -> NodeFacts {
        let mut node = json!({
            "metadata": {"name": "n", "labels": {"zone": "a", "size": "8"}},
            "spec": {},
            "status": {"allocatable": {"pods": "2"}, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut node);
        NodeFacts::of("n".parse().unwrap(), &serde_json::from_value(node).unwrap())
    }

    fn kai(change: impl FnOnce(&mut Value)) -> KaiPod {
        KaiPod::of(&pod(change)).unwrap()
    }

    #[test]
    fn a_node_refuses_by_condition_cordon_taint_and_slots() {
        let any = kai(|_| {});
        assert_eq!(node(|_| {}).refuses(&any, 1), None);
        assert_eq!(node(|_| {}).refuses(&any, 2), Some("NoPodSlot"));
        let cordoned = node(|node| node["spec"]["unschedulable"] = json!(true));
        assert_eq!(cordoned.refuses(&any, 0), Some("NodeCordoned"));
        let unready = node(|node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
        assert_eq!(unready.refuses(&any, 0), Some("NodeNotReady"));
        let tainted =
            node(|node| node["spec"]["taints"] = json!([{"key": "gpu", "value": "x", "effect": "NoSchedule"}]));
        assert_eq!(tainted.refuses(&any, 0), Some("NodeTainted"));
        for toleration in [json!({"operator": "Exists"}), json!({"key": "gpu", "value": "x"})] {
            let tolerant = kai(|pod| pod["spec"]["tolerations"] = json!([toleration]));
            assert_eq!(tainted.refuses(&tolerant, 0), None);
        }
        let soft = node(|node| node["spec"]["taints"] = json!([{"key": "gpu", "effect": "PreferNoSchedule"}]));
        assert_eq!(soft.refuses(&any, 0), None);
    }

    #[test]
    fn selector_pool_and_required_affinity_choose_nodes() {
        let here = node(|_| {});
        let by_selector = |zone: &str| kai(|pod| pod["spec"]["nodeSelector"] = json!({"zone": zone}));
        assert_eq!(here.refuses(&by_selector("a"), 0), None);
        assert_eq!(here.refuses(&by_selector("b"), 0), Some("NodeNotSelected"));
        let pool = kai(|pod| pod["metadata"]["labels"]["kai.scheduler/node-pool"] = json!("blue"));
        assert_eq!(here.refuses(&pool, 0), Some("NodeNotSelected"));
        let affinity = |terms: Value| {
            kai(|pod| {
                let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
                pod["spec"]["affinity"] = json!({"nodeAffinity": required});
            })
        };
        for (terms, fits) in [
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["4"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "size", "operator": "Lt", "values": ["8"]}]}]),
                false,
            ),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "x", "operator": "Exists"}]}, {"matchExpressions": [
                {"key": "y", "operator": "DoesNotExist"}]}]),
                true,
            ),
            (json!([{}]), false),
        ] {
            let refused = here.refuses(&affinity(terms.clone()), 0);
            assert_eq!(refused.is_none(), fits, "{terms}: {refused:?}");
        }
    }
}
