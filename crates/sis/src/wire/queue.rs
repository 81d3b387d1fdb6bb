//! Messages that the service publishes to NATS JetStream, and where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ClusterId;

/// One message per instance to be made; subjects `Create.NVCA.{Function|Task}.{cluster}.{gpu}.{value}`.
pub const CREATION_STREAM: &str = "CreateNvcaFunctionTaskStream";
/// Subjects `Terminate.NVCA.{cluster}`.
pub const TERMINATION_STREAM: &str = "TerminateNvcaStream";

/// A wish for instances. Unset fields are left out on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreationMessage {
    pub request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    pub nca_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_group: Option<String>,
    /// `RequestSpotInstances`, also for what was asked as `RequestInstances`; `…ForTask` for tasks.
    pub action: String,
    pub message_batch_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub trace_state: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_details: Option<FunctionDetails>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_details: Option<TaskDetails>,
    pub launch_specification: LaunchSpecification,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_version_id: Option<String>,
    pub instance_count: i64,
    pub instance_type: String,
    pub instance_type_name: String,
    pub instance_type_value: String,
    #[serde(rename = "requestedGPUCount")]
    pub requested_gpu_count: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionDetails {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function_version_id: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDetails {
    pub task_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
}

/// What to start. Fields that are not named here are kept in `other`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LaunchSpecification {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_provider: Option<String>,
    /// Base64 of `KEY=VALUE` lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icms_environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helm_chart: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminationMessage {
    pub request_id: String,
    pub nca_id: String,
    /// `TerminateInstances`.
    pub action: String,
    pub instance_ids: Vec<String>,
    /// The cluster's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub trace_state: serde_json::Value,
}

/// The filter of a cluster's creation consumer.
pub fn creation_subjects(cluster: &ClusterId) -> String {
    format!("Create.NVCA.*.{cluster}.*.*")
}

/// The filter of a cluster's termination consumer.
pub fn termination_subject(cluster: &ClusterId) -> String {
    format!("Terminate.NVCA.{cluster}")
}
