//! What a device and a node are, what a pod asks, whether it fits, on which devices, and how good that would be.
//!
//! Pure: no clock, no I/O, no async, no kube. The daemon and the scheduler use the very same code, so the scheduler's
//! answer is the one that the node gives when it is asked in earnest.
//!
//! ```text
//! Shape (what a pod asks) ─┐
//! NodeState (what is free) ┴─► fit::plan ─► Plan (which devices)   or   Refusal (a reason, per device too)
//!
//! Engine (many NodeStates) ──► decide ─► Decision (nodes, best first, each with its Plan)
//! ```
#![forbid(unsafe_code)]

pub mod device;
pub mod engine;
pub mod fit;
pub mod ids;
mod mix;
pub mod node;
mod policy;
pub mod product;
pub mod refusal;
pub mod shape;
mod tables;
#[cfg(test)]
mod testing;
pub mod units;

pub use device::{ComputeMode, DeviceState, Health, MigSlot, Room};
pub use engine::{
    Candidates, Decision, Engine, EngineConfig, MixConfig, NodeExplanation, ParsePolicyError, PolicyName, Ranked,
    Ranking, RebuildJob, Simulation, Tables, Ties, Weights,
};
pub use fit::{Grant, GrantSize, NodeVerdict, Plan};
pub use ids::{DeviceUuid, GpuModel, LeaseId, MigProfile, NodeName, ParseIdError, PciBusId, PodRef, PodUid};
pub use node::NodeState;
pub use policy::Terms;
pub use refusal::{Reason, Refusal};
pub use shape::{GpuShape, Shape, ShapeError, ShareSize};
pub use units::{CpuMilli, MemoryBytes, MilliGpu};
