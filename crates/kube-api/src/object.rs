//! The slim pod and the slim node.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Quantity, null::default_if_null};

/// Resource name to amount.
pub type ResourceList = BTreeMap<String, Quantity>;

/// `v1.Pod`: what placement depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Pod {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: PodSpec,
}

/// `v1.Node`: what placement depends on where no daemon tells the devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Node {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub status: NodeStatus,
}

/// `metav1.ObjectMeta`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ObjectMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    #[serde(deserialize_with = "default_if_null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "default_if_null")]
    pub annotations: BTreeMap<String, String>,
}

/// `v1.PodSpec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(deserialize_with = "default_if_null")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "default_if_null")]
    pub init_containers: Vec<Container>,
    /// Requests for the pod as a whole (KEP-2837): where it names CPU or memory, that counts in place of the sum.
    #[serde(deserialize_with = "default_if_null")]
    pub resources: ResourceRequirements,
    /// Of the runtime class, on top of the containers.
    #[serde(deserialize_with = "default_if_null")]
    pub overhead: ResourceList,
    #[serde(deserialize_with = "default_if_null")]
    pub node_selector: BTreeMap<String, String>,
    /// Empty until the pod is bound.
    #[serde(deserialize_with = "default_if_null")]
    pub node_name: String,
    #[serde(deserialize_with = "default_if_null")]
    pub scheduler_name: String,
    pub priority: Option<i32>,
}

/// `v1.Container`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    #[serde(deserialize_with = "default_if_null")]
    pub resources: ResourceRequirements,
    /// `Always` on an init container makes it a sidecar (KEP-753).
    pub restart_policy: Option<String>,
}

/// `v1.ResourceRequirements`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    #[serde(deserialize_with = "default_if_null")]
    pub requests: ResourceList,
    #[serde(deserialize_with = "default_if_null")]
    pub limits: ResourceList,
}

/// `v1.NodeStatus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    #[serde(deserialize_with = "default_if_null")]
    pub allocatable: ResourceList,
}

impl Container {
    /// Runs beside the containers for the pod's whole life, though it is listed among the init containers.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

impl ResourceRequirements {
    /// What is asked of a resource: its request, else its limit, as the API server fills it in.
    pub fn request(&self, resource: &str) -> Option<Quantity> {
        self.requests
            .get(resource)
            .or_else(|| self.limits.get(resource))
            .copied()
    }

    /// The names of everything requested or limited.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.requests.keys().chain(self.limits.keys()).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::nvidia;

    #[test]
    fn a_node_is_read_from_what_a_real_scheduler_sent() {
        let json = include_str!("../testdata/extender/nocache/filter-1.json");
        let args: crate::extender::ExtenderArgs<'_> = serde_json::from_str(json).unwrap();
        let nodes: Vec<Node> = args
            .nodes
            .unwrap()
            .items
            .iter()
            .map(|node| serde_json::from_str(node.json()).unwrap())
            .collect();
        assert_eq!(nodes[0].metadata.name, "gpu-0001");
        assert_eq!(nodes[0].metadata.labels[nvidia::PRODUCT], "NVIDIA-H100-80GB-HBM3");
        assert_eq!(nodes[0].status.allocatable[nvidia::GPU], Quantity::whole(8));
        assert_eq!(nodes[0].status.allocatable["memory"].value(), 2 << 40);
    }

    #[test]
    fn nulls_and_unknown_fields_are_taken_as_go_means_them() {
        let json = r#"{"metadata":{"name":"p","labels":null,"annotations":null,"future":{"a":[1]}},
            "spec":{"containers":null,"initContainers":[{"name":"i","resources":null}],"overhead":null,"nodeSelector":null,
            "nodeName":null,"schedulerName":null,"priority":null,"resources":null},"status":null}"#;
        let pod: Pod = serde_json::from_str(json).unwrap();
        assert_eq!(pod.metadata.name, "p");
        assert_eq!(pod.spec.init_containers.len(), 1);
        assert_eq!(serde_json::from_str::<Pod>("{}").unwrap(), Pod::default());
    }
}
