//! `miniservices.nvca.nvcf.nvidia.io`: an instance of a function that is a Helm chart. Owns the resource's form.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::opaque;

/// What is to run.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nvca.nvcf.nvidia.io",
    version = "v1alpha1",
    kind = "MiniService",
    plural = "miniservices",
    status = "MiniServiceStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An instance of a function that is a Helm chart.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MiniServiceSpec {
    /// Of the instance alone: `sr-…`.
    pub namespace: String,
    pub icms_request_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub helm_chart_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub workload_config: Option<Value>,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MiniServiceStatus {
    /// `CachingInProgress`, `Installing`, `Installed`, `Starting`, `InstallFailed`, `Running`, `Failed` or `Completed`.
    pub phase: String,
}
