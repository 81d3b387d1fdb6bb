//! The command line of nvca-operator. Every flag is also an `NVCA_OPERATOR_…` variable; those that the real chart sets have its
//! variables' names. Flags of the real operator that mean nothing here are taken and told.

use berth_runtime::{
    args::{AdminArgs, HumanDuration, TelemetryArgs},
    kubernetes::KubernetesArgs,
};
use clap::Parser;
use serde::Serialize;

use super::settings::{EncodedError, Image, Settings, Vault, pull_secrets, resources};
use crate::names;

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA_OPERATOR";

/// Runs the agent of this cluster, and keeps it as the NVCFBackend says
#[derive(Debug, Clone, Parser, Serialize)]
#[command(
    name = "nvca-operator",
    version,
    mut_arg("admin", |arg| arg.default_value("0.0.0.0:8000"))
)]
pub struct Args {
    /// Namespace of the operator: of its ConfigMaps and of the NVCFBackend
    #[arg(long, value_name = "NAMESPACE", default_value = names::OPERATOR_NAMESPACE, env = "OPERATOR_NAMESPACE")]
    pub system_namespace: String,

    /// Image of the agent, without a tag
    #[arg(
        long,
        value_name = "IMAGE",
        default_value = "",
        env = "NVCA_IMAGE_REPO",
        hide_default_value = true
    )]
    pub nvca_image_repo: String,

    /// When the agent's image is pulled
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,

    /// Pull secrets of the agent and of function pods: JSON in base64
    #[arg(
        long,
        value_name = "BASE64",
        default_value = "",
        env = "ADDITIONAL_IMAGE_PULL_SECRETS_B64",
        hide_default_value = true
    )]
    pub image_pull_secrets_b64: String,

    /// Resources of the agent's container: JSON in base64
    #[arg(
        long,
        value_name = "BASE64",
        default_value = "",
        env = "AGENT_RESOURCES_B64",
        hide_default_value = true
    )]
    pub agent_resources_b64: String,

    /// Resources of the webhook's container: JSON in base64
    #[arg(
        long,
        value_name = "BASE64",
        default_value = "",
        env = "WEBHOOK_RESOURCES_B64",
        hide_default_value = true
    )]
    pub webhook_resources_b64: String,

    /// Run the agent on nodes with this label only; with --node-selector-value
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    pub node_selector_key: String,

    /// See --node-selector-key. Empty: on any node
    #[arg(long, value_name = "VALUE", default_value = "", hide_default_value = true)]
    pub node_selector_value: String,

    /// Priority class of the agent's pod
    #[arg(long, value_name = "CLASS", default_value = "", hide_default_value = true)]
    pub priority_class_name: String,

    /// Networks of the cluster: functions reach the internet but not these
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        env = "K8S_CLUSTER_NETWORK_CIDRS",
        default_value = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/12"
    )]
    pub cluster_network_cidrs: Vec<String>,

    /// OpenBao, as the agent's pod reaches it. Empty: the injector's default
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub vault_address: String,

    /// Where OpenBao has its roles for service accounts
    #[arg(long, value_name = "PATH", default_value = "auth/jwt")]
    pub vault_auth_path: String,

    /// What the agent's token for OpenBao is for: as OpenBao's role has it
    #[arg(
        long,
        value_name = "AUDIENCE",
        default_value = "http://openbao-server.vault-system.svc.cluster.local:8200"
    )]
    pub vault_audience: String,

    /// Secret of nvca-system with the agent's secrets.json. Empty: OpenBao's agent is injected, and renders it
    #[arg(long, value_name = "SECRET", default_value = "", hide_default_value = true)]
    pub agent_secret: String,

    /// Log level of the agent
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub agent_log_level: String,

    /// Ask the agent how it is here
    #[arg(long, value_name = "URL", default_value = "http://nvca.nvca-system:8000/healthz")]
    pub agent_health_url: String,

    /// How long a deletion waits for functions to end, and for namespaces to go
    #[arg(long, value_name = "DURATION", default_value = "25s")]
    pub drain_timeout: HumanDuration,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub admin: AdminArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// A value of the command line cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--{flag}")]
pub struct ArgsError {
    flag: &'static str,
    #[source]
    source: EncodedError,
}

impl Args {
    /// What the objects are made with.
    ///
    /// # Errors
    /// A value in base64 is not what it should be.
    pub fn settings(&self) -> Result<Settings, ArgsError> {
        let of = |flag: &'static str| move |source| ArgsError { flag, source };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let key = given(&self.node_selector_key);
        Ok(Settings {
            namespace: self.system_namespace.clone(),
            image: Image {
                repository: self.nvca_image_repo.clone(),
                pull_policy: self.image_pull_policy.clone(),
            },
            pull_secrets: pull_secrets(&self.image_pull_secrets_b64).map_err(of("image-pull-secrets-b64"))?,
            agent_resources: resources(&self.agent_resources_b64).map_err(of("agent-resources-b64"))?,
            webhook_resources: resources(&self.webhook_resources_b64).map_err(of("webhook-resources-b64"))?,
            node_selector: key.zip(given(&self.node_selector_value)),
            priority_class: given(&self.priority_class_name),
            network_cidrs: self
                .cluster_network_cidrs
                .iter()
                .filter(|it| !it.is_empty())
                .cloned()
                .collect(),
            vault: Vault {
                address: given(&self.vault_address),
                auth_path: self.vault_auth_path.clone(),
                audience: self.vault_audience.clone(),
            },
            agent_secret: given(&self.agent_secret),
            log_level: self.agent_log_level.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let args = Args::try_parse_from(["nvca-operator"]).unwrap();
        let settings = args.settings().unwrap();
        assert_eq!(settings.namespace, "nvca-operator");
        assert_eq!(settings.node_selector, None);
        assert_eq!(settings.network_cidrs.len(), 4);
    }

    #[test]
    fn garbage_names_its_flag() {
        let args = Args::try_parse_from(["nvca-operator", "--agent-resources-b64", "%"]).unwrap();
        assert_eq!(args.settings().unwrap_err().to_string(), "--agent-resources-b64");
        assert!(Args::try_parse_from(["nvca-operator", "--image-pull-policy", "maybe"]).is_err());
    }
}
