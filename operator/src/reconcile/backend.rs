//! The `NVCFBackend` of this cluster: from the chart's words and the registration, and what overrides make of it. Pure.

use berth_kube_api::nvcf::backend::{
    AccountConfig, AgentConfig, ClusterConfig, FeatureGate, GpuDiscovery, IcmsConfig, ImageConfig, MiniServiceConfig,
    NvcfBackendSpec,
};
use berth_sis::check::DYNAMIC_DISCOVERY;
use serde_json::{Value, json};
use thiserror::Error;

use super::settings::Settings;
use crate::{
    cluster_dto::{ClusterDto, DtoError},
    registration::Registration,
};

/// The gate that says that this is no cluster of the public cloud. The operator knows it by itself.
const SELF_HOSTED: &str = "SelfHosted";

/// `spec.overrides` cannot be used.
#[derive(Debug, Error)]
#[error("spec.overrides does not fit the spec: {0}; correct or remove it")]
pub(super) struct OverridesError(#[from] serde_json::Error);

/// The spec as the operator writes it: without overrides.
///
/// # Errors
/// The list of GPUs is needed and is none.
pub(super) fn spec(
    dto: &ClusterDto,
    registration: &Registration,
    settings: &Settings,
) -> Result<NvcfBackendSpec, DtoError> {
    let is_gate = |it: &&String| *it != DYNAMIC_DISCOVERY && *it != SELF_HOSTED;
    Ok(NvcfBackendSpec {
        version: dto.nvca_version.clone(),
        nvca_image_config: ImageConfig {
            repository: settings.image.repository.clone(),
            tag: dto.nvca_version.clone(),
            pull_policy: settings.image.pull_policy.clone(),
        },
        account_config: AccountConfig {
            nca_id: dto.nca_id.clone(),
        },
        cluster_config: ClusterConfig {
            attributes: dto.attributes.clone(),
            cloud_provider: dto.cloud_provider.clone(),
            cluster_group_id: registration.cluster_group_id.to_string(),
            cluster_group_name: dto.cluster_group_name.clone(),
            cluster_id: registration.cluster_id.to_string(),
            cluster_name: dto.cluster_name.clone(),
            description: dto.cluster_description.clone(),
            gpu_discovery: gpu_discovery(dto)?,
            log_level: settings.log_level.clone(),
            mini_service: MiniServiceConfig {
                reval_url: dto.mini_service.reval_url.clone(),
            },
            region: dto.region.clone(),
        },
        feature_gate: FeatureGate {
            values: dto.capabilities.iter().filter(is_gate).cloned().collect(),
        },
        icms_config: IcmsConfig {
            url: dto.sis.url.clone(),
            host: dto.sis.host.clone(),
        },
        agent_config: AgentConfig {
            nats_url: dto.agent.nats_url.clone(),
            tolerations: dto.agent.tolerations.clone(),
        },
        cluster_source: "self-hosted".to_owned(),
        overrides: None,
    })
}

fn gpu_discovery(dto: &ClusterDto) -> Result<GpuDiscovery, DtoError> {
    if dto.is_dynamic() {
        return Ok(GpuDiscovery {
            dynamic: Some(json!({})),
            fixed: None,
        });
    }
    let gpus = dto.gpus()?;
    if gpus.is_empty() {
        let why = format!("it is empty, and capabilities lack {DYNAMIC_DISCOVERY}: add the one or the other");
        return Err(DtoError::Gpus { why });
    }
    let capacity: i64 = gpus.iter().filter_map(|gpu| gpu.capacity).sum();
    Ok(GpuDiscovery {
        dynamic: None,
        fixed: Some(json!({"allocatedGPUCapacity": capacity, "gpus": gpus})),
    })
}

/// The spec with its overrides merged in: objects field by field, anything else as a whole.
///
/// # Errors
/// An override has another type than what it stands for.
pub(super) fn effective(spec: &NvcfBackendSpec) -> Result<NvcfBackendSpec, OverridesError> {
    let mut spec = spec.clone();
    let Some(overrides) = spec.overrides.take() else {
        return Ok(spec);
    };
    let mut value = serde_json::to_value(&spec)?;
    one_of(&mut value, &overrides);
    merge(&mut value, overrides);
    Ok(serde_json::from_value(value)?)
}

/// How GPUs are found is one of two ways: an override that names one does away with the other.
fn one_of(spec: &mut Value, overrides: &Value) {
    let named = |way: &str| !overrides["clusterConfig"]["gpuDiscovery"][way].is_null();
    let discovery = &mut spec["clusterConfig"]["gpuDiscovery"];
    for (named, other) in [(named("dynamic"), "static"), (named("static"), "dynamic")] {
        if let Some(ways) = discovery.as_object_mut().filter(|_| named) {
            ways.remove(other);
        }
    }
}

pub(super) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    pub(crate) fn dto() -> ClusterDto {
        let text =
            "clusterName: c\nnvcaVersion: 2.52.1\ncapabilities: [DynamicGPUDiscovery, SelfHosted, KAIScheduler]\n";
        text.parse().unwrap()
    }

    pub(crate) fn registration() -> Registration {
        Registration {
            cluster_id: "56f71ab9-94a3-320a-9fd9-457477edeea2".parse().unwrap(),
            cluster_group_id: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::{
        fixture::{dto, registration},
        *,
    };
    use crate::reconcile::settings::fixture::settings;

    #[test]
    fn the_spec_is_what_the_real_operator_writes() {
        let spec = spec(&dto(), &registration(), &settings()).unwrap();
        let cluster = &spec.cluster_config;
        assert_eq!(cluster.cluster_id, "56f71ab9-94a3-320a-9fd9-457477edeea2");
        assert_eq!(
            (cluster.cloud_provider.as_str(), cluster.region.as_str()),
            ("NCP", "us-west-1")
        );
        assert_eq!(cluster.gpu_discovery.dynamic, Some(json!({})));
        assert_eq!(spec.feature_gate.values, ["KAIScheduler"]);
        assert_eq!(
            (spec.version.as_str(), spec.cluster_source.as_str()),
            ("2.52.1", "self-hosted")
        );
        assert_eq!(effective(&spec).unwrap(), spec);
    }

    #[test]
    fn gpus_that_nobody_finds_are_those_of_the_list() {
        let listed = |text: &str| ClusterDto {
            gpus_b64: BASE64_STANDARD.encode(text),
            capabilities: Vec::new(),
            ..dto()
        };
        let dto = listed(r#"[{"name": "H100", "capacity": 8}, {"name": "L40", "capacity": 4}]"#);
        let discovery = spec(&dto, &registration(), &settings())
            .unwrap()
            .cluster_config
            .gpu_discovery;
        let fixed = discovery.fixed.unwrap();
        assert_eq!((discovery.dynamic, &fixed["allocatedGPUCapacity"]), (None, &json!(12)));
        assert_eq!(fixed["gpus"][1]["name"], "L40");
        let error = spec(&listed("{}"), &registration(), &settings()).unwrap_err();
        assert_eq!(error.reason(), "GpusInvalid");
    }

    #[test]
    fn an_override_switches_from_one_way_to_find_gpus_to_the_other_and_back() {
        let fixed = ClusterDto {
            gpus_b64: BASE64_STANDARD.encode(r#"[{"name": "H100", "capacity": 8}]"#),
            capabilities: Vec::new(),
            ..dto()
        };
        let discovery = |dto: &ClusterDto, overrides: Value| {
            let mut spec = spec(dto, &registration(), &settings()).unwrap();
            spec.overrides = Some(json!({"clusterConfig": {"gpuDiscovery": overrides}}));
            let discovery = effective(&spec).unwrap().cluster_config.gpu_discovery;
            (discovery.dynamic.is_some(), discovery.fixed)
        };
        assert_eq!(discovery(&fixed, json!({"dynamic": {}})), (true, None));
        let list = json!({"gpus": [{"name": "L40", "capacity": 4}]});
        assert_eq!(discovery(&dto(), json!({"static": list})), (false, Some(list)));
        let (dynamic, listed) = discovery(&fixed, json!({"static": {"allocatedGPUCapacity": 4}}));
        assert_eq!(
            (dynamic, &listed.unwrap()["gpus"][0]["name"]),
            (false, &json!("H100")),
            "field by field"
        );
        assert!(!discovery(&fixed, json!({})).0);
    }

    #[test]
    fn a_list_of_gpus_that_is_empty_where_nobody_finds_them_is_told() {
        for gpus_b64 in ["", "W10=", "bnVsbA=="] {
            let dto = ClusterDto {
                gpus_b64: gpus_b64.to_owned(),
                capabilities: Vec::new(),
                ..dto()
            };
            let error = spec(&dto, &registration(), &settings()).unwrap_err();
            assert_eq!(error.reason(), "GpusInvalid");
            assert!(error.to_string().contains("DynamicGPUDiscovery"), "{error}");
        }
    }

    #[test]
    fn overrides_win_field_by_field_and_a_list_replaces_a_list() {
        let mut spec = spec(&dto(), &registration(), &settings()).unwrap();
        spec.overrides = Some(json!({
            "featureGate": {"values": ["CordonMaintenance"]}, "clusterConfig": {"region": "us-east-1"},
        }));
        let merged = effective(&spec).unwrap();
        assert_eq!(merged.feature_gate.values, ["CordonMaintenance"]);
        assert_eq!(merged.cluster_config.region, "us-east-1");
        assert_eq!(merged.cluster_config.cluster_name, "c");
        spec.overrides = Some(json!({"version": {"a": 1}}));
        assert!(effective(&spec).unwrap_err().to_string().contains("spec.overrides"));
    }
}
