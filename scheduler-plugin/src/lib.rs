//! berth-scheduler: turns the nodes' books into placements, for kube-scheduler as an extender.
//!
//! ```text
//! berthd ──WatchNode──► follow ──convert──┐
//! API server ──watch──► source::kubernetes ─┴─► Cluster (reports + what is assumed) ──► Engine
//!                                              ▲ rank              ▲ assume, settle
//! kube-scheduler ──HTTP──► extender: filter, prioritize    bind ───┴──► reserve ──Reserve──► berthd
//!                                                                         └──► binder ──► API server
//! ```
//!
//! The node is the arbiter: everything here decides on a snapshot, and only the daemon's answer to Reserve is a grant. So
//! any number of schedulers may run at once, and each may die at any instant.
#![forbid(unsafe_code)]

pub mod app;
pub mod args;
pub mod binder;
mod cluster;
pub mod config;
mod convert;
mod daemons;
mod debug;
mod decide;
mod decisions;
mod eviction;
mod extender;
mod follow;
mod grpc;
pub mod kai;
mod metrics;
mod pods;
mod random;
mod reserve;
pub mod source;
#[cfg(test)]
mod testing;
pub mod webhook;
