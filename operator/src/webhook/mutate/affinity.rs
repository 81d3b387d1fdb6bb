//! A pod's instance type as a required node affinity. Pure.
//!
//! An instance type without its number of GPUs (`NCP.GPU.H100`) is the value of a label of the nodes. Older charts ask for
//! the label by its old name, which belongs to the cloud: only a value of our form is taken over to the new one.

use berth_kube_api::names::nvcf;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// The label's old name, which is also the cloud's for its own machine types.
const OLD: &str = "node.kubernetes.io/instance-type";
/// What every instance type of ours has in it: `PROVIDER.GPU.NAME`.
const MARK: &str = ".GPU.";

/// `NCP.GPU.B200_8x.x2` and `NCP.GPU.B200_8x` are shapes of `NCP.GPU.B200`.
pub(super) fn base(name: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((base, shape)) = name.rsplit_once('_') else {
        return name;
    };
    let (gpus, nodes) = match shape.split_once(".x") {
        Some((gpus, nodes)) => (gpus, Some(nodes)),
        None => (shape, None),
    };
    let is_shape = gpus.strip_suffix('x').is_some_and(is_number) && nodes.is_none_or(is_number);
    if is_shape { base } else { name }
}

/// Everything that asks for an instance type of ours by the old label asks by the new one.
pub(super) fn rename(spec: &mut PodSpec) {
    if let Some(selector) = &mut spec.node_selector
        && selector.get(OLD).is_some_and(|value| value.contains(MARK))
        && let Some(value) = selector.remove(OLD)
    {
        selector.insert(nvcf::INSTANCE_TYPE.to_owned(), value);
    }
    let node = spec
        .affinity
        .as_mut()
        .and_then(|affinity| affinity.node_affinity.as_mut());
    let Some(node) = node else { return };
    let required = node.required_during_scheduling_ignored_during_execution.as_mut();
    let required = required
        .into_iter()
        .flat_map(|selector| &mut selector.node_selector_terms);
    let preferred = node
        .preferred_during_scheduling_ignored_during_execution
        .iter_mut()
        .flatten();
    for term in required.chain(preferred.map(|preferred| &mut preferred.preference)) {
        for expression in term.match_expressions.iter_mut().flatten() {
            let values = expression.values.as_deref().unwrap_or_default();
            let is_ours = !values.is_empty() && values.iter().all(|value| value.contains(MARK));
            if expression.key == OLD && is_ours {
                nvcf::INSTANCE_TYPE.clone_into(&mut expression.key);
            }
        }
    }
}

/// Every way to a node leads to one of this kind: terms are alternatives, so each of them must say it.
pub(super) fn pin(spec: &mut PodSpec, kind: &str) {
    if let Some(value) = spec
        .node_selector
        .as_mut()
        .and_then(|it| it.get_mut(nvcf::INSTANCE_TYPE))
    {
        kind.clone_into(value);
    }
    let wanted = NodeSelectorRequirement {
        key: nvcf::INSTANCE_TYPE.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![kind.to_owned()]),
    };
    let node = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    let required = node
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    let terms = &mut required.node_selector_terms;
    if terms.is_empty() {
        terms.push(NodeSelectorTerm::default());
    }
    for term in terms {
        let expressions = term.match_expressions.get_or_insert_default();
        // What else was said of the kind would leave the pod without a node.
        expressions.retain(|expression| expression.key != nvcf::INSTANCE_TYPE || *expression == wanted);
        if !expressions.contains(&wanted) {
            expressions.push(wanted.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_an_instance_type_is_its_name_without_the_shape() {
        for (name, wanted) in [
            ("NCP.GPU.H100_1x", "NCP.GPU.H100"),
            ("ON-PREM.GPU.B200_8x.x2", "ON-PREM.GPU.B200"),
            ("NCP.GPU.H100", "NCP.GPU.H100"),
            ("NCP.GPU.my_gpu", "NCP.GPU.my_gpu"),
            ("NCP.GPU.my_gpu_16x", "NCP.GPU.my_gpu"),
            ("NCP.GPU.H100_x", "NCP.GPU.H100_x"),
            ("NCP.GPU.H100_8x.x", "NCP.GPU.H100_8x.x"),
            ("", ""),
        ] {
            assert_eq!(base(name), wanted, "{name}");
        }
    }
}
