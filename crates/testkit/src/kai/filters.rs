//! Which nodes a pod may be on, whatever room they have.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};
use kube::ResourceExt as _;

/// Why not, in KAI's words where it has some.
pub(super) fn refuses(node: &Node, pod: &Pod) -> Option<String> {
    condition(node)
        .or_else(|| taint(node, pod))
        .or_else(|| selection(node, pod))
}

/// Not only Ready counts: a pressure that is unknown is as bad as one that is there.
fn condition(node: &Node) -> Option<String> {
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        return Some("node is unschedulable".to_owned());
    }
    let conditions = node
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten();
    let bad = |kind: &str, status: &str| match kind {
        "Ready" => status != "True",
        "MemoryPressure" | "DiskPressure" | "PIDPressure" | "NetworkUnavailable" => status != "False",
        _ => false,
    };
    let mut bad = conditions.filter(|condition| bad(&condition.type_, &condition.status));
    bad.next().map(|condition| match condition.type_.as_str() {
        "Ready" => "node has NotReady condition".to_owned(),
        other => format!("node has {other} condition"),
    })
}

fn taint(node: &Node, pod: &Pod) -> Option<String> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten();
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let hard = taints.filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    let mut left = hard.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)));
    left.next()
        .map(|taint| format!("node(s) had untolerated taint {{{}}}", taint.key))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let same_value = toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    (effect.is_empty() || effect == taint.effect)
        && ((key.is_empty() && exists) || (key == taint.key && (exists || same_value)))
}

/// Node selector and required node affinity. Preferred affinity counts for nothing in KAI.
fn selection(node: &Node, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let labels = node.labels();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let wanted = required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches(node, term)));
    let refused = "node(s) didn't match Pod's node affinity/selector";
    (!(selected && wanted)).then(|| refused.to_owned())
}

fn matches(node: &Node, term: &NodeSelectorTerm) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    // A term without a requirement matches nothing.
    !(labels.is_empty() && fields.is_empty())
        && labels
            .iter()
            .all(|one| holds(one, node.labels().get(&one.key).map(String::as_str)))
        && fields
            .iter()
            .all(|one| holds(one, (one.key == "metadata.name").then_some(name.as_str())))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compare = |holds: fn(i64, i64) -> bool| {
        let (left, right) = (
            value.and_then(|text| text.parse().ok()),
            values.first().and_then(|text| text.parse().ok()),
        );
        left.zip(right).is_some_and(|(left, right)| holds(left, right))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|left, right| left > right),
        "Lt" => compare(|left, right| left < right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(node: Value, pod: Value) -> Option<String> {
        refuses(
            &serde_json::from_value(node).unwrap(),
            &serde_json::from_value(pod).unwrap(),
        )
    }

    fn healthy() -> Value {
        json!({"metadata": {"name": "n1", "labels": {"zone": "a", "rank": "4"}}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "False"}]}})
    }

    #[test]
    fn an_unknown_pressure_is_refused_like_a_known_one() {
        assert_eq!(refused(healthy(), json!({})), None);
        for status in ["True", "Unknown"] {
            let mut node = healthy();
            node["status"]["conditions"][1]["status"] = json!(status);
            assert_eq!(refused(node, json!({})).unwrap(), "node has MemoryPressure condition");
        }
    }

    #[test]
    fn a_taint_needs_its_toleration_and_prefer_no_schedule_needs_none() {
        let mut node = healthy();
        node["spec"] = json!({"taints": [{"key": "gpu", "value": "sick", "effect": "NoSchedule"},
            {"key": "soft", "effect": "PreferNoSchedule"}]});
        assert!(refused(node.clone(), json!({})).unwrap().contains("{gpu}"));
        for toleration in [
            json!({"operator": "Exists"}),
            json!({"key": "gpu", "value": "sick", "effect": "NoSchedule"}),
        ] {
            let pod = json!({"spec": {"containers": [], "tolerations": [toleration]}});
            assert_eq!(refused(node.clone(), pod), None);
        }
        let wrong = json!({"spec": {"containers": [], "tolerations": [{"key": "gpu", "value": "well"}]}});
        assert!(refused(node, wrong).is_some());
    }

    #[test]
    fn required_affinity_binds_and_preferred_affinity_does_not() {
        let pod =
            |kind: &str, term: Value| json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {kind: term}}}});
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let by_name = |name: &str| {
            json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": [name]}]}]})
        };
        assert_eq!(refused(healthy(), pod(required, by_name("n1"))), None);
        assert!(refused(healthy(), pod(required, by_name("n2"))).is_some());
        let above = |rank: &str| {
            json!({"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "rank", "operator": "Gt", "values": [rank]}]}]})
        };
        assert_eq!(refused(healthy(), pod(required, above("3"))), None);
        assert!(refused(healthy(), pod(required, above("4"))).is_some());
        let preferred = json!([{"weight": 100, "preference": {"matchExpressions": [
            {"key": "zone", "operator": "In", "values": ["b"]}]}}]);
        assert_eq!(
            refused(
                healthy(),
                pod("preferredDuringSchedulingIgnoredDuringExecution", preferred)
            ),
            None
        );
    }
}
