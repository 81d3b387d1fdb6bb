//! What the agent may do. Cluster-wide it reads, and labels nodes; what it writes is in the namespaces of functions and its own.
//!
//! The operator may grant only what it may do itself (Kubernetes' escalation check), so the chart's role for the operator holds
//! these rules too; the chart's tests have a real API server check it.

use serde_json::{Value, json};

use super::object;
use crate::{names, reconcile::settings::Settings};

const GROUP: &str = "rbac.authorization.k8s.io";
const API: &str = "rbac.authorization.k8s.io/v1";

/// Of the ClusterRole `nvca`.
pub(super) fn agent_rules() -> Value {
    let read = ["get", "list", "watch"];
    json!([
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": read},
        {"apiGroups": [""], "resources": ["pods"], "verbs": read},
        {"apiGroups": ["gpu.berth.dev"], "resources": ["gpunodes"], "verbs": read},
        {"apiGroups": ["scheduling.run.ai"], "resources": ["queues"], "verbs": read},
    ])
}

/// Of the Role `nvca` where functions run.
pub(super) fn backend_rules() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "patch", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete", "get", "list", "patch", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {
            "apiGroups": ["nvca.nvcf.nvidia.io"], "resources": ["icmsrequests", "icmsrequests/status"],
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        },
    ])
}

/// Of the Role `nvca` where the agent runs.
pub(super) fn system_rules() -> Value {
    json!([
        {
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": [names::WEBHOOK_CERTIFICATE],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [names::AGENT_CONFIG],
            "verbs": ["get", "list", "watch"],
        },
    ])
}

pub(super) fn all(settings: &Settings) -> Vec<Value> {
    let mut account = object("v1", "ServiceAccount", Some(names::SYSTEM_NAMESPACE), names::AGENT);
    account["automountServiceAccountToken"] = json!(false);
    let secrets: Vec<Value> = settings.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    account["imagePullSecrets"] = json!(secrets);
    let subjects = json!([{
        "kind": "ServiceAccount", "name": names::AGENT, "namespace": names::SYSTEM_NAMESPACE,
    }]);
    let bound = |mut binding: Value, kind: &str| {
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": names::AGENT});
        binding["subjects"] = subjects.clone();
        binding
    };
    let ruled = |mut role: Value, rules: Value| {
        role["rules"] = rules;
        role
    };
    let mut objects = vec![
        account,
        ruled(object(API, "ClusterRole", None, names::AGENT), agent_rules()),
        bound(object(API, "ClusterRoleBinding", None, names::AGENT), "ClusterRole"),
    ];
    for (namespace, rules) in [
        (names::BACKEND_NAMESPACE, backend_rules()),
        (names::SYSTEM_NAMESPACE, system_rules()),
    ] {
        objects.push(ruled(object(API, "Role", Some(namespace), names::AGENT), rules));
        objects.push(bound(object(API, "RoleBinding", Some(namespace), names::AGENT), "Role"));
    }
    objects
}
