//! `nvca-operator`: makes the cluster what the `NVCFBackend` says, and keeps it so.
//!
//! ```text
//! watches ──► live (what is there) ──► plan (pure: what is to be done) ──► controller (does it) ──► API server
//!                                        ▲ manifest: the objects            ▲ health: asks the agent
//! ```
//! Nothing is done by the clock: a deleted or changed object, another registration, a new value of the chart come as events.

pub mod app;
pub mod args;
mod attempts;
mod backend;
mod certificates;
pub mod cleanup;
mod controller;
mod definitions;
mod events;
mod health;
mod live;
mod manifest;
mod merge;
mod metrics;
mod object;
mod plan;
mod settings;
mod status;
mod teardown;

pub use settings::Settings;
pub use teardown::Report;
