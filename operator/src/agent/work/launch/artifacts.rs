//! Finished objects, as an older control plane sends them: base64 of YAML. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Launch, LaunchError, decode};
use crate::agent::work::message::Wish;

pub(super) fn launch(wish: &Wish, given: &[Value]) -> Result<Launch, LaunchError> {
    let mut launch = Launch::default();
    let mut pods = Vec::new();
    for artifact in given {
        let text = |key: &str| artifact[key].as_str().unwrap_or_default();
        let (kind, spec) = (text("artifactType"), text("artifactSpec"));
        match kind {
            "POD_SPEC" => pods.push(pod(spec)?),
            "SECRET_SPEC" => launch.secrets.push(parse(kind, spec)?),
            "CONFIGMAP_SPEC" => launch.config_maps.push(parse(kind, spec)?),
            // Without a cache of models each pod fetches its own.
            "INIT_CACHE_JOB_SPEC" | "BD_CREATE_SPEC" => {}
            "HELM_CHART" | "HELM_CREDS" => return Err(LaunchError::Unsupported("functions that are Helm charts")),
            _ => {
                return Err(LaunchError::unreadable(
                    "launchArtifacts",
                    &format!("nobody knows a {kind:?}"),
                ));
            }
        }
    }
    // One for each instance, or one for all.
    let first = pods.first().cloned().ok_or(LaunchError::Missing("POD_SPEC"))?;
    let mut pods = pods.into_iter();
    let instances =
        (0..wish.instances).map(|index| (wish.instance(index), pods.next().unwrap_or_else(|| first.clone())));
    launch.pods = instances.collect::<BTreeMap<_, _>>();
    Ok(launch)
}

/// A whole pod, or its spec alone.
fn pod(base64: &str) -> Result<Pod, LaunchError> {
    let document: Value = parse("POD_SPEC", base64)?;
    // The parser quotes what it read, and that may be a secret.
    let wrong = |_| LaunchError::unreadable("POD_SPEC", "it is not such an object");
    let mut pod: Pod = if document.get("containers").is_some() {
        let spec: PodSpec = serde_json::from_value(document).map_err(wrong)?;
        Pod {
            spec: Some(spec),
            ..Pod::default()
        }
    } else {
        serde_json::from_value(document).map_err(wrong)?
    };
    let spec = pod.spec.as_mut().filter(|spec| !spec.containers.is_empty());
    let spec = spec.ok_or(LaunchError::Missing("container in its POD_SPEC"))?;
    // What the control plane says of other pods is not true of this cluster.
    if let Some(affinity) = &mut spec.affinity {
        affinity.pod_affinity = None;
        affinity.pod_anti_affinity = None;
    }
    pod.status = None;
    Ok(pod)
}

fn parse<T: DeserializeOwned>(kind: &str, base64: &str) -> Result<T, LaunchError> {
    let bytes = decode(kind, base64)?;
    // The parser quotes what it read, and that may be a secret.
    serde_saphyr::from_slice(&bytes).map_err(|_| LaunchError::unreadable(kind, "it is not such an object"))
}
