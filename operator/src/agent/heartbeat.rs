//! The heartbeat: how the cluster is and how many of its GPUs can be had. Pure.

use std::collections::BTreeMap;

use berth_sis::wire::{AgentStatus, GpuUsage, Heartbeat, MaintenanceMode, RegisterStatus};

use super::settings::Settings;
use crate::agent_config::AgentConfig;

/// What SIS shows of an agent that runs as it was installed.
const UPGRADED: &str = "SUCCESS";
const CORDON: &str = "CordonMaintenance";
const CORDON_AND_DRAIN: &str = "CordonAndDrainMaintenance";

/// `registered`: SIS took this agent's registration.
pub fn heartbeat(
    settings: &Settings,
    healthy: bool,
    registered: bool,
    gpu_usage: BTreeMap<String, GpuUsage>,
) -> Heartbeat {
    let config = &settings.config;
    Heartbeat {
        status: if healthy {
            AgentStatus::Healthy
        } else {
            AgentStatus::Unhealthy
        },
        upgrade_status: if registered { UPGRADED.to_owned() } else { String::new() },
        gpu_usage,
        cluster_owner_nca_id: config.cluster.nca_id.clone(),
        nvca_agent_version: settings.version().to_owned(),
        nvca_operator_version: config.agent.operator_version.clone(),
        cluster_name: config.cluster.name.clone(),
        maintenance_mode: maintenance(config).1,
    }
}

/// What the feature flags say of maintenance, as the registration and the heartbeat spell it.
pub fn maintenance(config: &AgentConfig) -> (RegisterStatus, MaintenanceMode) {
    if config.has(CORDON_AND_DRAIN) {
        (RegisterStatus::CordonAndDrain, MaintenanceMode::CordonAndDrain)
    } else if config.has(CORDON) {
        (RegisterStatus::Cordon, MaintenanceMode::CordonOnly)
    } else {
        (RegisterStatus::Ready, MaintenanceMode::None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_body_is_the_one_of_the_real_agent() {
        let mut config = AgentConfig::default();
        config.cluster.name = "nvcf-default".to_owned();
        config.cluster.nca_id = "nvcf-default".to_owned();
        config.cluster.nvca_version = "3.3.0".to_owned();
        let usage = GpuUsage {
            available: 20,
            capacity: 24,
            allocated: 4,
        };
        let usage = BTreeMap::from([("H100".to_owned(), usage)]);
        let beat = heartbeat(&Settings::of(config.clone()), true, true, usage.clone());
        // Recorded from the real agent.
        let recorded = json!({"status": "healthy", "upgradeStatus": "SUCCESS",
            "gpuUsage": {"H100": {"available": 20, "capacity": 24, "allocated": 4}}, "clusterOwnerNcaID": "nvcf-default",
            "nvcaAgentVersion": "3.3.0", "clusterName": "nvcf-default", "maintenanceMode": "None"});
        assert_eq!(serde_json::to_value(&beat).unwrap(), recorded);

        config.agent.feature_flags = vec!["+CordonMaintenance".to_owned()];
        let beat = heartbeat(&Settings::of(config.clone()), false, false, usage.clone());
        let body = serde_json::to_value(&beat).unwrap();
        assert_eq!(
            (&body["status"], &body["maintenanceMode"], &body["upgradeStatus"]),
            (&json!("unhealthy"), &json!("CordonOnly"), &json!(null))
        );
        config.agent.feature_flags = vec!["CordonAndDrainMaintenance".to_owned()];
        assert_eq!(maintenance(&config).0, RegisterStatus::CordonAndDrain);
        let beat = heartbeat(&Settings::of(config), true, true, usage);
        assert_eq!(
            serde_json::to_value(&beat).unwrap()["maintenanceMode"],
            "CordonAndDrain"
        );
    }
}
