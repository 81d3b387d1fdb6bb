//! `agent-config/config.yaml`: what the operator tells the agent. The form that both sides share.
//!
//! Keys as the real operator writes them (`icmsurl`, `ncaid`, `NATSURL`); unknown keys are left alone, missing ones have the
//! real agent's defaults. Holds no secret of ours; what a user has workers told is in no error.

mod times;

use std::collections::BTreeMap;

use berth_sis::wire::Gpu;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

pub use self::times::{GoDuration, Times};
use crate::names;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AgentConfig {
    pub agent: Agent,
    pub authz: Authz,
    pub cluster: Cluster,
    /// `prod` or `stg`.
    pub environment: String,
    pub webhook: Webhook,
    pub workload: Workload,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Agent {
    /// Only for people on the node.
    pub admin_addr: String,
    pub feature_flags: Vec<String>,
    #[serde(rename = "helmReValServiceURL")]
    pub reval_url: String,
    #[serde(rename = "icmsurl")]
    pub sis_url: String,
    #[serde(rename = "icmsHostHeaderOverride", skip_serializing_if = "Option::is_none")]
    pub sis_host: Option<String>,
    pub log_level: String,
    #[serde(rename = "NATSURL")]
    pub nats_url: String,
    pub operator_version: String,
    /// Where functions run.
    pub requests_namespace: String,
    /// The GPUs, where nobody is to find them. The real agent reads them from a ConfigMap of their own.
    #[serde(rename = "staticGPUs", skip_serializing_if = "Vec::is_empty")]
    pub static_gpus: Vec<Gpu>,
    /// Of `/healthz` and `/metrics`.
    #[serde(rename = "svcAddress")]
    pub svc_addr: String,
    pub system_namespace: String,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            admin_addr: "127.0.0.1:8001".to_owned(),
            feature_flags: Vec::new(),
            reval_url: names::DEFAULT_REVAL_URL.to_owned(),
            sis_url: names::DEFAULT_SIS_URL.to_owned(),
            sis_host: None,
            log_level: "info".to_owned(),
            nats_url: names::DEFAULT_NATS_URL.to_owned(),
            operator_version: String::new(),
            requests_namespace: names::BACKEND_NAMESPACE.to_owned(),
            static_gpus: Vec::new(),
            svc_addr: ":8000".to_owned(),
            system_namespace: names::SYSTEM_NAMESPACE.to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Authz {
    /// Where OpenBao's agent renders the tokens and the NATS key.
    #[serde(rename = "selfManagedVaultSecretsJSONPath")]
    pub secrets_file: String,
}

impl Default for Authz {
    fn default() -> Self {
        Self {
            secrets_file: names::SECRETS_FILE.to_owned(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cluster {
    pub attributes: Vec<String>,
    pub cloud_provider: String,
    #[serde(rename = "groupID")]
    pub group_id: String,
    pub group_name: String,
    pub id: String,
    pub name: String,
    #[serde(rename = "ncaid")]
    pub nca_id: String,
    pub nvca_version: String,
    pub region: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Webhook {
    #[serde(rename = "svcAddress")]
    pub svc_addr: String,
    /// In the agent's namespace; read through the API, as the real webhook server does.
    pub tls_secret_name: String,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            svc_addr: ":8443".to_owned(),
            tls_secret_name: names::WEBHOOK_CERTIFICATE.to_owned(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Workload {
    /// Pull secrets of every function pod: copies of `nvca-mirror` in the pod's namespace.
    pub image_pull_secrets: Vec<String>,
    /// As in a pod's spec.
    pub tolerations: Vec<serde_json::Value>,
    /// What workers of functions are told in place of what the control plane says. The real operator writes the names in small
    /// letters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub function_env_overrides: BTreeMap<String, String>,
    /// As [`Self::function_env_overrides`], for tasks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub task_env_overrides: BTreeMap<String, String>,
    #[serde(flatten)]
    pub times: Times,
}

/// The text is no configuration. Without the lines that the parser shows: users' values may be in them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(String);

impl From<&serde_saphyr::Error> for Malformed {
    fn from(error: &serde_saphyr::Error) -> Self {
        Self(error.without_snippet().to_string())
    }
}

impl AgentConfig {
    /// # Errors
    /// It is no YAML, or a value has another type than it must have.
    pub fn parse(yaml: &[u8]) -> Result<Self, Malformed> {
        serde_saphyr::from_slice(yaml).map_err(|error| Malformed::from(&error))
    }

    /// Whether a feature flag is on: `KAIScheduler` or `+KAIScheduler`.
    pub fn has(&self, flag: &str) -> bool {
        self.agent
            .feature_flags
            .iter()
            .any(|it| it.strip_prefix('+').unwrap_or(it) == flag)
    }

    /// Whether a feature flag that is on by itself is off: `-MultiNodeWorkloads`.
    pub fn lacks(&self, flag: &str) -> bool {
        let off = |it: &String| it.strip_prefix('-') == Some(flag);
        self.agent.feature_flags.iter().any(off)
    }
}

/// Numbers and switches, too, as people write them. No error shows a value.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Texts(BTreeMap<String, Scalar>),
        Nothing(()),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Number(serde_json::Number),
        Switch(bool),
    }
    let texts = match Form::deserialize(deserializer)? {
        Form::Texts(texts) => texts,
        Form::Nothing(()) => BTreeMap::new(),
    };
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Number(number) => number.to_string(),
        Scalar::Switch(switch) => switch.to_string(),
    };
    Ok(texts.into_iter().map(|(name, scalar)| (name, text(scalar))).collect())
}
