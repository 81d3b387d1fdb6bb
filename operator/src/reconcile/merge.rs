//! What the user merges into the agent's configuration: the ConfigMap `agent-config-merge`, under the names of the real
//! operator. Pure; it knows no object but that one.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use thiserror::Error;

use super::backend::merge;
use crate::{
    agent_config::{AgentConfig, Malformed},
    names,
};

/// It cannot be merged. Until it can, what was applied last stays.
#[derive(Debug, Error)]
#[error(
    "{key} of the ConfigMap {map} cannot be merged into the agent's configuration: {why}; correct agentConfig.mergeConfig",
    key = names::AGENT_CONFIG_KEY, map = names::AGENT_CONFIG_MERGE
)]
pub(super) struct MergeError {
    why: String,
}

/// What is to be merged; nothing: null.
///
/// # Errors
/// It is no YAML, or no mapping.
pub(super) fn of(map: Option<&ConfigMap>) -> Result<Value, MergeError> {
    let text = map.and_then(|map| map.data.as_ref()?.get(names::AGENT_CONFIG_KEY));
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        return Ok(Value::Null);
    };
    let value: Value = serde_saphyr::from_str(text).map_err(|error| MergeError {
        why: Malformed::from(&error).to_string(),
    })?;
    match value {
        Value::Object(_) | Value::Null => Ok(value),
        _ => Err(MergeError {
            why: "it is no mapping".to_owned(),
        }),
    }
}

/// The configuration with it, and the keys of it that mean nothing to this agent.
///
/// # Errors
/// A value has another type than what it stands for.
pub(super) fn into(config: AgentConfig, given: &Value) -> Result<(AgentConfig, Vec<String>), MergeError> {
    if given.is_null() {
        return Ok((config, Vec::new()));
    }
    // Our own types: maps have text keys, nothing else can fail.
    let json = |config: &AgentConfig| serde_json::to_value(config).unwrap_or_default();
    let mut merged = json(&config);
    merge(&mut merged, given.clone());
    let config = serde_json::from_value(merged).map_err(|error| MergeError { why: error.to_string() })?;
    let mut unused = Vec::new();
    unknown(given, &json(&config), "", &mut unused);
    Ok((config, unused))
}

/// Keys of `given` that are not in `taken`, as paths. What says nothing is not looked for.
fn unknown(given: &Value, taken: &Value, path: &str, to: &mut Vec<String>) {
    let Value::Object(fields) = given else { return };
    for (key, value) in fields {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match taken.get(key) {
            Some(taken) => unknown(value, taken, &path, to),
            None if says_nothing(value) => {}
            None => to.push(path),
        }
    }
}

/// As such it is left out of the configuration's own text.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim_matches(['0', 's', 'm', 'h']).is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn merged(text: &str) -> Result<(AgentConfig, Vec<String>), MergeError> {
        let map = ConfigMap {
            data: Some([(names::AGENT_CONFIG_KEY.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        let mut config = AgentConfig::default();
        config.cluster.name = "c".to_owned();
        into(config, &of(Some(&map))?)
    }

    #[test]
    fn what_is_given_wins_and_what_means_nothing_is_named() {
        let text = "agent: {logLevel: debug}\ncluster: {validationPolicy: {name: Unrestricted}}\n\
                    workload: {workerDegradationTimeout: 90m, podScheduledThreshold: 0s, functionEnvOverrides: {a: 1}}\n";
        let (config, unused) = merged(text).unwrap();
        assert_eq!(
            (config.agent.log_level.as_str(), config.cluster.name.as_str()),
            ("debug", "c")
        );
        assert_eq!(config.workload.times.worker_degradation(), Duration::from_mins(90));
        assert_eq!(config.workload.function_env_overrides["a"], "1");
        assert_eq!(unused, ["cluster.validationPolicy"]);
        for nothing in ["", " \n", "{}", "null"] {
            let (config, unused) = merged(nothing).unwrap();
            assert_eq!((config.cluster.name.as_str(), unused.len()), ("c", 0), "{nothing:?}");
        }
    }

    #[test]
    fn what_cannot_be_merged_is_told_with_what_to_write_and_without_environments() {
        for (bad, tells) in [
            ("workload: {workerDegradationTimeout: soon}", "1h30m"),
            ("[]", "no mapping"),
            ("a: [", "line"),
        ] {
            let told = merged(bad).unwrap_err().to_string();
            assert!(
                told.contains(tells) && told.contains("agentConfig.mergeConfig"),
                "{told}"
            );
        }
        for bad in [
            "workload: {functionEnvOverrides: {TOKEN: [s3cret]}}",
            "workload: {functionEnvOverrides: s3cret}",
            "workload:\n  functionEnvOverrides: {TOKEN: s3cret}\n bad",
        ] {
            let told = merged(bad).unwrap_err().to_string();
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}
