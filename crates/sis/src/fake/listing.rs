//! A cluster as it is told: all fields always there, null where unset. The one place with these names.

use serde_json::{Value, json};

use super::state::{Row, State};

pub(super) fn told(state: &State, row: &Row, now: u64) -> Value {
    let usage = state.beat(&row.cluster_id, now).map(|beat| {
        let usage = beat.usage.iter().map(|(gpu, [available, capacity, allocated])| {
            let numbers = json!({"available": available, "capacity": capacity, "allocated": allocated});
            (gpu.clone(), numbers)
        });
        Value::Object(usage.collect())
    });
    json!({
        "clusterName": row.name,
        "clusterGroupName": row.group_name,
        "clusterDescription": row.description,
        "ncaId": row.nca_id,
        "authorizedNCAIds": row.authorized,
        "cloudProvider": row.provider,
        "region": row.region,
        "capabilities": row.capabilities,
        "attributes": row.attributes,
        "customAttributes": row.custom_attributes,
        "gpus": row.gpus.iter().map(gpu).collect::<Vec<_>>(),
        "nvcaVersion": row.nvca_version,
        "ssaClientId": row.client_id,
        "oAuthClientId": row.client_id,
        "clusterId": row.cluster_id,
        "clusterGroupId": row.group_id,
        "status": state.status(row, now),
        "clusterSource": row.source,
        "nvcaLastConnected": row.last_connected,
        "k8sVersion": row.k8s_version,
        "gpuUsage": usage,
        // The built-in defaults of the profile: no use to a client. The paths behind them are guessed.
        "sisConfig": {"publicKeysetEndpoint": "http://localhost:9092/.well-known/jwks.json",
            "tokenURL": "http://localhost:9092/token", "spotServiceURL": "http://localhost:9092"},
        "vaultConfig": {"address": "http://localhost:8200"},
        "imageCredentialHelper": {},
        "clusterUpgradeStatus": row.upgrade_status,
        "clusterKeyId": row.key_id,
        "clusterConfigurations": row.configurations,
        "clusterConfigurationFiles": row.configuration_files,
    })
}

/// Stored with `nodeType`, told without.
fn gpu(gpu: &Value) -> Value {
    let mut gpu = gpu.clone();
    for kind in gpu["instanceTypes"].as_array_mut().into_iter().flatten() {
        if let Some(kind) = kind.as_object_mut() {
            kind.remove("nodeType");
        }
    }
    gpu
}
