//! Cluster management: what is asked of, and answered by, `/v1/accounts/{nca}/clusters`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::GpuUsage;
use crate::check::Problem;

/// Whose machines the cluster runs on. Case counts on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CloudProvider {
    #[serde(rename = "ON-PREM")]
    OnPrem,
    #[serde(rename = "DGX-CLOUD")]
    DgxCloud,
    #[serde(rename = "AWS")]
    Aws,
    #[serde(rename = "OCI")]
    Oci,
    #[serde(rename = "AZURE")]
    Azure,
    #[serde(rename = "GDN")]
    Gdn,
    #[serde(rename = "GFN")]
    Gfn,
    #[serde(rename = "GCP")]
    Gcp,
    #[serde(rename = "NCP")]
    Ncp,
}

/// `POST …/clusters`. Make it with [`crate::check::new_cluster`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateCluster {
    pub cluster_name: String,
    pub cluster_group_name: String,
    pub nca_id: String,
    pub cloud_provider: CloudProvider,
    pub nvca_version: String,
    pub region: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_description: String,
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Decides the cluster's id: see [`crate::ClusterId::of_client`]. Empty: a random id.
    #[serde(rename = "oAuthClientId", default, skip_serializing_if = "String::is_empty")]
    pub oauth_client_id: String,
    /// The cluster's own key set, as text, where its agent shows tokens of the cluster itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc_issuer: Option<String>,
}

/// What a creation answers. The texts may be empty only if the service is broken: parse them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCreated {
    pub cluster_id: crate::ClusterId,
    pub cluster_group_id: crate::ClusterGroupId,
}

/// `PUT …/clusters/{id}`. What is left out is in part kept and in part reset by the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateCluster {
    pub cluster_group_name: String,
    pub cloud_provider: CloudProvider,
    pub nvca_version: String,
    pub region: String,
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default)]
    pub attributes: Vec<String>,
}

/// A cluster as the service tells it. Fields that we never read stay out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub cluster_id: crate::ClusterId,
    pub cluster_group_id: crate::ClusterGroupId,
    pub cluster_name: String,
    pub cluster_group_name: String,
    #[serde(default)]
    pub nca_id: Option<String>,
    #[serde(default)]
    pub cloud_provider: Option<String>,
    #[serde(default)]
    pub region: Option<String>,
    /// `NOT_READY`, `READY`, `UNHEALTHY`, `CORDON`, `CORDON_AND_DRAIN` and more; `READY` needs a fresh heartbeat.
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub nvca_version: Option<String>,
    #[serde(rename = "oAuthClientId", default)]
    pub oauth_client_id: Option<String>,
    #[serde(default)]
    pub nvca_last_connected: Option<String>,
    #[serde(default)]
    pub k8s_version: Option<String>,
    #[serde(default)]
    pub capabilities: Option<Vec<String>>,
    #[serde(default)]
    pub gpus: Option<Vec<Gpu>>,
    #[serde(default)]
    pub gpu_usage: Option<BTreeMap<String, GpuUsage>>,
}

/// A kind of GPU and the shapes in which it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// At most 22 letters, digits, `-` and `_`: see [`crate::check::gpu_name`].
    pub name: String,
    /// Only with a static list of GPUs.
    #[serde(default, skip_serializing_if = "is_null_or_zero")]
    pub capacity: Option<i64>,
    #[serde(default)]
    pub instance_types: Vec<InstanceType>,
}

/// One shape. Exactly one of a GPU's shapes must be the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceType {
    /// E.g. `NCP.GPU.H100_1x`: what a customer asks for.
    pub name: String,
    /// E.g. `NCP.GPU.H100`: what names the queue.
    pub value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// A Kubernetes quantity; the service ignores it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpu: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system_memory: String,
    /// Of all its GPUs together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gpu_memory: String,
    #[serde(default)]
    pub gpu_count: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cpu_arch: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub storage: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<NodeType>,
    #[serde(default)]
    pub cpu_cores: i64,
    /// How many of them the cluster can run; the service ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<i64>,
    /// How many GPUs of it nothing can be put on; the service ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable_capacity: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum NodeType {
    Single,
    Multi,
}

// === impl CloudProvider ===

impl CloudProvider {
    /// In the service's own order: its index is what an integer in the JSON means.
    pub const ALL: [Self; 9] = [
        Self::OnPrem,
        Self::DgxCloud,
        Self::Aws,
        Self::Oci,
        Self::Azure,
        Self::Gdn,
        Self::Gfn,
        Self::Gcp,
        Self::Ncp,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnPrem => "ON-PREM",
            Self::DgxCloud => "DGX-CLOUD",
            Self::Aws => "AWS",
            Self::Oci => "OCI",
            Self::Azure => "AZURE",
            Self::Gdn => "GDN",
            Self::Gfn => "GFN",
            Self::Gcp => "GCP",
            Self::Ncp => "NCP",
        }
    }
}

impl fmt::Display for CloudProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CloudProvider {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let known = Self::ALL.into_iter().find(|provider| provider.as_str() == text);
        known.ok_or_else(|| Problem::Provider { value: text.to_owned() })
    }
}

#[expect(clippy::ref_option, reason = "serde calls it with what it has")]
fn is_null_or_zero(value: &Option<i64>) -> bool {
    matches!(value, None | Some(0))
}

impl Cluster {
    /// One of a list's entries; `None` for what has no usable id or name.
    pub fn from_entry(entry: Value) -> Option<Self> {
        serde_json::from_value(entry).ok()
    }
}
