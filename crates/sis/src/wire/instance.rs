//! Instances: what the agent acknowledges and reports, and what the service believes.

use serde::{Deserialize, Serialize};

/// `PUT /v1/sirs/{requestId}`: the agent takes a request on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledge {
    pub instance_count: i64,
    pub message_batch_id: String,
    /// `pending-fulfillment`.
    pub status: String,
}

/// `POST /v1/sirs/{requestId}/{instanceId}`: how an instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceUpdate {
    /// E.g. `fulfilled`, `instance-terminated-by-user`.
    pub status: String,
    /// `starting`, `running`, `shutting-down`, `terminated`.
    pub instance_state: String,
    /// `active` or `closed`.
    pub request_state: String,
    pub action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub termination_cause: String,
    #[serde(default)]
    pub health_info: HealthInfo,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system_failure: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_ips: Vec<String>,
}

/// Why an instance is not well, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_log: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_source: String,
}

/// `GET /v1/si/clusters/{id}/instances`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceList {
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub instance_id: String,
    pub request_id: String,
    pub instance_state: String,
}

impl Acknowledge {
    /// The one status that an acknowledgement has.
    pub const STATUS: &str = "pending-fulfillment";
}
