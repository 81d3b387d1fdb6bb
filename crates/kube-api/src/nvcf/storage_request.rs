//! `storagerequests.nvca.nvcf.nvidia.io`: storage that an instance needs. Owns the resource's form.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::opaque;

/// What is needed.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nvca.nvcf.nvidia.io",
    version = "v1",
    kind = "StorageRequest",
    plural = "storagerequests",
    namespaced,
    status = "StorageRequestStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Storage that an instance of a function needs.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct StorageRequestSpec {
    /// `modelcache`, `sharedstorage` or `internalpersistentstorage`.
    #[serde(rename = "type")]
    pub kind: String,
    pub icms_request_name: String,
    pub icms_request_namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub model_cache: Option<Value>,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct StorageRequestStatus {
    /// `Pending`, `InitRunning`, `Creating`, `Ready`, `Failed` or `RuntimeError`.
    pub phase: String,
}

/// The definition, with the older version that is served still, of the same form.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = StorageRequest::crd();
    let older = crd.spec.versions.first().cloned().map(|mut version| {
        "v2beta1".clone_into(&mut version.name);
        version.storage = false;
        version
    });
    crd.spec.versions.extend(older);
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_served_and_one_is_stored() {
        let crd = definition();
        assert_eq!(
            crd.metadata.name.as_deref(),
            Some("storagerequests.nvca.nvcf.nvidia.io")
        );
        let versions = crd
            .spec
            .versions
            .iter()
            .map(|it| (it.name.as_str(), it.served, it.storage));
        assert!(versions.eq([("v1", true, true), ("v2beta1", true, false)]));
    }
}
