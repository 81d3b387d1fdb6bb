//! The service's JSON, as it is on the wire. Parsed leniently, because a newer service may say more; written exactly.
//!
//! Sources: the project's notes on the real service and agent at work; `testdata/` holds bodies that those exchanged.

mod agent;
mod cluster;
mod instance;
mod queue;

pub use agent::{
    AgentStatus, Credentials, GpuUsage, Heartbeat, HeartbeatAction, HeartbeatAnswer, JwksUpdate, MaintenanceMode,
    QueueCredentials, RegisterAnswer, RegisterRequest, RegisterStatus,
};
pub use cluster::{CloudProvider, Cluster, ClusterCreated, CreateCluster, Gpu, InstanceType, NodeType, UpdateCluster};
pub use instance::{Acknowledge, HealthInfo, Instance, InstanceList, InstanceUpdate};
pub use queue::{
    CREATION_STREAM, CreationMessage, FunctionDetails, LaunchSpecification, TERMINATION_STREAM, TaskDetails,
    TerminationMessage, creation_subjects, termination_subject,
};

#[cfg(test)]
mod tests;
