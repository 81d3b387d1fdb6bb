//! Objects as the operator sees them: JSON with an identity; which kinds it owns; whether one is still as it was made.
//!
//! Owns the comparison. Knows neither where objects come from nor what is in them.

use std::fmt;

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::Value;

/// A kind of object that the operator makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub name: &'static str,
    pub plural: &'static str,
    /// What is not wanted any more is removed. Namespaces and definitions hold what is not ours.
    pub is_pruned: bool,
}

const fn kind(group: &'static str, kind: &'static str, plural: &'static str, is_pruned: bool) -> Kind {
    Kind {
        group,
        version: "v1",
        name: kind,
        plural,
        is_pruned,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// In the order in which they are made.
pub(super) const KINDS: [Kind; 14] = [
    kind(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
    kind("", "Namespace", "namespaces", false),
    kind("", "ServiceAccount", "serviceaccounts", true),
    kind(RBAC, "ClusterRole", "clusterroles", true),
    kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", true),
    kind(RBAC, "Role", "roles", true),
    kind(RBAC, "RoleBinding", "rolebindings", true),
    kind("networking.k8s.io", "NetworkPolicy", "networkpolicies", true),
    kind("", "ConfigMap", "configmaps", true),
    kind("", "Secret", "secrets", true),
    kind("", "Service", "services", true),
    kind(
        ADMISSION,
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        true,
    ),
    kind(
        ADMISSION,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        true,
    ),
    kind("apps", "Deployment", "deployments", true),
];

impl Kind {
    /// Of an object's JSON, if it is one of [`KINDS`].
    pub(super) fn of(object: &Value) -> Option<Self> {
        let api_version = object["apiVersion"].as_str()?;
        let name = object["kind"].as_str()?;
        KINDS
            .into_iter()
            .find(|it| it.name == name && it.api_version() == api_version)
    }

    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.to_owned();
        }
        format!("{}/{}", self.group, self.version)
    }

    pub(super) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.name);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub kind: Kind,
    pub namespace: Option<String>,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.name, self.name),
            None => write!(f, "{} {}", self.kind.name, self.name),
        }
    }
}

impl Key {
    /// Of an object that is to be applied.
    pub(super) fn of(object: &Value) -> Option<Self> {
        Some(Self {
            kind: Kind::of(object)?,
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        })
    }

    /// Of an object of that kind as the API server gave it.
    pub(super) fn of_live(kind: Kind, object: &DynamicObject) -> Option<Self> {
        Some(Self {
            kind,
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone()?,
        })
    }
}

/// Whether everything that `wanted` says is so in `live`. What others added is theirs.
///
/// A list is compared element by element: those that the operator writes are owned as a whole.
pub(super) fn holds(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, value)| {
            live.get(key)
                .map_or_else(|| is_nothing(value), |live| holds(value, live))
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| holds(wanted, live))
        }
        (wanted, live) => wanted == live || is_nothing(wanted) && is_nothing(live),
    }
}

/// What the API server does not store.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_added_is_no_drift_and_what_they_changed_is() {
        let wanted = json!({"spec": {"ports": [{"port": 1}], "selector": {"a": "b"}}, "data": {}});
        let live =
            json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}], "selector": {"a": "b", "c": "d"}}, "status": 1});
        assert!(holds(&wanted, &live));
        for changed in [
            json!({"spec": {"ports": [{"port": 2}], "selector": {"a": "b"}}}),
            json!({"spec": {"ports": [], "selector": {"a": "b"}}}),
            json!({"spec": {"ports": [{"port": 1}, {"port": 2}], "selector": {"a": "b"}}}),
            json!({"spec": {"ports": [{"port": 1}]}}),
            json!({}),
        ] {
            assert!(!holds(&wanted, &changed), "{changed}");
        }
    }

    #[test]
    fn an_object_is_known_by_kind_namespace_and_name() {
        let object =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nvca", "namespace": "s"}});
        let key = Key::of(&object).unwrap();
        assert_eq!(key.to_string(), "Deployment s/nvca");
        assert_eq!(key.kind.resource().plural, "deployments");
        assert_eq!(
            Key::of(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})),
            None
        );
    }
}
