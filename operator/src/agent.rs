//! The agent `nvca`: what this cluster has, told to SIS; what SIS asks for, run as pods.
//!
//! ```text
//! Nodes, GpuNodes ─► inventory ─► shapes ─► register ─┐
//!                        │    └──► heartbeat ─────────┴─► report ─► SIS
//!                        ├──► labels ─► nodes
//!                        └──► Capacity ─► (queues and pods), which tell what their requests hold
//! ```
//! Tokens come from OpenBao's file, so the cluster's own key set is not published to SIS: that is for tokens that the
//! cluster signs itself.

pub mod app;
pub mod args;
pub mod fixed;
pub mod health;
pub mod heartbeat;
pub mod inventory;
mod labels;
pub mod metrics;
pub mod register;
mod report;
pub mod schedule;
pub mod seam;
mod server;
pub mod settings;
pub mod shapes;
pub mod view;
pub mod work;
mod worker;
