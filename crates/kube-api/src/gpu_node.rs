//! `gpunodes.gpu.berth.dev`: what a node's daemon says of its GPUs, for `kubectl get gpunodes`, schedulers and the agent.
//!
//! Owns the resource's form. Times and sizes are signed, as Kubernetes' integers are. Written by berthd alone; who reads it
//! trusts nothing ([`Device::health`] that is not known counts as the worst).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Empty: a GpuNode is all observation.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gpu.berth.dev",
    version = "v1alpha1",
    kind = "GpuNode",
    plural = "gpunodes",
    status = "GpuNodeStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "The GPUs of the node of the same name, as its berthd sees them.",
    printcolumn = r#"{"name":"Model","type":"string","jsonPath":".status.summary.model"}"#,
    printcolumn = r#"{"name":"GPUs","type":"integer","jsonPath":".status.summary.gpus"}"#,
    printcolumn = r#"{"name":"Free","type":"integer","jsonPath":".status.summary.free"}"#,
    printcolumn = r#"{"name":"Health","type":"string","jsonPath":".status.summary.health"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"LedgerReconciled\")].status"}"#,
    printcolumn = r#"{"name":"Driver","type":"string","priority":1,"jsonPath":".status.driver.driverVersion"}"#,
    printcolumn = r#"{"name":"Address","type":"string","priority":1,"jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct GpuNodeSpec {}

/// The node as its daemon last told it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct GpuNodeStatus {
    /// Grows with every change that the daemon reports.
    pub generation: i64,
    /// A UUID: another one after each start of the daemon.
    pub instance: String,
    /// Of berthd.
    pub version: String,
    /// Where the daemon serves gRPC: `http://HOST:PORT` or `https://HOST:PORT`. Empty: to nobody beyond the node.
    pub address: String,
    /// The GPUs are invented.
    pub simulated: bool,
    pub driver: Driver,
    pub summary: Summary,
    pub conditions: Vec<Condition>,
    pub devices: Vec<Device>,
}

/// For the columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Summary {
    /// Short model names, joined by commas.
    pub model: String,
    pub gpus: i32,
    /// GPUs of which nobody has any part and that take pods.
    pub free: i32,
    /// The worst of the devices.
    pub health: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Driver {
    /// `nvml` or `simulated`.
    pub backend: String,
    pub driver_version: String,
    pub nvml_version: String,
}

/// As Kubernetes writes conditions, less the observed generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// `DriverReady`, `LedgerReconciled`, `KubeletReachable`, `JournalHealthy` or `TlsReady`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_unix_ms: i64,
}

/// One GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    /// `GPU-…`: the identity.
    pub uuid: String,
    /// NVML's index at the moment.
    pub index: i32,
    /// As the driver names it: `NVIDIA H100 80GB HBM3`.
    pub product: String,
    /// Short, as instance types spell it: `H100`.
    pub model: String,
    /// Frame buffer.
    pub memory_bytes: i64,
    /// `Default`, `ExclusiveProcess` or `Prohibited`.
    pub compute_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<i32>,
    /// GPUs of the node with the same number reach each other over NVLink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nvlink_domain: Option<i32>,
    /// `Healthy`, `Suspect`, `Recovering` or `Unhealthy`.
    pub health: String,
    /// Why it is not healthy: `Reason: message`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub health_reasons: Vec<String>,
    /// False after an operator took it out.
    pub schedulable: bool,
    /// A process runs on it that nobody assigned.
    pub out_of_band: bool,
    /// It is held by somebody and the driver no longer finds it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// What a new pod can get, in thousandths of the GPU.
    pub free_milli: i32,
    /// What a new pod can get.
    pub free_memory_bytes: i64,
    /// Split by MIG: then it is given out by instances only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mig: Option<Vec<MigInstance>>,
    /// Who has a part of it: `NAMESPACE/POD`, or a lease's id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct MigInstance {
    /// `MIG-…`.
    pub uuid: String,
    /// `1g.10gb`.
    pub profile: String,
    pub memory_bytes: i64,
    pub free: bool,
}

impl GpuNodeStatus {
    /// Whether a condition is there and holds.
    pub fn holds(&self, kind: &str) -> bool {
        self.conditions.iter().any(|it| it.kind == kind && it.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;

    #[test]
    fn the_resource_has_the_fixed_name_of_the_design() {
        let crd = GpuNode::crd();
        assert_eq!(crd.metadata.name.as_deref(), Some("gpunodes.gpu.berth.dev"));
        assert_eq!(crd.spec.scope, "Cluster");
        assert_eq!(crd.spec.versions[0].name, "v1alpha1");
    }

    #[test]
    fn what_an_older_or_newer_daemon_wrote_can_be_read() {
        let status: GpuNodeStatus =
            serde_json::from_value(serde_json::json!({"devices": [{"uuid": "GPU-1", "new": 1}]})).unwrap();
        assert_eq!(
            status.devices[0].health, "",
            "left to the reader, who takes it for the worst"
        );
        assert!(!status.devices[0].schedulable && !status.holds("LedgerReconciled"));
    }
}
