//! What objects of a function's own namespace may not ask for: anything that reaches past the pod into its node. Pure.

use std::fmt;

use berth_runtime::Misread;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::Value;
use thiserror::Error;

/// ServiceAccounts of the agent's own helpers in that namespace: a function could forge their tokens.
const WORKER_ACCOUNT: &str = "nvcf-worker-";

/// Everything that is wrong with an object, at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Refusals(Vec<String>);

/// The object has no pod where its kind has one.
#[derive(Debug, Error)]
#[error("the {kind} holds a pod that cannot be read")]
pub(super) struct Unreadable {
    kind: String,
    #[source]
    source: Misread,
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// The pod that an object makes; `None`: it makes none.
pub(super) fn pod_of(kind: &str, object: &Value) -> Result<Option<PodSpec>, Unreadable> {
    let spec = match kind {
        "Pod" => &object["spec"],
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => &object["spec"]["template"]["spec"],
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        _ => return Ok(None),
    };
    let pod = serde_json::from_value(spec.clone());
    pod.map(Some).map_err(|source: serde_json::Error| Unreadable {
        kind: kind.to_owned(),
        source: source.into(),
    })
}

/// # Errors
/// All that the pod must not have.
pub fn validate(pod: &PodSpec) -> Result<(), Refusals> {
    let mut refusals = Vec::new();
    let mut refuse = |wrong: bool, text: String| {
        if wrong {
            refusals.push(text);
        }
    };
    for (name, is_on) in [
        ("hostNetwork", pod.host_network),
        ("hostPID", pod.host_pid),
        ("hostIPC", pod.host_ipc),
    ] {
        refuse(is_on == Some(true), format!("{name} is not allowed"));
    }
    for volume in pod.volumes.iter().flatten() {
        let name = &volume.name;
        refuse(
            volume.host_path.is_some(),
            format!("volume {name}: hostPath is not allowed"),
        );
    }
    let account = pod.service_account_name.as_deref().unwrap_or_default();
    refuse(
        account.starts_with(WORKER_ACCOUNT),
        format!("the ServiceAccount {account} is the agent's own"),
    );
    let ephemeral = pod.ephemeral_containers.iter().flatten().map(|container| Container {
        name: container.name.clone(),
        security_context: container.security_context.clone(),
        ports: container.ports.clone(),
        ..Container::default()
    });
    let init = pod.init_containers.iter().flatten().cloned();
    for container in init.chain(pod.containers.iter().cloned()).chain(ephemeral) {
        let privileged = container
            .security_context
            .as_ref()
            .and_then(|context| context.privileged);
        let name = &container.name;
        refuse(
            privileged == Some(true),
            format!("container {name}: privileged is not allowed"),
        );
        let host_port = container
            .ports
            .iter()
            .flatten()
            .any(|port| port.host_port.is_some_and(|port| port > 0));
        refuse(host_port, format!("container {name}: hostPort is not allowed"));
    }
    if refusals.is_empty() {
        Ok(())
    } else {
        Err(Refusals(refusals))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Empty: allowed.
    fn verdict(kind: &str, object: &Value) -> String {
        let pod = pod_of(kind, object).unwrap().unwrap();
        validate(&pod)
            .err()
            .map(|refusals| refusals.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn an_ordinary_pod_is_allowed() {
        let pod = json!({"spec": {"containers": [{"name": "c", "securityContext": {"privileged": false}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "hostNetwork": false}});
        assert_eq!(verdict("Pod", &pod), "");
    }

    #[test]
    fn whatever_reaches_into_the_node_is_refused_and_all_of_it_is_told() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true, "hostIPC": true, "serviceAccountName": "nvcf-worker-1",
            "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
            "initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
            "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}],
            "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}],
        });
        let told = verdict("Pod", &json!({"spec": spec}));
        for text in [
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "volume v: hostPath",
            "container i: privileged",
            "container c: hostPort",
            "container e: privileged",
            "nvcf-worker-1 is the agent's own",
        ] {
            assert!(told.contains(text), "{text} is not in: {told}");
        }
        for (kind, object) in [
            ("Deployment", json!({"spec": {"template": {"spec": spec}}})),
            ("StatefulSet", json!({"spec": {"template": {"spec": spec}}})),
            ("Job", json!({"spec": {"template": {"spec": spec}}})),
            (
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
            ),
        ] {
            assert_eq!(verdict(kind, &object), told, "{kind}");
        }
    }

    #[test]
    fn objects_without_a_pod_are_none_and_a_pod_that_is_none_is_an_error() {
        assert!(
            pod_of("Service", &json!({"spec": {"type": "ClusterIP"}}))
                .unwrap()
                .is_none()
        );
        assert!(pod_of("Pod", &json!({"spec": {"containers": 5}})).is_err());
    }
}
