//! The slim operator and the cluster agent: registers the cluster with the control plane and runs what it asks for.
//!
//! ```text
//! nvca-self-managed ── bootstrap, cluster_dto, registration ──► ConfigMap nvca-cluster-registration
//! nvca-operator ────── reconcile ──► namespaces, RBAC, agent-config, Deployment nvca; status of the NVCFBackend
//! nvca-mirror ──────── mirror ─────► pull secrets in every namespace of the agent
//! nvca ─────────────── agent ──────► register, heartbeat, queues, pods
//! webhook-server ───── webhook ────► pods of functions as KAI and the instance type want them
//! ```
#![forbid(unsafe_code)]

pub mod agent;
pub mod agent_config;
pub mod bootstrap;
pub mod cluster_dto;
pub mod mirror;
pub mod names;
pub mod reconcile;
pub mod registration;
pub mod webhook;
