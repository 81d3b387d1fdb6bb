//! What the chart tells the operator besides the cluster: images, resources, where things run. Parsed once, at the edge.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

/// For everything that the operator makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The operator's own.
    pub namespace: String,
    pub image: Image,
    /// Secrets that pull the agent's image and those of function pods: copies of nvca-mirror.
    pub pull_secrets: Vec<String>,
    pub agent_resources: Value,
    pub webhook_resources: Value,
    /// Nodes of the agent's pod.
    pub node_selector: Option<(String, String)>,
    pub priority_class: Option<String>,
    /// Addresses that functions must not reach.
    pub network_cidrs: Vec<String>,
    pub vault: Vault,
    /// Secret with the agent's tokens, where OpenBao's agent is not to be injected.
    pub agent_secret: Option<String>,
    pub log_level: String,
}

/// Of the agent; its tag is the agent's version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Image {
    pub repository: String,
    pub pull_policy: String,
}

/// How the agent's pod gets its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vault {
    /// `None`: the injector's default.
    pub address: Option<String>,
    /// Where its roles for service accounts are.
    pub auth_path: String,
    /// What the pod's token for OpenBao is for.
    pub audience: String,
}

/// A base64 value of the chart is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it is no {what} as JSON in base64: {why}")]
pub(super) struct EncodedError {
    what: &'static str,
    why: String,
}

/// Names of Secrets: `[{"name": …}]`, `{"imagePullSecrets": [{"name": …}]}` or nothing, as JSON in base64.
///
/// # Errors
/// It is something else.
pub(super) fn pull_secrets(encoded: &str) -> Result<Vec<String>, EncodedError> {
    let what = "list of pull secrets";
    let value = decoded(what, encoded)?.unwrap_or_default();
    let list = value.get("imagePullSecrets").unwrap_or(&value);
    let bad = || EncodedError {
        what,
        why: "a list of objects with a name is needed".to_owned(),
    };
    if list.is_null() {
        return Ok(Vec::new());
    }
    let names = list.as_array().ok_or_else(bad)?.iter();
    let names = names.map(|it| it["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned));
    names.collect::<Option<Vec<_>>>().ok_or_else(bad)
}

/// A container's resources as JSON in base64; nothing: none.
///
/// # Errors
/// It is something else.
pub(super) fn resources(encoded: &str) -> Result<Value, EncodedError> {
    let what = "map of resources";
    match decoded(what, encoded)? {
        None => Ok(json!({})),
        Some(value) if value.is_object() => Ok(value),
        Some(_) => Err(EncodedError {
            what,
            why: "an object with requests and limits is needed".to_owned(),
        }),
    }
}

fn decoded(what: &'static str, encoded: &str) -> Result<Option<Value>, EncodedError> {
    let compact: String = encoded.split_whitespace().collect();
    if compact.is_empty() {
        return Ok(None);
    }
    let bad = |why: String| EncodedError { what, why };
    let json = BASE64.decode(compact).map_err(|error| bad(error.to_string()))?;
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
pub(super) mod fixture {
    use super::*;

    pub(crate) fn settings() -> Settings {
        Settings {
            namespace: "nvca-operator".to_owned(),
            image: Image {
                repository: "registry.example/nvca".to_owned(),
                pull_policy: "IfNotPresent".to_owned(),
            },
            pull_secrets: vec!["pull".to_owned()],
            agent_resources: json!({"limits": {"memory": "64Mi"}}),
            webhook_resources: json!({}),
            node_selector: None,
            priority_class: None,
            network_cidrs: vec!["10.0.0.0/8".to_owned()],
            vault: Vault {
                address: None,
                auth_path: "auth/jwt".to_owned(),
                audience: "http://openbao.example:8200".to_owned(),
            },
            agent_secret: None,
            log_level: "info".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_secrets_are_read_in_both_forms_and_garbage_is_refused() {
        let encode = |text: &str| BASE64.encode(text);
        assert_eq!(pull_secrets(""), Ok(vec![]));
        assert_eq!(pull_secrets(&encode("null")), Ok(vec![]));
        assert_eq!(pull_secrets(&encode(r#"[{"name":"a"}]"#)), Ok(vec!["a".to_owned()]));
        assert_eq!(
            pull_secrets(&encode(r#"{"imagePullSecrets":[{"name":"a"}]}"#)),
            Ok(vec!["a".to_owned()])
        );
        for bad in [encode("{}x"), encode(r#"[{"nam":"a"}]"#), encode("3"), "%".to_owned()] {
            assert!(
                pull_secrets(&bad)
                    .unwrap_err()
                    .to_string()
                    .contains("list of pull secrets"),
                "{bad}"
            );
        }
    }

    #[test]
    fn resources_are_an_object_or_nothing() {
        assert_eq!(resources(""), Ok(json!({})));
        assert_eq!(
            resources(&BASE64.encode(r#"{"limits":{"cpu":"1"}}"#)),
            Ok(json!({"limits": {"cpu": "1"}}))
        );
        assert!(resources(&BASE64.encode("[]")).is_err());
    }
}
