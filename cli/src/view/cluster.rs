//! The cluster as the scheduler sees it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DeviceVerdict, Grant};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNodes {
    pub(crate) policy: String,
    pub(crate) nodes: Vec<ClusterNode>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterNode {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) usable: bool,
    pub(crate) verified: bool,
    pub(crate) contact: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) problem: String,
    pub(crate) gpus: u32,
    pub(crate) gpus_free: u32,
    pub(crate) free_milli: u32,
    pub(crate) gpus_unhealthy: u32,
    pub(crate) models: Vec<String>,
}

/// What each node says, best first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explained {
    pub(crate) asks: String,
    pub(crate) policy: String,
    pub(crate) fitting: u32,
    pub(crate) candidates: u32,
    pub(crate) refused: BTreeMap<String, u32>,
    pub(crate) nodes: Vec<Opinion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision: Option<Decided>,
}

/// One node's.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Opinion {
    pub(crate) node: String,
    /// 0: it does not fit.
    pub(crate) rank: u32,
    pub(crate) score: f64,
    pub(crate) terms: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    pub(crate) grants: Vec<Grant>,
    pub(crate) devices: Vec<DeviceVerdict>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Decided {
    pub(crate) id: String,
    pub(crate) at_unix_ms: u64,
    pub(crate) pod: String,
    pub(crate) why: String,
    pub(crate) ranked: Vec<String>,
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
    pub(crate) devices: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimulationResult {
    pub(crate) placed: u32,
    pub(crate) free_milli_before: u64,
    pub(crate) free_milli_after: u64,
    pub(crate) pods: Vec<SimulatedPod>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SimulatedPod {
    /// Position of its shape among those that were asked.
    pub(crate) shape: u32,
    /// Empty: nowhere.
    pub(crate) node: String,
    pub(crate) grants: Vec<Grant>,
}
