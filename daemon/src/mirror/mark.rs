//! What keeps pods off a node whose GPUs are all broken, where that is wanted: a taint or a cordon of the node.
//!
//! Owns nothing but its own marks: other taints, and a cordon of somebody else's, stay as they are. What another mode left is
//! taken away.

use berth_kube_api::{gpu_node::GpuNodeStatus, names::berth as names};
use berth_placement::NodeName;
use berth_runtime::kubernetes::{ApiError, DEADLINE, within};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

use crate::conditions::{ConditionType, NOT_ANSWERING, STARTING};

/// Changes of the node by others that are waited out in one turn.
const ATTEMPTS: usize = 5;
const NO_SCHEDULE: &str = "NoSchedule";

/// How a node says that none of its GPUs is usable, besides the label, which it always has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NodeHealth {
    /// By the label alone.
    #[default]
    Label,
    /// By the taint `gpu.berth.dev/unhealthy:NoSchedule`.
    Taint,
    /// By a cordon, with the annotation `gpu.berth.dev/cordoned`.
    Cordon,
}

/// Whether the node has GPUs and none of them takes pods by its health. One without any is not: a driver that is being replaced
/// must not be kept off its own node. `None`: the driver has not been heard yet, be it that it hangs since before the start.
pub(super) fn is_unhealthy(status: &GpuNodeStatus) -> Option<bool> {
    let is_usable = |health: &str| matches!(health, "Healthy" | "Suspect");
    let driver = status
        .conditions
        .iter()
        .find(|it| it.kind == ConditionType::DriverReady.as_str())?;
    let is_silent = driver.reason == NOT_ANSWERING && status.devices.is_empty();
    let is_known = driver.reason != STARTING && !is_silent;
    is_known.then(|| !status.devices.is_empty() && !status.devices.iter().any(|device| is_usable(&device.health)))
}

/// Makes the marks of the node, as it was just found, what they are to be. A node that has gone needs none.
pub(super) async fn mark(
    api: &Api<Node>,
    name: &NodeName,
    mut node: Node,
    mode: NodeHealth,
    is_unhealthy: bool,
) -> Result<(), ApiError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let Some(patch) = change(&node, mode, is_unhealthy) else {
            return Ok(());
        };
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match within(DEADLINE, api.patch(name.as_str(), &params, &patch)).await {
            Ok(_) => {
                info!(?mode, is_unhealthy, "the node's mark is changed");
                return Ok(());
            }
            Err(error) if error.is_conflict() && attempts < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        node = match within(DEADLINE, api.get_opt(name.as_str())).await? {
            Some(node) => node,
            None => return Ok(()),
        };
    }
}

/// A merge patch of just this version of the node; `None`: it is as it is to be.
fn change(node: &Node, mode: NodeHealth, is_unhealthy: bool) -> Option<Value> {
    let mut spec = json!({});
    let mut annotations = json!({});
    let old = node.spec.as_ref();

    let taints = old.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let (ours, mut others): (Vec<Taint>, Vec<Taint>) = taints.iter().cloned().partition(is_ours);
    let wants_taint = mode == NodeHealth::Taint && is_unhealthy;
    if ours.is_empty() == wants_taint {
        others.extend(wants_taint.then(taint));
        spec["taints"] = json!(others);
    }

    let is_cordoned = old.and_then(|spec| spec.unschedulable) == Some(true);
    let is_own = node.annotations().contains_key(names::CORDONED);
    let wants_cordon = mode == NodeHealth::Cordon && is_unhealthy;
    match (wants_cordon, is_own) {
        // Somebody else's stays somebody else's.
        (true, false) if !is_cordoned => {
            spec["unschedulable"] = json!(true);
            annotations[names::CORDONED] = json!("true");
        }
        (false, true) => {
            // Null also where a person was quicker.
            spec["unschedulable"] = Value::Null;
            annotations[names::CORDONED] = Value::Null;
        }
        // Ours that a person took back stays so until the node recovered.
        (true, _) | (false, false) => {}
    }
    let is_same = spec == json!({}) && annotations == json!({});
    (!is_same).then(
        || json!({"metadata": {"resourceVersion": node.resource_version(), "annotations": annotations}, "spec": spec}),
    )
}

fn is_ours(taint: &Taint) -> bool {
    taint.key == names::UNHEALTHY && taint.effect == NO_SCHEDULE
}

fn taint() -> Taint {
    Taint {
        key: names::UNHEALTHY.to_owned(),
        effect: NO_SCHEDULE.to_owned(),
        ..Taint::default()
    }
}

#[cfg(test)]
mod tests {
    use berth_kube_api::gpu_node::{Condition, Device};

    use super::*;

    fn node(spec: &Value, annotations: &Value) -> Node {
        let metadata = json!({"name": "n", "resourceVersion": "7", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// What becomes of a node by the change; the same: there is none.
    fn after(spec: Value, annotations: Value, mode: NodeHealth, is_unhealthy: bool) -> (Value, Value) {
        let Some(patch) = change(&node(&spec, &annotations), mode, is_unhealthy) else {
            return (spec, annotations);
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "7", "of that version only");
        let merged = |old: Value, patch: &Value| {
            let mut new = old;
            for (key, value) in patch.as_object().unwrap() {
                new[key] = value.clone();
            }
            new.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            new
        };
        let annotations = merged(annotations, &patch["metadata"]["annotations"]);
        (merged(spec, &patch["spec"]), annotations)
    }

    #[test]
    fn a_node_is_unhealthy_once_no_gpu_of_it_is_usable() {
        let after = |reason: &str, healths: &[&str]| GpuNodeStatus {
            conditions: vec![Condition {
                kind: "DriverReady".to_owned(),
                reason: reason.to_owned(),
                ..Condition::default()
            }],
            devices: healths
                .iter()
                .map(|health| Device {
                    health: (*health).to_owned(),
                    ..Device::default()
                })
                .collect(),
            ..GpuNodeStatus::default()
        };
        let with = |healths: &[&str]| is_unhealthy(&after("Answering", healths));
        assert_eq!(with(&["Unhealthy", "Recovering"]), Some(true));
        assert_eq!(with(&["Unhealthy", "Suspect"]), Some(false));
        assert_eq!(with(&[]), Some(false), "no GPU at all is another story");
        assert_eq!(
            is_unhealthy(&after("Starting", &[])),
            None,
            "a restart takes no mark away"
        );
        assert_eq!(
            is_unhealthy(&after("NotAnswering", &[])),
            None,
            "nor does one while the driver hangs"
        );
        assert_eq!(is_unhealthy(&after("NotAnswering", &["Unhealthy"])), Some(true));
    }

    #[test]
    fn the_taint_comes_and_goes_and_others_stay() {
        let other = json!({"key": "nvidia.com/gpu", "effect": "NoSchedule"});
        let ours = json!({"key": "gpu.berth.dev/unhealthy", "effect": "NoSchedule"});
        let healthy = json!({"taints": [other]});
        let (tainted, _) = after(healthy.clone(), json!({}), NodeHealth::Taint, true);
        assert_eq!(tainted, json!({"taints": [other, ours]}));
        let same = after(tainted.clone(), json!({}), NodeHealth::Taint, true).0;
        assert_eq!(same, tainted);
        for (mode, is_unhealthy) in [(NodeHealth::Taint, false), (NodeHealth::Label, true)] {
            assert_eq!(after(tainted.clone(), json!({}), mode, is_unhealthy).0, healthy);
        }
        assert_eq!(change(&node(&json!({}), &json!({})), NodeHealth::Label, true), None);
    }

    #[test]
    fn only_its_own_cordon_is_undone() {
        let (free, cordoned) = (json!({}), json!({"unschedulable": true}));
        let own = json!({"gpu.berth.dev/cordoned": "true"});
        let bad = |spec: &Value, marks: &Value| after(spec.clone(), marks.clone(), NodeHealth::Cordon, true);
        let good = |spec: &Value, marks: &Value| after(spec.clone(), marks.clone(), NodeHealth::Cordon, false);
        let none = json!({});
        assert_eq!(bad(&free, &none), (cordoned.clone(), own.clone()));
        assert_eq!(good(&cordoned, &own), (free.clone(), none.clone()));
        assert_eq!(bad(&cordoned, &none), (cordoned.clone(), none.clone()));
        assert_eq!(good(&cordoned, &none), (cordoned.clone(), none.clone()));
        // A person took it back: it stays so, and with the recovery nothing is left.
        assert_eq!(bad(&free, &own), (free.clone(), own.clone()));
        assert_eq!(good(&free, &own), (free.clone(), none.clone()));
        assert_eq!(after(cordoned, own, NodeHealth::Taint, false), (free, none));
    }
}
