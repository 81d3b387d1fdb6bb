//! What the operator makes for an `NVCFBackend`, as plain objects. Pure: nothing is read, nothing is written.
//!
//! Names, labels, ports and paths are the real operator's; each folder file has one sort of them.

mod config;
mod deployment;
mod namespaces;
mod network;
mod rbac;
mod webhooks;

use berth_kube_api::nvcf::{self, backend::NvcfBackendSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

pub(super) use config::{GpusError, agent as agent_config};
pub(super) use network::{PolicyError, custom as custom_policies, is_custom as is_custom_policy};

use super::{certificates::Certificates, settings::Settings};
use crate::{agent_config::AgentConfig, names};

/// Value of the label [`names::MANAGED_BY`] on all of it.
pub(super) const OPERATOR: &str = "nvca-operator";
/// Annotation on all of it: a fingerprint of what was applied.
const APPLIED: &str = "nvca-operator.nvcf.nvidia.io/applied";

/// What the objects are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// With overrides.
    pub spec: &'a NvcfBackendSpec,
    pub settings: &'a Settings,
    /// What the agent is told.
    pub config: &'a AgentConfig,
    pub certificates: &'a Certificates,
    /// Policies of the user for functions' namespaces.
    pub policies: &'a [NetworkPolicy],
    /// Annotations of the user for functions' pods, as JSON text.
    pub pod_annotations: &'a str,
    /// Another value rolls the agent out.
    pub rollout: &'a str,
}

/// All objects, in the order in which they are to be made.
pub(super) fn all(parts: Parts<'_>) -> Vec<Value> {
    let mut objects = Vec::from(namespaces::all());
    objects.extend(rbac::all(parts.settings));
    objects.extend(network::all(&parts.settings.network_cidrs, parts.policies));
    objects.push(config::map(parts.config));
    objects.push(config::annotations(parts.pod_annotations));
    objects.extend(parts.certificates.secrets());
    objects.push(deployment::service());
    objects.push(deployment::agent(parts));
    // Last: nothing is asked of a webhook that nothing serves yet.
    objects.extend(webhooks::all(&parts.certificates.ca_bundle()));
    definitions()
        .into_iter()
        .chain(objects.into_iter().map(marked))
        .collect()
}

/// The resources of operator and agent. Helm brings them when it installs and leaves them alone when it upgrades.
pub(super) fn definitions() -> Vec<Value> {
    let all = [
        nvcf::NvcfBackend::crd(),
        nvcf::MiniService::crd(),
        nvcf::storage_request::definition(),
        nvcf::ICMSRequest::crd(),
    ];
    let object = |mut crd: Value| {
        crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
        crd["kind"] = json!("CustomResourceDefinition");
        marked(crd)
    };
    // A definition that the code wrote is JSON.
    all.iter()
        .filter_map(|crd| serde_json::to_value(crd).ok())
        .map(object)
        .collect()
}

/// An object with a name and nothing else.
pub(super) fn object(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// FNV-1a, 64 bit (RFC draft "The FNV Non-Cryptographic Hash Algorithm"): tells an accident from what was written, not an attack.
pub(super) fn fingerprint(text: &str) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// With the labels by which the operator finds its objects again, and the fingerprint of all that is wanted: what is not
/// wanted any more is seen in nothing else, as a live object may always have more. Keys have one order.
fn marked(mut object: Value) -> Value {
    let labels = &mut object["metadata"]["labels"];
    for (key, value) in [
        (names::NAME, names::AGENT),
        (names::INSTANCE, names::AGENT),
        (names::MANAGED_BY, OPERATOR),
    ] {
        labels[key] = json!(value);
    }
    let sum = fingerprint(&object.to_string());
    object["metadata"]["annotations"][APPLIED] = json!(sum);
    object
}

#[cfg(test)]
mod tests;
