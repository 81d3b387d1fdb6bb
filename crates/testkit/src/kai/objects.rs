//! KAI's custom resources, as far as they are used here. Field for field optional, as KAI has them.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// "Bind this pod to that node": from whoever decides to the binder.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize)]
#[kube(
    group = "scheduling.run.ai",
    version = "v1alpha2",
    kind = "BindRequest",
    namespaced,
    status = "BindRequestStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct BindRequestSpec {
    pub pod_name: String,
    pub selected_node: String,
    /// `Regular` or `Fraction`.
    pub received_resource_type: String,
    #[serde(rename = "receivedGPU", skip_serializing_if = "Option::is_none")]
    pub received_gpu: Option<ReceivedGpu>,
    #[serde(rename = "selectedGPUGroups", skip_serializing_if = "Vec::is_empty")]
    pub selected_gpu_groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
}

/// What a pod gets of the node's GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceivedGpu {
    /// None where the pod asked for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub count: i64,
    /// Of each of them, with two decimals: `1.00`.
    pub portion: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BindRequestStatus {
    /// Empty at first, then `Succeeded` or `Failed`.
    pub phase: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub failed_attempts: i32,
}

/// Pods that are placed together.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize)]
#[kube(
    group = "scheduling.run.ai",
    version = "v2alpha2",
    kind = "PodGroup",
    namespaced,
    status = "PodGroupStatus",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroupSpec {
    /// All or nothing, up to so many.
    pub min_member: i32,
    pub queue: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub priority_class_name: String,
    /// `preemptible`, `non-preemptible`, or empty: by priority.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub preemptibility: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroupStatus {
    pub scheduling_conditions: Vec<SchedulingCondition>,
}

/// Why a group does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingCondition {
    /// `UnschedulableOnNodePool`.
    #[serde(rename = "type")]
    pub type_: String,
    pub node_pool: String,
    pub reason: String,
    pub message: String,
    pub status: String,
    pub reasons: Vec<SchedulingReason>,
    #[serde(rename = "transitionID")]
    pub transition_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulingReason {
    pub reason: String,
    pub message: String,
}

/// Who may use how much.
#[derive(Debug, Clone, Default, PartialEq, CustomResource, Serialize, Deserialize)]
#[kube(group = "scheduling.run.ai", version = "v2", kind = "Queue", schema = "disabled")]
#[serde(rename_all = "camelCase", default)]
pub struct QueueSpec {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_queue: String,
    /// Nothing is allowed where it is missing.
    pub resources: QueueResources,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueResources {
    /// Devices.
    pub gpu: QueueResource,
    /// Thousandths of a core.
    pub cpu: QueueResource,
    /// Megabytes (1000 x 1000).
    pub memory: QueueResource,
}

/// -1 is "without an end".
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueResource {
    /// What non-preemptible groups may have.
    pub quota: f64,
    /// What all groups together may have.
    pub limit: f64,
    pub over_quota_weight: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &i64) -> bool {
    *count == 0
}

impl BindRequest {
    pub fn phase(&self) -> &str {
        self.status.as_ref().map_or("", |status| status.phase.as_str())
    }

    /// Given up by the binder: the scheduler deletes it. With a `backoffLimit` it counts as tried again.
    pub fn is_failed(&self) -> bool {
        let attempts = self.status.as_ref().map_or(0, |status| status.failed_attempts);
        self.phase() == "Failed" && self.spec.backoff_limit.is_none_or(|limit| attempts >= limit)
    }
}
