//! The agent's calls: `/v1/nvca/clusters/{id}/…`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Gpu;

/// `PUT register`: an idempotent whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterRequest {
    pub status: RegisterStatus,
    pub k8s_version: String,
    pub gpus: Vec<Gpu>,
    pub allow_cluster_targeting: bool,
    pub allow_task_cluster_creation_queues: bool,
    pub nvca_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc_issuer: Option<String>,
}

/// What an agent may say of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RegisterStatus {
    Ready,
    Cordon,
    CordonAndDrain,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterAnswer {
    pub cluster_id: crate::ClusterId,
    pub cluster_group_id: crate::ClusterGroupId,
    #[serde(default)]
    pub credentials: Credentials,
}

/// Where the cluster's work comes from. With NATS on the service hands out empty ones: the streams have fixed names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    pub creation_queue: BTreeMap<String, QueueCredentials>,
    pub cluster_creation_queue: BTreeMap<String, QueueCredentials>,
    pub cluster_creation_queue_for_tasks: BTreeMap<String, QueueCredentials>,
    pub termination_queue: Option<QueueCredentials>,
}

/// Secrets are kept out of `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueCredentials {
    pub url: Option<String>,
    pub queue_type: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    pub expires_at: Option<String>,
}

/// `POST heartbeat`. Keys and their case are those of the real agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub status: AgentStatus,
    #[serde(rename = "upgradeStatus", default, skip_serializing_if = "String::is_empty")]
    pub upgrade_status: String,
    /// By GPU name. Required, if empty.
    #[serde(rename = "gpuUsage")]
    pub gpu_usage: BTreeMap<String, GpuUsage>,
    #[serde(rename = "clusterOwnerNcaID", default, skip_serializing_if = "String::is_empty")]
    pub cluster_owner_nca_id: String,
    #[serde(rename = "nvcaAgentVersion", default, skip_serializing_if = "String::is_empty")]
    pub nvca_agent_version: String,
    #[serde(rename = "nvcaOperatorVersion", default, skip_serializing_if = "String::is_empty")]
    pub nvca_operator_version: String,
    #[serde(rename = "clusterName", default, skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    #[serde(rename = "maintenanceMode", default)]
    pub maintenance_mode: MaintenanceMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaintenanceMode {
    #[default]
    None,
    CordonOnly,
    CordonAndDrain,
}

/// GPUs of one kind, whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuUsage {
    pub available: i64,
    pub capacity: i64,
    pub allocated: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    pub action: HeartbeatAction,
}

/// What the service wants of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HeartbeatAction {
    Accepted,
    SelfDestruct,
    /// What a newer service may say. Not a reason to do anything.
    #[serde(other)]
    Unknown,
}

/// `PUT jwks`: the cluster's own keys, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwksUpdate {
    pub jwks: String,
    /// `None` keeps what is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc_issuer: Option<String>,
}

impl std::fmt::Debug for QueueCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueCredentials")
            .field("url", &self.url)
            .field("queue_type", &self.queue_type)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
