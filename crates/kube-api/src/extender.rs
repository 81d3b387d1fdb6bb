//! What kube-scheduler and an extender say to each other (`k8s.io/kube-scheduler/extender/v1`).
//!
//! The Go structs carry no JSON tags, so the keys are the Go field names, `PodUID` and `NumPDBViolations` included; the
//! pods and nodes inside have Kubernetes' own names. A nil slice or map is `null`. Go reads keys in any case: so that
//! a person with curl gets along, the lower-case form is taken too; what we write has the exact case.

use std::{borrow::Cow, collections::BTreeMap, ops::Deref};

use serde::{Deserialize, Serialize};

mod node_list;
#[cfg(test)]
mod tests;

pub use node_list::{NodeList, RawNode};

use crate::Pod;

/// The lowest and the highest score that kube-scheduler expects of an extender.
pub const SCORES: std::ops::RangeInclusive<i64> = 0..=10;

/// A node's name, borrowed from the request where its JSON allows: there are thousands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostName<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Of filter and prioritize. Exactly one of `nodes` and `node_names` is there (`nodeCacheCapable` decides which).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ExtenderArgs<'a> {
    #[serde(rename = "Pod", alias = "pod")]
    pub pod: Option<Pod>,
    #[serde(rename = "Nodes", alias = "nodes")]
    pub nodes: Option<NodeList>,
    #[serde(rename = "NodeNames", alias = "nodeNames", alias = "nodenames", borrow)]
    pub node_names: Option<Vec<HostName<'a>>>,
}

/// The answer of filter, in the form (`nodes` or `node_names`) that was asked.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExtenderFilterResult<'a> {
    #[serde(rename = "Nodes")]
    pub nodes: Option<NodeList>,
    #[serde(rename = "NodeNames")]
    pub node_names: Option<Vec<HostName<'a>>>,
    /// Node to reason; evicting pods may help.
    #[serde(rename = "FailedNodes")]
    pub failed_nodes: Option<BTreeMap<HostName<'a>, String>>,
    /// Node to reason; evicting pods cannot help.
    #[serde(rename = "FailedAndUnresolvableNodes")]
    pub failed_and_unresolvable_nodes: Option<BTreeMap<HostName<'a>, String>>,
    /// Not empty: the attempt to schedule the pod fails with this.
    #[serde(rename = "Error")]
    pub error: String,
}

/// One element of the answer of prioritize, which is a bare array. Borrowed: there is one for each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostPriority<'a> {
    #[serde(rename = "Host")]
    pub host: &'a str,
    /// In [`SCORES`]; larger is better.
    #[serde(rename = "Score")]
    pub score: i64,
}

/// Of bind. It names the pod and does not carry it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtenderBindingArgs {
    #[serde(rename = "PodName", alias = "podName")]
    pub pod_name: String,
    #[serde(rename = "PodNamespace", alias = "podNamespace")]
    pub pod_namespace: String,
    #[serde(rename = "PodUID", alias = "podUID", alias = "podUid")]
    pub pod_uid: String,
    #[serde(rename = "Node", alias = "node")]
    pub node: String,
}

/// The answer of bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtenderBindingResult {
    /// Not empty: the pod was not bound, and kube-scheduler tries again.
    #[serde(rename = "Error")]
    pub error: String,
}

/// Of preempt: whom kube-scheduler would evict on which node. Only one of the two maps is there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ExtenderPreemptionArgs {
    #[serde(rename = "Pod", alias = "pod")]
    pub pod: Option<Pod>,
    #[serde(rename = "NodeNameToVictims")]
    pub node_name_to_victims: Option<BTreeMap<String, Victims>>,
    #[serde(rename = "NodeNameToMetaVictims")]
    pub node_name_to_meta_victims: Option<BTreeMap<String, MetaVictims>>,
}

/// Victims in full.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Victims {
    #[serde(rename = "Pods", deserialize_with = "crate::null::default_if_null")]
    pub pods: Vec<Pod>,
    #[serde(rename = "NumPDBViolations")]
    pub num_pdb_violations: i64,
}

/// Victims by UID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaVictims {
    #[serde(rename = "Pods", deserialize_with = "crate::null::default_if_null")]
    pub pods: Vec<MetaPod>,
    #[serde(rename = "NumPDBViolations")]
    pub num_pdb_violations: i64,
}

/// One victim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaPod {
    #[serde(rename = "UID")]
    pub uid: String,
}

/// The answer of preempt: by UID, whichever form was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtenderPreemptionResult {
    #[serde(rename = "NodeNameToMetaVictims", deserialize_with = "crate::null::default_if_null")]
    pub node_name_to_meta_victims: BTreeMap<String, MetaVictims>,
}

impl Deref for HostName<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for HostName<'a> {
    fn from(name: &'a str) -> Self {
        Self(Cow::Borrowed(name))
    }
}
