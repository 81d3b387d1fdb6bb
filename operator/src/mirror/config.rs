//! From flags to a configuration in which nothing is left to check.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth_runtime::{args::HumanDuration, kubernetes::Access};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{args::RunArgs, plan::Wanted};
use crate::names::{WEBHOOK_CA, WEBHOOK_CERTIFICATE};

/// Secrets that the operator or the agent has under these names: a copy would be taken for one of them.
const RESERVED: [&str; 8] = [
    "nvca-image-pull-secret",
    "ngc-service-api-key",
    "ngc-api-key",
    "oauth-client-secret-key",
    "oauth-client-id",
    "otel-nvca-config",
    WEBHOOK_CERTIFICATE,
    WEBHOOK_CA,
];
const SHORTEST_RESYNC: Duration = Duration::from_secs(10);
/// Kubernetes' limits of names.
const LONGEST_NAMESPACE: usize = 63;
const LONGEST_NAME: usize = 253;

/// What nvca-mirror does.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub wanted: Wanted,
    pub resync_period: HumanDuration,
    pub access: Access,
    pub admin: SocketAddr,
}

/// Flags that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("where is the API server? Give --kubeconfig, or run in a pod")]
    NoCluster,
    #[error("{flag} {name:?} is no name of a namespace")]
    Namespace { flag: &'static str, name: String },
    #[error("--additional-image-pull-secrets-b64 is not base64")]
    Base64,
    #[error(r#"--additional-image-pull-secrets-b64 is no JSON list of {{"name": …}}"#)]
    Json,
    #[error("the pull secret {0:?} cannot be: that is no name of a secret")]
    Name(String),
    #[error(
        "the pull secret {0:?} cannot be mirrored: the operator has a secret of its own by that name. Rename yours"
    )]
    Reserved(String),
    #[error("--resync-period must be at least 10s")]
    Resync,
}

/// As in a pod's spec, alone or with its key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    List(Vec<Reference>),
    #[serde(rename_all = "camelCase")]
    Keyed {
        image_pull_secrets: Option<Vec<Reference>>,
    },
    Nothing,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
}

impl Config {
    pub fn from_args(args: &RunArgs) -> Result<Self, ConfigError> {
        let wanted = Wanted {
            names: pull_secrets(&args.additional_image_pull_secrets_b64)?,
            source: namespace("--source-namespace", &args.source_namespace)?,
            target: namespace("--target-namespace", &args.target_namespace)?,
        };
        if args.resync_period.0 < SHORTEST_RESYNC {
            return Err(ConfigError::Resync);
        }
        Ok(Self {
            wanted,
            resync_period: args.resync_period,
            access: args.kubernetes.access().ok_or(ConfigError::NoCluster)?,
            admin: args.admin.admin,
        })
    }
}

fn namespace(flag: &'static str, name: &str) -> Result<String, ConfigError> {
    let name = name.to_owned();
    if is_name(&name, LONGEST_NAMESPACE) && !name.contains('.') {
        return Ok(name);
    }
    Err(ConfigError::Namespace { flag, name })
}

fn pull_secrets(base64: &str) -> Result<BTreeSet<String>, ConfigError> {
    let base64: String = base64.split_whitespace().collect();
    if base64.is_empty() {
        return Ok(BTreeSet::new());
    }
    let json = STANDARD.decode(base64).map_err(|_| ConfigError::Base64)?;
    let listed = match serde_json::from_slice(&json).map_err(|_| ConfigError::Json)? {
        Listed::List(listed) => listed,
        Listed::Keyed { image_pull_secrets } => image_pull_secrets.unwrap_or_default(),
        Listed::Nothing => Vec::new(),
    };
    listed
        .into_iter()
        .map(|reference| pull_secret(reference.name))
        .collect()
}

fn pull_secret(name: String) -> Result<String, ConfigError> {
    if !is_name(&name, LONGEST_NAME) {
        return Err(ConfigError::Name(name));
    }
    if RESERVED.contains(&name.as_str()) {
        return Err(ConfigError::Reserved(name));
    }
    Ok(name)
}

/// A DNS subdomain, as Kubernetes wants it.
fn is_name(name: &str, longest: usize) -> bool {
    let is_label = |label: &str| {
        let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_known) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= longest && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests;
