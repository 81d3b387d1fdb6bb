//! To which nodes a pod is held from the moment that its gate goes: KAI looks at required node affinity and at no wish. Pure.
//!
//! While a pod is gated the API server lets its affinity be narrowed: expressions may come to a term that says something, and
//! no term may come or go where there is one.

use std::sync::Arc;

use berth_kube_api::names::berth;
use berth_placement::NodeName;
use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelectorTerm};
use serde_json::{Value, json};

use super::filter::{BROKEN, HOSTNAME, NodeFacts};

/// See the module's text. The default holds it to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Narrowing {
    /// Hostnames of the best nodes; empty: all nodes.
    pub(super) top: Vec<String>,
    /// Off nodes that say of themselves that a GPU of theirs is broken, for as long as they say it.
    pub(super) off_broken: bool,
}

impl Narrowing {
    /// `top`: nodes to which the pod is to be held. `off_broken`: what looks free to KAI may be broken.
    pub(super) fn new(top: &[NodeName], nodes: &[Arc<NodeFacts>], off_broken: bool) -> Self {
        let hostname = |name: &NodeName| nodes.iter().find(|facts| facts.name == *name)?.hostname();
        Self {
            top: top.iter().filter_map(hostname).map(str::to_owned).collect(),
            off_broken,
        }
    }

    /// The pod's terms, each narrowed; `None`: nothing is to be changed.
    pub(super) fn terms(&self, own: Option<&NodeAffinity>) -> Option<Vec<Value>> {
        if *self == Self::default() {
            return None;
        }
        let required = own.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
        let terms = required.map(|required| required.node_selector_terms.as_slice());
        match terms.unwrap_or_default() {
            [] => Some(vec![self.narrowed(json!({}))]),
            terms => Some(terms.iter().map(|term| self.narrowed_if_any(term)).collect()),
        }
    }

    /// A term that says nothing matches nothing, and must go on so.
    fn narrowed_if_any(&self, term: &NodeSelectorTerm) -> Value {
        let says_something = term.match_expressions.iter().flatten().next().is_some()
            || term.match_fields.iter().flatten().next().is_some();
        let term = json!(term);
        if says_something { self.narrowed(term) } else { term }
    }

    fn narrowed(&self, mut term: Value) -> Value {
        let mut expressions = Vec::new();
        if !self.top.is_empty() {
            expressions.push(json!({"key": HOSTNAME, "operator": "In", "values": self.top}));
        }
        if self.off_broken {
            expressions.push(json!({"key": berth::HEALTH, "operator": "NotIn", "values": BROKEN}));
        }
        let mut all = term["matchExpressions"].as_array().cloned().unwrap_or_default();
        all.extend(expressions);
        term["matchExpressions"] = json!(all);
        term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn nodes() -> Vec<Arc<NodeFacts>> {
        let node = |(node, health): (&str, &str)| {
            let labels = json!({"kubernetes.io/hostname": format!("{node}.host"), "gpu.berth.dev/health": health});
            let object = json!({"metadata": {"name": node, "labels": labels}});
            Arc::new(NodeFacts::of(name(node), &serde_json::from_value(object).unwrap()))
        };
        [("well", "Healthy"), ("told", "Unhealthy"), ("silent", "Healthy")]
            .map(node)
            .to_vec()
    }

    fn affinity(terms: &Value) -> NodeAffinity {
        serde_json::from_value(json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}))
            .unwrap()
    }

    fn health() -> Value {
        json!({"key": "gpu.berth.dev/health", "operator": "NotIn", "values": ["Recovering", "Unhealthy"]})
    }

    #[test]
    fn a_pod_is_kept_off_nodes_for_as_long_as_they_say_that_a_gpu_is_broken() {
        let lost = Narrowing::new(&[], &nodes(), true);
        assert_eq!(lost.terms(None).unwrap(), [json!({"matchExpressions": [health()]})]);
        assert_eq!(Narrowing::new(&[], &nodes(), false).terms(None), None);
    }

    #[test]
    fn a_pod_is_held_to_the_best_nodes_by_their_hostnames() {
        let held = Narrowing::new(&[name("told"), name("well")], &nodes(), false);
        let among = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["told.host", "well.host"]});
        assert_eq!(held.terms(None).unwrap(), [json!({"matchExpressions": [among]})]);
    }

    #[test]
    fn each_of_the_pods_own_terms_is_narrowed_and_one_that_matches_nothing_goes_on_so() {
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let own = affinity(&json!([{"matchExpressions": [zone]}, {"matchFields": [zone]}, {}]));
        let narrowing = Narrowing::new(&[], &nodes(), true);
        assert_eq!(
            narrowing.terms(Some(&own)).unwrap(),
            [
                json!({"matchExpressions": [zone, health()]}),
                json!({"matchFields": [zone], "matchExpressions": [health()]}),
                json!({})
            ]
        );
    }
}
