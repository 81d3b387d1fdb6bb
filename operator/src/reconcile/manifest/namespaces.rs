//! Where the agent and functions live.

use serde_json::{Value, json};

use super::object;
use crate::names;

pub(super) fn all() -> [Value; 3] {
    let mut backend = object("v1", "Namespace", None, names::BACKEND_NAMESPACE);
    backend["metadata"]["labels"] = json!({names::WORKLOAD_INSTANCE_TYPE: "pod_spec"});
    // Functions have no business with the API server.
    let mut account = object("v1", "ServiceAccount", Some(names::BACKEND_NAMESPACE), "default");
    account["automountServiceAccountToken"] = json!(false);
    [
        object("v1", "Namespace", None, names::SYSTEM_NAMESPACE),
        backend,
        account,
    ]
}
