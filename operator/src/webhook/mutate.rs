//! What becomes of a pod of a workload namespace at its creation, as JSON patch (RFC 6902). Pure.
//!
//! A patch is the difference between the pod as Kubernetes' types know it before and after: what they do not know (fields of
//! a newer Kubernetes) is in neither and stays as it is.

mod affinity;

use std::collections::BTreeMap;

use berth_kube_api::names::{kai, nvcf, nvidia};
use json_patch::Patch;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use tracing::warn;

use crate::agent_config::AgentConfig;

use affinity::base;

/// Annotation with the instance type without its number of GPUs, of pods that carry no name.
const INSTANCE_TYPE_VALUE: &str = "nvcf.nvidia.io/instance-type-value";

/// What the agent's configuration asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gates {
    /// Pods with GPUs are KAI's.
    pub kai: bool,
    /// Of every pod, besides the one for GPU nodes.
    pub tolerations: Vec<Toleration>,
}

impl Gates {
    pub(crate) fn of(config: &AgentConfig) -> Self {
        let parse = |value: &serde_json::Value| match serde_json::from_value(value.clone()) {
            Ok(toleration) => Some(toleration),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a toleration of the configuration is left out"
                );
                None
            }
        };
        Self {
            kai: config.has("KAIScheduler"),
            tolerations: config.workload.tolerations.iter().filter_map(parse).collect(),
        }
    }
}

/// Where a pod may run and who decides that: its instance type, the scheduler, tolerations.
pub fn placement(pod: &Pod, gates: &Gates) -> Patch {
    changed(pod, |pod| place(pod, gates))
}

/// The same, on the pod itself.
pub(crate) fn place(pod: &mut Pod, gates: &Gates) {
    let named = pod.metadata.annotations.as_ref().and_then(|annotations| {
        // Where people list the GPUs and label the nodes, the name does not tell the label.
        let value = annotations.get(INSTANCE_TYPE_VALUE).map(String::as_str);
        let value = value.filter(|value| !value.is_empty());
        value.or_else(|| annotations.get(nvcf::INSTANCE_TYPE_NAME).map(|name| base(name)))
    });
    let kind = named.filter(|kind| !kind.is_empty()).map(str::to_owned);
    let spec = pod.spec.get_or_insert_default();
    affinity::rename(spec);
    if let Some(kind) = &kind {
        affinity::pin(spec, kind);
    }
    tolerate(spec, gates);
    if gates.kai && has_gpus(spec) {
        spec.scheduler_name = Some(kai::SCHEDULER.to_owned());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(kai::QUEUE.to_owned(), kai::DEFAULT_QUEUE.to_owned());
    }
}

/// What every pod of a workload namespace gets: no token of the API server, requests that are its limits, the toleration.
pub fn defaults(pod: &Pod, gates: &Gates) -> Patch {
    changed(pod, |pod| {
        let spec = pod.spec.get_or_insert_default();
        spec.automount_service_account_token = Some(false);
        tolerate(spec, gates);
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            let Some(resources) = &mut container.resources else {
                continue;
            };
            if let Some(limits) = resources.limits.clone().filter(|limits| !limits.is_empty()) {
                resources.requests.get_or_insert_default().extend(limits);
            }
        }
    })
}

fn changed(pod: &Pod, change: impl FnOnce(&mut Pod)) -> Patch {
    let mut after = pod.clone();
    change(&mut after);
    // Kubernetes' own types: maps have text keys, nothing else can fail.
    let json = |pod| serde_json::to_value(pod).unwrap_or_default();
    json_patch::diff(&json(pod), &json(&after))
}

fn tolerate(spec: &mut PodSpec, gates: &Gates) {
    let gpu = Toleration {
        key: Some(nvidia::GPU.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    };
    for toleration in gates.tolerations.iter().chain([&gpu]) {
        let there = spec.tolerations.get_or_insert_default();
        if !there.contains(toleration) {
            there.push(toleration.clone());
        }
    }
}

pub(crate) fn has_gpus(spec: &PodSpec) -> bool {
    let is_gpu = |(name, quantity): (&String, &Quantity)| {
        (name == nvidia::GPU || name.starts_with(nvidia::MIG_PREFIX)) && quantity.0 != "0"
    };
    let asks = |resources: Option<&BTreeMap<String, Quantity>>| resources.into_iter().flatten().any(is_gpu);
    let of = |container: &Container| {
        container
            .resources
            .as_ref()
            .is_some_and(|resources| asks(resources.limits.as_ref()) || asks(resources.requests.as_ref()))
    };
    spec.init_containers.iter().flatten().chain(&spec.containers).any(of)
}

#[cfg(test)]
mod tests;
