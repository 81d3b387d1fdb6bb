//! From a wish to the objects that do it: a pod for each instance, and the Secrets and ConfigMaps that they need. Pure.
//!
//! Two forms: a launch specification, from which pods are built as the real agent builds them ([`container`]), or finished
//! artifacts ([`artifacts`]). What is not supported is refused with the words that the control plane is told.

mod artifacts;
mod container;
mod dress;
mod environment;
mod secrets;
mod words;

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_runtime::Misread;
use berth_sis::wire::LaunchSpecification;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use serde_json::Value;
use thiserror::Error;

use super::message::Wish;
use crate::webhook::Gates;

/// What this cluster adds to every pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Site {
    pub(crate) namespace: String,
    pub(crate) cluster_name: String,
    pub(crate) region: String,
    pub(crate) gates: Gates,
    /// How long a function's worker may take until it is ready, as Go writes durations.
    pub(crate) ready_timeout: String,
    /// Names of pull secrets in the namespace.
    pub(crate) pull_secrets: Vec<String>,
    /// What workers are told in place of what the message says.
    pub(crate) function_env: BTreeMap<String, String>,
    pub(crate) task_env: BTreeMap<String, String>,
}

/// Everything that is to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Launch {
    pub(crate) secrets: Vec<Secret>,
    pub(crate) config_maps: Vec<ConfigMap>,
    /// By instance.
    pub(crate) pods: BTreeMap<String, Pod>,
}

/// Why a wish cannot be done here: told to the control plane.
#[derive(Debug, Error)]
pub(crate) enum LaunchError {
    #[error("this agent does not run {0}")]
    Unsupported(&'static str),
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("{what} of the message cannot be read: {why}")]
    Unreadable { what: String, why: String },
}

impl LaunchError {
    /// Stable name of the error.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Unsupported(_) => "LaunchUnsupported",
            Self::Missing(_) => "LaunchIncomplete",
            Self::Unreadable { .. } => "LaunchUnreadable",
        }
    }

    fn unreadable(what: &str, why: &(impl ToString + ?Sized)) -> Self {
        Self::Unreadable {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }
}

/// The objects of a wish. Without `owner` they are complete but for the reference to their `ICMSRequest`.
///
/// # Errors
/// It is not supported, or the message lacks something.
pub(crate) fn launch(wish: &Wish, site: &Site, owner: Option<&OwnerReference>) -> Result<Launch, LaunchError> {
    supported(wish)?;
    let mut launch = match wish.raw["launchArtifacts"].as_array() {
        Some(given) if !given.is_empty() => artifacts::launch(wish, given)?,
        _ => container::launch(wish, site)?,
    };
    for (instance, pod) in &mut launch.pods {
        dress::pod(pod, instance, wish, site, owner);
    }
    let secrets = launch.secrets.iter_mut().map(|secret| &mut secret.metadata);
    for metadata in secrets.chain(launch.config_maps.iter_mut().map(|map| &mut map.metadata)) {
        dress::metadata(metadata, wish, site, owner);
    }
    Ok(launch)
}

fn supported(wish: &Wish) -> Result<(), LaunchError> {
    let LaunchSpecification { helm_chart, other, .. } = &wish.message.launch_specification;
    if helm_chart.as_ref().is_some_and(|chart| !chart.is_empty()) {
        return Err(LaunchError::Unsupported("functions that are Helm charts"));
    }
    if other
        .get("telemetries")
        .is_some_and(|telemetries| !telemetries.is_null())
    {
        return Err(LaunchError::Unsupported(
            "functions with telemetry endpoints of their own",
        ));
    }
    let details = wish.message.function_details.as_ref();
    match details.and_then(|details| details.function_type.as_deref()) {
        Some("LLM") => Err(LaunchError::Unsupported("functions of type LLM")),
        Some("STREAMING") => Err(LaunchError::Unsupported("functions of type STREAMING")),
        _ => Ok(()),
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, LaunchError> {
    BASE64_STANDARD
        .decode(text.trim())
        // Its error shows a letter.
        .map_err(|_| LaunchError::unreadable(what, "it is no base64"))
}

/// A typed object out of what was put together here.
fn object<T: serde::de::DeserializeOwned>(what: &str, json: Value) -> Result<T, LaunchError> {
    serde_json::from_value(json).map_err(|error| LaunchError::unreadable(what, &Misread::from(error)))
}

#[cfg(test)]
mod tests;
