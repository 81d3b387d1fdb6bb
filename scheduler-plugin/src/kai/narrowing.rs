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
    /// Off these: a GPU is broken there, and the node does not say so yet.
    pub(super) off: Vec<NodeName>,
}

impl Narrowing {
    /// `best`: nodes to which the pod is to be held, that of the hint first; empty: there is no hint. `broken`: nodes some GPU of
    /// which takes no pods. A hint for what is left of such a node stands, and leaves KAI the others of them, too.
    pub(super) fn new(
        hinted: Option<&NodeName>,
        top: &[NodeName],
        nodes: &[Arc<NodeFacts>],
        broken: &[NodeName],
    ) -> Self {
        let says_broken = |name: &NodeName| nodes.iter().any(|facts| facts.name == *name && facts.says_broken());
        let hostname = |name: &NodeName| nodes.iter().find(|facts| facts.name == *name)?.hostname();
        let top = top.iter().filter_map(hostname).map(str::to_owned).collect();
        if hinted.is_some_and(|node| broken.contains(node) || says_broken(node)) {
            return Self { top, ..Self::default() };
        }
        let silent = broken.iter().filter(|name| !says_broken(name));
        Self {
            top,
            off_broken: true,
            off: silent.cloned().collect(),
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
        // Of a field there may be one value only.
        let off = |node: &NodeName| json!({"key": "metadata.name", "operator": "NotIn", "values": [node.as_str()]});
        let fields = self.off.iter().map(off).collect();
        for (kind, additions) in [("matchExpressions", expressions), ("matchFields", fields)] {
            if !additions.is_empty() {
                let mut all = term[kind].as_array().cloned().unwrap_or_default();
                all.extend(additions);
                term[kind] = json!(all);
            }
        }
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
    fn a_pod_without_a_hint_is_kept_off_broken_gpus_also_where_the_node_does_not_say_so_yet() {
        let broken = [name("told"), name("silent")];
        for hinted in [None, Some(&name("well"))] {
            let narrowing = Narrowing::new(hinted, &[], &nodes(), &broken);
            let silent = json!({"key": "metadata.name", "operator": "NotIn", "values": ["silent"]});
            assert_eq!(
                narrowing.terms(None).unwrap(),
                [json!({"matchExpressions": [health()], "matchFields": [silent]})]
            );
        }
    }

    #[test]
    fn a_hint_for_what_is_left_of_a_node_stands() {
        let broken = [name("told"), name("silent")];
        for node in &broken {
            assert_eq!(Narrowing::new(Some(node), &[], &nodes(), &broken).terms(None), None);
        }
        let held = Narrowing::new(Some(&broken[0]), &[name("told"), name("well")], &nodes(), &broken);
        let among = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["told.host", "well.host"]});
        assert_eq!(held.terms(None).unwrap(), [json!({"matchExpressions": [among]})]);
    }

    #[test]
    fn each_of_the_pods_own_terms_is_narrowed_and_one_that_matches_nothing_goes_on_so() {
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let own = affinity(&json!([{"matchExpressions": [zone]}, {"matchFields": [zone]}, {}]));
        let narrowing = Narrowing::new(None, &[], &nodes(), &[]);
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
