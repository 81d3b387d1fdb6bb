//! `nvca-mirror`: pull secrets in every namespace that needs them.
//!
//! ```text
//! namespaces (metadata) ─┐
//! listed names, anywhere ┼─ watch ──► plan (pure) ──► write: create, patch, delete
//! copies (metadata) ─────┘              └──► findings: told once, counted
//! ```
//!
//! Owns the copies: secrets labelled `app.kubernetes.io/managed-by=nvca-mirror`. A secret without that label is somebody
//! else's and stays as it is. Needs, cluster-wide: `namespaces` list, watch; `secrets` list, watch, create, patch, delete.
//! (Not narrower: the namespaces of workloads have names that nobody knows ahead, and copies of names that are not listed any
//! more are found by their label.)

pub mod app;
pub mod args;
pub mod config;
mod follow;
mod metrics;
pub mod plan;
mod watch;
mod write;

/// Value of the label [`crate::names::MANAGED_BY`] on a copy, and the owner of its fields.
pub const MANAGER: &str = "nvca-mirror";
