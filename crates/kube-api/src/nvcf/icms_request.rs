//! `icmsrequests.nvca.nvcf.nvidia.io`: what the control plane asked this cluster for, and what became of it.
//!
//! Owns the resource's form: what Berth uses is named, whatever else an agent or a tool wrote is kept. The message itself is
//! opaque here.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One creation message.
#[derive(Debug, Clone, Default, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nvca.nvcf.nvidia.io",
    version = "v2beta1",
    kind = "ICMSRequest",
    plural = "icmsrequests",
    singular = "icmsrequest",
    shortname = "ir",
    namespaced,
    status = "ICMSRequestStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "What the control plane asked this cluster for, and what became of it.",
    printcolumn = r#"{"name":"action","type":"string","jsonPath":".spec.action"}"#,
    printcolumn = r#"{"name":"status","type":"string","jsonPath":".status.requestStatus"}"#,
    printcolumn = r#"{"name":"nca_id","type":"string","jsonPath":".spec.ncaId"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"function_version_id","type":"string","jsonPath":".spec.functionVersionId"}"#
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ICMSRequestSpec {
    /// As in the message: `RequestSpotInstances`, `RequestSpotInstancesForTask`, …
    pub action: String,
    pub request_id: String,
    pub message_batch_id: String,
    pub nca_id: String,
    pub function_id: String,
    pub function_version_id: String,
    /// Subject and sequence under which the message came.
    pub sqs_message_receipt: String,
    /// The message as it came.
    #[schemars(schema_with = "opaque")]
    pub creation_msg_info: Value,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct ICMSRequestStatus {
    /// `RequestPending`, `RequestInProgress`, `RequestInstancesInProgress`, `RequestCompleted`, `RequestFailed`.
    pub request_status: String,
    /// When the control plane was told that the request is taken on; empty: it was not.
    #[serde(rename = "lastACKTimestamp", skip_serializing_if = "String::is_empty")]
    pub last_ack_timestamp: String,
    /// The queue knows that the message is done with. Until then the request stays, so that the message finds it when it comes
    /// again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub message_settled: bool,
    /// By pod name.
    pub instances: BTreeMap<String, InstanceStatus>,
}

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct InstanceStatus {
    pub id: String,
    /// `Pod`.
    pub instance_type: String,
    /// `starting`, `running` or `terminated`; empty: its pod was not made yet.
    pub status: String,
    /// What the control plane was told last; empty: nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_reported_status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_reported_timestamp: String,
    /// Why it has to end, once it has to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub termination_cause: String,
    /// The same for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub termination_message: String,
}

fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_resource_is_what_the_real_operator_makes() {
        let crd = serde_json::to_value(ICMSRequest::crd()).unwrap();
        assert_eq!(crd["metadata"]["name"], "icmsrequests.nvca.nvcf.nvidia.io");
        let spec = &crd["spec"];
        assert_eq!(
            (&spec["scope"], &spec["names"]["kind"]),
            (&json!("Namespaced"), &json!("ICMSRequest"))
        );
        assert_eq!(spec["names"]["shortNames"], json!(["ir"]));
        let version = &spec["versions"][0];
        assert_eq!(
            (&version["name"], &version["subresources"]["status"]),
            (&json!("v2beta1"), &json!({}))
        );
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let names: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["action", "status", "nca_id", "Age", "function_version_id"]);
        let properties = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(properties["x-kubernetes-preserve-unknown-fields"], true);
        let message = &properties["properties"]["creationMsgInfo"];
        assert_eq!(message["x-kubernetes-preserve-unknown-fields"], true);
    }

    #[test]
    fn what_the_real_agent_wrote_can_be_read() {
        let request: ICMSRequest = serde_json::from_value(json!({
            "apiVersion": "nvca.nvcf.nvidia.io/v2beta1", "kind": "ICMSRequest", "metadata": {"name": "sr-1"},
            "spec": {"action": "RequestSpotInstances", "requestId": "r", "taskDetails": {"taskId": ""}, "terminationMsgInfo": {}},
            "status": {"requestStatus": "RequestCompleted", "requestStatusTraceContexts": {},
                "instances": {"0-sr-1": {"id": "0-sr-1", "instanceType": "Pod", "status": "running",
                    "lastReportedStatus": "running", "lastReportedTimestamp": "2026-11-23T02:20:29Z"}}},
        }))
        .unwrap();
        let status = request.status.unwrap();
        assert_eq!(status.instances["0-sr-1"].last_reported_status, "running");
        assert_eq!(request.spec.request_id, "r");
    }
}
