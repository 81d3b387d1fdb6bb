//! berthd, the daemon on every GPU node. See `app` for how the parts are put together.
//!
//! ```text
//!  driver ──► inventory ─┐                       ┌─► grpc (unix socket, TCP)
//! kubelet ──► podresources ─► book ──► view ─────┼─► metrics, /debug/ledger
//!  gRPC clients ─────────┘     │                 ├─► watch streams
//!                           journal              └─► mirror (GpuNode, label, events)
//! ```
#![forbid(unsafe_code)]

pub mod app;
pub mod args;
mod book;
mod cgroup;
mod conditions;
pub mod config;
mod grpc;
mod health_store;
mod inventory;
pub mod journal;
mod metrics;
mod mirror;
mod podresources;
