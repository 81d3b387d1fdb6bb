//! What the API server asks the agent's webhook server. Only what it needs: the real configuration also stops the creation of
//! every Secret and ConfigMap in functions' namespaces while the webhook is away.

use serde_json::{Value, json};

use super::object;
use crate::names;

pub(super) fn all(ca_bundle: &Value) -> [Value; 2] {
    let workload = |kinds: &[&str]| json!({"matchExpressions": [{"key": names::WORKLOAD_INSTANCE_TYPE, "operator": "In", "values": kinds}]});
    let hook = |name: &str, path: &str, selector: Value, operations: &[&str], resources: &[&str]| {
        let service = json!({
            "name": names::AGENT, "namespace": names::SYSTEM_NAMESPACE, "port": 8443, "path": path,
        });
        json!({
            "name": format!("{name}.nvca.nvcf.nvidia.io"),
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"caBundle": ca_bundle, "service": service},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "namespaceSelector": selector,
            "objectSelector": {},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": resources,
                "scope": "Namespaced",
            }],
            "sideEffects": "None",
            "timeoutSeconds": 10,
        })
    };
    let admission = "admissionregistration.k8s.io/v1";
    let mut validating = object(admission, "ValidatingWebhookConfiguration", None, names::AGENT);
    let only_charts = workload(&["miniservice"]);
    validating["webhooks"] = json!([hook(
        "validate-helm-charts",
        "/validate",
        only_charts,
        &["CREATE", "UPDATE"],
        &["pods"]
    )]);
    let mut mutating = object(admission, "MutatingWebhookConfiguration", None, names::AGENT);
    let both = || workload(&["pod_spec", "miniservice"]);
    let mut hooks = [
        hook(
            "mutate-pod-nodeaffinity",
            "/mutate-pod-nodeaffinity",
            both(),
            &["CREATE"],
            &["pods"],
        ),
        hook(
            "nvca-mutating-webhook",
            "/nvca-mutating-webhook",
            both(),
            &["CREATE"],
            &["pods"],
        ),
    ];
    for hook in &mut hooks {
        hook["reinvocationPolicy"] = json!("Never");
    }
    mutating["webhooks"] = json!(hooks);
    [validating, mutating]
}
