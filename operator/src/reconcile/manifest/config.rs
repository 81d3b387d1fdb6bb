//! What the agent is told.

use berth_kube_api::nvcf::backend::NvcfBackendSpec;
use berth_sis::wire::Gpu;
use serde_json::{Value, json};
use thiserror::Error;

use super::object;
use crate::{
    agent_config::{Agent, AgentConfig, Authz, Cluster, Webhook, Workload},
    names,
    reconcile::settings::Settings,
};

/// Annotations for functions' pods, under a name that users know.
const POD_ANNOTATIONS: &str = "nvca-namespace-pod-annotations";
/// Says to the agent that this is no cluster of the public cloud.
const SELF_HOSTED: &str = "SelfHosted";

/// An override lists GPUs that nobody can use. Until that is put right, what was applied last stays.
#[derive(Debug, Error)]
#[error(
    "clusterConfig.gpuDiscovery.static.gpus is no list of GPUs: {why}; correct it, or set clusterConfig.gpuDiscovery.dynamic"
)]
pub(in crate::reconcile) struct GpusError {
    why: String,
}

/// `config.yaml`.
///
/// # Errors
/// The GPUs are listed, and the list is none or empty.
pub(in crate::reconcile) fn agent(spec: &NvcfBackendSpec, settings: &Settings) -> Result<AgentConfig, GpusError> {
    let mut flags = spec.feature_gate.values.clone();
    flags.push(SELF_HOSTED.to_owned());
    flags.sort();
    flags.dedup();
    let cluster = &spec.cluster_config;
    Ok(AgentConfig {
        agent: Agent {
            feature_flags: flags,
            reval_url: cluster.mini_service.reval_url.clone(),
            sis_url: spec.icms_config.url.clone(),
            sis_host: Some(spec.icms_config.host.clone()).filter(|host| !host.is_empty()),
            log_level: cluster.log_level.clone(),
            nats_url: spec.agent_config.nats_url.clone(),
            operator_version: env!("CARGO_PKG_VERSION").to_owned(),
            static_gpus: listed(spec)?,
            ..Agent::default()
        },
        authz: Authz::default(),
        cluster: Cluster {
            attributes: cluster.attributes.clone(),
            cloud_provider: cluster.cloud_provider.clone(),
            group_id: cluster.cluster_group_id.clone(),
            group_name: cluster.cluster_group_name.clone(),
            id: cluster.cluster_id.clone(),
            name: cluster.cluster_name.clone(),
            nca_id: spec.account_config.nca_id.clone(),
            nvca_version: spec.version.clone(),
            region: cluster.region.clone(),
        },
        environment: "prod".to_owned(),
        webhook: Webhook::default(),
        workload: Workload {
            image_pull_secrets: settings.pull_secrets.clone(),
            ..Workload::default()
        },
    })
}

/// An override may have made it another list.
fn listed(spec: &NvcfBackendSpec) -> Result<Vec<Gpu>, GpusError> {
    let Some(fixed) = &spec.cluster_config.gpu_discovery.fixed else {
        return Ok(Vec::new());
    };
    let error = |why: String| GpusError { why };
    let gpus: Vec<Gpu> = serde_json::from_value(fixed["gpus"].clone()).map_err(|it| error(it.to_string()))?;
    if gpus.is_empty() {
        return Err(error("it is empty".to_owned()));
    }
    Ok(gpus)
}

pub(super) fn map(config: &AgentConfig) -> Value {
    let mut map = object("v1", "ConfigMap", Some(names::SYSTEM_NAMESPACE), names::AGENT_CONFIG);
    map["data"] = json!({names::AGENT_CONFIG_KEY: text(config)});
    map
}

/// JSON is YAML, and its keys have one order.
pub(super) fn text(config: &AgentConfig) -> String {
    serde_saphyr::to_string(config).unwrap_or_default()
}

pub(super) fn annotations(json: &str) -> Value {
    let mut map = object("v1", "ConfigMap", Some(names::SYSTEM_NAMESPACE), POD_ANNOTATIONS);
    map["data"] = json!({"annotations": json});
    map
}
