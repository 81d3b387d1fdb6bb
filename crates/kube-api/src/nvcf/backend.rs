//! `nvcfbackends.nvcf.nvidia.io`: the cluster as a backend of NVCF; what `kubectl get nvcfbackends` shows.
//!
//! Owns the resource's form: the fields that Berth reads and writes, typed, so that the API server refuses a wrong one; what
//! else the real operator's resource can hold stays where it is. Written by nvca-operator, but `overrides`, which is the user's.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{opaque, opaques};

/// What the cluster shall be.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nvcf.nvidia.io",
    version = "v1",
    kind = "NVCFBackend",
    root = "NvcfBackend",
    plural = "nvcfbackends",
    namespaced,
    status = "NvcfBackendStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "This cluster as a backend of NVCF.",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Health","type":"string","jsonPath":".status.agentStatus"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Cluster","type":"string","priority":1,"jsonPath":".spec.clusterConfig.clusterID"}"#
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NvcfBackendSpec {
    /// Of the agent.
    pub version: String,
    pub nvca_image_config: ImageConfig,
    pub account_config: AccountConfig,
    pub cluster_config: ClusterConfig,
    pub feature_gate: FeatureGate,
    pub icms_config: IcmsConfig,
    pub agent_config: AgentConfig,
    /// How the cluster came to be known: `self-hosted`.
    pub cluster_source: String,
    /// The user's: fields of this spec that win over what the chart says. A list replaces a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub overrides: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageConfig {
    pub repository: String,
    pub tag: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pull_policy: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AccountConfig {
    #[serde(rename = "ncaID")]
    pub nca_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ClusterConfig {
    pub attributes: Vec<String>,
    pub cloud_provider: String,
    #[serde(rename = "clusterGroupID")]
    pub cluster_group_id: String,
    pub cluster_group_name: String,
    #[serde(rename = "clusterID")]
    pub cluster_id: String,
    pub cluster_name: String,
    pub description: String,
    pub gpu_discovery: GpuDiscovery,
    pub log_level: String,
    pub mini_service: MiniServiceConfig,
    pub region: String,
}

/// Who says which GPUs there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct GpuDiscovery {
    /// The agent finds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub dynamic: Option<Value>,
    /// They are listed: `allocatedGPUCapacity`, and as SIS knows them `gpus`.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub fixed: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MiniServiceConfig {
    #[serde(rename = "helmReValServiceURL")]
    pub reval_url: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct FeatureGate {
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct IcmsConfig {
    #[serde(rename = "icmsServiceURL")]
    pub url: String,
    #[serde(rename = "icmsServiceHostHeaderOverride", skip_serializing_if = "String::is_empty")]
    pub host: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct AgentConfig {
    #[serde(rename = "natsURL")]
    pub nats_url: String,
    /// As in a pod's spec: of the agent's own pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "opaques")]
    pub tolerations: Vec<Value>,
}

/// What the cluster is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct NvcfBackendStatus {
    /// Of the agent that is applied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// `healthy`, `unhealthy` or `Unknown`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_status: String,
    /// By the GPU's name.
    pub gpu_usage: BTreeMap<String, GpuUsage>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kubernetes_version: String,
    /// When [`Self::agent_status`] changed, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_updated_agent_status: String,
    pub conditions: Vec<Condition>,
}

/// In GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GpuUsage {
    pub capacity: u32,
    pub allocated: u32,
    pub available: u32,
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;

    #[test]
    fn the_resource_has_the_name_and_the_columns_that_the_documentation_uses() {
        let crd = NvcfBackend::crd();
        assert_eq!(crd.metadata.name.as_deref(), Some("nvcfbackends.nvcf.nvidia.io"));
        let names = (crd.spec.scope.as_str(), crd.spec.names.kind.as_str());
        assert_eq!(names, ("Namespaced", "NVCFBackend"));
        let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap();
        let path = |name: &str| columns.iter().find(|it| it.name == name).unwrap().json_path.clone();
        let paths = (path("Version"), path("Health"));
        assert_eq!(paths, (".status.version".to_owned(), ".status.agentStatus".to_owned()));
    }

    #[test]
    fn what_the_real_operator_wrote_can_be_read() {
        let spec: NvcfBackendSpec = serde_json::from_value(serde_json::json!({
            "version": "3.2.7", "clusterSource": "self-hosted", "vaultConfig": {"enabled": false},
            "clusterConfig": {"clusterID": "c", "gpuDiscovery": {"dynamic": {}}, "nvsnap": {}},
            "webhookConfig": {"imageConfig": {"repository": ""}},
        }))
        .unwrap();
        assert_eq!(spec.cluster_config.cluster_id, "c");
        assert!(spec.cluster_config.gpu_discovery.dynamic.is_some());
    }
}
