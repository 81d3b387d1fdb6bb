//! The ConfigMap `nvcfbackend-self-managed`: what the chart says that the cluster wants to be, parsed once. Knows no request.
//!
//! Keys are those of the real chart (`cluster-dto.yaml`). What is empty there has the default here, so that nobody after this
//! file asks whether a text is empty; what a cluster may be called is [`berth_sis::check`]'s to say.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use berth_sis::{
    check::{DYNAMIC_DISCOVERY, NewCluster},
    wire::Gpu,
};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::names;

#[cfg(test)]
mod tests;

/// Of the cluster, its group and its account, as the real chart has it.
const DEFAULT_NAME: &str = "nvcf-default";
const DEFAULT_PROVIDER: &str = "NCP";
const DEFAULT_REGION: &str = "us-west-1";
/// OpenBao's signing role for the agent puts it into the tokens as their subject: the agent may act only for the cluster that
/// was registered with it.
const DEFAULT_CLIENT_ID: &str = "nvca";

/// What the cluster wants to be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterDto {
    /// Where somebody registered the cluster by hand; else empty.
    #[serde(deserialize_with = "nullable")]
    pub cluster_id: String,
    /// As [`Self::cluster_id`].
    #[serde(deserialize_with = "nullable")]
    pub cluster_group_id: String,
    #[serde(deserialize_with = "nullable")]
    pub cluster_name: String,
    #[serde(deserialize_with = "nullable")]
    pub cluster_description: String,
    #[serde(deserialize_with = "nullable")]
    pub cluster_group_name: String,
    /// The account of the control plane.
    #[serde(rename = "ncaID", deserialize_with = "nullable")]
    pub nca_id: String,
    /// The agent's version.
    #[serde(deserialize_with = "nullable")]
    pub nvca_version: String,
    #[serde(rename = "oAuthClientId", deserialize_with = "nullable")]
    pub oauth_client_id: String,
    #[serde(deserialize_with = "nullable")]
    pub cloud_provider: String,
    #[serde(deserialize_with = "nullable")]
    pub region: String,
    #[serde(deserialize_with = "nullable")]
    pub attributes: Vec<String>,
    /// The values of the feature gates, capabilities of the cluster and switches of the agent in one.
    #[serde(deserialize_with = "nullable")]
    pub capabilities: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub custom_attributes: Vec<String>,
    /// Static GPUs: a JSON list in base64.
    #[serde(rename = "gpusB64", deserialize_with = "nullable")]
    pub gpus_b64: String,
    #[serde(rename = "k8sClusterNetworkCIDRs", deserialize_with = "nullable")]
    pub network_cidrs: Vec<String>,
    #[serde(rename = "cacheCSIVolumeMountOptionsConfig", deserialize_with = "nullable")]
    pub cache_mount: CacheMount,
    #[serde(rename = "icmsConfig", deserialize_with = "nullable")]
    pub sis: SisAddress,
    #[serde(deserialize_with = "nullable")]
    pub mini_service: MiniService,
    #[serde(deserialize_with = "nullable")]
    pub image_credential_helper: WithImage,
    #[serde(deserialize_with = "nullable")]
    pub shared_storage: SharedStorage,
    #[serde(deserialize_with = "nullable")]
    pub webhook_config: WithImage,
    #[serde(deserialize_with = "nullable")]
    pub otel_collector: OtelCollector,
    #[serde(deserialize_with = "nullable")]
    pub agent: AgentDto,
}

/// How volumes of the model cache are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CacheMount {
    #[serde(deserialize_with = "nullable")]
    pub disabled: bool,
    #[serde(deserialize_with = "nullable")]
    pub mount_options: String,
}

/// Where SIS is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SisAddress {
    #[serde(rename = "icmsServiceURL", deserialize_with = "nullable")]
    pub url: String,
    /// Empty: the URL's.
    #[serde(rename = "icmsServiceHostHeaderOverride", deserialize_with = "nullable")]
    pub host: String,
    #[serde(rename = "publicKeysetEndpoint", deserialize_with = "nullable")]
    pub key_set: String,
    #[serde(rename = "tokenURL", deserialize_with = "nullable")]
    pub token_url: String,
}

/// Where Helm charts are rendered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MiniService {
    #[serde(rename = "helmReValServiceURL", deserialize_with = "nullable")]
    pub reval_url: String,
    #[serde(rename = "helmReValServiceHostHeaderOverride", deserialize_with = "nullable")]
    pub reval_host: String,
}

/// A part that is only its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WithImage {
    #[serde(deserialize_with = "nullable")]
    pub image_config: Image,
}

/// An image, where one is named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Image {
    #[serde(deserialize_with = "nullable")]
    pub repository: String,
    #[serde(deserialize_with = "nullable")]
    pub tag: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SharedStorage {
    #[serde(deserialize_with = "nullable")]
    pub image_repository: String,
    #[serde(deserialize_with = "nullable")]
    pub image_tag: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OtelCollector {
    #[serde(deserialize_with = "nullable")]
    pub enabled: bool,
    #[serde(deserialize_with = "nullable")]
    pub image_config: Image,
}

/// What only the agent wants to know.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AgentDto {
    #[serde(rename = "natsURL", deserialize_with = "nullable")]
    pub nats_url: String,
    #[serde(deserialize_with = "nullable")]
    pub nats_host_override: String,
    #[serde(deserialize_with = "nullable")]
    pub llm_request_router_address: String,
    /// As in a pod's spec.
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<serde_json::Value>,
}

/// The ConfigMap does not say what the cluster wants to be.
#[derive(Debug, Error)]
pub enum DtoError {
    #[error(
        "the ConfigMap {map} has no {key}: the chart is not in self-managed mode; install it with ngcConfig.clusterSource=self-managed",
        map = names::CLUSTER_DTO, key = names::CLUSTER_DTO_KEY
    )]
    NotSelfManaged,
    #[error(
        "{key} of the ConfigMap {map} is not as the chart writes it: correct the chart's values, or what was edited by hand",
        map = names::CLUSTER_DTO, key = names::CLUSTER_DTO_KEY
    )]
    Yaml(#[source] Box<serde_saphyr::Error>),
    #[error(
        "gpusB64 in {key} of the ConfigMap {map} is no list of GPUs as JSON in base64: {why}",
        map = names::CLUSTER_DTO, key = names::CLUSTER_DTO_KEY
    )]
    Gpus { why: String },
}

impl ClusterDto {
    /// # Errors
    /// The ConfigMap has no cluster, or one that cannot be read.
    pub fn of(map: &ConfigMap) -> Result<Self, DtoError> {
        let text = text_of(map).ok_or(DtoError::NotSelfManaged)?;
        text.parse()
    }

    /// Where SIS is, and the `Host` to send where it is another.
    pub fn sis(&self) -> (String, Option<String>) {
        let host = Some(self.sis.host.clone()).filter(|host| !host.is_empty());
        (self.sis.url.clone(), host)
    }

    /// The agent finds the GPUs, nobody lists them.
    pub fn is_dynamic(&self) -> bool {
        self.capabilities.iter().any(|it| it == DYNAMIC_DISCOVERY)
    }

    /// The cluster as SIS is asked for it. The GPUs are those of `gpusB64` where the agent does not find them.
    ///
    /// # Errors
    /// `gpusB64` is needed and cannot be read.
    pub fn new_cluster(&self) -> Result<NewCluster, DtoError> {
        Ok(NewCluster {
            cluster_name: self.cluster_name.clone(),
            cluster_group_name: self.cluster_group_name.clone(),
            cluster_description: self.cluster_description.clone(),
            nca_id: self.nca_id.clone(),
            cloud_provider: self.cloud_provider.clone(),
            nvca_version: self.nvca_version.clone(),
            region: self.region.clone(),
            capabilities: self.capabilities.clone(),
            attributes: self.attributes.clone(),
            gpus: if self.is_dynamic() { Vec::new() } else { self.gpus()? },
            oauth_client_id: self.oauth_client_id.clone(),
        })
    }

    /// # Errors
    /// `gpusB64` cannot be read.
    pub fn gpus(&self) -> Result<Vec<Gpu>, DtoError> {
        let encoded: String = self.gpus_b64.split_whitespace().collect();
        if encoded.is_empty() {
            return Ok(Vec::new());
        }
        let unreadable = |why: String| DtoError::Gpus { why };
        let json = BASE64.decode(encoded).map_err(|error| unreadable(error.to_string()))?;
        let gpus: Option<Vec<Gpu>> = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        Ok(gpus.unwrap_or_default())
    }

    /// What is empty gets its default.
    fn filled(mut self) -> Self {
        let fill = |field: &mut String, default: &str| {
            if field.trim().is_empty() {
                default.clone_into(field);
            }
        };
        fill(&mut self.cluster_name, DEFAULT_NAME);
        fill(&mut self.cluster_group_name, DEFAULT_NAME);
        fill(&mut self.nca_id, DEFAULT_NAME);
        fill(&mut self.cloud_provider, DEFAULT_PROVIDER);
        fill(&mut self.region, DEFAULT_REGION);
        fill(&mut self.oauth_client_id, DEFAULT_CLIENT_ID);
        fill(&mut self.cluster_description, &self.cluster_name);
        fill(&mut self.sis.url, names::DEFAULT_SIS_URL);
        fill(&mut self.mini_service.reval_url, names::DEFAULT_REVAL_URL);
        fill(&mut self.agent.nats_url, names::DEFAULT_NATS_URL);
        self
    }
}

impl std::str::FromStr for ClusterDto {
    type Err = DtoError;

    fn from_str(text: &str) -> Result<Self, DtoError> {
        let dto: Self = serde_saphyr::from_str(text).map_err(|error| DtoError::Yaml(Box::new(error)))?;
        Ok(dto.filled())
    }
}

impl DtoError {
    /// Stable, for conditions, events and metric labels.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotSelfManaged => "NotSelfManaged",
            Self::Yaml(_) => "ClusterDtoInvalid",
            Self::Gpus { .. } => "GpusInvalid",
        }
    }
}

/// What the ConfigMap says, as it is written there.
pub fn text_of(map: &ConfigMap) -> Option<&str> {
    let text = map.data.as_ref()?.get(names::CLUSTER_DTO_KEY)?;
    (!text.trim().is_empty()).then_some(text)
}

/// Helm writes a key without a value for what is not set.
fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
