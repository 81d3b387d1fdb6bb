//! Secrets of a function's or task's own: an agent of the control plane (ESS) fetches them into a volume, first as an init
//! container and then beside the workload. Its configuration is written by the worker's init container. Pure.

use serde_json::{Value, json};

use super::{LaunchError, environment::Environment};
use crate::agent::work::message::Wish;

/// What it logs in with. Where it is there, there are secrets to fetch.
const TOKEN: &str = "SECRETS_ASSERTION_TOKEN";

/// Where secrets come from.
pub(super) struct Secrets {
    image: String,
    /// At the control plane.
    path: String,
}

impl Secrets {
    /// `None`: it has none.
    pub(super) fn of(wish: &Wish, environment: &Environment) -> Result<Option<Self>, LaunchError> {
        if environment.get(TOKEN).is_none() {
            let expects = |present| environment.get(present) == Some("true");
            return if expects("FUNCTION_SECRETS_PRESENT") || expects("TASK_SECRETS_PRESENT") {
                Err(LaunchError::Missing(
                    "SECRETS_ASSERTION_TOKEN, and there are secrets to fetch",
                ))
            } else {
                Ok(None)
            };
        }
        let image = environment
            .get("ESS_AGENT_CONTAINER")
            .ok_or(LaunchError::Missing("ESS_AGENT_CONTAINER"))?;
        if environment.get("INIT_CONTAINER").is_none() {
            return Err(LaunchError::Missing("INIT_CONTAINER"));
        }
        let path = path(wish)?;
        let image = image.to_owned();
        Ok(Some(Self { image, path }))
    }

    /// Into a pod that is complete but for them.
    pub(super) fn add_to(&self, pod: &mut Value) {
        let spec = &mut pod["spec"];
        for name in ["secret-data", "ess-data"] {
            // Not on the node's disk.
            push(
                &mut spec["volumes"],
                json!({"name": name, "emptyDir": {"medium": "Memory"}}),
            );
        }
        for container in spec["initContainers"].as_array_mut().into_iter().flatten() {
            push(&mut container["volumeMounts"], config());
        }
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            let mut secrets = data();
            secrets["readOnly"] = json!(true);
            push(&mut container["volumeMounts"], secrets);
            if container["name"] == "utils" {
                push(&mut container["volumeMounts"], config());
            }
        }
        push(&mut spec["initContainers"], self.container("ess-init", true));
        if let Some(containers) = spec["containers"].as_array_mut() {
            containers.insert(0, self.container("ess", false));
        }
    }

    fn container(&self, name: &str, is_first: bool) -> Value {
        let env = [
            ("ESS_AGENT_INIT", if is_first { "true" } else { "false" }),
            ("SECRET_DEST", "/var/secrets/secrets.json"),
            ("SECRET_PATH", &self.path),
        ];
        json!({"name": name, "image": self.image, "imagePullPolicy": "IfNotPresent",
            "args": ["-config=/config/ess-agent/config.hcl"],
            "env": env.map(|(name, value)| json!({"name": name, "value": value})),
            "resources": {"requests": {"cpu": "125m", "memory": "64Mi"}, "limits": {"cpu": "250m", "memory": "128Mi"}},
            "securityContext": {"capabilities": {"drop": ["NET_RAW"]}},
            "volumeMounts": [data(), config()]})
    }
}

fn path(wish: &Wish) -> Result<String, LaunchError> {
    let message = &wish.message;
    if wish.is_task {
        let task = message.task_details.as_ref().map(|details| details.task_id.as_str());
        let task = task.filter(|id| !id.is_empty()).ok_or(LaunchError::Missing("taskId"))?;
        return Ok(format!("tasks/{task}/secrets"));
    }
    let details = message.function_details.clone().unwrap_or_default();
    let function = message.function_id.clone().or(details.function_id);
    let version = message.function_version_id.clone().or(details.function_version_id);
    let (Some(function), Some(version)) = (function, version) else {
        return Err(LaunchError::Missing("functionId and functionVersionId"));
    };
    Ok(format!("functions/{function}/versions/{version}"))
}

fn data() -> Value {
    json!({"name": "secret-data", "mountPath": "/var/secrets"})
}

fn config() -> Value {
    json!({"name": "ess-data", "mountPath": "/config/ess-agent"})
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}
